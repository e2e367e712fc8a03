"""Sweeps of the programs here: one that was killed goes on after the last checkpoints when it is started again."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mrl_jax import Config, sweep
from mrl_jax.data.dataset import Dataset
from mrl_jax.sweep.sweep import Outcome

__all__ = ["trained"]


@contextlib.contextmanager
def trained(what: str, configs: Sequence[Config], data: Dataset, results: Path, keep: bool) -> Iterator[list[Outcome]]:
    """Runs in the order of their configurations, for a block that writes what they found.

    Args:
        what: they are, for the log.
        configs: of the runs.
        data: of all.
        results: the file that the block writes; the caller holds its lock. Until the block ends the runs lie in a
            hidden folder beside it, by configurations and data.
        keep: whether they do; else they are in memory alone.

    Raises:
        SystemExit: a run ended early.
    """
    print(f"{what}: {len(configs)} runs", file=sys.stderr, flush=True)
    folder = None
    if keep:
        told = json.dumps([data.digest(), *(c.to_json() | {"data_path": None} for c in configs)], sort_keys=True)
        folder = results.with_name(f".{results.stem}") / hashlib.sha256(told.encode()).hexdigest()[:16]
        if not (folder / "sweep.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # killed before it began
    found = sweep(configs, folder, data=data, resume=folder is not None and folder.exists(), progress=True)
    if found.failed:
        name, why = next(iter(found.failed.items()))
        raise SystemExit(
            f"{name}: {why}" + (f" (its folder is in {folder}; to try again, remove it)" if folder else "")
        )
    by_config = {run.config: run for run in found.runs.values()}
    yield [by_config[c] for c in configs]
    if folder is not None:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # others lie there
            folder.parent.rmdir()
