"""What holds for every request: who may ask, how many at once, the headers of answers, and errors in one line."""

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from mrl_jax.errors import InputError
from mrl_jax.names import printable
from mrl_jax.search.server.limits import Limits, RefusedError

__all__ = ["Guard", "error_body", "loopback_names"]

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_NO_SCRIPTS = b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def loopback_names(host: str) -> frozenset[str] | None:
    """Names that a request may be addressed to, if the server listens on this machine only; None for any name.

    A page elsewhere whose name suddenly means 127.0.0.1 (DNS rebinding) sends its own name, and is refused.

    Example:
        >>> sorted(loopback_names("127.0.0.1"))
        ['127.0.0.1', '[::1]', 'localhost']
        >>> loopback_names("0.0.0.0") is None
        True
    """
    own = host.lower() in ("localhost", "::1") or host.startswith("127.")
    return frozenset((*_LOOPBACK, f"[{host}]" if ":" in host else host.lower())) if own else None


def error_body(message: str) -> bytes:
    """The JSON of an error."""
    return json.dumps({"error": " ".join(message.split())}, ensure_ascii=False).encode() + b"\n"


class Guard:
    """An ASGI application around another one.

    Args:
        app: the other one; its `InputError` is answered by 400, `RefusedError` by its status, any other by 500.
        limits: bounds.
        names: names that a request may be addressed to; None for any.
    """

    def __init__(self, app: App, limits: Limits, names: frozenset[str] | None) -> None:
        self._app, self._limits, self._names = app, limits, names
        self._running = 0

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = list(message.get("headers", ()))
                policy = () if any(k == b"content-security-policy" for k, _ in given) else (_policy,)
                message["headers"] = [*given, *_ALWAYS, *policy]
            await send(message)

        self._running += 1
        try:
            self._check(scope)
            await self._app(scope, receive, with_headers)
        except (InputError, RefusedError) as error:
            status, more = (error.status, error.headers) if isinstance(error, RefusedError) else (400, {})
            if not begun:
                await _refuse(with_headers, status, str(error), more)
        except Exception as error:  # a fault of this program: the client learns no more than that
            text = printable(" ".join(str(error).split())[:500])
            print(f"error: {type(error).__name__}: {text}", file=sys.stderr, flush=True)
            if not begun:
                await _refuse(with_headers, 500, "the server failed; its own messages say why", {})
        finally:
            self._running -= 1

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if self._names is not None and name not in self._names:
            raise RefusedError(421, f"this server answers only as {', '.join(sorted(self._names))}", connection="close")
        if _foreign(headers, host) and scope["path"] not in ("/", "/docs"):  # which may be linked
            raise RefusedError(403, "pages of other sites may not ask this server", connection="close")
        if len(scope["raw_path"]) + len(scope["query_string"]) > self._limits.address:
            raise RefusedError(414, f"the address has more than {self._limits.address} bytes", connection="close")
        if self._running > self._limits.requests and scope["path"] != "/healthz":
            raise RefusedError(503, "too many requests at once; try again in a second", retry_after="1")


def _foreign(headers: Mapping[bytes, bytes], host: str) -> bool:
    """Whether a page of another site asks, as the browser says; behind a proxy the host differs from the origin."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    return bool(origin) and origin.partition("://")[2] != host


_policy = (b"content-security-policy", _NO_SCRIPTS)


async def _refuse(send: Send, status: int, message: str, more: Mapping[str, str]) -> None:
    body = error_body(message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(k.lower().encode(), v.encode()) for k, v in more.items()]
    headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
