"""Noise: refused arguments, records, and labels and matrices from files, valid and refused."""

import hashlib
import json
import os
import pickle

import h5py
import jax
import numpy as np
import pytest
import scipy.io
import scipy.sparse

import mrl_jax.noise.files
from mrl_jax.errors import DatasetWarning, InputError
from mrl_jax.noise.files import noise_record, read_noise_file, read_transition_matrix
from mrl_jax.noise.inject import NOISE_KINDS, NOISE_SCOPES, NoiseSpec, inject_noise, transition_matrix

pytestmark = pytest.mark.slow

N, K, NAMES = 120, 6, ("image", "text")
MATRIX = (np.full((K, K), 0.1) + 0.4 * np.eye(K)).tolist()
RNG = np.random.default_rng(0)
CLEAN = RNG.integers(0, K, (2, N)).astype(np.int32)
GIVEN = np.where(RNG.random((2, N)) < 0.3, RNG.integers(0, K, (2, N)), CLEAN).astype(np.int32)


def read(path, clean=CLEAN, k=K, **more):
    return read_noise_file(path, clean, NAMES, k, **more)


def refused(path, match, clean=CLEAN, k=K):
    with pytest.raises(InputError, match=match) as error:
        read(path, clean, k)
    assert "\n" not in str(error.value)


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def write(path, **arrays):
    """Write the arrays in the format of the file's suffix."""
    if path.suffix == ".mat":
        scipy.io.savemat(path, arrays)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


def record_of(kind="symmetric", rate=0.5, scope="modality", mask=None):
    spec = NoiseSpec(rate, kind, scope, MATRIX if kind == "matrix" else None)
    features = [np.random.default_rng(1).normal(size=(N, 4)) for _ in NAMES]
    noisy = inject_noise(CLEAN, spec, jax.random.key(0), K, features=features, mask=mask)
    return spec, noisy, noise_record(spec, noisy, 3, NAMES, list("abcdef"), mask)


def test_the_record_counts_what_became_wrong():
    clean = np.array([[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 1, 1]])
    mask = np.ones((2, 6), bool)
    mask[1, 5] = False
    spec = NoiseSpec(1.0, "cyclic")
    noisy = inject_noise(clean, spec, jax.random.key(0), 3, mask=mask)
    record = noise_record(spec, noisy, 4, ("image", "text"), ("a", "b", "c"), mask)
    assert (record["rate"], record["kind"], record["scope"], record["seed"]) == (1.0, "cyclic", "modality", 4)
    assert record["selected"] == {"image": 6, "text": 5}
    assert record["wrong_share"] == {"image": 1.0, "text": 1.0}
    assert record["wrong_share_overall"] == 1.0
    assert record["wrong_share_by_class"]["text"] == {"a": 1.0, "b": 1.0, "c": None}
    assert record["labels"]["text"] == [1, 1, 2, 2, 2, 1]
    assert {"matrix", "partners", "mismatched_share"}.isdisjoint(record)
    spec = NoiseSpec(0.5, "pair-mismatch")
    record = noise_record(spec, inject_noise(clean, spec, jax.random.key(0), 3), 4, ("image", "text"), "abc")
    assert record["mismatched_share"] == {"image": 0.0, "text": 0.5}
    assert record["wrong_share_overall"] == 0.0


@pytest.mark.parametrize(
    ("matrix", "kind", "message"),
    [
        (None, "matrix", "needs a transition matrix"),
        (MATRIX, "symmetric", "takes no matrix"),
        ([[0.5, 0.5]], "matrix", r"shape \(1, 2\)"),
        ([[0.5, 0.5], [1.0]], "matrix", "no table of numbers"),
        ([["a"]], "matrix", "no table of numbers"),
        ([], "matrix", "shape"),
        ([[1.0, 0.0], [0.6, 0.5]], "matrix", r"row 1 .* sum 1\.1"),
        ([[1.5, -0.5], [0.5, 0.5]], "matrix", r"row 0 .* smallest entry -0\.5"),
        ([[np.nan, 1.0], [0.5, 0.5]], "matrix", "row 0"),
    ],
)
def test_a_matrix_that_is_no_transition_is_refused(matrix, kind, message):
    with pytest.raises(InputError, match=message):
        NoiseSpec(0.5, kind, matrix=matrix)


