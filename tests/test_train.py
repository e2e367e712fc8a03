"""Training end to end: what it learns, writes and promises, and that a killed run ends in the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import CLASSES, TOY_FLAGS, assert_same_checkpoints, lose, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, NonFiniteLossError, evaluate, inject_noise, load_run, train
from mrl_jax.losses.mrl import soft_assignment
from mrl_jax.models.mlp import unit_rows
from mrl_jax.run.checkpoint import Checkpoints
from mrl_jax.training import loop

pytestmark = pytest.mark.slow

DIRECTIONS = ["sound->touch", "touch->sound"]
GOLDEN_LOSSES = [-0.0734, -0.3016, -0.4683]
GOLDEN_MAP = [0.7498, 0.9197, 0.9373]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(toy_config(noise_rate=0.4, seed=2), folder, data=toy_arrays())


def test_it_learns():
    scores = train(toy_config(epochs=20), data=toy_arrays()).scores
    assert scores["test"]["last"]["average"] > 0.9
    assert 1 / CLASSES < max(scores["chance"].values()) < 0.45  # of a random ranking of few items


def test_result_json_keeps_the_contract(finished):
    result = json.loads((finished.workdir / "result.json").read_text())
    assert result == finished.scores
    keys = {"test", "valid", "kept", "chance", "chance_of", "wrong_share", "seconds", "device", "versions"}
    assert set(result) == keys
    for split in ("test", "valid"):
        for which in ("best", "last"):
            entry = result[split][which]
            assert set(entry) == {"epoch", "map", "average", "accuracy"}
            assert list(entry["map"]) == DIRECTIONS
            assert entry["average"] == pytest.approx(np.mean(list(entry["map"].values())))
            assert all(0 < v <= 1 for v in entry["map"].values())
    assert result["test"]["last"]["epoch"] == 3
    assert result["seconds"] > 0
    assert result["versions"]["jax"] == jax.__version__


def test_accuracy_is_the_share_nearest_to_the_centre_of_their_class(finished):
    for checkpoint in ("best", "last"):
        run = load_run(finished.workdir, checkpoint)
        for split in ("valid", "test"):
            x = {m: toy_arrays()[f"{split}_{m}"] for m in ("sound", "touch")}
            labels = toy_arrays()[f"{split}_labels"]
            for m, z in run.embed(x).items():
                p = soft_assignment(jnp.asarray(z), unit_rows(jnp.asarray(run.model.params.centers)))
                expected = (np.argmax(p, axis=1) == labels).mean()
                assert finished.scores[split][checkpoint]["accuracy"][m] == pytest.approx(expected)


def test_metrics_jsonl_has_a_line_per_epoch(finished):
    lines = [json.loads(line) for line in (finished.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line.pop("check") for line in lines]
    assert lines == list(finished.metrics)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert set(line["train"]) == {"loss", "clustering", "contrastive"}
        assert line["train"]["loss"] == pytest.approx(
            0.9 * line["train"]["clustering"] + 0.1 * line["train"]["contrastive"], rel=1e-5
        )
    rates = [line["learning_rate"] for line in lines]
    np.testing.assert_allclose(
        rates, 0.01 * 0.5 * (1 + np.cos(np.pi * np.arange(3) / 3)), rtol=1e-6
    )  # cosine, by epoch


def test_best_is_chosen_on_validation(finished):
    averages = [line["valid"]["average"] for line in finished.metrics]
    assert finished.scores["valid"]["best"]["average"] == max(averages)
    assert finished.scores["test"]["best"]["epoch"] == 1 + int(np.argmax(averages))


def test_noise_json_records_the_noise_and_only_training_labels_change(finished):
    noise = json.loads((finished.workdir / "noise.json").read_text())
    assert (noise["rate"], noise["kind"], noise["scope"], noise["seed"]) == (0.4, "symmetric", "modality", 2)
    assert set(noise["wrong_share"]) == {"sound", "touch"}
    assert all(0.1 < s <= 0.4 for s in noise["wrong_share"].values())
    assert len(noise["labels_sha256"]) == 64
    arrays = toy_arrays()
    scores = evaluate(finished.run, arrays, "test")
    assert scores["map"] == finished.scores["test"]["best"]["map"]  # scored against the clean labels


def test_the_same_seed_gives_the_same_bits_and_another_does_not(finished):
    again = train(toy_config(noise_rate=0.4, seed=2), data=toy_arrays())
    assert again.metrics == finished.metrics
    for a, b in zip(jax.tree.leaves(again.run.model), jax.tree.leaves(finished.run.model), strict=True):
        np.testing.assert_array_equal(a, b)
    other = train(toy_config(noise_rate=0.4, seed=3), data=toy_arrays())
    assert other.metrics != finished.metrics
    assert other.noise["labels_sha256"] != finished.noise["labels_sha256"]


def test_golden_run(finished):
    """The numbers of one small run.

    If this fails, the arithmetic of training changed: renew the numbers only when the change was meant to alter
    results, and say so in CHANGELOG.md. A new jax release alone may move the last digits, not more than the tolerance.
    """
    golden = [GOLDEN_LOSSES, GOLDEN_MAP]
    found = [[m["train"]["loss"] for m in finished.metrics], [m["valid"]["average"] for m in finished.metrics]]
    np.testing.assert_allclose(found, golden, atol=2e-3)  # other processors sum in another order


def test_four_modalities_give_twelve_directions():
    arrays = toy_arrays(("sound", "touch", "smell"))
    arrays |= {f"{s}_taste": arrays[f"{s}_smell"][:, ::-1] for s in ("train", "valid", "test")}
    result = train(toy_config(epochs=8), data=arrays)
    assert len(result.scores["test"]["best"]["map"]) == 12
    assert result.scores["test"]["best"]["average"] > 0.7


def test_labels_of_one_modality_only_reach_that_modality():
    arrays = toy_arrays()
    rng = np.random.default_rng(0)
    wrong = rng.integers(0, CLASSES, len(arrays["train_labels"]))
    one = train(toy_config(epochs=1, beta=1.0), data={**arrays, "train_touch_labels": wrong})
    both = train(toy_config(epochs=1, beta=1.0), data=arrays)
    assert one.metrics != both.metrics


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match=r"batch_size 61 is larger than the training split \(60 instances\)"):
        train(toy_config(batch_size=61), data=toy_arrays())
    assert train(toy_config(batch_size=60, epochs=1), data=toy_arrays()).metrics


def test_a_preset_without_its_data_is_refused():
    with pytest.raises(InputError, match="needs data: --data-path FILE"):
        train(toy_config())
    with pytest.raises(InputError, match="resume needs the folder"):
        train(toy_config(), data=toy_arrays(), resume=True)


def test_a_non_finite_loss_stops_and_the_last_good_checkpoint_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_TIME_FRACTION", np.inf)
    # Without hidden layers, with one step an epoch and steps of 3e37, weights leave float32's range after a few epochs.
    config = toy_config(hidden_dims=(), batch_size=60, epochs=40, learning_rate=3e37, schedule="constant")
    with pytest.raises(
        NonFiniteLossError, match=r"^epoch \d+: .*(step 1|the last|not finite).*; checkpoints of earlier"
    ) as caught:
        train(config, tmp_path / "run", data=toy_arrays())
    failed = int(str(caught.value).split(":")[0].removeprefix("epoch "))
    assert failed > 1
    run = load_run(tmp_path / "run", "last")
    assert run.epoch == failed - 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(run.model.params.encoders))
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_non_finite_loss_names_its_step():
    with pytest.raises(NonFiniteLossError, match=r"epoch 1: the loss is (nan|inf|-inf) in step [2-4] of 4"):
        train(toy_config(learning_rate=1e25), data=toy_arrays())


def test_resume_auto_begins_where_there_is_nothing_and_else_goes_on(tmp_path):
    """A cell of a notebook may run twice, also after an interrupt."""
    config, kwargs = toy_config(epochs=1), {"data": toy_arrays(), "resume": "auto"}
    first = train(config, tmp_path / "run", **kwargs)
    assert train(config, tmp_path / "run", **kwargs).scores == first.scores  # with its time: nothing was trained
    assert len(train(toy_config(epochs=2), tmp_path / "run", **kwargs).metrics) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError, match="already holds other files"):
        train(config, tmp_path / "mine", **kwargs)
    with pytest.raises(InputError, match="resume 'yes': give True, False or \"auto\""):
        train(config, tmp_path / "new", data=toy_arrays(), resume="yes")
    assert len(train(config, **kwargs).metrics) == 1  # in memory


def test_resume_refuses_another_configuration_and_other_data(tmp_path, finished):
    config, arrays = toy_config(), toy_arrays()
    train(config, tmp_path / "run", data=arrays)
    with pytest.raises(InputError, match=r"beta 0.7 was given, but the run in .* has 0.9"):
        train(toy_config(beta=0.7), tmp_path / "run", data=arrays, resume=True)
    arrays["train_sound"] = arrays["train_sound"] + 1
    with pytest.raises(InputError, match="began with other data"):
        train(config, tmp_path / "run", data=arrays, resume=True)
    relabelled = toy_arrays()
    relabelled["train_labels"] = np.roll(relabelled["train_labels"], 1)
    with pytest.raises(InputError, match="began with other"):
        train(config, tmp_path / "run", data=relabelled, resume=True)


def test_resuming_a_finished_run_changes_nothing(finished):
    names = ("config.json", "data.json", "noise.json", "metrics.jsonl", "result.json")
    before = {name: (finished.workdir / name).read_bytes() for name in names}
    again = train(toy_config(noise_rate=0.4, seed=2), finished.workdir, data=toy_arrays(), resume=True)
    assert again.scores == finished.scores
    assert {name: (finished.workdir / name).read_bytes() for name in names} == before


@pytest.mark.parametrize(
    "lost",
    [
        ["result.json"],  # killed after the last epoch
        ["result.json", "model.npz", "curves.png", "checkpoints/3"],  # before the last checkpoint was complete
        ["result.json", "data.json", "noise.json", "metrics.jsonl", "checkpoints/1", "checkpoints/3"],
    ],
)
def test_whatever_a_kill_left_the_resumed_run_ends_in_the_same_bits(finished, tmp_path, lost):
    folder = tmp_path / "run"
    shutil.copytree(finished.workdir, folder)
    for name in lost:
        path = folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else lose(folder, name)
    resumed = train(toy_config(noise_rate=0.4, seed=2), folder, data=toy_arrays(), resume=True)
    assert without_time(resumed.scores) == without_time(finished.scores)
    assert (folder / "metrics.jsonl").read_bytes() == (finished.workdir / "metrics.jsonl").read_bytes()
    assert_same_checkpoints(folder, finished.workdir)


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path):
    flags = [*TOY_FLAGS[2:], "--data-path", save_npz(tmp_path / "toy.npz"), "--hidden-dims", 512, 512]
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000));"
        "from mrl_jax.train import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", limited, *map(str, flags), "--workdir", str(tmp_path / "run")]
    # Without the compilation cache, whose files would meet the limit as well.
    failed = subprocess.run(arguments, capture_output=True, text=True, env=compiling_anew())
    assert failed.returncode == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    assert "a checkpoint cannot be written" in failed.stderr.splitlines()[-1]
    done = subprocess.run(command("--resume", "--workdir", tmp_path / "run"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_in_memory_equals_one_in_a_folder(finished):
    memory = train(toy_config(noise_rate=0.4, seed=2), data=toy_arrays())
    assert without_time(memory.scores) == without_time(finished.scores)
    assert memory.workdir is None


def without_time(scores):
    return {k: v for k, v in scores.items() if k != "seconds"}


def command(*args):
    return [sys.executable, "-m", "mrl_jax.train", *map(str, args)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Flags of a run of 8 epochs, and the folder in which it ran to its end."""
    base = tmp_path_factory.mktemp("uninterrupted")
    data = save_npz(base / "toy.npz")
    flags = [*TOY_FLAGS[2:], "--epochs", 8, "--data-path", data, "--noise-rate", 0.4, "--hidden-dims", 64, 64]
    subprocess.run(command(*flags, "--workdir", base / "whole"), check=True, capture_output=True, env=compiling_anew())
    return flags, base / "whole"


