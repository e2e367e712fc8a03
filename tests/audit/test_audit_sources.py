"""What `audit` takes: every holder of the same data gives the same audit; and what other functions say of tables."""

import jax
import numpy as np
import pandas as pd
import pytest
from tables import NAMES, arrays, parts, wide

from mrl_jax import (
    Config,
    InputError,
    NoiseSpec,
    Searcher,
    evaluate,
    grid,
    inject_noise,
    load_dataset,
    preset,
    sweep,
    train,
)
from mrl_jax.audit import audit
from mrl_jax.leaderboard import leaderboard


@pytest.fixture(scope="module")
def expected():
    return audit(load_dataset(arrays()))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    wide().to_csv(path, index=False)
    return path


@pytest.mark.parametrize("form", ["frame", "keyword", "arrays", "by split", "file", "path as text", "keyword file"])
def test_the_same_data_in_every_form_have_the_same_audit(form, expected, file):
    found = {
        "frame": lambda: audit(wide()),
        "keyword": lambda: audit(data=wide()),
        "arrays": lambda: audit(arrays()),
        "by split": lambda: audit({s: rows.drop(columns="split") for s, rows in by_split(wide()).items()}),
        "file": lambda: audit(file),
        "path as text": lambda: audit(str(file)),
        "keyword file": lambda: audit(data=file),
    }[form]()
    np.testing.assert_allclose(found.p_wrong, expected.p_wrong, atol=1e-6)
    assert (found.class_names, found.modalities) == (("cat", "dog", "emu"), ("image", "text"))


def by_split(frame):
    return {s: rows.reset_index(drop=True) for s, rows in frame.groupby("split", sort=False)}


def test_data_without_splits_are_cut_as_load_dataset_cuts_them():
    image, text, y, _ = parts()
    whole = {"image": image, "text": text, "labels": NAMES[y]}
    named = {"a": "image_", "b": "text_", "labels": "kind"}
    cut = {"split": "60/15/25", "split_seed": 3}
    found = audit(whole, **cut, method="votes", neighbours=1)
    same = audit(load_dataset(whole, **cut), method="votes")
    frame = wide(split=None, label=None, kind=NAMES[y])
    by_column = audit(frame, keys=named, **cut, method="votes")
    np.testing.assert_allclose(found.p_wrong, same.p_wrong, atol=1e-6)
    np.testing.assert_allclose(by_column.p_wrong, same.p_wrong, atol=1e-6)
    assert by_column.modalities == ("a", "b")
    assert found.neighbours.shape == (len(found) // 2, 1)


IMAGE, TEXT, Y, _ = parts()
ONE = {"image": IMAGE, "labels": NAMES[Y]}
REFUSED = {
    "no splits": (lambda: audit(wide(split=None)), r"no splits .* split 60/15/25.* or audit all rows .*audit\(labels"),
    "arrays without splits": (
        lambda: audit({**ONE, "text": TEXT}),
        r"no splits .*; or audit all rows as arrays: audit",
    ),
    "one modality": (lambda: audit(ONE, split="60/15/25"), r"only one modality is found, image; .*audit\(labels, z="),
    "a table of one": (
        lambda: audit(wide(text_0=None, text_1=None, text_2=None)),
        r"only one modality is found, image; .*audit\(labels, z=",
    ),
    "nothing": (lambda: audit(), "nothing to audit: give"),
    "data twice": (lambda: audit(wide(), data=wide()), "data is given twice"),
    "data with features": (lambda: audit(wide(), z=IMAGE), "log_p and z go with labels"),
    "data with clean labels": (lambda: audit(wide(), clean=Y), "clean goes with labels; for data give method, neigh"),
    "labels with a split": (lambda: audit(Y, z=IMAGE, split="60/15/25"), "split goes with data; labels are audited as"),
    "names of classes": (lambda: audit(NAMES[Y], z=IMAGE), r"class_names, labels = np.unique\(labels, return_inv"),
    "a column of names": (lambda: audit(wide()["label"], z=IMAGE), r"class_names, labels = np.unique\(labels"),
    "features first": (lambda: audit(IMAGE, Y), r"labels are float32 \[60, 4\]; .*features go with z"),
    "a configuration": (lambda: audit(preset("custom")), "Config is not audited; give the folder of a run"),
    "no run": (lambda: audit("nowhere"), r"'nowhere' holds no run .*or give data as audit\(data=…\)"),
    "a run with a split": (lambda: audit("nowhere", split="60/15/25"), "split goes with data; a run knows its own"),
    "train": (lambda: train(wide()), "config is a DataFrame; give a Config, such as preset.*; data go as data="),
    "train with a preset's name": (lambda: train("custom", data=wide()), "config is a str; give a Config"),
    "train's folder": (
        lambda: train(Config(), wide()),
        "workdir is a DataFrame; give the path of a folder; data go as",
    ),
    "sweep": (lambda: sweep(wide()), "config is a str; give a Config"),
    "sweep of a number": (lambda: sweep(5), "config is a int; give a Config"),
    "sweep's folder": (lambda: sweep([Config()], wide()), "workdir is a DataFrame; give the path of a folder"),
    "grid": (lambda: grid(wide(), seed=[0]), "config is a DataFrame; give a Config"),
    "preset": (lambda: preset(wide()), "unknown preset of type DataFrame; choose from: emoji"),
    "search": (lambda: Searcher(wide()), "workdir is a DataFrame; give the path of a folder; data go as data="),
    "evaluate": (lambda: evaluate(arrays()), "workdir is a dict; give the path of a folder; data go as data="),
    "leaderboard": (lambda: leaderboard(wide()), "workdir is a DataFrame; give the path of a folder; data"),
    "leaderboard of data": (
        lambda: leaderboard("x", wide()),
        "methods of type DataFrame: give a list of names",
    ),
    "one method": (lambda: leaderboard("x", "cca", data=wide()), "methods 'cca': give a list of names"),
    "noise on names": (
        lambda: inject_noise(NAMES[Y], NoiseSpec(0.4), jax.random.key(0), 3),
        r"labels are text; they must be integers \[modalities, instances\]",
    ),
    "noise on a table": (
        lambda: inject_noise(wide(), NoiseSpec(0.4), jax.random.key(0), 3),
        r"labels are a DataFrame; they must be integers \[modalities, instances\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_column_of_numbers_is_a_vector_of_labels():
    found = audit(pd.Series(Y), z=IMAGE)
    np.testing.assert_allclose(found.p_wrong, audit(Y, z=IMAGE).p_wrong, atol=1e-6)
