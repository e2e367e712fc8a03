"""Sets prepared once: whole or absent, the same arrays as the file, memory-mapped, and as TFDS records."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from layout_files import SIZES, inria_short, small_set

from mrl_jax import InputError, load_dataset
from mrl_jax.data import prepared
from mrl_jax.data.tfds_builders import BUILDERS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")]
NAME = "inria-websearch"


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    return inria_short(tmp_path / "INRIA-Websearch.mat", small_set())


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


def test_a_prepared_set_is_the_file_memory_mapped(source):
    folder = prepared.prepare(NAME, source)
    data, direct = load_dataset(NAME), load_dataset(source)
    assert data.digest() == direct.digest()
    assert (data.name, data.modalities) == (NAME, ("image", "text"))
    for s in SIZES:
        for m in data.modalities:
            x = data.splits[s].features[m]
            assert isinstance(x.base, np.memmap)
            assert not x.flags.writeable
            np.testing.assert_array_equal(x, direct.splits[s].features[m])
            np.testing.assert_array_equal(data.splits[s].labels[m], direct.splits[s].labels[m])
    assert data.metadata["source"] == str(source)
    assert len(data.metadata["source_sha256"]) == 64
    assert len(data.metadata["deviations"]) == 4
    assert prepared.verify(folder) == []
    assert load_dataset(NAME, ("text", "image")).modalities == ("text", "image")


def test_missing_samples_ids_and_longer_galleries_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = small_set()
    y = arrays.pop("test_labels")
    arrays |= {"test_image_labels": y, "test_text_labels": np.concatenate([y, y[:5]])}
    arrays["test_text"] = np.concatenate([arrays["test_text"], arrays["test_text"][:5]])
    arrays |= {"train_text_mask": np.arange(40) % 3 > 0, "train_ids": np.array([f"id{i}" for i in range(40)])}
    np.savez(tmp_path / "own.npz", **arrays)
    folder = prepared.prepare("xmedia", tmp_path / "own.npz")
    data, direct = load_dataset("xmedia"), load_dataset(tmp_path / "own.npz")
    assert data.digest() == direct.digest()
    np.testing.assert_array_equal(data.splits["train"].masks["text"], arrays["train_text_mask"])
    assert data.splits["train"].ids[7] == "id7"
    records = tfds.builder_from_directory(folder).as_data_source("test")
    assert len(records) == 25
    assert [bool(records[24]["present"][m]) for m in ("image", "text")] == [False, True]
    assert not tfds.builder_from_directory(folder).as_data_source("train")[0]["present"]["text"]


def test_the_records_hold_the_same_rows(source):
    folder = prepared.prepare(NAME, source)
    data, builder = load_dataset(NAME), tfds.builder_from_directory(folder)
    assert builder.info.splits["train"].num_examples == SIZES["train"]
    for s in SIZES:
        records = builder.as_data_source(s)
        assert len(records) == SIZES[s]
        for j in (0, SIZES[s] - 1):
            for m in data.modalities:
                np.testing.assert_array_equal(records[j][m], data.splits[s].features[m][j])
                assert records[j]["labels"][m] == data.splits[s].labels[m][j]
                assert records[j]["present"][m]


def test_there_is_a_builder_for_every_set():
    assert {b.name for b in BUILDERS.values()} == {
        "wikipedia", "inria_websearch", "nus_wide", "xmedianet", "xmedia", "pascal_sentence",
    }  # fmt: skip


def test_preparing_again_changes_nothing_and_other_data_need_overwrite(source, tmp_path, capsys):
    folder = prepared.prepare(NAME, source)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert prepared.prepare(NAME, source, progress=True) == folder
    assert "holds the same data already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    other = inria_short(tmp_path / "other.mat", small_set(seed=1))
    with pytest.raises(InputError, match=r"prepared from other data \(.*INRIA-Websearch\.mat\); --overwrite"):
        prepared.prepare(NAME, other)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    prepared.prepare(NAME, other, overwrite=True)
    assert load_dataset(NAME).digest() == load_dataset(other).digest()
    assert everything(folder.parents[1]) == everything(folder.parents[1])
    assert not [p for p in everything(tmp_path / "cache") if "preparing" in p]


def test_one_copy_for_each_choice_of_modalities(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = small_set(("image", "text", "audio"))
    np.savez(tmp_path / "three.npz", **arrays)
    prepared.prepare("xmedianet", tmp_path / "three.npz")
    prepared.prepare("xmedianet", tmp_path / "three.npz", ("image", "text"))
    assert len(prepared.copies("xmedianet")) == 2
    assert load_dataset("xmedianet").metadata["prepared"].endswith("image-text/1.0.0")
    assert load_dataset("xmedianet", ("audio", "image")).dims == {"audio": 3, "image": 6}
    with pytest.raises(
        InputError, match="prepared with the modalities image text; image text audio, not with image smell"
    ):
        load_dataset("xmedianet", ("image", "smell"))


def test_a_set_that_is_not_prepared_says_what_to_do(source):
    with pytest.raises(
        InputError, match=r"run: python -m mrl_jax\.data prepare nus-wide --data-path FILE, with nus_wide"
    ):
        load_dataset("nus-wide")
    with pytest.raises(InputError, match="unknown data set 'mnist'"):
        prepared.prepare("mnist", source)


@pytest.mark.parametrize("file", ["prepared.json", "arrays/train_image.npy", "arrays/valid_text_labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_copy_is_told(source, file, damage):
    folder = prepared.prepare(NAME, source)
    path = folder / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "other":
        np.save(path.with_suffix(".npy"), np.zeros((2, 2)))
        path.with_suffix(".npy").rename(path)
    if damage == "gone" and file == "prepared.json":
        with pytest.raises(InputError, match="is not prepared"):
            load_dataset(NAME)
        return
    with pytest.raises(InputError, match=r"damaged.*delete .* prepare"):
        load_dataset(NAME)


def test_verify_finds_a_changed_number(source):
    folder = prepared.prepare(NAME, source)
    path = folder / "arrays/test_text.npy"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    assert prepared.verify(folder) == ["test/text/features"]


def test_bad_sources_leave_nothing(source, tmp_path):
    arrays = small_set()
    arrays["test_text"] = arrays["test_text"][:, :2]
    np.savez(tmp_path / "bad.npz", **arrays)
    for bad in ("bad.npz", "absent.npz"):
        with pytest.raises(InputError):
            prepared.prepare(NAME, tmp_path / bad)
        assert everything(tmp_path / "cache") == []
    prepared.prepare(NAME, source)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from mrl_jax.data.__main__ import main
sys.exit(main(["prepare", "inria-websearch", "--data-path", {source!r}]))
"""


