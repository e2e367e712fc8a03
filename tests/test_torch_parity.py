"""Total loss and gradients against a transcription of equations 1-8 into PyTorch, with its autograd, in float64."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from mrl_jax.losses import mrl_loss

pytestmark = pytest.mark.bench

B, K, L = 8, 5, 16
BETAS = (0.0, 0.3, 0.7, 1.0)


def torch_total(z, centers, labels, beta, tau, loss, self_similarity):
    """Eq. 8 as written: probabilities first, then their logarithms."""
    import torch

    m, n, _ = z.shape
    clustering = contrastive = 0.0
    for i, j in product(range(m), range(n)):
        weights = torch.exp(centers @ z[i, j] / tau)
        p = weights[labels[i, j]] / weights.sum()  # eq. 1-2
        clustering = clustering + (torch.log(1.0 - p) if loss == "rc" else -torch.log(p))  # eq. 5, eq. 3
        similar = torch.exp(z @ z[i, j] / tau)  # [M, N]
        if not self_similarity:
            keep = torch.ones_like(similar)
            keep[i, j] = 0.0
            similar = similar * keep
        contrastive = contrastive - torch.log(similar[:, j].sum() / similar.sum())  # eq. 6-7
    return beta * clustering / n + (1.0 - beta) * contrastive / n


def draw(m):
    rng = np.random.default_rng(m)
    z, centers = rng.normal(size=(m, B, L)), rng.normal(size=(K, L))
    z, centers = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (z, centers))
    return z.astype(np.float32), centers.astype(np.float32), rng.integers(0, K, (m, B))


@pytest.fixture(scope="module", params=[2, 3, 4], ids=lambda m: f"m{m}")
def inputs(request):
    return draw(request.param)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("tau", [1.0, 0.2, 0.05])
@pytest.mark.parametrize("loss", ["rc", "ce"])
@pytest.mark.parametrize("self_similarity", [True, False])
def test_loss_and_gradients_equal_pytorch(inputs, dtype, tau, loss, self_similarity):
    import torch

    z, centers, labels = inputs
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):

        @jax.jit
        def evaluate(z, centers, beta):
            def total(z, centers):
                options = {"beta": beta, "tau1": tau, "tau2": tau, "loss": loss, "self_similarity": self_similarity}
                return mrl_loss(z, centers, labels, **options)[0]

            return jax.value_and_grad(total, (0, 1))(z, centers)

        arguments = [jnp.asarray(x, dtype) for x in (z, centers)]
        found = [evaluate(*arguments, beta) for beta in BETAS]
    tolerance = tolerances.PARITY if dtype == "float32" else tolerances.FLOAT64["atol"]
    for beta, (value, gradients) in zip(BETAS, found, strict=True):
        leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (z, centers)]
        expected = torch_total(*leaves, labels, beta, tau, loss, self_similarity)
        by_torch = torch.autograd.grad(expected, leaves, materialize_grads=True)
        for ours, theirs in zip((value, *gradients), (expected, *by_torch), strict=True):
            theirs = theirs.detach().numpy()
            scale = max(1.0, np.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * scale)
