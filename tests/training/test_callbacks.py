"""Callbacks: what they are told and when, runs that stop early, and what a callback that fails leaves."""

import json

import numpy as np
import pytest
from toy import assert_same_checkpoints, toy_arrays, toy_config

from mrl_jax import Callback, CallbackError, EarlyStopping, InputError, evaluate, grid, load_run, sweep, train
from mrl_jax.config import with_settings
from mrl_jax.interrupt import Interrupted
from mrl_jax.run.folder import RunFolder
from mrl_jax.training import loop

pytestmark = pytest.mark.slow
EPOCHS = 8


class Noted(Callback):
    """Notes every call; stops, fails or interrupts where it is told to."""

    def __init__(self, stop=None, fail=None):
        self.calls, self.stop, self.fail = [], stop, fail

    def __repr__(self):
        return "Noted()"

    def _note(self, method, *values):
        self.calls.append((method, *values))
        if self.fail in (method, (method, *values[:1])):
            raise OSError("the disk\nis full")

    def run_begins(self, run):
        self.start = run
        self._note("begins", run.done)

    def epoch_ends(self, line):
        self.lines = [*getattr(self, "lines", []), line]
        self._note("epoch", line["epoch"])
        return line["epoch"] == self.stop

    def checkpoint_written(self, epoch, path):
        assert (path / "_CHECKPOINT_METADATA").exists()
        self._note("written", epoch)

    def run_ends(self, result, error):
        self._note("ends", None if result is None else result["test"]["last"]["epoch"], error)

    def of(self, method):
        return [call[1] for call in self.calls if call[0] == method]


