"""Texts that are shown and names of files, from hostile texts."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.names import file_name, is_file_name, printable

HOSTILE = ("", ".", "..", "../../evil", "/etc/passwd", "a\\b", "a\nb", "\x1b[31m", "\x9b31m", "C:x", "-rf", "a" * 300)


@pytest.mark.parametrize("text", ["größe", "日本語 の", "👨‍👩‍👧", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "a\u00a0b", "\\n", "noise0.2"])
def test_texts_that_do_no_harm_are_shown_as_they_are(text):
    assert printable(text) == text


def test_escapes_are_those_of_json():
    text = "a\n\r\t\0\x1b]0;t\x07\x7f\x9b31m\u202eb\u2066\u2028\ud800"
    assert printable(text) == "a\\n\\r\\t\\u0000\\u001b]0;t\\u0007\\u007f\\u009b31m\\u202eb\\u2066\\u2028\\ud800"
    shown = printable(json.dumps({"k": text}, ensure_ascii=False))
    assert json.loads(shown) == {"k": text}
    shown.encode()


def test_messages_of_errors_are_printable():
    assert str(DatasetWarning("a\n\x1b[31m")) == "a \\u001b[31m"
    assert (
        str(InputError("modality '\x1b[31m👨‍👩‍👧\u202e'\nis wrong")) == "modality '\\u001b[31m👨‍👩‍👧\\u202e' is wrong"
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_in_their_folder(text, tmp_path):
    path = tmp_path / "inner" / file_name(text)
    path.parent.mkdir()
    path.write_text("x")
    assert os.listdir(path.parent) == [path.name]
    assert path.resolve().parent == path.parent.resolve()


@given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
def test_names_of_files_differ_and_are_single_names(texts):
    names = [file_name(text) for text in texts]
    assert names[0] != names[1]
    for name in names:
        assert is_file_name(name)
        assert len(name.encode()) <= 200
        assert not name.startswith((".", "-", " "))


@pytest.mark.parametrize("text", ["rc-noise0.2-beta0.9-tauauto-lr0.0001-seed0", "image-text", "keys_a=b,c+2", "größe"])
def test_usual_names_stay(text):
    assert file_name(text) == text
    assert is_file_name(text)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("C:x", "-rf", "a" * 300)])
def test_names_that_lead_elsewhere_are_recognised(text):
    assert not is_file_name(text)