def test_inputs_that_do_not_fit_the_kind_are_refused():
    clean, key = CLEAN[:, :20], jax.random.key(0)
    features, spec = [np.eye(20), np.eye(20)], NoiseSpec(0.5, "nearest-class")

    def refused(match, spec=spec, clean=clean, **more):
        with pytest.raises(InputError, match=match):
            inject_noise(clean, spec, key, K, **more)

    refused("needs the features")
    refused("features of 1 modalities", features=features[:1])
    refused("features 1 are", features=[features[0], features[1][:5]])
    refused("features 0 are", features=[features[0] * np.nan, features[1]])
    refused(r"labels lie outside 0\.\.5", clean=clean + 1, features=features)
    refused("the mask is int64", mask=np.ones((2, 20), int), features=features)
    refused("for 2 classes, but K = 6", NoiseSpec(1, "matrix", matrix=np.eye(2)))
    refused(r"rate 0\.05 of N = 20 selects one sample", NoiseSpec(0.05, "pair-mismatch"))
    refused("two or more modalities", NoiseSpec(0.5, "pair-mismatch"), clean[:1])
    with pytest.raises(InputError, match="traced"):
        jax.jit(lambda clean: inject_noise(clean, spec, key, K, features=features))(clean)
    with pytest.raises(InputError, match="mask is traced"):
        jax.jit(lambda mask: inject_noise(clean, NoiseSpec(0.5), key, K, mask=mask))(clean > 0)


def test_transition_matrices_of_the_other_kinds():
    np.testing.assert_array_equal(transition_matrix(NoiseSpec(0.5, "pair-mismatch"), 3), np.eye(3))
    for kind, match in (
        ("instance-dependent", "no transition matrix"),
        ("asymmetric", "needs the key"),
        ("nearest-class", "needs the labels and features"),
    ):
        with pytest.raises(InputError, match=match):
            transition_matrix(NoiseSpec(0.5, kind), 3)
    for kind in ("symmetric", "symmetric-wrong", "cyclic"):
        np.testing.assert_array_equal(transition_matrix(NoiseSpec(0.5, kind), 1), [[1.0]])


@pytest.mark.parametrize("scope", NOISE_SCOPES)
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_a_record_comes_back_from_its_file_for_every_kind(tmp_path, kind, scope):
    spec, noisy, record = record_of(kind, scope=scope)
    actual, described = read(write_json(tmp_path / "noise.json", record))
    for name in ("labels", "clean", "wrong_share", "partners"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(noisy, name))
        assert getattr(actual, name).dtype == getattr(noisy, name).dtype
    moved = np.asarray(noisy.partners) != np.arange(N)
    np.testing.assert_array_equal(actual.selected, (np.asarray(noisy.labels) != CLEAN) | moved)
    nominal = described["nominal"]
    assert (nominal["rate"], nominal["kind"], nominal["scope"], nominal["seed"]) == (0.5, kind, scope, 3)
    assert (described["format"], described["source"]) == ("noise.json", "noise.json")
    assert NoiseSpec(**{k: v for k, v in nominal.items() if k != "seed"}) == spec
    json.dumps(described, allow_nan=False)


def test_a_record_with_missing_samples_comes_back_and_its_modalities_may_change_places(tmp_path):
    mask = np.ones((2, N), bool)
    mask[1, :30] = False
    _, noisy, record = record_of("symmetric", mask=mask)
    actual, _ = read(write_json(tmp_path / "noise.json", record), mask=mask)
    np.testing.assert_array_equal(actual.wrong_share, noisy.wrong_share)
    swapped, _ = read_noise_file(tmp_path / "noise.json", CLEAN[::-1], NAMES[::-1], K)
    np.testing.assert_array_equal(swapped.labels, noisy.labels[::-1])


