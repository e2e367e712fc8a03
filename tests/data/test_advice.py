"""What users give in the wrong place: it works, or one line says what was given, the rule, and a remedy that works."""

import bz2
import gzip
import lzma
import struct
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from layout_files import inria_short, own_npz, small_set
from toy import toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.featurize.raw_table import Row, digest_inputs, read_table
from mrl_jax.data.formats import open_arrays
from mrl_jax.errors import DatasetWarning
from mrl_jax.noise.files import read_noise_file

pytestmark = pytest.mark.slow


def parquet_split(path, arrays, split):
    columns = {m: arrays[f"{split}_{m}"].tolist() for m in ("image", "text")}
    pq.write_table(pa.table({**columns, "label": arrays[f"{split}_labels"].tolist()}), path)


@pytest.mark.parametrize("words", [("train", "validation", "test"), ("train", "val", "test"), ("train", "dev", "test")])
def test_a_cloned_data_set_of_the_hub_is_read(tmp_path, words):
    arrays = small_set()
    (tmp_path / "set/data").mkdir(parents=True)
    (tmp_path / "set/README.md").write_text("# A set")
    for split, word in zip(("train", "valid", "test"), words, strict=True):
        parquet_split(tmp_path / f"set/data/{word}-00000-of-00001-0a1b2c.parquet", arrays, split)
    data = load_dataset(tmp_path / "set")
    np.testing.assert_array_equal(data.splits["valid"].features["image"], arrays["valid_image"])
    np.testing.assert_array_equal(data.splits["test"].labels["text"], arrays["test_labels"])


@pytest.mark.parametrize("form", ["default/{}/0000", "default/{}/train-0000", "split={}/part-0", "{}/a"])
def test_a_folder_per_split_is_read(tmp_path, form):
    arrays = small_set()
    for split, word in zip(("train", "valid", "test"), ("train", "validation", "test"), strict=True):
        path = tmp_path / "set" / f"{form.format(word)}.parquet"
        path.parent.mkdir(parents=True)
        parquet_split(path, arrays, split)
    expected = load_dataset(arrays)
    assert load_dataset(tmp_path / "set").digest() == expected.digest()
    assert load_dataset(path.parents[1]).digest() == expected.digest()
    (path.parent / "b.mat").write_bytes(b"x")
    with pytest.raises(InputError, match=r"data files found: .*/b\.mat.*; give the path of one"):
        load_dataset(tmp_path / "set")
    (path.parent / "b.mat").unlink()
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"is a pointer of Git LFS"):
        load_dataset(tmp_path / "set")


def test_a_cloned_data_set_without_validation_gives_a_share_of_train(tmp_path):
    arrays = small_set()
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        parquet_split(tmp_path / f"data/{split}-00000-of-00001.parquet", arrays, split)
    data = load_dataset(tmp_path, valid_share=0.1)
    assert {s: len(x) for s, x in data.splits.items()} == {"train": 36, "valid": 4, "test": 20}


