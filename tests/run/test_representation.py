"""Retrieval by class posterior: values against float64, one setting through training, folders of older versions."""

import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_arrays, toy_config, unchecked

from mrl_jax import Config, InputError, evaluate, grid, load_run, preset, sweep, train
from mrl_jax.eval.scores import Options
from mrl_jax.methods.mrl import Hyperparameters, mrl
from mrl_jax.methods.registry import METHODS, entry_of, register
from mrl_jax.methods.state import Shapes
from mrl_jax.options import REPRESENTATIONS
from mrl_jax.run import RunFolder
from mrl_jax.run.representation import check_representation, metric_of, represent, representation_width
from mrl_jax.training.run_spec import prepare_data, prepare_run

H = Hyperparameters(tau1=0.3, hidden_dims=(6,), embed_dim=5)
POSTERIOR = ("posterior", "both")


@pytest.fixture(scope="module")
def model():
    """Parameters, embeddings [40, 5] of two modalities, and the sharpened posterior [40, 4] of each in float64."""
    method = mrl()
    params = method.init(H, jax.random.key(0), Shapes((4, 3), 4)).params
    rng = np.random.default_rng(0)
    z = [method.embed(H, params, i, jnp.asarray(rng.normal(size=(40, d)), jnp.float32)) for i, d in enumerate((4, 3))]
    centers = np.asarray(params.centers, np.float64)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    p = [np.exp(np.asarray(x, np.float64) @ centers.T / 0.3) for x in z]
    p = [x / x.sum(axis=1, keepdims=True) for x in p]
    return params, z, [x**2 / (x**2).sum(axis=1, keepdims=True) for x in p]


def test_rows_are_those_of_float64(model):
    params, z, p = model
    for x, q in zip(z, p, strict=True):
        assert represent(mrl(), H, params, x, "embedding") is x
        np.testing.assert_allclose(represent(mrl(), H, params, x, "posterior"), q, rtol=2e-5)
        both = np.asarray(represent(mrl(), H, params, x, "both"))
        np.testing.assert_allclose(both, np.concatenate([q, 0.1**0.5 * np.asarray(x)], axis=1), rtol=2e-5, atol=1e-8)


def test_the_product_is_the_probability_of_the_same_class(model):
    params, z, p = model
    a, b = (np.asarray(represent(mrl(), H, params, x, "posterior"), np.float64) for x in z)
    drawn = np.zeros((40, 40))
    for k in range(4):
        for j in range(4):
            drawn += np.outer(p[0][:, k], p[1][:, j]) * (k == j)
    np.testing.assert_allclose(a @ b.T, drawn, rtol=1e-4)
    a, b = (np.asarray(represent(mrl(), H, params, x, "both"), np.float64) for x in z)
    cosine = np.asarray(z[0], np.float64) @ np.asarray(z[1], np.float64).T
    np.testing.assert_allclose(a @ b.T, drawn + 0.1 * cosine, rtol=1e-4, atol=1e-7)


def test_with_many_classes_the_embedding_weighs_more():
    params = mrl().init(H, jax.random.key(0), Shapes((4, 3), 60)).params
    z = mrl().embed(H, params, 0, jnp.ones((1, 4)))
    both = np.asarray(represent(mrl(), H, params, z, "both"), np.float64)
    assert both.shape == (1, 65)
    np.testing.assert_allclose((both[:, 60:] ** 2).sum(), 60 / 300, rtol=1e-5)


def test_widths_and_metrics_of_the_representations(model):
    config = Config(hidden_dims=(6,), embed_dim=5, tau1=0.3)
    widths = {kind: representation_width(config, model[0], 4, kind) for kind in REPRESENTATIONS}
    assert widths == {"embedding": 5, "posterior": 4, "both": 9}
    assert {kind: metric_of(kind) for kind in REPRESENTATIONS} == dict.fromkeys(POSTERIOR, "dot") | {
        "embedding": "cosine"
    }


def test_a_method_without_classes_has_embeddings_only():
    cca = entry_of("cca").method(Config(method="cca"))
    assert check_representation(cca, "embedding") == "embedding"
    with pytest.raises(InputError, match="representation both: the method cca assigns no classes; choose embedding"):
        check_representation(cca, "both")
    with pytest.raises(InputError, match="representation 'text': choose from embedding, posterior, both"):
        check_representation(cca, "text")
    for kind in POSTERIOR:
        with pytest.raises(InputError, match=f"representation {kind} has no effect on the method cca; leave it out"):
            preset("custom", method="cca", representation=kind)
    entry = entry_of("cca")
    register(entry._replace(name="classless", uses=entry.uses | {"representation"}, representation="both"))
    try:
        config = toy_config(method="classless")
        with pytest.raises(InputError, match="representation both: the method cca assigns no classes"):
            prepare_run(config, prepare_data(config, toy_arrays()))
    finally:
        METHODS.pop("classless")


def test_the_method_decides_unless_the_settings_do():
    data = prepare_data(toy_config(), toy_arrays())
    for method in ("mrl", "consensus"):
        config = toy_config(method=method)
        assert prepare_run(config, data).config.representation == entry_of(method).representation
        named = toy_config(method=method, representation="posterior")
        assert prepare_run(named, data).config.representation == "posterior"
    assert {m: entry_of(m).representation for m in ("mrl", "consensus", "cca")} == {
        "mrl": "embedding",
        "consensus": "both",
        "cca": "embedding",
    }
    assert preset("emoji", recipe="paper").representation is None


