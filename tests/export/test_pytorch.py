"""Models in PyTorch and ONNX, and weights of the official implementation taken in."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from toy import DIMS, save_npz, toy_arrays
from untrained import features, untrained

from mrl_jax import InputError, audit, evaluate, export, load_run, train
from mrl_jax.export.__main__ import main
from mrl_jax.export.official import import_official, read_official
from mrl_jax.methods.registry import METHODS, hyperparameters_of, method_of
from mrl_jax.search.__main__ import main as search_main

pytestmark = pytest.mark.bench
TOLERANCE = 1e-5
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def imported(path):
    """The module that was written beside a state."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", METHODS)
def test_the_written_module_gives_the_rows_of_the_run(name, tmp_path):
    import torch

    kind = "both" if name in ("mrl", "consensus") else None
    run, x = untrained(name, preprocess=("l2", "standardize")), features()
    state, module = export(run, tmp_path / "model.pt", "torch", representation=kind)
    assert (state.name, module.name) == ("model.pt", "model.py")
    model = imported(module).load(state)
    for m, rows in run.represent(x, kind).items():
        with torch.no_grad():
            found = model.represent(m, torch.tensor(x[m]))
            np.testing.assert_allclose(found, rows, atol=TOLERANCE)
            z = model(m, torch.tensor(x[m]))
            if model.classifier:
                expected = method_of(run.config).assign(hyperparameters_of(run.config), run.model.params, z.numpy())
                np.testing.assert_allclose(model.log_posterior(z), expected, atol=5 * TOLERANCE)


def test_names_are_those_of_the_benchmark_program():
    """`experiments.benchmarks.pytorch_mrl` loads the encoders as they are."""
    import torch

    from experiments.benchmarks.pytorch_mrl import Model
    from mrl_jax.export.plain import plain_model

    run, x = untrained(preprocess=("none",)), features()
    tensors = plain_model(run).tensors
    model = Model([DIMS["sound"], DIMS["touch"]], (7, 5), 4, 3)
    loaded = model.load_state_dict(
        {n: torch.tensor(t) for n, t in tensors.items() if n.startswith("enc")}, strict=False
    )
    assert loaded.missing_keys == ["centers"]
    assert not loaded.unexpected_keys
    with torch.no_grad():
        found = model([torch.tensor(x[m]) for m in run.modalities])
    for rows, z in zip(found, run.embed(x).values(), strict=True):
        np.testing.assert_allclose(rows, z, atol=TOLERANCE)


def test_odd_names_stay_text(tmp_path):
    names = ('im"age', "te\\xt'''")
    run = untrained(representation="both")
    stats = dict(zip(names, run.model.preprocess.values(), strict=True))
    config = dataclasses.replace(run.config, modalities=names)
    run = dataclasses.replace(
        run,
        config=config,
        modalities=names,
        model=run.model._replace(preprocess=stats),
        class_names=("$a", '"""', "c\n"),
    )
    state, module = export(run, tmp_path / 'a"b.pt', "torch")
    found = imported(module)
    assert list(names) == found.MODALITIES
    assert found.CLASSES == ["$a", '"""', "c\n"]
    assert found.load(state)


def test_the_loader_of_the_page_reads_safetensors(tmp_path, monkeypatch):
    import torch

    code = next(c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL) if "safe_open" in c)
    assert len(code.splitlines()) <= 30
    run, x = untrained(), features()
    export(run, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    for m, rows in run.embed(x).items():
        with torch.no_grad():
            np.testing.assert_allclose(names["embed"](m, torch.tensor(x[m])), rows, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "kind"), [("mrl", "both"), ("dcca", None)])
def test_onnx_takes_any_batch_size(name, kind, tmp_path):
    import onnxruntime

    run, x = untrained(name, preprocess=("l2", "standardize")), features()
    for path, m in zip(export(run, tmp_path / "onnx", "onnx", representation=kind), run.modalities, strict=True):
        assert path == tmp_path / "onnx" / f"{m}.onnx"
        session = onnxruntime.InferenceSession(str(path))
        for size in (1, 9):
            found = session.run(["rows"], {"features": x[m][:size]})[0]
            np.testing.assert_allclose(found, run.represent(x, kind)[m][:size], atol=TOLERANCE)
        assert [o.name for o in session.get_outputs()] == ["rows", "log_posterior"][: 2 if name == "mrl" else 1]


HIDDEN, WIDTH = 7, 8


