# %% [markdown]
# # Noise study
#
# How does a method bear wrong labels? Train it at several noise rates, with several seeds, beside another. That is a
# sweep: a list of runs, which the package trains as one program where that is faster.

# %%
try:
    import mrl_jax
except ImportError as error:
    raise ImportError("mrl_jax is not installed; in a clone of its repository run: pip install -e .") from error

# %% [markdown]
# ## Data
#
# 1,797 handwritten digits of scikit-learn. The upper and the lower half are two modalities: find the lower halves that
# go with an upper half. Data without splits are cut by class.

# %%
import numpy as np
from sklearn.datasets import load_digits

from mrl_jax import grid, load_dataset, preset, sweep

digits = load_digits()
upper, lower = (half.reshape(-1, 32) for half in np.split(digits.images, 2, axis=1))
data = load_dataset({"upper": upper, "lower": lower, "labels": digits.target}, split="60/15/25")
data

# %% [markdown]
# ## The sweep
#
# Two losses, three noise rates, two seeds: twelve runs. `ce` is cross-entropy, `rc` the robust loss of MRL. If you stop
# the cell, the runs are saved. Run it again, and it goes on.

# %%
base = preset("custom", hidden_dims=(64,), embed_dim=32, learning_rate=3e-3, epochs=12)
runs = grid(base, loss=["rc", "ce"], noise_rate=[0.2, 0.5, 0.8], seed=[0, 1])
study = sweep(runs, "runs/study", data=data, resume="auto")
study

# %% [markdown]
# A row is the mean of its seeds, ± their standard deviation. *Wrong* is the share of training labels that are wrong. A
# star marks the better loss for each noise rate, by validation mAP.
#
# ## The picture

# %%
study.plot()

# %% [markdown]
# ## Every run
#
# The sweep keeps all lines of all runs. Here is the validation mAP at noise 0.8, epoch by epoch.

# %%
import matplotlib.pyplot as plt

colours = {"rc": "tab:blue", "ce": "tab:orange"}
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for run in study.runs.values():
    if run.config.noise_rate == 0.8:
        scores = [line["valid"]["average"] for line in run.metrics]
        label = run.config.loss if run.config.seed == 0 else None
        axes.plot(range(1, len(scores) + 1), scores, color=colours[run.config.loss], label=label)
axes.set(xlabel="epoch", ylabel="validation mAP")
axes.legend(title="loss")
plt.show()

# %% [markdown]
# ## More runs
#
# A longer list, with another loss or a third seed, adds runs to the folder. Those that are there are not trained again.
#
# [Sweeps](../docs/sweep.md) has the command and the tables. [Leaderboard](../docs/leaderboard.md) ranks many methods on
# your data.