def test_a_record_that_was_damaged_or_drawn_for_other_data_is_refused(tmp_path):
    path, record = tmp_path / "noise.json", record_of()[2]
    refused(write_json(path, record), "was drawn for other data", clean=(CLEAN + 1) % K)
    refused(path, "was drawn for other data", clean=CLEAN[:, :50])
    changed = json.loads(json.dumps(record))
    changed["labels"]["text"][5] += 1
    refused(write_json(path, changed), "labels_sha256 does not match")
    changed["labels"]["text"].pop()
    refused(write_json(path, changed), "cannot be read .*damaged")
    refused(write_json(path, {**record, "labels": {"sound": [1]}}), "for modalities sound, not image, text")
    refused(write_json(path, {k: v for k, v in record.items() if k != "labels"}), "not its labels .older version")
    record = record_of("pair-mismatch")[2]
    record["partners"]["text"][0] += 1
    refused(write_json(path, record), "labels_sha256 does not match")
    refused(write_json(path, {**record, "partners": [1]}), "damaged")
    refused(write_json(path, {**record, "labels": dict.fromkeys(NAMES, "x")}), "whole numbers|damaged")
    refused(write_json(path, {**record, "rate": float("nan")}), "damaged")
    record["labels_sha256"] = hashlib.sha256(
        np.array([list(record[key].values()) for key in ("labels", "partners")], "<i4").tobytes()
    ).hexdigest()
    refused(write_json(path, record), "no permutation")
    path.write_text(json.dumps(record)[:-50])
    refused(path, "damaged")


def test_json_files_of_other_programs_are_read(tmp_path):
    path = tmp_path / "noise_labels_0.2_sym.json"
    actual, described = read(write_json(path, GIVEN.tolist()))
    np.testing.assert_array_equal(actual.labels, GIVEN)
    np.testing.assert_array_equal(actual.selected, GIVEN != CLEAN)
    np.testing.assert_array_equal(actual.wrong_share, (GIVEN != CLEAN).mean(1).astype(np.float32))
    assert described["nominal"] == {"rate": 0.2, "kind": "symmetric"}
    assert (described["format"], described["numbering"], described["shared"]) == ("JSON", 0, False)
    assert described["agreement"] == pytest.approx(dict(zip(NAMES, (GIVEN == CLEAN).mean(1), strict=True)))
    assert "note" not in described
    assert len(described["sha256"]) == 64
    actual, described = read(write_json(tmp_path / "a.json", {"text": GIVEN[1].tolist(), "image": GIVEN[0].tolist()}))
    np.testing.assert_array_equal(actual.labels, GIVEN)
    assert described["nominal"] is None
    actual, described = read(write_json(tmp_path / "b.json", GIVEN[0].tolist()), clean=CLEAN[[0, 0]])
    np.testing.assert_array_equal(actual.labels, GIVEN[[0, 0]])
    assert described["shared"]


@pytest.mark.parametrize("key", ["noisy_label", "noisy_labels", "noise_label", "noise_labels"])
@pytest.mark.parametrize("suffix", [".mat", ".h5", ".npz"])
def test_arrays_of_other_programs_are_read_by_their_names(tmp_path, suffix, key):
    path = write(tmp_path / f"noise{suffix}", **{key: GIVEN + 1.0, "other": np.zeros(3)})  # MATLAB: doubles from 1
    actual, described = read(path)
    np.testing.assert_array_equal(actual.labels, GIVEN)
    assert described["numbering"] == 1


ONE_HOT = np.eye(K)[GIVEN[0]]


@pytest.mark.parametrize(
    ("array", "shared"),
    [
        (GIVEN, False),
        (GIVEN.T, False),
        (GIVEN[0], True),
        (GIVEN[:1], True),
        (GIVEN[:1].T, True),
        (ONE_HOT, True),
        (ONE_HOT.T, True),
        (ONE_HOT.astype(bool), True),
        (GIVEN[0].astype(np.uint8) + 1, True),
    ],
)
@pytest.mark.parametrize("suffix", [".mat", ".npy", ".hdf5"])
def test_every_layout_of_labels_is_read(tmp_path, suffix, array, shared):
    path = tmp_path / f"noise{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    else:
        write(path, noisy_label=array)
    actual, described = read(path, clean=CLEAN[[0, 0]] if shared else CLEAN)
    np.testing.assert_array_equal(actual.labels, GIVEN[[0, 0]] if shared else GIVEN)
    assert described["shared"] == shared
    assert actual.labels.dtype == actual.clean.dtype == np.int32


