"""Selection of samples by their losses: the smallest of a batch, or the lower of two Gaussians over all samples.

Shape letters: M modalities, B instances of a batch, N training instances.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["clean_posterior", "small_loss_weights"]

_MIN_VARIANCE = 5e-4  # of a Gaussian, for losses in [0, 1], as in the implementation of Li et al.


def small_loss_weights(losses: Array, fraction: Array, valid: Array, axis_name: str | None = None) -> Array:
    """Weights that select the samples of each modality with the smallest losses (Han et al., NeurIPS 2018).

    Args:
        losses: per-sample losses [M, B].
        fraction: fraction of the samples to select, [M], in [0, 1]; at least one sample is selected.
        valid: True where a sample counts, [M, B].
        axis_name: axis of the devices that share the batch; the selection is over the samples of all devices.

    Returns:
        Weights [M, B], without gradient: 0, or the number of samples that count divided by the number selected. The
        weighted mean over all samples that count is then the mean over the selected ones.
    """
    losses = jax.lax.stop_gradient(jnp.where(valid, losses, jnp.inf))
    everyone = losses if axis_name is None else jax.lax.all_gather(losses, axis_name, axis=1, tiled=True)
    count = jnp.isfinite(everyone).sum(axis=1)
    last = jnp.clip(jnp.round(fraction * count).astype(int), 1) - 1
    bound = jnp.take_along_axis(jnp.sort(everyone, axis=1), last[:, None], axis=1)  # ties are selected together
    chosen = (everyone <= bound) & jnp.isfinite(everyone)
    scale = count / jnp.maximum(chosen.sum(axis=1), 1)
    return jnp.where((losses <= bound) & valid, scale[:, None], 0.0)


def clean_posterior(losses: Array, valid: Array, *, steps: int = 50) -> Array:
    """Probability that a sample belongs to the lower of two Gaussians fitted to the losses (Li et al., ICLR 2020).

    Losses are scaled to [0, 1], and expectation-maximisation starts with the means 0 and 1.

    Args:
        losses: losses of all training samples of a modality [N].
        valid: False where the sample is missing, [N].
        steps: number of steps of expectation-maximisation.

    Returns:
        Probabilities [N]; 0 for missing samples, 1 for all others if all losses are equal.
    """
    low, high = jnp.where(valid, losses, jnp.inf).min(), jnp.where(valid, losses, -jnp.inf).max()
    spread = high > low
    x = jnp.where(valid & spread, (losses - low) / jnp.where(spread, high - low, 1.0), 0.0)[None]  # [1, N]

    def posterior(means: Array, variances: Array, weights: Array) -> Array:
        """Posterior of both components [2, N]; means, variances and component weights are [2, 1]."""
        return jax.nn.softmax(jnp.log(weights) - 0.5 * ((x - means) ** 2 / variances + jnp.log(variances)), axis=0)

    def step(_: int, fit: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        r = posterior(*fit) * valid[None]
        size = r.sum(axis=1, keepdims=True) + 1e-6
        means = (r * x).sum(axis=1, keepdims=True) / size
        variances = (r * (x - means) ** 2).sum(axis=1, keepdims=True) / size + _MIN_VARIANCE
        return means, variances, size / size.sum()

    variance = jnp.var(x, where=valid[None]) + _MIN_VARIANCE
    ends = jnp.arange(2, dtype=x.dtype)[:, None]
    fit = jax.lax.fori_loop(0, steps, step, (ends, jnp.full((2, 1), variance), jnp.full((2, 1), 0.5, x.dtype)))
    lower = jnp.take(posterior(*fit), fit[0][:, 0].argmin(), axis=0)
    return jnp.where(valid, jnp.where(spread, lower, 1.0), 0.0)
