"""CSV and Parquet files with a column per number or lists: the data of the same frame, with and without flags."""

import json

import numpy as np
import pandas as pd
import pytest
from tables import NAMES, arrays, narrow, parts, wide
from toy import toy_arrays

from mrl_jax import Config, Dataset, InputError, load_dataset
from mrl_jax.data.__main__ import main as data_main
from mrl_jax.data.dataset import SPLITS
from mrl_jax.data.formats import numbered
from mrl_jax.errors import DatasetWarning

WRITE = {
    "a.csv": lambda f, p: f.to_csv(p, index=False),
    "b.CSV": lambda f, p: f.to_csv(p),  # with an index
    "c.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "d.csv": lambda f, p: f.to_csv(p, index=False, sep=";", encoding="utf-8-sig", lineterminator="\r\n"),
    "e.parquet": lambda f, p: f.to_parquet(p),
}


@pytest.mark.parametrize("frame", [wide, narrow])
@pytest.mark.parametrize("name", WRITE)
def test_a_file_gives_the_data_of_its_frame(name, frame, tmp_path):
    written = frame(caption='says "hello, you";\nand more')
    if frame is narrow:
        written["image"] = [x.tolist() for x in written["image"]]  # as float64, which CSV cannot tell from float32
    WRITE[name](written, tmp_path / name)
    data = load_dataset(tmp_path / name)
    assert data.digest() == load_dataset(arrays()).digest()
    assert data.class_names == ("cat", "dog", "emu")


@pytest.mark.parametrize("name", ["a.csv", "e.parquet"])
def test_missing_samples_in_files(name, tmp_path):
    frame, marked = wide(), arrays()
    frame.loc[[2, 40], ["text_0", "text_1", "text_2"]] = np.nan
    for s, rows, gone in (("train", 36, 2), ("valid", 9, 4)):
        marked[f"{s}_text_mask"] = np.arange(rows) != gone
        marked[f"{s}_text"][gone] = 0
    WRITE[name](frame, tmp_path / name)
    assert load_dataset(tmp_path / name).digest() == load_dataset(marked).digest()
    frame.loc[50, "text_1"] = np.nan
    WRITE[name](frame, tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}.*column 'text_1', row 50 is (missing|null)"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize("name", ["a.csv", "e.parquet"])