def test_matlab_7_3_files_sparse_one_hot_and_arrays_per_modality_are_read(tmp_path):
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as file:
        file["noisy_label"] = GIVEN.T + 1.0
    np.testing.assert_array_equal(read(tmp_path / "new.mat")[0].labels, GIVEN)
    path = write(tmp_path / "sparse.mat", noise_label=scipy.sparse.csc_matrix(ONE_HOT))
    np.testing.assert_array_equal(read(path, clean=CLEAN[[0, 0]])[0].labels, GIVEN[[0, 0]])
    path = write(tmp_path / "each.npz", image=GIVEN[0], text=GIVEN[1])
    np.testing.assert_array_equal(read(path)[0].labels, GIVEN)
    path = write(tmp_path / "one.npz", whatever=GIVEN)
    np.testing.assert_array_equal(read(path)[0].labels, GIVEN)


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("rate", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["symmetric", "symmetric-wrong", "cyclic"])
def test_the_numbering_is_found_at_every_rate(tmp_path, kind, rate, base):
    clean = np.random.default_rng(3).integers(0, 10, (2, 1500)).astype(np.int32)
    labels = np.asarray(inject_noise(clean, NoiseSpec(rate, kind), jax.random.key(0), 10).labels)
    actual, described = read(write_json(tmp_path / "a.json", (labels + base).tolist()), clean=clean, k=10)
    np.testing.assert_array_equal(actual.labels, labels)
    assert described["numbering"] == base
    assert ("note" in described) == (rate == 1.0 or (rate == 0.9 and kind != "symmetric"))


def test_labels_of_missing_samples_are_ignored(tmp_path):
    mask = np.ones((2, N), bool)
    mask[0, :40] = False
    path = write_json(tmp_path / "a.json", np.where(mask, GIVEN, -1).tolist())
    actual, described = read(path, mask=mask)
    np.testing.assert_array_equal(actual.labels, np.where(mask, GIVEN, CLEAN))
    assert described["agreement"]["image"] == pytest.approx((GIVEN == CLEAN)[0, 40:].mean())
    assert read(path, mask=np.zeros((2, N), bool))[1]["agreement"] == {"image": 1.0, "text": 1.0}


def test_labels_outside_the_classes_are_named(tmp_path):
    labels = GIVEN.copy()
    labels[1, 17] = -3
    refused(write_json(tmp_path / "a.json", labels.tolist()), "label -3 of text, instance 17 .*file of these data")
    labels[1, 17] = K + 1
    refused(write_json(tmp_path / "a.json", labels.tolist()), r"label 7 of text, instance 17 .*1 such.*0\.\.5")
    one_based = GIVEN + 1
    one_based[0, 4] = 0
    refused(write_json(tmp_path / "a.json", one_based.tolist()), "is no class")


