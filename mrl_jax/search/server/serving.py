"""From a run to an open port, and from SIGTERM to the last answer."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError
from mrl_jax.interrupt import Interrupted
from mrl_jax.search.gallery import is_emoji
from mrl_jax.search.named import check_ids
from mrl_jax.search.output import has_shown, pictures_of
from mrl_jax.search.searcher import Searcher
from mrl_jax.search.server.app import make_app
from mrl_jax.search.server.connection import connection_class
from mrl_jax.search.server.guard import App, loopback_names
from mrl_jax.search.server.limits import Limits
from mrl_jax.search.server.pictures import Thumbnails
from mrl_jax.search.server.service import Service

__all__ = ["bind", "make_server", "prepared", "serve"]


def serve(
    searcher: Searcher, pictures: str | None, top: int, bound: socket.socket, limits: Limits | None = None
) -> None:
    """Serve a run until Ctrl-C or SIGTERM.

    Args:
        searcher: the run, its data and its splits.
        pictures: folder of pictures named by id; None for those of the emoji set, if the data are that.
        top: number of results where a request does not say it.
        bound: from `bind`.
        limits: bounds; None for the defaults.

    Raises:
        InputError: the data cannot be read, or the pictures are not there.
        Interrupted: it was stopped; all requests that had begun are answered.
    """
    limits = limits or Limits()
    if top > limits.top:
        raise InputError(f"--top {top}: a page has at most {limits.top} results")
    host, port = bound.getsockname()[:2]
    service, small = prepared(searcher, pictures, limits)
    app = make_app(service, small, limits, loopback_names(host), top)
    sizes = ", ".join(f"{len(index):,} of {m}" for m, index in service.galleries.items())
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if loopback_names(host) is None:
        print(f"warning: who reaches {host} can search these data: there is no password", file=sys.stderr)
    server = make_server(app, limits, f"{where} searches {sizes}; its API: {where}/docs; Ctrl-C stops it")
    with _stopped_by_signals(server) as numbers:
        server.run(sockets=[bound])
    if numbers:
        raise Interrupted("stopped; every request that had begun was answered; run it again to serve", numbers[0])


def prepared(searcher: Searcher, pictures: str | None, limits: Limits) -> tuple[Service, Thumbnails]:
    """What answers queries and what draws small pictures, with everything compiled and loaded.

    Args:
        searcher: the run, its data and its splits.
        pictures: as of `serve`.
        limits: bounds.

    Raises:
        InputError: the data cannot be read, or the pictures are not there.
    """
    service, known = Service(searcher, limits), None
    emoji = is_emoji(searcher.run, searcher.folder, searcher.data)
    if searcher.texts and not emoji:
        check_ids(searcher.dataset, searcher.texts.keys(), "texts")
    if pictures is not None or emoji or has_shown(searcher.dataset):
        known = pictures_of(searcher, pictures)
        if not emoji and pictures is not None:
            check_ids(searcher.dataset, known.names, f"pictures {pictures}")
        known.read(SPLITS)
    service.warm_up()
    return service, Thumbnails(known)


def bind(host: str, port: int) -> socket.socket:
    """Take a port; no client can connect before the server listens to it.

    Args:
        host: address of this machine.
        port: its port; 0 for any that is free.

    Raises:
        InputError: it is taken, or not an address of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"--host {host}: this is no address of this machine ({error.strerror})") from error
    try:
        if os.name == "posix":  # elsewhere this option would share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(
            f"--host {host} --port {port} cannot be served ({error.strerror}); choose another port, or 0 for a free one"
        ) from error
    return bound


def make_server(app: App, limits: Limits, greeting: str = "") -> uvicorn.Server:
    """The server of an application; `run(sockets=[…])` runs it until `should_exit` is set.

    Args:
        app: the application.
        limits: bounds.
        greeting: a line for standard output once clients can connect.
    """
    config = uvicorn.Config(
        app,
        http=connection_class(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.seconds) or 1,
        timeout_graceful_shutdown=limits.drain,  # type: ignore[arg-type]
    )
    return _Server(config, greeting)


class _Server(uvicorn.Server):
    """A server that leaves signals to `_stopped_by_signals`: uvicorn would raise them again at its end."""

    def __init__(self, config: uvicorn.Config, greeting: str) -> None:
        super().__init__(config)
        self._greeting = greeting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._greeting:
            print(self._greeting, flush=True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[list[int]]:
    """Let the first Ctrl-C or SIGTERM end the server once it has answered, and the second at once; yields them."""
    numbers: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield numbers
        return

    def handle(number: int, _: FrameType | None) -> None:
        numbers.append(number)
        server.should_exit = True
        server.force_exit = len(numbers) > 1
        if len(numbers) == 1:
            os.write(2, b"\nstopping: answering what has begun; Ctrl-C again stops at once\n")

    before: dict[int, Any] = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
