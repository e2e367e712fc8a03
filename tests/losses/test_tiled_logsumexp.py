"""Negatives tile by tile and device by device: the values and gradients of the dense form, in its tenth of memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from numpy.testing import assert_allclose

from mrl_jax.losses.contrastive import contrastive_loss
from mrl_jax.losses.tiled_logsumexp import log_negatives


def dense(v, instance):
    """The definition, with the whole matrix."""
    s = v @ v.T
    counts = (instance[:, None] != instance[None]) & (instance[:, None] >= 0) & (instance[None] >= 0)
    return jax.nn.logsumexp(jnp.where(counts, s, -jnp.inf), axis=1)


def tiled(*arguments):
    """The two parts together."""
    return sum(log_negatives(*arguments))


def problem(m, n, dim=8, missing=0.0, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(m * n, dim))
    v *= scale / np.linalg.norm(v, axis=1, keepdims=True)
    instance = np.tile(np.arange(n), m)
    instance[rng.random(m * n) < missing] = -1
    weights = np.where(instance >= 0, rng.normal(size=m * n), 0.0)
    return jnp.asarray(v, jnp.float32), jnp.asarray(instance), jnp.asarray(weights, jnp.float32)


def value_and_gradient(function, v, instance, weights):
    """Of the weighted sum over the samples that count."""

    def total(v):
        found = function(v, instance)
        return (weights * jnp.where(instance >= 0, found, 0)).sum(), found

    gradient, found = jax.grad(total, has_aux=True)(v)
    return np.asarray(found), np.asarray(gradient)


def expected(v, instance, weights):
    """The same from the definition, in float64: d r_a / d v_a = sum_b p_ab v_b, d r_a / d v_b = p_ab v_a."""
    v, instance, weights = (np.asarray(x) for x in (v, instance, weights))
    v = v.astype(np.float64)
    counts = (instance[:, None] != instance) & (instance[:, None] >= 0) & (instance >= 0)
    s = np.where(counts, v @ v.T, -np.inf)
    largest = np.where(counts.any(axis=1), s.max(axis=1), 0)[:, None]
    sums = np.exp(s - largest).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        found = (largest + np.log(sums))[:, 0]
    p = weights[:, None] * np.exp(s - largest) / np.where(sums > 0, sums, 1)
    return found, (p + p.T) @ v


def assert_same(got, want, precision=2e-6):
    """Values to the precision, relative to the exponents' size; gradients relative to the largest."""
    (found, gradient), (value, slope) = got, want
    assert (np.isneginf(found) == np.isneginf(value)).all()
    finite = np.isfinite(value)
    assert_allclose(found[finite], value[finite], rtol=precision, atol=precision)
    assert_allclose(gradient, slope, rtol=0, atol=precision * max(1, np.abs(slope).max()))


@pytest.mark.slow
@pytest.mark.parametrize(("missing", "scale"), [(0.0, 5.0), (0.3, 1.0)])
@pytest.mark.parametrize(
    ("m", "n", "tile"), [(2, 1, 7), (2, 16, 16), (2, 37, 7), (2, 37, 1024), (3, 25, 16), (4, 19, 7)]
)
def test_tiles_of_any_size_give_the_dense_form(m, n, missing, scale, tile):
    arrays = problem(m, n, missing=missing, scale=scale)
    found = value_and_gradient(lambda v, i: tiled(v, i, None, tile), *arrays)
    assert_same(found, expected(*arrays), 2e-6 * scale**2)
    if n == 1:
        assert (found[0] == -np.inf).all()
        assert (found[1] == 0).all()


@pytest.mark.slow
def test_similarities_far_apart_neither_overflow_nor_vanish():
    arrays = problem(2, 40, scale=60.0)  # exponents up to 3600, of which float32 keeps 3 digits behind the point
    found = value_and_gradient(lambda v, i: tiled(v, i, None, 16), *arrays)
    assert_same(found, expected(*arrays), 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "missing", "tile"), [(2, 0.4, 1024), (3, 0.0, 5), (8, 0.4, 5)])
def test_a_ring_of_devices_gives_the_values_and_gradients_of_one(devices, missing, tile):
    order = np.argsort(np.tile(np.arange(8 * devices), 3), kind="stable")  # instances stay together
    arrays = [x[order] for x in problem(3, 8 * devices, missing=missing)]
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def local(v, instance):
        return tiled(v, instance, "batch", tile)

    spec = PartitionSpec("batch")
    ring = jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec)
    assert_same(value_and_gradient(jax.jit(ring), *arrays), expected(*arrays))


@pytest.mark.slow
def test_the_loss_over_devices_is_that_of_one_device_in_value_and_gradient():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(2, 24, 6)).astype(np.float32)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    mask = rng.random((2, 24)) > 0.2
    spec = PartitionSpec(None, "batch")

    def one(z, mask):
        return contrastive_loss(z, 0.3, mask)

    def slope(function):
        return jax.jit(jax.grad(lambda z: (function(z, mask) ** 2).sum()))(z)

    for n in (1, 4, 8):
        mesh = Mesh(np.array(jax.devices()[:n]), ("batch",))
        local = partial(contrastive_loss, axis_name="batch")
        ring = jax.shard_map(lambda z, m: local(z, 0.3, m), mesh=mesh, in_specs=(spec, spec), out_specs=spec)  # noqa: B023
        assert_allclose(jax.jit(ring)(z, mask), one(z, mask), rtol=1e-5, atol=1e-6)
        assert_allclose(slope(ring), slope(one), rtol=1e-4, atol=1e-6)


def temporary_bytes(function, *shapes):
    """Of a compiled program, by XLA's own account; nothing is run."""
    return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_grows_with_the_batch_not_with_its_square():
    def needed(n, of):
        v, instance = jax.ShapeDtypeStruct((2 * n, 512), np.float32), jax.ShapeDtypeStruct((2 * n,), np.int32)
        return temporary_bytes(jax.grad(lambda v, instance: of(v, instance).sum()), v, instance)

    assert needed(8192, tiled) < needed(8192, dense) / 10
    assert needed(32768, tiled) < 5 * needed(8192, tiled)


@pytest.mark.slow
def test_a_device_of_eight_needs_a_twelfth_of_what_the_dense_loss_needs_there():
    n, devices, spec = 8192, 8, PartitionSpec(None, "batch")
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))

    def ring(z):
        return contrastive_loss(z, axis_name="batch")

    def gathered(z):
        """Masked logits of a device's rows against all, and the sums of eq. 6 over them."""
        others = jax.lax.all_gather(z, "batch", axis=1, tiled=True)
        at = jax.lax.axis_index("batch") * z.shape[1] + jnp.arange(z.shape[1])
        same = (at[:, None] == jnp.arange(n)[None])[None, :, None, :]
        itself = same & jnp.eye(2, dtype=bool)[:, None, :, None]
        logits = jnp.where(itself, -jnp.inf, jnp.einsum("ijd,ltd->ijlt", z, others))
        positive = jnp.where(same, logits, -jnp.inf)
        return jax.nn.logsumexp(logits, axis=(2, 3)) - jax.nn.logsumexp(positive, axis=(2, 3))

    def sharded(local):
        return jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)

    def slope(local):
        function = sharded(local)
        return jax.grad(lambda z: function(z).sum())

    shape = jax.ShapeDtypeStruct((2, n, 512), np.float32)
    needed = [temporary_bytes(slope(local), shape) for local in (ring, gathered)]
    assert needed[0] < needed[1] / 12
