"""A small paired data set, written in every known file layout."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io

SIZES = {"train": 40, "valid": 12, "test": 20}
DIMS = {"image": 6, "text": 5, "audio": 3, "3d": 4, "video": 2}
CLASSES = 4
CELLS = tuple(DIMS)


def small_set(modalities=("image", "text"), seed=0):
    """Arrays in the own layout."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for s, n in SIZES.items():
        arrays[f"{s}_labels"] = rng.permutation(np.arange(n) % CLASSES)
        for m in modalities:
            arrays[f"{s}_{m}"] = rng.normal(size=(n, DIMS[m])).astype(np.float32)
    return arrays


def _held_out(arrays, part):
    """Validation rows before test rows, as in files with one split for both."""
    return np.concatenate([arrays[f"valid_{part}"], arrays[f"test_{part}"]])


def deep_without_valid(path, arrays, text="texts", base=0):
    with h5py.File(path, "w") as file:
        for s, get in (("train", lambda part: arrays[f"train_{part}"]), ("test", lambda part: _held_out(arrays, part))):
            file[f"{s}_imgs_deep"], file[f"{s}_{text}"] = get("image").astype(np.float64), get("text")
            file[f"{s}_imgs_labels"] = file[f"{s}_texts_labels"] = get("labels") + base
    return path


def deep_with_valid(path, arrays, text="text"):
    with h5py.File(path, "w") as file:
        for s in SIZES:
            file.create_dataset(f"{s}_imgs_deep", data=arrays[f"{s}_image"], chunks=True, compression="gzip")
            file[f"{s}_{text}"] = arrays[f"{s}_text"]
            file[f"{s}_imgs_labels"] = (arrays[f"{s}_labels"] + (s != "valid"))[:, None]  # the base differs
            file[f"{s}_texts_labels"] = arrays[f"{s}_labels"] + 1
    return path


def wiki_mat(path, arrays):
    held = {}
    for s, get in (("train", lambda part: arrays[f"train_{part}"]), ("test", lambda part: _held_out(arrays, part))):
        held |= {f"{s}_imgs_deep": get("image"), f"{s}_texts_doc": get("text"), f"{s}_imgs_labels": get("labels") + 1}
    scipy.io.savemat(path, held, do_compression=True)
    return path


def wikipedia_2010(folder, arrays):
    folder.mkdir()
    features = {}
    for s, n, get in (
        ("train", "tr", lambda part: arrays[f"train_{part}"]),
        ("test", "te", lambda part: _held_out(arrays, part)),
    ):
        features |= {f"I_{n}": get("image").astype(np.float64), f"T_{n}": get("text").astype(np.float64)}
        lines = [f"text{j}\timage{j}\t{k + 1}" for j, k in enumerate(get("labels"))]
        (folder / f"{s}set_txt_img_cat.list").write_text("\n".join(lines) + "\n")
    scipy.io.savemat(folder / "raw_features.mat", features)
    (folder / "categories.list").write_text("art\nbiology\ngeography\nhistory\n")
    return folder


def inria_short(path, arrays):
    found = {}
    for s, n in (("train", "tr"), ("valid", "val"), ("test", "te")):
        found |= {f"{n}_img": arrays[f"{s}_image"], f"{n}_txt": arrays[f"{s}_text"]}
        found |= {f"{n}_img_lab": arrays[f"{s}_labels"] + 1, f"{n}_txt_lab": arrays[f"{s}_labels"] + 1}
    scipy.io.savemat(path, found)
    return path


def named(path, arrays):
    found = {}
    for s in SIZES:
        found |= {f"img_{s}": arrays[f"{s}_image"], f"text_{s}": arrays[f"{s}_text"]}
        found[f"label_{s}"] = np.eye(CLASSES)[arrays[f"{s}_labels"]]
    scipy.io.savemat(path, found)
    return path


def _cells(values):
    cells = np.empty((1, len(values)), object)
    cells[0, :] = values
    return cells


def cells_mat5(path, arrays, modalities=CELLS):
    found = {}
    for s in SIZES:
        found[s] = _cells([arrays[f"{s}_{m}"] for m in modalities])
        found[f"{s}_labels"] = _cells([arrays[f"{s}_labels"][:, None] + 1] * len(modalities))
    scipy.io.savemat(path, found)
    return path


