"""Bounds of the server: what a client may send, and how much of it at once."""

from typing import NamedTuple

__all__ = ["PICTURES", "Limits", "RefusedError"]

PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"}
"""Content type of a picture -> the only format of Pillow that may read it."""


class Limits(NamedTuple):
    """Bounds, each in the unit that its comment names; a request beyond one is refused in one line of JSON."""

    top: int = 100  # results of a query
    text: int = 500  # characters of a text, and of a row
    address: int = 4096  # bytes of a path with its query string
    head: int = 32 << 10  # bytes of a request before its body
    body: int = 8 << 20  # bytes of a picture file
    pixels: int = 16_000_000  # of a picture, read from its header before it is decoded
    seconds: float = 10.0  # for the head of a request, and for its body
    batch: int = 32  # queries that are compared at once
    waiting: int = 256  # queries that wait
    pictures: int = 4  # pictures whose features are computed or wait
    requests: int = 512  # at once
    connections: int = 1024  # at once
    drain: float = 10.0  # seconds for requests that had begun when the server is stopped
    listed: int = 60  # rows of a list


class RefusedError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        headers: headers of the response besides those of every response.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
