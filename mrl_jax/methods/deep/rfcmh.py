r"""RFCMH (ICML 2026), without its sign function: how admissible a label is decides how much a pair of samples counts.

A class is possible for a sample as far as its score allows it, and necessary as far as its rivals are not possible; its
admissibility is between the two. For the first epochs, the admissibility of the given label is pulled to 1, and that of
all other classes to 0. Then pairs of samples are drawn together or apart by their labels, with the smaller of the two
weights that admissibility gives their labels. The class centres are random and fixed, as in the public code.

The paper weighs both contrastive parts by alpha; the public code weighs the part "inter" by 1. The hinge is a sum in
the paper; the code divides it by the sum of the weights, as here. The code also trains on batches of 64 for 150
epochs, with a schedule that restarts and clipped gradients. Its networks end in a layer without bias and in tanh, which
makes codes for the sign function and is left out here, in the losses, too.

Shape letters: M modalities, B batch, L embedding, K classes.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import contrastive_loss, masked_rows
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import Weights, decays, embed, embed_all, init_params, layers
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, bounded, hyperparameters, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch
from mrl_jax.options import Number

__all__ = [
    "ENTRY",
    "admissibility",
    "bounded_contrast",
    "label_weights",
    "log_possibility",
    "margin_contrast",
    "rfcmh",
    "warmup_loss",
    "weighted_hinge",
]

_SHIFT = 1.0  # taken from similarities below the margin
_SMALL = 1e-8


def log_possibility(z: Array, centers: Array, temperature: ArrayLike, sharpness: ArrayLike) -> Array:
    r"""Logarithm of the possibility of every class, $p_k = \sigma(c_k^\top z / \tau)^\gamma$ in (0, 1).

    The public code also divides the possibilities of a sample by their sum. That is left out: possibilities need not
    sum to 1, and with many classes all of them would be close to 1 / K.

    Args:
        z: embeddings, unit rows [..., L].
        centers: class centres, unit rows [K, L].
        temperature: tau > 0.
        sharpness: gamma > 0; the public code has 2.

    Returns:
        Logarithms [..., K].
    """
    return jnp.asarray(sharpness) * jax.nn.log_sigmoid(jnp.dot(z, centers.T, precision="highest") / temperature)


def admissibility(possible: Array, labels: Array, rivals: int) -> Array:
    r"""Admissibility of every class of a sample with a given label y.

    $$n_y = 1 - \tfrac{1}{\kappa} \sum_{k \in R} p_k, \quad n_k = 1 - p_y, \qquad
    a_y = \frac{p_y + \kappa n_y}{1 + \kappa}, \quad a_k = \frac{p_k + n_k}{2}$$

    with R the kappa most possible classes but y, and k another class than y. The public code weighs possibility and
    necessity of all classes as of y; here each counts by its number of rivals, which is 1 for other classes.

    Args:
        possible: possibilities p [..., K].
        labels: given labels y, integers [...].
        rivals: kappa; at most K - 1 are taken.

    Returns:
        Admissibilities [..., K], in [0, 1].

    Example:
        >>> a = admissibility(jnp.array([0.8, 0.4, 0.2]), jnp.array(0), 1)
        >>> [round(x, 2) for x in a.tolist()]
        [0.7, 0.3, 0.2]
    """
    rivals = min(rivals, possible.shape[-1] - 1)
    if rivals == 0:  # one class, which has none
        return possible
    given = jax.nn.one_hot(labels, possible.shape[-1], dtype=bool)
    of_label = jnp.where(given, possible, 0.0).sum(axis=-1, keepdims=True)
    strongest = jax.lax.top_k(jnp.where(given, -1.0, possible), rivals)[0].mean(axis=-1, keepdims=True)
    return jnp.where(given, (possible + rivals * (1.0 - strongest)) / (1 + rivals), (possible + 1.0 - of_label) / 2)


def warmup_loss(possible: Array, labels: Array, valid: Array, rivals: int) -> Array:
    r"""The loss of the first epochs, $\tfrac{1}{N} \sum_{i,j} \lVert a_j^i - y_j^i \rVert^2$, with y one-hot.

    Args:
        possible: possibilities [M, B, K].
        labels: given labels [M, B].
        valid: samples that count, bool [M, B].
        rivals: see `admissibility`.
    """
    y = jax.nn.one_hot(labels, possible.shape[-1])
    squares = ((admissibility(possible, labels, rivals) - y) ** 2).sum(axis=-1)
    return jnp.where(valid, squares, 0.0).sum() / _instances(valid)


def label_weights(
    possible: Array, labels: Array, valid: Array, rivals: int, threshold: ArrayLike, temperature: ArrayLike
) -> Array:
    r"""Weight of the given label of every sample, without gradient.

    $$w = \sigma((g - \delta) / \tau), \quad g = a_y - \max_{k \ne y} a_k \text{ standardised}$$

    All modalities of an instance judge the label: a is the mean of their admissibilities. Where noise gives the
    modalities different labels, each label is judged on its own; the paper has one label per instance. Gaps are
    standardised over the samples of the batch.

    Args:
        possible: possibilities [M, B, K].
        labels: given labels [M, B].
        valid: samples that count, bool [M, B].
        rivals: see `admissibility`.
        threshold: delta.
        temperature: tau > 0.

    Returns:
        Weights [M, B] in [0, 1], 0 where a sample does not count.
    """
    m, b, k = possible.shape
    every = jnp.broadcast_to(possible[None], (m, m, b, k))  # judged label, judging modality
    judged = admissibility(every, jnp.broadcast_to(labels[:, None], (m, m, b)), rivals)
    judges = jnp.where(valid[None, :, :, None], judged, 0.0).sum(axis=1)
    a = judges / jnp.maximum(valid.sum(axis=0), 1)[None, :, None]
    given = jax.nn.one_hot(labels, k, dtype=bool)
    gap = jnp.where(given, a, 0.0).sum(axis=-1) - jnp.where(given, -1.0, a).max(axis=-1)
    count = jnp.maximum(valid.sum(), 1)
    centred = jnp.where(valid, gap - jnp.where(valid, gap, 0.0).sum() / count, 0.0)
    deviation = jnp.sqrt((centred**2).sum() / count)
    weights = jax.nn.sigmoid((centred / (deviation + _SMALL) - threshold) / temperature)
    return jax.lax.stop_gradient(jnp.where(valid, weights, 0.0))


def weighted_hinge(z: Array, labels: Array, valid: Array, weights: Array, margin: ArrayLike) -> Array:
    r"""Weighted hinge loss of pairs of samples of different instances and modalities.

    $$\frac{\sum_{j \ne l} \min(w_j, w_l) [m - \zeta_{jl} z_j^{v\top} z_l^t]_+}{\sum_{j \ne l} \min(w_j, w_l)}, \quad
    \zeta_{jl} = \pm 1 \text{ for the same, another given class}$$

    summed over pairs of modalities.

    Args:
        z: embeddings, unit rows [M, B, L].
        labels: given labels [M, B].
        valid: samples that count, bool [M, B].
        weights: from `label_weights`, [M, B].
        margin: m.
    """
    total = jnp.zeros(())
    others = ~jnp.eye(z.shape[1], dtype=bool)
    for i, k in _pairs(z):
        sign = jnp.where(labels[i][:, None] == labels[k][None], 1.0, -1.0)
        hinge = jax.nn.relu(margin - sign * _similarities(z[i], z[k]))
        counts = others & valid[i][:, None] & valid[k][None]
        w = jnp.where(counts, jnp.minimum(weights[i][:, None], weights[k][None]), 0.0)
        total += (w * hinge).sum() / jnp.maximum(w.sum(), _SMALL)
    return total


def bounded_contrast(z: Array, valid: Array, q: float, temperature: ArrayLike) -> Array:
    r"""Bounded loss of the probability P of MRL's contrastive loss (eq. 6 of its paper): the part "intra".

    $$\tfrac{1}{N} \sum_{i,j} (1 - q) (1 - P^q) / q + q (1 - P)$$

    Args:
        z: embeddings, unit rows [M, B, L].
        valid: samples that count, bool [M, B].
        q: in (0, 1]; towards 0 it is the contrastive loss itself.
        temperature: of P.
    """
    return bounded(contrastive_loss(z, temperature, valid), q).sum() / _instances(valid)


def margin_contrast(z: Array, labels: Array, valid: Array, margin: ArrayLike) -> Array:
    r"""Log-sum-exp over negatives near the margin: the part "inter".

    $$\tfrac{1}{N} \sum_j \log \sum_{l \in C_j} \exp(s_{jl} - [s_{jl} < s_{jj} - m]) - s_{jj} + m$$

    in both directions, summed over pairs of modalities; s are similarities, and C_j holds j itself and the instances of
    another given class. The public code counts others of the same given class as exp(0), a constant without gradient,
    instead of leaving them out.

    Args:
        z: embeddings, unit rows [M, B, L].
        labels: given labels [M, B].
        valid: samples that count, bool [M, B].
        margin: m.
    """
    total = jnp.zeros(())
    itself = jnp.eye(z.shape[1], dtype=bool)
    for i, k in _pairs(z):
        s = _similarities(z[i], z[k])
        another = labels[i][:, None] != labels[k][None]
        both = valid[i] & valid[k]
        pair = jnp.diagonal(s)
        for similar, negative in ((s, another & valid[k][None]), (s.T, another.T & valid[i][None])):
            shifted = similar - _SHIFT * (similar < (pair - margin)[:, None])
            losses = logsumexp(jnp.where(negative | itself, shifted, -jnp.inf), axis=1) - pair + margin
            total += jnp.where(both, losses, 0.0).sum()
    return total / _instances(valid)


def _pairs(z: Array) -> list[tuple[int, int]]:
    """Pairs of modalities."""
    return [(i, k) for k in range(len(z)) for i in range(k)]


def _similarities(a: Array, b: Array) -> Array:
    return jnp.dot(a, b.T, precision="highest")


def _instances(valid: Array) -> Array:
    return jnp.maximum(valid.any(axis=0).sum(), 1)


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    centers = jax.lax.stop_gradient(params.centers)
    warm = jnp.asarray(epoch) < h["warmup"]
    rivals = int(h["rivals"])

    def loss(z: Array, labels: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        labels, valid = labels.T, valid.T
        z, _ = masked_rows(jnp.swapaxes(z, 0, 1), valid)
        labels = jnp.where(valid, labels, 0)
        possible = jnp.exp(log_possibility(z, centers, h["score_temperature"], h["sharpness"]))
        weights = label_weights(possible, labels, valid, rivals, h["threshold"], h["weight_temperature"])
        intra = bounded_contrast(z, valid, h["q"], h["temperature"])
        hinge = weighted_hinge(z, labels, valid, weights, h["margin"])
        inter = margin_contrast(z, labels, valid, h["margin"])
        first = warmup_loss(possible, labels, valid, rivals)
        total = h["alpha"] * intra + jnp.where(warm, first, hinge + h["inter"] * inter)
        weight = weights.sum() / jnp.maximum(valid.sum(), 1)
        return total, {"admissibility": first, "hinge": hinge, "intra": intra, "inter": inter, "label_weight": weight}

    z = jnp.swapaxes(embed_all(h, params, batch), 0, 1)
    total, metrics = of_whole_batch(loss, axis_name, z, batch.labels.T, present(batch).T)
    return total, (metrics, None)


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    """Possibilities as shares of their sum."""
    return jax.nn.log_softmax(log_possibility(z, params.centers, h["score_temperature"], h["sharpness"]), axis=-1)


@functools.cache
def rfcmh() -> Method:
    """The method."""
    return gradient_method(
        "method rfcmh",
        init_params=init_params,
        embed=embed,
        objective=_objective,
        assign=_assign,
        decays=decays,
        layers=layers,
    )


_ANY = float("inf")

ENTRY = MethodEntry(
    name="rfcmh",
    summary="Pairs of samples are drawn together or apart by their given labels, and count as far as the labels are "
    "admissible: possible by their own class score, and necessary by those of their rivals. Class centres are fixed.",
    source="Learning with Admissibility: Robust Fuzzy Hashing for Cross-Modal Retrieval with Noisy Labels, ICML 2026",
    equation=r"L = \frac{\sum_{j \ne l} \min(w_j, w_l) [m - \zeta_{jl} z_j^{v\top} z_l^t]_+}"
    r"{\sum_{j \ne l} \min(w_j, w_l)} + \alpha L_\text{intra} + \alpha' L_\text{inter}, \quad w = "
    r"\sigma \left( \tfrac{1}{\tau} (\bar g - \delta) \right), \quad g = a_y - \max_{k \ne y} a_k",
    cost="several similarities of all samples of a batch",
    method=lambda config: rfcmh(),
    hyperparameters=hyperparameters,
    describe=lambda config: f"method: rfcmh, alpha {config.method_numbers['alpha']:g}, seed {config.seed}",
    title=lambda config: "method rfcmh",
    numbers={
        "alpha": Number(0.1, 0.0, _ANY, "weight of the bounded contrastive loss; 0.5 on XMedia"),
        "inter": Number(0.1, 0.0, _ANY, "weight of the contrast with negatives near the margin; its code has 1"),
        "warmup": Number(3.0, 0.0, _ANY, "epochs in which every label is trusted; fewer than there are"),
        "rivals": Number(4.0, 1.0, _ANY, "number of other classes that decide how necessary a label is", True),
        "margin": Number(0.2, 0.0, 1.0, "margin of the hinge, and of negatives"),
        "threshold": Number(0.0, -10.0, 10.0, "standardised gap of admissibility at which a label has weight 1/2"),
        "weight_temperature": Number(0.7, 1e-3, _ANY, "temperature of the weights of labels"),
        "score_temperature": Number(0.5, 1e-3, _ANY, "temperature of the class scores"),
        "sharpness": Number(2.0, 0.1, _ANY, "exponent of the class scores"),
        "q": Number(0.01, 1e-3, 1.0, "exponent of the bounded contrastive loss"),
        "temperature": Number(0.7, 1e-3, _ANY, "temperature of the bounded contrastive loss"),
    },
    uses=NETWORKS | {"representation"},
    axes=("method", "noise_rate", "learning_rate", "seed"),
    remedy="try a lower learning rate, or --clip-norm 1",
)
"""What the registry knows of the method `rfcmh`."""
