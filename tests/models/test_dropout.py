"""Dropout."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrl_jax.models.dropout import drop, instance_keys

ROWS = jnp.arange(200)


def dropped(rate=0.3, rows=ROWS, step=0, width=50):
    keys = instance_keys(rows, jnp.int32(step))
    return [np.asarray(drop(jnp.ones((len(rows), width)), rate, keys, place)) for place in (0, 1)]


def test_a_share_is_zero_and_the_mean_stays():
    for x in dropped():
        kept = 1.0 / (1.0 - 77 / 256)  # .3 is 77 of 256 levels
        assert set(np.unique(x)) == {0.0, np.float32(kept)}
        assert (x == 0).mean() == pytest.approx(77 / 256, abs=0.015)
        assert x.mean() == pytest.approx(1.0, abs=0.02)


def test_draws_depend_on_step_instance_and_place_alone():
    first, second = dropped()
    assert (first != second).any()
    assert (dropped(step=1)[0] != first).any()
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(dropped(rows=jnp.asarray(order))[0], first[order])
    np.testing.assert_array_equal(dropped(rows=ROWS[50:60])[1], second[50:60])
    assert (first[0] != first[1]).any()


def test_no_rate_changes_nothing():
    x = jnp.ones((3, 2))
    assert drop(x, 0.0, instance_keys(jnp.arange(3), jnp.int32(0)), 0) is x