def test_the_label_k_that_the_official_implementation_draws_is_drawn_again(tmp_path):
    rng = np.random.default_rng(5)
    clean = rng.integers(0, 10, (2, 2000)).astype(np.int32)
    chosen = rng.random(clean.shape) < 0.6
    given = np.where(chosen, rng.integers(0, 11, clean.shape), clean)  # from K + 1 values
    path = write_json(tmp_path / "noise_labels_0.6_sym.json", given.tolist())
    beyond = given == 10
    with pytest.warns(DatasetWarning, match=f"{beyond.sum()} labels are 10, but the classes are 0..9"):
        actual, described = read(path, clean=clean, k=10)
    labels = np.asarray(actual.labels)
    np.testing.assert_array_equal(labels[~beyond], given[~beyond])
    assert described["beyond_classes"] == beyond.sum()
    counts = np.bincount(labels[beyond], minlength=10)
    assert counts.size == 10
    assert (np.square(counts - counts.mean()) / counts.mean()).sum() < 27.88  # 99.9 % point for 9 degrees of freedom
    with pytest.warns(DatasetWarning):
        np.testing.assert_array_equal(read(path, clean=clean, k=10)[0].labels, labels)
    with pytest.warns(DatasetWarning, match=r"labels are 11, but the classes are 1\.\.10"):  # MATLAB: doubles from 1
        actual, described = read(write(tmp_path / "a.mat", noisy_label=given + 1.0), clean=clean, k=10)
    assert (described["numbering"], described["beyond_classes"]) == (1, beyond.sum())
    np.testing.assert_array_equal(np.asarray(actual.labels)[~beyond], given[~beyond])
    write_json(tmp_path / "b.json", given[0].tolist())  # a label for both modalities stays one
    with pytest.warns(DatasetWarning):
        actual, described = read(tmp_path / "b.json", clean=clean[[0, 0]], k=10)
    np.testing.assert_array_equal(actual.labels[0], actual.labels[1])
    once = GIVEN.copy()
    once[0, 3] = once[1, 5] = K
    mask = np.ones((2, N), bool)
    mask[1, 5] = False
    with pytest.warns(DatasetWarning, match="1 labels are 6"):  # a missing sample's label does not count
        actual, described = read(write_json(tmp_path / "c.json", once.tolist()), mask=mask)
    assert described["beyond_classes"] == 1
    assert actual.labels[1, 5] == CLEAN[1, 5]
    once[0, 7] = K + 1
    refused(write_json(tmp_path / "d.json", once.tolist()), "is no class .3 such labels")
    given[chosen] = 10  # far more than that program draws
    refused(write_json(tmp_path / "a.json", given.tolist()), "label 10 of image", clean=clean, k=10)


def test_rows_in_another_order_are_refused_if_the_name_has_the_rate_and_noted_otherwise(tmp_path):
    labels = np.random.default_rng(1).permuted(CLEAN, axis=1)
    refused(write_json(tmp_path / "noise_labels_0.6_sym.json", labels.tolist()), "only by chance .*at least 40%")
    assert "another row order" in read(write_json(tmp_path / "noise_labels_1.0_sym.json", labels.tolist()))[1]["note"]
    assert "another row order" in read(write_json(tmp_path / "a.json", labels.tolist()))[1]["note"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (GIVEN[:, :-1].tolist(), r"shape \[2, 119\].*those of the training split"),
        ([GIVEN[0].tolist()] * 3, r"shape \[3, 120\]"),
        ([[1, 2], [3]], "differ in length"),
        ((GIVEN + 0.5).tolist(), r"label .* at \[0, 0\] is no integer"),
        ([float("nan")] * N, "NaN is no number"),
        ([1e300] * N, "no integer"),
        (["1"] * N, "label '1' is no class; the data do not name their classes"),
        ([""] * N, "label '' is no class; the data do not name their classes"),
        ([10**30] * N, "must be integers"),
        ([[10**400] * N, [0.5] * N], "a number beyond 1.8e308"),
        (["x" * 500_000, *[1] * (N - 1)], "labels hold a str; they must be integers, or all of them names of classes"),
        ([[[1]] * N] * 2, "labels hold a list"),
        (None, "must be integers"),
        ({"image": [1] * N}, "holds image; it must hold one array .*or one for each of image, text"),
        ({"a": 1, "b": 2}, "holds no labels; it must hold"),
        ({"noisy_label": [1] * N, "noise_label": [1] * N}, "holds noisy_label and noise_label"),
    ],
)
def test_json_that_is_no_table_of_labels_is_refused(tmp_path, content, match):
    refused(write_json(tmp_path / "a.json", content), match)


def test_shapes_with_two_meanings_are_refused(tmp_path):
    square = np.array([[0, 1], [0, 1]])
    refused(write_json(tmp_path / "a.json", square.tolist()), r"ambiguous \(\[M, N\] or \[N, M\]", clean=square, k=3)
    pairs = np.eye(2, dtype=int)[CLEAN[0] % 2]  # [N, M] of labels 0 and 1, or one-hot [N, K]
    refused(write_json(tmp_path / "a.json", pairs.tolist()), "ambiguous", clean=CLEAN % 2, k=2)


