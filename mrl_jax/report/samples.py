"""What a page shows of a sample: its id, its text, and a small picture, each picture once."""

import base64
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

from mrl_jax.data.dataset import Dataset
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.model import TrainedModel
from mrl_jax.search.gallery import Gallery, describe_row, is_emoji, read_gallery
from mrl_jax.search.named import Texts, check_ids, texts_of
from mrl_jax.search.output import Pictures, has_shown

__all__ = ["SIDE", "Sample", "Samples"]

SIDE = 56
"""Pixels of the longer side of a picture."""
_BUDGET = 2 << 20  # bytes of all pictures of a page as text; samples beyond it are shown without
_TEXT = 120  # characters


class Sample(NamedTuple):
    """A sample as the page shows it.

    Attributes:
        id: its id in the data, or split and row.
        modality: its modality.
        label: the name of its class.
        name: its name, or "".
        text: the text that it consists of, or "".
        picture: number of its picture in `Samples.pictures`, or None.
    """

    id: str
    modality: str
    label: str
    name: str
    text: str
    picture: int | None

    @property
    def caption(self) -> str:
        """Its name, or else its text, or its id."""
        return self.name or self.text or self.id


class Samples:
    """Looks up samples of data.

    Args:
        dataset: the data.
        run: a run on them, if there is one.
        folder: its folder, if it has one.
        data: what was given as its data, or None for those that it names.
        where: folder of pictures, named by id; None for those that come with the data.
        texts: texts by id, or a CSV of them; None for those that come with the data.

    Attributes:
        pictures: addresses of the pictures so far, `data:image/…`.

    Raises:
        InputError: the folder or the file cannot be read, or holds nothing that is named by an id of the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        run: TrainedModel | None = None,
        folder: RunFolder | None = None,
        data: Any = None,
        where: str | None = None,
        texts: Texts = None,
    ) -> None:
        self._dataset, self._run, self._folder, self._data = dataset, run, folder, data
        self.pictures: list[str] = []
        self._numbers: dict[Any, int | None] = {}
        self._bytes = 0
        self._galleries: dict[tuple[str, str], Gallery] = {}
        emoji = run is not None and is_emoji(run, folder, data)
        has = where is not None or has_shown(dataset) or emoji
        self._source = Pictures(run, folder, data, where, dataset) if has else None
        self._texts = texts_of(texts)
        if not emoji and where is not None and self._source is not None:
            check_ids(dataset, self._source.names, f"pictures {where}")
        if not emoji and texts is not None:
            check_ids(dataset, self._texts.keys(), "texts" if isinstance(texts, Mapping) else f"texts {texts}")

    def of(self, modality: str, split: str, row: int) -> Sample:
        """The sample of a row of the data."""
        about = self._about(modality, split, row)
        label = self._dataset.class_names[int(self._dataset.splits[split].labels[modality][row])]
        identity = str(about.get("id", f"{split}:{row}"))
        return Sample(
            identity,
            modality,
            label,
            _cut(self._texts.get(identity) or str(about.get("name", ""))),
            _cut(str(about.get("text", ""))),
            self._picture(modality, split, row, {"id": identity, **about}),
        )

    def _about(self, modality: str, split: str, row: int) -> Mapping[str, Any]:
        if self._run is None:
            return describe_row(self._dataset, modality, split, row)
        key = (modality, split)
        if key not in self._galleries:
            gallery = read_gallery(self._run, self._folder, modality, (split,), self._data, self._dataset)
            self._galleries[key] = gallery
        return self._galleries[key].about(split, row)

    def _picture(self, modality: str, split: str, row: int, about: Mapping[str, Any]) -> int | None:
        if self._source is None:
            return None
        source = self._source.of({"split": split, "row": row, "kind": "row", **about}, modality)
        if source is None:
            return None
        key = source if not isinstance(source, io.BytesIO) else source.getvalue()
        if key not in self._numbers:
            self._numbers[key] = self._add(source)
        return self._numbers[key]

    def _add(self, source: Any) -> int | None:
        if self._bytes >= _BUDGET:
            return None
        address = picture_address(source)
        self._bytes += len(address)
        self.pictures.append(address)
        return len(self.pictures) - 1


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def picture_address(source: Any) -> str:
    """A picture of any format that Pillow reads, made small, as an address that holds it.

    Raises:
        InputError: it cannot be read.
    """
    from PIL import Image, features  # deferred: slow

    from mrl_jax.search.picture_grid import open_picture

    picture = open_picture(source)
    assert picture is not None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    kind = "webp" if features.check("webp") else "png"
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 80, "method": 4} if kind == "webp" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
