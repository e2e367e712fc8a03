"""The command on files of embeddings: all formats, layouts and outputs, and one line per wrong file."""

import csv
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tolerances
from scipy.io import savemat

from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.embeddings import read_embeddings
from mrl_jax.eval.evaluate import evaluate_embeddings

RNG = np.random.default_rng(0)
LABELS = np.arange(24) % 3
MEANS = RNG.normal(size=(3, 8))
IMAGE, TEXT = (
    (MEANS[LABELS] + RNG.normal(size=(24, 8))).astype(np.float32),
    (MEANS[LABELS] + RNG.normal(size=(24, 8))).astype(np.float32),
)
ARRAYS = {"image": IMAGE, "text": TEXT, "labels": LABELS, "class_names": np.array(["cat", "dog", "owl"])}


def write(path, **changes):
    np.savez(path, **{k: v for k, v in {**ARRAYS, **changes}.items() if v is not None})
    return path


def scores_of(capsys, *flags):
    assert eval_main([*map(str, flags), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_every_format_gives_the_same_scores(tmp_path, capsys):
    expected = json.loads(
        json.dumps(evaluate_embeddings({"image": IMAGE, "text": TEXT}, LABELS, class_names=ARRAYS["class_names"]))
    )
    write(tmp_path / "e.npz")
    savemat(tmp_path / "e.mat", {k: v for k, v in ARRAYS.items() if k != "class_names"})
    with h5py.File(tmp_path / "e.h5", "w") as file:
        for key, value in ARRAYS.items():
            file[key] = value.astype("S") if value.dtype.kind == "U" else value
    (tmp_path / "e").mkdir()
    for key, value in ARRAYS.items():
        np.save(tmp_path / "e" / f"{key}.npy", value)
    for name in ("e.npz", "e.h5", "e", "e.mat"):
        actual = scores_of(capsys, "--embeddings", tmp_path / name)
        assert actual.pop("source") == str(tmp_path / name)
        if name == "e.mat":
            actual["classes"] = {
                d: dict(zip(("cat", "dog", "owl"), c.values(), strict=True)) for d, c in actual["classes"].items()
            }
        assert actual == expected, name


def test_columns_of_lists_in_parquet_are_embeddings(tmp_path):
    table = pa.table({"image": list(IMAGE), "text": list(TEXT), "labels": LABELS})
    pq.write_table(table, tmp_path / "e.parquet")
    embedded = read_embeddings(tmp_path / "e.parquet")
    for name, expected in (("image", IMAGE), ("text", TEXT)):
        np.testing.assert_array_equal(embedded.embeddings[name], expected)
        np.testing.assert_array_equal(embedded.labels[name], LABELS)


@pytest.mark.slow
def test_own_labels_ids_and_a_choice_of_modalities(tmp_path, capsys):
    ids = np.array([f"n{i}" for i in range(24)])
    path = write(
        tmp_path / "e.npz",
        text=TEXT[4:],
        labels=None,
        image_labels=LABELS,
        text_labels=LABELS[4:],
        image_ids=ids,
        text_ids=ids[4:],
        notes=np.array("trained with care"),
        epoch=np.array(3),
    )
    scores = scores_of(capsys, "--embeddings", path, "--modalities", "text", "image", "--bootstrap", "0")
    assert list(scores["map"]) == ["text->image", "image->text"]
    assert scores["instances"]["image->text"]["queries"] == 20
    data = read_embeddings(path, ["image", "text"])
    assert data.class_names == ("cat", "dog", "owl")
    assert (data.labels["text"] == LABELS[4:]).all()
    shared_and_own = write(tmp_path / "f.npz", image_labels=LABELS[::-1])
    labels = read_embeddings(shared_and_own).labels
    assert (labels["image"] == LABELS[::-1]).all()
    assert (labels["text"] == LABELS).all()


def test_csv_parsed_back_equals_json(tmp_path, capsys):
    path, table = write(tmp_path / "e.npz"), tmp_path / "scores.csv"
    flags = ["--embeddings", path, "--protocol", "within", "cross", "--k", "3", "9", "--csv", table]
    scores = scores_of(capsys, *flags)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["direction", "class", "metric", "value", "low", "high"]
    actual = {(r["direction"], r["class"], r["metric"]): r for r in rows}
    assert len(actual) == len(rows)
    expected = {("average", "", "map"): (scores["average"], scores["average_ci"])}
    for d, metrics in scores["metrics"].items():
        for c, of_class in {"": metrics, **scores["classes"][d]}.items():
            ends = of_class.get("ci", {})
            expected |= {(d, c, n): (v, ends.get(n)) for n, v in of_class.items() if n not in ("ci", "curve")}
            expected |= {(d, c, f"precision@recall={i / 10:g}"): (v, None) for i, v in enumerate(of_class["curve"])}
        expected[d, "", "chance"] = (scores["chance"][d], None)
    for d, pairs in scores["instances"].items():
        expected |= {(d, "", f"instance_{n}"): (v, pairs["ci"].get(n)) for n, v in pairs.items() if n != "ci"}
    assert set(actual) == set(expected)
    for key, (value, ends) in expected.items():
        assert float(actual[key]["value"]) == value
        assert [actual[key]["low"], actual[key]["high"]] == (["", ""] if ends is None else [repr(x) for x in ends])


def test_values_of_every_query_average_to_the_scores(tmp_path, capsys):
    ids = np.arange(24)
    path = write(
        tmp_path / "e.npz",
        text=TEXT[4:],
        labels=None,
        image_labels=LABELS,
        text_labels=LABELS[4:],
        image_ids=ids,
        text_ids=ids[4:],
    )
    scores = scores_of(capsys, "--embeddings", path, "--per-query", tmp_path / "q.csv", "--bootstrap", "0")
    with (tmp_path / "q.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["direction"] == "image->text"]
    assert [int(r["row"]) for r in rows] == list(range(24))
    assert np.mean([float(r["ap"]) for r in rows]) == pytest.approx(scores["map"]["image->text"], abs=1e-12)
    assert sum(int(r["pair_rank"]) > 0 for r in rows) == 20
    assert {int(r["relevant"]) for r in rows} == {6, 7}


def test_the_table_is_narrow_and_shows_the_main_scores(tmp_path, capsys):
    path = write(tmp_path / "e.npz")
    assert eval_main(["--embeddings", str(path), "--protocol", "cross", "others", "within"]) == 0
    out = capsys.readouterr().out
    scores = scores_of(capsys, "--embeddings", path, "--protocol", "cross", "others", "within")
    assert max(map(len, out.splitlines())) <= 100
    for direction, value in scores["map"].items():
        line = next(x for x in out.splitlines() if x.startswith(f"{direction} "))
        low, high = scores["metrics"][direction]["ci"]["map"]
        assert f"{value:.3f}  [{low:.3f}, {high:.3f}]" in line
    assert "average (cross)" in out
    assert "median rank" in out


def test_without_labels_the_command_reports_pairs_and_says_why(tmp_path, capsys):
    path = write(tmp_path / "e.npz", labels=None)
    assert eval_main(["--embeddings", str(path), "--csv", str(tmp_path / "s.csv")]) == 0
    out = capsys.readouterr().out
    assert "instance level" in out
    assert "label level" not in out
    assert "there are no labels: only instance-level scores are reported" in out
    assert {line.split(",")[2][:9] for line in (tmp_path / "s.csv").read_text().splitlines()[1:]} == {"instance_"}
    assert eval_main(["--embeddings", str(path), "--plot", str(tmp_path / "p.png")]) == 2
    assert "--plot needs labels" in capsys.readouterr().err


def test_curves_are_drawn(tmp_path, capsys):
    path = write(tmp_path / "e.npz")
    assert (
        eval_main(["--embeddings", str(path), "--plot", str(tmp_path / "p.png"), "--protocol", "cross", "within"]) == 0
    )
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_drawn_curves_pass_through_the_eleven_points(tmp_path, capsys, monkeypatch):
    drawn = {}
    monkeypatch.setattr("mrl_jax.eval.__main__.plot_precision_recall", lambda path, curves, title: drawn.update(curves))
    path = write(
        tmp_path / "e.npz",
        labels=None,
        image_labels=np.where(LABELS == 2, 7, LABELS),
        text_labels=LABELS,
        class_names=None,
    )
    flags = ["--embeddings", path, "--protocol", "cross", "others", "within", "--plot", "p.png"]
    metrics = scores_of(capsys, *flags, "--without-relevant", "skip")["metrics"]
    assert metrics["image->text"]["queries"] == 16
    assert set(drawn) == set(metrics)
    for direction, curve in drawn.items():
        np.testing.assert_allclose(curve[::10], metrics[direction]["curve"], **tolerances.FORWARD)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"text": TEXT[:20]},
            "text has 20 rows, labels has shape [24]; give one per row, or text_labels for text",
        ),
        ({"text": TEXT[:, :5]}, "numbers of columns differ: image has 8, text has 5"),
        ({"text": TEXT[:0]}, "text is empty"),
        (
            {"text": np.where(LABELS[:, None] == 2, np.nan, TEXT)},
            "text holds values NaN, inf or beyond float32, the first in row 2",
        ),
        ({"text": None}, "image is the only modality"),
        ({"text": None, "image": None}, "it has no modality, only the keys labels, class_names; give MODALITY [N, L]"),
        (
            {"epoch": np.array(3)},
            "epoch is int64 []; embeddings must be real numbers [N, L]; remove it, or name the modalities",
        ),
        ({"labels": None, "image_labels": LABELS}, "text_labels is missing; give labels to every modality, or to none"),
        ({"audio_labels": LABELS}, "audio_labels belongs to no modality; rename it (modalities: image, text)"),
        ({"image_ids": np.arange(24)}, "text_ids is missing; give ids to every modality"),
        ({"class_names": np.array(["cat"])}, "class_names has 1 names for 3 classes"),
        ({"labels": LABELS - 1}, "the value -1"),
        (
            {"train_image": IMAGE},
            "holds data in splits, not embeddings; train on it with python -m",
        ),
        ({"text": np.array([{}] * 24)}, "pickled objects"),
    ],
)
def test_bad_files_are_one_line_with_file_key_and_rule(changes, message, tmp_path, capsys):
    path = write(tmp_path / "bad.npz", **changes)
    assert eval_main(["--embeddings", str(path)]) == 2
    captured = capsys.readouterr()
    assert str(path) in captured.err
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--embeddings", "DIR/absent.npz"], "does not exist"),
        (["--embeddings", "DIR/text.npz"], "is of no known format"),
        (["--embeddings", "DIR"], "neither .npy nor .parquet"),
        (["--embeddings", "FILE", "--modalities", "image", "sound"], "no modality 'sound'; choose from image, text"),
        (["--embeddings", "FILE", "--modalities", "image", "image"], "repeat a name"),
        (["--embeddings", "FILE", "--k", "0"], "k 0: give integers from 1 on"),
        (["--embeddings", "FILE", "--k", "five"], "invalid int value: 'five'"),
        (["--embeddings", "FILE", "--bootstrap", "7"], "bootstrap 7"),
        (["--embeddings", "FILE", "--protocol", "all"], "invalid choice: 'all'"),
        (["--embeddings", "FILE", "--split", "test"], "--split cannot be combined with --embeddings"),
        (["--embeddings", "FILE", "--checkpoint", "3"], "--checkpoint cannot be combined with --embeddings"),
        (["--embeddings", "FILE", "--permutations", "999"], "--permutations cannot be combined with --embeddings"),
        (["--embeddings", "FILE", "--workdir", "DIR"], "give one of"),
        (["--embeddings", "FILE", "--csv", "DIR/no/x.csv"], "cannot be written"),
        (["--embeddings", "FILE", "--csv", ""], "--csv '' is no file name"),
        (["--embeddings", "FILE", "--csv", "FILE"], "is a file that is read"),
        (["--embeddings", "FILE", "--csv", "DIR/x", "--json", "DIR/x"], "--json and --csv are both"),
        (["--embeddings", "FILE", "--per-query", "."], "--per-query '.' is no file name"),
        (["--embeddings", "FILE", "--plot", "DIR/no/x.png"], "cannot be written"),
    ],
)
def test_bad_flags_are_one_line_and_exit_code_2(flags, message, tmp_path, capsys):
    path = write(tmp_path / "e.npz")
    (tmp_path / "text.npz").write_text("these are no arrays")
    assert eval_main([f.replace("FILE", str(path)).replace("DIR", str(tmp_path)) for f in flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
