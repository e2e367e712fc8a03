"""A small Hugging Face hub on loopback that produces faults on request."""

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """Serves /datasets/REPO/resolve/REVISION/FILE; use it in a `with`.

    Attributes:
        files: "owner/name/path" -> content.
        seen: (path, Range header or None, bytes sent) of each GET.
        cuts: for the next GETs of `cut_name`, one each: bytes sent before the connection breaks.
        refusals: "owner/name/path" -> (status, X-Error-Code or None).
        ranges: False: Range headers are ignored.
        redirect: endpoint of another server that holds the content, as of the hub's large files.
        tokens: Authorization header or None of each GET.
        stall: while it is not set, no answer comes.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, str | None, int]] = field(default_factory=list)
    cut_name: str = ""
    cuts: list[int] = field(default_factory=list)
    refusals: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    ranges: bool = True
    redirect: str = ""
    tokens: list[str | None] = field(default_factory=list)
    stall: threading.Event | None = None

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.stall:
            self.stall.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def asked(self, name: str) -> list[tuple[str | None, int]]:
        """Range header and number of sent bytes for each GET of a file."""
        return [(span, sent) for path, span, sent in self.seen if path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    state: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, span = self.state, self.headers.get("Range")
        owner, name, resolve, revision, path = (self.path.removeprefix("/datasets/").split("/", 4) + [""] * 5)[:5]
        key = f"{owner}/{name}/{path}"
        hub.tokens.append(self.headers.get("Authorization"))
        if hub.stall:
            hub.stall.wait(5)
        if key in hub.refusals:
            return self._refuse(key, span, *hub.refusals[key])
        if (resolve, revision) != ("resolve", "main") or key not in hub.files:
            return self._refuse(key, span, 404, "EntryNotFound")
        if hub.redirect:
            self.send_response(302)
            self.send_header("Location", hub.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        data, first = hub.files[key], 0
        if span and hub.ranges:
            first = int(span.removeprefix("bytes=").removesuffix("-"))
            if first >= len(data):
                return self._refuse(key, span, 416, None)
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(data):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        part = data[first:]
        if hub.cuts and key.endswith(hub.cut_name):
            part = part[: hub.cuts.pop(0)]
        hub.seen.append((key, span, len(part)))
        with suppress(OSError):  # the client may have closed the connection
            self.wfile.write(part)
        return None

    def _refuse(self, key: str, span: str | None, status: int, code: str | None) -> None:
        self.state.seen.append((key, span, 0))
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
