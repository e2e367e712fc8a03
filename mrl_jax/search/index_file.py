"""Files of an `Index`: an `.npz` of its own, and Parquet for vector databases."""

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.files import written_whole

__all__ = ["VERSION", "read_index", "write_index", "write_parquet"]

VERSION = 1
"""Of the file format; files of another one are refused."""

_FORMAT = "mrl_jax.search.index"


def write_index(
    path: Path, header: Mapping[str, Any], columns: Mapping[str, Any], embeddings: Iterable[np.ndarray]
) -> None:
    """Write an index, whole or not at all.

    Args:
        path: the file.
        header: `rows`, `width`, and whatever else JSON can hold.
        columns: `ids` and `labels` [G], and `payloads`; each may be None.
        embeddings: blocks that make [rows, width] together; the whole need not fit into memory.

    Raises:
        InputError: it cannot be written.
    """
    with written_whole(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, value in {"header": {"format": _FORMAT, "version": VERSION, **header}, **columns}.items():
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
    # Without the time of day in it, the same index gives the same bytes.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        yield file


def read_index(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header, and `embeddings`, `ids`, `labels` and `payloads` as far as there are; nothing in the file is run.

    Raises:
        InputError: no such file, another file, another version of the format, or a damaged file.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = _json(file["header"])
            if header["format"] != _FORMAT:
                raise ValueError("it holds something else")
            if header["version"] != VERSION:
                raise ValueError(f"its format has version {header['version']}, this package reads {VERSION}")
            columns = {name: file[name] for name in ("embeddings", "ids", "labels") if name in file.files}
            if "payloads" in file.files:
                columns["payloads"] = _json(file["payloads"])
        x = columns["embeddings"]
        if (
            x.shape != (header["rows"], header["width"])
            or x.dtype != np.float32
            or not isinstance(header["metadata"], dict)
        ):
            raise ValueError(f"embeddings are {x.dtype} {list(x.shape)}")
    except FileNotFoundError as error:
        raise InputError(f"index {path} does not exist; name a file that Index.save wrote") from error
    except Exception as error:  # a damaged or foreign file raises nearly anything
        why = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise InputError(f"index {path} cannot be read ({why}); build it anew") from error
    return header, columns


def _json(array: np.ndarray) -> Any:
    return json.loads(array.tobytes().decode("utf-8", "surrogatepass"))


def write_parquet(
    path: Path, embeddings: Iterable[np.ndarray], ids: np.ndarray, labels: Any, payloads: Sequence[Any] | None
) -> None:
    """Write the columns `id`, `label`, `payload` (JSON) and `embedding`, a row group per block.

    Args:
        path: the file.
        embeddings: blocks [N, L].
        ids: [G].
        labels: [G] or None, which leaves the column out.
        payloads: G values or None, which leaves the column out.

    Raises:
        InputError: it cannot be written.
    """
    import pyarrow as pa  # deferred: only exports need it
    import pyarrow.parquet as pq

    stop = 0
    with written_whole(path) as part, contextlib.ExitStack() as stack:
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
