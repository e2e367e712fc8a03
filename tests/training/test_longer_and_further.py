"""More epochs for a run, and a run that starts with the weights of another."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from toy import TOY_FLAGS, lose, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import Config, InputError, evaluate, grid, load_run, sweep, train
from mrl_jax.checksums import CheckedFolder
from mrl_jax.config import auto_epochs, with_settings
from mrl_jax.methods.gradient import learning_rate_at
from mrl_jax.methods.registry import entry_of
from mrl_jax.run import best_epoch
from mrl_jax.train import main
from mrl_jax.training import loop
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow


def epochs_kept(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    return train(toy_config(noise_rate=0.2, epochs=4), folder, data=toy_arrays())


def test_a_finished_run_takes_more_epochs_with_the_schedule_of_the_new_length(tmp_path):
    config, arrays = toy_config(epochs=3), toy_arrays()
    short = train(config, tmp_path / "run", data=arrays)
    assert epochs_kept(tmp_path / "run") == [3]
    longer = with_settings(config, epochs=7)
    result = train(longer, tmp_path / "run", data=arrays, resume=True)
    assert [line["epoch"] for line in result.metrics] == [1, 2, 3, 4, 5, 6, 7]
    assert result.metrics[:3] == short.metrics
    h = result.run.config
    rates = [float(learning_rate_at(h, epoch)) for epoch in range(3, 7)]
    assert [line["learning_rate"] for line in result.metrics[3:]] == pytest.approx(rates, rel=1e-6)
    assert result.scores["lengths"] == [3, 7]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 7
    assert epochs_kept(tmp_path / "run") == [7]
    assert evaluate(tmp_path / "run", data=arrays)["map"] == result.scores["test"]["best"]["map"]
    again = train(with_settings(config, epochs=8), tmp_path / "run", data=arrays, resume=True)
    assert again.scores["lengths"] == [3, 7, 8]
    assert train(with_settings(config, epochs=8), tmp_path / "run", data=arrays, resume=True).scores == again.scores


def test_a_run_that_is_killed_while_it_is_extended_goes_on(tmp_path):
    """Whatever of the three files was written: with the same command the run has the new length."""
    config, arrays = toy_config(epochs=2), toy_arrays()
    for done in (1, 2):
        folder = tmp_path / str(done)
        train(config, folder, data=arrays)
        CheckedFolder(folder).write("lengths.json", '{"epochs": [2, 4]}')
        if done == 2:
            lose(folder, "result.json")
            own = train(config, folder, data=arrays, resume=True)  # without the new length it is what it was
            assert "lengths" not in own.scores
        result = train(with_settings(config, epochs=4), folder, data=arrays, resume=True)
        assert result.scores["lengths"] == [2, 4]
        assert len(result.metrics) == 4


def test_an_extended_run_that_was_interrupted_is_scored_at_its_best_epoch_so_far(tmp_path, monkeypatch):
    config, arrays = toy_config(epochs=1, learning_rate=1e-4), toy_arrays()
    train(config, tmp_path / "run", data=arrays)
    monkeypatch.setattr(loop, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(with_settings(config, epochs=6), tmp_path / "run", data=arrays, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = best_epoch(lines)
    assert best > 1
    assert load_run(tmp_path / "run").epoch == best
    assert evaluate(tmp_path / "run", arrays, "valid")["map"] == lines[best - 1]["valid"]["map"]


def test_what_cannot_be_extended_is_refused(tmp_path, capsys):
    data, folder = str(save_npz(tmp_path / "toy.npz")), str(tmp_path / "run")
    assert main(["--data-path", data, *TOY_FLAGS, "--workdir", folder]) == 0
    capsys.readouterr()
    for flags, message in (
        (["--epochs", "2"], "epochs 2 was given, but the run in"),
        (["--epochs", "9", "--beta", "0.5"], "beta 0.5 was given, but the run in"),
    ):
        assert main(["--resume", "--workdir", folder, *flags]) == 2
        assert message in capsys.readouterr().err
    found = sweep([toy_config(data_path=data)], tmp_path / "sweep")
    run = next(iter(found.runs.values())).workdir
    with pytest.raises(InputError, match="only the model was kept, not its training state; it cannot get more epochs"):
        train(toy_config(data_path=data, epochs=9), run, resume=True)
    assert load_run(run).epoch
    assert (run / "result.json").exists()


def test_all_checkpoints_stay_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_INTERVAL", 0.0)
    monkeypatch.setattr(loop, "_TIME_FRACTION", 1e9)
    train(toy_config(epochs=4), tmp_path / "all", data=toy_arrays(), keep_checkpoints=True)
    assert epochs_kept(tmp_path / "all") == [1, 2, 3, 4]
    train(toy_config(epochs=4), tmp_path / "last", data=toy_arrays())
    assert epochs_kept(tmp_path / "last") == [4]


@pytest.mark.parametrize("parallel", ["auto", "jit", "shard_map", "pmap"])
def test_a_run_starts_with_the_weights_and_the_preprocessing_of_another(finished, parallel):
    still = toy_config(init_from=finished.workdir, epochs=1, learning_rate=1e-30, schedule="constant", seed=5)
    result = train(still, data=toy_arrays(), parallel=parallel)
    for a, b in zip(*(jax.tree.leaves(r.run.model.params.encoders) for r in (result, finished)), strict=True):
        np.testing.assert_array_equal(a, b)
    at = {"valid": finished.scores["valid"]["best"]["map"], "test": finished.scores["test"]["best"]["map"]}
    for split, scores in at.items():
        assert result.scores[split]["best"]["map"] == pytest.approx(scores, abs=1e-6)
    shifted = toy_arrays() | {"train_sound": toy_arrays()["train_sound"] + 3.0}
    other = train(still, data=shifted)
    np.testing.assert_array_equal(
        other.run.model.preprocess["sound"]["mean"], finished.run.model.preprocess["sound"]["mean"]
    )


def test_runs_of_a_sweep_start_with_the_weights_of_another(finished):
    still = toy_config(init_from=finished.workdir, epochs=1, learning_rate=1e-30, schedule="constant")
    found = sweep(grid(still, seed=[0, 1, 2]), data=toy_arrays(), way="together")
    for outcome in found.runs.values():
        assert outcome.scores["trained_together"] == 3
        assert outcome.scores["test"]["last"]["map"] == pytest.approx(finished.scores["test"]["best"]["map"], abs=1e-6)


def test_it_learns_further_and_resumes_to_the_same_bits(finished, tmp_path):
    folder = shutil.copytree(finished.workdir, tmp_path / "source")
    config = toy_config(init_from=folder, epochs=2, seed=1)
    whole = train(config, tmp_path / "run", data=toy_arrays())
    assert whole.metrics[0]["train"]["loss"] < finished.metrics[0]["train"]["loss"]
    lose(tmp_path / "run", "result.json")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    (tmp_path / "run" / "checkpoints" / "1.orbax-checkpoint-tmp").mkdir()  # killed in the first save
    again = train(config, tmp_path / "run", data=toy_arrays(), resume=True)
    assert again.metrics == whole.metrics
    shutil.move(folder, tmp_path / "elsewhere")  # with a checkpoint of its own the run needs it no more
    longer = train(with_settings(config, epochs=3), tmp_path / "run", data=toy_arrays(), resume=True)
    assert longer.metrics[:2] == whole.metrics
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")
    lose(tmp_path / "run", "result.json")
    other = train(toy_config(epochs=1, seed=9), tmp_path / "other", data=toy_arrays())
    with pytest.raises(InputError, match=r"the run began with other data \(init_from_sha256"):
        train(
            with_settings(config, init_from=other.workdir, epochs=3), tmp_path / "run", data=toy_arrays(), resume=True
        )


def test_weights_that_do_not_fit_are_refused(finished, tmp_path):
    folder = finished.workdir
    two = ("sound", "touch")
    refusals = [
        (toy_config(init_from=folder, hidden_dims=(9,)), two, r"Dense_0/.* has the shape .*16.* there, and .*9.* here"),
        (toy_config(init_from=folder, preprocess="l2"), two, "the preprocessing of that run must be those of this one"),
        (toy_config(init_from=folder), ("sound", "touch", "smell"), "the modalities of that run must be those"),
        (toy_config(init_from=tmp_path), two, r"init_from '.*' cannot be loaded \(.*holds no run"),
    ]
    for config, modalities, message in refusals:
        with pytest.raises(InputError, match=message):
            train(config, tmp_path / "new", data=toy_arrays(modalities))
        assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"init_from .* has no effect on the method cca; leave it out"):
        toy_config(method="cca", init_from=folder)


def test_an_open_number_of_epochs_comes_from_the_number_of_steps(tmp_path):
    """60 instances in batches of 16 are 4 steps an epoch; a run records the number, and so does one of a sweep."""
    config = replace(toy_config(), epochs=None)
    for method in ("mrl", "consensus"):
        own = with_settings(config, method=method)
        expected = round(entry_of(method).steps / 4)
        assert prepare_run(own, prepare_data(own, toy_arrays())).config.epochs == expected == auto_epochs(own, 60)
        assert auto_epochs(own, 10**6) == 10


def test_a_run_and_a_sweep_resume_with_the_length_that_they_began_with(tmp_path):
    """The default was 30 epochs before; the same command must not extend a run of that time, nor add one to a sweep."""
    config, arrays = toy_config(epochs=2), toy_arrays()
    opened = replace(config, epochs=None)
    short = train(config, tmp_path / "run", data=arrays)
    assert train(opened, tmp_path / "run", data=arrays, resume=True).scores == short.scores
    (tmp_path / "run" / "result.json").unlink()
    again = train(opened, tmp_path / "run", data=arrays, resume=True)
    assert again.run.config.epochs == 2
    assert again.metrics == short.metrics
    before = sweep(grid(config, seed=[0, 1]), tmp_path / "sweep", data=arrays)
    after = sweep(grid(opened, seed=[0, 1]), tmp_path / "sweep", data=arrays, resume=True)
    assert {name: run.scores for name, run in after.runs.items()} == {n: r.scores for n, r in before.runs.items()}


def test_a_run_resumes_with_the_numbers_of_its_time(tmp_path):
    """Consensus had no mixup before format 4."""
    now, arrays = toy_config(method="consensus", epochs=2), toy_arrays()
    older = Config.from_json(now.to_json() | {"format": 3})
    assert older.method_options == ("hidden_dropout=0", "mixup=0")
    first = train(older, tmp_path / "run", data=arrays)
    with pytest.raises(InputError, match="method_options  was given, but the run in"):
        train(now, tmp_path / "run", data=arrays, resume=True)  # begun by this version, with these numbers
    path = unchecked(tmp_path / "run") / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 3, "method_options": ["dropout=0.1"]}))
    given = with_settings(now, method_options=("dropout=0.1",))
    for file in ("result.json", "model.npz"):
        (tmp_path / "run" / file).unlink()
    again = train(given, tmp_path / "run", data=arrays, resume=True)
    assert again.run.config.method_options == ("dropout=0.1", "hidden_dropout=0", "mixup=0")
    assert again.scores["kept"] == "last"
    assert first.scores["kept"] == "last"


def test_a_method_that_has_no_epochs_among_its_settings_has_a_length(tmp_path):
    """A closed form has one epoch, whatever the number of steps."""
    config = Config(method="cca", modalities=("sound", "touch"))
    assert config.epochs is None
    assert prepare_run(config, prepare_data(config, toy_arrays())).epochs == 1
