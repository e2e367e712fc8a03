"""Total loss and gradients against a transcription of equations 1-8 into PyTorch, with its autograd, in float64."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tolerances

from mrl_jax.losses.mrl import mrl_loss
from mrl_jax.losses.robust.table import PER_SAMPLE_LOSSES

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


def torch_terms(name, logits, labels, transition, targets):
    """The noisy-label losses of the table in `mrl_jax.losses.robust`, by PyTorch's own functions where it has them."""
    import torch
    from torch.nn import functional

    k = logits.shape[-1]
    flat, y = logits.reshape(-1, k), torch.as_tensor(labels.reshape(-1))
    p, hot = flat.softmax(1), functional.one_hot(y, k).to(flat)
    given = p.gather(1, y[:, None])[:, 0]
    ce = functional.cross_entropy(flat, y, reduction="none")
    mae = functional.l1_loss(p, hot, reduction="none").sum(1)
    rce = -(p * torch.where(hot > 0, 0.0, -4.0)).sum(1)
    nce = ce / torch.stack(
        [functional.cross_entropy(flat, torch.full_like(y, c), reduction="none") for c in range(k)]
    ).sum(0)
    likeliest = functional.one_hot(p.argmax(1), k).to(flat)
    found = {
        "rc": lambda: torch.log(1 - given),
        "ce": lambda: ce,
        "focal": lambda: (1 - given) ** 2 * ce,
        "mae": lambda: mae,
        "gce": lambda: (1 - given**0.7) / 0.7,
        "sce": lambda: 0.1 * ce + rce,
        "nce-rce": lambda: nce + rce,
        "nce-mae": lambda: nce + mae,
        "label-smoothing": lambda: functional.cross_entropy(flat, y, reduction="none", label_smoothing=0.1),
        "bootstrap-soft": lambda: functional.cross_entropy(flat, 0.95 * hot + 0.05 * p, reduction="none"),
        "bootstrap-hard": lambda: functional.cross_entropy(flat, 0.8 * hot + 0.2 * likeliest, reduction="none"),
        "forward": lambda: functional.nll_loss((p @ torch.as_tensor(transition).to(p)).log(), y, reduction="none"),
        "elr": lambda: ce + 3 * torch.log(1 - (p * torch.as_tensor(targets).to(p).reshape(-1, k)).sum(1)),
        "lq": lambda: 0.99 * (1 - given**0.01) / 0.01 + 0.01 * (1 - given),
    }[name]()
    return found.reshape(labels.shape)


@pytest.mark.parametrize("tau", [1.0, 0.1])
@pytest.mark.parametrize("name", PER_SAMPLE_LOSSES)
def test_noisy_label_losses_and_gradients_equal_pytorch(inputs, name, tau):
    import torch

    z, centers, labels = inputs
    rng = np.random.default_rng(0)
    transition, targets = rng.dirichlet(np.ones(K), K), 0.9 * rng.dirichlet(np.ones(K), labels.shape)
    more = {"forward": {"transition": transition}, "elr": {"targets": targets}}.get(name, {})
    more = {key: jnp.asarray(x, jnp.float32) for key, x in more.items()}

    def total(z, centers):
        return PER_SAMPLE_LOSSES[name](z, centers, jnp.asarray(labels), tau, **more).sum()

    found = jax.jit(jax.value_and_grad(total, (0, 1)))(jnp.asarray(z), jnp.asarray(centers))
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (z, centers)]
    expected = torch_terms(name, leaves[0] @ leaves[1].T / tau, labels, transition, targets).sum()
    by_torch = torch.autograd.grad(expected, leaves)
    for ours, theirs in zip((found[0], *found[1]), (expected, *by_torch), strict=True):
        theirs = theirs.detach().numpy()
        scale = max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=2 * tolerances.PARITY * scale)
