"""Models of any method with drawn parameters, which need no training."""

import jax
import numpy as np
from toy import CLASSES, DIMS, toy_config

from mrl_jax.config import with_settings
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.methods.state import Shapes
from mrl_jax.run.model import Model, TrainedModel

MODALITIES = ("sound", "touch")


def untrained(name="mrl", preprocess=("standardize",), seed=0, **changes):
    """A model of a method, with drawn values in every parameter, those that start at zero included."""
    config = toy_config(method=name, preprocess=preprocess, modalities=MODALITIES, **changes)
    small = {"embed_dim": 4, "tau1": 0.5, "tau2": 0.5, "hidden_dims": (7, 5)}
    config = with_settings(config, **{field: value for field, value in small.items() if config.has_effect(field)})
    method, h, rng = method_of(config), hyperparameters_of(config), np.random.default_rng(seed)
    shapes = Shapes(tuple(DIMS[m] for m in MODALITIES), CLASSES, 10)
    init = method.init_params or (lambda *given: method.init(*given).params)
    params = jax.tree.map(
        lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape), x.dtype), init(h, jax.random.key(seed), shapes)
    )
    stats = {
        m: {"mean": rng.normal(size=DIMS[m]).astype(np.float32), "scale": np.float32(rng.uniform(0.5, 2.0))}
        for m in MODALITIES
    }
    return TrainedModel(config, 3, Model(params, stats), MODALITIES, ("low", "mid", "high"))


def features(rows=9, seed=1):
    """Raw features for the models of `untrained`."""
    rng = np.random.default_rng(seed)
    return {m: (1.0 + 2.0 * rng.normal(size=(rows, DIMS[m]))).astype(np.float32) for m in MODALITIES}