@pytest.mark.parametrize("suffix", [".json", ".mat", ".h5", ".npy", ".npz", ".csv"])
def test_damaged_and_missing_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"noise{suffix}"
    refused(path, "it does not exist")
    path.mkdir()
    refused(path, "it is no file")
    path.rmdir()
    os.mkfifo(path)
    refused(path, "it is no file")
    path.unlink()
    for content in (b"", b"\xff\x00" * 400, pickle.dumps([1, 2])):
        path.write_bytes(content)
        refused(path, "cannot be read|holds no labels|of no known format|is empty|the shape")


def lines(*columns, mark=",", header=None):
    rows = [header] if header else []
    return "\n".join(mark.join(map(str, row)) for row in [*rows, *zip(*columns, strict=True)]) + "\n"


CLASS_NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")
WORDS = np.array(CLASS_NAMES)
TABLES = {
    "a column": (lambda: lines(GIVEN[0]), True),
    "a named column": (lambda: lines(GIVEN[0], header=["noisy_label"]), True),
    "ids and a label": (lambda: lines(range(N), GIVEN[0], header=["id", "label"]), True),
    "a column per modality": (lambda: lines(GIVEN[1], GIVEN[0], header=["text", "image"]), False),
    "pandas": (lambda: lines(range(N), *GIVEN, header=["", *NAMES]), False),
    "pandas without names": (lambda: lines(range(N), *GIVEN, header=["", 0, 1]), False),
    "a Series of pandas": (lambda: lines(range(N), GIVEN[0], header=["", 0]), True),
    "names in a Series of pandas": (lambda: lines(range(N), WORDS[GIVEN[0]], header=["", 0]), True),
    "a Series without a header": (lambda: lines(range(N), GIVEN[0]), True),
    "names in a Series without a header": (lambda: lines(range(N), WORDS[GIVEN[0]]), True),
    "a DataFrame without a header": (lambda: lines(range(N), *GIVEN), False),
    "names in a Series with a name": (lambda: lines(range(N), WORDS[GIVEN[0]], header=["", "y"]), True),
    "no header": (lambda: lines(*GIVEN), False),
    "semicolons": (lambda: lines(*GIVEN, mark=";"), False),
    "tabs": (lambda: lines(*GIVEN, mark="\t"), False),
    "blanks": (lambda: lines(*GIVEN, mark=" "), False),
    "floats": (lambda: lines(GIVEN[0].astype(float)), True),
    "any header": (lambda: lines(GIVEN[0], header=["y"]), True),
    "one-hot": (lambda: lines(*np.eye(K, dtype=int)[GIVEN[0]].T), True),
    "names": (lambda: lines(WORDS[GIVEN[0]]), True),
    "names with a header": (lambda: lines(WORDS[GIVEN[0]], header=["noisy_label"]), True),
    "names per modality": (lambda: lines(*WORDS[GIVEN], header=NAMES), False),
    "names in quotes": (lambda: lines([f'"{word}"' for word in WORDS[GIVEN[0]]]), True),
    "a comment": (lambda: "# made by hand\n" + lines(*GIVEN), False),
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_tables_in_text_are_read(tmp_path, table, suffix):
    content, shared = TABLES[table]
    path = tmp_path / f"noise{suffix}"
    path.write_text(content())
    noisy, described = read(path, class_names=CLASS_NAMES)
    np.testing.assert_array_equal(noisy.labels, GIVEN[:1].repeat(2, 0) if shared else GIVEN)
    assert (described["format"], described["shared"]) == ("CSV", shared)


def test_tables_that_hold_no_labels_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(lines(range(N), GIVEN[0], header=["row", "guess"]))
    refused(path, "none of its columns row, guess holds labels; name one noisy_label, or one for each of image, text")
    path.write_text("1,2\n3\n")
    refused(path, "row 1 has 1 columns, row 0 has 2")
    path.write_text(lines(["gnu"] * N))
    refused(path, "label 'gnu' is no class")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_text_in_another_encoding_names_utf_8(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    content = json.dumps(GIVEN[0].tolist()) if suffix == ".json" else lines(GIVEN[0])
    path.write_text(content, encoding="utf-16")
    refused(path, "cannot be read .it is text in UTF-16.; save it as UTF-8")
    path.write_bytes(content.encode() + "é".encode("latin-1"))
    refused(path, f"cannot be read .it is not text in UTF-8, see byte {len(content)}.; save it as UTF-8")


def test_labels_may_be_names_of_classes(tmp_path):
    named = WORDS[GIVEN]
    for content in (named.tolist(), dict(zip(NAMES, named.tolist(), strict=True)), {"noisy_label": named.tolist()}):
        noisy, described = read(write_json(tmp_path / "a.json", content), class_names=CLASS_NAMES)
        np.testing.assert_array_equal(noisy.labels, GIVEN)
        assert described["numbering"] == 0
    path = write(tmp_path / "a.npz", noisy_labels=named)
    np.testing.assert_array_equal(read(path, class_names=CLASS_NAMES)[0].labels, GIVEN)
    with pytest.raises(InputError, match="label 'gnu' is no class; the classes are ant, bee, cat, dog, eel, fox: give"):
        read(write_json(tmp_path / "b.json", ["gnu"] * N), class_names=CLASS_NAMES)
    with pytest.raises(InputError, match="differ in length"):
        read(write_json(tmp_path / "c.json", [["ant"], ["ant", "bee"]]), class_names=CLASS_NAMES)


@pytest.mark.parametrize("base", [0, 1])
def test_a_permutation_of_the_instances_is_no_noise_file(tmp_path, base):
    order = np.random.default_rng(0).permutation(N) + base
    np.save(tmp_path / "noise_index.npy", order)
    refused(tmp_path / "noise_index.npy", "permutation of the 120 training instances .* order the rows of one modality")
    refused(write_json(tmp_path / "a.json", [order.tolist()] * 2), "permutation of the 120 training instances")


def test_an_address_is_no_noise_file():
    refused("https://example.org/noise.json", "'https://example.org/noise.json' is an address")


def test_truncated_files_are_refused(tmp_path):
    for suffix in (".mat", ".h5", ".npz"):
        path = write(tmp_path / f"noise{suffix}", noisy_label=GIVEN)
        path.write_bytes(path.read_bytes()[:-300])
        refused(path, "damaged")


def test_an_npy_with_more_than_its_header_says_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", GIVEN)
    head = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "b.npy").write_bytes(head.replace(b"(2, 120)", b"(1, 120)"))
    refused(tmp_path / "b.npy", r"header claims \(1, 120\) of int32, which does not match its 1088 bytes")
    (tmp_path / "c.npy").write_bytes(head.replace(b"(2, 120)", b"(9, 120)"))
    refused(tmp_path / "c.npy", "damaged")


def test_a_record_with_many_classes_and_a_matrix_is_not_too_large(tmp_path):
    k = 300
    rows = np.random.default_rng(0).dirichlet(np.ones(k), k)
    clean = CLEAN.copy()
    spec = NoiseSpec(0.5, "matrix", matrix=rows)
    noisy = inject_noise(clean, spec, jax.random.key(0), k)
    record = noise_record(spec, noisy, 0, NAMES, [f"class {c}: " + "a long name " * 10 for c in range(k)])
    path = write_json(tmp_path / "noise.json", record)
    assert path.stat().st_size > 1_800_000
    np.testing.assert_array_equal(read(path, k=k)[0].labels, noisy.labels)
    np.testing.assert_array_equal(read_transition_matrix(path, k), rows)


def test_pickles_groups_text_and_unknown_suffixes_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(tmp_path / "a.npy", "pickled objects")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(GIVEN))
    refused(tmp_path / "a.pkl", "pickles are not read")
    (tmp_path / "a.doc").write_text("1")
    refused(tmp_path / "a.doc", r"give one of \.json")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("noisy_label")
    refused(tmp_path / "a.h5", "holds no labels")
    refused(write(tmp_path / "b.mat", noisy_label="text"), "label 'text' is no class")
    refused(write(tmp_path / "c.mat", other=GIVEN, more=GIVEN), "holds no labels")


