"""The search server in a thread, and a client that may be hostile: bytes over a socket, slowly or many at once."""

import contextlib
import json
import socket
import threading
import time
from typing import Any, NamedTuple

from mrl_jax.search.searcher import Searcher
from mrl_jax.search.server.app import make_app
from mrl_jax.search.server.guard import loopback_names
from mrl_jax.search.server.limits import Limits
from mrl_jax.search.server.serving import bind, make_server, prepared


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served(NamedTuple):
    """A server on this machine."""

    port: int
    service: Any = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def connect(self, seconds=20.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def raw(self, data, seconds=20.0):
        """All that the server sends after some bytes, until it ends the connection."""
        with self.connect(seconds) as connection:
            with contextlib.suppress(OSError):  # it may stop reading
                connection.sendall(data)
            return received(connection)

    def ask(self, path, method="GET", body=b"", **headers):
        """The answer to one request; names of headers have `_` for `-`."""
        given = {"host": f"127.0.0.1:{self.port}", "connection": "close"} | headers
        if body:
            given.setdefault("content_length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{k.replace('_', '-')}: {v}" for k, v in given.items()), "", ""]
        return parsed(self.raw("\r\n".join(lines).encode("utf-8") + body))


def received(connection):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def parsed(data):
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body)


@contextlib.contextmanager
def served(workdir, pictures=None, limits=Limits(), **of_searcher):  # noqa: B008 - immutable
    """Serve a run in a thread."""
    service, small = prepared(Searcher(workdir, **of_searcher), pictures, limits)
    app = make_app(service, small, limits, loopback_names("127.0.0.1"), 10)
    with running(app, limits) as port:
        yield Served(port, service)


@contextlib.contextmanager
def running(app, limits):
    """Run an application in a thread; yields its port."""
    with bind("127.0.0.1", 0) as bound:
        port, server = bound.getsockname()[1], make_server(app, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield port
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
