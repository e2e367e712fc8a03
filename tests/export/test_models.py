"""Models in files: read back by other libraries, they give the rows and posteriors of the run."""

import json
import re

import forward
import jax
import numpy as np
import pytest
from safetensors import safe_open
from untrained import features, untrained

from mrl_jax import InputError, export, load_run
from mrl_jax.export import FORMATS
from mrl_jax.export.__main__ import main
from mrl_jax.export.plain import plain_model
from mrl_jax.methods.registry import METHODS, hyperparameters_of, method_of

TOLERANCE = 1e-5  # of the formats: float32 in another order
NO_CLASS_LAYERS = ("rfcmh",)  # its posterior is no softmax of scores


@pytest.mark.parametrize("name", METHODS)
def test_the_tensors_of_every_method_are_its_embedding_and_posterior(name):
    run, x = untrained(name), features()
    model, method, h = plain_model(run), method_of(run.config), hyperparameters_of(run.config)
    assert bool(model.classifier) == (method.assign is not None and name not in NO_CLASS_LAYERS)
    for m, rows in run.embed(x).items():
        z = forward.embed(model.tensors, model.facts, m, x[m])
        np.testing.assert_allclose(z, rows, atol=TOLERANCE)
        if model.classifier:
            log_p = method.assign(h, run.model.params, rows)
            np.testing.assert_allclose(forward.log_posterior(model.tensors, z), log_p, atol=5 * TOLERANCE)


def test_a_posterior_that_is_no_chain_of_layers_is_refused():
    run = untrained("rfcmh", representation="posterior")
    with pytest.raises(
        InputError, match="no chain of layers; choose --representation embedding, or --format stablehlo"
    ):
        plain_model(run)
    assert plain_model(run, "embedding").facts["representation"] == "embedding"


@pytest.fixture(scope="module")
def tensors(toy_run, base):
    """Tensors, their metadata and the run."""
    (path,) = export(toy_run, base / "model.safetensors")
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata(), load_run(toy_run)  # noqa: SIM118


def test_safetensors_hold_the_model_and_its_facts(tensors):
    found, metadata, run = tensors
    facts, x = json.loads(metadata["mrl_jax"]), features()
    assert metadata["format"] == "pt"
    assert facts["class_names"] == ["low", "a|b", "<b>high</b>"]
    assert facts["config"]["noise_rate"] == 0.4
    assert facts["widths"] == [[6, 16, 8], [4, 16, 8]]
    assert found["encoders.1.0.weight"].shape == (16, 4)  # nn.Linear(4, 16)
    for m, rows in run.represent(x).items():
        z = forward.embed(found, facts, m, x[m])
        np.testing.assert_allclose(forward.represent(found, facts, z), rows, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), [("mrl", "both"), ("mcca", None), ("rfcmh", "posterior")])
def test_stablehlo_takes_any_batch_size(tmp_path, name, kind):
    run, x = untrained(name, preprocess=("l2", "standardize")), features(70)
    paths = export(run, tmp_path / "programs", "stablehlo", representation=kind)
    assert [p.name for p in paths] == ["sound.stablehlo", "touch.stablehlo"]
    rows = run.represent(x, kind)
    for m, path in zip(run.modalities, paths, strict=True):
        program = jax.export.deserialize(bytearray(path.read_bytes()))
        assert set(program.platforms) == {"cpu", "cuda", "rocm", "tpu"}
        for size in (1, 70):
            found = program.call(x[m][:size])
            np.testing.assert_allclose(found["rows"], rows[m][:size], atol=TOLERANCE)
            assert ("log_posterior" in found) == (name != "mcca")


def test_what_is_written_of_a_checkpoint_is_that_checkpoint(toy_run, tmp_path):
    (path,) = export(toy_run, tmp_path / "last.safetensors", checkpoint="last")
    with safe_open(path, "np") as file:
        assert json.loads(file.metadata()["mrl_jax"])["epoch"] == 3


REFUSED = {
    "format": (["--format", "safetensors"], "nothing to write: give --format and --out"),
    "folder": (["--format", "safetensors", "--out", "no/where"], r"--out 'no/where' cannot be written \(its folder"),
    "run file": (["--format", "safetensors", "--out", "RUN/model.npz"], "belongs to the run; give another file"),
    "occupied": (["--format", "stablehlo", "--out", "RUN"], "already holds files; name a new folder"),
    "a file": (["--format", "stablehlo", "--out", "RUN/config.json"], "is a file; a folder is written here"),
    "suffix": (["--format", "embeddings", "--out", "x.csv"], r"embeddings are written as .npz, .parquet, or a folder"),
    "split": (["--format", "embeddings", "--out", "x.npz", "--split", "all"], "--split all: choose from train, valid"),
    "split of a model": (["--format", "torch", "--out", "x.pt", "--split", "test"], "--split belongs to --format emb"),
    "pictures": (["--format", "card", "--out", "x.md", "--pictures", "RUN"], "--pictures belongs to --format embedd"),
    "preset": (["emoji", "--format", "card", "--out", "x.md"], "PRESET belongs to --from FILE"),
    "from": (["--from", "x.t7", "--out", "x.md"], "--out does not go with --from, which makes a run folder"),
    "card of train": (["--format", "card", "--out", "x.md", "--split", "train"], "a card has the scores of test or v"),
    "card of last": (["--format", "card", "--out", "x.md", "--checkpoint", "last"], "describes the model that the run"),
    "module": (
        ["--format", "torch", "--out", "x.py"],
        r"the module is written beside the state as .py; name the state",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_refuses_in_one_line(case, toy_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags, message = REFUSED[case]
    assert main(["--workdir", str(toy_run), *(f.replace("RUN", str(toy_run)) for f in flags)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    from mrl_jax import packages

    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    for format, missing in (
        ("safetensors", "safetensors"),
        ("torch", "torch"),
        ("stablehlo", "flatbuffers"),
        ("onnx", "torch, onnx, onnxscript"),
    ):
        message = rf"--format {format} needs {missing}, not installed here; run: pip install {missing.replace(',', '')}"
        with pytest.raises(InputError, match=message):
            export(untrained(), tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_the_command_lists_the_formats(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert "{" + ",".join(FORMATS) + "}" in text
