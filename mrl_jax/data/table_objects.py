"""Objects of other libraries as tables, recognised by what they can do: none of these libraries is imported but Arrow.

DataFrames of pandas and polars, tables of Arrow, data sets of Hugging Face, Bunches of scikit-learn, TensorDatasets of
PyTorch, AnnData and MuData.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mrl_jax.data.formats.arrow_table import Table
from mrl_jax.data.formats.columns import LISTS, NUMBER, OTHER, TEXT
from mrl_jax.data.values import plain_array
from mrl_jax.errors import InputError, first_line

__all__ = ["column_name", "is_bunch", "is_table", "table_of"]


def is_table(x: Any) -> bool:
    """Whether this is an object that `table_of` takes."""
    return any(found(x) for found in (_is_pandas, _is_hub, _is_lazy, _is_arrow, _is_tensors, _is_annotated))


def _is_arrow(x: Any) -> bool:
    return hasattr(x, "__arrow_c_stream__") and (hasattr(x, "columns") or hasattr(x, "schema"))


def _is_lazy(x: Any) -> bool:
    """A LazyFrame of polars."""
    return _has(x, "collect_schema", "collect", "lazy")


def _is_pandas(x: Any) -> bool:
    return _has(x, "iloc", "columns", "dtypes", "index")


def _is_hub(x: Any) -> bool:
    return _has(x, "with_format", "column_names", "features")


def _is_tensors(x: Any) -> bool:
    """A TensorDataset, or a Subset of one."""
    return isinstance(getattr(x, "tensors", None), tuple) or (_has(x, "dataset", "indices") and _is_tensors(x.dataset))


def _is_annotated(x: Any) -> bool:
    """AnnData or MuData."""
    return _has(x, "obs", "obs_names", "obsm") and (hasattr(x, "mod") or hasattr(x, "X"))


def is_bunch(x: Mapping[Any, Any]) -> bool:
    """Whether this is a Bunch of scikit-learn with one table of named columns."""
    return {"data", "target", "feature_names"} <= {*x}


def _has(x: Any, *names: str) -> bool:
    return all(hasattr(x, name) for name in names)


def table_of(x: Any, source: str) -> Table:
    """The columns of an object.

    Args:
        x: an object for which `is_table` or `is_bunch` is true.
        source: what it is, for messages.

    Returns:
        Its columns. Those of tensors are called by their places, `0`, `1`, …. Those of AnnData are the columns of
        `obs`, `X` and the keys of `obsm`; of MuData the columns of `obs`, the modalities, and on request
        `MODALITY:KEY` for a key of the `obsm` of a modality.

    Raises:
        InputError: it cannot be read, names a column twice, or its index names a row twice.
    """
    if isinstance(x, Mapping):
        return _from_bunch(x, source)
    if _is_pandas(x):
        return _from_pandas(x, source)
    if _is_annotated(x):
        return _from_modalities(x, source) if hasattr(x, "mod") else _from_annotated(x, source)
    if _is_tensors(x):
        return _from_tensors(x, source)
    class_names = {}
    if _is_hub(x):
        if not hasattr(x, "__len__"):
            raise InputError(f"{source} is a stream; load the data set without streaming")
        class_names = {c: tuple(f.names) for c, f in x.features.items() if hasattr(f, "str2int")}
        x = x.with_format("arrow")[:]
    elif _is_lazy(x) and not hasattr(x, "__arrow_c_stream__"):
        x = x.collect()
    return replace(_from_arrow(x, source), class_names=class_names)


def _from_arrow(frame: Any, source: str) -> Table:
    import pyarrow as pa

    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except Exception as error:  # foreign types raise almost any error
        raise InputError(f"{source} cannot be read as a table ({first_line(error)}); convert it to Arrow") from error
    _check_names(table.column_names, source)
    return Table({name: _one_array(table.column(name)) for name in table.column_names})


def _one_array(column: Any) -> Any:
    """One Arrow array without chunks, of an extension type its storage."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    return getattr(array, "storage", array)


def _from_pandas(frame: Any, source: str) -> Table:
    import pyarrow as pa

    names = [column_name(name) for name in list(frame.columns)]
    _check_names(names, source)
    columns, refused = dict[str, Any](), dict[str, tuple[str, str]]()
    for place, name in enumerate(names):
        series = frame.iloc[:, place]
        try:
            columns[name] = _one_array(pa.array(series, from_pandas=True))
        except Exception as error:  # objects that Arrow cannot hold raise almost any error
            refused[name] = _refusal(series.tolist(), error)
    return Table(columns, refused, ids=_index_ids(frame.index, source))


def column_name(name: Any) -> str:
    """The name of a column as text; levels of names are joined: ("image", 0) is image_0."""
    if isinstance(name, tuple):
        return "_".join(str(part) for part in name if str(part))
    return str(name)