def test_files_and_arrays_over_the_limit_are_refused_unread(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mat", noisy_label=np.zeros((500, 500)))
    monkeypatch.setattr(mrl_jax.noise.files, "_LIMIT", 1_000_000)
    refused(path, "is larger than 0 MiB")
    monkeypatch.undo()
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("noisy_label", (10**9, 500), "f8", chunks=(1000, 10))  # takes no room in the file
    refused(tmp_path / "b.h5", "b.h5")
    (tmp_path / "c.json").write_text(json.dumps([[0] * 500_000] * 2))
    refused(tmp_path / "c.json", "is larger than 1 MiB; labels take far less")


def test_links_to_other_files_are_not_followed(tmp_path):
    write(tmp_path / "a.h5", noisy_label=GIVEN)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["noisy_label"] = h5py.ExternalLink("a.h5", "/noisy_label")
    refused(tmp_path / "b.h5", "links are not followed")


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "t.csv", "t.txt", "t.json", "noise.json"])
def test_transition_matrices_are_read_from_every_format(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, MATRIX)
    elif path.suffix == ".npz":
        np.savez(path, anything=MATRIX)
    elif path.suffix == ".json":
        write_json(path, record_of("matrix")[2] if path.stem == "noise" else MATRIX)
    else:
        np.savetxt(path, MATRIX, delimiter="," if path.suffix == ".csv" else " ", header="a comment")
    matrix = read_transition_matrix(path, K)
    np.testing.assert_allclose(matrix, MATRIX, rtol=1e-15)
    assert NoiseSpec(0.5, "matrix", matrix=matrix).matrix == matrix


