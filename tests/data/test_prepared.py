"""Prepared sets: complete or absent, the same arrays as in the file, memory-mapped and as TFDS records."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from layout_files import SIZES, inria_short, small_set

from mrl_jax import InputError, files, load_dataset
from mrl_jax.data.published import copy_folders, prepared
from mrl_jax.data.published import prepare as preparing
from mrl_jax.data.published.prepare import prepare
from mrl_jax.data.published.tfds_builders import BUILDERS
from mrl_jax.errors import DatasetWarning

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")]
NAME = "inria-websearch"


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    return inria_short(tmp_path / "INRIA-Websearch.mat", small_set())


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) if folder.exists() else []


def test_a_prepared_set_is_the_file_memory_mapped(source):
    folder = prepare(NAME, source)
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
    folder = prepare("xmedia", tmp_path / "own.npz")
    data, direct = load_dataset("xmedia"), load_dataset(tmp_path / "own.npz")
    assert data.digest() == direct.digest()
    np.testing.assert_array_equal(data.splits["train"].masks["text"], arrays["train_text_mask"])
    assert data.splits["train"].ids[7] == "id7"
    records = tfds.builder_from_directory(folder).as_data_source("test")
    assert len(records) == 25
    assert [bool(records[24]["present"][m]) for m in ("image", "text")] == [False, True]
    assert not tfds.builder_from_directory(folder).as_data_source("train")[0]["present"]["text"]


def test_the_records_hold_the_same_rows(source):
    folder = prepare(NAME, source)
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
    folder = prepare(NAME, source)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert prepare(NAME, source, progress=True) == folder
    assert "holds the same data already" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    other = inria_short(tmp_path / "other.mat", small_set(seed=1))
    with pytest.raises(InputError, match=r"prepared from other data \(.*INRIA-Websearch\.mat\); --overwrite"):
        prepare(NAME, other)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    prepare(NAME, other, overwrite=True)
    assert load_dataset(NAME).digest() == load_dataset(other).digest()
    assert everything(folder.parents[1]) == everything(folder.parents[1])
    assert not [p for p in everything(tmp_path / "cache") if "preparing" in p]


def test_one_copy_for_each_choice_of_modalities(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = small_set(("image", "text", "audio"))
    np.savez(tmp_path / "three.npz", **arrays)
    prepare("xmedianet", tmp_path / "three.npz")
    prepare("xmedianet", tmp_path / "three.npz", ("image", "text"))
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
        prepare("mnist", source)


@pytest.mark.parametrize("file", ["prepared.json", "arrays/train_image.npy", "arrays/valid_text_labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_damaged_copy_is_reported(source, file, damage):
    folder = prepare(NAME, source)
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
    with pytest.raises(InputError, match=r"damaged.*; prepare the set again"):
        load_dataset(NAME)


def test_verify_finds_a_changed_number(source):
    folder = prepare(NAME, source)
    path = folder / "arrays/test_text.npy"
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    assert prepared.verify(folder) == ["test/text/features"]


def test_verify_finds_changed_ids_and_records(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "own.npz", **small_set(), train_ids=np.array([f"id{i}" for i in range(40)]))
    folder = prepare("xmedia", tmp_path / "own.npz")
    np.save(folder / "arrays/train_ids.npy", np.array([f"id{i + 1}" for i in range(40)]))
    [records] = folder.glob("*test.array_record*")
    records.write_bytes(records.read_bytes()[:-1])
    (folder / "features.json").unlink()
    assert set(prepared.verify(folder)) == {"train/ids", records.name, "features.json"}


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


DAMAGES = {
    "a number changed": lambda folder: flip(folder / "arrays/train_image.npy"),
    "an array deleted": lambda folder: (folder / "arrays/valid_text.npy").unlink(),
    "records deleted": lambda folder: next(folder.glob("*train.array_record*")).unlink(),
    "index cut": lambda folder: (folder / "prepared.json").write_text('{"name": "inria'),
    "index of other things": lambda folder: (folder / "prepared.json").write_text('{"arrays": []}'),
    "index of nothing": lambda folder: (folder / "prepared.json").write_text("[" * 100_000),
    "index deleted": lambda folder: (folder / "prepared.json").unlink(),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_is_prepared_again(source, damage, overwrite, capsys):
    folder = prepare(NAME, source)
    before = everything(folder)
    DAMAGES[damage](folder)
    assert prepare(NAME, source, overwrite=overwrite, progress=True) == folder
    assert f"{folder} is damaged and is prepared again" in capsys.readouterr().err
    assert everything(folder) == before
    assert prepared.verify(folder) == []
    assert load_dataset(NAME).digest() == load_dataset(source).digest()


def test_an_index_whose_digests_were_changed_is_damaged(source):
    folder = prepare(NAME, source)
    path = folder / "prepared.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"damaged \(its digests contradict each other\); prepare the set again"):
        load_dataset(NAME)


def test_a_damaged_copy_does_not_block_others(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "three.npz", **small_set(("image", "text", "audio")))
    wide = prepare("xmedianet", tmp_path / "three.npz")
    narrow = prepare("xmedianet", tmp_path / "three.npz", ("image", "text"))
    whole = (wide / "prepared.json").read_bytes()
    (wide / "prepared.json").write_text("{")
    for modalities in ((), ("image", "text")):
        assert load_dataset("xmedianet", modalities).metadata["prepared"] == str(narrow)
    with pytest.raises(InputError, match="damaged"):
        load_dataset("xmedianet", ("audio", "text"))
    (wide / "prepared.json").write_bytes(whole)
    (narrow / "arrays/test_text.npy").unlink()
    with pytest.warns(DatasetWarning, match="another copy is used"):
        assert load_dataset("xmedianet", ("image", "text")).metadata["prepared"] == str(wide)
    with pytest.raises(InputError, match="damaged"):  # the other copy with all modalities is not used instead
        load_dataset("xmedianet")


def test_loading_warns_once_how_a_set_deviates(source):
    with pytest.warns(DatasetWarning) as direct:
        load_dataset(source, set_name=NAME)
    folder = prepare(NAME, source)
    with pytest.warns(DatasetWarning) as warned:
        load_dataset(NAME)
    assert [str(w.message) for w in warned] == [str(w.message).replace(str(source), str(folder)) for w in direct]
    assert warned[0].filename == __file__


def test_bad_sources_leave_nothing(source, tmp_path):
    arrays = small_set()
    arrays["test_text"] = arrays["test_text"][:, :2]
    np.savez(tmp_path / "bad.npz", **arrays)
    for bad in ("bad.npz", "absent.npz"):
        with pytest.raises(InputError):
            prepare(NAME, tmp_path / bad)
        assert everything(tmp_path / "cache") == []
    prepare(NAME, source)


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
from mrl_jax.data.__main__ import main
sys.exit(main(["prepare", "inria-websearch", "--data-path", {source!r}]))
"""


