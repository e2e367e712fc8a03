"""Train a model: configuration -> data -> epochs -> result.

python -m mrl_jax.train [PRESET] [flags] [--workdir DIR] [--resume]
"""

import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mrl_jax.backend import names_backend
from mrl_jax.cli import Parser, add_config_flags, exit_process, output_path, run_command
from mrl_jax.config import Config, preset, refuse_no_config, with_settings
from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.display.curves import plot_curves
from mrl_jax.display.progress import epoch_progress, is_watched
from mrl_jax.display.text import describe_noise, summary
from mrl_jax.errors import InputError
from mrl_jax.interface import option
from mrl_jax.interrupt import continues_hint, stop_request
from mrl_jax.methods.registry import entry_of
from mrl_jax.notebook import facts_html, facts_text, table_html
from mrl_jax.options import PARALLEL
from mrl_jax.retrieval.measure import cross_modal_chance
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run
from mrl_jax.run.model import TrainedModel
from mrl_jax.run.representation import metric_of, ranked_by, representation_of
from mrl_jax.run.same_config import as_begun, extends, refuse_other_config
from mrl_jax.run.start import resumes
from mrl_jax.track.named import add_track_flag, tracker
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.callbacks import checked
from mrl_jax.training.loop import train_epochs
from mrl_jax.training.placement import Placement, choose_placement
from mrl_jax.training.processes import convert_process_loss, in_all, is_main, leave, on_main, start_processes
from mrl_jax.training.run_spec import RunSpec, prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun

__all__ = ["Result", "main", "train"]


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        scores: content of `result.json`: test and validation mAP at the best and the last epoch, chance, time.
        metrics: content of `metrics.jsonl`, one mapping per epoch.
        noise: content of `noise.json`: the noise and the true share of wrong labels.
        data: content of `data.json`.
        run: the model that is kept: of the best epoch, or of the last one if the method keeps that.
        workdir: the run's folder, or None if it was trained in memory.
        chance: the validation mAP of a random ranking, expected, mean of all directions.
    """

    scores: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    noise: Mapping[str, Any]
    data: Mapping[str, Any]
    run: TrainedModel
    workdir: Path | None
    chance: float = float("nan")

    def __repr__(self) -> str:
        return facts_text("Result", self._facts())

    def _repr_html_(self) -> str:
        test = self.scores["test"]
        head = ("test mAP", *(f"{which}, epoch {scores['epoch']}" for which, scores in test.items()))
        rows = [[d, *(f"{s['map'][d]:.3f}" for s in test.values())] for d in test["best"]["map"]]
        average = ["average", *(f"{s['average']:.3f}" for s in test.values())]
        return facts_html("Result", self._facts(), table_html([head, *rows[:20], average]))

    def _facts(self) -> dict[str, str]:
        best, last = (f"{s['average']:.3f} (epoch {s['epoch']})" for s in self.scores["test"].values())
        where = {} if self.workdir is None else {"workdir": str(self.workdir)}
        about = {"data": self.data["name"], "method": self.run.config.method, "noise": describe_noise(self.noise)}
        return about | {"test mAP best": best, "last": last} | where

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the learning curves: training losses and validation mAP.

        Args:
            path: a PNG file to write, or None.

        Returns:
            The figure of matplotlib.
        """
        title = _title(self.data["name"], self.noise, self.run.config)
        return plot_curves(None if path is None else Path(path), self.metrics, self.scores, title, self.chance)

    def table(self) -> str:
        """The result as text."""
        entry, config = entry_of(self.run.config.method), self.run.config
        kind = representation_of(config)
        method = entry.describe(config)
        method += "" if kind == "embedding" else f", retrieval by {ranked_by(kind, metric_of(kind))}"
        return summary(method, self.data, self.noise, self.scores, self.workdir, entry.memorises)


