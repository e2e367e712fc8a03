"""What a model says of training labels."""

import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from report_runs import odd_arrays, opened, trained

from mrl_jax import InputError, load_run
from mrl_jax.report.blocks import Chart, Note, Table
from mrl_jax.report.memory import BINS, Memory, Predictions, histogram, memory_at, memory_of, memory_record, predictions
from mrl_jax.report.sections.overview import verdict
from mrl_jax.report.sections.training import memorising
from mrl_jax.training.recorded import recorded_epochs

pytestmark = pytest.mark.slow


def test_histogram_counts_by_hand():
    p = np.array([0.0, 0.049, 0.05, 0.5, 1.0, 1.0])
    wrong = np.array([False, True, True, False, False, True])
    bars = histogram(p, wrong)
    assert len(bars) == 2 * BINS
    counts = {(b["labels"], round(b["low"] * BINS)): b["count"] for b in bars if b["count"]}
    assert counts == {
        ("right", 0): 1,
        ("wrong", 0): 1,
        ("wrong", 1): 1,
        ("right", 10): 1,
        ("right", 19): 1,
        ("wrong", 19): 1,
    }
    for kind in ("right", "wrong"):
        assert math.isclose(sum(b["share"] for b in bars if b["labels"] == kind), 1.0)


def test_histogram_without_wrong_labels_has_no_bars_of_them():
    assert {b["labels"] for b in histogram(np.array([0.2]), np.array([False]))} == {"right"}


def test_shares_by_hand():
    """Of two right labels one is predicted; of four wrong ones one is repeated and two are seen through."""
    given, true, predicted = np.array([0, 1, 2, 2, 2, 2]), np.array([0, 1, 0, 0, 1, 1]), np.array([0, 2, 2, 0, 1, 0])
    found = {"m": Predictions(np.arange(6), given, true, predicted, np.zeros(6))}
    assert memory_at(found) == (0.5, 0.25, 0.5)


def test_predictions_are_those_of_the_model(noisy, noisy_opened, arrays):
    """Against the centres and embeddings, computed here from the formula."""
    found = predictions(noisy_opened)
    record = json.loads((noisy / "noise.json").read_text())
    run = load_run(noisy)
    centers = np.asarray(run.model.params.centers, np.float64)
    tau = run.config.tau1
    for m, p in found.items():
        z = run.embed({m: arrays[f"train_{m}"]})[m].astype(np.float64)
        logits = z @ (centers / np.linalg.norm(centers, axis=1, keepdims=True)).T / tau
        posterior = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_array_equal(p.given, record["labels"][m])
        np.testing.assert_array_equal(p.true, arrays["train_labels"])
        np.testing.assert_allclose(p.p_given, posterior[np.arange(60), p.given], rtol=1e-4)
        np.testing.assert_array_equal(p.predicted, posterior.argmax(axis=1))
        assert math.isclose(p.wrong.mean(), record["wrong_share"][m], rel_tol=1e-6)


def test_memory_of_kept_and_last(noisy, noisy_opened):
    memory = memory_of(noisy_opened, predictions(noisy_opened))
    result = json.loads((noisy / "result.json").read_text())["test"]
    assert set(memory.epochs) == {result["best"]["epoch"], result["last"]["epoch"]}
    assert memory.names[memory.epochs.index(noisy_opened.run.epoch)] == "kept"
    assert memory.has_wrong


def test_a_damaged_last_checkpoint_is_told_of(arrays, tmp_path):
    run = trained(tmp_path / "run", noise_rate=0.5, seed=3, learning_rate=0.1)
    o = opened(run, arrays)
    kept = predictions(o)
    assert memory_of(o, kept).names == ("kept", "last")
    for path in max((run / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name)).rglob("d/*"):
        content = path.read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(InputError, match=r"checkpoint of epoch \d+ .*restore its folder from a copy, or delete it"):
        memory_of(o, kept)
    shutil.rmtree(next((run / "checkpoints").iterdir()))  # as in a sweep
    assert memory_of(o, kept).names == ("kept",)


def blocks_of(section, kind):
    return [b for b in section.blocks if isinstance(b, kind)]


