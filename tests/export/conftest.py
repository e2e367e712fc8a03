"""Runs that tests of exports share."""

import numpy as np
import pytest
from toy import save_npz, toy_arrays, toy_config

from mrl_jax import train


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="session")
def toy_run(base):
    """Two modalities with noise, ids and names of classes; the method retrieves by embedding and posterior."""
    more = {
        f"{s}_ids": np.array([f"{s}-{i}" for i in range(n)]) for s, n in (("train", 60), ("valid", 24), ("test", 27))
    }
    data = save_npz(base / "toy.npz", toy_arrays() | more, class_names=np.array(["low", "a|b", "<b>high</b>"]))
    train(toy_config(data_path=str(data), noise_rate=0.4, representation="both"), base / "run")
    return base / "run"


@pytest.fixture(scope="session")
def ragged_run(base):
    """Three modalities without ids; samples are missing, and a gallery is longer."""
    arrays = toy_arrays(("sound", "touch", "smell"))
    arrays |= {"test_touch_mask": np.arange(27) != 2, "train_smell_mask": np.arange(60) % 5 > 0}
    data = save_npz(base / "ragged.npz", arrays)
    train(toy_config(data_path=str(data), modalities=("sound", "touch", "smell")), base / "ragged")
    return base / "ragged"