def cells_mat73(path, arrays, modalities=CELLS):
    """MATLAB 7.3: HDF5 after a user block, column-major, cells as references into `#refs#`."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def put(group, name, value):
            data = group.create_dataset(name, data=np.ascontiguousarray(value.T))
            data.attrs["MATLAB_class"] = np.bytes_("single" if value.dtype == np.float32 else "double")
            return data

        for s in SIZES:
            parts = {
                s: [arrays[f"{s}_{m}"] for m in modalities],
                f"{s}_labels": [(arrays[f"{s}_labels"][:, None] + 1).astype(np.float64)] * len(modalities),
            }
            for name, values in parts.items():
                found = [put(refs, f"{name}{v}", value).ref for v, value in enumerate(values)]
                data = file.create_dataset(name, (len(found), 1), dtype=h5py.ref_dtype)
                data[:, 0] = found
                data.attrs["MATLAB_class"] = np.bytes_("cell")
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    with path.open("r+b") as raw:
        raw.write(header.ljust(116) + b"\0" * 8 + b"\0\x02IM")
    return path


def xmedia(path, arrays):
    found = {}
    for n, get in (("tr", lambda part: arrays[f"train_{part}"]), ("te", lambda part: _held_out(arrays, part))):
        found |= {f"I_{n}_CNN": get("image"), f"T_{n}_BOW": get("text")}
        found |= {f"{n}ImgCat": get("labels")[None] + 1, f"{n}TxtCat": get("labels")[None] + 1}
        found |= {
            f"A_{n}": get("image")[:7],
            f"{n}AudCat": get("labels")[:7] + 1,
        }  # unpaired modalities
    scipy.io.savemat(path, found)
    return path


def pascal(folder, arrays):
    folder.mkdir()
    for s, get in (("train", lambda part: arrays[f"train_{part}"]), ("test", lambda part: _held_out(arrays, part))):
        for name, value in (
            ("img", get("image")),
            ("txt", get("text")),
            ("img_lab", get("labels") + 1),
            ("txt_lab", get("labels") + 1),
        ):
            scipy.io.savemat(folder / f"{s}_{name}.mat", {f"{s}_{name}": value})
    return folder


def own_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def own_mat(path, arrays):
    scipy.io.savemat(path, arrays)
    return path


def own_hdf5(path, arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            file[key] = value
    return path


def own_folder(folder, arrays):
    folder.mkdir()
    for key, value in arrays.items():
        np.save(folder / f"{key}.npy", value)
    return folder


def own_parquet(path, arrays):
    import pyarrow as pa
    import pyarrow.parquet

    columns = {"split": [s for s, n in SIZES.items() for _ in range(n)]}
    for m in ("image", "text"):
        columns[m] = [row.tolist() for s in SIZES for row in arrays[f"{s}_{m}"]]
    columns["label"] = [int(k) for s in SIZES for k in arrays[f"{s}_labels"]]
    pa.parquet.write_table(pa.table(columns), path)
    return path


# layout -> (file or folder name, how it is written, the set whose protocol splits it or None)
LAYOUT_FILES = {
    "wikipedia, authors'": ("wiki_deep_doc2vec_data_corr_ae.h5py", deep_without_valid, "wikipedia"),
    "wikipedia, authors', text": (
        "wiki.h5py",
        lambda path, arrays: deep_without_valid(path, arrays, "text", base=1),
        "wikipedia",
    ),
    "wikipedia, follow-ups": ("wiki.mat", wiki_mat, "wikipedia"),
    "wikipedia, 2010": ("wikipedia_dataset", wikipedia_2010, "wikipedia"),
    "nus-wide": ("nus_wide_deep_doc2vec_data_42941.h5py", deep_with_valid, "nus-wide"),
    "nus-wide, texts": (
        "nus_wide_deep_doc2vec-corr-ae.h5py",
        lambda path, arrays: deep_with_valid(path, arrays, "texts"),
        None,
    ),
    "inria, short": ("INRIA-Websearch.mat", inria_short, "inria-websearch"),
    "inria, named": ("INRIA-Websearch-named.mat", named, None),
    "xmedianet": ("xmedianet_deep_doc2vec_data.h5py", deep_without_valid, "xmedianet"),
    "xmedianet, five views": ("XMediaNet5View_Doc2Vec.mat", cells_mat5, "xmedianet"),
    "xmedianet, five views, 7.3": ("XMediaNet5View_Doc2Vec-73.mat", cells_mat73, "xmedianet"),
    "xmedia": ("XMediaFeatures.mat", xmedia, "xmedia"),
    "pascal sentence": ("pascal", pascal, "pascal-sentence"),
    "own npz": ("own.npz", own_npz, None),
    "own mat": ("own.mat", own_mat, None),
    "own hdf5": ("own.h5", own_hdf5, None),
    "own folder": ("own", own_folder, None),
    "own parquet": ("own.parquet", own_parquet, None),
}


def write_layout(name: str, folder: Path, arrays):
    """Write a layout; returns the path and the name of its set."""
    file, write, set_name = LAYOUT_FILES[name]
    return write(folder / file, arrays), set_name