@names_backend
def train(
    config: Config,
    workdir: str | os.PathLike[str] | None = None,
    *,
    data: Any = None,
    resume: bool | str = False,
    progress: bool | None = None,
    callbacks: Sequence[Any] = (),
    parallel: str = "auto",
    model_parallel: int = 1,
    keep_checkpoints: bool = False,
) -> Result:
    """Train, and score the epoch with the best average validation mAP and the last one on the test split.

    Args:
        config: what to do; `preset(name, …)` makes one.
        workdir: folder for the run; new or empty, unless `resume`. None keeps everything in memory.
        data: anything `load_dataset` takes, such as a mapping of arrays; None for what `config` names.
        resume: go on after the last checkpoint of the run in `workdir`. It ends with the same bits, on the same
            machine, as a run that was never interrupted. With more epochs in `config` a run is extended, complete or
            not: from its last epoch on the schedule is that of the new length. "auto" starts a run where there is none,
            and resumes one where there is, so that a cell of a notebook may run twice.
        callbacks: objects that are told when the run begins, an epoch ends, a checkpoint is written, and the run ends,
            such as `EarlyStopping(patience=10)` and those of `mrl_jax.track`; see `Callback`. A run that resumes needs
            them again. A complete run tells nothing.
        progress: show a bar on a terminal or in a notebook, or a line per epoch elsewhere, on standard error. None
            shows the bar alone, and is silent elsewhere.
        parallel: over several devices by "jit", "shard_map" or "pmap"; "auto" takes several only where batches are
            large enough (docs/scale.md). The numbers are those of one device, up to the order of sums.
        model_parallel: over how many devices parameters and optimiser state are divided, for encoders that one device
            cannot hold.
        keep_checkpoints: keep all checkpoints. Otherwise the last two stay, and of a complete run the last one, from
            which it can be extended.

    Returns:
        The scores, and the model that is kept.

    Raises:
        InputError: anything wrong with configuration, data or folder, before anything is written.
        Interrupted: a KeyboardInterrupt; Ctrl-C or SIGTERM came, and the epoch was finished and saved. A second one
            interrupts at once.
        NonFiniteLossError: the loss or a parameter became inf or NaN; checkpoints of earlier epochs stay.
        CallbackError: a callback failed; the run is saved.
        CheckpointError: a checkpoint could not be written.
    """
    refuse_no_config(config)
    told, progress = checked(callbacks), is_watched() if progress is None else progress
    started = time.perf_counter()
    again = on_main(lambda: resumes(resume, workdir))
    folder = _folder_to_use(config, workdir, data, again)  # refusals come before any work
    if folder is not None and again:
        config = as_begun(config, folder)
    placement = choose_placement(parallel, config.batch_size, model_parallel)
    with ExitStack() as stack, convert_process_loss():
        spec = in_all(lambda: _prepare(config, data, folder, placement))
        if folder is not None:
            on_main(lambda: _begin_folder(folder, spec, again, stack))
            flags = {"parallel": parallel, "model_parallel": model_parallel}
            first = on_main(lambda: {"flags": flags, "streams": spec.streams})
            in_all(lambda: _refuse_difference(first, flags, spec, folder))
            spec = dataclasses.replace(spec, noise=folder.noise())
            if progress and is_main():
                print(f"run folder: {folder.path}", file=sys.stderr)
        spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, shared=None))
        active = ActiveRun(
            spec, folder, name="" if folder is None else folder.path.name, callbacks=told if is_main() else ()
        )
        return _train(active, placement, started, progress and is_main(), keep_checkpoints)


def _folder_to_use(config: Config, workdir: str | os.PathLike[str] | None, data: Any, resume: bool) -> RunFolder | None:
    """The folder of the run, new or to be resumed; nothing is written yet."""
    if workdir is None:
        if resume:
            raise InputError("resume needs the folder of the run: --workdir DIR")
        return None
    if not resume:
        return RunFolder.refuse_occupied(workdir)
    folder = RunFolder.open(workdir)
    if folder.imported():
        raise InputError(
            f"{folder.path}: the weights of this run were imported, so there is no training to go on with; start a new "
            f"run from them: {option('init_from', str(folder.path))}"
        )
    folder.note_without_checksums()
    if data is None and config.data_path is None and config.preset == "custom":
        raise InputError(f"{folder.path}: this run was trained on arrays in memory; pass them: train(…, data=…)")
    return folder


def _prepare(config: Config, data: Any, folder: RunFolder | None, placement: Placement | None) -> RunSpec:
    """The run, with the noise that its folder records; refuses parameters that the placement cannot divide."""
    begun = folder if folder is not None and folder.checkpoints.exists() else None
    recorded = None if begun is None else begun.recorded_noise
    parts = 1 if placement is None else placement.model_parts
    spec = prepare_run(config, prepare_data(config, data, begun), recorded, parts)
    if placement is not None:
        placement.check_layers(spec.method, spec.template.state)
    return spec


def _begin_folder(folder: RunFolder, spec: RunSpec, resume: bool, stack: ExitStack) -> None:
    """Create the folder, or compare it with the run that resumes; the lock is held until the stack closes."""
    if not resume:
        RunFolder.create(folder.path, spec.config)
    stack.enter_context(folder.lock())
    if resume:
        folder.record_checksums()
    if resume and extends(folder.config(), spec.config):
        if folder.result() is not None and not folder.has_checkpoints:
            raise InputError(
                f"{folder.path}: of this run only the model was kept, not its training state; it cannot get more epochs"
            )
        folder.extend(spec.config)
    elif resume:
        refuse_other_config(folder, spec.config)
    folder.settle(spec.data.described, spec.noise)


def _refuse_difference(first: Mapping[str, Any], flags: Mapping[str, Any], spec: RunSpec, folder: RunFolder) -> None:
    """Refuse a process whose run is not that of the first process; the arrays of all must be the same."""
    if first["flags"] != flags:
        values = list(first["flags"].values())
        raise InputError(f"the first process has other flags: parallel and model_parallel are {values} there")
    if first["streams"] != spec.streams:
        raise InputError(
            "the first process has devices of other memory: the run streams its data either there or here; "
            "say --stream on or off"
        )
    refuse_other_config(folder, spec.config)
    folder.settle(spec.data.described, spec.noise)


