"""The gallery of a search: the samples of one modality of a run's data, represented block by block."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mrl_jax.data.dataset import SPLITS, Dataset, is_picture
from mrl_jax.errors import InputError
from mrl_jax.retrieval.similarity import NO_CODES_OF_RUN, NoCodesError
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run, run_data
from mrl_jax.run.model import Run

if TYPE_CHECKING:
    from mrl_jax.search.index import Index

__all__ = [
    "Gallery",
    "Part",
    "check_modality",
    "check_splits",
    "describe_row",
    "emoji_records",
    "is_emoji",
    "open_run",
    "read_gallery",
]

_ROWS = 16384  # rows that are embedded at once


class Part(NamedTuple):
    """Rows of a gallery, as `Index.add` takes them; labels are class names."""

    embeddings: np.ndarray
    ids: list[str]
    labels: list[str]
    payloads: list[dict[str, Any]]


@dataclass(frozen=True)
class Gallery:
    """The samples of one modality in some splits.

    Attributes:
        run: the run that represents them.
        dataset: the data.
        modality: name of the modality.
        splits: splits of the samples, in this order.
        shown: split -> for each of its rows the fields to show with a result; empty if there are none.
        representation: what is retrieved by, one of `options.REPRESENTATIONS`.
    """

    run: Run
    dataset: Dataset
    modality: str
    splits: tuple[str, ...]
    shown: dict[str, list[dict[str, Any]]]
    representation: str = "embedding"

    def parts(self) -> Iterator[Part]:
        """The rows of the samples that are present, block by block; features may be memory maps."""
        m = self.modality
        for name in self.splits:
            split = self.dataset.splits[name]
            present = np.flatnonzero(split.present(m))
            for rows in np.split(present, range(_ROWS, len(present), _ROWS)):
                if not len(rows):
                    continue
                z = self.run.represent({m: split.features[m][rows]}, self.representation)[m]
                payloads = [{"split": name, "row": row, **self.about(name, row)} for row in rows.tolist()]
                ids = [payload.pop("id", f"{name}:{payload['row']}") for payload in payloads]
                labels = [self.dataset.class_names[k] for k in split.labels[m][rows].tolist()]
                yield Part(z, ids, labels, payloads)

    def fill(self, index: "Index") -> None:
        """Append all rows to an index.

        Raises:
            InputError: they do not fit the metric of the index.
        """
        for part in self.parts():
            try:
                index.add(part.embeddings, ids=part.ids, labels=part.labels, payloads=part.payloads)
            except NoCodesError:
                raise InputError(NO_CODES_OF_RUN) from None

    def about(self, split: str, row: int) -> dict[str, Any]:
        """Fields of a row besides its label: `id` if the data have ids, `text` if they have it, and fields to show."""
        about = describe_row(self.dataset, self.modality, split, row)
        return about | (self.shown[split][row] if split in self.shown else {})


def describe_row(dataset: Dataset, modality: str, split: str, row: int) -> dict[str, Any]:
    """What data say of a row of a modality: `id` and `text`, where they have them."""
    of = dataset.splits[split]
    text = str(of.shown[modality][row]) if modality in of.shown else ""
    about = {} if of.ids is None else {"id": str(of.ids[row])}
    return about | ({} if not text or is_picture(text) else {"text": text})


def open_run(source: Run | str | os.PathLike[str], checkpoint: str | int = "kept") -> tuple[Run, RunFolder | None]:
    """Load a run from its folder; a `Run` is returned as it is, without a folder.

    Raises:
        InputError: the folder holds no run, or not that checkpoint.
    """
    if isinstance(source, Run):
        return source, None
    return load_run(source, checkpoint), RunFolder.open(source)


def check_modality(run: Run, modality: str) -> str:
    """Refuse a modality that the run does not have.

    Raises:
        InputError: the modality is unknown.
    """
    if not isinstance(modality, str):
        raise InputError(f"modality is a {type(modality).__name__}; give its name; data go as data=…")
    if modality not in run.modalities:
        raise InputError(f"modality {modality!r} is not in this run; choose from {', '.join(run.modalities)}")
    return modality


def check_splits(splits: Sequence[str]) -> tuple[str, ...]:
    """Refuse unknown or repeated splits, and an empty list.

    Raises:
        InputError: the splits are wrong.
    """
    splits = (splits,) if isinstance(splits, str) else tuple(splits)
    if not splits or not set(splits) <= set(SPLITS) or len(set(splits)) < len(splits):
        raise InputError(f"split {' '.join(map(str, splits)) or 'none'}: choose from {', '.join(SPLITS)}, each once")
    return splits


def is_emoji(run: Run, folder: RunFolder | None, data: Any) -> bool:
    """Whether the gallery is the bundled emoji data set."""
    own = folder is None or not folder.data().get("in_memory")
    return run.config.preset == "emoji" and own and data is None


def emoji_records(run: Run, split: str, texts: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Pictures and texts of the rows of a split of the emoji data set, as the run has it; see `load_records`."""
    from mrl_jax.data.emoji import load as emoji  # deferred: imports TFDS

    return emoji.load_records(split, texts=texts, source=run.source or "emoji", split_seed=run.config.split_seed)


def read_gallery(
    run: Run,
    folder: RunFolder | None,
    modality: str,
    splits: Sequence[str] = ("test",),
    data: Any = None,
    dataset: Dataset | None = None,
    representation: str | None = None,
) -> Gallery:
    """Load the gallery of a run.

    Args:
        run: the run.
        folder: its folder, or None.
        modality: a modality of the run.
        splits: some of "train", "valid" and "test".
        data: as for `run_data`.
        dataset: the same data, if already loaded.
        representation: "embedding", "posterior" or "both"; None for that of the run.

    Raises:
        InputError: an unknown modality, split or representation; otherwise as `run_data`.
    """
    modality, splits, kind = check_modality(run, modality), check_splits(splits), run.representation_for(representation)
    dataset = dataset or run_data(run, folder, data)
    shown = {}
    if is_emoji(run, folder, data):
        shown = {split: _emoji_rows(run, split, modality) for split in splits}
    return Gallery(run, dataset, modality, splits, shown, kind)


def _emoji_rows(run: Run, split: str, modality: str) -> list[dict[str, Any]]:
    named = modality if modality.startswith("text_") else "text_en"
    records = emoji_records(run, split, dict.fromkeys((named, "text")))
    whole = ("text",) if modality == "text" else ()  # the string of all names that its features come from
    return [{"id": r["id"], "character": r["character"], "name": r[named], **{m: r[m] for m in whole}} for r in records]
