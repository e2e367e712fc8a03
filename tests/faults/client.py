"""Starts `worker.py`, gives it commands, and copies what it has written while it stands still."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_multi_thread_eigen=false"
LONGEST = 600.0
"""Seconds after which a command counts as hung."""


class Done(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code; that of the process, below 0 for a signal, if the process ended.
        text: what it printed.
        events: changes that it made in the watched folder.
        seconds: how long it took.
        ended: whether the process ended.
    """

    code: int
    text: str
    events: int = 0
    seconds: float = 0.0
    ended: bool = False

    @property
    def in_one_line(self) -> bool:
        """Whether it said why it failed, in one line and without a traceback."""
        errors = [line for line in self.text.splitlines() if line.startswith("error:")]
        return len(errors) == 1 and "Traceback" not in self.text

    @property
    def last(self) -> str:
        """The last line that it printed."""
        return (self.text.strip().splitlines() or [""])[-1][:300]


class HungError(Exception):
    """A command did not end."""


class Worker:
    """A worker process, which is started again when it has ended.

    Args:
        folder: for the log and the cache of compiled programs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, 0

    def run(
        self,
        argv: Sequence[str],
        watched: Path,
        *,
        event: int = 0,
        number: int = 0,
        after: float | None = None,
        limit: dict[str, int] | None = None,
        env: dict[str, str] | None = None,
        stop_after: bool = False,
        stopped: Callable[[], None] = lambda: None,
    ) -> Done:
        """Run a command.

        Args:
            argv: name of the command and its arguments.
            watched: the folder in which changes are counted.
            event: the change before which the worker gets a signal; 0 for none.
            number: the signal.
            after: seconds after which it gets the signal, instead of before a change.
            limit: limits of resources, see `worker.limits`.
            env: environment variables.
            stop_after: whether `stopped` is called when the command has ended, too.
            stopped: called while the worker stands still.

        Raises:
            HungError: it did not end in 600 s; the worker is then killed.
        """
        log = self._folder / f"log{id(self)}"
        watch = {"folder": str(watched)} | ({"event": event, "signal": int(number)} if event else {})
        request = {"argv": [str(x) for x in argv], "log": str(log), "watch": watch, "limit": limit or {}}
        answer = self._ask({"do": "run", **request, "env": env or {}, "stop_after": stop_after}, number, after, stopped)
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        if isinstance(answer, int):
            return Done(answer, text, ended=True)
        return Done(text=text, **answer)

    def outcome(self, task: str, folder: Path) -> str:
        """What a command left, as in `outcomes.py`."""
        answer = self._ask({"do": "outcome", "task": task, "folder": str(folder)})
        return f"the worker ended with {answer}" if isinstance(answer, int) else answer["outcome"]

    def kill(self) -> None:
        """End the process at once."""
        if self._process:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
            self._forget()

    def _forget(self) -> None:
        self._process = 0
        self._requests.close()
        os.close(self._answers)

    def _start(self) -> None:
        cache = self._folder / "compiled"
        env = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": XLA_FLAGS,
            "OPENBLAS_NUM_THREADS": "1",
            "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "MPLBACKEND": "agg",
        }
        self._answers, writer = os.pipe()
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "worker.py"), str(writer)],
            stdin=subprocess.PIPE, pass_fds=(writer,), env=env, start_new_session=True,
        )  # fmt: skip
        os.close(writer)
        assert process.stdin is not None
        self._process, self._requests = process.pid, process.stdin
        process.returncode = 0  # this class waits for it

    def _ask(
        self,
        request: dict[str, Any],
        number: int = 0,
        after: float | None = None,
        stopped: Callable[[], None] = lambda: None,
    ) -> Any:
        """Send a request; returns the answer, or the exit code of the process."""
        if not self._process:
            self._start()
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()
        began, received = time.monotonic(), b""
        while True:
            if select.select([self._answers], [], [], 0.002)[0]:
                received += os.read(self._answers, 1 << 20)
                if received.endswith(b"\n"):
                    return json.loads(received)
            pid, status = os.waitpid(self._process, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                stopped()
                if self._process:  # else it was killed meanwhile
                    os.kill(self._process, signal.SIGCONT)
            elif pid:
                self._forget()
                return os.waitstatus_to_exitcode(status)
            if not self._process:
                return -signal.SIGKILL
            if after is not None and time.monotonic() - began >= after:
                self._send(number)
                after = None
            if time.monotonic() - began > LONGEST:
                self.kill()
                raise HungError(str(request)[:300])

    def _send(self, number: int) -> None:
        """A signal; one that ends the process as SIGKILL does stops it instead."""
        status = Path(f"/proc/{self._process}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        deadly = number == signal.SIGTERM and not caught >> (number - 1) & 1
        os.kill(self._process, signal.SIGSTOP if deadly else number)
