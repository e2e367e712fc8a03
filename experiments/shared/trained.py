"""Sweeps that continue from their last checkpoints when a program that was killed is started again."""

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mrl_jax import Config, sweep
from mrl_jax.data.dataset import Dataset
from mrl_jax.sweep.names import name_runs
from mrl_jax.sweep.sweep import Outcome

__all__ = ["trained"]


@contextlib.contextmanager
def trained(what: str, configs: Sequence[Config], data: Dataset, results: Path, keep: bool) -> Iterator[list[Outcome]]:
    """Trained runs in the order of their configurations, for a block that writes their scores.

    Args:
        what: name of the runs in the log.
        configs: one per run.
        data: data set of all runs.
        results: file that the block writes; the caller holds its lock.
        keep: whether checkpoints lie on disk until the block ends, in a hidden folder beside `results` that is named
            by configurations and data; else the runs are in memory only.

    Raises:
        SystemExit: a run failed.
    """
    print(f"{what}: {len(configs)} runs", file=sys.stderr, flush=True)
    folder = None
    if keep:
        identity = json.dumps([data.digest(), *(c.to_json() | {"data_path": None} for c in configs)], sort_keys=True)
        folder = results.with_name(f".{results.stem}") / hashlib.sha256(identity.encode()).hexdigest()[:16]
        if not (folder / "sweep.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # killed before the sweep began
    outcome = sweep(configs, folder, data=data, resume=folder is not None and folder.exists(), progress=True)
    if outcome.failed:
        name, reason = next(iter(outcome.failed.items()))
        raise SystemExit(
            f"{name}: {reason}" + (f" (its folder is in {folder}; to try again, remove it)" if folder else "")
        )
    yield [outcome.runs[name] for name in name_runs(configs, {})]  # settings that were left open are filled in there
    if folder is not None:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # other sweeps lie there
            folder.parent.rmdir()
