r"""What samples are retrieved by: their embeddings, their class posteriors, or both.

With the posterior p(k | x) of `Method.assign` and $p_2(k \mid x) \propto p(k \mid x)^2$, the product of two rows of
"posterior" is the probability that two samples have the same class,

$$\sum_k p_2(k \mid x) \, p_2(k \mid y),$$

if their classes are drawn independently from $p_2$. It is not divided by the lengths: a row of an uncertain sample is
short, so that the sample ranks between those of the class and those of the others.

Shape letters: N rows, L embedding, K classes.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mrl_jax.errors import InputError
from mrl_jax.methods.base import Method
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.options import REPRESENTATIONS

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = [
    "SHARPNESS",
    "check_representation",
    "embedding_weight",
    "metric_of",
    "ranked_by",
    "represent",
    "representation_of",
    "representation_width",
]

SHARPNESS = 2.0
"""Power of the posterior."""

_LEAST_WEIGHT, _CLASSES = 0.1, 300  # the least weight of the embedding; the number of classes at which it is 1


def embedding_weight(classes: int) -> float:
    """The weight of the cosine of two embeddings beside the probability of the same class, for "both": K / 300, or 0.1.

    With few classes the posterior is the better guide, with many the embedding.

    Example:
        >>> embedding_weight(10), embedding_weight(300)
        (0.1, 1.0)
    """
    return max(_LEAST_WEIGHT, classes / _CLASSES)


def representation_of(config: "Config") -> str:
    """The representation of a run; "embedding" where its settings hold none."""
    return config.representation or "embedding"


def metric_of(representation: str) -> str:
    """The similarity that a representation is made for: "cosine" of embeddings, otherwise "dot"."""
    return "cosine" if representation == "embedding" else "dot"


def ranked_by(representation: str, metric: str) -> str:
    """What items are ranked by, in words."""
    if metric == "dot" and representation != "embedding":
        more = " + weighted cosine of embeddings" if representation == "both" else ""
        return f"probability of the same class{more}"
    by = {"cosine": "cosine similarity", "dot": "product", "hamming": "Hamming distance"}[metric]
    of = {"embedding": "", "posterior": " of class posteriors", "both": " of class posteriors with embeddings"}
    return by + of[representation]


def check_representation(method: Method, representation: str) -> str:
    """Refuse an unknown representation, or one that the method does not have.

    Raises:
        InputError: it is not one of `options.REPRESENTATIONS`, or needs `assign`.
    """
    if representation not in REPRESENTATIONS:
        raise InputError(f"representation {representation!r}: choose from {', '.join(REPRESENTATIONS)}")
    if representation != "embedding" and method.assign is None:
        raise InputError(f"representation {representation}: the {method.name} assigns no classes; choose embedding")
    return representation


def represent(method: Method, h: Any, params: Any, z: Any, representation: str) -> Any:
    r"""The rows to retrieve by, from embeddings.

    Args:
        method: the method; for "posterior" and "both" one with `assign`.
        h: its hyperparameters.
        params: its parameters.
        z: unit rows [N, L].
        representation: "embedding", "posterior" or "both".

    Returns:
        "embedding": z. "posterior": $p_2$, [N, K]. "both": $(p_2, \sqrt{w} z)$, [N, K + L], so that the product of
        two rows is the probability of the same class plus w times the cosine of the embeddings (`embedding_weight`).
    """
    return z if representation == "embedding" else _with_posterior(method, h, params, z, representation == "both")


@partial(jax.jit, static_argnames=("method", "both"))
def _with_posterior(method: Method, h: Any, params: Any, z: Array, both: bool) -> Array:
    assert method.assign is not None
    posterior = jax.nn.softmax(SHARPNESS * method.assign(h, params, z), axis=-1)
    weight = embedding_weight(posterior.shape[-1])
    return jnp.concatenate([posterior, np.float32(weight**0.5) * z], axis=-1) if both else posterior


def representation_width(config: "Config", params: Any, features: int, representation: str) -> int:
    """The number of columns of a representation.

    Args:
        config: settings of the run.
        params: its parameters, or their shapes.
        features: number of features of the first modality.
        representation: "embedding", "posterior" or "both".
    """
    method, h = method_of(config), hyperparameters_of(config)

    def row(params: Any, x: Array) -> Array:
        return represent(method, h, params, method.embed(h, params, 0, x), representation)

    return int(jax.eval_shape(row, params, jax.ShapeDtypeStruct((1, features), np.float32)).shape[-1])
