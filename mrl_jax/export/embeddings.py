"""The rows of a split as files: `.npz` for `mrl_jax.eval`, Parquet, or a folder in the layout of clip-retrieval.

Shape letters: N samples of a modality, L dimensions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.evaluate import embed_dataset
from mrl_jax.export.places import file_of, new_folder
from mrl_jax.files import atomic_path
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import run_data
from mrl_jax.run.model import TrainedModel
from mrl_jax.search.gallery import read_gallery

__all__ = ["Rows", "read_rows", "write_rows"]

_CLIP = {"image": "img_emb", "text": "text_emb"}
"""Names of clip-retrieval; other modalities are called `MODALITY_emb`."""


class Rows(NamedTuple):
    """The rows of a split.

    Attributes:
        embedded: rows, labels and pairs of every modality.
        ids: modality -> names [N] of the instances; the same name is the same instance.
        shown: modality -> for each sample what there is to show: a name, a text, the path of a picture.
    """

    embedded: Embedded
    ids: Mapping[str, np.ndarray]
    shown: Mapping[str, list[dict[str, Any]]]

    def labels(self, modality: str) -> list[str]:
        """The class names of the samples of a modality."""
        assert self.embedded.labels is not None
        return [self.embedded.class_name(k) for k in self.embedded.labels[modality].tolist()]


def read_rows(
    run: TrainedModel,
    folder: RunFolder | None,
    split: str = "test",
    data: Any = None,
    representation: str | None = None,
    pictures: Path | None = None,
) -> Rows:
    """Embed a split of a run's data.

    Args:
        run: the model.
        folder: its folder, if there is one.
        split: "train", "valid" or "test".
        data: as for `run_data`.
        representation: "embedding", "posterior" or "both"; None for that of the run.
        pictures: folder of pictures named by id, whose paths are written, or None.

    Raises:
        InputError: data that do not fit, a representation that the method lacks, or no such folder of pictures.
    """
    if pictures is not None and not pictures.is_dir():
        raise InputError(f"pictures {pictures}: the folder does not exist; give the folder that holds the pictures")
    files = {} if pictures is None else {p.stem: str(p) for p in sorted(pictures.iterdir()) if p.is_file()}
    dataset = run_data(run, folder, data)
    own = folder if data is None else None
    embedded = embed_dataset(run, own, dataset, split, representation, "run" if folder is None else str(folder.path))
    ids: dict[str, np.ndarray] = {}
    shown: dict[str, list[dict[str, Any]]] = {}
    for m in run.modalities:
        gallery, rows = read_gallery(run, folder, m, (split,), data, dataset, representation), embedded.rows_of(m)
        about = [gallery.about(split, row) for row in rows.tolist()]
        paths = [{"picture": files[known["id"]]} if known.get("id") in files else {} for known in about]
        shown[m] = [{**known, **path} for known, path in zip(about, paths, strict=True)]
        named = all("id" in known for known in about)
        ids[m] = np.array([known["id"] for known in about]) if named else embedded.instances[m]
    if not _one_each(ids, embedded.instances):
        ids = dict(embedded.instances)
    return Rows(embedded, ids, shown)


def _one_each(ids: Mapping[str, np.ndarray], instances: Mapping[str, np.ndarray]) -> bool:
    """Whether equal names are the same instance, and only those."""
    pairs = {(str(name), int(i)) for m, x in ids.items() for name, i in zip(x, instances[m], strict=True)}
    return len({name for name, _ in pairs}) == len(pairs) == len({i for _, i in pairs})


def write_rows(path: Path, rows: Rows) -> list[Path]:
    """Write rows; the suffix says how: `.npz`, `.parquet`, or none for a folder.

    Raises:
        InputError: another suffix, the file or folder cannot be written, or, for a folder, samples are not paired.
    """
    if path.suffix.lower() == ".npz":
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, **_arrays(rows))  # type: ignore[arg-type]
        return [path]
    if path.suffix.lower() == ".parquet":
        _write_table(path, rows)
        return [path]
    if path.suffix:
        raise InputError(f"out {str(path)!r}: embeddings are written as .npz, .parquet, or a folder without a suffix")
    return _write_folder(path, rows)


def _arrays(rows: Rows) -> dict[str, np.ndarray]:
    """The layout that `mrl_jax.eval --embeddings` reads."""
    embedded = rows.embedded
    assert embedded.labels is not None
    arrays = {m: np.asarray(z) for m, z in embedded.embeddings.items()}
    for what, given in (("labels", embedded.labels), ("ids", rows.ids)):
        first = next(iter(given.values()))
        if all(np.array_equal(x, first) for x in given.values()):
            arrays[what] = first
        else:
            arrays |= {f"{m}_{what}": x for m, x in given.items()}
    return arrays | {"class_names": np.array(embedded.class_names)}


def _columns(rows: Rows, modality: str, names: Mapping[str, str]) -> dict[str, list[Any]]:
    """The columns of a modality's samples without their rows.

    Args:
        rows: the rows.
        modality: the modality.
        names: field to show -> its column.
    """
    embedded, shown = rows.embedded, rows.shown[modality]
    columns: dict[str, list[Any]] = {
        "id": [str(x) for x in rows.ids[modality].tolist()],
        "label": rows.labels(modality),
        "split": [embedded.split] * len(shown),
        "row": embedded.rows_of(modality).tolist(),
    }
    return columns | {column: [known.get(field) for known in shown] for field, column in names.items()}


def _fields(rows: Rows, modalities: Any) -> dict[str, str]:
    """The fields to show that some sample has, each a column of its name."""
    found = {field: field for m in modalities for known in rows.shown[m] for field in known}
    return {field: column for field, column in found.items() if field != "id"}


def _write_table(path: Path, rows: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = _fields(rows, rows.shown)
    tables = []
    for m, z in rows.embedded.embeddings.items():
        columns = {"modality": [m] * len(z), **_columns(rows, m, fields)}
        kinds = {name: pa.int64() if name == "row" else pa.string() for name in columns}
        arrays = {name: pa.array(x, kinds[name]) for name, x in columns.items()}
        values = pa.array(np.ascontiguousarray(z, np.float32).reshape(-1))
        tables.append(pa.table({**arrays, "embedding": pa.FixedSizeListArray.from_arrays(values, z.shape[1])}))
    with atomic_path(path) as part:
        pq.write_table(pa.concat_tables(tables), part)


def _write_folder(path: Path, rows: Rows) -> list[Path]:
    """`img_emb/img_emb_0.npy`, `text_emb/text_emb_0.npy`, `metadata/metadata_0.parquet`, and labels and ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    embedded, arrays = rows.embedded, _arrays(rows)
    first, *others = embedded.embeddings
    if any(not np.array_equal(embedded.instances[m], embedded.instances[first]) for m in others):
        sizes = ", ".join(f"{m} {len(z):,}" for m, z in embedded.embeddings.items())
        raise InputError(
            f"out {str(path)!r}: in a folder row i of every modality is the same instance, and samples are missing "
            f"here ({sizes}); write .npz or .parquet"
        )
    names = {m: _CLIP.get(m, file_of(m, "_emb")) for m in embedded.embeddings}
    shown = {field: column for m in embedded.embeddings for field, column in _fields(rows, [m]).items()}
    columns: dict[str, list[Any]] = {}
    for m in embedded.embeddings:
        more = _columns(rows, m, {f: {"picture": "image_path", "name": "caption"}.get(f, f) for f in shown})
        columns |= {k: x for k, x in more.items() if k not in columns or any(v is not None for v in x)}
    kinds = {name: pa.int64() if name == "row" else pa.string() for name in columns}
    with new_folder(path) as part:
        for m, name in names.items():
            (part / name).mkdir()
            np.save(part / name / f"{name}_0.npy", arrays.pop(m))
        (part / "labels").mkdir()
        for name, x in arrays.items():
            own = next((f"{names[m]}_0{name.removeprefix(m)}" for m in names if name.startswith(f"{m}_")), name)
            np.save(part / "labels" / f"{own}.npy", x)
        (part / "metadata").mkdir()
        table = pa.table({name: pa.array(x, kinds[name]) for name, x in columns.items()})
        pq.write_table(table, part / "metadata" / "metadata_0.parquet")
    return [path]
