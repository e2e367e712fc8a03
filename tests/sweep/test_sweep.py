"""Sweeps: runs have the results of `train`; tables by hand; interrupted, extended and failed sweeps."""

import csv
import dataclasses
import io
import itertools
import json
import re
import statistics
import subprocess
import sys

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import InputError, evaluate, grid, load_run, sweep, train
from mrl_jax.config import Config, with_settings
from mrl_jax.config_formats import DEFAULTS, FORMAT
from mrl_jax.run import RunFolder
from mrl_jax.run.checkpoint import Checkpoints
from mrl_jax.sweep.folder import SweepFolder
from mrl_jax.sweep.groups import groups
from mrl_jax.sweep.names import name_runs
from mrl_jax.sweep.results import Outcome, Sweep
from mrl_jax.training import loop
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.run_spec import prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun
from mrl_jax.training.vmapped_runs import VmappedRuns, bytes_of_a_run

pytestmark = pytest.mark.slow


def masked_arrays():
    arrays = toy_arrays(("sound", "touch", "smell"))
    return arrays | {"train_touch_mask": np.arange(60) % 7 != 2}


NUMBERS = [
    {"seed": 0, "noise_rate": 0.2},
    {"seed": 1, "noise_rate": 0.6, "beta": 0.7, "learning_rate": 5e-3},
    {"seed": 2, "noise_rate": 0.4, "tau1": 0.3, "weight_decay": 0.01, "noise_kind": "pair-mismatch"},
    {"seed": 3, "tau2": 0.5, "noise_rate": 0.5, "noise_kind": "cyclic"},
    {"seed": 4, "noise_rate": 0.6, "noise_scope": "instance"},
]
CASES = {
    "two modalities": (toy_arrays, [toy_config(**c) for c in NUMBERS]),
    "three, missing samples, cross-entropy": (
        masked_arrays,
        [toy_config(**c, loss="ce", noisy_validation=c.get("noise_kind") != "pair-mismatch") for c in NUMBERS[:3]],
    ),
}


def assert_as_alone(results, config, arrays):
    alone = train(config, data=arrays)
    for ours, theirs in zip(results.metrics, alone.metrics, strict=True):
        assert ours["learning_rate"] == pytest.approx(theirs["learning_rate"], rel=1e-6)
        # Sums in another order; they move apart from epoch to epoch.
        close = {"rel": 1e-5, "abs": 1e-5} if ours["epoch"] == 1 else {"rel": 2e-3, "abs": 2e-3}
        assert ours["train"] == pytest.approx(theirs["train"], **close)
        assert ours["valid"]["map"] == pytest.approx(theirs["valid"]["map"], abs=0.02)
    for which in ("best", "last"):
        assert results.scores["test"][which]["map"] == pytest.approx(alone.scores["test"][which]["map"], abs=0.02)
    assert results.scores["wrong_share"] == alone.scores["wrong_share"]
    assert results.scores["chance"] == alone.scores["chance"]


@pytest.mark.parametrize("case", CASES)
def test_runs_trained_together_on_eight_devices_have_the_results_of_each_alone(case):
    make, configs = CASES[case]
    results = sweep(configs, data=make(), way="together")
    assert len({tuple(m["train"]["loss"] for m in run.metrics) for run in results.runs.values()}) == len(configs)
    for run, config in zip(results.runs.values(), configs, strict=True):
        assert run.scores["trained_together"] == len(configs)
        assert_as_alone(run, config, make())


def specs_of(configs, arrays=None):
    data = prepare_data(configs[0], arrays or toy_arrays())
    return [prepare_run(c, data) for c in configs]


