"""What a model says of the training samples at some epochs: memorising is seen, and samples that it learns late.

Shape letters: M modalities, N training instances, K classes.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from mrl_jax.run.model import embed_rows
from mrl_jax.training.run_spec import RunSpec

__all__ = ["POINTS", "record_samples", "recorded_epochs"]

POINTS = 8
"""Epochs that are recorded, at most; on emoji they take 2 to 4 % of the time of training (`record_timings`)."""


def recorded_epochs(epochs: int) -> set[int]:
    """The epochs after which the training samples are recorded: evenly spread, the last one among them.

    Example:
        >>> sorted(recorded_epochs(5)), sorted(recorded_epochs(64))
        ([1, 2, 3, 4, 5], [8, 16, 24, 32, 40, 48, 56, 64])
    """
    return {round(epochs * i / POINTS) for i in range(1, POINTS + 1)} - {0}


def record_samples(spec: RunSpec, params: Any) -> dict[str, np.ndarray] | None:
    """The most probable class of every training sample, and the margin of its given label.

    The mean of the margin over training is the area under the margin (Pleiss et al., Identifying Mislabeled Data using
    the Area Under the Margin Ranking, NeurIPS 2020), here with log-probabilities.

    Args:
        spec: the run.
        params: parameters of the model.

    Returns:
        "predicted" int32 [M, N], and "margin" float16 [M, N], the log-probability of the given label less the highest
        of the others; None for a run that streams and a method without class posterior. Columns are the instances of
        the run: with moved samples (`pair-mismatch`) those of `RunSpec.labels`.
    """
    method, h = spec.method, spec.hyperparameters
    if method.assign is None or spec.data.features is None:
        return None
    predicted, margins = [], []
    for i, x in enumerate(spec.data.features):
        log_p = method.assign(h, params, embed_rows(method, h, params, i, x))
        if spec.partners is not None:
            log_p = log_p[jnp.asarray(spec.partners[i])]
        given = jnp.asarray(spec.labels[i])
        own = jnp.take_along_axis(log_p, given[:, None], axis=1)[:, 0]
        others = jnp.where(jnp.arange(log_p.shape[1])[None] == given[:, None], -jnp.inf, log_p).max(axis=1)
        predicted.append(np.asarray(log_p.argmax(axis=1), np.int32))
        margins.append(np.clip(np.asarray(own - others), -6e4, 6e4).astype(np.float16))
    return {"predicted": np.stack(predicted), "margin": np.stack(margins)}
