"""Results of a search as a table, in terminals and notebooks, and as a picture grid."""

import io
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrl_jax.data.dataset import Dataset, is_picture
from mrl_jax.display.tables import aligned_lines
from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path
from mrl_jax.interface import option
from mrl_jax.names import printable
from mrl_jax.notebook import table_html
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.model import Run
from mrl_jax.run.representation import ranked_by
from mrl_jax.search.gallery import emoji_records, is_emoji

if TYPE_CHECKING:
    from mrl_jax.search.searcher import Searcher

__all__ = ["Answers", "Pictures", "answer_table", "grid", "has_pictures", "has_shown", "pictures_of", "write_grid"]


def answer_table(answer: Mapping[str, Any]) -> str:
    """Lay out an answer of `Searcher.answer` as text: a heading, and one line per result."""
    query, gallery, results = answer["query"], answer["gallery"], answer["results"]
    known = f" ({_short(_name(query))}, {query['label']})" if "label" in query else ""
    by = gallery["metric"] if (kind := gallery["representation"]) == "embedding" else ranked_by(kind, gallery["metric"])
    heading = (
        f"{query['kind']} {_short(query['value'])!r}{known} as {query['modality']} -> {gallery['modality']}: "
        f"{gallery['size']:,} of {' '.join(gallery['splits'])}, epoch {gallery['epoch']}"
        f"; by {by}, ties in gallery order"
    )
    score = "distance" if gallery["metric"] == "hamming" else "score"
    rows = [
        [
            "",
            score,
            "label",
            *(["hit"] if "label" in query else []),
            "id",
            *([_heading(results)] if _shown(results) else []),
        ]
    ]
    for r in results:
        hit = ["hit" if r["hit"] else "miss"] if "hit" in r else []
        name = [_name(r) if _shown([r]) else ""] if _shown(results) else []
        rows.append([str(r["rank"]), f"{r['score']:.3f}", r["label"], *hit, r["id"], *name])
    lines = aligned_lines(rows, left=range(2, len(rows[0])))
    return "\n".join([printable(heading), "-" * min(max(map(len, lines)), 100), *lines])


class Answers(Sequence[Mapping[str, Any]]):
    """Answers of `Searcher.answer` that show as one table: of text in a terminal, of HTML in a notebook.

    Args:
        answers: the answers, one or more, of one metric.
    """

    def __init__(self, answers: Sequence[Mapping[str, Any]]) -> None:
        self._answers = tuple(answers)

    def __getitem__(self, at: Any) -> Any:
        return self._answers[at]

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return "\n".join(aligned_lines(self._rows(), left=(0, 3, 4, 5)))

    def _repr_html_(self) -> str:
        rows = self._rows()
        return table_html(rows, most=len(rows))

    def _rows(self) -> list[list[str]]:
        """A line per result; each query stands in the first of its lines."""
        score = "distance" if self[0]["gallery"]["metric"] == "hamming" else "similarity"
        rows = [["query", "rank", score, "text or id", "label", "hit"]]
        for answer in self:
            query, results = answer["query"], answer["results"]
            name = _short(str(query["value"])) + (f" ({_name(query)}, {query['label']})" if "label" in query else "")
            for r, own in zip(results, [name, *[""] * len(results)], strict=False):
                hit = {True: "hit", False: "miss", None: ""}[r.get("hit")]
                rows.append([own, str(r["rank"]), f"{r['score']:.3f}", _name(r), str(r["label"]), hit])
        filled = [i for i in range(6) if i < 5 or any(row[i] for row in rows[1:])]
        return [[row[i] for i in filled] for row in rows]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _shown(results: Sequence[Mapping[str, Any]]) -> bool:
    return any("name" in r or "text" in r for r in results)


def _heading(results: Sequence[Mapping[str, Any]]) -> str:
    return "name" if any("name" in r for r in results) else "text"


def _name(entry: Mapping[str, Any]) -> str:
    """A readable name of an item: its character and name, otherwise its text, its id or row."""
    if "name" in entry:
        return f"{entry['character']} {entry['name']}"
    if "text" in entry:
        return _short(" ".join(entry["text"].split()))
    return str(entry.get("id", entry.get("value")))


def has_shown(dataset: Dataset) -> bool:
    """Whether the data say what is shown of samples of any modality."""
    return any(split.shown for split in dataset.splits.values())


def has_pictures(searcher: "Searcher") -> bool:
    """Whether the data of a searcher have pictures: those of the emoji set, or files that the data name."""
    if is_emoji(searcher.run, searcher.folder, searcher.data):
        return True
    shown = (names for split in searcher.dataset.splits.values() for names in split.shown.values())
    return any(is_picture(str(name)) for names in shown for name in names)


