"""What runs record of their training samples: against the model, after resuming, and where it is left out."""

import shutil
import struct
import zipfile

import numpy as np
import pytest
from toy import lose, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import InputError, load_run, train
from mrl_jax.audit.run import audit_run
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.run.folder import RunFolder
from mrl_jax.training.recorded import POINTS, recorded_epochs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_npz(tmp_path_factory.mktemp("data") / "toy.npz", toy_arrays())


@pytest.mark.parametrize("kind", ["symmetric", "pair-mismatch"])
def test_the_record_of_the_last_epoch_is_what_the_model_says(data, tmp_path, kind):
    train(toy_config(data_path=str(data), noise_rate=0.5, noise_kind=kind, epochs=20), tmp_path / "run")
    folder, run = RunFolder.open(tmp_path / "run"), load_run(tmp_path / "run", "last")
    found = folder.samples()
    assert list(found) == sorted(recorded_epochs(20))
    assert len(found) == POINTS
    noise, arrays = folder.noise(), toy_arrays()
    for i, m in enumerate(run.modalities):
        rows = np.asarray(noise.get("partners", {}).get(m, np.arange(60)))
        z = run.embed({m: arrays[f"train_{m}"][rows]})[m]
        log_p = np.asarray(
            method_of(run.config).assign(hyperparameters_of(run.config), run.model.params, z), np.float64
        )
        given = np.asarray(noise["labels"][m])[rows]
        np.testing.assert_array_equal(found[20]["predicted"][i], log_p.argmax(axis=1))
        others = np.where(np.arange(3) == given[:, None], -np.inf, log_p).max(axis=1)
        margin = log_p[np.arange(60), given] - others
        np.testing.assert_allclose(found[20]["margin"][i], margin, atol=2e-2, rtol=2e-3)
    mean = np.mean([np.asarray(x["margin"], np.float64) for x in found.values()], axis=0)
    np.testing.assert_array_equal(audit_run(tmp_path / "run").audit.margin, mean)


def test_an_interrupted_run_records_the_same(data, tmp_path):
    config = toy_config(data_path=str(data), noise_rate=0.5, epochs=8)
    train(config, tmp_path / "whole")
    train(toy_config(data_path=str(data), noise_rate=0.5, epochs=8), tmp_path / "cut", keep_checkpoints=True)
    cut = RunFolder.open(tmp_path / "cut")
    whole = RunFolder.open(tmp_path / "whole").samples()
    last = sorted((cut.path / "checkpoints").iterdir(), key=lambda p: int(p.name))[-1]
    lose(cut.path, "result.json", "samples/000008.npz")
    shutil.rmtree(last)  # as if it had been killed before the last checkpoint
    train(config, tmp_path / "cut", resume=True)
    again = cut.samples()
    assert list(again) == list(whole)
    for epoch, arrays in whole.items():
        for name, x in arrays.items():
            np.testing.assert_array_equal(again[epoch][name], x)


def test_runs_that_stream_or_have_no_classes_record_nothing(data, tmp_path):
    train(toy_config(data_path=str(data), stream="on"), tmp_path / "stream")
    train(toy_config(data_path=str(data), method="cca", embed_dim=2), tmp_path / "cca")
    for name in ("stream", "cca"):
        assert RunFolder.open(tmp_path / name).samples() == {}
        assert not (tmp_path / name / "samples").exists()


def test_a_damaged_record_is_named(data, tmp_path):
    train(toy_config(data_path=str(data), epochs=1), tmp_path / "run")
    record = tmp_path / "run" / "samples" / "000001.npz"
    record.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"000001\.npz is damaged"):
        RunFolder.open(tmp_path / "run").samples()
    unchecked(tmp_path / "run")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (23000000000000000,), }"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(record, "w") as archive:
        for name in ("predicted", "margin"):
            archive.writestr(f"{name}.npy", member)
    with pytest.raises(InputError, match=r"000001\.npz is damaged \(.*claims .*23000000000000000.*does not match"):
        RunFolder.open(tmp_path / "run").samples()
