"""Read a file in a worker process first, where a library can crash on a damaged file and end the program.

Fuzzing found that the HDF5 library crashes, hangs or exhausts memory on about 1 in 700 damaged files, and that pyarrow
ends the process on about 1 in 2,000.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from mrl_jax.data.formats.errors import DamagedError

__all__ = ["limit_process", "probe_in_worker", "ran_out"]

_MIB = 1 << 20
_PASSED: set[tuple[int, ...]] = set()  # files that the library read without a crash: device, inode, times and size


def probe_in_worker(module: str, path: Path, file: BinaryIO) -> None:
    """Refuse a file on which a library crashes or hangs; a file that passed is not probed again.

    Args:
        module: name of a module of this package with a function `probe(path)`, which returns 0, or 3 where memory ran
            out.
        path: the file.
        file: the same file, open.

    Raises:
        DamagedError: the worker process crashed, ran out of memory or exceeded its time.
    """
    status = os.fstat(file.fileno())
    version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
    if version in _PASSED:
        return
    program = (
        f"import sys; sys.path[:] = sys.argv[2:]; from pathlib import Path; from mrl_jax.data.formats import {module}"
    )
    program += f"; sys.exit({module}.probe(Path(sys.argv[1])))"
    command = [sys.executable, "-c", program, os.fspath(path.absolute()), *sys.path]
    quiet, timeout = subprocess.DEVNULL, 20 + 4 * _seconds(status.st_size)  # wall time exceeds CPU time under load
    try:
        code = subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=timeout, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise DamagedError(f"the library that reads it does not finish in {timeout} s") from error
    except OSError:  # no process can be started: read without a probe
        return
    if code < 0:
        raise DamagedError(f"the library that reads it crashes or hangs on it, signal {-code}")
    if code == 3:
        raise DamagedError("the library that reads it needs an excessive amount of memory for it")
    _PASSED.add(version)


def limit_process(size: int) -> None:
    """Limit the memory and CPU time of this process, generously for a file of `size` bytes.

    Call it after all imports: their memory and time do not count.
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
    """Upper bound on the CPU time for a file of `size` bytes, far above what a sound file needs."""
    return 1 + min(8 * size // _MIB, 60 + size // (8 * _MIB))
