"""A process that runs commands of the package one after another, and stops or signals itself in the midst of them.

Requests are lines of JSON on standard input, answers are lines on the file descriptor of its first argument. Commands
run in this process, so that their programs are compiled once. `client.py` has the other end.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[i]) for i in (0, 1, 2)]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
_LIMITS = {"files": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS, "file size": resource.RLIMIT_FSIZE}


class Watch:
    """Counts what is changed in a folder, and raises a signal before one of the changes."""

    def __init__(self) -> None:
        self.folder, self.count, self.target, self.signal = "", 0, 0, 0

    def __call__(self, event: str, args: tuple) -> None:
        if not self.folder or not (event in _CHANGES or (event == "open" and self._for_writing(args))):
            return
        if not self._path(event, args).startswith(self.folder):
            return
        self.count += 1
        if self.count == self.target:
            # SIGTERM that nothing handles ends a process as SIGKILL does: it stops, and its files are copied.
            deadly = self.signal == signal.SIGTERM and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGSTOP if deadly else self.signal)

    @staticmethod
    def _path(event: str, args: tuple) -> str:
        if not isinstance(args[0], str | bytes):
            return ""
        folder = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1  # a handle
        within = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else ""
        return os.path.join(within, os.fsdecode(args[0]))

    @staticmethod
    def _for_writing(args: tuple) -> bool:
        return any(c in (args[1] or "") for c in "wax+") or bool(args[2] & _WRITES)


WATCH = Watch()


@contextmanager
def limits(values: dict):
    """Limits of resources beyond what the process uses now."""
    before = {name: resource.getrlimit(_LIMITS[name]) for name in values}
    try:
        for name, extra in values.items():
            used = 0
            if name == "files":
                used = max(map(int, os.listdir("/proc/self/fd"))) + 1
            elif name == "memory":
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(_LIMITS[name], (used + extra, before[name][1]))
        yield
    finally:
        for name, limit in before.items():
            resource.setrlimit(_LIMITS[name], limit)


def run(argv: list, log: str, watch: dict, limit: dict, env: dict, stop_after: bool = False) -> dict:
    """Run a command with its output in a file."""
    from mrl_jax.data.published import prepared

    prepared._sound.clear()  # as in a new process
    module = import_module(f"mrl_jax.{argv[0]}.__main__" if argv[0] not in ("train",) else "mrl_jax.train")
    os.environ.update(env)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for fd in (1, 2):
        os.dup2(out, fd)
    os.close(out)
    WATCH.folder, WATCH.count = watch["folder"], 0
    WATCH.target, WATCH.signal = watch.get("event", 0), watch.get("signal", 0)
    interrupt = import_module("mrl_jax.interrupt")
    interrupt._interrupts = 0  # of an earlier command of this process
    signal.signal(signal.SIGINT, interrupt._raise)  # as a command has it: libraries may change KeyboardInterrupt
    started = time.perf_counter()
    try:
        with limits(limit):
            code = module.main(argv[1:])
    except SystemExit as error:
        code = error.code
    except BaseException:  # of any kind: a command that ends so prints a traceback
        traceback.print_exc()
        code = 1
    finally:
        WATCH.folder = ""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    seconds = time.perf_counter() - started
    if stop_after:  # as a command ends its process, threads that go on included
        os.kill(os.getpid(), signal.SIGSTOP)
    return {"code": code, "events": WATCH.count, "seconds": seconds}


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    import outcomes

    from mrl_jax.training import loop

    loop._INTERVAL, loop._TIME_FRACTION = 0.0, float("inf")  # a checkpoint after every epoch
    sys.addaudithook(WATCH)
    for line in sys.stdin:
        request = json.loads(line)
        answer = run(**request) if request.pop("do") == "run" else {"outcome": outcomes.outcome(**request)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
