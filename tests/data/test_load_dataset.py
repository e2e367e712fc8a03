"""Data in the own layout: valid data load, invalid data are refused."""

import numpy as np
import pytest
from toy import CLASSES, DIMS, SIZES, save_npz, toy_arrays

from mrl_jax import InputError, load_dataset
from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess, kinds_for


def test_npz_and_mapping_give_the_same_data(tmp_path):
    arrays = toy_arrays()
    from_file, from_mapping = load_dataset(save_npz(tmp_path / "a.npz", arrays)), load_dataset(arrays)
    assert from_file.digest() == from_mapping.digest()
    assert from_file.name == "a"
    assert from_file.modalities == ("sound", "touch")
    assert from_file.dims == {m: DIMS[m] for m in ("sound", "touch")}
    assert {s: len(x) for s, x in from_file.splits.items()} == SIZES
    assert from_file.class_names == ("0", "1", "2")
    for split in SIZES:
        for m in from_file.modalities:
            np.testing.assert_array_equal(from_file.splits[split].features[m], arrays[f"{split}_{m}"])
            np.testing.assert_array_equal(from_file.splits[split].labels[m], arrays[f"{split}_labels"])
            assert from_file.splits[split].features[m].dtype == np.float32
            assert from_file.splits[split].labels[m].dtype == np.int32


def test_digest_depends_on_every_feature_and_label():
    base = load_dataset(toy_arrays()).digest()
    for key in ("train_sound", "test_touch", "valid_labels"):
        arrays = toy_arrays()
        arrays[key].flat[0] += 1
        assert load_dataset(arrays).digest() != base


def test_modalities_are_chosen_in_the_given_order():
    arrays = toy_arrays(("sound", "touch", "smell"))
    assert load_dataset(arrays).modalities == ("sound", "touch", "smell")
    data = load_dataset(arrays, ("smell", "sound"))
    assert data.modalities == ("smell", "sound")
    again = load_dataset(load_dataset(arrays), ("smell", "sound"))
    assert again.digest() == data.digest()
    with pytest.raises(InputError, match="taste"):
        load_dataset(data, ("taste", "sound"))


def test_a_modality_may_have_labels_of_its_own():
    arrays = toy_arrays()
    own = (arrays["train_labels"] + 1) % CLASSES
    data = load_dataset({**arrays, "train_touch_labels": own})
    np.testing.assert_array_equal(data.splits["train"].labels["touch"], own)
    np.testing.assert_array_equal(data.splits["train"].labels["sound"], arrays["train_labels"])
    np.testing.assert_array_equal(data.splits["test"].labels["touch"], arrays["test_labels"])


def test_class_names_set_the_number_of_classes():
    data = load_dataset({**toy_arrays(), "class_names": np.array(["cat", "dog", "fox"])})
    assert data.class_names == ("cat", "dog", "fox")
    assert data.num_classes == 3
    with pytest.raises(InputError, match="class_names has 2 names"):
        load_dataset({**toy_arrays(), "class_names": ["cat", "dog"]})


def test_integer_and_double_features_become_float32():
    arrays = toy_arrays()
    arrays["train_sound"] = arrays["train_sound"].astype(np.float64)
    arrays["test_touch"] = np.ones_like(arrays["test_touch"], dtype=np.uint8)
    data = load_dataset(arrays)
    assert data.splits["train"].features["sound"].dtype == np.float32
    assert data.splits["test"].features["touch"].dtype == np.float32


def _with(key, change):
    arrays = toy_arrays()
    arrays[key] = change(arrays[key])
    return arrays


def _set(value):
    def change(x):
        x = x.astype(np.float64) if isinstance(value, float) else x.copy()
        x.flat[3] = value
        return x

    return change


