"""Runs that tests of the report share."""

import pytest
from report_runs import HOSTILE, hostile_arrays, odd_arrays, opened, trained
from toy import SIZES, save_npz, toy_arrays, toy_config

from mrl_jax import preset, sweep, train
from mrl_jax.config import with_settings
from mrl_jax.report import page, write_report


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="session")
def arrays():
    return toy_arrays()


@pytest.fixture(scope="session")
def noisy(base, arrays):
    """A run with noise that keeps the best of its epochs."""
    return trained(base / "noisy", noise_rate=0.5, data=arrays)


@pytest.fixture(scope="session")
def noisy_opened(noisy, arrays):
    return opened(noisy, arrays)


@pytest.fixture(scope="session")
def hostile(base):
    return trained(base / "hostile", hostile_arrays(), ("<b>sound", "touch"), noise_rate=0.4)


@pytest.fixture(scope="session")
def odd(base):
    """Three modalities, missing samples, unequal galleries, no noise, streamed."""
    return trained(base / "odd", odd_arrays(), ("sound", "touch", "smell"), stream="on")


@pytest.fixture(scope="session")
def closed(base, arrays):
    """A closed form: no curves, no classes."""
    config = preset("custom", method="cca", modalities=("sound", "touch"), noise_rate=0.4)
    train(config, base / "closed", data=arrays)
    return base / "closed"


@pytest.fixture(scope="session")
def swept(base, arrays):
    """A sweep of two noises and two seeds, on a file."""
    path = save_npz(base / "toy.npz", arrays)
    start = with_settings(toy_config(modalities=("sound", "touch")), data_path=str(path))
    configs = [with_settings(start, noise_rate=r, seed=s) for r in (0.2, 0.6) for s in (0, 1)]
    sweep(configs, base / "swept")
    return base / "swept"


@pytest.fixture
def no_library(monkeypatch):
    """Pages without the library that draws, which takes seconds to put together."""
    monkeypatch.setattr(page, "library", lambda: "")


@pytest.fixture(scope="session")
def hostile_page(base, hostile):
    """The whole file of a page whose data have hostile names and texts."""
    title = "<script>window.hacked = 1</script> & title"
    arrays = hostile_arrays()
    texts = {str(x): f"{HOSTILE[1]} text of {x}" for s in SIZES for x in arrays[f"{s}_ids"]}
    return write_report(hostile, base / "hostile.html", data=arrays, title=title, texts=texts)
