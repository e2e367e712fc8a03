"""Streaming: the very same batches, parameters and scores as with resident data."""

import time

import jax
import numpy as np
import pytest
from layout_files import CLASSES, small_set
from toy import assert_same_checkpoints, toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.data.preprocess import fit_preprocess
from mrl_jax.train_step import epoch_batches
from mrl_jax.training.run_spec import prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun
from mrl_jax.training.stream import BatchStream, HostData

pytestmark = pytest.mark.slow


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


CASES = {
    "standardized": {},
    "unit rows": {"preprocess": ("l2", "none")},
    "noise": {"noise_rate": 0.6},
    "swapped pairs": {"noise_rate": 0.5, "noise_kind": "pair-mismatch"},
    "weight decay and clipping": {"weight_decay": 0.01, "clip_norm": 1.0},
    "one batch": {"batch_size": 60},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_two_epochs_give_the_parameters_of_the_resident_path(case, missing):
    arrays = toy_arrays()
    if missing:
        arrays["train_touch_mask"] = np.arange(60) % 7 != 2
    states = {}
    for stream in ("on", "off"):
        config = toy_config(stream=stream, **CASES[case])
        spec = prepare_run(config, prepare_data(config, arrays))
        assert spec.streams == (stream == "on")
        run = SingleRun(spec)
        run.begin([None])
        for epoch in range(2):
            steps, finite = run.run_epoch(epoch)
            assert finite
        states[stream] = (run.snapshot().state, steps, run.score("valid"), run.score("test"))
    (a, steps_a, *scores_a), (b, steps_b, *scores_b) = states["on"], states["off"]
    assert_same_bits(a, b)
    assert scores_a == scores_b
    for name in steps_a:  # sums that only report: the compiler may round them otherwise
        np.testing.assert_allclose(steps_a[name], steps_b[name], rtol=2e-6, atol=1e-6)


def test_a_streamed_run_equals_a_resident_one_and_tells_how_long_it_waited(tmp_path):
    runs = {s: train(toy_config(stream=s), tmp_path / s, data=toy_arrays()) for s in ("on", "off")}
    for a, b in zip(runs["on"].metrics, runs["off"].metrics, strict=True):
        assert a["valid"] == b["valid"]
        assert a["train"] == pytest.approx(b["train"], rel=2e-6, abs=1e-6)
    assert_same_checkpoints(tmp_path / "on", tmp_path / "off")
    assert runs["on"].scores["test"] == runs["off"].scores["test"]
    assert 0 <= runs["on"].scores["stream_waiting_share"] <= 1
    assert "streamed: steps waited" in runs["on"].table()
    assert "stream_waiting_share" not in runs["off"].scores


def test_batches_come_in_the_order_of_the_resident_path():
    arrays = small_set()
    features = tuple(arrays[f"train_{m}"] for m in ("image", "text"))
    kinds, labels = ("none", "none"), np.stack([arrays["train_labels"]] * 2).astype(np.int32)
    stats = [fit_preprocess({"a": "none"}, {"a": x})["a"] for x in features]
    key = jax.random.key(3)
    stream = BatchStream(HostData(features, kinds, stats, labels), key, batch_size=16, epochs=6)
    for epoch in (0, 1, 4, 5, 2):
        rows, mask = epoch_batches(jax.random.fold_in(key, epoch), 40, 16)
        batches = list(stream.epoch(epoch))
        assert len(batches) == 3
        for batch, r, valid in zip(batches, np.asarray(rows), np.asarray(mask), strict=True):
            for x, whole in zip(batch.features, features, strict=True):
                np.testing.assert_array_equal(x, whole[r])
            np.testing.assert_array_equal(batch.labels, labels[:, r])
            np.testing.assert_array_equal(batch.mask, valid)
    assert len(np.unique(labels)) == CLASSES


def test_large_data_stream_by_themselves(monkeypatch):
    monkeypatch.setattr("mrl_jax.training.run_spec.device_memory", lambda: 1e3)
    assert prepare_data(toy_config(), toy_arrays()).features is None
    monkeypatch.setattr("mrl_jax.training.run_spec.device_memory", lambda: 1e9)
    assert prepare_data(toy_config(), toy_arrays()).features is not None
    monkeypatch.undo()
    assert prepare_data(toy_config(), toy_arrays()).features is not None


def test_the_clock_counts_what_a_slow_disk_costs():
    class Slow(np.ndarray):
        def take(self, rows, axis):
            time.sleep(0.02)
            return np.asarray(self).take(rows, axis=axis)

    arrays = small_set()
    features = (arrays["train_image"].view(Slow), arrays["train_text"])
    stats = [fit_preprocess({"a": "none"}, {"a": np.asarray(x)})["a"] for x in features]
    labels = np.stack([arrays["train_labels"]] * 2).astype(np.int32)
    stream = BatchStream(HostData(features, ("none", "none"), stats, labels), jax.random.key(0), 4, epochs=3)
    step = jax.jit(lambda state, batch: (state + 1, {"loss": batch.labels.sum()}))
    state = jax.numpy.zeros(())
    for epoch in range(3):
        state, told = stream.run(step, state, epoch)
    assert int(state) == 30
    assert told["loss"].shape == (10,)
    assert stream.clock.share > 0.5


def test_an_error_while_reading_is_raised():
    arrays = small_set()
    labels = np.stack([arrays["train_labels"]] * 2).astype(np.int32)
    features = (arrays["train_image"][:7], arrays["train_text"])  # a file that lost its end
    stats = [fit_preprocess({"a": "none"}, {"a": x})["a"] for x in features]
    stream = BatchStream(HostData(features, ("none", "none"), stats, labels), jax.random.key(0), 16, epochs=2)
    with pytest.raises(IndexError):
        list(stream.epoch(0))