@pytest.mark.parametrize("limit", [100, 500, 2000])
def test_no_space_left_is_told_and_leaves_nothing(source, tmp_path, limit):
    # A limit on the size of files stands for a full disk: writing fails with an OSError half-way.
    code = LIMITED.format(limit=limit, source=str(source))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data folder")
    assert "cannot be written" in done.stderr
    assert everything(tmp_path / "cache") == []
    prepared.prepare(NAME, source)


def test_a_killed_preparation_leaves_nothing_that_counts(source, tmp_path):
    arrays = small_set()
    for s in SIZES:
        arrays[f"{s}_image"] = np.repeat(arrays[f"{s}_image"], 4000, axis=1)
    big = tmp_path / "big.npz"
    np.savez(big, **arrays)
    command = [sys.executable, "-m", "mrl_jax.data", "prepare", NAME, "--data-path", str(big)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    home = tmp_path / "cache" / NAME
    while not (home / ".preparing/arrays/train_image.npy").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert prepared.copies(NAME) == []
    prepared.prepare(NAME, source)
    assert load_dataset(NAME).digest() == load_dataset(source).digest()
    assert not [p for p in everything(home) if "preparing" in p]


def test_loading_takes_no_memory_for_what_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = {k: np.repeat(v, 20_000, axis=1) if "image" in k else v for k, v in small_set().items()}
    np.savez(tmp_path / "big.npz", **arrays)
    prepared.prepare(NAME, tmp_path / "big.npz")  # 35 MB
    code = f"""
import resource, sys
from mrl_jax.data import load_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_dataset("{NAME}").digest()
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, "tensorflow_datasets" in sys.modules, "jax" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    grown, *imported = told.stdout.split()
    assert int(grown) < 8_000  # kB; imports of the reading code are in it
    assert imported == ["False", "False"]


def test_two_at_once_do_not_meet(source, tmp_path):
    with prepared._staging(tmp_path / "cache", NAME), pytest.raises(InputError, match="another process is preparing"):
        prepared.prepare(NAME, source)
    prepared.prepare(NAME, source)


def test_the_index_is_json_with_digests(source):
    index = json.loads((prepared.prepare(NAME, source) / "prepared.json").read_text())
    assert index["sha256"] == load_dataset(source).digest()
    assert set(index["arrays"]) == {
        f"{s}/{m}/{p}" for s in SIZES for m in ("image", "text") for p in ("features", "labels")
    }
