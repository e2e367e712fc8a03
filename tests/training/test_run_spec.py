"""What a run works on: noise of every kind reaches the training, masks and unpaired galleries the scores."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import scipy.io
from toy import CLASSES, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, evaluate, load_dataset, load_run, train
from mrl_jax.config import auto_temperature
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow
CLEAN = toy_arrays()["train_labels"]


def prepared(config, arrays):
    return prepare_run(config, prepare_data(config, arrays))


def labels_of(**changes):
    spec = prepared(toy_config(**changes), toy_arrays())
    return np.asarray(spec.labels), spec


@pytest.mark.parametrize(
    "kind", ["symmetric", "symmetric-wrong", "asymmetric", "cyclic", "nearest-class", "instance-dependent"]
)
def test_every_kind_reaches_the_training_labels_and_the_record(kind):
    labels, spec = labels_of(noise_rate=0.5, noise_kind=kind)
    assert spec.noise["selected"] == {"sound": 30, "touch": 30}
    for i, m in enumerate(("sound", "touch")):
        np.testing.assert_array_equal(spec.noise["labels"][m], labels[i])
        assert spec.noise["wrong_share"][m] == pytest.approx((labels[i] != CLEAN).mean())
    if kind in ("symmetric-wrong", "cyclic", "nearest-class", "instance-dependent"):
        assert spec.noise["wrong_share_overall"] == pytest.approx(0.5)


def test_swapped_pairs_move_features_with_their_labels():
    arrays = toy_arrays()
    config = toy_config(noise_rate=0.5, noise_kind="pair-mismatch", preprocess=("none",))
    spec = prepared(config, arrays)
    partners = np.array([spec.noise["partners"][m] for m in ("sound", "touch")])
    assert (partners != np.arange(60)).sum(axis=1).tolist() == [0, 30]
    for i, m in enumerate(("sound", "touch")):
        np.testing.assert_array_equal(spec.data.features[i], arrays[f"train_{m}"])
        np.testing.assert_array_equal(spec.partners[i], partners[i])
        np.testing.assert_array_equal(spec.labels[i], CLEAN[partners[i]])
    assert spec.noise["mismatched_share"] == {"sound": 0.0, "touch": 0.5}
    assert spec.noise["wrong_share_overall"] == 0.0


def test_a_matrix_comes_from_a_file(tmp_path):
    np.savetxt(tmp_path / "t.csv", np.roll(np.eye(CLASSES), 1, axis=1), delimiter=",")
    labels, spec = labels_of(noise_rate=1.0, noise_kind="matrix", noise_matrix=str(tmp_path / "t.csv"))
    np.testing.assert_array_equal(labels, [(CLEAN + 1) % CLASSES] * 2)
    assert spec.noise["matrix"][0] == [0.0, 1.0, 0.0]


def test_a_protocol_stands_for_kind_and_scope():
    config = toy_config(noise_rate=0.5, noise_protocol="wrong-only")
    assert (config.noise_kind, config.noise_scope) == ("symmetric-wrong", "instance")
    labels, _ = labels_of(noise_rate=0.5, noise_protocol="wrong-only")
    np.testing.assert_array_equal(labels[0], labels[1])
    assert (labels[0] != CLEAN).mean() == 0.5
    with pytest.raises(InputError, match="noise_protocol mrl means symmetric"):
        toy_config(noise_protocol="mrl", noise_kind="cyclic")
    with pytest.raises(InputError, match="need each other"):
        toy_config(noise_kind="matrix")


def test_the_noise_of_a_run_is_read_back(tmp_path):
    first = train(toy_config(noise_rate=0.6, epochs=1), tmp_path / "a", data=toy_arrays())
    again = train(toy_config(epochs=1, noise_file=str(tmp_path / "a/noise.json")), tmp_path / "b", data=toy_arrays())
    assert again.noise["labels"] == first.noise["labels"]
    assert again.noise["labels_sha256"] == first.noise["labels_sha256"]
    assert again.scores["test"] == first.scores["test"]
    assert "training labels: from noise.json; wrong: sound" in again.table()
    assert not {"rate", "scope", "seed"} & set(again.noise)
    assert again.noise["file"]["nominal"]["rate"] == 0.6
    assert again.run.config.noise_rate == 0.0
    third = toy_config(epochs=1, noise_file=str(tmp_path / "b/noise.json"))
    assert prepared(third, toy_arrays()).noise["labels"] == first.noise["labels"]
    other = toy_arrays()
    other["train_labels"] = np.roll(other["train_labels"], 1)
    with pytest.raises(InputError, match="drawn for other data"):
        prepared(toy_config(noise_file=str(tmp_path / "a/noise.json")), other)


@pytest.mark.parametrize("kind", ["labels", "matrix"])
def test_a_run_resumes_although_its_files_have_moved(tmp_path, kind):
    data, file = save_npz(tmp_path / "toy.npz"), tmp_path / "noise.json"
    if kind == "labels":
        file.write_text(json.dumps([((CLEAN + 1) % CLASSES).tolist()] * 2))
        config = toy_config(data_path=str(data), noise_file=str(file))
    else:
        file.write_text(json.dumps(np.full((3, 3), 1 / 3).tolist()))
        config = toy_config(data_path=str(data), noise_kind="matrix", noise_matrix=str(file), noise_rate=1.0)
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "run")
    for name in ("result.json", "curves.png"):
        (tmp_path / "run" / name).unlink()
    file.unlink()
    data.rename(tmp_path / "moved.npz")
    moved = dataclasses.replace(config, data_path=str(tmp_path / "moved.npz"))
    again = train(moved, tmp_path / "run", resume=True)
    assert again.scores["test"] == whole.scores["test"]
    assert again.noise == whole.noise
    found = evaluate(tmp_path / "run", data=tmp_path / "moved.npz")
    assert found["map"] == whole.scores["test"]["best"]["map"]
    save_npz(tmp_path / "moved.npz", toy_arrays(seed=1))
    with pytest.raises(InputError, match="the run began with other data"):
        train(moved, tmp_path / "run", resume=True)


def test_evaluation_of_noisy_validation_labels_gives_the_numbers_of_the_run(tmp_path):
    data = save_npz(tmp_path / "toy.npz", gallery_arrays())
    config = toy_config(data_path=str(data), noise_rate=0.6, noise_kind="symmetric-wrong", noisy_validation=True)
    result = train(config, tmp_path / "run")
    assert evaluate(tmp_path / "run", split="valid")["map"] == result.scores["valid"]["best"]["map"]
    assert evaluate(tmp_path / "run", split="valid", data=data)["map"] != result.scores["valid"]["best"]["map"]


def test_swapped_pairs_are_read_back_too(tmp_path):
    config = toy_config(noise_rate=0.5, noise_kind="pair-mismatch", epochs=1)
    first = train(config, tmp_path / "a", data=toy_arrays())
    again = prepared(toy_config(noise_file=str(tmp_path / "a/noise.json")), toy_arrays())
    assert again.noise["partners"] == first.noise["partners"]
    assert again.noise["labels_sha256"] == first.noise["labels_sha256"]
    direct = prepared(config, toy_arrays())
    np.testing.assert_array_equal(again.partners, direct.partners)


def test_noise_files_of_other_programs_are_read(tmp_path):
    noisy = np.stack([CLEAN, CLEAN])
    noisy[0, :9] = (noisy[0, :9] + 1) % CLASSES
    (tmp_path / "noise_labels_0.2_sym.json").write_text(json.dumps(noisy.tolist()))
    labels, spec = labels_of(noise_file=str(tmp_path / "noise_labels_0.2_sym.json"))
    np.testing.assert_array_equal(labels, noisy)
    assert spec.noise["wrong_share"] == {"sound": 0.15, "touch": 0.0}
    scipy.io.savemat(tmp_path / "wiki_noise_labels_0.2_sym.mat", {"noisy_label": noisy[0][:, None] + 1})
    labels, _ = labels_of(noise_file=str(tmp_path / "wiki_noise_labels_0.2_sym.mat"))
    np.testing.assert_array_equal(labels, [noisy[0]] * 2)


@pytest.mark.parametrize("cut", [{"split": "60/15/25", "split_seed": 2}, {"valid_share": 0.25}])
def test_a_noise_file_belongs_to_the_training_split_after_the_cut(tmp_path, cut):
    splits = ("train", "valid", "test") if "split" in cut else ("train", "test")
    arrays = {k: x for k, x in toy_arrays().items() if k.startswith(splits)}
    prefix = "" if "split" in cut else "train_"
    if "split" in cut:
        arrays = {n: np.concatenate([arrays[f"{s}_{n}"] for s in splits]) for n in ("sound", "touch", "labels")}
    clean = arrays[f"{prefix}labels"]
    noisy = np.where(np.arange(len(clean)) % 4, clean, (clean + 1) % CLASSES)

    def trained(labels):
        (tmp_path / "noise.json").write_text(json.dumps(labels.tolist()))
        return prepared(toy_config(**cut, noise_file=str(tmp_path / "noise.json")), arrays)

    # As docs/data.md says: row numbers as ids tell which rows the training split has.
    rows = load_dataset({**arrays, f"{prefix}ids": np.arange(len(clean))}, **cut).splits["train"].ids.astype(int)
    spec = trained(noisy[rows])
    np.testing.assert_array_equal(spec.labels, [noisy[rows]] * 2)
    np.testing.assert_array_equal(spec.data.dataset.splits["train"].labels["sound"], clean[rows])
    rule = rf"labels of all {len(clean)} instances, and the training split was cut from these and has {len(rows)}; give"
    for labels in (noisy, np.stack([noisy, noisy]), np.eye(CLASSES)[noisy]):
        with pytest.raises(InputError, match=rule):
            trained(labels)
    with pytest.raises(InputError, match="labels have the shape"):
        trained(noisy[1:])
    uncut = (
        toy_arrays()
        if "split" not in cut
        else {f"{s}_{n}": x for s in ("train", "valid", "test") for n, x in arrays.items()}
    )
    (tmp_path / "other.json").write_text(json.dumps(prepared(toy_config(noise_rate=0.5), uncut).noise))
    with pytest.raises(InputError, match=rule):
        prepared(toy_config(**cut, noise_file=str(tmp_path / "other.json")), arrays)


def test_validation_labels_are_clean_unless_asked(tmp_path):
    clean = prepared(toy_config(noise_rate=0.6), toy_arrays())
    np.testing.assert_array_equal(clean.held_out["valid"]["touch"], toy_arrays()["valid_labels"])
    assert "validation" not in clean.noise
    config = toy_config(noise_rate=0.6, noise_kind="symmetric-wrong", noisy_validation=True, epochs=2)
    noisy = prepared(config, toy_arrays())
    given = noisy.held_out["valid"]["touch"]
    assert (given != toy_arrays()["valid_labels"]).sum() == round(0.6 * 24)
    assert noisy.noise["validation"]["wrong_share"]["touch"] == pytest.approx(round(0.6 * 24) / 24)
    np.testing.assert_array_equal(noisy.held_out["test"]["touch"], toy_arrays()["test_labels"])
    result = train(config, tmp_path / "run", data=toy_arrays())
    assert result.scores["valid"]["best"]["average"] < result.scores["test"]["best"]["average"]
    with pytest.raises(InputError, match="leave noisy_validation out"):
        toy_config(noise_kind="pair-mismatch", noise_rate=0.5, noisy_validation=True)


def gallery_arrays():
    """Unpaired test rows, and samples missing in training, validation and test."""
    arrays = toy_arrays()
    y = arrays.pop("test_labels")
    arrays |= {"test_sound_labels": y, "test_touch_labels": np.tile(y, 3)}
    arrays["test_touch"] = np.tile(arrays["test_touch"], (3, 1))
    arrays["train_sound_mask"] = np.arange(60) % 6 != 1
    arrays["valid_touch_mask"] = np.arange(24) % 4 != 3
    arrays["test_touch_mask"] = np.arange(81) % 9 != 4
    return arrays


def test_missing_samples_and_unpaired_galleries_train_and_score(tmp_path):
    arrays = gallery_arrays()
    config = toy_config(noise_rate=0.4, noisy_validation=True)
    result = train(config, tmp_path / "run", data=arrays)
    assert result.data["instances"] == {"train": 60, "valid": 24, "test": 81}
    assert result.data["samples"]["test"] == {"sound": 27, "touch": 72}
    assert result.noise["selected"] == {"sound": round(0.4 * 50), "touch": 24}
    again = evaluate(tmp_path / "run", data=arrays)
    assert again["map"] == result.scores["test"]["best"]["map"]
    assert again["chance"] == pytest.approx(result.scores["chance"])  # from rankings and from labels
    # The gallery without its missing rows, given as a file of its own, has the same scores.
    there = arrays.pop("test_touch_mask")
    arrays |= {"test_touch": arrays["test_touch"][there], "test_touch_labels": arrays["test_touch_labels"][there]}
    assert evaluate(load_run(tmp_path / "run"), data=arrays)["map"] == again["map"]


def test_a_run_knows_the_columns_of_dataframes(tmp_path):
    """The same data with other orders of columns score, embed and search alike; other columns are refused."""
    arrays = toy_arrays()
    columns = {m: [f"{m}{i}" for i in range(arrays[f"train_{m}"].shape[1])] for m in ("sound", "touch")}
    held = {k: v if k.endswith("labels") else pd.DataFrame(v, columns=columns[k[-5:]]) for k, v in arrays.items()}
    turned = {k: v if k.endswith("labels") else v[v.columns[::-1]] for k, v in held.items()}
    result = train(toy_config(epochs=1), tmp_path / "run", data=held)
    assert result.data["metadata"]["columns"] == columns
    for run in (tmp_path / "run", load_run(tmp_path / "run"), result.run):
        for data in (turned, arrays):
            assert evaluate(run, data)["map"] == result.scores["test"]["best"]["map"]
    embedded = [result.run.embed({"sound": d["test_sound"]})["sound"] for d in (held, turned)]
    np.testing.assert_array_equal(*embedded)
    other = turned | {k: v.rename(columns={"sound0": "x"}) for k, v in turned.items() if k.endswith("sound")}
    with pytest.raises(InputError, match="sound has no column 'sound0', which the run was trained on; rename the"):
        evaluate(result.run, other)
    with pytest.raises(InputError, match="the columns of that run must be those of this one"):
        train(toy_config(epochs=1, init_from=str(tmp_path / "run")), data=turned)


def test_missing_samples_do_not_touch_the_fit_or_the_noise_of_the_rest():
    arrays = gallery_arrays()
    spec = prepared(toy_config(noise_rate=0.4), arrays)
    present = arrays["train_sound_mask"]
    labels = np.asarray(spec.labels)
    np.testing.assert_array_equal(labels[0, ~present], 0)  # as good as any
    np.testing.assert_array_equal(np.asarray(spec.mask)[0], present)
    mean = arrays["train_sound"][present].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(spec.data.stats["sound"]["mean"], mean, rtol=1e-6)


def test_noisy_validation_confuses_the_classes_as_training_does():
    config = toy_config(noise_rate=1.0, noise_kind="asymmetric", noisy_validation=True)
    noise = prepared(config, toy_arrays()).noise
    train = set(zip(CLEAN.tolist(), noise["labels"]["touch"], strict=True))
    valid = set(zip(toy_arrays()["valid_labels"].tolist(), noise["validation"]["labels"]["sound"], strict=True))
    assert train == valid
    assert any(a != b for a, b in train)


def test_temperatures_come_from_the_number_of_classes_unless_given():
    arrays = toy_arrays()
    arrays = {k: np.arange(len(x)) % 12 if k.endswith("labels") else x for k, x in arrays.items()}
    config = toy_config(tau2=0.3)
    spec = prepare_run(config, prepare_data(config, arrays))
    assert spec.config.tau1 == spec.hyperparameters.tau1 == auto_temperature(12) < 0.5
    assert spec.hyperparameters.tau2 == 0.3
