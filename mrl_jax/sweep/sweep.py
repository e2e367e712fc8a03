"""Many runs at once: seeds, noise rates and hyperparameters, as one compiled program where that is faster.

python -m mrl_jax.sweep [PRESET] [flags] --seeds 5 --noise-rates 0.2 0.4 0.6 0.8 --workdir DIR
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from typing import Any

import jax

from mrl_jax.backend import names_backend
from mrl_jax.config import Config, fields_used, refuse_no_config, with_settings
from mrl_jax.display.progress import SweepProgress, is_watched
from mrl_jax.errors import InputError, NonFiniteLossError
from mrl_jax.interrupt import StopRequest, stop_request
from mrl_jax.options import CUT_FIELDS, MOST_RUNS, SWEEP_WAYS
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.same_config import refuse_other_config
from mrl_jax.run.start import resumes
from mrl_jax.sweep.folder import SweepFolder
from mrl_jax.sweep.groups import common_epochs, groups, program_of
from mrl_jax.sweep.names import name_runs
from mrl_jax.sweep.results import Outcome, Sweep
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.callbacks import checked
from mrl_jax.training.loop import train_epochs
from mrl_jax.training.run_spec import RunData, prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun
from mrl_jax.training.vmapped_runs import VmappedRuns

__all__ = ["Outcome", "Sweep", "grid", "sweep"]


def grid(base: Config, **axes: Iterable[Any]) -> list[Config]:
    """Every combination of values.

    Args:
        base: the configuration that they change.
        axes: field of `Config` -> its values; the last varies fastest.

    Raises:
        InputError: an unknown field, no or equal values, or one outside its range.

    Example:
        >>> from mrl_jax import preset
        >>> [(c.noise_rate, c.seed) for c in grid(preset("emoji"), noise_rate=[0.2, 0.6], seed=range(2))]
        [(0.2, 0), (0.2, 1), (0.6, 0), (0.6, 1)]
    """
    refuse_no_config(base)
    known = {f.name for f in fields(Config)}
    if lone := [name for name, given in axes.items() if isinstance(given, str) or not isinstance(given, Iterable)]:
        raise InputError(f"{lone[0]} {axes[lone[0]]!r}: give a list of values")
    values = {name: list(itertools.islice(given, MOST_RUNS + 1)) for name, given in axes.items()}
    if (runs := math.prod(map(len, values.values()))) > MOST_RUNS:
        several = ", ".join(name for name, given in values.items() if len(given) > 1)
        raise InputError(
            f"{several}: {runs:,} combinations or more; a sweep takes at most {MOST_RUNS:,} runs: give fewer values"
        )
    for name, given in values.items():
        if name not in known:
            raise InputError(f"unknown configuration field {name!r}; known: {', '.join(sorted(known))}")
        if not given:
            raise InputError(f"{name}: give at least one value")
        if twice := [v for i, v in enumerate(given) if v in given[:i]]:
            raise InputError(f"{name}: {twice[0]} is given twice")
    bases = {method: with_settings(base, method=method) for method in values.get("method", [base.method])}
    for name, given in values.items():
        without = [method for method in bases if name not in fields_used(method)]
        if without and (len(given) > 1 or len(without) == len(bases)):
            remedy = "leave it out" if len(without) == len(bases) else "give it one value"
            raise InputError(f"{name} has no effect on the method {without[0]}; {remedy}")
    configs = []
    for combination in itertools.product(*values.values()):
        changes = dict(zip(values, combination, strict=True))
        method = changes.pop("method", base.method)
        used = {name: value for name, value in changes.items() if name in fields_used(method)}
        configs.append(with_settings(bases[method], **used))
    return configs


@names_backend
def sweep(
    configs: Sequence[Config],
    workdir: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    resume: bool | str = False,
    progress: bool | None = None,
    callbacks: Callable[[str], Sequence[Any]] | None = None,
    way: str = "auto",
) -> Sweep:
    """Train many runs. Each has the result that `train` gives, up to the order of sums.

    Runs that differ only in noise, seed and the leaves of the hyperparameters are one compiled program: `vmap` over
    runs, the run axis divided among all devices, in groups that fit their memory. On CPU this is faster for small
    networks only; others are trained one after the other by the program of `train`, compiled once. So are runs that
    stream their data.

    If the loss of a run becomes inf or NaN, that run ends and the result holds its error; the others continue.

    Args:
        configs: a configuration per run, such as `grid` makes.
        workdir: folder of the sweep, new or empty, unless `resume`. It gets tables, and under `runs/` a folder for
            every run; a complete run keeps its model, not its training state. None: scores only, in memory.
        data: anything `load_dataset` takes, for all runs; None for what each configuration names.
        resume: continue the sweep in `workdir`: complete runs stay, the others continue after their last checkpoint.
            Configurations that it does not have are added. "auto" begins a sweep where there is none.
        progress: show a bar on a terminal or in a notebook, or lines elsewhere, on standard error, with the time left.
            None shows the bar alone, and is silent elsewhere.
        callbacks: takes the name of a run, and gives its callbacks, as of `train`; called for the runs that are not
            complete. A run that they stop early is scored where it stopped; the others go on.
        way: "together" in one program, "apart" one after the other, or "auto" for whichever is faster.

    Returns:
        The results of all runs, with tables and plot.

    Raises:
        InputError: anything wrong with configurations, data or folder, before anything is trained.
        Interrupted: as in `train`.
        CallbackError: a callback failed; the runs are saved.
        CheckpointError: a checkpoint could not be written.
    """
    progress = is_watched() if progress is None else progress
    if isinstance(configs, Config):
        raise InputError("sweep takes a list of configurations: [config], or grid(config, …)")
    configs = list(configs) if isinstance(configs, Iterable) else [configs]
    for config in configs:
        refuse_no_config(config)
    if way not in SWEEP_WAYS:
        raise InputError(f"way {way!r}: choose from {', '.join(SWEEP_WAYS)}")
    if callbacks is not None and not callable(callbacks):
        raise InputError("callbacks of a sweep: give a function from a run's name to its callbacks: lambda name: […]")
    resume = resumes(resume, workdir, SweepFolder.FILE)
    if resume and workdir is None:
        raise InputError("resume needs the folder of the sweep: workdir")
    if jax.process_count() > 1:
        raise InputError(
            "a sweep runs in one process, over all its devices; start a process for each part of the sweep"
        )
    folder = None
    if workdir is not None:
        folder = SweepFolder.open(workdir) if resume else SweepFolder.refuse_occupied(workdir)
    with ExitStack() as stack:
        if folder is not None and resume:
            stack.enter_context(folder.lock())  # before reading: another process may add runs
        named = name_runs(configs, folder.configs() if folder is not None and resume else {})
        runs = _prepare_runs(named, data, folder)
        if folder is not None:
            if not resume:
                stack.enter_context(folder.lock())
                SweepFolder.refuse_occupied(folder.path)  # another process may have started meanwhile
            folder.write(named)
            for name, run in runs.items():
                _settle(run, folder.run(name, run.spec.config))
        left = [r for r in runs.values() if not r.read_complete() and not _recall_failure(r)]
        for run in left:
            run.callbacks = () if callbacks is None else checked(callbacks(run.name))
        done = common_epochs(left, [_epochs_saved(r) for r in left])
        epochs = sum(r.spec.epochs for r in left) - sum(done)
        todo = groups(left, done, way, jax.devices())
        programs = [(group, program_of(group)) for group in todo]
        shown = stack.enter_context(SweepProgress(len(runs), len(runs) - len(left), epochs, progress, programs))
        for run in runs.values():
            if run.scores is not None:
                _drop_state(run)  # the sweep may have been killed just before this
        stop = stack.enter_context(stop_request(None if folder is None else folder.path, "sweep"))
        for i, group in enumerate(todo):
            _train_group(group, shown, stop)
            if folder is not None and i + 1 < len(todo):
                _write_tables(folder, _sweep(runs, folder))
            if stop is not None and stop.number and i + 1 < len(todo):
                complete = sum(run.scores is not None for run in runs.values())
                raise stop.interrupted(f"{complete} of {len(runs)} runs are complete")
        if folder is not None:
            _write_tables(folder, _sweep(runs, folder))
    return _sweep(runs, folder)


_DATA_FIELDS = ("preset", "data_path", *CUT_FIELDS, "modalities", "preprocess", "init_from", "stream")
"""The fields that determine the data of a run."""


def _prepare_runs(named: Mapping[str, Config], data: Any, folder: SweepFolder | None) -> dict[str, ActiveRun]:
    """All runs; data that several runs use are loaded once. Runs that are added have the data of those there are."""
    source = None if folder is None else folder.source()
    loaded: dict[tuple[Any, ...], RunData] = {}
    runs = {}
    for name, config in named.items():
        key = tuple(getattr(config, name) for name in _DATA_FIELDS)
        if key not in loaded:
            loaded[key] = prepare_data(config, data, source=source)
        recorded = None if folder is None else folder.recorded_noise(name)
        runs[name] = ActiveRun(prepare_run(config, loaded[key], recorded), None, name=name)
    return runs


def _settle(run: ActiveRun, folder: RunFolder) -> None:
    refuse_other_config(folder, run.spec.config)
    with folder.lock():  # fails before any training if another process trains this run
        folder.record_checksums()
        folder.settle(run.spec.data.described, run.spec.noise)
    run.folder = folder
    run.spec = replace(run.spec, noise=folder.noise())


def _epochs_saved(run: ActiveRun) -> list[int]:
    if run.folder is None or not run.folder.has_checkpoints:
        return []
    from mrl_jax.run.checkpoint import Checkpoints

    with Checkpoints(run.folder.checkpoints, read_only=True) as store:
        return store.epochs()


def _train_group(group: Sequence[ActiveRun], shown: SweepProgress, stop: StopRequest | None) -> None:
    """Train runs together, or in two halves if the estimate of their memory was too low."""
    done = [_epochs_saved(r) for r in group]
    try:
        return _train_together(group, shown, stop)
    except jax.errors.JaxRuntimeError as error:
        # The halves repeat the epochs since the last checkpoint.
        changed = done != [_epochs_saved(r) for r in group] or any(r.scores is not None for r in group)
        if len(group) == 1 or "RESOURCE_EXHAUSTED" not in str(error) or changed:
            raise
    half = len(group) // 2  # outside the handler: its error holds the arrays
    _train_group(group[:half], shown, stop)
    _train_group(group[half:], shown, stop)


def _train_together(group: Sequence[ActiveRun], shown: SweepProgress, stop: StopRequest | None) -> None:
    started = time.perf_counter()
    spec = group[0].spec
    devices = jax.devices()[: len(group)]
    program = SingleRun(spec) if len(group) == 1 else VmappedRuns([r.spec for r in group], devices)
    with ExitStack() as locks:
        for run in group:
            if run.folder is not None:
                locks.enter_context(run.folder.lock())
        with suppress(NonFiniteLossError):  # every run holds its own error
            saved = [_epochs_saved(r) for r in group]
            common, last = set(common_epochs(group, saved)), {max(epochs, default=0) for epochs in saved}
            start = common.pop() if len(common) == 1 < len(last) else math.inf
            train_epochs(
                program, group, started, lambda: shown.advance(group), keep_state=False, stop=stop, start=start
            )
        for run in group:
            run.model = None  # the next group needs the memory
            if run.folder is None:
                continue
            if run.error is not None:
                run.folder.write(_FAILURE, {"error": str(run.error)})
            else:
                _drop_state(run)
    shown.end(group)


def _drop_state(run: ActiveRun) -> None:
    """Delete the checkpoints of a complete run; its model has a file of its own."""
    if run.folder is not None and any(run.folder.checkpoints.glob("*")):
        from mrl_jax.run.checkpoint import Checkpoints

        Checkpoints(run.folder.checkpoints).drop_all()


_FAILURE = "failed.json"


def _recall_failure(run: ActiveRun) -> bool:
    """Whether the run failed before; it would fail again."""
    if run.folder is None or not (run.folder.path / _FAILURE).exists():
        return False
    run.error = NonFiniteLossError(str(run.folder.read(_FAILURE).get("error")))
    return True


def _sweep(runs: Mapping[str, ActiveRun], folder: SweepFolder | None) -> Sweep:
    outcomes = {}
    for name, r in runs.items():
        error = None if r.error is None else str(r.error)
        where = None if r.folder is None else r.folder.path
        outcomes[name] = Outcome(r.spec.config, r.scores, r.log, error, where)
    return Sweep(outcomes, None if folder is None else folder.path)


def _write_tables(folder: SweepFolder, results: Sweep) -> None:
    """Write the tables of the runs so far; the plot, which takes longest, once no run is missing."""
    summary = results.summary()
    folder.write_tables(results.csv(), results.markdown(), summary)
    if summary["cells"] and not summary["missing"]:
        results.plot(folder.plot)
