"""The run folder and its checkpoints: nothing half-written, nothing of another run accepted."""

import errno
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CLASSES, lose, toy_arrays, toy_config, unchecked

from mrl_jax import InputError, load_dataset, load_run, train
from mrl_jax.methods.state import State
from mrl_jax.run import RunFolder, best_epoch
from mrl_jax.run.checkpoint import Checkpoints, Snapshot
from mrl_jax.run.described import describe
from mrl_jax.sweep.folder import SweepFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = train(toy_config(epochs=6), folder, data=toy_arrays())
    return folder, result


def test_a_new_run_needs_a_new_or_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", toy_config())
    before = (tmp_path / "empty" / "config.json").read_bytes()
    with pytest.raises(InputError, match="already holds a run; resume=True continues it"):
        RunFolder.create(tmp_path / "empty", toy_config(seed=1))
    assert (tmp_path / "empty" / "config.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="already holds other files"):
        RunFolder.create(tmp_path / "other", toy_config())
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", toy_config())
    with pytest.raises(InputError, match="cannot be written"):
        RunFolder.create(tmp_path / "file", toy_config())


@pytest.mark.parametrize("start", ["run", "sweep"])
def test_a_start_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch, start):
    """Every write fails in turn; in the end all succeed."""
    sync, folder, failures = os.fsync, tmp_path / "above" / start, []

    def begin():
        if start == "run":
            return RunFolder.create(folder, toy_config())
        folder.mkdir(parents=True, exist_ok=True)
        return SweepFolder(folder).write({"a": toy_config()})

    for step in range(10):
        calls = []

        def full_at_step(handle, step=step, calls=calls):
            calls.append(handle)
            if len(calls) > step:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        monkeypatch.setattr(os, "fsync", full_at_step)
        try:
            begin()
            break
        except InputError as error:
            failures.append(str(error))
        assert not any(tmp_path.iterdir()) if start == "run" else not any(folder.iterdir())
    assert len(failures) >= 3
    assert all("No space left on device" in failure for failure in failures)
    assert (folder / ("config.json" if start == "run" else "sweep.json")).exists()


def test_what_a_killed_start_left_is_no_obstacle(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("checksums.json", ".config.json.77.part"):
        (run / name).write_text("{")
    RunFolder.create(run, toy_config())
    assert RunFolder.open(run).config() == RunFolder.open(run).config()
    other = tmp_path / "other"
    (other / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match="already holds other files"):
        RunFolder.create(other, toy_config())


def test_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        RunFolder.open(tmp_path)
    with pytest.raises(InputError, match="holds no run"):
        load_run(tmp_path / "absent")


def test_damaged_files_are_named(tmp_path):
    folder = RunFolder.create(tmp_path / "run", toy_config())
    unchecked(folder.path)
    (folder.path / "config.json").write_text('{"beta": 0.')
    with pytest.raises(InputError, match=r"config.json is damaged"):
        folder.config()
    (folder.path / "config.json").write_text("3")
    with pytest.raises(InputError, match=r"config.json is damaged \(it holds no object\)"):
        folder.config()
    with pytest.raises(InputError, match=r"data.json cannot be read"):
        folder.data()
    (folder.path / "data.json").write_text("{}")
    with pytest.raises(InputError, match=r"data.json is damaged \(class_names, dims, instances, .* missing\)"):
        folder.data()
    for line in ("not json", "3"):
        (folder.path / "metrics.jsonl").write_text(line + "\n")
        with pytest.raises(InputError, match=r"metrics.jsonl is damaged"):
            folder.metrics()
    (folder.path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="epoch, valid missing"):
        folder.metrics_until(1)
    (folder.path / "metrics.jsonl").write_text('{"epoch": 2, "valid": {"average": 0.5, "map": {}}}\n')
    with pytest.raises(InputError, match="line 1 is of another epoch"):
        folder.metrics()
    assert folder.result() is None


def test_of_many_that_start_in_one_folder_at_once_one_wins(tmp_path):
    barrier = threading.Barrier(8)

    def start(seed):
        barrier.wait()
        try:
            RunFolder.create(tmp_path / "run", toy_config(seed=seed))
        except InputError:
            return None
        return seed

    with ThreadPoolExecutor(8) as pool:
        winners = [seed for seed in pool.map(start, range(8)) if seed is not None]
    assert len(winners) == 1
    assert RunFolder.open(tmp_path / "run").config().seed == winners[0]


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    folder = RunFolder.create(tmp_path / "run", toy_config())
    with (
        folder.lock(),
        pytest.raises(InputError, match="another process is training here"),
        RunFolder(folder.path).lock(),
    ):
        pass
    with RunFolder(folder.path).lock():
        pass


def test_the_recorded_noise_is_that_of_a_run_that_has_begun(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.recorded_noise is None
    folder.write("noise.json", {})
    assert folder.recorded_noise == tmp_path / "noise.json"


def test_a_line_cut_short_is_left_out_and_later_epochs_are_dropped(tmp_path):
    folder = RunFolder.create(tmp_path / "run", toy_config())
    for epoch in (1, 2, 3):
        folder.log({"epoch": epoch, "valid": {"average": 0.5, "map": {}}})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "tra')
    assert [x["epoch"] for x in folder.metrics()] == [1, 2, 3]
    assert [x["epoch"] for x in folder.rewind(2)] == [1, 2]
    kept = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in kept] == [1, 2]
    with pytest.raises(InputError, match="has 2 lines for 3 epochs"):
        folder.rewind(3)


def test_nothing_but_whole_files_remains(finished):
    folder, _ = finished
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "data.json", "noise.json", "metrics.jsonl", "checkpoints", "model.npz", "result.json",
            "curves.png", "samples", "checksums.json"
    }  # fmt: skip
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_best_is_the_earliest_of_equals():
    lines = [{"epoch": e, "valid": {"average": a}} for e, a in ((1, 0.1), (2, 0.5), (3, 0.5), (4, 0.2))]
    assert best_epoch(lines) == 2


