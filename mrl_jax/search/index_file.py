"""Files of an `Index`: its own `.npz` format, and Parquet for vector databases."""

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.formats.limits import Header
from mrl_jax.data.formats.npz import Member, open_npz
from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path
from mrl_jax.json_files import ANY, Number, parse_json
from mrl_jax.options import REPRESENTATIONS
from mrl_jax.retrieval.similarity import METRICS

__all__ = ["VERSION", "VERSION_GIVEN", "read_index", "write_index", "write_parquet"]

VERSION = 1
"""Version of the file format, of rows of unit length; files of another version than these two are refused."""

VERSION_GIVEN = 2
"""Version of the files of rows as given, which earlier releases cannot read; the header then holds `metric`."""

_FORMAT = "mrl_jax.search.index"

_HEADER = {
    "format": str,
    "version": int,
    "rows": Number(0, whole=True),
    "width": Number(0, whole=True),
    "metadata": {str: ANY},
    "metric?": str,
    "representation?": str,
    "columns?": [str],
}


def write_index(
    path: Path, header: Mapping[str, Any], columns: Mapping[str, Any], embeddings: Iterable[np.ndarray]
) -> None:
    """Write an index atomically.

    Args:
        path: the file.
        header: `rows`, `width`, `version` unless it is `VERSION`, `representation` unless it is "embedding", and
            further values that JSON can represent.
        columns: `ids` and `labels` [G], and `payloads`; each may be None.
        embeddings: blocks of rows, together [rows, width], which need not fit into memory.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        own = {"format": _FORMAT, "version": VERSION, **header}
        own["columns"] = [name for name, value in columns.items() if value is not None]
        for name, value in {"header": own, **columns}.items():
            if value is None:
                continue
            if name in ("header", "payloads"):
                text = json.dumps(value, ensure_ascii=False, allow_nan=False)
                value = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
            with _entry(archive, name) as file:
                np.lib.format.write_array(file, value, allow_pickle=False)
        with _entry(archive, "embeddings") as file:
            shape = {"descr": "<f4", "fortran_order": False, "shape": (header["rows"], header["width"])}
            np.lib.format.write_array_header_1_0(file, shape)
            for rows in embeddings:
                file.write(np.ascontiguousarray(rows, "<f4").tobytes())


@contextlib.contextmanager
def _entry(archive: zipfile.ZipFile, name: str) -> Iterator[Any]:
    # Entries have no time, so that equal indexes give equal bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        yield file


def read_index(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the header and the columns of an index, without pickle: no code in the file runs.

    Returns:
        The header; and `embeddings`, and `ids`, `labels` and `payloads` if the index has them.

    Raises:
        InputError: the file does not exist, is damaged, is no index, or has another version of the format.
    """
    try:
        with path.open("rb") as raw, contextlib.ExitStack() as stack:
            reads = open_npz(raw, path.stat().st_size, stack, surrogates=True)
            header = _json(reads["header"](), _HEADER)
            if header["format"] != _FORMAT:
                raise ValueError("it is no index")
            if header["version"] not in (VERSION, VERSION_GIVEN):
                known = f"versions {VERSION} and {VERSION_GIVEN}"
                raise ValueError(f"its format has version {header['version']}, this package reads {known}")
            if header["version"] == VERSION_GIVEN and header["metric"] not in METRICS:
                raise ValueError(f"its metric is {header['metric']!r}")
            if header.setdefault("representation", "embedding") not in REPRESENTATIONS:
                raise ValueError(f"its representation is {header['representation']!r}")
            claims = {name: read.header() for name, read in reads.items() if isinstance(read, Member)}
            rows, width = header["rows"], header["width"]
            _check_claims(claims, rows, width)
            columns: dict[str, Any] = {
                name: reads[name]() for name in ("embeddings", "ids", "labels") if name in claims
            }
            if "payloads" in claims:
                columns["payloads"] = _json(reads["payloads"]())
        if lost := sorted(set(header.get("columns", ())) - set(columns)):  # a damaged name in the archive hides one
            raise ValueError(f"{lost[0]} missing")
    except FileNotFoundError as error:
        raise InputError(f"index {path} does not exist; give a file that Index.save wrote") from error
    except Exception as error:  # a damaged file can raise almost any exception
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(f"index {path} cannot be read ({reason}); build it again") from error
    return header, columns


def _check_claims(claims: Mapping[str, Header], rows: int, width: int) -> None:
    """Compare shapes with the header before any array is unpacked."""
    x = claims["embeddings"]
    if x.shape != (rows, width) or x.dtype != np.float32:
        raise ValueError(f"embeddings are {x.dtype} {list(x.shape)}")
    for name in {"ids", "labels"} & set(claims):
        if claims[name].shape != (rows,):
            raise ValueError(f"{name} are {claims[name].dtype} {list(claims[name].shape)}")


def _json(array: np.ndarray, schema: Any = ANY) -> Any:
    return parse_json(array.tobytes().decode("utf-8", "surrogatepass"), schema)


def write_parquet(
    path: Path, embeddings: Iterable[np.ndarray], ids: np.ndarray, labels: Any, payloads: Sequence[Any] | None
) -> None:
    """Write the columns `id`, `label`, `payload` (JSON) and `embedding`, a row group per block.

    Args:
        path: the file.
        embeddings: blocks [N, L].
        ids: [G].
        labels: [G], or None for no such column.
        payloads: G values, or None for no such column.

    Raises:
        InputError: the file cannot be written.
    """
    import pyarrow as pa  # deferred: only exports need it
    import pyarrow.parquet as pq

    stop = 0
    with atomic_path(path) as part, contextlib.ExitStack() as stack:
        writer = None
        for rows in embeddings:
            start, stop = stop, stop + len(rows)
            arrays = {"id": pa.array(ids[start:stop])}
            if labels is not None:
                arrays["label"] = pa.array(labels[start:stop])
            if payloads is not None:
                arrays["payload"] = pa.array([json.dumps(p, ensure_ascii=False) for p in payloads[start:stop]])
            values = pa.array(np.ascontiguousarray(rows).reshape(-1))
            arrays["embedding"] = pa.FixedSizeListArray.from_arrays(values, rows.shape[1])
            table = pa.table(arrays)
            writer = writer or stack.enter_context(pq.ParquetWriter(part, table.schema))
            writer.write_table(table)