def official(path, **changes):
    """A checkpoint as the official implementation saves it: two networks, centres as columns, scores of NumPy."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc1 = torch.nn.Linear(width, HIDDEN)
            self.fc2 = torch.nn.Linear(HIDDEN, HIDDEN)
            self.fc3 = torch.nn.Linear(HIDDEN, WIDTH)

        def forward(self, x):
            x = torch.relu(self.fc2(torch.relu(self.fc1(x))))
            x = self.fc3(x)
            return x / torch.norm(x, dim=1, keepdim=True)

    torch.manual_seed(0)
    nets = [Net(DIMS["sound"]), Net(DIMS["touch"])]
    centers = torch.nn.init.orthogonal_(torch.empty(WIDTH, WIDTH))[:, :3].clone().requires_grad_(True)
    parameters = [centers, *(p for net in nets for p in net.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, betas=(0.5, 0.999))
    sum(net(torch.ones(2, d)).sum() for net, d in zip(nets, (6, 4), strict=True)).backward()
    optimizer.step()
    scores = np.array([0.25, 0.5])
    state = {f"model_state_dict_{v}": net.state_dict() for v, net in enumerate(nets)}
    state |= {"Img2Txt": scores[0], "avg": scores.sum() / 2.0, "epoch": 17}
    state |= {"optimizer_state_dict": optimizer.state_dict(), "C": centers}
    torch.save({k: v for k, v in (state | changes).items() if v is not None}, path)
    return nets


@pytest.fixture
def data(tmp_path):
    return save_npz(tmp_path / "toy.npz", toy_arrays())


def test_official_weights_become_a_run(tmp_path, data, capsys):
    import torch

    nets = official(tmp_path / "official.t7")
    flags = ["--from", str(tmp_path / "official.t7"), "--workdir", str(tmp_path / "run"), "custom"]
    assert main([*flags, "--data-path", str(data), "--modalities", "sound", "touch"]) == 0
    said = capsys.readouterr().out
    assert "sound, touch, 3 classes, epoch 17" in said
    assert "its own test scores: Img2Txt 0.250, avg 0.375" in said
    run, x = load_run(tmp_path / "run"), features()
    for net, (m, rows) in zip(nets, run.embed(x).items(), strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(net(torch.tensor(x[m])), rows, atol=TOLERANCE)
    assert run.epoch == 17
    scores = evaluate(tmp_path / "run")
    assert set(scores["map"]) == {"sound->touch", "touch->sound"}
    assert len(audit(tmp_path / "run", method="model")) == 120
    assert search_main(["--workdir", str(tmp_path / "run"), "--row", "sound:test:0", "--top", "3"]) == 0
    export(tmp_path / "run", tmp_path / "model.safetensors")
    settings = run.config
    assert (settings.hidden_dims, settings.embed_dim, settings.preprocess) == ((7, 7), 8, ("none",))
    assert load_run(tmp_path / "run").represent(x, "posterior")["sound"].shape == (9, 3)


def test_training_starts_from_official_weights(tmp_path, data):
    official(tmp_path / "official.t7")
    run = import_official(
        tmp_path / "official.t7", tmp_path / "run", data_path=str(data), modalities=("sound", "touch")
    )
    config = dataclasses.replace(run.config, init_from=str(tmp_path / "run"), epochs=1, batch_size=20)
    assert train(config, tmp_path / "on").scores["test"]["last"]["epoch"] == 1
    before = (tmp_path / "run" / "model.npz").read_bytes()
    with pytest.raises(InputError, match="were imported, so there is no training to go on with"):
        train(run.config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model.npz").read_bytes() == before


class Harmful:
    """What a checkpoint could run when it is unpickled."""

    def __reduce__(self):
        return (print, ("executed",))


WRONG = {
    "objects": ({"avg": Harmful()}, "cannot be read as tensors and numbers"),
    "no centres": ({"C": None}, "lacks model_state_dict_0 or C"),
    "other layers": (
        {"model_state_dict_1": {"conv.weight": None}},
        r"has the parameters conv.weight; they must be fc1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_files_are_refused_and_nothing_runs(case, tmp_path, capsys):
    changes, message = WRONG[case]
    official(tmp_path / "x.t7", **changes)
    with pytest.raises(InputError, match=message):
        read_official(tmp_path / "x.t7")
    assert "executed" not in capsys.readouterr().out
    (tmp_path / "y.t7").write_bytes((tmp_path / "x.t7").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as tensors and numbers"):
        read_official(tmp_path / "y.t7")
    with pytest.raises(InputError, match=r"does not exist; give the .t7 file"):
        read_official(tmp_path / "none.t7")


def test_data_that_do_not_fit_are_refused(tmp_path, data):
    official(tmp_path / "x.t7")
    with pytest.raises(InputError, match=r"take 6, 4 features, the data have touch 4, sound 6"):
        import_official(tmp_path / "x.t7", tmp_path / "run", data_path=str(data), modalities=("touch", "sound"))
    arrays = toy_arrays()
    for split in ("train", "valid", "test"):
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"] % 2
    with pytest.raises(InputError, match="it has 3 classes, the data 2; give its data"):
        import_official(tmp_path / "x.t7", tmp_path / "run", data=arrays)
    assert not (tmp_path / "run").exists()
