"""The one reader of JSON: whatever a file holds, a value that fits its schema or one short line."""

import json

import numpy as np
import pytest

from mrl_jax.errors import InputError
from mrl_jax.json_files import ANY, Number, parse_json, read_json

SCHEMA = {
    "name": str,
    "share": Number(0, 1),
    "epochs": [Number(1, whole=True)],
    "dims": {str: int},
    "note?": (None, str),
    "test?": {"best": {"epoch": int, "map": {str: float}}},
}
GOOD = {"name": "x", "share": 0.5, "epochs": [1, 2], "dims": {"a": 3}}


def test_what_fits_is_read_as_json_reads_it():
    for more in ({}, {"note": None}, {"note": "é"}, {"more": [{}]}, {"test": {"best": {"epoch": 3, "map": {"a": 1}}}}):
        assert parse_json(json.dumps(GOOD | more), SCHEMA) == GOOD | more


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3, not a string"),
        ({"share": 1.5}, "share is 1.5, not a number from 0 to 1"),
        ({"share": True}, "share is True, not a number"),
        ({"epochs": [1, 0]}, r"epochs\[1\] is 0, not a whole number from 1"),
        ({"epochs": [1.0]}, r"epochs\[0\] is 1.0, not a whole number"),
        ({"epochs": {}}, "epochs is an object, not a list"),
        ({"dims": {"a": "x" * 10**6}}, "dims.a is 'xxx.* … .*', not a whole number"),
        ({"note": []}, "note is a list, not a string"),
        ({"test": {"best": {"epoch": 3}}}, "test.best.map missing"),
        ({"test": {"best": {"epoch": 3, "map": {"a": None}}}}, "test.best.map.a is None, not a number"),
    ],
)
def test_what_does_not_fit_is_said_in_one_short_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(json.dumps(GOOD | change), SCHEMA)
    assert len(str(caught.value)) < 250


def test_missing_names_and_other_values_are_refused():
    with pytest.raises(ValueError, match=r"^dims, epochs, share missing$"):
        parse_json('{"name": "x"}', SCHEMA)
    with pytest.raises(ValueError, match="it holds no object"):
        parse_json("3", SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100 + "]" * 100,
        '{"a":' * 400 + "1" + "}" * 400,
        "1" + "0" * 400,
        "1" * 5000,
        "[1e999]",
        "NaN",
        '{"a": -Infinity}',
        "",
        "{",
        b"\xff",
        '"\\ud8',
    ],
    ids=lambda text: str(text[:12]),
)
def test_no_text_ends_in_another_error(text):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(text, ANY)
    assert len(str(caught.value)) < 250


def test_mutated_files_are_read_or_refused():
    rng, whole = np.random.default_rng(0), json.dumps(GOOD | {"test": {"best": {"epoch": 3, "map": {"a": 0.25}}}})
    refused = 0
    for _ in range(2000):
        text = bytearray(whole.encode())
        for at in rng.integers(0, len(text), rng.integers(1, 4)):
            text[at] = rng.integers(0, 256)
        try:
            parse_json(bytes(text), SCHEMA)
        except ValueError:
            refused += 1
    assert 1000 < refused < 2000


def test_a_file_is_bounded(tmp_path):
    (tmp_path / "x.json").write_text("[1, 2, 3]")
    assert read_json(tmp_path / "x.json", [int]) == [1, 2, 3]
    with pytest.raises(ValueError, match="more than 8 bytes"):
        read_json(tmp_path / "x.json", [int], limit=8)


def test_long_values_are_cut_in_messages_and_the_remedy_stays():
    message = str(InputError(f"tau1 {'A' * 10**6!r}: must be of type float"))
    assert len(message) < 1600
    assert message.startswith("tau1 'AAA")
    assert message.endswith("A': must be of type float")
