"""Names that come with data: whatever modalities, classes and instances are called, nothing obeys them."""

import csv
import html
import json
import re
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.text import Text
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, Searcher, load_dataset, load_run, sweep
from mrl_jax.audit.__main__ import main as audit_main
from mrl_jax.data.__main__ import main as data_main
from mrl_jax.data.published.prepare import prepare
from mrl_jax.display import drawing
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.embeddings import read_embeddings
from mrl_jax.retrieval import cross_modal_chance
from mrl_jax.run import RunFolder
from mrl_jax.search.__main__ import main as search_main
from mrl_jax.sweep.folder import SweepFolder
from mrl_jax.sweep.results import Outcome, Sweep
from mrl_jax.train import main as train_main

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")]

MODALITIES = ("=cmd|' /C calc'!A0", "../../$\\frac{1}$\x1b[31mred\nline`|")
CLASSES = ("=1+1", "$\\frac{1}$\x1b]0;t\x07|`a`\nb", "\u202e@SUM(1)\x9b31m")


def hostile_arrays():
    arrays = {}
    for key, value in toy_arrays().items():
        split, _, name = key.partition("_")
        own = dict(zip(("sound", "touch"), MODALITIES, strict=True)).get(name, name)
        arrays[f"{split}_{own}"] = value
    for split in ("train", "valid", "test"):
        n = len(arrays[f"{split}_labels"])
        arrays[f"{split}_ids"] = np.array([f"@{i}\x1b[2J\nidline" for i in range(n)])
    return arrays | {"class_names": np.array(CLASSES)}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A data file with hostile names, and the folder of a run on it."""
    folder = tmp_path_factory.mktemp("hostile")
    path = save_npz(folder / "data.npz", hostile_arrays())
    flags = ["--noise-rate", "0.4", "--workdir", str(folder / "run")]
    assert train_main(["--data-path", str(path), *TOY_FLAGS, *flags]) == 0
    return path, folder / "run"


def assert_shown(text):
    """No character that a terminal obeys, and no line that begins within a name."""
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert not re.search(r"^(line`|b\b|idline)", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["train", "eval", "audit", "search", "json", "info"])
def test_terminals_get_no_control_characters(command, hostile, tmp_path, capsys):
    path, run = hostile
    query = f"{MODALITIES[1]}:test:0"
    main, args = {
        "train": (train_main, ["--data-path", str(path), *TOY_FLAGS, "--workdir", str(tmp_path / "run")]),
        "eval": (eval_main, ["--workdir", str(run)]),
        "audit": (audit_main, ["--workdir", str(run)]),
        "search": (search_main, ["--workdir", str(run), "--row", query, "--modality", MODALITIES[0]]),
        "json": (search_main, ["--workdir", str(run), "--row", query, "--modality", MODALITIES[0], "--json"]),
        "info": (data_main, ["info", "h", "--data-path", str(path)]),
    }[command]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert_shown(out)
    assert_shown(err)
    assert "\\u001b" in out
    if command == "json":
        assert json.loads(out)["queries"][0]["query"]["modality"] == MODALITIES[1]


def test_spreadsheets_get_no_formula(hostile, tmp_path):
    _, run = hostile
    files = {"--csv": "scores.csv", "--per-query": "queries.csv"}
    assert eval_main(["--workdir", str(run), *[x for f, n in files.items() for x in (f, str(tmp_path / n))]]) == 0
    assert audit_main(["--workdir", str(run), "--csv", str(tmp_path / "audit.csv")]) == 0
    texts = set()
    for path in tmp_path.glob("*.csv"):
        for row in csv.reader(path.read_text("utf-8").splitlines(keepends=True)):
            texts |= {cell for cell in row if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)}
    assert not [text for text in texts if re.match("[=+@\t\r-]", text)]
    assert {f"'{CLASSES[0]}", f"'{MODALITIES[0]}", f"'{MODALITIES[0]}->{MODALITIES[1]}"} <= texts
    assert "'@0\x1b[2J\nidline" in texts


def test_tables_of_a_sweep_hold_the_names_as_text(hostile, tmp_path):
    folder = RunFolder.open(hostile[1])
    outcome = Outcome(folder.config(), folder.result(), folder.metrics(), None, None)
    second = Outcome(replace(outcome.config, data_path="/tmp/a|b`<i>"), outcome.scores, outcome.metrics, None, None)
    results = Sweep({"one": outcome, "two": second}, None)
    lines = results.markdown().splitlines()
    assert_shown("\n".join(lines))
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 9 for line in lines[:4])  # 8 columns
    assert r"\`\|" in lines[0]
    assert r"/tmp/a\|b\`\<i\>" in lines[3]
    rows = list(csv.reader(results.csv().splitlines(keepends=True)))
    assert {row[rows[0].index("direction")] for row in rows[1:]} == {
        f"'{MODALITIES[0]}->{MODALITIES[1]}",
        f"{MODALITIES[1]}->{MODALITIES[0]}",
    }


def test_objects_show_names_as_text(hostile, tmp_path):
    path, run = hostile
    folder = RunFolder.open(run)
    swept = Sweep(
        {"one": Outcome(folder.config(), folder.result(), folder.metrics(), None, tmp_path / "\x1b[2J")}, None
    )
    named = Sweep({}, tmp_path / "\x1b[2J\nline`")
    for shown in (load_dataset(path), load_run(run), Searcher(run), swept, named):
        assert_shown(repr(shown))
        assert_shown(shown._repr_html_())
        assert "<i>" not in shown._repr_html_()
    assert MODALITIES[0] in html.unescape(load_dataset(path)._repr_html_())
    assert "\\u001b[31mred" in repr(load_run(run))


def test_pictures_show_names_as_they_are(hostile, tmp_path, monkeypatch):
    seen = []
    grow = drawing._grow
    monkeypatch.setattr(drawing, "_grow", lambda figure, *rest: (seen.append(figure), grow(figure, *rest)))
    _, run = hostile
    assert eval_main(["--workdir", str(run), "--plot", str(tmp_path / "curve.png")]) == 0
    assert matplotlib.image.imread(tmp_path / "curve.png").ndim == 3
    texts = seen[0].findobj(Text)
    assert any("$\\frac{1}$" in text.get_text() for text in texts)
    assert not any(text.get_parse_math() for text in texts)
    assert (run / "curves.png").exists()


def test_a_prepared_set_stays_in_its_folder(hostile, tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    folder = prepare("wikipedia", hostile[0])
    assert folder.resolve().is_relative_to(tmp_path / "cache" / "wikipedia")
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]
    assert all(re.fullmatch(r"[ -~]+", p.name) for p in (tmp_path / "cache").rglob("*"))
    direct, data = load_dataset(hostile[0]), load_dataset("wikipedia")
    assert data.modalities == MODALITIES
    assert data.digest() == direct.digest()
    np.testing.assert_array_equal(data.splits["test"].ids, direct.splits["test"].ids)


@pytest.mark.parametrize("name", ["../../evil", "..", "a/b", "a\nb", ""])
def test_a_run_of_a_sweep_cannot_lie_elsewhere(name, tmp_path):
    folder = SweepFolder(tmp_path / "a" / "b" / "sweep")
    folder.path.mkdir(parents=True)
    folder.write({name: toy_config(), "good": toy_config(seed=1)})
    with pytest.raises(InputError, match=r"sweep\.json names a run .*, which is no name of a folder within runs/"):
        sweep([toy_config()], folder.path, data=toy_arrays(), resume=True)
    assert not (tmp_path / "a" / "evil").exists()
    assert {p.name for p in folder.path.rglob("*")} == {"sweep.json", "checksums.json"}


@pytest.mark.parametrize("name", ["b->c", "->", ""])
def test_names_that_make_directions_unclear_are_refused(name, tmp_path):
    arrays = {k.replace("touch", name): v for k, v in toy_arrays().items()}
    with pytest.raises(InputError, match="a name must not be empty or hold '->'"):
        load_dataset(arrays)
    z = {"a": np.eye(4, 3), name or "->": np.eye(4, 3), "labels": np.arange(4)}
    np.savez(tmp_path / "z.npz", **z)
    with pytest.raises(InputError, match="a name must not be empty or hold '->'"):
        read_embeddings(tmp_path / "z.npz")
    with pytest.raises(InputError, match="must not hold '->'"):
        cross_modal_chance({"a": np.arange(3), f"{name}->": np.arange(3)})
