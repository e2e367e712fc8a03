"""Results of a search as a table and as a picture grid."""

import io
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from mrl_jax.display.tables import aligned_lines
from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path
from mrl_jax.names import printable
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.model import Run
from mrl_jax.run.representation import ranked_by
from mrl_jax.search.gallery import emoji_records, is_emoji

__all__ = ["Pictures", "answer_table", "write_grid"]


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
    rows = [["", score, "label", *(["hit"] if "label" in query else []), "id", *(["name"] if _shown(results) else [])]]
    for r in results:
        hit = ["hit" if r["hit"] else "miss"] if "hit" in r else []
        name = [_short(_name(r))] if _shown(results) else []
        rows.append([str(r["rank"]), f"{r['score']:.3f}", r["label"], *hit, r["id"], *name])
    lines = aligned_lines(rows, left=range(2, len(rows[0])))
    return "\n".join([printable(heading), "-" * min(max(map(len, lines)), 100), *lines])


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _shown(results: Sequence[Mapping[str, Any]]) -> bool:
    return any("name" in r for r in results)


def _name(entry: Mapping[str, Any]) -> str:
    """A readable name of an item: its character and name, or its text, otherwise its id or row."""
    if "name" in entry:
        return f"{entry.get('character', '')} {entry['name']}".strip()
    return str(entry.get("id", entry.get("value")))


class Pictures:
    """Pictures of results: those of the emoji set, or files in a folder, named by id.

    Args:
        run: the run; None for data without one, whose pictures are in a folder.
        folder: its folder, or None.
        data: as for `run_data`.
        where: folder with the pictures; None for those of the emoji set.

    Raises:
        InputError: the data have no pictures, or the folder does not exist.
    """

    def __init__(self, run: Run | None, folder: RunFolder | None, data: Any, where: str | None) -> None:
        if where is None and (run is None or not is_emoji(run, folder, data)):
            raise InputError("the data of this run have no pictures; give a folder of pictures: --pictures FOLDER")
        if where is not None and not Path(where).expanduser().is_dir():
            raise InputError(f"pictures {where}: the folder does not exist; give the folder that holds the pictures")
        self._run = run
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
        if self._files is None:
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
        if modality != "image":
            return None
        return io.BytesIO(self._emoji(entry["split"])[entry["row"]]["png"])

    def _emoji(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split of the emoji set, read once."""
        if split not in self._records:
            assert self._run is not None  # without one, the pictures are in a folder
            self._records[split] = emoji_records(self._run, split)
        return self._records[split]


def write_grid(path: Path, answers: Sequence[Mapping[str, Any]], pictures: Pictures) -> None:
    """Draw answers as PNG: each query at the left, its results beside it.

    A result without a picture is shown as text. Where the class of the query is known, hits have green frames with
    ticks, misses red ones with crosses, and the query its class and their number.

    Raises:
        InputError: a picture cannot be read, or the file cannot be written.
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
    with atomic_path(path) as part:
        # 256 colours are enough, and take a third of the bytes.
        draw_grid(lines).quantize(256, dither=Image.Dither.NONE).save(part, format="png", optimize=True)


def _notes(answer: Mapping[str, Any]) -> list[str]:
    """The class of a query and the number of its hits; empty if the class is unknown."""
    if "label" not in answer["query"]:
        return []
    hits = [r["hit"] for r in answer["results"]]
    return [answer["query"]["label"], f"{sum(hits)} of {len(hits)} hit"]


def _caption(entry: Mapping[str, Any]) -> str:
    if entry.get("kind") == "image":
        return Path(entry["value"]).name
    return str(entry.get("name") or entry.get("id") or entry["value"])
