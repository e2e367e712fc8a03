"""Connections: their number, and the size and time of the head of a request, which uvicorn does not bound."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from mrl_jax.search.server.guard import error_body
from mrl_jax.search.server.limits import Limits

__all__ = ["connection_class"]


def connection_class(limits: Limits) -> type[HttpToolsProtocol]:
    """The class of connections with these bounds, for `uvicorn.Config(http=…)`."""

    class Connection(HttpToolsProtocol):
        """A connection; it ends if the head of a request is too long or too slow."""

        _timer: asyncio.TimerHandle | None = None
        _unanswered = 0  # bytes that came while no request was answered

        def connection_made(self, transport: Any) -> None:
            """A client has connected."""
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self.send_400_response("too many connections; try again in a second", 503)
                return
            self._start_timer()

        def data_received(self, data: bytes) -> None:
            """Bytes have come: of the head of a request, of its body, or of a body after the answer."""
            if self.transport.is_closing():
                return
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before or not (self.cycle is None or self.cycle.response_complete):
                self._stop_timer()  # the head is complete; the body has bounds of its own
                self._unanswered = 0
                return
            self._start_timer()
            self._unanswered += len(data)
            if self._unanswered > limits.head and not self.transport.is_closing():
                self.send_400_response(f"the head of the request has more than {limits.head} bytes", 431)

        def connection_lost(self, exc: Exception | None) -> None:
            """The connection has ended."""
            self._stop_timer()
            super().connection_lost(exc)

        def send_400_response(self, msg: str, status: int = 400) -> None:
            """Refuse bytes that are no request, as JSON, and end the connection."""
            body = error_body(msg if status != 400 else "this is no HTTP request")
            head = b"content-type: application/json\r\nconnection: close\r\n"
            length = b"content-length: " + str(len(body)).encode() + b"\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + head + length + body)
            self.transport.close()

        def _start_timer(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(limits.seconds, self._too_slow)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if not self.transport.is_closing():
                self.send_400_response(f"the head of the request took more than {limits.seconds:g} s", 408)

    return Connection
