# %% [markdown]
# # Beside PyTorch
#
# The same model twice: once in PyTorch, once here. The weights go across, both make the same steps, and every number is
# compared.

# %%
try:
    import torch

    import mrl_jax
except ImportError as error:
    raise ImportError(f"{error.name} is missing; in a clone of the repository run: pip install -e . torch") from error

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from mrl_jax import Batch, Recipe, init_state, train_step
from mrl_jax.train_step import embed

digits = load_digits()
halves = [half.reshape(-1, 32).astype(np.float32) / 16 - 0.3 for half in np.split(digits.images, 2, axis=2)]
labels = digits.target

# %% [markdown]
# ## Here
#
# A recipe says what to do, a state holds the numbers.

# %%
tau, beta, rate = 0.5, 0.7, 1e-3
recipe = Recipe(hidden_dims=(64,), embed_dim=16, tau1=tau, tau2=tau, beta=beta, learning_rate=rate, schedule="constant")
state = init_state(jax.random.key(0), (32, 32), 10, recipe)
step = jax.jit(train_step)

# %% [markdown]
# ## In PyTorch
#
# The losses of MRL as the paper writes them, with Adam.


# %%
class MRL(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)) for _ in range(2))
        self.centers = nn.Parameter(torch.zeros(10, 16))

    def forward(self, features):
        return torch.stack([F.normalize(net(x)) for net, x in zip(self.encoders, features)])  # [M, B, L]


def loss_of(model, features, labels):
    z = model(features)
    p = torch.softmax(z @ model.centers.T / tau, dim=2)
    own = p[:, torch.arange(len(labels)), labels]
    clustering = torch.log(1 - own).sum() / len(labels)
    flat = z.flatten(0, 1)  # all samples of both modalities, [M * B, L]
    similar = torch.exp(flat @ flat.T / tau)
    similar = similar - torch.diag(torch.diag(similar))  # none is its own neighbour
    pairs = similar.diagonal(len(labels)).repeat(2)  # the other half of the same digit
    contrastive = -torch.log(pairs / similar.sum(1)).sum() / len(labels)
    return beta * clustering + (1 - beta) * contrastive


# %% [markdown]
# ## Weights across
#
# A kernel of Flax is the transpose of a weight of PyTorch.

# %%
model = MRL()
with torch.no_grad():
    for net, params in zip(model.encoders, state.params.encoders):
        for layer, name in ((net[0], "Dense_0"), (net[2], "Dense_1")):
            layer.weight.copy_(torch.tensor(np.asarray(params["params"][name]["kernel"]).T))
            layer.bias.copy_(torch.tensor(np.asarray(params["params"][name]["bias"])))
    model.centers.copy_(torch.tensor(np.asarray(state.params.centers)))
    theirs = model([torch.tensor(x) for x in halves]).numpy()
ours = np.stack(embed(state.params.encoders, halves, recipe))
print("same embeddings:", np.allclose(ours, theirs, atol=1e-5))

# %% [markdown]
# ## The same steps
#
# 100 steps, with the same batches. The centres are brought back to unit length before each.

# %%
optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.5, 0.999))
losses, rng = [], np.random.default_rng(0)
for _ in range(100):
    rows = rng.choice(len(labels), 100, replace=False)
    features, y = tuple(x[rows] for x in halves), labels[rows]
    state, metrics = step(state, Batch(features, jnp.stack([y, y]), jnp.ones(100, bool)), recipe)

    with torch.no_grad():
        model.centers.copy_(F.normalize(model.centers))
    loss = loss_of(model, [torch.tensor(x) for x in features], torch.tensor(y))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append((float(metrics["loss"]), loss.item()))

# %% [markdown]
# ## Compare

# %%
ours, theirs = np.array(losses).T
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].plot(ours, lw=5, alpha=0.4, label="mrl_jax")
axes[0].plot(theirs, "k--", lw=1, label="PyTorch")
axes[0].set(xlabel="step", ylabel="training loss")
axes[0].legend()
axes[1].semilogy(np.abs(ours - theirs) + 1e-9)
axes[1].set(xlabel="step", ylabel="difference of the losses")
plt.show()

# %%
with torch.no_grad():
    theirs = model([torch.tensor(x) for x in halves]).numpy()
ours = np.stack(embed(state.params.encoders, halves, recipe))
print("cosine of the same sample in both, at least 0.999:", (ours * theirs).sum(2).min() > 0.999)

# %% [markdown]
# Both are in float32, so that the last digits differ, and Adam carries that on. What is left is the same model.
#
# ## The other way
#
# A run that was trained here leaves as a state of PyTorch, with the text of its module: [Export](../docs/export.md).
# [From PyTorch to JAX](../docs/from_pytorch.md) is a page on how to say the same things in both.