def test_several_configurations_of_a_cloned_data_set_are_listed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        parquet_split(tmp_path / name / "train.parquet", small_set(), "train")
    with pytest.raises(InputError, match=r"data files found: a/train\.parquet, b/train\.parquet; give the path of one"):
        load_dataset(tmp_path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(InputError, match="is a pointer of Git LFS, not the data; run git lfs pull"):
        load_dataset(tmp_path / "a.parquet")


@pytest.mark.parametrize("end", ["parquet", "npy"])
def test_a_clone_without_git_lfs_is_named(tmp_path, end):
    (tmp_path / "set/data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        path = tmp_path / f"set/data/{split}-00000-of-00001.{end}"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    for folder in (tmp_path / "set/data", *([tmp_path / "set"] if end == "parquet" else [])):
        with pytest.raises(
            InputError, match=rf"test-0.*\.{end}' is a pointer of Git LFS, not the data; run git lfs pull"
        ):
            load_dataset(folder)


FOREIGN = {
    "gzip": (gzip.compress(b"x" * 99), r"is an archive \(gzip\); unpack it"),
    "bzip2": (bz2.compress(b"x"), r"is an archive \(bzip2\); unpack it"),
    "xz": (lzma.compress(b"x"), r"is an archive \(xz\); unpack it"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + bytes(99), r"is an archive \(RAR\); unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), r"is an archive \(7z\); unpack it"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(999), r"is an archive \(tar\); unpack it"),
    "html": (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning", "is a web page, not the data"),
    "html after a mark": (b"\xef\xbb\xbf\n <html lang=en>" + bytes(99), "is a web page, not the data"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS, not the data"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_archives_and_web_pages_are_named(tmp_path, case):
    content, message = FOREIGN[case]
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path / "a.mat")
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_noise_file(tmp_path / "a.json", np.zeros((2, 4), int), ("image", "text"), 2)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "a.mat", 0)
    with pytest.raises(InputError, match=message):
        digest_inputs([Row("1", "a", "b", "train", "", tmp_path / "a.mat")])


def test_an_archive_in_a_folder_is_named(tmp_path):
    (tmp_path / "wiki.tar.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(InputError, match=r"holds no data file, but 'wiki\.tar\.gz', which is an archive; unpack it"):
        load_dataset(tmp_path)


def test_a_zip_of_a_data_file_names_it(tmp_path):
    own_npz(tmp_path / "own.npz", small_set())
    with zipfile.ZipFile(tmp_path / "wiki.zip", "w") as archive:
        archive.writestr("wiki/readme.txt", "x")
        archive.write(tmp_path / "own.npz", "wiki/wiki.mat")
    with pytest.raises(InputError, match=r"is a zip archive that holds wiki/wiki\.mat; unpack it and give the path"):
        load_dataset(tmp_path / "wiki.zip")


@pytest.mark.parametrize(
    "address",
    ["https://example.org/a.npz", "http://example.org/a.npz", "s3://bucket/a.npz", "hf://datasets/a", "ftp://a/b.mat"],
)
def test_an_address_is_no_path(address, tmp_path):
    with pytest.raises(InputError) as caught:
        load_dataset(address)
    assert f"data '{address}' is an address" in str(caught.value)
    assert "download it first, and give its path" in str(caught.value)
    with pytest.raises(InputError, match="is an address"):
        load_dataset(tmp_path / address)  # as a configuration holds it
    with pytest.raises(InputError, match="is an address"), open_arrays(address):
        pass


def opaque_mat5(path, name, cls):
    """A MATLAB 5 file of an object, as MATLAB writes a string array."""

    def part(code, data):
        return struct.pack("<II", code, len(data)) + data + bytes(-len(data) % 8)

    body = part(6, struct.pack("<II", 17, 0)) + part(1, name) + part(1, b"MCOS") + part(1, cls) + part(6, bytes(8))
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path.write_bytes(head + struct.pack("<II", 14, len(body)) + body)


@pytest.mark.parametrize("cls", ["string", "categorical"])
@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_string_array_of_matlab_names_cellstr(tmp_path, cls, version):
    path = tmp_path / "a.mat"
    if version == "5":
        opaque_mat5(path, b"train_labels", cls.encode())
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["train_labels"] = np.zeros((1, 6), np.uint32)
            file["train_labels"].attrs["MATLAB_class"] = np.bytes_(cls)
        with path.open("r+b") as raw:
            raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with open_arrays(path) as arrays, pytest.raises(InputError) as caught:
        arrays["train_labels"]
    assert f"is a {cls} array of MATLAB, which only MATLAB can read; save cellstr(train_labels)" in str(caught.value)


def test_a_cell_array_of_names_is_labels(tmp_path):
    arrays, names = small_set(), np.array(["ant", "bee", "cat", "dog"])
    for s in ("train", "valid", "test"):
        cells = np.empty((len(arrays[f"{s}_labels"]), 1), object)
        cells[:, 0] = names[arrays[f"{s}_labels"]]
        arrays[f"{s}_labels"] = cells
    scipy.io.savemat(tmp_path / "a.mat", arrays)
    assert load_dataset(tmp_path / "a.mat").class_names == tuple(names)


def test_a_path_that_is_a_plain_file_still_loads(tmp_path):
    assert load_dataset(inria_short(tmp_path / "a.mat", small_set())).num_classes == 4


def test_a_file_of_matlab_4_is_named(tmp_path):
    for key, value in (("train_image", np.eye(3)), ("Y", np.arange(4.0)[:, None])):
        scipy.io.savemat(tmp_path / "a.mat", {key: value}, format="4")
        with pytest.raises(InputError, match="is of MATLAB 4, which is not read; save it again with -v7"):
            load_dataset(tmp_path / "a.mat")
    (tmp_path / "a.mat").write_bytes(bytes(100))
    with pytest.raises(InputError, match="is of no known format"):
        load_dataset(tmp_path / "a.mat")


def test_classes_without_validation_samples_name_what_gives_other_splits():
    arrays = {k: v for k, v in toy_arrays().items() if not k.startswith("valid")}
    arrays |= {"valid_sound": arrays["test_sound"][:2], "valid_touch": arrays["test_touch"][:2]}
    arrays["valid_labels"] = np.array([0, 1])
    with pytest.warns(DatasetWarning, match=r"leave the valid arrays out and give --valid-share 0\.1"):
        load_dataset(arrays)
    rows = (
        np.flatnonzero(arrays["train_labels"] != 2)[:30].tolist()
        + np.flatnonzero(arrays["train_labels"] == 2)[:2].tolist()
    )
    few = {k: v[rows] if k.startswith("train") else v for k, v in arrays.items() if not k.startswith("valid")}
    few |= {"train_ids": np.where(few["train_labels"] == 2, 99, np.arange(32))}
    with pytest.warns(DatasetWarning, match="give another --split-seed, or a larger --valid-share"):
        load_dataset(few, valid_share=0.1)
    whole = {k.removeprefix("train_"): v for k, v in few.items() if k.startswith("train")}
    whole.pop("ids")
    with pytest.warns(DatasetWarning, match="cut with another --split-seed, or give validation and test larger"):
        load_dataset(whole, split="60/15/25")