def test_without_noise_nothing_is_said_of_wrong_labels(odd):
    o = opened(odd, odd_arrays())
    kept = predictions(o)
    assert len(kept["touch"].rows) == 58  # two samples are missing
    memory = memory_of(o, kept)
    assert not memory.has_wrong
    section = memorising(o, kept, memory)
    assert "which of the labels of the data set are wrong is unknown" in section.lead
    (table,) = blocks_of(section, Table)
    assert list(table.head) == ["model", "right labels: accuracy"]
    assert "No training label is known to be wrong" in verdict(o, memory)[0]


def test_a_method_without_classes_says_so(closed, arrays):
    o = opened(closed, arrays)
    with pytest.raises(InputError, match="assigns no classes"):
        predictions(o)
    (note,) = memorising(o, None, None, "the method cca assigns no classes").blocks
    assert note == Note("Unknown: the method cca assigns no classes.")
    assert "is unknown" in verdict(o, None)[0]


def test_other_data_than_those_of_training_have_no_labels(noisy, arrays):
    other = {k: v + 1 if v.dtype.kind == "f" else v for k, v in arrays.items()}
    with pytest.raises(InputError, match="not those that the run was trained on"):
        predictions(opened(noisy, other))


def test_a_record_of_many_epochs_becomes_lines(noisy_opened):
    memory = Memory((1, 2, noisy_opened.run.epoch + 3), (0.5, 0.6, 0.7), (0.2, 0.3, 0.4), (0.6, 0.5, 0.4))
    section = memorising(noisy_opened, predictions(noisy_opened), memory)
    chart = next(b for b in blocks_of(section, Chart) if "during training" in b.title)
    line = next(layer for layer in chart.spec["layer"] if layer["mark"]["type"] == "line")
    points = [(v["x"], v["y"]) for v in line["data"]["values"] if v["s"] == "wrong labels: repeated"]
    assert points == [(1.0, 0.2), (2.0, 0.3), (float(memory.epochs[2]), 0.4)]


@pytest.mark.parametrize(
    ("repeated", "recovered", "words", "tone"),
    [
        (0.1, 0.7, "It did not memorise: it repeats 10% of the wrong labels and sees through 70%", "good"),
        (0.4, 0.5, "It memorised a part of the wrong labels", ""),
        (0.6, 0.3, "It memorised its labels", "bad"),
    ],
)
def test_verdicts(repeated, recovered, words, tone):
    scores = {"average": 0.5, "average_ci": [0.45, 0.55], "chance": {"a->b": 0.1}}
    run = SimpleNamespace(scores=scores, run=SimpleNamespace(epoch=3))
    text, found = verdict(run, Memory((3,), (0.9,), (repeated,), (recovered,)))
    assert text.startswith("Retrieves well above chance: mAP 0.500, chance 0.100.")
    assert words in text
    assert found == tone


def test_the_verdict_warns_of_a_later_epoch():
    scores = {"average": 0.11, "average_ci": [0.08, 0.13], "chance": {"a->b": 0.1}}
    run = SimpleNamespace(scores=scores, run=SimpleNamespace(epoch=3))
    text, tone = verdict(run, Memory((3, 9), (0.9, 1.0), (0.1, 0.8), (0.6, 0.1)))
    assert text.startswith("Retrieves no better than chance")
    assert "Epoch 9, which is not kept, repeats 80%" in text
    assert tone == "bad"


@pytest.mark.parametrize("kind", ["symmetric", "pair-mismatch"])
def test_the_record_of_training_and_the_kept_model_make_the_curve(arrays, tmp_path, kind):
    path = trained(tmp_path / "run", noise_rate=0.5, noise_kind=kind, epochs=20, data=arrays)
    run = opened(path, arrays)
    kept, last = predictions(run), predictions(run, load_run(path, "last"))
    found = memory_record(run, kept)
    assert set(found.epochs) == recorded_epochs(20) | {run.run.epoch}
    assert list(found.epochs) == sorted(found.epochs)
    for epoch, said in ((run.run.epoch, kept), (20, last)):
        at = found.epochs.index(epoch)
        np.testing.assert_allclose((found.right[at], found.repeated[at], found.recovered[at]), memory_at(said))
    assert verdict(run, found)[0]
