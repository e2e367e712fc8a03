"""What requests say: parameters, each known and given once, and bodies of bounded size and time."""

import asyncio
from collections.abc import Iterable, Mapping

from starlette.requests import ClientDisconnect, Request

from mrl_jax.errors import InputError
from mrl_jax.search.server.limits import PICTURES, Limits, RefusedError

__all__ = ["number", "parameters", "picture_body"]


def parameters(request: Request, known: Iterable[str], longest: int) -> dict[str, str]:
    """The parameters of the address.

    Args:
        request: the request.
        known: their names.
        longest: number of characters that each may have.

    Raises:
        InputError: one is unknown, given twice, or too long.
    """
    pairs, known = request.query_params.multi_items(), tuple(known)
    for name, value in pairs:
        if name not in known:
            raise InputError(f"parameter {name[:80]!r} is unknown; choose from {', '.join(known)}")
        if len(value) > longest:
            raise InputError(f"{name} has {len(value):,} characters; give at most {longest}")
        if "\0" in value or "\ufffd" in value:
            raise InputError(f"{name} is no valid text; encode it as UTF-8")
    if len(pairs) > len({name for name, _ in pairs}):
        raise InputError("a parameter is given twice; give each once")
    return dict(pairs)


def number(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A parameter that is an integer.

    Raises:
        InputError: it is none, or out of its range.
    """
    text = given.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not least <= value <= most:
        raise InputError(f"{name} {text[:80]!r}: it must be an integer from {least} to {most:,}")
    return value


async def picture_body(request: Request, limits: Limits) -> tuple[bytes, str]:
    """The picture that a request sends, and its content type.

    Raises:
        RefusedError: it is of another type, empty, too large, or comes too slowly.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in PICTURES:
        # The rest of the body is not read: the connection must end.
        raise RefusedError(415, f"content type {kind[:80]!r}: send one of {', '.join(PICTURES)}", connection="close")
    large = RefusedError(413, f"the picture has more than {limits.body:,} bytes; scale it down", connection="close")
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 15 or int(length) > limits.body):
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise large
    except TimeoutError:
        raise RefusedError(408, f"the picture took more than {limits.seconds:g} s", connection="close") from None
    except ClientDisconnect:
        raise RefusedError(400, "the client is gone", connection="close") from None
    if not body:
        raise RefusedError(400, "the body is empty; send the bytes of a picture")
    return bytes(body), kind
