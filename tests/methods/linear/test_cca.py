"""Linear CCA: against float64 in NumPy and against scikit-learn, with missing samples, and through everything."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cross_decomposition import CCA
from toy import assert_same_checkpoints, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, evaluate, grid, load_run, preset, sweep, train
from mrl_jax.errors import NonFiniteLossError
from mrl_jax.methods.linear.cca import cca
from mrl_jax.methods.linear.method import Hyperparameters
from mrl_jax.methods.state import Shapes, TrainData
from mrl_jax.search.index import Index
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.prepare import fitted_params
from mrl_jax.training.run_spec import prepare_data, prepare_run

N, DIMS = 400, (7, 5)
KEY = jax.random.key(0)


def correlated(seed=0):
    """Two modalities that share three directions."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(N, 3))
    return [shared @ rng.normal(size=(3, d)) + 0.7 * rng.normal(size=(N, d)) + 2.0 for d in DIMS]


def data_of(views, **more):
    return TrainData(tuple(views), np.zeros((2, N), np.int32), **more)


def fit(data, ridge=0.0, embed_dim=512):
    h = Hyperparameters(embed_dim, (("energy", 1.0), ("ridge", ridge)))
    return h, cca().fit(h, data, Shapes(DIMS, 3), {})


def reference(views, ridge, rows=slice(None)):
    """Canonical correlations and projections in float64, from the generalised eigenvalue problem."""
    x, y = (v[rows] - v[rows].mean(axis=0) for v in views)
    cxx, cyy, cxy = (a.T @ b / len(x) for a, b in ((x, x), (y, y), (x, y)))
    cxx, cyy = (c + ridge * np.trace(c) / len(c) * np.eye(len(c)) for c in (cxx, cyy))
    values, vectors = np.linalg.eig(np.linalg.solve(cxx, cxy @ np.linalg.solve(cyy, cxy.T)))
    order = np.argsort(-values.real)[: min(DIMS)]
    a = vectors.real[:, order]
    a /= np.sqrt(np.einsum("ik,ij,jk->k", a, cxx, a))
    return np.sqrt(values.real[order]), a


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_correlations_and_directions_equal_the_eigenvalue_problem(ridge):
    views = correlated()
    _, params = fit(data_of(views), ridge)
    correlations, directions = reference(views, ridge)
    np.testing.assert_allclose(params.correlations, correlations, atol=1e-9)
    kernel = params.encoders[0].kernel
    np.testing.assert_allclose(kernel * np.sign((kernel * directions).sum(axis=0)), directions, atol=1e-9)


def test_projections_equal_those_of_scikit_learn():
    views = correlated()
    _, params = fit(data_of(views))
    theirs = CCA(n_components=3, scale=False, max_iter=5000, tol=1e-10).fit(*views).transform(*views)
    for (offset, kernel), x, other in zip(params.encoders, views, theirs, strict=True):
        ours = (x - offset) @ kernel[:, :3]
        for i in range(3):
            assert abs(np.corrcoef(ours[:, i], other[:, i])[0, 1]) > 0.99999


def test_the_projected_training_split_has_unit_variance_and_pairs_correlate():
    views = correlated()
    _, params = fit(data_of(views))
    a, b = ((x - e.offset) @ e.kernel for x, e in zip(views, params.encoders, strict=True))
    np.testing.assert_allclose(a.T @ a / N, np.eye(5), atol=1e-9)
    np.testing.assert_allclose(b.T @ b / N, np.eye(5), atol=1e-9)
    np.testing.assert_allclose(a.T @ b / N, np.diag(params.correlations), atol=1e-9)


def test_missing_samples_and_partners_are_those_of_the_instance():
    views = correlated()
    mask = np.ones((2, N), bool)
    mask[0, :50] = mask[1, 350:] = False
    garbage = [np.where(m[:, None], x, np.nan) for x, m in zip(views, mask, strict=True)]
    _, masked = fit(data_of(garbage, mask=mask), 0.1)
    np.testing.assert_allclose(masked.correlations, reference(views, 0.1, slice(50, 350))[0], atol=1e-9)
    config = toy_config(method="cca", noise_kind="pair-mismatch", noise_rate=0.5)
    spec = prepare_run(config, prepare_data(config, toy_arrays()))
    x, y = (np.asarray(spec.data.features[i])[spec.partners[i]] for i in range(2))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    params = fitted_params(spec)
    found = (x @ params.encoders[0].kernel).T @ (y @ params.encoders[1].kernel) / len(x)
    np.testing.assert_allclose(np.diag(found), params.correlations, atol=1e-4)


def test_constant_and_repeated_columns_stay_finite():
    views = correlated()
    views = [np.where(np.arange(d) == 0, 3.0, x) for x, d in zip(views, DIMS, strict=True)]
    views[0][:, 2] = views[0][:, 1]
    h, params = fit(data_of(views))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    z = cca().embed(h, params, 0, jnp.asarray(views[0], jnp.float32))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_the_embedding_is_no_wider_than_the_narrower_modality_or_as_asked():
    for embed_dim, size in ((512, 5), (2, 2)):
        h, params = fit(data_of(correlated()), embed_dim=embed_dim)
        assert cca().embed(h, params, 1, jnp.ones((4, 5))).shape == (4, size)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["jit", "shard_map", "pmap"])
