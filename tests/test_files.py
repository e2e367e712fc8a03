"""Atomic writes; links and devices are preserved; checks of outputs; locks."""

import os
import threading
from pathlib import Path

import pytest

from mrl_jax import InputError
from mrl_jax.files import atomic_path, check_outputs, pretty_json, refuse_workdir, write_atomically


def test_a_file_is_replaced_in_one_move_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def fail():
        with atomic_path(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    write_atomically(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "x"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically(pipe, "through")
    reader.join(10)
    assert read == ["through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["", "no/such/folder/x", "."])
def test_places_that_cannot_be_written_are_refused(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"is no file name|cannot be written"):
        write_atomically(tmp_path / name if name.startswith("no") else type(tmp_path)(name), "x")
    assert list(tmp_path.iterdir()) == []


def test_json_has_a_line_per_entry_and_lists_on_one():
    assert pretty_json({"a": {"b": [1, 2]}, "c": "é"}) == '{\n  "a": {\n    "b": [1, 2]\n  },\n  "c": "é"\n}'


def test_outputs_are_checked_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "data.npz").write_text("x")
    (tmp_path / "link").symlink_to("data.npz")

    def refused(message, outputs, inputs=("data.npz",), workdir="run"):
        with pytest.raises(InputError, match=message):
            check_outputs(outputs, inputs, workdir)

    refused("is no file name; give one, or leave the name out", {"--json": ""})
    refused("its folder does not exist", {"--csv": "no/such/x.csv"})
    refused("it is a folder", {"--csv": "run"})
    refused("is a file that is read", {"--csv": "data.npz"})
    refused("is a file that is read", {"--csv": "link"})
    refused("belongs to the run", {"--json": "run/config.json"})
    refused("--csv and --json are both", {"--csv": "a", "--json": "./a"})
    check_outputs({"--csv": "a.csv", "--json": None, "--plot": "run/b.png"}, ["data.npz", None], "run")
    check_outputs({"--csv": os.devnull, "--json": os.devnull}, [])
    assert (tmp_path / "data.npz").read_text() == "x"


def test_a_path_through_a_file_is_an_input_error_like_others(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below", "y")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_a_full_disk_asks_for_space():
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\); make space there"):
        write_atomically(Path("/dev/full"), "y")


def test_pictures_are_called_png():
    check_outputs({"--png": "a.png", "--plot": "b"}, [])
    with pytest.raises(InputError, match=r"--plot 'a.svg': pictures are written as PNG; name it a.png"):
        check_outputs({"--plot": "a.svg"}, [])


def test_names_that_are_no_text_are_refused_where_they_are_written():
    name = os.fsdecode(b"runs/\xff")
    with pytest.raises(InputError, match=r"workdir 'runs/.*' is no name in UTF-8, which checkpoints need"):
        refuse_workdir(name)
    refuse_workdir("runs/Größe 检索")
