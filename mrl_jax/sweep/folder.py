"""The folder of a sweep: its runs, and its tables.

```
sweep.json      the runs: format number, what all configurations have in common, and what differs in each
checksums.json  checksum of `sweep.json`
runs/NAME/      a folder per run, as of `mrl_jax.train`; a complete run keeps its model, not its training state
sweep.csv       a row per run and direction
sweep.md        mean ± std over seeds per configuration, and the best by validation mAP
summary.json    the same as numbers
sweep.png       the same as a plot
```
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mrl_jax.checksums import write_first
from mrl_jax.config import Config
from mrl_jax.config_formats import format_of
from mrl_jax.errors import InputError
from mrl_jax.files import pretty_json, refuse_address, write_atomically
from mrl_jax.interface import option
from mrl_jax.json_files import check_json
from mrl_jax.names import is_file_name
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.schemas import SWEEP

__all__ = ["SweepFolder"]

_SWEEP = "sweep.json"


class SweepFolder:
    """Paths and files of a sweep. Every file is written atomically.

    Attributes:
        FILE: the file that marks a folder as one of a sweep.
    """

    FILE = _SWEEP

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def refuse_occupied(cls, path: str | os.PathLike[str]) -> "SweepFolder":
        """Check that a new sweep may begin here, without writing.

        Raises:
            InputError: the folder holds anything, or is no folder.
        """
        if (Path(path) / _SWEEP).is_file():
            raise InputError(
                f"workdir {str(path)!r} already holds a sweep; {option('resume')} continues it; or name a new folder"
            )
        RunFolder.refuse_occupied(path)
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "SweepFolder":
        """Open the folder of a sweep.

        Raises:
            InputError: no sweep lies there.
        """
        refuse_address(path, "workdir")
        if not (Path(path) / _SWEEP).is_file():
            raise InputError(f"workdir {str(path)!r} holds no sweep ({_SWEEP} is missing); name the folder of a sweep")
        return cls(path)

    def configs(self) -> dict[str, Config]:
        """The runs by name.

        Raises:
            InputError: `sweep.json` is damaged, or a newer version wrote it.
        """
        content = RunFolder(self.path).read(_SWEEP)
        where = self.path / _SWEEP
        number = {"format": format_of(content, where)}
        try:
            check_json(content, SWEEP)
        except ValueError as error:
            raise InputError(f"{where} is damaged ({error}); restore it or sweep anew") from error
        runs = {name: {**content["common"], **own, **number} for name, own in content["runs"].items()}
        if elsewhere := [name for name in runs if not is_file_name(name)]:
            raise InputError(
                f"{where} names a run {elsewhere[0]!r}, which is no name of a folder within runs/; give it the name of "
                "its folder, or sweep anew"
            )
        return {name: Config.from_json(values, where) for name, values in runs.items()}

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from sweeping in this folder, which is created if it does not exist.

        Raises:
            InputError: another process uses the folder, or it cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"workdir {str(self.path)!r} cannot be written ({error.strerror}); name another folder"
            ) from error
        return RunFolder(self.path).lock()

    def write(self, named: Mapping[str, Config]) -> None:
        """Write `sweep.json`."""
        values = {name: config.to_json() for name, config in named.items()}
        first = next(iter(values.values()))
        common = {k: v for k, v in first.items() if all(k in x and x[k] == v for x in values.values())}
        runs = {name: {k: v for k, v in x.items() if k not in common} for name, x in values.items()}
        content = {"format": common.pop("format"), "common": common, "runs": runs}
        write_first(self.path, _SWEEP, pretty_json(content) + "\n")

    def run(self, name: str, config: Config) -> RunFolder:
        """The folder of a run, created if it does not exist."""
        path, part = self.path / "runs" / name, self.path / "runs" / f".{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)  # of a sweep that was killed
            RunFolder.create(part, config)
            part.rename(path)
        return RunFolder.open(path)

    def recorded_noise(self, name: str) -> Path | None:
        """The path of the `noise.json` of a run, or None if the run has not begun."""
        return RunFolder(self.path / "runs" / name).recorded_noise

    def source(self) -> str | None:
        """The version of the embedded set that the runs of the sweep have, as `RunFolder.source`."""
        sources = (RunFolder(path).source() for path in sorted((self.path / "runs").glob("*")))
        return next((source for source in sources if source is not None), None)

    @property
    def plot(self) -> Path:
        """The path of `sweep.png`."""
        return self.path / "sweep.png"

    def write_tables(self, csv: str, markdown: str, summary: Mapping[str, Any]) -> None:
        """Write `sweep.csv`, `sweep.md` and `summary.json`."""
        write_atomically(self.path / "sweep.csv", csv)
        write_atomically(self.path / "sweep.md", markdown + "\n")
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=1) + "\n")
