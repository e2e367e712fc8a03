"""The encoders: unit rows in value and gradient, initial weights, centres, and the forward pass by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from mrl_jax.models.mlp import Encoder, init_centers, unit_rows

SIGMAS = 5  # a statistical check fails by chance once in two million draws, and the draw is fixed


def rows(scale, shape=(4, 6), seed=0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_unit_rows_scales_rows_of_any_length_to_one(scale):
    x = rows(scale)
    exact = x.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit_rows(x), exact, **tolerances.UNIT)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_gradient_of_unit_rows_is_the_projection_on_the_tangent_over_the_length(scale):
    x, weights = rows(scale), rows(1.0, seed=1)
    gradient = jax.grad(lambda x: (weights * unit_rows(x)).sum())(x)
    exact = x.astype(np.float64)
    length = np.linalg.norm(exact, axis=-1, keepdims=True)
    n = exact / length
    expected = weights - n * (n * weights).sum(-1, keepdims=True)  # times 1 / length, put on the other side
    np.testing.assert_allclose(np.asarray(gradient, np.float64) * length, expected, rtol=1e-4, atol=1e-5)


def test_a_zero_row_stays_zero_with_gradient_zero_and_leaves_its_neighbours_alone():
    x = rows(1.0)
    x[1] = 0.0
    weights = rows(1.0, seed=1)
    value, gradient = unit_rows(x), jax.grad(lambda x: (weights * unit_rows(x)).sum())(x)
    np.testing.assert_array_equal(value[1], np.zeros(6))
    np.testing.assert_array_equal(gradient[1], np.zeros(6))
    others = np.array([0, 2, 3])
    np.testing.assert_array_equal(value[others], unit_rows(x[others]))
    assert np.isfinite(gradient).all()
    assert np.abs(np.asarray(gradient)[others]).max() > 0.0


def test_unit_rows_works_on_any_leading_shape_and_under_jit():
    x = rows(1.0, (2, 3, 5))
    np.testing.assert_allclose(unit_rows(x).reshape(6, 5), unit_rows(x.reshape(6, 5)), **tolerances.UNIT)
    np.testing.assert_allclose(jax.jit(unit_rows)(x), unit_rows(x), **tolerances.UNIT)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(x), axis=-1), np.ones((2, 3)), **tolerances.UNIT)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6)])
def test_gradients_of_the_layers_are_those_of_flax(shape):
    x, encoder = rows(1.0, shape), Encoder((7, 5), 4)
    params = encoder.init(jax.random.key(0), x)

    def plain(params, x):
        for i in range(3):
            layer = params["params"][f"Dense_{i}"]
            x = x @ layer["kernel"]
            x = x + layer["bias"].reshape(*[1] * (x.ndim - 1), -1)
            x = jax.nn.relu(x) if i < 2 else unit_rows(x)
        return x

    weights = rows(1.0, (*shape[:-1], 4), seed=1)
    found, expected = (
        jax.jit(jax.grad(lambda *a, f=f: (weights * f(*a)).sum(), (0, 1)))(params, x) for f in (encoder.apply, plain)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_bfloat16_rounds_layers_and_their_outputs_alone():
    x = rows(1.0, (3, 6))
    params = Encoder((7,), 4).init(jax.random.key(0), x)
    found = Encoder((7,), 4, precision="bfloat16")
    assert jax.tree.map(lambda p: (p.shape, p.dtype), found.init(jax.random.key(0), x)) == jax.tree.map(
        lambda p: (p.shape, p.dtype), params
    )
    z = found.apply(params, x)
    assert z.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), np.ones(3), **tolerances.UNIT)

    def rounded(a):
        return np.asarray(jnp.asarray(a).astype(jnp.bfloat16), np.float32)

    layers, hidden = params["params"], rounded(x)
    for i in range(2):
        hidden = hidden @ rounded(layers[f"Dense_{i}"]["kernel"])
        hidden = rounded(rounded(hidden) + rounded(layers[f"Dense_{i}"]["bias"]))
        hidden = np.maximum(hidden, 0) if i == 0 else hidden
    np.testing.assert_allclose(z, unit_rows(hidden), atol=2**-8)  # a last digit of bfloat16, from the order of sums
    assert np.abs(z - Encoder((7,), 4).apply(params, x)).max() > 1e-4
    with pytest.raises(ValueError, match="unknown precision 'half'; known: float32, tf32, bfloat16"):
        Encoder((7,), 4, precision="half").init(jax.random.key(0), x)


@pytest.mark.parametrize("hidden_dims", [(), (7,), (7, 5)])
def test_forward_pass_equals_numpy(hidden_dims):
    encoder, x = Encoder(hidden_dims, 4), rows(1.0, (3, 6))
    params = encoder.init(jax.random.key(0), x)
    layers = params["params"]
    assert len(layers) == len(hidden_dims) + 1
    h = x.astype(np.float64)
    for i in range(len(layers)):
        layer = layers[f"Dense_{i}"]
        h = h @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i < len(hidden_dims):
            h = np.maximum(h, 0.0)
    expected = h / np.linalg.norm(h, axis=-1, keepdims=True)
    found = encoder.apply(params, x)
    np.testing.assert_allclose(found, expected, **tolerances.FORWARD)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.ones(3), **tolerances.UNIT)
    np.testing.assert_allclose(jax.jit(encoder.apply)(params, x), found, **tolerances.FORWARD)


@pytest.mark.slow
def test_rows_are_embedded_independently_of_each_other():
    encoder, x = Encoder((7,), 4), rows(1.0, (5, 6))
    params = encoder.init(jax.random.key(0), x[:1])
    np.testing.assert_allclose(encoder.apply(params, x)[2:3], encoder.apply(params, x[2:3]), **tolerances.FORWARD)


@pytest.mark.slow
def test_uniform_initialisation_is_bounded_by_one_over_the_root_of_the_input_width():
    params = Encoder((300,), 200).init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    for layer, width in (("Dense_0", 100), ("Dense_1", 300)):
        bound = 1.0 / np.sqrt(width)
        for name in ("kernel", "bias"):
            x = np.asarray(params[layer][name], np.float64) / bound
            assert np.abs(x).max() <= 1.0 + 1e-6
            assert np.abs(x).max() > 0.95
            # U(-1, 1): mean 0 with variance 1/3, and x^2 has mean 1/3 with variance 1/5 - 1/9 = 4/45.
            assert abs(x.mean()) < SIGMAS * np.sqrt(1 / 3 / x.size)
            assert abs(np.square(x).mean() - 1 / 3) < SIGMAS * np.sqrt(4 / 45 / x.size)


def test_lecun_normal_initialisation_has_variance_one_over_the_input_width_and_no_biases():
    params = Encoder((300,), 200, "lecun_normal").init(jax.random.key(0), jnp.zeros((1, 100)))["params"]
    for layer, width in (("Dense_0", 100), ("Dense_1", 300)):
        x = np.asarray(params[layer]["kernel"], np.float64) * np.sqrt(width)
        assert abs(x.mean()) < SIGMAS / np.sqrt(x.size)
        # Truncation thins the tails, so the variance of x^2 is below the 2 of a normal distribution.
        assert abs(np.square(x).mean() - 1.0) < SIGMAS * np.sqrt(2 / x.size)
        assert np.abs(x).max() > 1.8  # beyond any uniform distribution of this variance
        np.testing.assert_array_equal(params[layer]["bias"], np.zeros(len(params[layer]["bias"])))


@pytest.mark.parametrize("hidden_dims", [(), (4,)])
def test_unknown_initializer_is_refused_with_the_known_ones(hidden_dims):
    with pytest.raises(ValueError, match=r"'xavier'.*uniform.*lecun_normal"):
        Encoder(hidden_dims, 4, "xavier").init(jax.random.key(0), jnp.zeros((1, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(("k", "dim"), [(1, 1), (1, 8), (5, 8), (8, 8)])
def test_centers_are_orthonormal_where_that_is_possible(k, dim):
    centers = init_centers(jax.random.key(0), k, dim)
    assert centers.dtype == jnp.float32
    np.testing.assert_allclose(centers @ centers.T, np.eye(k), **tolerances.UNIT)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "dim"), [(9, 8), (200, 16), (3, 1)])
def test_more_centers_than_dimensions_are_distinct_unit_rows(k, dim):
    centers = init_centers(jax.random.key(0), k, dim)
    assert centers.shape == (k, dim)
    np.testing.assert_allclose(np.linalg.norm(centers, axis=-1), np.ones(k), **tolerances.UNIT)
    if dim > 1:
        assert len(np.unique(np.asarray(centers), axis=0)) == k


def test_centers_beyond_the_dimensions_have_no_preferred_direction():
    centers = np.asarray(init_centers(jax.random.key(0), 4000, 4), np.float64)
    # Uniform on the sphere: every coordinate has mean 0 and mean square 1/L, with E[x^4] = 3 / (L (L + 2)).
    assert np.abs(centers.mean(0)).max() < SIGMAS * np.sqrt(1 / 4 / 4000)
    assert np.abs(np.square(centers).mean(0) - 1 / 4).max() < SIGMAS * np.sqrt((3 / 24 - 1 / 16) / 4000)


@pytest.mark.parametrize(("k", "dim"), [(5, 8), (9, 8)])
def test_centers_depend_on_the_key_alone(k, dim):
    first, again, other = (init_centers(jax.random.key(seed), k, dim) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 0.1
