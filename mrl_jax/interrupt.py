"""Ctrl-C and SIGTERM: training finishes its epoch and saves; a command that still imports ends in one line."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from mrl_jax.interface import in_command

__all__ = [
    "Interrupted",
    "StopRequest",
    "continues_hint",
    "end_imports_quietly",
    "interrupts",
    "raise_interrupts",
    "stop_request",
]

_interrupts = 0  # that raised KeyboardInterrupt in this process


_STOPPING = "\nstopping after this epoch; Ctrl-C again stops at once\n"


class Interrupted(KeyboardInterrupt):
    """Training stopped as it was asked to, after it saved.

    Attributes:
        code: exit code of a command, 128 + the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class StopRequest:
    """A context in which the first Ctrl-C or SIGTERM is a request to stop, and the second one interrupts at once.

    In a thread other than the main one, and where the program has handlers of its own, signals are left to those.

    Args:
        hint: how to go on afterwards, for the message.

    Attributes:
        number: number of the signal; 0 as long as there was none.
    """

    def __init__(self, hint: str) -> None:
        self.number = 0
        self._hint = hint
        self._before: dict[int, Any] = {}
        self._watched: tuple[int, int] | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                if signal.getsignal(number) in (default, _raise):
                    self._before[number] = signal.signal(number, self._handle)
            if self._before and in_command():
                self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._watched is not None:
            before, pipe = self._watched
            signal.set_wakeup_fd(before)
            os.close(pipe)  # ends the thread

    def interrupted(self, saved: str) -> Interrupted:
        """The error to raise once everything is saved.

        Args:
            saved: what is done, such as "saved after epoch 3 of 30".
        """
        # Another process of the run may have got the signal.
        return Interrupted(f"interrupted; {saved}; {self._hint}", self.number or signal.SIGTERM)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number:
            _raise(number, None)
        self.number = number
        if self._watched is None:
            _tell(_STOPPING)

    def _watch(self) -> None:
        """See signals at once in a thread of its own: the main thread may wait for a program of a whole epoch."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._watched = (signal.set_wakeup_fd(writer, warn_on_full_buffer=False), writer)
        threading.Thread(target=self._await_signals, args=(reader,), daemon=True).start()

    def _await_signals(self, reader: int) -> None:
        seen = 0
        while received := os.read(reader, 16):
            for number in (x for x in received if x in self._before):
                seen += 1
                if seen > 1:
                    _tell(f"\nerror: interrupted; {self._hint}\n")
                    os._exit(128 + number)
                _tell(_STOPPING)
        os.close(reader)


def stop_request(folder: Path | None, function: str) -> AbstractContextManager[StopRequest | None]:
    """The request to stop a function that trains; None without a folder, as there is nothing to save.

    Args:
        folder: where it saves.
        function: its name, for messages in Python.
    """
    if folder is None:
        return nullcontext()
    path = str(folder)
    how = f"--resume --workdir {path}" if in_command() else f"{function}(…, {path!r}, resume=True)"
    return StopRequest(f"{how} continues it")


@contextmanager
def continues_hint(mark: Path) -> Iterator[None]:
    """Let an interrupt of a command say how to go on, once a file marks that there is something to go on with."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        if not mark.exists():
            raise
        raise Interrupted(f"interrupted; --resume --workdir {mark.parent} continues it", signal.SIGINT) from None


def end_imports_quietly() -> None:
    """End a command that is interrupted during its imports with one line; `raise_interrupts` ends this state."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_interrupts() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again after `end_imports_quietly`, and remember that it did."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == _end:
        signal.signal(signal.SIGINT, _raise)


def interrupts() -> int:
    """How many times Ctrl-C was raised: imports of other libraries may turn KeyboardInterrupt into their errors."""
    return _interrupts


def _raise(number: int, _: FrameType | None) -> None:
    global _interrupts
    _interrupts += 1
    raise KeyboardInterrupt


def _end(number: int, _: FrameType | None) -> None:
    _tell("error: interrupted; run it again\n")
    os._exit(128 + number)


def _tell(text: str) -> None:
    """Write to standard error from a handler or a thread, past Python's buffers, which may be locked."""
    try:
        sys.stderr.flush()
        os.write(sys.stderr.fileno(), text.encode())
    except (OSError, RuntimeError, ValueError, AttributeError):  # a notebook's stream has no descriptor
        print(text, file=sys.stderr, end="")
