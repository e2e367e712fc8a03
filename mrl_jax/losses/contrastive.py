"""The multimodal contrastive loss of MRL (Hu et al., CVPR 2021, eq. 6 and 7) as a pure function.

Shape letters: M modalities, B instances of a batch, L embedding dimensions.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from mrl_jax.losses.tiled_logsumexp import log_negatives

__all__ = ["contrastive_loss", "masked_rows"]


def contrastive_loss(
    z: Array,
    tau: ArrayLike = 1.0,
    mask: Array | None = None,
    *,
    self_similarity: bool = False,
    axis_name: str | None = None,
) -> Array:
    r"""Multimodal contrastive loss as per-sample loss (the summand of eq. 7, with P of eq. 6).

    $$-\log P(j \mid x_j^i), \quad P(j \mid x_j^i) =
    \frac{\sum_l \exp(z_j^{l\top} z_j^i / \tau_2)}{\sum_l \sum_t \exp(z_t^{l\top} z_j^i / \tau_2)}$$

    where l runs over the M modalities and t over the batch. The equation includes the similarity of a sample with
    itself (l = i, t = j) in both sums. The official implementation, which produced the published numbers, leaves it out
    of both.

    Memory grows with B, not with its square (`tiled_logsumexp.py`). Only first derivatives in reverse mode exist.

    Args:
        z: embeddings, unit rows [M, B, L].
        tau: temperature tau_2 > 0.
        mask: True where a sample counts, [B] or [M, B]; the others contribute to no sum and have loss 0.
        self_similarity: True for the equation, False (default) for the official implementation.
        axis_name: axis of the devices that share the batch, under `shard_map` or `pmap`. Each device has B instances
            and returns their losses; the instances of all devices are negatives. Embeddings pass around a ring.

    Returns:
        Per-sample losses [M, B], each >= 0; 0 for a sample without positives (all its other modalities are masked).

    Raises:
        ValueError: if z is not [M, B, L], or M = 1 without self-similarity (no sample has a positive).

    Example:
        Two modalities that agree and two instances that are orthogonal: P = e / (e + 2).

        >>> import jax.numpy as jnp
        >>> z = jnp.stack([jnp.eye(2), jnp.eye(2)])
        >>> round(float(contrastive_loss(z)[0, 0]), 4)
        0.5514
    """
    if z.ndim != 3:
        raise ValueError(f"contrastive_loss: z has shape {z.shape}; it must be [modalities, batch, embedding]")
    m, b, _ = z.shape
    if m == 1 and not self_similarity:
        raise ValueError("contrastive_loss: one modality has no positives; use two or more, or self_similarity=True")
    z, valid = masked_rows(z, mask)

    # With P and R the logarithms of the sums over positives and negatives, the loss of a sample is
    # log(1 + exp(R - P)). This form keeps the precision of small losses. Rows divided by the root of tau have inner
    # products divided by tau.
    v = z / jnp.sqrt(tau)
    same = jnp.einsum("ijd,ljd->ijl", v, v, precision="highest")
    positive = valid.T[None] & valid[..., None]
    if not self_similarity:
        positive &= ~jnp.eye(m, dtype=bool)[:, None, :]
    has_positive = positive.any(axis=-1)
    # Rows without positives are set to zero before the sum, so no 0 * inf occurs in the gradient.
    same = jnp.where(has_positive[..., None], jnp.where(positive, same, -jnp.inf), 0.0)
    first = 0 if axis_name is None else b * jax.lax.axis_index(axis_name)
    instance = jnp.where(valid, first + jnp.arange(b), -1)
    largest = jax.lax.stop_gradient(same.max(axis=-1))
    positives = largest, logsumexp(same - largest[..., None], axis=-1)
    negatives = (x.reshape(m, b) for x in log_negatives(v.reshape(m * b, -1), instance.reshape(-1), axis_name))
    large, small = (r - p for r, p in zip(negatives, positives, strict=True))
    return jnp.where(has_positive, jax.nn.softplus(large + small), 0.0)


def masked_rows(z: Array, mask: Array | None) -> tuple[Array, Array]:
    """Set the rows of z that do not count to zero.

    Args:
        z: embeddings [M, B, L].
        mask: True where a sample counts, [B] or [M, B]; None if all count.

    Returns:
        The embeddings, and the mask as [M, B].
    """
    valid = jnp.ones(z.shape[:2], bool) if mask is None else jnp.broadcast_to(jnp.asarray(mask, bool), z.shape[:2])
    return jnp.where(valid[..., None], z, 0.0), valid