def compiling_anew():
    """An environment without the tests' compilation cache: equal bits must not rest on one and the same program."""
    return {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def killed(arguments, metrics, lines):
    """Start a run and kill it once its log has this many lines."""
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, env=compiling_anew())
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= lines):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_run_killed_twice_resumes_to_the_same_bits(tmp_path, uninterrupted):
    flags, whole = uninterrupted
    folder = tmp_path / "killed"
    metrics = folder / "metrics.jsonl"
    killed(command(*flags, "--workdir", folder), metrics, 0)
    killed(command("--resume", "--workdir", folder), metrics, 4)
    assert not (folder / "result.json").exists()

    done = subprocess.run(command("--resume", "--workdir", folder), capture_output=True, text=True, check=True)
    assert "best (epoch" in done.stdout
    assert metrics.read_bytes() == (whole / "metrics.jsonl").read_bytes()
    results = [json.loads((f / "result.json").read_text()) for f in (whole, folder)]
    assert without_time(results[0]) == without_time(results[1])
    assert_same_checkpoints(whole, folder)


def test_checkpoints_hold_the_state_of_their_epoch_although_buffers_are_donated(tmp_path, monkeypatch):
    """Saving is asynchronous while the next epochs overwrite the state's buffers: each checkpoint must stay its own."""
    monkeypatch.setattr(loop, "_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_TIME_FRACTION", np.inf)
    config = toy_config(hidden_dims=(512, 512), epochs=4, batch_size=60, learning_rate=1e-3)
    train(config, tmp_path / "long", data=toy_arrays(), keep_checkpoints=True)
    with Checkpoints(tmp_path / "long" / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoints.epochs()
    assert kept == [1, 2, 3, 4]
    for epoch in kept:
        run = load_run(tmp_path / "long", epoch)
        scores = evaluate(run, toy_arrays(), "valid")
        line = json.loads((tmp_path / "long" / "metrics.jsonl").read_text().splitlines()[epoch - 1])
        assert scores["map"] == line["valid"]["map"]


def test_noise_of_a_run_is_that_of_inject_noise(finished):
    from mrl_jax import NoiseSpec

    clean = np.stack([toy_arrays()["train_labels"]] * 2)
    key = jax.random.fold_in(jax.random.key(2), 0)
    noisy = inject_noise(clean, NoiseSpec(0.4), key, CLASSES)
    np.testing.assert_allclose(list(finished.noise["wrong_share"].values()), noisy.wrong_share, rtol=1e-6)


def test_an_interrupted_cell_leaves_a_run_that_resumes(tmp_path, capsys):
    """As in a notebook: the epoch ends, the run is saved, and the error is a KeyboardInterrupt."""
    config, arrays = toy_config(epochs=2000), toy_arrays()
    timer = threading.Timer(3.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt, match=r"interrupted; saved after epoch \d+ of 2000; train\(….*resume=True\)"):
        train(config, tmp_path / "run", data=arrays)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "stopping after this epoch" in capsys.readouterr().err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == len(lines) < 2000
    with pytest.raises(InputError, match=r"already holds a run; resume=True continues it"):
        train(config, tmp_path / "run", data=arrays)


def test_a_thread_of_its_own_and_handlers_of_the_program_are_left_alone(tmp_path):
    handler = signal.signal(signal.SIGTERM, lambda *_: None)
    seen = []
    try:
        own = signal.getsignal(signal.SIGTERM)
        show = threading.Thread(target=lambda: seen.append(train(toy_config(), tmp_path / "a", data=toy_arrays())))
        show.start()
        show.join()
        train(toy_config(), tmp_path / "b", data=toy_arrays())
        assert signal.getsignal(signal.SIGTERM) is own
        assert seen[0].scores["test"]
    finally:
        signal.signal(signal.SIGTERM, handler)
