"""Open a data file, or a folder in one of the forms in which published sets circulate, as a mapping of arrays."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.data.formats import open_arrays
from mrl_jax.data.formats.open import csv_files, split_folders
from mrl_jax.data.published.catalog import CATALOG
from mrl_jax.errors import InputError, listed

__all__ = ["open_source"]


@contextlib.contextmanager
def open_source(
    path: Path, set_name: str | None = None, named: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Mapping[str, Any]]:
    """The arrays of a data file, or of a folder with one of the public layouts.

    Args:
        path: a file; or a folder of `.npy`, Parquet or CSV files, of the `.mat` files of Pascal Sentence, of the
            Wikipedia release of 2010, or with a single data file, or a single folder of Parquet files, at any depth.
        set_name: which set it should be (a key of `CATALOG`), to choose among several files.
        named: as in `open_arrays`.

    Raises:
        InputError: no readable data file, or several files to choose from.
    """
    lists = _category_lists(path)
    if path.is_dir() and (parts := _single_arrays(path)):
        with contextlib.ExitStack() as stack:
            yield _Parts({key: stack.enter_context(open_arrays(file)) for key, file in parts.items()})
    elif lists:
        features = path / "raw_features.mat" if path.is_dir() else path
        with open_arrays(features) as arrays:
            yield _WithLists(arrays, lists)
    elif path.is_dir() and not _is_array_folder(path):
        with open_source(_only_file(path, set_name), set_name, named) as arrays:
            yield arrays
    else:
        with open_arrays(path, named) as arrays:
            yield arrays


_ARCHIVES = (".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".rar", ".7z")
_SUFFIXES = (".npz", ".mat", ".h5", ".hdf5", ".h5py", ".parquet")


def _is_array_folder(path: Path) -> bool:
    if any(file.suffix in (".npy", ".parquet") for file in path.iterdir()):
        return True
    files = _data_files(path)
    return (bool(split := split_folders(path)) and split == files) or (not files and bool(csv_files(path)))


def _data_files(folder: Path) -> list[Path]:
    """The data files in a folder, at any depth."""
    return sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file())


def _only_file(folder: Path, set_name: str | None) -> Path:
    """The data file in a folder, at any depth; of several files the one that the catalog lists first for the set."""
    files = _data_files(folder)
    if set_name in CATALOG:
        for known in CATALOG[set_name].files:
            for file in files:
                if file.name in re.split(r" or | \+ ", known.names):
                    return file
        folders = {file.parent for file in files if file.name == "train_img.mat"}
        if len(folders) == 1:
            return folders.pop()
    folders = {file.parent for file in files}
    if all(file.suffix == ".parquet" for file in files):  # as data sets of the hub have them
        if len(folders) == 1:
            return folders.pop()
        above = {parent.parent for parent in folders}
        if len(above) == 1 and split_folders(parent := above.pop()) == files:
            return parent
    if len(files) != 1:
        names = ", ".join(str(p.relative_to(folder)) for p in files[:10]) or "none"
        packed = sorted(p for p in folder.rglob("*") if p.suffix in _ARCHIVES and p.is_file())
        if packed and not files:
            raise InputError(
                f"data folder {str(folder)!r} holds no data file, but {str(packed[0].relative_to(folder))!r}, which is "
                "an archive; unpack it there"
            )
        raise InputError(
            f"data folder {str(folder)!r}: one data file ({', '.join(_SUFFIXES)}), a folder of .npy or .csv files or a "
            f"known layout is needed; data files found: {names}; give the path of one of them (for pictures and texts "
            "run python -m mrl_jax.data featurize first)"
        )
    return files[0]


def _single_arrays(folder: Path) -> dict[str, Path]:
    """The files of Pascal Sentence, one array each: key -> file; empty for any other folder."""
    files = {p.stem: p for p in folder.glob("*.mat") if re.fullmatch(r"(train|valid|test)_(img|txt)(_lab)?", p.stem)}
    return files if {"train_img", "test_img"} <= set(files) else {}


class _Parts(Mapping[str, Any]):
    """Arrays of several files that hold one array each."""

    def __init__(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        self._files = files

    def __getitem__(self, key: str) -> Any:
        arrays = self._files[key]
        if len(arrays) != 1:
            raise InputError(f"{key}.mat must hold one array; found: {listed(arrays)}")
        return arrays[next(iter(arrays))]

    def __contains__(self, key: object) -> bool:
        return key in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


_LIST = "{}set_txt_img_cat.list"  # of a split


def _category_lists(path: Path) -> dict[str, Path]:
    """The lists in the folder of the feature file of the Wikipedia release of 2010, by name; empty if not this set."""
    folder = path if path.is_dir() else path.parent
    if path.name != "raw_features.mat" and not (folder / "raw_features.mat").is_file():
        return {}
    if not path.is_dir() and path.name != "raw_features.mat":
        return {}
    names = [_LIST.format("train"), _LIST.format("test"), "categories.list"]
    lists = {name: folder / name for name in names if (folder / name).is_file()}
    if missing := [name for name in names[:2] if name not in lists]:
        raise InputError(
            f"{folder / missing[0]} does not exist; it holds the labels of raw_features.mat: copy it to this folder"
        )
    return lists


class _WithLists(Mapping[str, Any]):
    """Arrays of a file and of the lists in its folder: labels under the name of a list, ids under `NAME:ids`."""

    def __init__(self, arrays: Mapping[str, Any], lists: Mapping[str, Path]) -> None:
        self._arrays, self._lists = arrays, lists
        self._keys = [*arrays, *lists, *(f"{name}:ids" for name in lists if "img_cat" in name)]

    def __getitem__(self, key: str) -> Any:
        if key in self._arrays:
            return self._arrays[key]
        if key not in self._keys:
            raise KeyError(key)
        if key == "categories.list":
            return np.array([line for line in _lines(self._lists[key]) if line])
        return _read_list(self._lists[key.removesuffix(":ids")], ids=key.endswith(":ids"))

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _read_list(path: Path, ids: bool) -> np.ndarray:
    """The third column (class), or the first two (ids of text and image), of a list with one row per instance."""
    rows = [line.split("\t") for line in _lines(path) if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != 3 or not row[2].isascii() or not row[2].isdecimal() or len(row[2]) > 9:
            raise InputError(f"{path}: line {number} is not text id, image id and class number, separated by tabs")
    return (
        np.array([f"{row[0]} {row[1]}" for row in rows]) if ids else np.array([int(row[2]) for row in rows], np.int64)
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it from the data set's archive") from error
