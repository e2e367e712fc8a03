"""Several processes of one run: join, run an action in one or in all of them, handle the loss of another process."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np

from mrl_jax.errors import InputError, ProcessLostError, first_line
from mrl_jax.interface import option

__all__ = ["convert_process_loss", "highest", "in_all", "is_main", "leave", "on_main", "start_processes"]

_HEARTBEAT = 20  # seconds without a heartbeat after which a process counts as lost
_MOST = 1 << 14  # processes of a run, more than clusters have hosts
_PATIENCE = 120  # seconds to wait for the other processes at the start and at the end
_T = TypeVar("_T")


def start_processes(address: str | None, count: int | None, index: int | None) -> None:
    """Join the other processes of a run. Call it before any computation.

    Args:
        address: HOST:PORT of the first process, the same for all. If all three are None, the cluster gives the values
            (SLURM, Open MPI, Kubernetes, TPU pods), as in `jax.distributed.initialize`.
        count: number of processes.
        index: number of this process, from 0.

    Raises:
        InputError: the values contradict each other, no cluster was detected, or the other processes did not start.
    """
    given = (address, count, index)
    if None in given and any(x is not None for x in given):
        raise InputError("coordinator address, number of processes and process id need each other; give all three")
    if count is not None and not 1 <= count <= _MOST:  # else the first process would wait in vain
        raise InputError(f"number of processes {count}: must be from 1 to {_MOST}")
    if count is not None and index is not None and not 0 <= index < count:
        raise InputError(f"process id {index} of {count} processes: must be from 0 to {count - 1}")
    # JAX's preemption service would ignore SIGTERM, with which clusters end a job. Without it the run saves and ends.
    jax.config.update("jax_enable_preemption_service", False)
    if address and count and index is not None:
        _Witness.of_this_process = _Witness(index, count)
        if index:
            _await(address)
    try:
        jax.distributed.initialize(
            address,
            count,
            index,
            initialization_timeout=_PATIENCE,
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        why = first_line(error)
        hint = "start all of them" if address else "give the coordinator's address, the number and this process's id"
        raise InputError(f"the processes of the run cannot be joined ({why}); {hint}") from error
    if _Witness.of_this_process is None:
        _Witness.of_this_process = _Witness(jax.process_index(), jax.process_count())


def _await(address: str) -> None:
    """Wait until the first process listens; otherwise JAX would abort this process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise InputError(f"coordinator address {address!r}: must be HOST:PORT of the first process, PORT 1 to 65535")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except UnicodeError as error:
            raise InputError(f"coordinator address {address!r}: {host!r} is not a host name") from error
        except OSError as error:
            if time.monotonic() > until:
                why = getattr(error, "strerror", None) or error
                raise InputError(
                    f"the first process cannot be reached at {address} in {_PATIENCE} s ({why}); start all of them"
                ) from error
        time.sleep(0.5)


class _Witness:
    """A child process that prints an error if this process ends without dismissing it.

    JAX aborts a process that has lost another one, and no Python code runs after that. A process that is killed cannot
    print either.
    """

    of_this_process: "_Witness | None" = None
    _WATCH = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr, flush=True)"

    def __init__(self, index: int, count: int) -> None:
        message = (
            f"error: process {index} of {count} was killed, or ended because another process "
            "was lost; the checkpoints remain: start all again with --resume"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", self._WATCH, message], stdin=subprocess.PIPE, start_new_session=True
        )

    def dismiss(self) -> None:
        """End the child process without a message."""
        self._process.communicate(b"done")


def leave(code: int) -> None:
    """End one process of several after its command; after an error at once, as the others may have ended already."""
    if _Witness.of_this_process is not None:
        _Witness.of_this_process.dismiss()
        if code:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


@contextmanager
def convert_process_loss() -> Iterator[None]:
    """Convert JAX's error after the loss of another process into `ProcessLostError`.

    Raises:
        ProcessLostError: another process ended or cannot be reached.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or str(error).startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")):
            raise  # an error of this process
        raise ProcessLostError(
            f"process {jax.process_index()}: another process of the run ended or cannot be reached "
            f"({first_line(error)}); start all again with {option('resume')}"
        ) from error


def in_all(action: Callable[[], _T]) -> _T:
    """Run an action in every process; if it fails in one, it fails in all.

    Raises:
        InputError: the action raised it, in this or another process.
    """
    if jax.process_count() == 1:
        return action()
    from jax.experimental import multihost_utils

    failure: Exception | None = None
    value = None
    try:
        value = action()
    except Exception as error:  # of any kind: the others must be informed
        failure = error
    failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(failure is not None)))
    if failure is not None:
        raise failure
    if len(failed):
        raise InputError(f"process {failed[0]} could not begin; its own message gives the reason")
    return value  # type: ignore[return-value]


def highest(value: int) -> int:
    """The highest of the values that the processes have."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.process_allgather(np.int32(value)).max())


def on_main(action: Callable[[], Any]) -> Any:
    """Run an action in the first process only, such as writing a file; all return its value or raise its error.

    Args:
        action: returns a value that JSON can represent.

    Raises:
        InputError: the action raised it.
    """
    if jax.process_count() == 1:
        return action()
    from jax.experimental import multihost_utils

    encoded = b""
    if is_main():
        try:
            encoded = json.dumps({"value": action()}).encode()
        except InputError as error:
            encoded = json.dumps({"error": str(error)}).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(encoded))))
    buffer = np.frombuffer(encoded or bytes(length), np.uint8)
    content = json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())
    if "error" in content:
        raise InputError(content["error"])
    return content["value"]