BAD_ARRAYS = {
    "rows differ": (_with("train_sound", lambda x: x[:-1]), "train_sound has 59"),
    "labels too short": (_with("valid_labels", lambda y: y[:-1]), "valid_labels has 23"),
    "columns differ": (_with("test_touch", lambda x: x[:, :-1]), "test_touch has 3"),
    "NaN": (_with("train_touch", _set(np.nan)), "row 0, column 3"),
    "inf": (_with("test_sound", _set(np.inf)), "test_sound holds values NaN, inf"),
    "beyond float32": (_with("test_sound", _set(1e300)), "beyond float32"),
    "text features": (_with("train_touch", lambda x: x.astype(str)), "must be numbers"),
    "object features": (_with("train_touch", lambda x: x.astype(str).astype(object)), "must be numbers"),
    "complex features": (_with("train_touch", lambda x: x.astype(complex)), "must be numbers"),
    "one column vector": (_with("train_touch", lambda x: x[:, 0]), "must be numbers"),
    "empty split": ({k: v[:0] if "valid" in k else v for k, v in toy_arrays().items()}, "valid_sound is empty"),
    "fractional labels": (_with("train_labels", lambda y: y + 0.5), "not whole numbers"),
    "labels that are NaN": (_with("train_labels", lambda y: y * np.nan), "not whole numbers"),
    "boolean labels": (_with("train_labels", lambda y: y > 0), "must be integers"),
    "several labels": (_with("train_labels", lambda y: np.fmin(np.eye(3)[y] + [0, 0, 1], 1)), "row 0 is not one-hot"),
    "complex labels": (_with("train_labels", lambda y: y.astype(complex)), "must be integers"),
    "labels in a cube": (_with("train_labels", lambda y: y.reshape(5, 4, 3)), "must be integers"),
    "negative label": (_with("train_labels", _set(-1)), "holds the label -1"),
    "huge label": (_with("test_labels", _set(2**40)), "labels must be 0..K-1"),
    "stray label": (_with("test_labels", _set(123_456)), "far from 0..2"),
    "labels from two": ({k: v + 2 if "labels" in k else v for k, v in toy_arrays().items()}, "run from 2 to 4"),
    "mask of another length": (toy_arrays() | {"train_touch_mask": np.arange(9) > 1}, "mask has 9"),
    "all-true mask of another length": (toy_arrays() | {"train_touch_mask": np.ones(7, bool)}, "mask has 7"),
    "labels of no modality": (toy_arrays() | {"train_toch_labels": np.zeros(60, int)}, "toch_labels belongs to no mod"),
    "labels of no modality in test": (toy_arrays() | {"test_toch_labels": np.zeros(27, int)}, "belongs to no modality"),
    "ids of no modality": (toy_arrays() | {"train_token_ids": np.ones((60, 2))}, "token_ids belongs to no modality"),
    "a modality named mask": (toy_arrays() | {"train_mask": np.ones((60, 2))}, "train_mask belongs to no modality"),
    "a modality named soft_labels": (
        toy_arrays() | {f"{s}_soft_labels": np.ones((n, 2)) for s, n in SIZES.items()},
        "train_soft_labels belongs to no modality; .* its last word must not be labels or mask or ids",
    ),
    "transposed": (_with("train_touch", lambda x: x.T), "it is transposed, with an instance per column"),
    "transposed, one-hot labels": (
        _with("test_touch", lambda x: x.T) | {"test_labels": np.eye(3)[toy_arrays()["test_labels"]]},
        r"test_touch is float32 \[4, 27\] for 27 labels: it is transposed",
    ),
    "masked features": (
        _with("train_touch", lambda x: np.ma.masked_greater(x, 1.0)),
        "train_touch is a masked array with .* masked values",
    ),
    "masked labels": (_with("test_labels", lambda y: np.ma.masked_equal(y, 1)), "test_labels is a masked array"),
    "a masked mask": (
        toy_arrays() | {"train_touch_mask": np.ma.masked_equal(np.arange(60) % 3, 1)},
        "train_touch_mask is a masked array",
    ),
    "masked ids": (toy_arrays() | {"test_ids": np.ma.masked_equal(np.arange(27), 1)}, "test_ids is a masked array"),
    "masked class names": (
        toy_arrays() | {"class_names": np.ma.masked_equal(["a", "b", "c"], "b")},
        "class_names is a masked array",
    ),
    "mask of no modality": (toy_arrays() | {"train_tuch_mask": np.arange(60) > 1}, "tuch_mask belongs to no modality"),
    "class name twice": (toy_arrays() | {"class_names": ["a", "b", "a"]}, "class_names holds 'a' twice"),
    "mask of numbers": (toy_arrays() | {"test_touch_mask": np.arange(27)}, "a mask has one value per row"),
    "mask without a sample": (toy_arrays() | {"test_touch_mask": np.zeros(27, bool)}, "false everywhere"),
    "instance without a sample": (
        toy_arrays() | {f"train_{m}_mask": np.arange(60) != 7 for m in ("sound", "touch")},
        "instance 7 is missing in every modality",
    ),
    "ids of another length": (toy_arrays() | {"test_ids": np.array(["a", "b"])}, "test_ids has 2 rows"),
    "ids that are no names": (toy_arrays() | {"test_ids": np.ones(27)}, "ids are text or integers"),
    "class absent from training": (_with("test_labels", _set(3)), "class 3 .* no training sample"),
    "gap in training": (_with("train_labels", lambda y: np.where(y == 1, 0, y)), "class 1 .* no training sample"),
    "one class": ({k: v * 0 if "labels" in k else v for k, v in toy_arrays().items()}, "at least two classes"),
    "missing features": ({k: v for k, v in toy_arrays().items() if k != "test_touch"}, "'test_touch' is missing"),
    "missing labels": ({k: v for k, v in toy_arrays().items() if k != "test_labels"}, "'test_labels' is missing"),
    "one modality": ({k: v for k, v in toy_arrays().items() if "touch" not in k}, "two or more modalities"),
    "two modalities, one named mask": (
        {k.replace("touch", "mask"): v for k, v in toy_arrays().items()},
        "train_mask belongs to no modality; .* its last word must not be labels or mask or ids",
    ),
    "empty mapping": ({}, "keys found: none"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_refused_in_one_line(case):
    arrays, message = BAD_ARRAYS[case]
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(arrays)
    assert "\n" not in str(caught.value)


def test_a_dataset_is_checked_like_arrays():
    data = load_dataset(toy_arrays())
    assert load_dataset(data).digest() == data.digest()
    data.splits["train"].features["sound"][0, 0] = np.nan
    with pytest.raises(InputError, match="must be finite"):
        load_dataset(data)
    data = load_dataset(toy_arrays())
    data.splits["train"].labels["touch"][:] = 7
    with pytest.raises(InputError, match="label 7, but class_names has 3 names"):
        load_dataset(data)
    with pytest.raises(InputError, match="name each once"):
        load_dataset(toy_arrays(), ("sound", "sound"))


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="is neither a file nor a data set"):
        load_dataset("no-such-set")
    with pytest.raises(InputError, match="does not exist"):
        load_dataset(tmp_path / "absent.npz")
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(InputError, match="data files found: none"):
        load_dataset(tmp_path / "dir.npz")
    (tmp_path / "data.dat").write_text("1,2")
    with pytest.raises(InputError, match=r"data\.dat.*\.npz"):
        load_dataset(tmp_path / "data.dat")


def test_pickled_objects_are_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    np.savez(tmp_path / "bomb.npz", **{**toy_arrays(), "train_sound": np.array([Bomb()], dtype=object)})
    with pytest.raises(InputError, match="pickled objects"):
        load_dataset(tmp_path / "bomb.npz")


def test_standardize_centres_columns_and_scales_by_one_deviation():
    x = np.random.default_rng(0).normal([1.0, -5.0, 100.0], [1.0, 2.0, 3.0], size=(5000, 3)).astype(np.float32)
    stats = fit_preprocess({"a": "standardize"}, {"a": x})["a"]
    out = apply_preprocess("standardize", stats, x)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)  # float32 sum of 5,000 terms of size 1
    np.testing.assert_allclose(np.square(out.astype(np.float64)).mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(out.std(axis=0) / out.std(axis=0)[0], [1, 2, 3], rtol=0.05)
    expected = (x - x.mean(axis=0, dtype=np.float64)) / (x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)).std()
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_standardize_of_constant_features_gives_zeros():
    x = np.full((4, 2), 7, np.float32)
    stats = fit_preprocess({"a": "standardize"}, {"a": x})["a"]
    np.testing.assert_array_equal(apply_preprocess("standardize", stats, x), np.zeros((4, 2)))


