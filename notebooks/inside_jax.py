# %% [markdown]
# # Inside JAX
#
# Training is a pure function of arrays. So JAX can compile it, map it over seeds and settings, and spread it over
# devices.

# %%
try:
    import mrl_jax
except ImportError as error:
    raise ImportError("mrl_jax is not installed; in a clone of its repository run: pip install -e .") from error

# %% [markdown]
# This machine may have a single processor. JAX makes eight devices of it, if it is told so before the first array.

# %%
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
print(len(jax.devices()), "devices")

# %% [markdown]
# ## Data
#
# Left and right halves of 1,797 handwritten digits. 60 % of the training labels are drawn anew.

# %%
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from mrl_jax import NoiseSpec, Recipe, init_state, inject_noise, mean_average_precision, train_epoch, train_step
from mrl_jax.train_step import Batch, TrainData, embed

digits = load_digits()
halves = [half.reshape(-1, 32).astype(np.float32) / 16 - 0.3 for half in np.split(digits.images, 2, axis=2)]
rows = np.random.default_rng(0).permutation(len(digits.target))
learn, test = rows[:1280], rows[1280:]
clean = jnp.stack([digits.target[learn]] * 2)  # [modalities, instances]
noisy = inject_noise(clean, NoiseSpec(0.6), jax.random.key(0), num_classes=10)
data = TrainData(tuple(jnp.asarray(x[learn]) for x in halves), noisy.labels)
print(data.labels.shape, [f"{share:.0%} wrong" for share in noisy.wrong_share])

# %% [markdown]
# ## A step
#
# A *recipe* holds networks, loss and optimiser, a *state* all that training changes. A step takes a state and returns
# the next one.

# %%
recipe = Recipe(hidden_dims=(64,), embed_dim=32, learning_rate=2e-3, epochs=15, batch_size=128, tau1=0.5, tau2=0.5)
state = init_state(jax.random.key(0), (32, 32), 10, recipe)
batch = Batch(tuple(x[:128] for x in data.features), data.labels[:, :128], jnp.ones(128, bool))
state, metrics = jax.jit(train_step)(state, batch, recipe)
print({name: round(float(value), 3) for name, value in metrics.items()})
state

# %% [markdown]
# ## A run
#
# An epoch is one compiled loop over the batches, and a run is one over the epochs. Then the test set is embedded.


# %%
def run(seed, beta):
    own = replace(recipe, beta=beta)
    key = jax.random.key(seed)
    state = init_state(key, (32, 32), 10, own)

    def epoch(state, number):
        state, metrics = train_epoch(state, data, key, number, own)
        return state, metrics["loss"].mean()

    state, losses = jax.lax.scan(epoch, state, jnp.arange(own.epochs))
    return jnp.stack(embed(state.params.encoders, [jnp.asarray(x[test]) for x in halves], own)), losses


def score(z):
    return mean_average_precision(z[0], z[1], digits.target[test], digits.target[test])


z, losses = jax.jit(run)(0, 0.7)
print(f"test mAP, from left to right halves: {score(z):.3f}")

# %% [markdown]
# ## Many runs at once
#
# `vmap` maps the run over seeds and over β, the weight of the labels: 24 runs, one program.

# %%
seeds, betas = jnp.arange(4), jnp.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
many = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
z, losses = jax.jit(many)(seeds, betas)
scores = np.array([[score(x) for x in of_seed] for of_seed in z])

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for i in range(0, len(betas), 2):
    axes[0].plot(range(1, 16), losses[:, i].mean(0) - losses[:, i, 0].mean(), label=f"β = {betas[i]:.1f}")
axes[0].set(xlabel="epoch", ylabel="training loss, less that of epoch 1")
axes[0].legend()
axes[1].errorbar(betas, scores.mean(0), scores.std(0), capsize=3, marker="o")
axes[1].set(xlabel="β", ylabel="test mAP (4 seeds)")
plt.show()

# %% [markdown]
# ## Several devices
#
# Put one seed on each device, and the same program trains all eight at the same time.

# %%
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((8,), ("all",), axis_types=(AxisType.Auto,))
spread = NamedSharding(mesh, PartitionSpec("all"))
over_seeds = jax.jit(jax.vmap(run, (0, None)))
z, losses = over_seeds(jax.device_put(jnp.arange(8), spread), 0.7)
print({shard.device.id: shard.data.shape for shard in z.addressable_shards})
print("test mAP of the seeds:", [round(score(x), 3) for x in z])

# %% [markdown]
# Or let all devices share every batch of one run. The numbers stay those of one device, up to the order of sums.

# %%
start = init_state(jax.random.key(0), (32, 32), 10, recipe)
alone, _ = jax.jit(train_epoch)(start, data, jax.random.key(1), 0, recipe)
shared, _ = jax.jit(partial(train_epoch, sharding=spread))(start, data, jax.random.key(1), 0, recipe)
apart = jax.tree.map(lambda a, b: float(abs(a - b).max()), alone.params, shared.params)
print("largest difference of a parameter below 1e-5:", max(jax.tree.leaves(apart)) < 1e-5)

# %% [markdown]
# ## A loss of your own
#
# A method is a few pure functions. This one keeps the networks of MRL and has its own clustering loss: 1 - p, where p
# is the probability of the label. Its gradient is bounded, so that a wrong label cannot pull very hard.

# %%
from mrl_jax import contrastive_loss, preset, soft_assignment, train
from mrl_jax.methods import class_centers, mrl
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.registry import register
from mrl_jax.methods.state import instance_count


def objective(h, params, batch, epoch, axis_name):
    z = class_centers.embed_all(h, params, batch)  # [modalities, batch, embedding]
    p = soft_assignment(z, params.centers, h.tau1)  # [modalities, batch, classes]
    clustering = 1 - jnp.take_along_axis(p, batch.labels[..., None], axis=2)[..., 0]
    pairs = contrastive_loss(z, h.tau2, batch.mask, axis_name=axis_name)
    losses = jnp.where(batch.mask, h.beta * clustering + (1 - h.beta) * pairs, 0)
    return losses.sum() / instance_count(batch.mask, axis_name), ({}, None)


parts = {name: getattr(class_centers, name) for name in ("init_params", "embed", "project", "assign", "decays")}
bounded = gradient_method("bounded", objective=objective, **parts)
register(mrl.ENTRY._replace(name="bounded", summary="MRL with 1 - p.", method=lambda config: bounded))

# %% [markdown]
# It has a name now, and `train`, `sweep`, `evaluate` and search know it.

# %%
arrays = dict(zip(("left", "right"), halves)) | {"labels": digits.target}
config = preset(
    "custom", noise_rate=0.6, split="60/15/25", hidden_dims=(64,), embed_dim=32, learning_rate=2e-3, epochs=15
)
result = train(replace(config, method="bounded"), data=arrays)
result

# %% [markdown]
# [Extending](../docs/extending.md) builds three methods step by step, [Scale](../docs/scale.md) has real devices and
# many processes.
