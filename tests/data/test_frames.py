"""Tables of other libraries: the same rows give the same data set, whatever holds them; bad ones are refused."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tables import NAMES, N, arrays, narrow, parts, wide
from toy import toy_arrays, toy_config

from mrl_jax import Dataset, InputError, evaluate, load_dataset, train
from mrl_jax.config import with_settings
from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import DatasetWarning


def as_polars(frame):
    import polars

    return polars.from_pandas(frame)


def as_lazy(frame):
    return as_polars(frame).lazy()


def as_hub(frame):
    import datasets

    return datasets.Dataset.from_pandas(frame)


HOLDERS = {"pandas": lambda f: f, "Arrow": pa.Table.from_pandas, "polars": as_polars, "lazy": as_lazy, "hub": as_hub}


@pytest.mark.parametrize("frame", [wide, narrow])
@pytest.mark.parametrize("holder", HOLDERS)
def test_every_holder_of_the_rows_gives_the_data_of_the_arrays(holder, frame):
    data = load_dataset(HOLDERS[holder](frame()))
    assert data.digest() == load_dataset(arrays()).digest()
    assert (data.class_names, data.dims) == (("cat", "dog", "emu"), {"image": 4, "text": 3})
    assert data.name == "frame"


def test_a_hub_set_has_the_names_of_its_classes_and_its_splits():
    import datasets

    image, text, y, split = parts()
    features = datasets.Features(
        {
            "image": datasets.List(datasets.Value("float32"), length=4),
            "text": datasets.List(datasets.Value("float64")),
            "label": datasets.ClassLabel(names=["zebra", "yak", "ant"]),
        }
    )
    parts_of = {
        word: datasets.Dataset.from_dict(
            {"image": image[split == s].tolist(), "text": text[split == s].tolist(), "label": y[split == s].tolist()},
            features=features,
        )
        for s, word in zip(SPLITS, ("train", "validation", "test"), strict=True)
    }
    data = load_dataset(datasets.DatasetDict(parts_of))
    assert data.class_names == ("zebra", "yak", "ant")
    assert data.digest() == load_dataset(arrays(y)).digest()
    chosen = parts_of["train"].select(range(35, -1, -1))  # rows by a list of indices, not as they are stored
    advice = r"no validation rows, and 15 test rows; take them from the training split with valid_share"
    with pytest.raises(InputError, match=advice):
        load_dataset(datasets.DatasetDict({s: parts_of[s] for s in ("train", "test")}))
    flipped = load_dataset({**parts_of, "train": chosen})
    np.testing.assert_array_equal(flipped.splits["train"].features["image"], image[35::-1])
    with pytest.raises(InputError, match="frame is a stream"):
        load_dataset(parts_of["train"].to_iterable_dataset())


def test_rows_are_cut_as_arrays_are():
    image, text, y, _ = parts()
    ids = np.repeat(np.arange(N // 2), 2)
    data = Dataset.from_frame(wide(split=None, pair=ids), ids="pair", split="60/15/25", split_seed=3, name="mine")
    whole = {"image": image, "text": text, "labels": NAMES[y], "ids": ids}
    assert data.digest() == load_dataset(whole, split="60/15/25", split_seed=3).digest()
    assert data.name == "mine"
    places = [{*split.ids} for split in data.splits.values()]
    assert sum(map(len, places)) == len(set.union(*places)) == N // 2
    halves = wide(split=np.where(np.arange(N) < 45, "train", "test"))
    assert {s: len(x) for s, x in Dataset.from_frame(halves, valid_share=0.2).splits.items()} == {
        "train": 36, "valid": 9, "test": 15,
    }  # fmt: skip


def test_columns_are_named_in_every_form():
    image, text, y, split = parts()
    frame = pd.DataFrame(image, columns=["a", "b", "c", "d"]).assign(words=text.tolist(), kind=NAMES[y], fold=split)
    frame["bow2"], frame["bow10"], frame["bow1"] = text[:, 1], text[:, 2], text[:, 0]
    expected = load_dataset(arrays()).digest()
    named = {"image": ["a", "b", "c", "d"], "text": "words"}
    assert Dataset.from_frame(frame, named, label="kind", split="fold").digest() == expected
    by_prefix = {"image": frame.columns[:4], "text": "bow"}  # in the order of the numbers
    assert Dataset.from_frame(frame, by_prefix, "kind", "fold").digest() == expected
    keys = ["image=a,b,c,d", "text=bow*", "labels=kind", "split=fold"]
    assert load_dataset(frame, keys=keys).digest() == expected
    other = Dataset.from_frame(wide(label=None, kind=NAMES[y]), label="kind")  # features by their names
    assert other.digest() == expected
    levels = wide()
    levels.columns = pd.MultiIndex.from_tuples(
        [(name.split("_")[0], int(name[-1])) if "_" in name else (name, "") for name in levels.columns]
    )
    assert load_dataset(levels).digest() == expected
    numbers = pd.DataFrame(np.hstack([image, text])).assign(label=NAMES[y], split=split)  # columns 0, 1, …
    assert Dataset.from_frame(numbers, {"image": range(4), "text": range(4, 7)}).digest() == expected


def test_labels_in_every_form():
    _, _, y, _ = parts()
    names, numbers = load_dataset(arrays()), load_dataset(arrays(y))
    for form, expected in (
        (pd.Categorical(NAMES[y], ["emu", "dog", "cat", "fox"]), names),
        (pd.array(NAMES[y], "string"), names),
        (pd.array(y + 1, "Int64"), numbers),
        (y.astype(float), numbers),
        (pd.Categorical(y), numbers),
    ):
        data = load_dataset(wide(label=form))
        assert (data.digest(), data.class_names) == (expected.digest(), expected.class_names)
    hot = pd.get_dummies(NAMES[y])[["emu", "cat", "dog"]]
    data = Dataset.from_frame(pd.concat([wide(label=None), hot], axis=1), label=["emu", "cat", "dog"])
    assert data.class_names == ("emu", "cat", "dog")
    assert [data.class_names[k] for k in data.splits["train"].labels["image"][:3]] == ["cat", "dog", "emu"]
    own = wide(label=None, image_label=NAMES[y], text_label=NAMES[np.roll(y, 1)])
    data = load_dataset(own)
    assert data.splits["train"].labels["image"][:3].tolist() == [0, 1, 2]
    assert data.splits["train"].labels["text"][:3].tolist() == [2, 0, 1]
    own.columns = [*own.columns[:-3], "split", "i", "t"]
    assert Dataset.from_frame(own, label={"image": "i", "text": "t"}).digest() == data.digest()


@pytest.mark.parametrize("frame", [wide, narrow])
def test_rows_without_values_are_missing_samples(frame):
    frame, marked = frame(), arrays()
    frame["text_label"], frame["image_label"] = frame["label"], frame["label"]
    for row in (2, 40, 59):
        if "text" in frame:
            frame.at[row, "text"] = None
        else:
            frame.loc[row, ["text_0", "text_1", "text_2"]] = np.nan
        frame.loc[row, "text_label"] = None
    for s, rows, gone in (("train", 36, 2), ("valid", 9, 4), ("test", 15, 14)):
        marked[f"{s}_text_mask"] = np.arange(rows) != gone
        marked[f"{s}_text"][gone] = 0
    data = load_dataset(frame.drop(columns="label"))
    assert data.digest() == load_dataset(marked).digest()
    assert not data.splits["train"].present("text")[2]


def test_an_index_that_names_the_rows_gives_their_ids():
    frame = wide().set_index(pd.Index([f"row {i}" for i in range(N)]))
    assert load_dataset(frame).splits["valid"].ids[0] == "row 36"
    assert load_dataset(wide()).splits["train"].ids is None
    shuffled = wide(split=None).sample(frac=1.0, random_state=0)
    data = Dataset.from_frame(shuffled, split="60/15/25")
    first = data.splits["test"].ids[0]
    np.testing.assert_array_equal(
        data.splits["test"].features["image"][0], parts()[0][int(first)]
    )  # ids lead back to the rows of the frame that was shuffled


def test_a_bunch_of_scikit_learn():
    from sklearn.datasets import load_digits
    from sklearn.utils import Bunch

    digits = load_digits()
    top = [f"pixel_{r}_{c}" for r in range(4) for c in range(8)]
    data = Dataset.from_frame(digits, {"top": top, "bottom": "pixel_7"}, split="60/15/25")
    assert data.dims == {"top": 32, "bottom": 8}
    assert data.class_names == tuple("0123456789")
    for bunch in (digits, load_digits(as_frame=True)):
        with pytest.raises(InputError, match=r"a Bunch with one table of features \(pixel_0_0, .*\(64 in all\)\); say"):
            Dataset.from_frame(bunch, split="60/15/25")
    image, text, y, _ = parts()
    bunch = Bunch(image=image, text=text, target=y)
    whole = {"image": image, "text": text, "labels": y}
    assert load_dataset(bunch, split="60/15/25").digest() == load_dataset(whole, split="60/15/25").digest()


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_a_file_is_a_table_of_its_name(tmp_path, name):
    write = {"mine.csv": lambda f, p: f.to_csv(p, index=False), "mine.parquet": lambda f, p: f.to_parquet(p)}[name]
    _, _, y, _ = parts()
    write(wide(label=None, kind=NAMES[y]), tmp_path / name)
    features = {"image": [f"image_{j}" for j in range(4)], "text": np.array(["text_0", "text_1", "text_2"])}
    for path in (tmp_path / name, str(tmp_path / name)):
        data = Dataset.from_frame(path, features, label="kind")
        assert (data.name, data.digest()) == ("mine", load_dataset(arrays()).digest())
    assert Dataset.from_frame(path, features, label="kind", name="other").name == "other"


def test_a_split_shows_its_sizes_and_no_array():
    split = load_dataset(arrays()).splits["train"]
    assert repr(split) == "Split(rows 36, features image [4] + text [3], classes 3)"
    assert "36" in split._repr_html_()
    assert "array" not in repr(load_dataset(arrays()).splits)
    gaps = arrays() | {"train_text_mask": np.arange(36) > 1, "test_text": arrays()["test_text"][:12]}
    gaps |= {"test_image_labels": gaps["test_labels"], "test_text_labels": gaps.pop("test_labels")[:12]}
    data = load_dataset(gaps)
    assert repr(data.splits["train"]).endswith("classes 3, missing text 2)")
    assert repr(data.splits["test"]).startswith("Split(rows image 15 + text 12, ")


@pytest.mark.bench
def test_tensor_datasets():
    import torch
    from torch.utils.data import Subset, TensorDataset

    image, text, y, split = parts()
    tensors = TensorDataset(torch.tensor(image), torch.tensor(text), torch.tensor(y))
    expected = load_dataset(arrays(y))
    sets = {
        s: Subset(Subset(tensors, range(N - 1, -1, -1)), (N - 1 - np.flatnonzero(split == s)).tolist()) for s in SPLITS
    }
    data = load_dataset(sets)
    assert data.modalities == ("view1", "view2")
    assert load_dataset(sets, ("view2", "view1")).modalities == ("view2", "view1")
    assert load_dataset(sets, ("image", "text")).digest() == expected.digest()
    assert Dataset.from_frame(sets, {"image": 0, "text": 1}, label=2).digest() == expected.digest()
    whole = {"image": image, "text": text, "labels": y}
    cut = Dataset.from_frame(tensors, {"image": 0, "text": 1}, split="60/15/25")
    assert cut.digest() == load_dataset(whole, split="60/15/25").digest()
    with pytest.raises(InputError, match=r"tensor 0 has the shape \[60, 2, 2\]; features are rows of numbers: flatten"):
        load_dataset(TensorDataset(torch.zeros(60, 2, 2), torch.tensor(y)))


def annotated(rows=slice(None), name="X"):
    import anndata  # a second or two

    image, text, y, split = parts()
    obs = pd.DataFrame({"kind": NAMES[y], "fold": split}, index=[f"cell {i}" for i in range(N)]).iloc[rows]
    var = pd.DataFrame(index=[f"{name}{j}" for j in range(image.shape[1])])
    return anndata.AnnData(image[rows], obs=obs, var=var, obsm={"words": text[rows]})


def test_annotated_data():
    from scipy.sparse import csr_matrix

    data = annotated()
    expected = load_dataset(arrays()).digest()
    found = Dataset.from_frame(data, {"image": "X", "text": "words"}, label="kind", split="fold")
    assert found.digest() == expected
    assert found.splits["valid"].ids[0] == "cell 36"
    data.X = csr_matrix(data.X)
    assert Dataset.from_frame(data, {"image": "X", "text": "words"}, label="kind", split="fold").digest() == expected
    assert Dataset.from_frame(data, label="kind", split="fold").modalities == ("X", "words")


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # within mudata
def test_data_of_several_modalities():
    import mudata

    some = np.delete(np.arange(N), [2, 40, 59])[::-1]
    with mudata.set_options(pull_on_update=False):  # the default of its next version
        mixed = mudata.MuData({"image": annotated(), "text": annotated(some, "Y")})
    mixed.obs["kind"], mixed.obs["fold"] = (annotated().obs[c].reindex(mixed.obs_names) for c in ("kind", "fold"))
    found = Dataset.from_frame(mixed, {"image": "image", "text": "text:words"}, label="kind", split="fold")
    marked = arrays()
    for s, rows, gone in (("train", 36, 2), ("valid", 9, 4), ("test", 15, 14)):
        marked[f"{s}_text_mask"] = np.arange(rows) != gone
        marked[f"{s}_text"][gone] = 0
    assert found.digest() == load_dataset(marked).digest()
    assert Dataset.from_frame(mixed, label="kind", split="fold").dims == {"image": 4, "text": 4}


def with_value(column, row, value, frame=wide):
    frame = frame()
    frame[column] = frame[column].astype(object)
    frame.at[row, column] = value
    return frame


REFUSED = {
    "one value of a row": (lambda: with_value("text_1", 7, None), "column 'text_1', row 7 is missing"),
    "an infinite value": (lambda: with_value("text_1", 7, np.inf), "column 'text_1', row 7 is infinite"),
    "text among numbers": (
        lambda: with_value("text_1", 7, "many"),
        r"column 'text_1' holds values of several kinds: row 0 is .* row 7 is 'many' \(text\)",
    ),
    "ragged lists": (
        lambda: with_value("text", 7, [1.0, 2.0], narrow),
        "column 'text', row 7 has 2 numbers, but row 0 has 3",
    ),
    "a hole in a list": (
        lambda: with_value("text", 7, [1.0, None, 2.0], narrow),
        "column 'text', row 7, number 1 is missing",
    ),
    "an empty list": (lambda: with_value("text", 0, [], narrow), "column 'text', row 0 is an empty list"),
    "a matrix in a cell": (
        lambda: with_value("text", 7, np.ones((2, 2)), narrow),
        "column 'text' holds values of several kinds.* row 7 is .*2 dimensions",
    ),
    "no label": (lambda: with_value("label", 7, None), r"column 'label', row 7 is missing \(1 such row\)"),
    "NaN labels": (
        lambda: wide(label=np.where(np.arange(N) > 57, np.nan, np.arange(N) % 3)),
        r"column 'label', row 58 is missing \(2 such rows\)",
    ),
    "mixed labels": (lambda: with_value("label", 7, 3), "column 'label' holds values of several kinds.* row 7 is 3"),
    "dates as labels": (lambda: wide(label=pd.date_range("2020", periods=N)), "column 'label' is of type timestamp"),
    "an unknown split": (lambda: with_value("split", 7, "dev2"), "column 'split', row 7 is 'dev2'; use train, valid"),
    "numbered splits": (lambda: wide(split=np.arange(N)), "column 'split' is of type int64; it must be text"),
    "no split": (lambda: wide(split=None), "frame has no splits"),
    "nothing in a modality": (lambda: wide(**{f"text_{j}": np.nan for j in range(3)}), "text is missing in every row"),
    "one modality": (
        lambda: wide(text_0=None, text_1=None, text_2=None),
        "only one modality is found, image; two or more",
    ),
    "no modality": (lambda: wide()[["label", "split"]], "has no column of lists of numbers, and no numbered columns"),
    "a repeated name": (lambda: pd.concat([wide(), wide()[["text_1"]]], axis=1), "two columns are named 'text_1'"),
    "a repeated index": (
        lambda: pd.concat([wide()[:36], wide()[:24]]),
        "the index holds '0' twice, in rows 0 and 36; .*reset_index",
    ),
    "labels of no modality": (lambda: wide(sound_label=0), "column 'sound_label' belongs to no modality"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_frames_are_refused_in_one_line(case):
    build, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(build())
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"features": {"image": "image", "text": ["text_0", "words"]}},
            "text: there is no column 'words'; columns: im",
        ),
        ({"features": {"image": "image", "text": ["label"]}}, "column 'label', row 0 is 'cat': the column holds text"),
        ({"features": {"image": "image", "text": ["text_0", "text_0"]}}, "column 'text_0' is named twice"),
        ({"label": "kind"}, "labels: there is no column 'kind'"),
        ({"label": {"sound": "label"}}, "sound_labels: there is no modality 'sound'"),
        ({"label": ["text_0", "label"]}, "several columns are those of one-hot labels"),
        ({"split": "fold"}, "split: there is no column 'fold'"),
        ({"split": "60/15/25"}, "frame has the splits train, valid, test; split 60/15/25 cuts data without"),
        ({"ids": ["text_0", "text_1"]}, "ids: 2 columns are named; name one"),
    ],
)
def test_wrong_names_of_columns_are_refused(how, message):
    with pytest.raises(InputError, match=message):
        Dataset.from_frame(wide(), **how)


def test_columns_of_numbers_that_are_not_used_are_named():
    with pytest.warns(DatasetWarning, match="not used: age; modalities are image, text"):
        load_dataset(wide(age=1.0, caption="words"))
    with pytest.warns(DatasetWarning, match="not used: text_0, text_1; modalities are image, text"):
        data = load_dataset(narrow(text_0=1.0, text_1=2.0))  # the column of lists of this name has the features
    assert data.digest() == load_dataset(arrays()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Dataset.from_frame(wide(age=1.0), {"image": "image", "text": "text"})


def test_tables_by_split():
    frame = wide()
    tables = {s: frame[frame.split == s].drop(columns="split").reset_index(drop=True) for s in SPLITS}
    assert load_dataset(tables).digest() == load_dataset(arrays()).digest()
    with pytest.raises(InputError, match=r"frame\['valid'\]: column 'label', row 2 is missing"):
        load_dataset({**tables, "valid": tables["valid"].assign(label=["cat", "dog", None] * 3)})
    with pytest.raises(
        InputError, match=r"frame\['test'\] has the modalities image, words, but others have image, text"
    ):
        load_dataset({**tables, "test": tables["test"].rename(columns=lambda name: name.replace("text", "words"))})
    with pytest.raises(InputError, match="is a split and has a column 'split'"):
        load_dataset({**tables, "test": frame[frame.split == "test"].reset_index(drop=True)})


def test_a_dict_of_frames_that_are_features_is_no_table():
    plain = toy_arrays()
    assert (
        load_dataset({k: pd.DataFrame(x) if x.ndim == 2 else x for k, x in plain.items()}).digest()
        == load_dataset(plain).digest()
    )


@pytest.mark.slow
def test_a_run_on_a_frame_is_trained_evaluated_and_resumed(tmp_path):
    frame = wide(split=None)
    config = toy_config(split="60/15/25", epochs=1)
    first = train(config, tmp_path / "run", data=frame)
    again = train(toy_config(epochs=1), data=Dataset.from_frame(frame, split="60/15/25"))
    assert again.scores["test"]["best"]["map"] == first.scores["test"]["best"]["map"]
    other_order = frame[frame.columns[::-1]]  # features are found by the names of their columns
    found = evaluate(tmp_path / "run", data=other_order)
    assert found["map"] == pytest.approx(first.scores["test"]["best"]["map"])
    train(with_settings(config, epochs=2), tmp_path / "run", data=frame, resume=True)
    with pytest.raises(InputError, match="the run began with other data"):
        train(with_settings(config, epochs=3), tmp_path / "run", data=frame.assign(text_0=0.0), resume=True)