def test_a_transition_matrix_may_have_the_names_of_the_classes(tmp_path):
    rows = [",".join(map(str, row)) for row in MATRIX]
    (tmp_path / "a.csv").write_text("\n".join([",".join(CLASS_NAMES), *rows]))
    index = [f"{name},{row}" for name, row in zip(CLASS_NAMES, rows, strict=True)]
    (tmp_path / "b.csv").write_text("\n".join([",".join(["", *CLASS_NAMES]), *index]))
    for name in ("a.csv", "b.csv"):
        np.testing.assert_allclose(read_transition_matrix(tmp_path / name, K), MATRIX, rtol=1e-15)


def test_transition_matrices_that_do_not_fit_are_refused(tmp_path):
    def refused(name, match, k=K):
        with pytest.raises(InputError, match=match):
            read_transition_matrix(tmp_path / name, k)

    np.save(tmp_path / "a.npy", MATRIX)
    refused("a.npy", "6 x 6, but the data have K = 5", 5)
    np.savez(tmp_path / "a.npz", a=MATRIX, b=MATRIX)
    refused("a.npz", "must hold one array, or an array named matrix")
    np.savez(tmp_path / "b.npz", matrix=MATRIX, b=MATRIX)
    assert np.shape(read_transition_matrix(tmp_path / "b.npz", K)) == (K, K)
    np.save(tmp_path / "b.npy", np.eye(K) + 0j)
    refused("b.npy", "no table of numbers")
    np.save(tmp_path / "c.npy", np.full((K, K), 1e308))
    refused("c.npy", "row 0 of the transition matrix has sum inf")
    np.save(tmp_path / "d.npy", 1.0)
    refused("d.npy", "is no table, but the data have K = 6")
    write_json(tmp_path / "huge.json", [[10**400] * K] * K)
    refused("huge.json", "a number beyond 1.8e308")
    (tmp_path / "a.csv").write_text("0.5,0.5\n0.5,x\n")
    refused("a.csv", "cannot be read .could not convert")
    (tmp_path / "a.txt").write_text("0.5 0.5\n0.5 0.4\n")
    refused("a.txt", r"a\.txt.*row 1 .*sum to 1", 2)
    (tmp_path / "b.txt").write_text("")
    refused("b.txt", "0 x 0, but the data have K = 6")
    refused("a.mat", "give a .npy")
    refused("gone.json", "does not exist")
    write_json(tmp_path / "a.json", {"rows": 1, "columns": 2})
    refused("a.json", "must hold one array")
    write_json(tmp_path / "a.json", 3)
    refused("a.json", "is no table")
