"""Checkpoints of a run; no other module uses Orbax.

A checkpoint, named by the number of completed epochs, holds a `State`, the parameters of the best epoch so far, and the
preprocessing statistics. Saving is asynchronous; an interrupted save leaves only a temporary folder, which readers
ignore.
"""

import errno
import functools
import gc
import json
import logging
import os
import shutil
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from mrl_jax.checksums import array_checksum
from mrl_jax.config import Config
from mrl_jax.errors import CheckpointError, InputError, first_line
from mrl_jax.interface import option
from mrl_jax.json_files import read_json
from mrl_jax.methods.state import Shapes, State
from mrl_jax.run.format1 import is_format_1, nested_of, state_of
from mrl_jax.run.schemas import CHECKPOINT
from mrl_jax.run.shapes import path_names, state_shapes

__all__ = ["Checkpoints", "Snapshot", "template"]

# Orbax logs every save, and tracebacks of failures, in absl's log; `Checkpoints` raises failures as its own errors.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
# If several writes fail at once, one error is raised, and asyncio logs the others with tracebacks.
logging.getLogger("asyncio").addFilter(
    lambda record: not ("never retrieved" in (message := record.getMessage()) and "orbax" in message)
)


_REMEDY = "restore its folder from a copy, or delete it"
_DELETED = ".deleted"  # end of the name of a checkpoint that is being deleted
_PATIENCE = 10.0  # seconds that a second Ctrl-C waits for a save


