"""Rows of unit length, however large their entries."""

import jax
import numpy as np
import pytest
import tolerances

from mrl_jax.unit_rows import unit_rows, unit_rows_float32, unit_rows_float64, unit_rows_for_ranking

FUNCTIONS = [unit_rows, jax.jit(unit_rows), unit_rows_for_ranking, unit_rows_float32, unit_rows_float64]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_rows_of_any_size_get_unit_length(f):
    x = np.random.default_rng(0).uniform(-1, 1, (60, 16)).astype(np.float32)
    x *= np.logspace(-36, 38.53, 60, dtype=np.float64).astype(np.float32)[:, None]
    x[::7, 0] = np.finfo(np.float32).max
    x[5] = 0
    expected = x.astype(np.float64)
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-300)
    np.testing.assert_allclose(f(x), expected, **tolerances.UNIT)


def test_the_gradient_of_large_rows_is_that_of_scaled_rows_or_too_small_for_float32():
    x = np.random.default_rng(1).uniform(-1, 1, (5, 8)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: unit_rows(x)[:, 0].sum()))
    for power in (100, 127):
        scaled = np.asarray(gradient(x * np.float32(2.0**power)), np.float64) * 2.0**power
        expected = gradient(x) if power < 127 else np.zeros_like(x)
        np.testing.assert_allclose(scaled, expected, **tolerances.REORDERED)