def test_l2_and_none():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]], np.float32)
    stats = fit_preprocess({"a": "l2"}, {"a": x})["a"]
    np.testing.assert_allclose(apply_preprocess("l2", stats, x), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    np.testing.assert_array_equal(apply_preprocess("none", stats, x), x)


def test_kinds_are_given_once_or_for_each():
    assert kinds_for(("a", "b"), ("l2",)) == {"a": "l2", "b": "l2"}
    assert kinds_for(("a", "b"), ("l2", "none")) == {"a": "l2", "b": "none"}
    with pytest.raises(InputError, match="3 values for 2 modalities"):
        kinds_for(("a", "b"), ("l2", "none", "l2"))


def test_missing_samples_are_marked_and_their_features_do_not_matter():
    arrays = toy_arrays()
    mask = np.arange(60) % 5 != 0
    gaps = {**arrays, "train_touch_mask": mask, "train_touch": np.where(mask[:, None], arrays["train_touch"], np.nan)}
    data = load_dataset(gaps)
    np.testing.assert_array_equal(data.splits["train"].masks["touch"], mask)
    assert "sound" not in data.splits["train"].masks
    assert np.isfinite(data.splits["train"].features["touch"]).all()
    x, y = data.splits["train"].samples("touch")
    np.testing.assert_array_equal(x, arrays["train_touch"][mask])
    np.testing.assert_array_equal(y, arrays["train_labels"][mask])
    other = {**gaps, "train_touch": np.where(mask[:, None], arrays["train_touch"], 7.0)}
    assert load_dataset(other).digest() == data.digest() != load_dataset(arrays).digest()
    assert load_dataset(load_dataset(gaps)).digest() == data.digest()
    whole = {**arrays, "train_touch_mask": np.ones((60, 1))}  # as MATLAB stores it
    assert load_dataset(whole).digest() == load_dataset(arrays).digest()


def test_galleries_may_have_unpaired_rows_with_labels_of_their_own():
    arrays = toy_arrays()
    more = {k: v for k, v in arrays.items() if k != "test_labels"}
    more |= {"test_sound_labels": arrays["test_labels"], "test_touch": np.repeat(arrays["test_touch"], 2, axis=0)}
    more["test_touch_labels"] = np.repeat(arrays["test_labels"], 2)
    data = load_dataset(more)
    assert [len(data.splits["test"].labels[m]) for m in data.modalities] == [27, 54]
    assert len(data.splits["test"]) == 54
    with pytest.raises(InputError, match="give each modality labels of its own for unpaired galleries"):
        load_dataset({**arrays, "test_touch": more["test_touch"]})
    train = {**arrays, "train_touch": np.repeat(arrays["train_touch"], 2, axis=0)}
    train |= {"train_touch_labels": np.repeat(arrays["train_labels"], 2)}
    with pytest.raises(InputError, match="mark missing samples in train_MODALITY_mask"):
        load_dataset(train)


def test_ids_come_along():
    data = load_dataset(
        {**toy_arrays(), "test_ids": np.arange(27), "train_ids": np.array([f"t{i}" for i in range(60)])}
    )
    assert data.splits["train"].ids[59] == "t59"
    assert data.splits["test"].ids[26] == "26"
    assert data.splits["valid"].ids is None
    assert load_dataset(data).splits["train"].ids[3] == "t3"


def test_standardize_leaves_missing_samples_out():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mask = np.arange(50) < 20
    gaps = np.where(mask[:, None], x, 0)
    there = fit_preprocess({"a": "standardize"}, {"a": x[mask]})["a"]
    found = fit_preprocess({"a": "standardize"}, {"a": gaps}, {"a": mask})["a"]
    np.testing.assert_array_equal(found["mean"], there["mean"])
    np.testing.assert_array_equal(found["scale"], there["scale"])