def _train(
    active: ActiveRun, placement: Placement | None, started: float, progress: bool, keep_checkpoints: bool
) -> Result:
    spec, folder = active.spec, active.folder
    config, dataset = spec.config, spec.data.dataset
    if folder is not None and active.read_complete():
        run = load_run(folder.path)
    else:
        with (
            epoch_progress(spec.epochs, progress) as show,
            stop_request(None if folder is None else folder.path, "train") as stop,
        ):
            train_epochs(
                SingleRun(spec, placement),
                [active],
                started,
                lambda: show(active.log),
                keep_checkpoints=keep_checkpoints,
                stop=stop,
                record=placement is None or not placement.divides,  # else one device may not hold the model
            )
        epoch = active.scores["test"][active.scores["kept"]]["epoch"]
        columns = dataset.metadata.get("columns", {})
        source = recorded_source(dataset.metadata)
        run = TrainedModel(config, epoch, active.model, dataset.modalities, dataset.class_names, columns, source)
    where, chance = None if folder is None else folder.path, cross_modal_chance(spec.held_out["valid"])
    mean = sum(chance.values()) / len(chance)
    result = Result(active.scores, active.log, spec.noise, spec.data.described, run, where, mean)
    if folder is not None and is_main():
        result.plot(folder.path / "curves.png")
    return result


def _title(data: str, noise_of_run: Mapping[str, Any], config: Config) -> str:
    noise = describe_noise(noise_of_run).split(";")[0].removesuffix(", no noise injected")
    noise = noise if noise != "as given" else "labels as given"
    return f"{data}, {noise}, {entry_of(config.method).title(config)}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    try:
        code = run_command(lambda: _main(argv))
    except Exception:
        traceback.print_exc()
        leave(1)  # several processes: the others must not wait for this one
        raise
    leave(code)
    return code


def _main(argv: Sequence[str] | None) -> None:
    parser = Parser(
        compiles=True,
        prog="python -m mrl_jax.train",
        description="Learn a common space for retrieval between modalities from noisy labels.",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--workdir", type=output_path, metavar="DIR", help="folder of the run, new or empty; default: runs/PRESET-TIME"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --workdir; --epochs N gives it more epochs"
    )
    parser.add_argument("--keep-checkpoints", action="store_true", help="keep all checkpoints; default: the last")
    parser.add_argument(
        "--parallel",
        default="auto",
        metavar="{" + ",".join(PARALLEL) + "}",
        help="over several devices; auto takes several only for large batches; default: auto",
    )
    parser.add_argument(
        "--model-parallel",
        type=int,
        default=1,
        metavar="N",
        help="devices over which parameters and optimiser state are divided; default: 1",
    )
    add_track_flag(parser)
    _add_process_flags(parser)
    given = vars(parser.parse_args(argv))
    workdir, resume = given.pop("workdir", None), given.pop("resume")
    callbacks = [tracker(name) for name in given.pop("track")]
    ways = {name: given.pop(name) for name in ("parallel", "model_parallel", "keep_checkpoints")}
    processes = [given.pop(name) for name in ("coordinator_address", "num_processes", "process_id")]
    if given.pop("distributed") or any(x is not None for x in processes):
        if workdir is None:
            raise InputError("several processes need the folder of the run, where all see it: --workdir DIR")
        start_processes(*processes)
    if resume:
        if workdir is None:
            raise InputError("--resume needs the folder of the run: --workdir DIR")
        if "recipe" in given:
            raise InputError("--recipe is for new runs; a run resumes with its own configuration: leave the flag out")
        folder = RunFolder.open(workdir)
        own = {name: value for name, value in given.items() if value is not None}  # --tau auto is filled in there
        config = as_begun(with_settings(folder.config(), **own), folder)
        if not extends(folder.config(), config):
            refuse_other_config(folder, config)
    else:
        name = given.pop("preset", "custom" if "data_path" in given else "emoji")
        config = preset(name, **given)
        workdir = workdir or time.strftime(f"runs/{name}-%Y%m%d-%H%M%S")
    with continues_hint(Path(workdir) / "config.json"):
        result = train(config, workdir, resume=resume, progress=True, callbacks=callbacks, **ways)
    if is_main():
        print(result.table())


def _add_process_flags(parser: Parser) -> None:
    group = parser.add_argument_group("several processes, each started with the same flags (docs/scale.md)")
    group.add_argument(
        "--distributed", action="store_true", help="ask the cluster: SLURM, Open MPI, Kubernetes, TPU pods"
    )
    group.add_argument("--coordinator-address", metavar="HOST:PORT", help="of the first process; with the next two")
    group.add_argument("--num-processes", type=int, metavar="N", help="how many processes")
    group.add_argument("--process-id", type=int, metavar="I", help="which of them this is, from 0")


if __name__ == "__main__":
    exit_process(main())