@pytest.mark.parametrize("stream", ["off", "on"])
def test_devices_and_streaming_change_nothing(parallel, stream):
    config = toy_config(method="cca", noise_rate=0.4)
    one = train(config, data=toy_arrays())
    found = train(dataclasses.replace(config, stream=stream), data=toy_arrays(), parallel=parallel)
    for a, b in zip(*(jax.tree.leaves(run.run.model.params) for run in (one, found)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert found.scores["test"] == one.scores["test"]


@pytest.mark.slow
def test_cca_goes_through_training_resuming_evaluation_and_search(tmp_path):
    data = save_npz(tmp_path / "toy.npz")
    config = toy_config(method="cca", method_options=("ridge=0.01",), data_path=str(data), noise_rate=0.4)
    result = train(config, tmp_path / "run")
    assert [line["epoch"] for line in result.metrics] == [1]
    assert result.metrics[0]["train"] == {}
    assert "accuracy" not in result.scores["test"]["best"]
    assert "method: cca, ridge 0.01, seed 0" in result.table()
    assert result.scores["test"]["best"] == result.scores["test"]["last"]
    assert result.scores["test"]["best"]["average"] > 0.5
    assert (tmp_path / "run" / "curves.png").stat().st_size > 10_000
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (stored["format"], stored["method"], stored["method_options"]) == (4, "cca", ["ridge=0.01"])
    with np.load(tmp_path / "run" / "model.npz") as arrays:
        assert set(arrays) >= {"sound/kernel", "sound/offset", "touch/kernel", "correlations", "sound/mean", "epoch"}
    assert evaluate(tmp_path / "run")["map"] == result.scores["test"]["best"]["map"]
    answer = Searcher(tmp_path / "run").answer(Query("row", "sound:test:3"))
    assert len(answer["results"]) == 10
    index = Index.build(tmp_path / "run")
    assert (len(index), index.width) == (27, 4)
    again = train(toy_config(method="cca", method_options=("ridge=0.01",), data_path=str(data), noise_rate=0.4))
    for name in ("result.json", "model.npz"):
        (tmp_path / "run" / name).unlink()
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.scores["test"] == again.scores["test"] == result.scores["test"]
    train(config, tmp_path / "other")
    assert_same_checkpoints(tmp_path / "run", tmp_path / "other")
    assert load_run(tmp_path / "run").embed_dim == 4


@pytest.mark.slow
def test_a_sweep_of_cca_gives_the_numbers_of_each_alone_and_noise_changes_nothing():
    configs = grid(toy_config(method="cca"), noise_rate=[0.2, 0.6], seed=[0, 1])
    found = sweep(configs, data=toy_arrays(), way="together")  # of closed forms each is computed alone
    alone = train(configs[0], data=toy_arrays()).scores["test"]["best"]["map"]
    for name, outcome in found.runs.items():
        assert name.startswith("cca-noise")
        assert "trained_together" not in outcome.scores
        assert outcome.scores["test"]["best"]["map"] == alone


@pytest.mark.slow
def test_values_that_are_not_finite_are_reported_with_the_remedy_of_the_method():
    config = toy_config(method="cca")
    run = ActiveRun(prepare_run(config, prepare_data(config, toy_arrays())), None)
    with pytest.raises(NonFiniteLossError) as caught:
        run.add(0, {}, False, {})
    assert str(caught.value) == ("epoch 1: parameters are not finite; try a larger ridge, --method-options ridge=R")


def test_what_does_not_fit_is_refused_in_one_line():
    for field, value in (("beta", 0.5), ("epochs", 3), ("loss", "ce"), ("hidden_dims", (4,))):
        with pytest.raises(InputError, match=f"{field} .* has no effect on the method cca; leave it out"):
            preset("custom", method="cca", **{field: value})
    with pytest.raises(InputError, match="beta has no effect on the method cca"):
        grid(toy_config(method="cca"), beta=[0.1, 0.2])
    with pytest.raises(InputError, match=r"options of the method cca are: ridge=NUMBER, energy=NUMBER"):
        toy_config(method="cca", method_options=("width=3",))
    with pytest.raises(InputError, match=r"method_options 'ridge=-1': must be a number at least 0"):
        toy_config(method="cca", method_options=("ridge=-1",))
    with pytest.raises(InputError, match=r"method 'pca': choose from mrl, consensus, cca"):
        toy_config(method="pca")
    three = toy_arrays(("sound", "touch", "smell"))
    with pytest.raises(InputError, match="method cca takes two modalities; the data have 3: sound, touch, smell"):
        train(toy_config(method="cca"), data=three)