def test_the_latest_checkpoints_are_kept_and_hold_the_best_model(tmp_path):
    run = train(toy_config(epochs=1), data=toy_arrays()).run
    state = State(run.model.params, (), jnp.zeros((), jnp.int32))
    with Checkpoints(tmp_path / "c") as store:
        for epoch in range(1, 5):
            best = state.params._replace(centers=jnp.full_like(state.params.centers, epoch // 2))
            metrics = {"epoch": epoch, "average": 1 / epoch, "seconds": 3.5}
            store.save(epoch, Snapshot(state, best, run.model.preprocess), metrics)
        store.wait()
        assert store.epochs() == [3, 4]
        assert store.metrics(4) == metrics
        expected = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), state)
        read = store.restore(4, Snapshot(expected, expected.params, run.model.preprocess))
        np.testing.assert_array_equal(read.best.centers, np.full((CLASSES, 8), 2.0))
        np.testing.assert_array_equal(read.state.params.centers, state.params.centers)


def test_the_best_model_of_a_run_under_way_is_read_from_its_last_checkpoint(finished, tmp_path):
    folder, result = finished
    best = result.scores["test"]["best"]["epoch"]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    lose(copy, "model.npz", "result.json")
    for which in ("best", best):
        run = load_run(copy, which)
        assert run.epoch == best
        for a, b in zip(jax.tree.leaves(run.model), jax.tree.leaves(result.run.model), strict=True):
            np.testing.assert_array_equal(a, b)


def test_load_run_gives_back_what_was_trained(finished):
    folder, result = finished
    arrays = toy_arrays()
    features = {m: arrays[f"test_{m}"] for m in ("sound", "touch")}
    run = load_run(folder)
    assert run.epoch == result.scores["test"]["best"]["epoch"]
    assert run.modalities == ("sound", "touch")
    assert run.class_names == ("0", "1", "2")
    for a, b in zip(jax.tree.leaves(run.model), jax.tree.leaves(result.run.model), strict=True):
        np.testing.assert_array_equal(a, b)
    for m, z in run.embed(features).items():
        np.testing.assert_array_equal(z, result.run.embed(features)[m])
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-6)
    assert load_run(folder, "last").epoch == load_run(folder, 6).epoch == load_run(folder, "6").epoch == 6


def test_load_run_refuses_other_checkpoints(finished):
    folder, _ = finished
    with pytest.raises(InputError, match=r"no checkpoint of epoch 99; there are: .*6"):
        load_run(folder, 99)
    with pytest.raises(InputError, match="choose kept, best, last or a number"):
        load_run(folder, "middle")