class Snapshot(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        state: the state from which training continues.
        best: the parameters of the best epoch so far.
        preprocess: modality -> fitted statistics.
    """

    state: State
    best: Any
    preprocess: Mapping[str, Mapping[str, Any]]

    def nested(self) -> dict[str, Any]:
        """The snapshot as Orbax stores it, without the fields that have no arrays."""
        state = {name: x for name, x in self.state._asdict().items() if jax.tree.leaves(x)}
        return {"state": state, "best": self.best, "preprocess": self.preprocess}


class Template(Snapshot):
    """Shapes of a snapshot, and the configuration of the run, which decides what a checkpoint of format 1 holds."""

    config: Config


def template(config: Config, shapes: Shapes, modalities: Sequence[str]) -> Template:
    """Shapes and dtypes of a run's checkpoints, without computing arrays."""
    state = state_shapes(config, shapes)
    preprocess = {
        m: {"mean": jax.ShapeDtypeStruct((d,), np.float32), "scale": jax.ShapeDtypeStruct((), np.float32)}
        for m, d in zip(modalities, shapes.dims, strict=True)
    }
    expected = Template(state, state.params, preprocess)
    expected.config = config
    return expected


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The `checkpoints/` folder of a run. Leaving the context waits for unfinished saves.

    Args:
        folder: the folder; created if it does not exist, unless `read_only`.
        keep: number of latest checkpoints to keep; None for all.
        read_only: neither write nor delete anything.
    """

    def __init__(self, folder: Path, keep: int | None = 2, read_only: bool = False) -> None:
        _drop_late_reads()
        self.folder = folder.absolute()
        self._keep, self._read_only = keep, read_only
        self._longest = 0.0  # seconds of a save
        self._saving: float | None = None  # when the present save began

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Writes and deletes. Made when it is first used, as it reads every checkpoint, damaged ones too."""
        assert not self._read_only
        self._delete(())
        try:
            return ocp.CheckpointManager(
                self.folder,
                item_handlers=ocp.StandardCheckpointHandler(),
                options=ocp.CheckpointManagerOptions(
                    best_fn=lambda m: m["epoch"],  # without it, no metrics are saved
                    create=True,
                    cleanup_tmp_directories=True,
                ),
            )
        except Exception:
            for epoch in self.epochs():
                self.metrics(epoch)  # the error that names the damaged one
            raise

    @functools.cached_property
    def _reader(self) -> ocp.Checkpointer:
        return ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt):
                self._close_within(max(_PATIENCE, 2 * self._longest))  # a save that was cut short may never end
            else:
                self._close()
        except CheckpointError:
            if kind is None:  # otherwise the error being raised says more
                raise

    def _close(self) -> None:
        with self._writing():
            for name in ("_manager", "_reader"):
                if name in vars(self):
                    getattr(self, name).close()

    def _close_within(self, seconds: float) -> None:
        """Close, but leave what takes longer behind; an unfinished save is a temporary folder."""

        def close() -> None:
            with suppress(CheckpointError):
                self._close()

        thread = threading.Thread(target=close, daemon=True)
        thread.start()
        thread.join(seconds)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except InputError:  # a damaged checkpoint
            raise
        except Exception as error:  # Orbax and TensorStore raise many types when a disk is full
            if jax.process_count() > 1 and isinstance(error, jax.errors.JaxRuntimeError):
                raise  # another process is lost; `convert_process_loss` handles it
            why, remedy = first_line(error), "make space"
            if (too_many := os.strerror(errno.EMFILE)) in str(error):
                why, remedy = too_many, "allow more (ulimit -n 256)"
            message = f"a checkpoint cannot be written ({why}); {remedy}, then {option('resume')}"
            _let_go(error)
            raise CheckpointError(f"{self.folder}: {message}") from error

    def epochs(self) -> list[int]:
        """Epochs with a checkpoint, ascending; unfinished saves have other names."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def save(self, epoch: int, snapshot: Snapshot, metrics: Mapping[str, float]) -> None:
        """Start saving; returns once the arrays are copied, so that the state may be donated to the next epoch.

        Args:
            epoch: number of completed epochs.
            snapshot: content of the checkpoint.
            metrics: numbers to save with it.

        Raises:
            CheckpointError: this or an earlier save failed.
        """
        # On CPU a save reads the buffers of the device; a copy lets training overwrite them in the meantime.
        copy = jax.tree.map(lambda x: np.array(x, copy=True), snapshot.nested())
        numbers = {**metrics, "checksum": _checksum(copy, metrics)}
        self.wait()
        self._saving = time.perf_counter()
        with self._writing():
            self._manager.save(epoch, args=ocp.args.StandardSave(copy), metrics=numbers)

    def is_writing(self) -> bool:
        """Whether a save is not yet on disk."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Wait until every save is on disk, and delete the checkpoints that are not to be kept.

        Raises:
            CheckpointError: a save failed.
        """
        if "_manager" in vars(self):
            with self._writing():
                self._manager.wait_until_finished()
                if self._keep is not None:
                    self._delete(self.epochs()[: -self._keep])
        if self._saving is not None:
            self._longest = max(self._longest, time.perf_counter() - self._saving)
            self._saving = None

    def drop_before(self, epoch: int) -> None:
        """Delete the checkpoints of earlier epochs."""
        with self._writing():
            self._delete([earlier for earlier in self.epochs() if earlier < epoch])

    def drop_after(self, epoch: int) -> None:
        """Delete the checkpoints of later epochs, damaged ones too."""
        self._delete([later for later in self.epochs() if later > epoch])
        if "_manager" in vars(self):
            self._manager.reload()

    def drop_all(self) -> None:
        """Delete all checkpoints, and what unfinished saves and deletions left."""
        self._delete(self.epochs())
        for left in self.folder.iterdir():
            shutil.rmtree(left)

    def _delete(self, epochs: Sequence[int]) -> None:
        """Delete checkpoints, and what a process that was killed has left of others.

        Each loses its name first, so that none is there of which a part is missing.
        """
        if jax.process_index():
            return
        for left in self.folder.glob(f"*{_DELETED}"):
            shutil.rmtree(left)
        for epoch in epochs:
            doomed = self.folder / f"{epoch}{_DELETED}"
            (self.folder / str(epoch)).rename(doomed)
            shutil.rmtree(doomed)

    def metrics(self, epoch: int) -> dict[str, Any]:
        """The metrics that were saved with an epoch."""
        return {name: value for name, value in self._metrics(epoch).items() if name != "checksum"}

    def _metrics(self, epoch: int) -> dict[str, Any]:
        try:
            metrics: dict[str, Any] = read_json(self.folder / str(epoch) / "metrics" / "metrics", CHECKPOINT, 1 << 20)
            if metrics["epoch"] != epoch:
                raise ValueError("it is of another epoch")
        except (OSError, ValueError) as error:
            why = "no metrics" if isinstance(error, FileNotFoundError) else first_line(error)
            raise InputError(
                f"{self.folder / str(epoch)} is damaged ({why}); delete that folder, then {option('resume')}"
            ) from error
        return metrics

    def restore(self, epoch: int, template: Snapshot) -> Snapshot:
        """Read the checkpoint of an epoch.

        Args:
            epoch: one of `epochs()`.
            template: expected structure, shapes and dtypes, from the function `template`.

        Raises:
            InputError: no such checkpoint, or it belongs to another configuration, or it is damaged.
        """
        if epoch not in self.epochs():
            available = ", ".join(map(str, self.epochs())) or "none"
            raise InputError(f"{self.folder}: no checkpoint of epoch {epoch}; there are: {available}")
        stored = self._stored_arrays(epoch)
        format_1 = is_format_1(stored)
        expected = template.nested()
        if format_1:
            config = template.config if isinstance(template, Template) else None
            expected = nested_of(template.state, template.best, config) | {"preprocess": template.preprocess}
        needed = {p: (tuple(x.shape), np.dtype(x.dtype)) for p, x in _leaves(expected)}
        for path in sorted(set(needed) | set(stored)):
            if needed.get(path) != stored.get(path):
                old, new = _array_text(stored.get(path)), _array_text(needed.get(path))
                raise InputError(
                    f"{self.folder}: checkpoint of epoch {epoch} belongs to another configuration: {path} is {old}, "
                    f"config.json needs {new}; restore config.json"
                )
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sharding info not provided")
                restored = self._reader.restore(self._arrays(epoch), args=ocp.args.StandardRestore(expected))
        except Exception as error:  # Orbax and TensorStore raise many types for damaged files
            why = first_line(error)
            _let_go(error)
            raise InputError(f"{self.folder}: checkpoint of epoch {epoch} cannot be read ({why}); {_REMEDY}") from error
        metrics = self._metrics(epoch)
        checksum = metrics.pop("checksum", None)  # earlier versions wrote none
        if checksum is not None and checksum != _checksum(restored, metrics):
            raise InputError(f"{self.folder}: checkpoint of epoch {epoch} is damaged (its checksum differs); {_REMEDY}")
        if format_1:
            return Snapshot(*state_of(restored, template.state), restored["preprocess"])
        return Snapshot(template.state._replace(**restored["state"]), restored["best"], restored["preprocess"])

    def _arrays(self, epoch: int) -> Path:
        return self.folder / str(epoch) / "default"

    def _stored_arrays(self, epoch: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Path -> shape and dtype of the arrays of a checkpoint."""
        try:
            metadata: Any = self._reader.metadata(self._arrays(epoch))
            if metadata.item_metadata is None:
                raise ValueError("its list of arrays is damaged")
            tree = metadata.item_metadata.tree
            return {p: (tuple(x.shape), np.dtype(x.dtype)) for p, x in _leaves(tree)}
        except Exception as error:
            why = first_line(error)
            _let_go(error)
            raise InputError(f"{self.folder}: checkpoint of epoch {epoch} cannot be read ({why}); {_REMEDY}") from error


