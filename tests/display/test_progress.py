"""The time left of sweeps and runs, by a clock that the tests move."""

import sys
from types import SimpleNamespace

import pytest
from tqdm import std

from mrl_jax.display.progress import SweepProgress, epoch_progress, is_watched


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def run_of(epochs):
    return SimpleNamespace(spec=SimpleNamespace(epochs=epochs), log=[], error=None)


def train(shown, clock, runs, seconds, end=0.0):
    """Epochs that take `seconds` each."""
    for s in seconds:
        clock.now += s
        for run in runs:
            run.log.append({})
        shown.advance(runs)
    if len(runs[0].log) == runs[0].spec.epochs:
        clock.now += end
        shown.end(runs)


def test_compilation_is_no_pace(capsys):
    """A minute of compilation, then 20 epochs a second apart."""
    clock = Clock()
    runs = [run_of(20) for _ in range(4)]
    with SweepProgress(4, 0, 80, True, clock=clock) as shown:
        train(shown, clock, runs, [60.0])
        assert capsys.readouterr().err == "runs 1-4 of 4, epoch 1/20\n"  # no estimate yet
        train(shown, clock, runs, [1.0] * 11)
        assert capsys.readouterr().err == "runs 1-4 of 4, epoch 11/20, 9 s left\n"
        train(shown, clock, runs, [1.0] * 8, end=2.0)
        assert capsys.readouterr().err == "4/4 runs done\n"


def test_starts_and_ends_of_later_runs_count(capsys):
    """3 runs of 5 epochs of 4 s; the first compiles for 100 s, each later one starts in 6 s and ends in 10 s."""
    clock = Clock()
    with SweepProgress(3, 0, 15, True, clock=clock) as shown:
        train(shown, clock, [run_of(5)], [104.0, 4.0, 4.0, 4.0, 4.0], end=10.0)
        assert capsys.readouterr().err.splitlines()[-1] == "1/3 runs done, 60 s left"  # 2 * (5 * 4 + 10)
        train(shown, clock, [run_of(5)], [10.0, 4.0, 4.0, 4.0, 4.0], end=10.0)
        assert capsys.readouterr().err.splitlines()[-1] == "2/3 runs done, 36 s left"  # 5 * 4 + 6 + 10
        train(shown, clock, [run_of(5)], [10.0, 4.0])
        assert capsys.readouterr().err.splitlines()[-1] == "run 3 of 3, epoch 1/5, 26 s left"


def test_compilation_of_later_programs_counts_from_the_first_epochs_on(capsys):
    """3 programs of 30 s, the last of two groups of 2 runs; an epoch of a run takes 1 s, the end of each 2 s."""
    clock = Clock()
    a, b, c, d = [run_of(4)], [run_of(4)], [run_of(4), run_of(4)], [run_of(4), run_of(4)]
    programs = [(a, "A"), (b, "B"), (c, "C"), (d, "C")]
    with SweepProgress(6, 0, 24, True, programs, clock) as shown:
        train(shown, clock, a, [31.0, 1.0, 1.0, 1.0], end=2.0)
        # 20 epochs, 2 programs, 5 ends
        assert capsys.readouterr().err.splitlines()[-1] == "1/6 runs done, 90 s left"
        train(shown, clock, b, [31.0, 1.0, 1.0, 1.0], end=2.0)
        # 16 epochs, 1 program, 4 ends
        assert capsys.readouterr().err.splitlines()[-1] == "2/6 runs done, 54 s left"
        train(shown, clock, c, [32.0, 2.0, 2.0, 2.0], end=4.0)
        # 8 epochs, 2 ends; the program of the last group is compiled
        assert capsys.readouterr().err.splitlines()[-1] == "4/6 runs done, 12 s left"
    clock, a, b = Clock(), [run_of(3)], [run_of(2)]
    with SweepProgress(2, 0, 5, True, [(a, "A"), (b, "B")], clock) as shown:
        train(shown, clock, a, [41.0, 10.0])
        assert capsys.readouterr().err.splitlines()[-1] == "run 1 of 2, epoch 2/3, 61 s left"  # 3 * 10 + 31


def test_runs_of_one_epoch_are_estimated_from_the_second_on(capsys):
    clock = Clock()
    with SweepProgress(5, 0, 5, True, clock=clock) as shown:
        for expected in ("1/5 runs done", "2/5 runs done, 6 s left", "3/5 runs done, 4 s left"):
            train(shown, clock, [run_of(1)], [50.0 if expected == "1/5 runs done" else 1.5], end=0.5)
            assert capsys.readouterr().err.splitlines()[-1] == expected


def test_epochs_that_failed_runs_do_not_train_are_not_left(capsys):
    clock = Clock()
    with SweepProgress(4, 0, 40, True, clock=clock) as shown:
        both = [run_of(10), run_of(10)]
        train(shown, clock, both, [30.0, 1.0, 1.0])
        for run in both:
            run.error = "nan"
        shown.end(both)
        assert capsys.readouterr().err.splitlines()[-1] == "2/4 runs done, 2 failed, 10 s left"  # 20 * 0.5
        at_once = run_of(10)
        at_once.error = "nan"
        shown.end([at_once])
        assert capsys.readouterr().err.splitlines()[-1] == "3/4 runs done, 1 failed, 5 s left"


def test_nothing_is_shown_unless_it_is_wanted(capsys):
    clock = Clock()
    with SweepProgress(1, 0, 3, False, clock=clock) as shown:
        train(shown, clock, [run_of(3)], [20.0] * 3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("resumed", [0, 10])
def test_the_bar_of_a_run_estimates_from_its_second_epoch_on(monkeypatch, capsys, resumed):
    clock = Clock()
    monkeypatch.setattr("mrl_jax.display.progress.time.monotonic", clock)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    postfixes = []
    monkeypatch.setattr("tqdm.std.tqdm.set_postfix_str", lambda self, text, refresh: postfixes.append(text))
    log = [{"train": {"loss": 1.0}, "valid": {"average": 0.5}}] * resumed
    with epoch_progress(30, True) as show:
        for seconds in (90.0, 2.0, 2.0):
            clock.now += seconds
            log = [*log, {"train": {"loss": 1.0}, "valid": {"average": 0.5}}]
            show(log)
    left = [30 - resumed - i for i in (2, 3)]
    scores = "loss 1.0000, valid mAP 0.500 (best 0.500)"
    assert postfixes == [scores, *(f"{2 * n} s left, {scores}" for n in left), scores]  # at last it stops early


def test_progress_is_shown_by_default_where_somebody_sees_a_bar(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    assert not is_watched()
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    assert is_watched()
    monkeypatch.setattr(sys, "stderr", None)  # a program without console
    assert not is_watched()
    for shell, seen in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=0), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert is_watched() == seen


def test_a_bar_in_a_notebook_without_widgets_gives_no_warning_and_ends_full_when_a_run_stops(monkeypatch, capsys):
    shell = SimpleNamespace(kernel=0, config={"IPKernelApp": {}})  # as tqdm and `is_watched` ask for it
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    ends, close = [], std.tqdm.close
    monkeypatch.setattr(std.tqdm, "close", lambda self: (ends.append((self.n, self.total)), close(self)))
    with epoch_progress(30, True) as show:  # pytest makes every warning an error
        show([{"train": {}, "valid": {"average": 0.5}}])
        show([{"train": {}, "valid": {"average": 0.5}}] * 2)
    assert ends[0] == (2, 2)
    assert "valid mAP 0.500" in capsys.readouterr().err