def test_more_runs_than_devices_share_them_and_their_memory_and_send_nothing():
    configs = grid(toy_config(hidden_dims=(512, 256), batch_size=60), seed=range(5))
    specs = specs_of(configs)
    runs = VmappedRuns(specs, jax.devices()[:2])
    runs.begin([None] * 5)
    runs.run_epoch(0)
    runs.keep_best([True, False, True, False, True])
    alone = SingleRun(specs[4])
    alone.begin([None])
    alone.run_epoch(0)
    for a, b in zip(jax.tree.leaves(runs.snapshot(4).state), jax.tree.leaves(alone.snapshot().state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for i in range(5):
        snapshot = runs.snapshot(i)
        assert np.array_equal(snapshot.best.centers, snapshot.state.params.centers) == (i % 2 == 0)

    arguments = (runs._state, runs._train, runs._keys, 0, runs._h)
    program = runs._programs.epoch.lower(*arguments).compile()
    assert not re.search(r"all-(reduce|gather|to-all)|collective|reduce-scatter", program.as_text())
    used = program.memory_analysis()  # of one device, which has three runs
    best = sum(x.nbytes for x in jax.tree.leaves(runs._best)) / 2
    needed = used.temp_size_in_bytes + used.output_size_in_bytes + best
    assert needed <= 3 * bytes_of_a_run(specs[0]) <= 2 * needed


def test_runs_that_factorise_matrices_are_apart_on_cpu():
    configs = grid(toy_config(method="dcca", batch_size=60, embed_dim=2), seed=range(3))
    data = prepare_data(configs[0], toy_arrays())
    runs = [ActiveRun(prepare_run(c, data), None) for c in configs]
    assert [len(g) for g in groups(runs, [0] * 3, "auto", jax.devices()[:1])] == [1, 1, 1]
    assert [len(g) for g in groups(runs, [0] * 3, "together", jax.devices()[:1])] == [3]


def test_runs_of_a_group_have_one_program_and_fit_the_memory(monkeypatch):
    configs = [*grid(toy_config(), loss=["rc", "ce"], seed=range(5)), toy_config(stream="on"), toy_config(epochs=2)]
    resident = prepare_data(configs[0], toy_arrays())
    streamed = prepare_data(configs[-2], toy_arrays())
    runs = [ActiveRun(prepare_run(c, streamed if c.stream == "on" else resident), None) for c in configs]

    def sizes(way, count=1, done=(0,) * 12):
        results = groups(runs, done, way, jax.devices()[:count])
        assert sorted(id(r) for g in results for r in g) == sorted(id(r) for r in runs)
        for group in results:
            assert len({(r.spec.config.loss, r.spec.config.epochs, r.spec.streams) for r in group}) == 1
        return [len(g) for g in results]

    assert sizes("together") == sizes("auto") == [5, 5, 1, 1]
    assert sizes("apart") == [1] * 12
    assert sizes("together", done=(1, 1, 0, 0, 0, *(0,) * 7)) == [2, 3, 5, 1, 1]
    assert set(sizes("auto", done=tuple(range(12)))) == {1}
    module = sys.modules["mrl_jax.sweep.groups"]  # mrl_jax.sweep is the function
    features = sum(x.nbytes for x in resident.features)
    room = 2.5 * bytes_of_a_run(runs[0].spec) + features
    room += sum(x.nbytes for split in resident.held_out.values() for x in split.values())
    monkeypatch.setattr(module, "device_memory", lambda device: room / 0.8)
    assert sizes("together") == [2, 2, 1, 2, 2, 1, 1, 1]
    monkeypatch.setattr(module, "device_memory", lambda device: 1.0)
    assert sizes("together", count=4) == [3, 2, 3, 2, 1, 1]  # one for each device at least
    monkeypatch.undo()
    monkeypatch.setattr(module, "_SMALL", 10)
    assert sizes("auto") == [1] * 12  # large networks on CPU


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Configurations of a sweep, and its results."""
    data = save_npz(tmp_path_factory.mktemp("data") / "toy.npz")
    configs = grid(toy_config(data_path=str(data)), noise_rate=[0.2, 0.6], beta=[0.7, 0.9], seed=range(2))
    return configs, sweep(configs, tmp_path_factory.mktemp("sweeps") / "s")


def test_the_folder_of_a_sweep_holds_usable_runs_and_tables(complete):
    configs, results = complete
    assert {p.name for p in results.workdir.iterdir()} == {
        "sweep.json", "sweep.csv", "sweep.md", "summary.json", "sweep.png", "runs", "checksums.json"
    }  # fmt: skip
    assert (results.workdir / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((results.workdir / "summary.json").read_text()) == results.summary()
    assert (results.workdir / "sweep.md").read_text() == results.markdown() + "\n"
    folders = sorted((results.workdir / "runs").iterdir())
    assert sorted(results.runs) == [p.name for p in folders]
    name, run = next(iter(results.runs.items()))
    assert name == "rc-noise0.2-beta0.7-tauauto-lr0.01-seed0"
    assert run.workdir == results.workdir / "runs" / name
    assert evaluate(run.workdir)["map"] == pytest.approx(run.scores["test"]["best"]["map"], abs=1e-6)
    assert load_run(run.workdir, run.scores["test"]["best"]["epoch"]).config == run.config
    assert json.loads((run.workdir / "result.json").read_text()) == run.scores
    assert not any((run.workdir / "checkpoints").iterdir())
    assert load_run(run.workdir, "best").epoch == load_run(run.workdir).epoch == run.scores["test"]["best"]["epoch"]
    other = 2 if run.scores["test"]["best"]["epoch"] == 1 else 1
    with pytest.raises(InputError, match="one model was kept, not that one; choose --checkpoint kept"):
        load_run(run.workdir, other)
    assert [r.config.seed for r in results.runs.values()] == [c.seed for c in configs]


def test_a_row_per_run_and_direction(complete):
    _, results = complete
    rows = list(csv.DictReader(io.StringIO((results.workdir / "sweep.csv").read_text())))
    assert len(rows) == 16
    for row in rows:
        run = results.runs[row["run"]]
        assert float(row["noise_rate"]) == run.config.noise_rate
        assert int(row["seed"]) == run.config.seed
        for split in ("valid", "test"):
            for which in ("best", "last"):
                assert float(row[f"{split}_{which}"]) == run.scores[split][which]["map"][row["direction"]]
        assert int(row["best_epoch"]) == run.scores["test"]["best"]["epoch"]


def test_mean_and_standard_deviation_over_seeds(complete):
    _, results = complete
    summary = results.summary()
    assert summary["varied"] == ["noise_rate", "beta"]
    assert [tuple(c["settings"].values()) for c in summary["cells"]] == [(0.2, 0.7), (0.2, 0.9), (0.6, 0.7), (0.6, 0.9)]
    cell = summary["cells"][3]
    own = [r.scores for r in results.runs.values() if (r.config.noise_rate, r.config.beta) == (0.6, 0.9)]
    values = [s["test"]["last"]["map"]["touch->sound"] for s in own]
    assert cell["test"]["last"]["touch->sound"] == {
        "mean": statistics.mean(values),
        "std": pytest.approx(np.std(values, ddof=1)),
    }
    assert cell["valid"]["mean"] == statistics.mean(s["valid"]["best"]["average"] for s in own)


def fake(noise_rate, beta, seed, valid, test=0.5, error=None):
    config = toy_config(noise_rate=noise_rate, beta=beta, seed=seed)
    at = lambda value: {"epoch": 1, "map": {"a->b": value, "b->a": value}, "average": value}  # noqa: E731
    scores = {split: {"best": at(v), "last": at(v)} for split, v in (("valid", valid), ("test", test))}
    scores |= {"wrong_share": {"a": 0.1, "b": 0.3}, "seconds": 1.0}
    return Outcome(config, None if error else scores, [], error, None)


def test_the_best_is_chosen_by_mean_validation_map_for_each_noise_and_over_all(tmp_path):
    valid = {(0.2, 0.5): (0.7, 0.5), (0.2, 0.9): (0.6, 0.8), (0.8, 0.5): (0.5, 0.5), (0.8, 0.9): (0.4, 0.2)}
    runs = {f"{n} {b} {s}": fake(n, b, s, v[s], test=v[s] / 2) for (n, b), v in valid.items() for s in (0, 1)}
    results = Sweep({**runs, "late": Outcome(toy_config(beta=0.5, seed=7), None, [], None, None)}, None)
    best = results.summary()["best"]
    assert [(b["noise"], b["settings"], b["runs"]) for b in best[:2]] == [
        ({"noise_rate": 0.2}, {"beta": 0.9}, ["0.2 0.9 0", "0.2 0.9 1"]),
        ({"noise_rate": 0.8}, {"beta": 0.5}, ["0.8 0.5 0", "0.8 0.5 1"]),
    ]
    assert (best[2]["noise"], best[2]["settings"]) == (None, {"beta": 0.5})  # .55 over both against .5
    text = results.markdown()
    assert "0.700 ± 0.141 *" in text
    assert "| 0.350 ± 0.071" in text
    assert "Best by validation mAP, noise rate 0.8: beta 0.5 (valid 0.500)" in text
    assert "Best by validation mAP over all noises: beta 0.5 (valid 0.550)" in text
    assert "1 runs are not complete" in text
    results.plot(tmp_path / "a.png")
    losses = {x: dataclasses.replace(r, config=dataclasses.replace(r.config, loss=x, beta=0.5)) for x, r in
              zip(("rc", "ce"), runs.values(), strict=False)}  # fmt: skip
    Sweep(losses, None).plot(tmp_path / "b.png")
    Sweep({"one": next(iter(runs.values()))}, None).plot(tmp_path / "c.png")


def drawn(results, path, monkeypatch):
    """The axes of a plot."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (saved.append(self), save(self, *args, **kwargs))
    )
    results.plot(path)
    return saved[0].axes[0]


def test_bars_of_many_settings_have_whole_labels_beside_whole_axes(tmp_path, monkeypatch, capfd):
    axes = {"loss": ["rc", "ce", "gce"], "hidden_dims": [(8, 8), (16,)], "noise_kind": ["symmetric", "asymmetric"]}
    axes |= {"data_path": [f"/a_$long$/path/of/{'x' * 30}/number/{i}/file.npz" for i in range(4)]}
    runs = {
        str(i): dataclasses.replace(fake(0.2, 0.5, 0, i / 100, test=i / 200), config=config)
        for i, config in enumerate(grid(toy_config(), **axes))
    }
    bars = drawn(Sweep(runs, None), tmp_path / "a.png", monkeypatch)
    labels = bars.get_yticklabels()
    assert bars.figure.get_suptitle() == "the 30 of 48 with the best validation mAP"
    assert [p.get_width() for p in bars.patches] == [i / 200 for i in range(18, 48)]
    assert "loss gce" in labels[-1].get_text()
    assert "file.npz" in labels[-1].get_text()
    assert len({t.get_text() for t in labels}) == 30
    extents = [t.get_window_extent() for t in labels]
    assert min(e.x0 for e in extents) >= 0
    assert all(a.y1 <= b.y0 for a, b in itertools.pairwise(extents))  # none covers another
    assert bars.get_window_extent().width > 400
    assert capfd.readouterr() == ("", "")


def test_lines_of_many_settings_have_a_legend_in_the_picture(tmp_path, monkeypatch, capfd):
    axes = {"noise_rate": [0.2, 0.4], "loss": ["rc", "ce"], "hidden_dims": [(8, 8), (16,)], "seed": [0]}
    axes |= {"noise_kind": ["symmetric", "asymmetric"], "schedule": ["constant", "cosine"]}
    runs = {
        str(i): dataclasses.replace(fake(0.2, 0.5, 0, i / 100), config=config)
        for i, config in enumerate(grid(toy_config(), **axes))
    }
    plot = drawn(Sweep(runs, None), tmp_path / "a.png", monkeypatch)
    box, (width, height) = plot.get_legend().get_window_extent(), plot.figure.canvas.get_width_height()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    assert len(plot.get_legend().get_texts()) == 8
    assert plot.get_window_extent().width > 400
    assert capfd.readouterr() == ("", "")


def test_a_cell_with_a_failed_run_is_never_the_best():
    runs = {f"{b} {s}": fake(0.2, b, s, v) for b, v in ((0.5, 0.9), (0.7, 0.6), (0.9, 0.5)) for s in (0, 1)}
    runs["0.5 1"] = fake(0.2, 0.5, 1, 0.9, error="epoch 3: the loss is nan")
    summary = Sweep(runs, None).summary()
    assert [c["failed"] for c in summary["cells"]] == [["0.5 1"], [], []]
    assert [(b["settings"], b["valid"]) for b in summary["best"]] == [({"beta": 0.7}, 0.6)]
    for b in (0.7, 0.9):
        runs[f"{b} 0"] = fake(0.2, b, 0, 0.9, error="epoch 3: the loss is nan")
    results = Sweep(runs, None)
    assert results.summary()["best"] == []
    assert "Best" not in results.markdown()


def test_runs_on_different_data_are_different_cells():
    one, other = (dataclasses.replace(fake(0.2, 0.5, 0, v)) for v in (0.2, 0.8))
    other = dataclasses.replace(other, config=dataclasses.replace(other.config, data_path="/b.npz"))
    summary = Sweep({"a": one, "b": other}, None).summary()
    assert [c["valid"]["mean"] for c in summary["cells"]] == [0.2, 0.8]
    known = {"a": toy_config(data_path="/a.npz"), "b": toy_config(data_path="/b.npz")}
    assert name_runs(list(known.values()), known) == known
    moved = [toy_config(data_path=f"/there/{x}.npz") for x in "ab"]
    assert name_runs(moved, known) == dict(zip("ab", moved, strict=True))


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("way", ["together", "apart"])
def test_an_interrupted_sweep_resumes_and_ends_with_the_same_results(complete, tmp_path, monkeypatch, way):
    configs, whole = complete
    monkeypatch.setattr(loop, "_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_TIME_FRACTION", np.inf)
    epochs = []

    def interrupt(shown, runs):
        epochs.append(runs[0].log[-1]["epoch"])
        if len(epochs) == (2 if way == "together" else 8):
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("mrl_jax.display.progress.SweepProgress.advance", interrupt)
        with pytest.raises(Interrupted):
            sweep(configs, tmp_path / "s", way=way)
    assert not (tmp_path / "s" / "sweep.png").exists()
    monkeypatch.setattr("mrl_jax.display.progress.SweepProgress.advance", lambda shown, runs: epochs.append(runs))
    results = sweep([], tmp_path / "s", resume="auto", way=way)
    assert len(epochs) == (3 if way == "together" else 8 * 3)  # none was trained twice
    for name, run in results.runs.items():
        assert [line["epoch"] for line in run.metrics] == [1, 2, 3]
        for a, b in zip(run.metrics, whole.runs[name].metrics, strict=True):
            assert a["train"] == pytest.approx(b["train"], rel=2e-3, abs=2e-3)
    # More seeds: what is complete stays.
    before = {p: p.read_bytes() for p in (tmp_path / "s" / "runs").glob("*/result.json")}
    other = dataclasses.replace(configs[0], seed=2)
    more = sweep([*configs, other], tmp_path / "s", resume=True, way=way)
    assert list(more.runs) == [*results.runs, "rc-noise0.2-beta0.7-tauauto-lr0.01-seed2"]
    assert all(p.read_bytes() == content for p, content in before.items())
    assert more.runs[list(more.runs)[-1]].scores is not None


@pytest.mark.parametrize("lost", ["first save", "second save"])
def test_a_sweep_that_is_killed_between_the_saves_of_a_group_resumes_to_the_same_bits(tmp_path, monkeypatch, lost):
    """Trained alone, the run that is one checkpoint ahead would have sums in another order."""
    configs = grid(toy_config(data_path=str(save_npz(tmp_path / "toy.npz"))), seed=range(2))
    monkeypatch.setattr(loop, "_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_TIME_FRACTION", np.inf)
    whole = sweep(configs, tmp_path / "whole", way="together")
    save, calls = Checkpoints.save, []

    def die(self, *arguments):
        calls.append(arguments)
        if len(calls) == (2 if lost == "first save" else 4):
            raise Interrupted
        save(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", die)
        with pytest.raises(Interrupted):
            sweep(configs, tmp_path / "s", way="together")
    resumed = sweep([], tmp_path / "s", resume=True, way="together")
    for name, run in resumed.runs.items():
        assert run.metrics == whole.runs[name].metrics
        assert run.scores["test"] == whole.runs[name].scores["test"]
        assert run.scores["trained_together"] == 2


def test_train_resumes_a_run_of_an_interrupted_sweep(tmp_path, monkeypatch):
    configs = grid(toy_config(data_path=str(save_npz(tmp_path / "toy.npz"))), seed=range(2))

    def interrupt(*_):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("mrl_jax.display.progress.SweepProgress.advance", interrupt)
        with pytest.raises(Interrupted):
            sweep(configs, tmp_path / "s", way="apart")
    folder = next((tmp_path / "s" / "runs").glob("*-seed0"))
    assert any((folder / "checkpoints").iterdir())
    result = train(configs[0], folder, resume=True)
    assert result.scores["test"]["last"]["epoch"] == 3
    results = sweep([], tmp_path / "s", resume=True)
    assert results.runs[folder.name].scores == result.scores


@pytest.mark.parametrize("way", ["together", "apart"])
def test_a_failed_run_ends_alone_and_is_not_repeated(tmp_path, way):
    configs = grid(toy_config(data_path=str(save_npz(tmp_path / "toy.npz"))), learning_rate=[1e-2, 1e30])
    results = sweep(configs, tmp_path / "s", way=way)
    good, bad = results.runs.values()
    assert good.scores["test"]["last"]["epoch"] == 3
    assert np.isfinite([line["train"]["loss"] for line in good.metrics]).all()
    assert bad.scores is None
    assert re.match(r"epoch [12]: .*try a lower learning rate", bad.error)
    assert results.failed == {list(results.runs)[1]: bad.error}
    assert "failed: epoch" in results.markdown()
    rows = list(csv.DictReader(io.StringIO(results.csv())))
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    again = sweep([], tmp_path / "s", resume=True, way=way)
    assert again.failed == results.failed
    assert again.runs.keys() == results.runs.keys()
    assert again.csv() == results.csv()


def test_runs_that_do_not_fit_the_memory_together_are_trained_in_smaller_groups(tmp_path, monkeypatch):
    module, tried, add = sys.modules["mrl_jax.sweep.sweep"], [], ActiveRun.add
    config = toy_config(epochs=2, data_path=str(save_npz(tmp_path / "toy.npz")))

    class Small(VmappedRuns):
        def run_epoch(self, epoch):
            tried.append(len(self._specs))
            if len(self._specs) > 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")
            return super().run_epoch(epoch)

    configs = grid(toy_config(epochs=2), seed=range(3))
    expected = sweep(configs, data=toy_arrays(), way="together")
    monkeypatch.setattr(module, "VmappedRuns", Small)
    results = sweep(configs, data=toy_arrays(), way="together")
    assert tried == [3, 2, 2]
    for name, run in results.runs.items():
        assert run.metrics[0]["train"] == pytest.approx(expected.runs[name].metrics[0]["train"], rel=1e-5, abs=1e-5)
        assert run.scores is not None

    stopped, tried[:] = tmp_path / "s", []
    with monkeypatch.context() as patch:
        patch.setattr(module, "VmappedRuns", VmappedRuns)
        patch.setattr(ActiveRun, "add", lambda self, epoch, *rest: add(self, epoch, *rest) if epoch == 0 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sweep(grid(config, seed=range(3)), stopped, way="together")
    results = sweep([], stopped, resume=True, way="together")
    assert tried == [3, 2]  # what is left is an epoch of each
    assert len(results.finished) == 3

    def never(self, epoch):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    monkeypatch.setattr(module.SingleRun, "run_epoch", never)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        sweep(configs[:1], data=toy_arrays())


def test_a_run_that_another_process_trains_is_refused_before_any_training(tmp_path, monkeypatch):
    configs = grid(toy_config(data_path=str(save_npz(tmp_path / "toy.npz")), epochs=1), seed=range(2))
    with monkeypatch.context() as patch:
        patch.setattr("mrl_jax.display.progress.SweepProgress.advance", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sweep(configs, tmp_path / "s", way="apart")
    first, last = sorted((tmp_path / "s" / "runs").iterdir())
    logged = (first / "metrics.jsonl").read_bytes()
    with RunFolder(last).lock(), pytest.raises(InputError, match=r"seed1.*another process is training here"):
        sweep([], tmp_path / "s", resume=True)
    assert (first / "metrics.jsonl").read_bytes() == logged
    assert not (first / "result.json").exists()
    assert len(sweep([], tmp_path / "s", resume=True).finished) == 2


def test_a_sweep_whose_runs_all_fail_has_no_table():
    results = sweep(grid(toy_config(learning_rate=1e30), seed=range(2)), data=toy_arrays(), way="together")
    assert len(results.failed) == 2
    assert results.markdown().startswith("No run is complete.")


def test_names_contain_every_axis_and_what_else_differs():
    base = toy_config(noise_rate=0.6)
    configs = [base, dataclasses.replace(base, hidden_dims=(8, 4)), dataclasses.replace(base, data_path="/x")]
    named = name_runs(configs, {})
    stem = "rc-noise0.6-beta0.9-tauauto-lr0.01-seed0"
    assert list(named) == [stem, f"{stem}-hidden_dims_8_4", f"{stem}+2"]
    moved = dataclasses.replace(base, data_path="/elsewhere")
    assert name_runs([moved, toy_config(seed=3)], {"first": base}) == {
        "first": moved,
        "rc-noise0-beta0.9-tauauto-lr0.01-seed3": toy_config(seed=3),
    }
    close = [dataclasses.replace(base, beta=b) for b in (0.1234567, 0.1234568)]
    assert list(name_runs(close, {})) == [stem.replace("0.9", "0.123457"), stem.replace("0.9", "0.123457") + "+2"]


def test_names_of_other_methods_leave_out_what_they_do_not_use():
    base = toy_config(noise_rate=0.6)
    ridge = {"method_options": ("ridge=0.5",)}
    cca = [with_settings(base, method="cca", **more) for more in ({}, {"seed": 1}, ridge)]
    stems = ["cca-noise0.6-seed0", "cca-noise0.6-seed1", "cca-noise0.6-seed0-method_options_ridge=0.5"]
    assert list(name_runs([base, *cca], {})) == ["rc-noise0.6-beta0.9-tauauto-lr0.01-seed0", *stems]
    assert list(name_runs([*cca, base], {})) == [*stems, "rc-noise0.6-beta0.9-tauauto-lr0.01-seed0"]


def test_the_file_of_a_sweep_is_read_in_every_format(tmp_path):
    folder = SweepFolder(tmp_path)
    named = name_runs(grid(toy_config(), noise_rate=[0.2, 0.6], seed=range(2)), {})
    folder.write(named)
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert list(content) == ["format", "common", "runs"]
    assert content["format"] == FORMAT
    assert content["runs"][next(iter(named))] == {"noise_rate": 0.2, "seed": 0}
    assert folder.configs() == named
    both = name_runs(grid(toy_config(), method=["mrl", "cca"]), {})
    folder.write(both)
    assert folder.configs() == both
    del content["format"]
    content["common"] = {name: value for name, value in content["common"].items() if name in DEFAULTS[1]}
    del content["common"]["method"], content["common"]["method_options"]
    (unchecked(tmp_path) / "sweep.json").write_text(json.dumps(content))  # as the first version wrote it
    assert SweepFolder.open(tmp_path).configs() == named
    (tmp_path / "sweep.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(InputError, match=r"sweep\.json was written by a newer version"):
        folder.configs()


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"bata": [1]}, "unknown configuration field 'bata'"),
        ({"beta": []}, "beta: give at least one value"),
        ({"beta": [0.5, 0.5]}, r"beta: 0\.5 is given twice"),
        ({"beta": [0.0, 0.0]}, r"beta: 0\.0 is given twice"),
        ({"beta": 0.5}, r"beta 0\.5: give a list of values"),
        ({"loss": "rc"}, "loss 'rc': give a list of values"),
        ({"beta": [0.5, 1.5]}, r"beta 1\.5: must be in \[0, 1\]"),
    ],
)
def test_invalid_grids_are_refused(axes, message):
    with pytest.raises(InputError, match=message):
        grid(toy_config(), **axes)


def test_invalid_sweeps_are_refused_before_anything_is_written(tmp_path, complete):
    one = [toy_config()]
    taken = complete[1].workdir
    for configs, workdir, way, message in (
        ([], None, "auto", "at least one configuration"),
        (one[0], None, "auto", "takes a list of configurations"),
        (one * 2, None, "auto", "the same configuration"),
        (one, tmp_path / "new", "fastest", "way 'fastest': choose from auto, together, apart"),
        ([toy_config(batch_size=61)], tmp_path / "new", "auto", "batch_size 61"),
        (one, taken, "auto", "already holds a sweep; resume=True continues it"),
        (one, taken / "runs", "auto", "already holds other files"),
    ):
        with pytest.raises(InputError, match=message):
            sweep(configs, workdir, data=toy_arrays(), way=way)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="needs the folder of the sweep"):
        sweep(one, data=toy_arrays(), resume=True)
    with pytest.raises(InputError, match="holds no sweep"):
        sweep(one, tmp_path, data=toy_arrays(), resume=True)
    (tmp_path / "sweep.json").write_text('{"common": 3, "runs": {"a": 1}}')
    with pytest.raises(InputError, match=r"sweep\.json is damaged"):
        sweep(one, tmp_path, data=toy_arrays(), resume=True)


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "mrl_jax.sweep", *map(str, args)], capture_output=True, text=True, check=False
    )


