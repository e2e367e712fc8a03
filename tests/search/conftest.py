"""Runs that tests of the search page share."""

import numpy as np
import pytest
from PIL import Image
from server import served
from toy import TOY_FLAGS, save_npz, toy_arrays

from mrl_jax.train import main as train_main

EVIL = "<script>alert(1)</script>"
TEXT = "<b>text of test-1</b><img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """Three modalities; "touch" is missing in row 2 of the test split; ids with a script; one picture per id."""
    base = tmp_path_factory.mktemp("served")
    arrays = toy_arrays(("sound", "touch", "smell")) | {"test_touch_mask": np.arange(27) != 2}
    arrays |= {"class_names": np.array(["low", "mid", "<b>high</b>"])}
    arrays |= {f"{s}_ids": np.array([f"{s}-{i}" for i in range(n)]) for s, n in (("train", 60), ("valid", 24))}
    arrays["test_ids"] = np.array([f"test-{i}" if i != 5 else EVIL for i in range(27)])
    data = save_npz(base / "toy.npz", arrays)
    assert train_main([*TOY_FLAGS, "--data-path", str(data), "--workdir", str(base / "run")]) == 0
    (base / "pictures").mkdir()
    for i in range(20):
        Image.new("RGB", (20 + i, 30), (9 * i, 90, 200)).save(base / "pictures" / f"test-{i}.png")
    return base / "run"


@pytest.fixture(scope="module")
def toy_server(toy_run):
    with served(toy_run, pictures=str(toy_run.parent / "pictures"), texts={"test-1": TEXT}) as server:
        yield server


@pytest.fixture(scope="session")
def emoji_run(tmp_path_factory):
    """A run that takes texts and pictures."""
    workdir = tmp_path_factory.mktemp("emoji") / "run"
    flags = ["--hidden-dims", "64", "--embed-dim", "32", "--epochs", "2", "--learning-rate", "3e-3"]
    assert train_main([*flags, "--modalities", "image", "text", "text_de", "--workdir", str(workdir)]) == 0
    return workdir


@pytest.fixture(scope="module")
def emoji_server(emoji_run):
    with served(emoji_run) as server:
        yield server