@pytest.mark.parametrize("limit", [100, 500, 2000])
def test_no_space_left_is_reported_and_leaves_nothing(source, tmp_path, limit):
    # A limit on the size of files simulates a full disk: writing fails with an OSError.
    code = LIMITED.format(limit=limit, source=str(source))
    unmeasured = {k: v for k, v in os.environ.items() if not k.startswith("COV")}  # coverage's own file finds no space
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=unmeasured)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data folder")
    assert "cannot be written" in done.stderr
    assert everything(tmp_path / "cache") == []
    prepare(NAME, source)


@pytest.mark.parametrize(
    ("number", "space"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EACCES, False), (errno.EIO, False)],
)
def test_only_a_lack_of_space_is_called_one(source, monkeypatch, number, space):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(preparing, "_save", fail)
    with pytest.raises(InputError) as raised:
        prepare(NAME, source)
    assert os.strerror(number) in str(raised.value)
    assert "MRL_JAX_DATA_DIR" in str(raised.value)
    assert ("free space" in str(raised.value)) == space


def test_a_data_folder_that_is_a_file_is_reported(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\): name another folder"):
        prepare(NAME, source, data_dir=tmp_path / "file")


def test_a_source_that_cannot_be_read_is_no_fault_of_the_data_folder(source, monkeypatch):
    def fail(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(preparing, "_file_digest", fail)
    with pytest.raises(InputError, match=r"INRIA-Websearch\.mat cannot be read \(Permission denied\)"):
        prepare(NAME, source)


class KilledError(BaseException):
    """Simulates SIGKILL: after it the process changes no file."""


class Killer:
    """Ends the process before, within or after one of its changes to file names."""

    def __init__(self, monkeypatch, step, moment):
        self.left, self.moment, self.dead = step, moment, False
        for owner, name in ((os, "rename"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self.guarded(getattr(owner, name), halve=name == "rmtree"))

    def guarded(self, change, halve):
        def changed(path, *args, **kwargs):
            if self.dead:
                raise KilledError
            # Count only changes to the existing copy, and not those inside of `rmtree`.
            if "image-text" not in str(path) or kwargs.get("dir_fd") is not None or "records" in str(path):
                return change(path, *args, **kwargs)
            self.left -= 1
            if self.left < 0:
                self.dead = True
                if self.moment == "after":
                    change(path, *args, **kwargs)
                elif self.moment == "within" and halve:
                    for file in list(path.glob("arrays/*"))[::2]:
                        file.replace(path.parents[3] / file.name)
                raise KilledError
            return change(path, *args, **kwargs)

        return changed


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_killed_while_replacing_a_copy_the_old_or_the_new_one_is_there(source, tmp_path, moment):
    other = inria_short(tmp_path / "other.mat", small_set(seed=1))
    digests = [load_dataset(path).digest() for path in (source, other)]
    survivors = []
    for step in itertools.count():
        folder = prepare(NAME, source, overwrite=True)
        with pytest.MonkeyPatch.context() as patched:
            killer = Killer(patched, step, moment)
            with contextlib.suppress(KilledError):
                prepare(NAME, other, overwrite=True)
        survivors.append(digests.index(load_dataset(NAME).digest()))
        assert prepared.verify(folder) == []
        prepare(NAME, source, overwrite=True)
        assert not [p for p in everything(tmp_path / "cache") if "preparing" in p or "old" in p]
        if not killer.dead:
            break
    assert len(survivors) >= 4
    assert set(survivors) == {0, 1}


def test_half_a_replaced_copy_never_comes_back(source):
    folder = prepare(NAME, source)
    old = shutil.copytree(folder, folder.with_name(f".old-{copy_folders.VERSION}"))
    assert prepared.copies(NAME) == [folder]
    assert not old.exists()
    folder.rename(old)
    assert prepared.copies(NAME) == [folder]
    folder.rename(old)
    with copy_folders.staging(folder.parents[2], NAME):  # the next preparation restores it as well
        assert folder.exists()


def test_without_file_locks_folders_are_not_opened(source, monkeypatch):
    opened = os.open

    def as_on_windows(path, *args, **kwargs):
        if os.path.isdir(path) and kwargs.get("dir_fd") is None and "cache" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(shutil, "rmtree", lambda path, **options: subprocess.run(["rm", "-rf", path], check=True))
    monkeypatch.setattr(os, "open", as_on_windows)
    prepare(NAME, source)
    assert load_dataset(NAME).digest() == load_dataset(source).digest()


def test_a_killed_preparation_leaves_no_copy(source, tmp_path):
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
    prepare(NAME, source)
    assert load_dataset(NAME).digest() == load_dataset(source).digest()
    assert not [p for p in everything(home) if "preparing" in p]


def test_loading_takes_no_memory_for_what_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = {k: np.repeat(v, 20_000, axis=1) if "image" in k else v for k, v in small_set().items()}
    np.savez(tmp_path / "big.npz", **arrays)
    prepare(NAME, tmp_path / "big.npz")  # 35 MB
    # Not ru_maxrss: it starts at the peak of the parent process and might not grow.
    code = f"""
import pathlib, sys
from mrl_jax.data.load import load_dataset
def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
before = peak()
data = load_dataset("{NAME}")
data.digest()
loaded = peak()
data.splits["train"].features["image"].max()
print(loaded - before, peak() - loaded, "tensorflow_datasets" in sys.modules, "jax" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    grown, read, *imported = done.stdout.split()
    assert int(grown) < 8_000  # kB; includes imports of the code that reads
    assert int(read) > 15_000  # shows that the measurement works: 19 MB are read here
    assert imported == ["False", "False"]


def test_a_preparation_that_is_refused_leaves_the_folder_to_the_other(tmp_path, monkeypatch):
    recover = copy_folders._recover

    def meanwhile(home):
        monkeypatch.setattr(copy_folders, "_recover", recover)
        with pytest.raises(InputError, match="another process is preparing"), copy_folders.staging(home.parent, NAME):
            pass
        recover(home)

    monkeypatch.setattr(copy_folders, "_recover", meanwhile)
    with copy_folders.staging(tmp_path / "cache", NAME) as stage:
        assert stage.is_dir()


def test_two_preparations_at_once_are_refused(source, tmp_path):
    with (
        copy_folders.staging(tmp_path / "cache", NAME),
        pytest.raises(InputError, match="another process is preparing"),
    ):
        prepare(NAME, source)
    prepare(NAME, source)


def test_the_index_is_json_with_digests(source):
    index = json.loads((prepare(NAME, source) / "prepared.json").read_text())
    assert index["sha256"] == load_dataset(source).digest()
    assert set(index["arrays"]) == {
        f"{s}/{m}/{p}" for s in SIZES for m in ("image", "text") for p in ("features", "labels")
    }