class Pictures:
    """Pictures of results: those of the emoji set, files that the data name, or files in a folder, named by id.

    Args:
        run: the run; None for data without one.
        folder: its folder, or None.
        data: as for `run_data`.
        where: folder with the pictures; None for those of the data.
        dataset: the data, if they are not the emoji set.

    Raises:
        InputError: the data have no pictures, or the folder does not exist.
    """

    def __init__(
        self, run: Run | None, folder: RunFolder | None, data: Any, where: str | None, dataset: Dataset | None = None
    ) -> None:
        self._emojis = run is not None and is_emoji(run, folder, data)
        if where is None and not (self._emojis or (dataset is not None and has_shown(dataset))):
            raise InputError(
                f"the data of this run have no pictures; give a folder of pictures: {option('pictures', 'FOLDER')}, "
                "or data with columns MODALITY_shown"
            )
        if where is not None and not Path(where).expanduser().is_dir():
            raise InputError(f"pictures {where}: the folder does not exist; give the folder that holds the pictures")
        self._run, self._dataset = run, dataset
        source = data if data is not None else run.config.data_path if run is not None else None
        self._beside = Path(source).expanduser() if isinstance(source, str | Path) else None
        self._files: dict[str, Path] | None = None
        if where is not None:
            self._files = {p.stem: p for p in sorted(Path(where).expanduser().iterdir()) if p.is_file()}
        self._records: dict[str, list[dict[str, Any]]] = {}

    @property
    def names(self) -> Set[str]:
        """Names of the files in the folder, without their suffix; empty for those of the emoji set."""
        return (self._files or {}).keys()

    def read(self, splits: Iterable[str]) -> None:
        """Read the pictures of these splits of the emoji set now, rather than when the first one is asked for."""
        if self._files is None and self._emojis:
            for split in splits:
                self._emoji(split)

    def of(self, entry: Mapping[str, Any], modality: str) -> Any:
        """A file that Pillow can open, or None if the item has no picture.

        Args:
            entry: the query or a result of an answer.
            modality: modality of the entry.
        """
        if "split" not in entry:
            return Path(entry["value"]).expanduser() if entry["kind"] == "image" else None
        if self._files is not None:
            return self._files.get(str(entry.get("id")))
        if not self._emojis:
            return self._named(modality, entry["split"], entry["row"])
        if modality != "image":
            return None
        return io.BytesIO(self._emoji(entry["split"])[entry["row"]]["png"])

    def _named(self, modality: str, split: str, row: int) -> Path | None:
        """The picture that the data name, in the folder of their file or in the working directory, if it is there."""
        shown = {} if self._dataset is None else self._dataset.splits[split].shown
        name = str(shown[modality][row]) if modality in shown else ""
        if not is_picture(name):
            return None
        folder = Path() if self._beside is None else self._beside if self._beside.is_dir() else self._beside.parent
        path = folder / Path(name).expanduser()
        return path if path.is_file() else None

    def _emoji(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split of the emoji set, read once."""
        if split not in self._records:
            assert self._run is not None  # without one, the pictures are in a folder
            self._records[split] = emoji_records(self._run, split)
        return self._records[split]


def pictures_of(searcher: "Searcher", where: str | None) -> Pictures:
    """The pictures of what a searcher finds; `where` as in `Pictures`."""
    run, folder, data = searcher.run, searcher.folder, searcher.data
    needed = where is None and not is_emoji(run, folder, data)
    return Pictures(run, folder, data, where, searcher.dataset if needed else None)


def write_grid(path: Path, answers: Sequence[Mapping[str, Any]], pictures: Pictures) -> None:
    """Write the picture of answers as PNG.

    Raises:
        InputError: a picture cannot be read, or the file cannot be written.
    """
    with atomic_path(path) as part:
        grid(answers, pictures).save(part, format="png", optimize=True)


def grid(answers: Sequence[Mapping[str, Any]], pictures: Pictures) -> Any:
    """Draw answers: each query at the left, its results beside it.

    A result without a picture is shown as text. Where the class of the query is known, hits have green frames with
    ticks, misses red ones with crosses, and the query its class and their number.

    Returns:
        A picture of Pillow with 256 colours, which are enough, and take a third of the bytes.

    Raises:
        InputError: a picture cannot be read.
    """
    from PIL import Image

    from mrl_jax.search.picture_grid import Line, Tile, draw_grid, open_picture  # deferred: Pillow

    lines = []
    for answer in answers:
        query, modality = answer["query"], answer["gallery"]["modality"]
        tiles = [
            Tile(_caption(r), f"{r['score']:.2f}", open_picture(pictures.of(r, modality)), r.get("hit"))
            for r in answer["results"]
        ]
        title = query["value"] if query["kind"] == "text" else _caption(query)
        lines.append(Line(title, open_picture(pictures.of(query, query["modality"])), tiles, _notes(answer)))
    return draw_grid(lines).quantize(256, dither=Image.Dither.NONE)


def _notes(answer: Mapping[str, Any]) -> list[str]:
    """The class of a query and the number of its hits; empty if the class is unknown."""
    if "label" not in answer["query"]:
        return []
    hits = [r["hit"] for r in answer["results"]]
    return [answer["query"]["label"], f"{sum(hits)} of {len(hits)} hit"]


def _caption(entry: Mapping[str, Any]) -> str:
    if entry.get("kind") == "image":
        return Path(entry["value"]).name
    return str(entry.get("name") or entry.get("text") or entry.get("id") or entry["value"])