def _check_names(names: Iterable[str], source: str) -> None:
    names = list(names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: two columns are named {twice!r}; give every column a name of its own")


def _refusal(values: Sequence[Any], error: Exception) -> tuple[str, str]:
    """The kind of a column that Arrow cannot hold, and why: its first value, and the first of another kind."""
    kinds = [_kind(value) for value in values]
    first = next((i for i, kind in enumerate(kinds) if kind), 0)
    kind = next((k for k, word in _WORDS.items() if kinds and kinds[first].startswith(word)), OTHER)
    other = next((i for i, kind in enumerate(kinds) if kind not in ("", kinds[first])), None)
    if other is None:
        return kind, f"holds {kinds[first] if kinds else 'nothing'} that cannot be read ({first_line(error)})"
    return kind, (
        f"holds values of several kinds: row {first} is {_short(values[first])} ({kinds[first]}), row {other} is "
        f"{_short(values[other])} ({kinds[other]}); give it one kind"
    )


_WORDS = {TEXT: "text", NUMBER: "a number", LISTS: "a list"}


def _kind(value: Any) -> str:
    """What a value is, in words; empty if it is missing."""
    if value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, str | bytes):
        return _WORDS[TEXT]
    if isinstance(value, int | float | np.number | np.bool_):
        return _WORDS[NUMBER]
    if isinstance(value, list | tuple | np.ndarray):
        inner = value if isinstance(value, np.ndarray) else np.asarray(value, object)
        kinds = {_kind(one) for one in inner.ravel().tolist()} - {""}
        of = f" of {' and '.join(sorted(kinds))}" if kinds else ""
        return f"a list{of}" if inner.ndim == 1 else f"a list of {inner.ndim} dimensions"
    return type(value).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _index_ids(index: Any, source: str) -> np.ndarray | None:
    """Ids from an index that names the rows; None for one that counts them.

    Raises:
        InputError: a name is there twice.
    """
    if type(index).__name__ == "RangeIndex":
        return None
    names = ["_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in index.tolist()]
    if names == [str(i) for i in range(len(names))]:
        return None
    first = dict[str, int]()
    for row, name in enumerate(names):
        if name in first:
            raise InputError(
                f"{source}: the index holds {name!r} twice, in rows {first[name]} and {row}; number the rows anew with "
                "df.reset_index(drop=True), or name a column of ids"
            )
        first[name] = row
    return np.array(names, np.str_)


def _from_bunch(bunch: Mapping[str, Any], source: str) -> Table:
    """The columns of a Bunch: its features by name, and `label`, with the names of its classes."""
    import pyarrow as pa

    data = bunch["data"]
    table = _from_pandas(data, source) if _is_pandas(data) else None
    if table is None:
        x, names = np.asarray(data), [str(name) for name in bunch["feature_names"]]
        if x.ndim != 2 or x.shape[1] != len(names):
            raise InputError(
                f"{source}: data is {x.dtype} {list(x.shape)} for {len(names)} feature_names; give one each"
            )
        _check_names([*names, "label"], source)
        table = Table({name: pa.array(x[:, j]) for j, name in enumerate(names)})
    labels = np.asarray(bunch["target"])
    class_names = bunch.get("target_names")
    class_names = () if class_names is None or isinstance(class_names, str) else class_names
    is_numbered = labels.dtype.kind in "iu" and len(class_names) > 1
    return Table(
        {**table.columns, "label": pa.array(labels)},
        class_names={"label": tuple(map(str, class_names))} if is_numbered else {},
    )


def _from_tensors(data: Any, source: str) -> Table:
    """The tensors of a TensorDataset, or of a Subset of one, by their places."""
    import pyarrow as pa

    rows: Any = slice(None)
    while not isinstance(getattr(data, "tensors", None), tuple):  # a Subset, perhaps of a Subset
        indices = np.asarray(list(data.indices), np.int64)
        rows, data = (indices if isinstance(rows, slice) else indices[rows]), data.dataset
    columns = dict[str, Any]()
    for place, tensor in enumerate(data.tensors):
        x = plain_array(tensor, f"{source}: tensor {place}")[rows]
        x = x.ravel() if x.ndim == 2 and x.shape[1] == 1 and x.dtype.kind in "iu" else x
        if x.ndim not in (1, 2):
            raise InputError(
                f"{source}: tensor {place} has the shape {list(x.shape)}; features are rows of numbers: flatten it, or "
                "compute features of it first"
            )
        columns[str(place)] = x if x.ndim == 2 else pa.array(x)
    views = [name for name, x in columns.items() if isinstance(x, np.ndarray)]
    named = {f"view{number}": (name,) for number, name in enumerate(views, start=1)}
    labels = [name for name in columns if name not in views]
    return Table(columns, named=named | ({"labels": (labels[0],)} if len(labels) == 1 else {}))


def _from_annotated(data: Any, source: str) -> Table:
    """The observations of AnnData, `X`, and the matrices of `obsm`."""
    table = _of_obs(data, source)
    matrices = {"X": data.X, **dict(data.obsm)}
    return replace(table, columns={**table.columns, **_matrices(matrices, source)})


def _from_modalities(data: Any, source: str) -> Table:
    """The observations of MuData, and the matrices of its modalities; NaN where a modality lacks an observation."""
    table = _of_obs(data, source)
    assert table.ids is not None
    place = {name: row for row, name in enumerate(table.ids.tolist())}
    columns, on_request = dict[str, Any](), list[str]()
    for name, one in data.mod.items():
        ids = _of_obs(one, f"{source}: {name}").ids
        assert ids is not None
        extra = {f"{name}:{key}": x for key, x in dict(one.obsm).items()}
        on_request += extra
        for column, x in _matrices({name: one.X, **extra}, source).items():
            columns[column] = np.full((len(place), x.shape[1]), np.nan, x.dtype if x.dtype.kind == "f" else np.float64)
            columns[column][[place[key] for key in ids.tolist()]] = x
    return replace(table, columns={**table.columns, **columns}, on_request=frozenset(on_request))


def _of_obs(data: Any, source: str) -> Table:
    """The columns of `obs`, with the names of observations as ids."""
    table = _from_pandas(data.obs, source)
    return table if table.ids is not None else replace(table, ids=np.array(list(map(str, data.obs_names)), np.str_))


def _matrices(matrices: Mapping[str, Any], source: str) -> dict[str, np.ndarray]:
    """Those that are there, as matrices of numbers."""
    arrays = {key: plain_array(x, f"{source}: {key}") for key, x in matrices.items() if x is not None}
    return {key: x for key, x in arrays.items() if x.ndim == 2 and x.dtype.kind in "fiub" and x.size}
