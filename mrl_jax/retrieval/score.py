"""The scores of an epoch: mAP of every direction, and accuracy where the method assigns classes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mrl_jax.errors import NonFiniteLossError
from mrl_jax.retrieval.measure import cross_modal_map

__all__ = ["check_finite", "score"]


def score(
    z: Mapping[str, Any], labels: Mapping[str, Any], classes: Mapping[str, Any] | None = None, metric: str = "cosine"
) -> dict[str, Any]:
    """Score embeddings, or other rows to retrieve by.

    Args:
        z: modality -> rows [N, L].
        labels: modality -> integers [N].
        classes: modality -> the most probable class of each row, integers [N]; None where there is none.
        metric: "cosine", "dot" or "hamming".

    Returns:
        `{"map": {"a->b": mAP, …}, "average": mean over the directions, "accuracy": {modality: fraction, …}}`, without
        "accuracy" where there are no classes.

    Raises:
        NonFiniteLossError: a row is inf or NaN.
    """
    check_finite(z)
    by_direction = cross_modal_map(z, labels, metric)
    scores: dict[str, Any] = {"map": by_direction, "average": sum(by_direction.values()) / len(by_direction)}
    if classes is not None:
        scores["accuracy"] = {m: float((np.asarray(classes[m]) == np.asarray(labels[m])).mean()) for m in z}
    return scores


def check_finite(z: Mapping[str, Any]) -> None:
    """Refuse embeddings that are inf or NaN.

    Raises:
        NonFiniteLossError: with the modality.
    """
    for m, rows in z.items():
        if not bool(jax.numpy.isfinite(rows).all()):
            raise NonFiniteLossError(f"the embeddings of {m} are not finite")