def test_the_command_sweeps_and_resumes(tmp_path, capsys):
    from mrl_jax.sweep.__main__ import main

    data = save_npz(tmp_path / "toy.npz")
    flags = [*TOY_FLAGS, "--data-path", data, "--seeds", 2, "--betas", 0.7, 0.9, "--workdir", tmp_path / "s"]
    done = command(*flags)
    assert done.returncode == 0, done.stderr
    assert "| beta | wrong | seeds | valid mAP" in done.stdout
    assert "4/4 runs done" in done.stderr
    assert main([str(f) for f in flags]) == 2
    assert "already holds a sweep" in capsys.readouterr().err
    moved = data.rename(tmp_path / "moved.npz")
    again = command("--resume", "--workdir", tmp_path / "s", "--data-path", moved)
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert "4 of 4 runs are complete" in again.stderr
    more = ["--resume", "--workdir", tmp_path / "s", "--seeds", 3]
    assert main([str(f) for f in more]) == 0
    output = capsys.readouterr()
    assert "4 of 6 runs are complete" in output.err  # of its own settings, with another seed each
    assert output.out.count("| 3     |") == 2
    failing = [*TOY_FLAGS[:-2], "--data-path", moved, "--learning-rates", 0.01, 1e30, "--seeds", 1]
    assert main([str(f) for f in (*failing, "--workdir", tmp_path / "f")]) == 1
    output = capsys.readouterr()
    assert output.err.splitlines()[-1].startswith("error: 1 of 2 runs failed, the first: epoch")
    assert "| learning rate |" in output.out


