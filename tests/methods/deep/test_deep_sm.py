"""deep-SM: the cross-entropy of the class centres by hand, and the cross-entropy row of the paper's Table 3."""

import jax
import numpy as np
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.methods.registry import entry_of, hyperparameters_of
from mrl_jax.methods.state import Batch, Shapes
from mrl_jax.training.epoch import train_step


def test_its_loss_is_the_cross_entropy_of_the_centres_by_hand():
    config = toy_config(method="deep-sm", tau1=0.7)
    method, h = entry_of("deep-sm").method(config), hyperparameters_of(config)
    rng = np.random.default_rng(0)
    features = tuple(rng.normal(size=(6, d)).astype(np.float32) for d in (5, 4))
    labels = rng.integers(0, 3, (2, 6))
    state = method.init(h, jax.random.key(0), Shapes((5, 4), 3, 6))
    batch = Batch(features, labels, np.ones((2, 6), bool), np.arange(6, dtype=np.int32))
    _, metrics = train_step(method, h, state, batch, 0)
    expected = 0.0  # the sum over modalities of the mean over instances
    for i, x in enumerate(features):
        z = np.asarray(method.embed(h, state.params, i, x), np.float64)
        centers = np.asarray(state.params.centers, np.float64)
        scores = z @ (centers / np.linalg.norm(centers, axis=1, keepdims=True)).T / 0.7
        expected += (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(6), labels[i]]).mean()
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_it_is_the_cross_entropy_row_of_table_3():
    """Published, both rows have the same digits: 0.416, 0.376, 0.270, 0.177 (Tables 1 and 3, Wikipedia)."""
    runs = [
        train(toy_config(noise_rate=0.4, tau1=0.7, epochs=3, **more), data=toy_arrays()).scores["test"]
        for more in ({"method": "deep-sm"}, {"loss": "ce", "beta": 1.0})
    ]
    assert runs[0] == runs[1]