def test_flags_name_the_columns(name, tmp_path, capsys):
    image, text, y, split = parts()
    frame = pd.DataFrame(image, columns=["a", "b", "c", "d"]).assign(kind=NAMES[y], fold=split)
    for j in range(3):
        frame[f"w{j}"] = text[:, j]
    frame["image_label"] = "not of a modality that columns name"
    WRITE[name](frame, path := tmp_path / name)
    keys = ["image=a,b,c,d", "text=w", "labels=kind", "split=fold"]
    assert load_dataset(path, keys=keys).digest() == load_dataset(arrays()).digest()
    (tmp_path / "keys.json").write_text(json.dumps({"image": [*"abcd"], "text": "w", "label": "kind", "split": "fold"}))
    for given in (keys, [str(tmp_path / "keys.json")]):
        assert data_main(["info", "mine", "--data-path", str(path), "--keys", *given, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["data"]["class_names"] == ["cat", "dog", "emu"]
    assert Config(keys=tuple(keys)).keys == tuple(keys)
    with pytest.raises(InputError, match=rf"{name}.* text: there is no column 'v'; columns: a, b"):
        load_dataset(path, keys=["image=a,b,c,d", "text=v", "labels=kind"])
    lenient = tmp_path / f"plain-{name}"
    WRITE[name](wide(), lenient)
    assert load_dataset(lenient, keys=keys, as_needed=True).modalities == ("image", "text")


def test_keys_of_parquet_may_still_be_those_of_its_arrays(tmp_path):
    narrow().rename(columns={"image": "img"}).to_parquet(tmp_path / "a.parquet")
    keys = {
        key: [f"{s}_{own}" for s in SPLITS] for key, own in {"image": "img", "text": "text", "labels": "labels"}.items()
    }
    assert load_dataset(tmp_path / "a.parquet", keys=keys).digest() == load_dataset(arrays()).digest()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_one_hot_columns_of_a_file(suffix, tmp_path):
    hot = pd.get_dummies(NAMES[parts()[2]])[["emu", "cat", "dog"]].astype(int)
    frame = pd.concat([wide(label=None), hot], axis=1)
    WRITE["a.csv" if suffix == "csv" else "e.parquet"](frame, path := tmp_path / f"a.{suffix}")
    data = load_dataset(path, keys=["image=image", "text=text", "labels=emu,cat,dog"])
    assert data.class_names == ("emu", "cat", "dog")
    assert data.splits["train"].labels["image"][:3].tolist() == [1, 2, 0]


def test_files_by_split(tmp_path):
    frame = wide()
    for s, name in zip(SPLITS, ("train.csv", "validation.csv", "test-00000.csv"), strict=True):
        frame[frame.split == s].drop(columns="split").to_csv(tmp_path / name, index=False)
    assert load_dataset(tmp_path).digest() == load_dataset(arrays()).digest()
    frame.to_csv(tmp_path / "all.csv", index=False)
    with pytest.raises(InputError, match=r"all\.csv' has no split in its name; name the files"):
        load_dataset(tmp_path)
    assert load_dataset(tmp_path / "all.csv").digest() == load_dataset(arrays()).digest()
    (tmp_path / "all.csv").unlink()
    np.savez(tmp_path / "mine.npz", **toy_arrays())  # then the tables are something else, such as captions
    assert load_dataset(tmp_path).modalities == ("sound", "touch")


HEAD = "image_0,image_1,text_0,text_1,label,split\n"
REFUSED = {
    "empty": ("", "is empty; write a header"),
    "more cells": (f"{HEAD}1,2,3,4,a,train\n1,2,3,4,a,train,9\n", "is no table .*Expected 6 columns, got 7"),
    "a header alone": (HEAD, "has no rows"),
    "a repeated name": ("a_0,a_0,label\n1,2,3\n", "has two columns 'a_0'"),
    "text among numbers": (
        f"{HEAD}1,2,3,4,a,train\n1,2,3,four,a,train\n",
        "column 'text_1', row 1 is 'four': the column",
    ),
    "one modality": ("image_0,image_1,label\n1,2,a\n", "only one modality is found, image; two or more"),
    "no list": ('image,text,label\n"[1, 2]","[1 2]",a\n"[1]","x",b\n', r"column 'text', row 0 is no list .*'\[1 2\]'"),
    "a bomb of columns": ('"\n"' + "," * 70_000 + "\n1\n", "has more than 65536 columns"),  # 5 kB of memory for each
    "a web page": ("<!DOCTYPE html><html></html>", "is a web page"),
    "bytes": (b"image_0,image_1,label,text_0,text_1\n1,2,\xff\xfe,3,4\n", "column 'label' is of type binary"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_tables_are_refused_in_one_line(case, tmp_path):
    text, message = REFUSED[case]
    (tmp_path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(
            tmp_path / "a.csv", split="60/15/25" if b"split" not in (tmp_path / "a.csv").read_bytes() else None
        )
    assert len(str(caught.value).splitlines()) == 1
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["frame", "a.csv", "e.parquet"])
def test_a_table_that_lacks_a_column_says_which(name, tmp_path):
    def refusal(frame, **how):
        if name != "frame":
            WRITE[name](frame, tmp_path / name)
        with pytest.raises(InputError) as caught:
            load_dataset(frame if name == "frame" else tmp_path / name, **how)
        return str(caught.value)

    message = refusal(wide(image_2=None))
    assert "text; two or more are needed; image_0 to image_3: image_2 is missing; number the columns" in message
    keys = message.partition("--keys ")[2].partition(" (")[0].split()
    assert load_dataset(wide(image_2=None), keys=keys).dims == {"text": 3, "image": 3}  # the remedy works
    assert "image_2 to image_4: the numbers begin at 2, not at 0 or 1" in refusal(
        wide(image_0=None, image_1=None, image_4=1.0)
    )
    assert "image_0 to image_3: image_2 is missing" in refusal(wide(image_2=None, text_0=None, text_1=None))
    genre = wide(label=None, genre=NAMES[parts()[2]], split=None)
    message = refusal(genre, split="60/15/25")
    assert "no column of labels; it is called label" in message
    assert "columns are image_0 to image_3, text_0 to text_2, genre: rename" in message
    assert '--keys labels=genre (label="genre" of Dataset.from_frame)' in message
    keyed = load_dataset(genre if name == "frame" else tmp_path / name, keys=["labels=genre"], split="60/15/25")
    assert keyed.digest() == Dataset.from_frame(genre, label="genre", split="60/15/25").digest()
    assert "title, genre, age: rename one, or name it with --keys labels=COLUMN" in refusal(
        wide(label=None, title="x", genre="y", age="old")
    )


@pytest.mark.filterwarnings("error")
def test_two_numbers_with_a_gap_are_no_modality():
    assert numbered.gaps(["age_1", "age_3", "a_0", "a_1", "a_9"]) == {}
    assert numbered.gaps([f"a.{j:02}" for j in range(12) if j not in (3, 7)]) == {
        "a": "a.00 to a.11: a.03, a.07 are missing"
    }
    with pytest.warns(DatasetWarning, match="a_0 to a_3: a_2 is missing; number the columns"):
        load_dataset(wide(a_0=1.0, a_1=1.0, a_3=1.0))


def test_columns_of_numbers_that_are_not_used_are_named(tmp_path):
    wide(age=1.5).to_csv(tmp_path / "a.csv")
    with pytest.warns(DatasetWarning, match=r"a\.csv': columns of numbers that are not used: age; modalities are im"):
        load_dataset(tmp_path / "a.csv")
