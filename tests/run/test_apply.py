"""A model as a pure function: equal to the one on the host, and under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import features, untrained

from mrl_jax import InputError
from mrl_jax.methods.registry import METHODS, hyperparameters_of, method_of

KINDS = ("standardize", "l2", "none")


@pytest.mark.parametrize("name", METHODS)
def test_it_gives_the_rows_and_classes_of_every_method(name):
    run, x = untrained(name), features()
    found, z = jax.jit(run.apply, static_argnums=2)(run.model, x, "embedding"), run.embed(x)
    method, h = method_of(run.config), hyperparameters_of(run.config)
    for m in x:
        np.testing.assert_allclose(found[m].rows, z[m], atol=2e-6)
        if method.assign is None:
            assert found[m].log_posterior is None
        else:
            expected = method.assign(h, run.model.params, z[m])
            np.testing.assert_allclose(found[m].log_posterior, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_preprocessing_is_that_of_the_host(kind):
    run, x = untrained(preprocess=(kind, "none")), features()
    x["sound"][3] = 0.0  # l2 leaves a zero row as it is
    found = run.apply(run.model, x)
    for m, rows in run.embed(x).items():
        np.testing.assert_allclose(found[m].rows, rows, atol=2e-6)


@pytest.mark.parametrize("representation", ["embedding", "posterior", "both"])
def test_it_gives_what_samples_are_retrieved_by(representation):
    run, x = untrained(), features()
    found = run.apply(run.model, x, representation)
    for m, rows in run.represent(x, representation).items():
        np.testing.assert_allclose(found[m].rows, rows, atol=5e-6)
    run = untrained(representation=representation)
    for m, rows in run.represent(x).items():
        np.testing.assert_allclose(run.apply(run.model, x)[m].rows, rows, atol=5e-6)


def test_it_is_mapped_over_samples_and_models():
    run, x = untrained(), features()
    single = jax.vmap(lambda row: run.apply(run.model, {"sound": row})["sound"].rows)(x["sound"])
    np.testing.assert_allclose(single, run.embed(x)["sound"], atol=2e-6)
    others = [untrained(seed=seed) for seed in (0, 1)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(other.model for other in others))
    rows = jax.vmap(lambda model: run.apply(model, x)["touch"].rows)(stacked)
    for found, other in zip(rows, others, strict=True):
        np.testing.assert_allclose(found, other.embed(x)["touch"], atol=2e-6)


def test_its_gradient_is_that_of_finite_differences():
    run, x = untrained(hidden_dims=()), features(2)

    def score(rows):
        return run.apply(run.model, {"sound": rows})["sound"].rows[0, 0]

    step, at = 1e-2, np.zeros_like(x["sound"])
    at[0, 1] = step
    slope = (score(x["sound"] + at) - score(x["sound"] - at)) / (2 * step)
    gradient = jax.grad(score)(x["sound"])
    assert gradient[0, 1] == pytest.approx(float(slope), rel=1e-2, abs=1e-4)
    assert not np.asarray(gradient[1]).any()  # another sample
    of_model = jax.grad(lambda model: run.apply(model, x)["sound"].log_posterior[:, 0].sum())(run.model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(of_model))
    assert np.asarray(of_model.params.centers).any()


def test_wrong_input_is_refused_in_one_line():
    run, x = untrained(), features()
    with pytest.raises(InputError, match=r"modality 'smell' is not in this run; it has: sound, touch"):
        run.apply(run.model, {"smell": x["sound"]})
    with pytest.raises(InputError, match=r"sound features have shape \[9, 4\]; this run was trained on \[N, 6\]"):
        jax.jit(run.apply)(run.model, {"sound": x["touch"]})
    with pytest.raises(InputError, match="assigns no classes"):
        untrained("cca").apply(untrained("cca").model, x, "posterior")
    with pytest.raises(InputError, match=r"under jit, vmap or grad use run.apply\(run.model, …\)"):
        jax.jit(run.embed)(x)