def test_the_command_sweeps_methods_with_the_settings_of_each(tmp_path, capsys):
    from mrl_jax.sweep.__main__ import main

    flags = ["--data-path", save_npz(tmp_path / "toy.npz"), "--workdir", tmp_path / "s"]
    both = ["--methods", "mrl", "cca", "--losses", "ce", "--hidden-dims", 16, "--embed-dim", 4, "--batch-size", 16]
    assert main([str(f) for f in (*flags, *both, "--epochs", 1, "--seeds", 1)]) == 0
    names = ["ce-noise0-beta0.9-tauauto-lr0.0001-seed0", "cca-noise0-seed0"]
    assert list(SweepFolder.open(tmp_path / "s").configs()) == names
    assert main([str(f) for f in ("--resume", *flags, "--seeds", 2)]) == 0
    configs = SweepFolder.open(tmp_path / "s").configs().values()
    assert [(c.method, c.loss, c.hidden_dims, c.embed_dim, c.seed) for c in configs] == [
        ("mrl", "ce", (16,), 4, 0),
        ("cca", Config.loss, Config.hidden_dims, 4, 0),
        ("mrl", "ce", (16,), 4, 1),
        ("cca", Config.loss, Config.hidden_dims, 4, 1),
    ]
    assert main([str(f) for f in ("--resume", *flags, "--methods", "cca", "--betas", 0.5)]) == 2
    assert "beta has no effect on the method cca" in capsys.readouterr().err
    both[1:3] = "cca", "mrl"
    again = ("--data-path", tmp_path / "toy.npz", *both, "--epochs", 1, "--seeds", 1, "--workdir", tmp_path / "t")
    assert main([str(f) for f in again]) == 0
    assert set(SweepFolder.open(tmp_path / "t").configs()) == set(names)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beta", 0.5, "--betas", 0.7], "--beta and --betas were both given"),
        (["--seeds", 0], "--seeds 0: must be at least 1"),
        (["--resume"], "--resume needs the folder of the sweep"),
        (["--losses", "rc", "l2"], "loss 'l2': choose from rc, ce"),
        (
            ["--losses", "gce", "sce", "--loss-options", "q=0.5"],
            "--loss-options belongs to one loss, and --losses names",
        ),
        (["--noise-kind", "cyclic", "--data-path", "x.npz"], "without noise: add noise_rate"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, capsys, monkeypatch):
    from mrl_jax.sweep.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main([str(f) for f in flags]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not any(tmp_path.iterdir())
