"""Pictures of unknown origin: which formats are read, and how damage is reported."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mrl_jax.errors import InputError, first_line

__all__ = ["FORMATS", "SUFFIXES", "opened", "picture_errors"]

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "PPM", "TGA", "ICO", "JPEG2000")
"""Formats that Pillow decodes itself; its other formats are stubs or start programs (EPS: Ghostscript)."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2"),
)
"""Ends of the names of such files."""


@contextlib.contextmanager
def opened(source: Any) -> Iterator[Image.Image]:
    """Open a picture in one of `FORMATS`, of at most 89 million pixels by its header.

    Args:
        source: the path, or a file of bytes.
    """
    if isinstance(source, str | PathLike):  # of a file, Pillow would allocate whatever a chunk claims
        source = io.BytesIO(Path(source).read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unusual metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # before it is decoded
        with Image.open(source, formats=FORMATS) as picture:
            yield picture


@contextlib.contextmanager
def picture_errors(given: Any, remedy: str) -> Iterator[None]:
    """Turn every error raised inside into an `InputError`.

    Args:
        given: the picture, for the message.
        remedy: what to do, for the message.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # on damaged files Pillow raises almost any type
        raise InputError(f"picture {given} cannot be read ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "it has too many pixels, as a decompression bomb has"
    return (getattr(error, "strerror", None) or first_line(error)).rstrip(".:; ")