def test_embed_refuses_other_features(finished):
    run = finished[1].run
    with pytest.raises(InputError, match="modality 'taste' is not in this run"):
        run.embed({"taste": np.zeros((1, 2))})
    with pytest.raises(InputError, match=r"sound features have shape \[1, 2\]; this run was trained on \[N, 6\]"):
        run.embed({"sound": np.zeros((1, 2))})
    with pytest.raises(InputError, match="not finite"):
        run.embed({"sound": np.full((1, 6), np.nan)})
    with pytest.raises(InputError, match="not finite in float32"):
        run.embed({"sound": np.full((1, 6), 1e300)})
    with pytest.raises(InputError, match="must be real numbers"):
        run.embed({"sound": np.full((1, 6), 1j)})


def test_a_checkpoint_of_another_configuration_is_refused(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((unchecked(copy) / "config.json").read_text())
    for change in ({"hidden_dims": [8]}, {"embed_dim": 4}, {"hidden_dims": [16, 16]}):
        (copy / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match="belongs to another configuration") as caught:
            load_run(copy, "last")
        assert "\n" not in str(caught.value)
        with pytest.raises(
            InputError, match=r"model\.npz belongs to another configuration: .* is .*config\.json needs"
        ):
            load_run(copy)


def test_the_model_file_is_the_best_checkpoint_in_plain_arrays(finished, tmp_path):
    folder, result = finished
    best = result.scores["test"]["best"]["epoch"]
    with np.load(folder / "model.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["epoch"] == best
    x = toy_arrays()["test_touch"]
    z = (x - arrays["touch/mean"]) / arrays["touch/scale"]
    for i in (0, 1):
        z = z @ arrays[f"touch/Dense_{i}/kernel"] + arrays[f"touch/Dense_{i}/bias"]
        z = np.maximum(z, 0) if i == 0 else z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(z, load_run(folder).embed({"touch": x})["touch"], atol=2e-6)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.npz").unlink()  # as in a run that goes on
    for a, b in zip(jax.tree.leaves(load_run(copy).model), jax.tree.leaves(load_run(folder).model), strict=True):
        np.testing.assert_array_equal(a, b)
    (copy / "model.npz").write_bytes((folder / "model.npz").read_bytes()[:500])
    with pytest.raises(InputError, match=r"model\.npz was changed or damaged"):
        load_run(copy)
    unchecked(copy)
    with pytest.raises(InputError, match=r"model\.npz cannot be read .*delete it"):
        load_run(copy)


def test_a_damaged_checkpoint_is_refused(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    for file in (copy / "checkpoints" / "6").rglob("*"):
        if file.is_file() and file.stat().st_size > 200 and "METADATA" not in file.name:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (copy / "model.npz").unlink()  # it may hold the last epoch, too
    with pytest.raises(InputError, match="checkpoint of epoch 6 cannot be read"):
        load_run(copy, "last")


def test_a_run_without_a_checkpoint_says_so(tmp_path):
    folder = RunFolder.create(tmp_path / "run", toy_config())
    data = load_dataset(toy_arrays())
    folder.write("data.json", describe(data))
    with pytest.raises(InputError, match="no complete checkpoint yet"):
        load_run(folder.path)


def test_a_complete_run_without_checkpoints_is_not_trained_again(finished, tmp_path):
    folder, result = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "curves.png").unlink()
    again = train(toy_config(epochs=6), copy, data=toy_arrays(), resume=True)
    assert again.scores == result.scores
    assert again.run.epoch == result.run.epoch
    assert (copy / "curves.png").exists()
    (copy / "checkpoints").mkdir()
    other = 2 if result.run.epoch == 1 else 1
    with pytest.raises(InputError, match="one model was kept, not that one; choose --checkpoint kept"):
        load_run(copy, other)
    assert load_run(copy).epoch == load_run(copy, "best").epoch == result.run.epoch
    lose(copy, "result.json", "model.npz")
    with pytest.raises(InputError, match="no complete checkpoint yet"):
        load_run(copy, "last")


def test_a_run_that_lost_its_log_or_its_metrics_is_refused(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    shutil.rmtree(copy / "checkpoints" / "6" / "metrics")
    lose(copy, "result.json")
    with pytest.raises(InputError, match=r"no metrics.*delete that folder"):
        train(toy_config(epochs=6), copy, data=toy_arrays(), resume=True)
    shutil.copytree(finished[0] / "checkpoints" / "6", copy / "checkpoints" / "6", dirs_exist_ok=True)
    lose(copy, "metrics.jsonl", "model.npz")
    with pytest.raises(InputError, match="has 0 lines for 6 epochs"):
        load_run(copy)