def config_of(**changes):
    return toy_config(epochs=EPOCHS, noise_rate=0.6, learning_rate=0.1, **changes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run without callbacks."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    return train(config_of(), folder, data=toy_arrays()), folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that stops before its end by patience, and what a second callback noted."""
    folder, noted = tmp_path_factory.mktemp("stopped") / "run", Noted()
    return train(config_of(), folder, data=toy_arrays(), callbacks=[EarlyStopping(2), noted]), folder, noted


def stop_of(log, patience, least=0.0):
    """The epoch after which no mAP of the last `patience` epochs exceeds that of all before; None without one."""
    values = [line["valid"]["average"] for line in log]
    for n in range(patience + 1, len(values) + 1):
        if max(values[n - patience : n]) <= max(values[: n - patience]) + least:
            return n
    return None


def test_a_run_tells_its_start_its_lines_its_checkpoints_and_its_end(tmp_path, plain):
    noted = Noted()
    result = train(config_of(), tmp_path / "run", data=toy_arrays(), callbacks=[noted])
    assert_same_checkpoints(tmp_path / "run", plain[1])  # and nothing that was trained is another
    assert result.metrics == plain[0].metrics
    assert noted.calls[0] == ("begins", 0)
    assert noted.calls[-1] == ("ends", EPOCHS, None)
    assert noted.of("epoch") == list(range(1, EPOCHS + 1))
    assert noted.of("written") == [1, EPOCHS]
    assert RunFolder(tmp_path / "run").metrics() == noted.lines
    start = noted.start
    assert (start.name, start.workdir, start.epochs, start.log) == ("run", tmp_path / "run", EPOCHS, ())
    assert start.config == result.run.config
    assert start.data["sha256"] == result.data["sha256"]
    assert start.noise["wrong_share"] == result.noise["wrong_share"]


def test_any_object_with_one_of_the_methods_will_do_and_a_run_in_memory_too():
    class Lines:
        def __init__(self):
            self.seen = []

        def epoch_ends(self, line):
            self.seen.append(line["valid"]["average"])

    lines = Lines()
    result = train(toy_config(), data=toy_arrays(), callbacks=(lines,))
    assert lines.seen == [line["valid"]["average"] for line in result.metrics]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (EarlyStopping(2), "give a list"),
        ([EarlyStopping], r"EarlyStopping is a class; give an instance: EarlyStopping\(\)"),
        ([print], "has none of the methods run_begins, epoch_ends, checkpoint_written, run_ends"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        train(toy_config(), tmp_path / "run", data=toy_arrays(), callbacks=given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("patience", "least"), [(0, 0), (True, 0), (1.5, 0), (1, -0.1), (1, float("nan"))])
def test_a_rule_that_makes_no_sense_is_refused(patience, least):
    with pytest.raises(InputError, match="must be"):
        EarlyStopping(patience, least)


def test_the_rule_is_that_of_its_definition_for_any_log():
    rng = np.random.default_rng(0)
    for _ in range(200):
        patience, least = int(rng.integers(1, 4)), 0.0
        log = [{"valid": {"average": float(v)}} for v in rng.integers(0, 5, 12) / 4]
        stopping = EarlyStopping(patience, least)
        told = [stopping.epoch_ends(line) for line in log]
        assert (told.index(True) + 1 if True in told else None) == stop_of(log, patience, least)


def test_early_stopping_ends_a_complete_run_of_the_first_epochs_of_the_whole_one(stopped, plain):
    result, folder, noted = stopped
    at = stop_of(plain[0].metrics, 2)
    assert at is not None
    assert at < EPOCHS  # the toy data see to it
    assert result.metrics == plain[0].metrics[:at]  # the schedule is that of all epochs
    record = {"epoch": at, "of": EPOCHS, "by": "EarlyStopping(patience=2, least=0.0)"}
    assert json.loads((folder / "result.json").read_text())["stopped"] == result.scores["stopped"] == record
    assert "stopped" not in plain[0].scores
    assert result.scores["test"]["last"]["epoch"] == at
    assert f"stopped early after epoch {at} of {EPOCHS} by EarlyStopping(patience=2" in result.table()
    assert noted.calls[-1] == ("ends", at, None)
    assert noted.of("written") == [1, at]
    assert sorted(RunFolder(folder).samples())[-1] == at
    assert load_run(folder, checkpoint="last").epoch == at
    assert evaluate(folder, data=toy_arrays(), checkpoint="last")["map"] == result.scores["test"]["last"]["map"]
    again = train(config_of(), folder, data=toy_arrays(), resume=True, callbacks=[told := Noted()])
    assert again.scores == result.scores
    assert again.metrics == result.metrics
    assert told.calls == []


@pytest.mark.parametrize("where", ["before", "at", "at, and resumed without the callback"])
def test_a_stopped_run_that_was_interrupted_ends_with_the_same_bits(tmp_path, monkeypatch, stopped, where):
    """Killed two epochs before it stops, or after its last checkpoint, before the result."""
    at = stopped[0].scores["stopped"]["epoch"]
    folder, arrays = tmp_path / "run", toy_arrays()
    with monkeypatch.context() as patch:
        patch.setattr(loop._Pace, "due", lambda self: True)
        if where != "before":
            patch.setattr(loop, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stop = Noted(fail=("epoch", at - 2)) if where == "before" else Noted()
        with pytest.raises((CallbackError, KeyboardInterrupt)):
            train(config_of(), folder, data=arrays, callbacks=[EarlyStopping(2), stop])
    noted = Noted()
    rule = [] if "without" in where else [EarlyStopping(2)]
    result = train(config_of(), folder, data=arrays, resume=True, callbacks=[*rule, noted])
    done = at - 2 if where == "before" else at
    assert noted.of("begins") == [done]
    assert [line["epoch"] for line in noted.start.log] == list(range(1, done + 1))
    assert result.scores["stopped"] == stopped[0].scores["stopped"]
    assert result.metrics == stopped[0].metrics
    assert_same_checkpoints(folder, stopped[1])


def test_a_stopped_run_takes_more_epochs_from_where_it_stopped(tmp_path, stopped):
    arrays, at = toy_arrays(), stopped[0].scores["stopped"]["epoch"]
    train(config_of(), tmp_path / "run", data=arrays, callbacks=[EarlyStopping(2)])
    (tmp_path / "run" / "result.json").unlink()  # lost: made again, and nothing is trained
    again = train(config_of(), tmp_path / "run", data=arrays, resume=True)
    assert (again.scores["stopped"], again.metrics) == (stopped[0].scores["stopped"], stopped[0].metrics)
    longer = with_settings(config_of(), epochs=EPOCHS + 2)
    still = train(longer, tmp_path / "run", data=arrays, resume=True, callbacks=[EarlyStopping(2)])
    assert still.scores["stopped"]["epoch"] == at  # the rule says what it said
    assert still.scores["stopped"]["of"] == EPOCHS + 2
    whole = train(with_settings(longer, epochs=EPOCHS + 3), tmp_path / "run", data=arrays, resume=True)
    assert "stopped" not in whole.scores
    assert whole.scores["lengths"] == [EPOCHS, EPOCHS + 2, EPOCHS + 3]
    assert [line["epoch"] for line in whole.metrics] == list(range(1, EPOCHS + 4))
    assert whole.metrics[:at] == stopped[0].metrics


@pytest.mark.parametrize(
    ("fail", "done", "text"),
    [
        ("begins", 0, r"callback Noted\(\) failed in run_begins \(OSError: the disk\); mend the callback, then resume"),
        (
            ("epoch", 3),
            3,
            r"callback Noted\(\) failed in epoch_ends after epoch 3 \(OSError: the disk\); saved after epoch 3 of 8; ",
        ),
        (("written", 1), None, r"failed in checkpoint_written after epoch \d \(OSError: the disk\)"),
    ],
)
def test_a_callback_that_fails_ends_the_run_after_it_is_saved_and_the_run_resumes(tmp_path, plain, fail, done, text):
    folder, arrays, other = tmp_path / "run", toy_arrays(), Noted()
    with pytest.raises(CallbackError, match=text) as caught:
        train(config_of(), folder, data=arrays, callbacks=[other, Noted(fail=fail)])
    assert isinstance(caught.value.__cause__, OSError)
    assert other.calls[-1] == ("ends", None, caught.value)
    assert not (folder / "result.json").exists()
    noted = Noted()
    result = train(config_of(), folder, data=arrays, resume=True, callbacks=[noted])
    assert noted.of("begins")[0] > 0 if done is None else noted.of("begins") == [done]
    assert result.metrics == plain[0].metrics
    assert_same_checkpoints(folder, plain[1])


def test_a_callback_that_fails_at_the_end_leaves_a_complete_run(tmp_path, plain):
    with pytest.raises(CallbackError, match=r"failed in run_ends after epoch 8 .*the run is complete"):
        train(config_of(), tmp_path / "run", data=toy_arrays(), callbacks=[Noted(fail="ends")])
    result = train(config_of(), tmp_path / "run", data=toy_arrays(), resume=True)
    assert result.scores["test"] == plain[0].scores["test"]


def test_an_answer_that_is_none_is_an_error():
    class Answers:
        def epoch_ends(self, line):
            return line

    with pytest.raises(CallbackError, match="it returned dict; return True to stop the run, else False or None"):
        train(toy_config(), data=toy_arrays(), callbacks=[Answers()])


def test_what_ends_a_run_early_is_told(tmp_path, monkeypatch):
    noted = Noted()
    with pytest.raises(FloatingPointError) as failed:
        train(toy_config(learning_rate=1e30), tmp_path / "diverges", data=toy_arrays(), callbacks=[noted])
    assert noted.calls[-1] == ("ends", None, failed.value)
    monkeypatch.setattr(loop, "highest", lambda number: 2)  # a signal came
    noted = Noted(fail="ends")
    with pytest.raises(Interrupted) as asked:
        train(toy_config(), tmp_path / "asked", data=toy_arrays(), callbacks=[noted])
    assert noted.of("written") == [1]
    assert noted.calls[-1] == ("ends", None, asked.value)
    assert asked.value.__notes__ == ["callback Noted() failed in run_ends (OSError: the disk)"]


def test_runs_of_a_sweep_stop_each_by_its_own_log_and_alike_if_the_sweep_is_resumed(tmp_path):
    configs, arrays = grid(config_of(), seed=range(3)), toy_arrays()
    whole = sweep(configs, data=arrays, way="together")
    noted = {}

    def callbacks(name):
        noted[name] = Noted()
        return [EarlyStopping(2), noted[name]]

    ended = sweep(configs, tmp_path / "sweep", data=arrays, way="together", callbacks=callbacks)
    expected = {name: stop_of(run.metrics, 2) or EPOCHS for name, run in whole.runs.items()}
    assert len(set(expected.values())) > 1  # they stop at different epochs
    for name, run in ended.runs.items():
        at = expected[name]
        assert run.metrics == whole.runs[name].metrics[:at]
        assert run.scores.get("stopped", {"epoch": EPOCHS})["epoch"] == at
        assert run.scores["test"]["last"]["epoch"] == at
        assert noted[name].start.name == name
        assert noted[name].start.workdir == tmp_path / "sweep" / "runs" / name
        assert noted[name].of("epoch") == list(range(1, at + 1))
        assert noted[name].calls[-1] == ("ends", at, None)
        assert evaluate(run.workdir, data=arrays)["map"] == pytest.approx(run.scores["test"]["best"]["map"], abs=1e-6)

    first = min(expected, key=expected.get)  # a callback of another run fails once the first has stopped
    later = next(name for name in expected if expected[name] > expected[first])

    def failing(name):
        return [EarlyStopping(2), Noted(fail=("epoch", expected[first] + 1) if name == later else None)]

    with pytest.raises(CallbackError, match=f"run {later}: callback Noted"):
        sweep(configs, tmp_path / "again", data=arrays, way="together", callbacks=failing)
    resumed = sweep(configs, tmp_path / "again", data=arrays, resume=True, way="together", callbacks=callbacks)
    for name, run in resumed.runs.items():  # in a group of other size, which may sum in another order
        assert len(run.metrics) == run.scores["test"]["last"]["epoch"] == expected[name]
        average = ended.runs[name].scores["test"]["last"]["average"]
        assert run.scores["test"]["last"]["average"] == pytest.approx(average, abs=1e-3)
