r"""NIRNL (Liu et al., AAAI 2026): nearest neighbours divide the instances into pure, hard and noisy ones.

Before every epoch each modality asks the 10 nearest neighbours of a sample for its class. An instance is pure if the
neighbours of all its samples confirm their given labels, noisy if none do, and hard otherwise. Pure instances have the
cross-entropy of their labels, hard ones a weighted one, and noisy ones another label and a bounded loss. A margin loss
brings the modalities of an instance together.

The centre of a class is the mean of its samples of all modalities on the sphere, computed before every epoch and not
trained. The published code seeks a Wasserstein barycentre by Sinkhorn iterations; with its one atom per class that is
the mean of the samples, up to its tolerance, without unit length.

The published code makes three passes per epoch, one per subset; here every batch has instances of all three, each with
the same weight. Its last layer has no bias, its batches have 256 instances, and tau1 is 1; here networks, batches and
temperature are those of all methods.

Shape letters: M modalities, N training instances, B batch, L embedding, K classes, k neighbours.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.contrastive import masked_rows
from mrl_jax.losses.mrl import label_log_probability, log_soft_assignment
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import Weights, assign, class_layers, decays, embed, init_params, layers
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, of_whole_batch, present
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.state import Batch, Shapes, State, TrainData, instance_count
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

if TYPE_CHECKING:
    from mrl_jax.config import Config

__all__ = ["ENTRY", "class_means", "confirmed", "margin_loss", "nirnl", "refined_losses"]

_ROWS = 4096  # embedded at once
_QUERIES = 256  # compared with all samples at once


def class_means(z: Sequence[Array], labels: Array, valid: Array, before: Array) -> Array:
    r"""Centres: the mean on the sphere of all samples with the label, $c_k \propto \sum_{i,j: y_j^i = k} z_j^i$.

    Args:
        z: unit rows [N, L], one array per modality.
        labels: given labels, [M, N].
        valid: False where a sample is missing, [M, N].
        before: centres [K, L] of classes without samples.

    Returns:
        Unit rows [K, L].
    """
    of_class = jax.nn.one_hot(jnp.where(valid, labels, -1), len(before))  # all 0 where a sample is missing
    total = sum(jnp.dot(y.T, x, precision="highest") for y, x in zip(of_class, z, strict=True))
    return jnp.where(of_class.any(axis=(0, 1))[:, None], unit_rows(jnp.asarray(total)), before)


def confirmed(z: Array, labels: Array, valid: Array, classes: int, neighbours: int = 10) -> Array:
    """Whether most of the nearest neighbours of a sample have its label.

    Of classes with equally many neighbours the one with the greater sum of cosines counts; the published code takes the
    class of the lowest number. Without neighbours no label is confirmed. Samples are compared in blocks.

    Args:
        z: unit rows of one modality, [N, L].
        labels: their given labels, [N].
        valid: False where a sample is missing, [N]; such a sample is no neighbour, and is not confirmed.
        classes: K.
        neighbours: k, without the sample itself.

    Returns:
        bool [N].
    """
    count = len(z)
    k = min(neighbours, max(count - 1, 1))
    z, labels = jnp.where(valid[:, None], z, 0.0), jnp.where(valid, labels, 0)

    def ask(j: Array) -> Array:
        cosines = jnp.dot(z, z[j], precision="highest")
        cosines, near = jax.lax.top_k(jnp.where(valid & (jnp.arange(count) != j), cosines, -jnp.inf), k)
        votes = jnp.where(jnp.isfinite(cosines), 1.0 + cosines / (4 * k), 0.0)  # cosines decide where numbers are equal
        of_class = jnp.dot(votes, jax.nn.one_hot(labels[near], classes), precision="highest")
        return (of_class.argmax() == labels[j]) & (of_class.max() > 0) & valid[j]

    return jax.lax.map(ask, jnp.arange(count), batch_size=min(_QUERIES, count))


def refined_losses(log_p: Array, labels: Array, kept: Array, valid: Array) -> tuple[Array, Array, Array]:
    r"""Losses of the samples of pure, hard and noisy instances.

    $$\text{pure:} \; -\log p_i(y_i), \quad \text{hard:} \; -w(y_i) \log p_i(y_i), \quad
    \text{noisy:} \; \sum_k |[k = \hat y] - p_i(k)| = 2 (1 - p_i(\hat y))$$

    with $w(k) = 1 - \prod_l (1 - p_l(k))$ over the modalities l of the instance, without gradient, and $\hat y$ the
    class of the greatest w.

    Args:
        log_p: log p(k | x), [M, B, K].
        labels: given labels, [M, B].
        kept: which labels the neighbours confirm, bool [M, B].
        valid: which samples count, bool [M, B].

    Returns:
        Losses [M, B], 0 for samples that do not count, and whether an instance is pure [B] or noisy [B].
    """
    labels = jnp.where(valid, labels, 0)
    there = valid.any(axis=0)
    pure, noisy = there & (kept | ~valid).all(axis=0), there & ~(kept & valid).any(axis=0)
    fixed = jax.lax.stop_gradient(log_p)
    miss = jnp.where(valid[..., None], jnp.log1p(-jnp.exp(fixed)), 0.0).sum(axis=0)  # log prod (1 - p), [B, K]
    each = jnp.broadcast_to(miss, fixed.shape)
    weight = jnp.where(pure[None], 1.0, -jnp.expm1(label_log_probability(each, labels)))
    corrected = jnp.broadcast_to(miss.argmin(axis=-1), labels.shape)
    supervised = -weight * label_log_probability(log_p, labels)
    bounded = -2.0 * jnp.expm1(label_log_probability(log_p, corrected))
    return jnp.where(valid, jnp.where(noisy[None], bounded, supervised), 0.0), pure, noisy


def margin_loss(z: Array, valid: Array, margin: ArrayLike) -> Array:
    r"""A sample is closer to its own instance in another modality than to other instances there, by a margin.

    $$\sum_{i \neq l} \tfrac{1}{B (B - 1)} \sum_{j \neq t} [z_j^i \cdot z_t^l - z_j^i \cdot z_j^l + m]_+$$

    over modalities i, l and instances j, t. The published code also counts t = j, which adds a constant and divides by
    the square of B.

    Args:
        z: embeddings, unit rows [M, B, L].
        valid: which samples count, bool [M, B]; the mean is over pairs of which all three samples count.
        margin: m.

    Returns:
        A scalar, 0 where there are no pairs.
    """
    z, valid = masked_rows(z, valid)
    other = ~jnp.eye(z.shape[1], dtype=bool)
    total = jnp.zeros(())
    for a in range(len(z)):
        for b in range(a + 1, len(z)):
            cosines = jnp.dot(z[a], z[b].T, precision="highest")
            own = (z[a] * z[b]).sum(axis=-1)[:, None]
            both = (valid[a] & valid[b])[:, None]
            for s, on in ((cosines, valid[b]), (cosines.T, valid[a])):
                pairs = both & on[None] & other
                total += jnp.where(pairs, jax.nn.relu(s - own + margin), 0.0).sum() / jnp.maximum(pairs.sum(), 1)
    return total


def _init_samples(h: Hyperparameters, shapes: Shapes) -> Array:
    """Which labels the neighbours confirm, [N, M]; all, before they are asked."""
    if shapes.instances < 1:
        raise ValueError("method nirnl keeps a decision on every training sample; give num_instances")
    return jnp.ones((shapes.instances, len(shapes.dims)), bool)


def _refresh(h: Hyperparameters, state: State, data: TrainData, epoch: ArrayLike) -> State:
    """The centres, and which labels the neighbours confirm, from all training samples."""
    valid = jnp.ones(data.labels.shape, bool) if data.mask is None else data.mask
    z = []
    for i, x in enumerate(data.features):
        rows = jax.lax.map(lambda row, i=i: embed(h, state.params, i, row), x, batch_size=min(_ROWS, len(x)))
        z.append(rows if data.partners is None else rows[data.partners[i]])
    centers, k = state.params.centers, int(h["neighbours"])
    kept = [confirmed(*own, len(centers), k) for own in zip(z, data.labels, valid, strict=True)]
    params = state.params._replace(centers=class_means(z, data.labels, valid, centers))
    return state._replace(params=params, samples=jnp.stack(kept, axis=1))


def _objective(
    h: Hyperparameters, params: Weights, batch: Batch, epoch: ArrayLike, axis_name: str | None
) -> tuple[Array, tuple[dict[str, Array], None]]:
    valid = present(batch)
    z = jnp.stack([embed(h, params, i, x) for i, x in enumerate(batch.features)])
    centers = jax.lax.stop_gradient(params.centers)
    log_p = log_soft_assignment(masked_rows(z, valid)[0], centers, h.tau1)
    losses, pure, noisy = refined_losses(log_p, batch.labels, batch.samples.T, valid)
    count = jnp.maximum(instance_count(batch.mask, axis_name), 1)

    def loss(z: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        return margin_loss(jnp.swapaxes(z, 0, 1), valid.T, h["margin"]), {}

    margin, _ = of_whole_batch(loss, axis_name, jnp.swapaxes(z, 0, 1), valid.T)
    clustering = losses.sum() / count
    metrics: dict[str, Any] = {"clustering": clustering, "margin": margin}
    metrics |= {"pure": pure.sum() / count, "noisy": noisy.sum() / count}
    return clustering + h["alpha"] * margin, (metrics, None)


@functools.cache
def nirnl() -> Method:
    """NIRNL of two modalities or more; the published one has two."""
    return gradient_method(
        "method nirnl",
        init_params=init_params,
        embed=embed,
        objective=_objective,
        init_samples=_init_samples,
        refresh=_refresh,
        assign=assign,
        decays=decays,
        needs=frozenset({"resident"}),
        layers=layers,
        class_layers=class_layers,
    )


def _describe(config: "Config") -> str:
    alpha, tau1 = config.method_numbers["alpha"], config.tau1
    return f"method: nirnl, alpha {alpha:g}, tau1 {tau1:.3g}, seed {config.seed}"


ENTRY = MethodEntry(
    name="nirnl",
    summary="Nearest neighbours in every modality divide the instances into pure, hard and noisy ones: their given "
    "labels, labels with weights, and other labels under a bounded loss. Class centres are means on the sphere, where "
    "the published code has barycentres by Sinkhorn iterations; a margin loss brings modalities together.",
    source="Liu et al., Neighbor-aware Instance Refining with Noisy Labels for Cross-Modal Retrieval, AAAI 2026",
    equation=r"L = \tfrac{1}{N} \sum_{i,j} \ell_j^i + \alpha \sum_{i \neq l} \operatorname{mean}_{j \neq t} "
    r"[z_j^i \cdot z_t^l - z_j^i \cdot z_j^l + m]_{+}, \quad \ell = - \log p(y) \text{ or } - w \log p(y) "
    r"\text{ or } 2 (1 - p(\hat y))",
    cost="the similarities of a batch; before every epoch a pass over the training split, and the similarities of all "
    "its samples, in blocks",
    method=lambda config: nirnl(),
    hyperparameters=hyperparameters,
    describe=_describe,
    title=lambda config: f"method nirnl, alpha {config.method_numbers['alpha']:g}",
    numbers={
        "alpha": Number(
            0.9, 0.0, float("inf"), "weight of the margin loss; the paper's for other data than Wikipedia: 0.5"
        ),
        "margin": Number(0.9, 0.0, 2.0, "margin between cosines"),
        "neighbours": Number(10, 1, 1000, "number of neighbours that are asked", True),
    },
    uses=NETWORKS | {"tau1", "representation"},
    axes=("method", "noise_rate", "tau1", "learning_rate", "seed"),
    remedy="try a lower learning rate, a higher temperature, or --clip-norm 1",
)
"""What the registry knows of the method `nirnl`."""