@functools.cache  # once per process
def _drop_late_reads() -> None:
    """Suppress the tracebacks that TensorStore prints after a failed read, which `Checkpoints` raises as an error.

    Reads of other arrays that end later meet a closed event loop, and each prints a traceback; the last one does so
    when the error is freed. An event loop that could not be made, without file handles, prints one when it is freed.
    """
    hook = sys.unraisablehook

    def show(args: Any) -> None:
        of_a_loop = getattr(args.object, "__qualname__", "") == "BaseEventLoop.__del__"
        if not of_a_loop and str(args.exc_value) != "Event loop is closed":
            hook(args)

    sys.unraisablehook = show


def _let_go(error: BaseException) -> None:
    """Free what a failed call of Orbax holds: coroutines that never began, which Python would warn of at its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        seen: BaseException | None = error
        while seen is not None:
            traceback.clear_frames(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        gc.collect()


def _checksum(nested: Any, metrics: Mapping[str, Any]) -> str:
    """The checksum of the arrays of a checkpoint and of the numbers that are saved with it."""
    named = {f"{i} {path}": x for i, (path, x) in enumerate(_leaves(nested))}
    return array_checksum(named, json.dumps(metrics, sort_keys=True))


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    is_leaf: Callable[[Any], bool] = lambda x: hasattr(x, "shape") and hasattr(x, "dtype")  # noqa: E731
    return [("/".join(path_names(p)), x) for p, x in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)]


def _array_text(description: tuple[tuple[int, ...], np.dtype] | None) -> str:
    return "absent" if description is None else f"{description[1]} {list(description[0])}"