def rows_of(run, arrays):
    """Rows of the test split by another way: `embed`, then float64."""
    centers = np.asarray(run.model.params.centers, np.float64)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    rows = {}
    for m, z in run.embed({m: arrays[f"test_{m}"] for m in run.modalities}).items():
        logits = 2 * z.astype(np.float64) @ centers.T / run.config.tau1
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        rows[m] = p if run.config.representation == "posterior" else np.concatenate([p, 0.1**0.5 * z], axis=1)
    return rows


def mean_ap(queries, gallery, labels):
    values = []
    for q, y in zip(queries, labels, strict=True):
        hits = (labels == y)[np.argsort(-(gallery @ q), kind="stable")]
        values.append((np.cumsum(hits) / (1 + np.arange(len(hits))))[hits].mean())
    return np.mean(values)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POSTERIOR)
def test_the_scores_of_training_are_by_posterior(kind, tmp_path):
    arrays = toy_arrays()
    config = toy_config(noise_rate=0.5, representation=kind)
    result = train(config, tmp_path / "run", data=arrays)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["representation"] == kind
    rows = rows_of(result.run, arrays)
    for a, b in (("sound", "touch"), ("touch", "sound")):
        expected = mean_ap(rows[a], rows[b], arrays["test_labels"])
        assert result.scores["test"]["best"]["map"][f"{a}->{b}"] == pytest.approx(expected, abs=2e-3)
    plain = train(toy_config(noise_rate=0.5), data=arrays)
    assert [m["train"] for m in plain.metrics] == [m["train"] for m in result.metrics]
    assert plain.scores["test"]["last"]["map"] != result.scores["test"]["last"]["map"]
    assert plain.scores["test"]["last"]["accuracy"] == result.scores["test"]["last"]["accuracy"]


@pytest.mark.slow
def test_streaming_and_sweeps_score_by_posterior():
    arrays = toy_arrays()
    configs = [toy_config(noise_rate=0.5, seed=s, representation=k) for k in REPRESENTATIONS for s in (0, 1)]
    found = sweep(configs, data=arrays, way="together")
    assert [c.representation for c in (r.config for r in found.runs.values())] == [c.representation for c in configs]
    for config, outcome in zip(configs, found.runs.values(), strict=True):
        alone = train(config, data=arrays).scores["test"]["last"]
        assert outcome.scores["trained_together"] == 2
        assert outcome.scores["test"]["last"]["map"] == pytest.approx(alone["map"], abs=0.02)
    streamed = train(toy_config(noise_rate=0.5, seed=1, representation="both", stream="on"), data=arrays)
    assert streamed.scores["test"]["last"]["map"] == pytest.approx(alone["map"], abs=1e-3)


@pytest.mark.slow
def test_methods_of_a_sweep_keep_their_own_default(tmp_path):
    configs = grid(toy_config(epochs=1), method=["mrl", "consensus", "cca"])
    found = sweep(configs, tmp_path / "s", data=toy_arrays())
    for name, outcome in found.runs.items():
        own = RunFolder.open(tmp_path / "s" / "runs" / name).config()
        assert own.representation == {"mrl": "embedding", "consensus": "both", "cca": None}[own.method]
        scores = evaluate(tmp_path / "s" / "runs" / name, data=toy_arrays(), options=Options(bootstrap=0))
        assert scores["map"] == outcome.scores["test"]["best"]["map"]
        assert scores["options"]["representation"] == (own.representation or "embedding")
    again = sweep(configs, tmp_path / "s", data=toy_arrays(), resume=True)
    assert list(again.runs) == list(found.runs)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "shard_map", "pmap"])
def test_several_devices_score_by_posterior(parallel):
    config = toy_config(representation="both", noise_rate=0.5)
    one, eight = (train(config, data=toy_arrays(), parallel=p) for p in ("auto", parallel))
    for a, b in zip(eight.metrics, one.metrics, strict=True):
        assert a["valid"]["map"] == pytest.approx(b["valid"]["map"], abs=0.02)


@pytest.mark.slow
def test_divided_parameters_score_by_posterior():
    config = toy_config(representation="both", epochs=1)
    one = train(config, data=toy_arrays())
    eight = train(config, data=toy_arrays(), parallel="jit", model_parallel=2)
    assert eight.scores["test"]["last"]["map"] == pytest.approx(one.scores["test"]["last"]["map"], abs=0.02)


@pytest.mark.slow
def test_the_epoch_is_chosen_by_the_posterior(tmp_path):
    result = train(toy_config(representation="posterior", noise_rate=0.8, epochs=6), tmp_path / "r", data=toy_arrays())
    averages = [m["valid"]["average"] for m in result.metrics]
    assert result.scores["test"]["best"]["epoch"] == 1 + int(np.argmax(averages))


@pytest.mark.slow
def test_a_run_resumes_with_its_representation_and_a_folder_without_one_has_embeddings(tmp_path):
    config = toy_config(representation="posterior")
    train(config, tmp_path / "run", data=toy_arrays())
    with pytest.raises(InputError, match=r"representation both was given, but the run in .* has posterior"):
        train(toy_config(representation="both"), tmp_path / "run", data=toy_arrays(), resume=True)
    for method in ("mrl", "consensus"):
        folder = tmp_path / method
        train(toy_config(method=method, representation="embedding"), folder, data=toy_arrays())
        values = json.loads((folder / "config.json").read_text())
        assert values.pop("representation") == "embedding"
        (unchecked(folder) / "config.json").write_text(json.dumps(values))
        assert load_run(folder).config.representation == "embedding"
        (folder / "result.json").unlink()
        train(RunFolder.open(folder).config(), folder, data=toy_arrays(), resume=True)


def test_folders_of_format_1_have_embeddings(tmp_path):
    with tarfile.open(Path(__file__).parent / "format1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("mrl", "elr", "gmm"):
        assert RunFolder.open(tmp_path / name).config().representation == "embedding"
