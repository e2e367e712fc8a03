"""Try a file in another process first, where a library can crash on a damaged one and take the program along.

The HDF5 library crashes, hangs or takes all memory on about 1 in 700 damaged files, pyarrow ends the process on about 1
in 2,000 (found by fuzzing).
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from mrl_jax.data.formats.readers import DamagedError

__all__ = ["limit_process", "ran_out", "try_in_other_process"]

_MIB = 1 << 20
_TRIED: set[tuple[int, ...]] = set()  # files, by place, times and size, on which the library does not crash


def try_in_other_process(module: str, path: Path, file: BinaryIO) -> None:
    """Refuse a file on which a library crashes or hangs; what went well once is not tried again.

    Args:
        module: module beside this one, whose `probe(path)` returns 0, or 3 where memory ran out.
        path: the file.
        file: the same, open.

    Raises:
        DamagedError: the other process ended otherwise, or in no reasonable time.
    """
    status = os.fstat(file.fileno())
    version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    if version in _TRIED:
        return
    program = (
        f"import sys; sys.path[:] = sys.argv[2:]; from pathlib import Path; from mrl_jax.data.formats import {module}"
    )
    program += f"; sys.exit({module}.probe(Path(sys.argv[1])))"
    command = [sys.executable, "-c", program, os.fspath(path.absolute()), *sys.path]
    quiet, patience = subprocess.DEVNULL, 20 + 4 * _seconds(status.st_size)  # a busy machine is slower
    try:
        code = subprocess.run(
            command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=patience, check=False
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise DamagedError(f"the library that reads it does not get through it in {patience} s") from error
    except OSError:  # no process to be had: as good as it gets
        return
    if code < 0:
        raise DamagedError(f"the library that reads it crashes or hangs on it, signal {-code}")
    if code == 3:
        raise DamagedError("the library that reads it takes absurd amounts of memory for it")
    _TRIED.add(version)


def limit_process(size: int) -> None:
    """Bound this process's memory and processor time, generously for a file of `size` bytes.

    Call it after importing what is needed, which counts from here.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # where the system has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + _seconds(size),) * 2)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 28) + 32 * size,) * 2)


def ran_out(error: Exception) -> bool:
    """Whether an error means that memory ran out."""
    return isinstance(error, MemoryError) or "memory allocation failed" in str(error)


def _seconds(size: int) -> int:
    """Processor time that trying a file of `size` bytes may take: far more than it needs."""
    return 1 + min(8 * size // _MIB, 60 + size // (8 * _MIB))
