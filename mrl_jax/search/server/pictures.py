"""Pictures of the server: small ones of rows, by number and never by path; and those that clients send, read safely."""

import contextlib
import functools
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from mrl_jax.errors import InputError
from mrl_jax.search.output import Pictures
from mrl_jax.search.picture_grid import open_picture
from mrl_jax.search.server.limits import PICTURES, Limits, RefusedError

__all__ = ["Thumbnails", "as_file"]

_SIDE = 160  # pixels of a small picture
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # of pictures that PNG holds as they are
_KEPT = 4096  # small pictures that stay in memory, a few kilobytes each


class Thumbnails:
    """Small pictures of rows, PNG.

    Args:
        pictures: where they come from; None if the data have none.
    """

    def __init__(self, pictures: Pictures | None) -> None:
        self._pictures = pictures
        self._small = functools.lru_cache(_KEPT)(self._drawn)

    def has(self, entry: Mapping[str, Any], modality: str) -> bool:
        """Whether a row has a picture.

        Args:
            entry: the query or a result of an answer, with `split`, `row` and `id`.
            modality: its modality.
        """
        return self._pictures is not None and "split" in entry and self._pictures.of(entry, modality) is not None

    def of(self, split: str, row: int, id: str, modality: str) -> bytes | None:
        """A small picture as a PNG file; None if there is none, or it cannot be read."""
        return self._small(split, row, id, modality) if self._pictures is not None else None

    def _drawn(self, split: str, row: int, id: str, modality: str) -> bytes | None:
        assert self._pictures is not None
        try:
            picture = open_picture(self._pictures.of({"split": split, "row": row, "id": id}, modality))
        except InputError:
            return None
        if picture is None:
            return None
        picture.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()


@contextlib.contextmanager
def as_file(data: bytes, kind: str, limits: Limits) -> Iterator[str]:
    """Decode a picture that a client sent; yields the path of a temporary PNG of the same pixels.

    Only the reader of the format that the client named sees the bytes; the features' libraries get the decoded
    picture. Of an animation only the first picture is read.

    Args:
        data: content of the file.
        kind: its content type, one of `PICTURES`.
        limits: bounds.

    Raises:
        RefusedError: it is damaged, of another format, or too large.
    """
    png = _as_png(data, kind, limits)
    with tempfile.TemporaryDirectory(prefix="mrl-jax-") as folder:
        path = Path(folder) / "picture.png"
        path.write_bytes(png)
        yield str(path)


def _as_png(data: bytes, kind: str, limits: Limits) -> bytes:
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual metadata, and of sizes, which are checked here
            with Image.open(io.BytesIO(data), formats=(PICTURES[kind],)) as picture:
                if picture.width * picture.height > limits.pixels:
                    raise Image.DecompressionBombError
                picture.load()
                more = {name: picture.info[name] for name in ("exif", "transparency") if name in picture.info}
                kept = picture if picture.mode in _MODES else picture.convert("RGB")
                kept.save(file, "PNG", compress_level=1, **more)
    except Image.DecompressionBombError:
        raise RefusedError(413, f"the picture has more than {limits.pixels:,} pixels; scale it down") from None
    except Exception as error:  # on damaged files Pillow raises almost any type
        raise RefusedError(
            400, f"this is no {PICTURES[kind]} picture that can be read; send one, with its content type"
        ) from error
    return file.getvalue()
