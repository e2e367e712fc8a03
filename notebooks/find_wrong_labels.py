# %% [markdown]
# # Find wrong labels
#
# Some labels of a data set are wrong. Which? The audit ranks them, without a clean label and without training.

# %%
try:
    import mrl_jax
except ImportError as error:
    raise ImportError("mrl_jax is not installed; in a clone of its repository run: pip install -e .") from error

# %% [markdown]
# ## Data with known errors
#
# To see how well it works, take labels that are right, and break some. These are 1,797 handwritten digits that
# scikit-learn brings. Their left and right halves are the two modalities. 30 % of the labels are replaced by others.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from mrl_jax import audit, preset, train

digits = load_digits()
left, right = (half.reshape(-1, 32) for half in np.split(digits.images, 2, axis=2))
truth, rng = digits.target, np.random.default_rng(0)
wrong = rng.random(len(truth)) < 0.3
given = np.where(wrong, (truth + rng.integers(1, 10, len(truth))) % 10, truth)


def show(rows, titles):
    axes = plt.subplots(2, 8, figsize=(9, 3), layout="constrained")[1]
    for panel in axes.flat:
        panel.axis("off")
    for panel, row, title in zip(axes.flat, rows, titles):
        panel.imshow(digits.images[row], cmap="gray_r")
        panel.set_title(title, fontsize=9)
    plt.show()


show(range(16), [f"labelled {y}" for y in given])

# %% [markdown]
# ## The audit
#
# It gets the features and the labels as they were given. *Wrong* is its estimate of the noise rate, with an interval.

# %%
found = audit(given, z=np.concatenate([left, right], axis=1))
found

# %%
print(f"wrong in truth: {wrong.mean():.1%}")

# %% [markdown]
# The most suspicious samples, with the given label → the one that the audit suggests:

# %%
top = found.suspects(16)
show([x["row"] for x in top], [f"{x['given']} → {x['suggested']}" for x in top])

# %% [markdown]
# ## How good is the ranking?
#
# Go through the samples from the most suspicious one on. The curve says what share of all wrong labels you have met.

# %%
_, order = found.ranking()
figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot([0, wrong.sum(), len(order)], [0, 1, 1], color="0.8", lw=6, label="a perfect ranking")
axes.plot(np.arange(1, len(order) + 1), np.cumsum(wrong[order]) / wrong.sum(), label="by the audit")
axes.plot([0, len(order)], [0, 1], ":", color="0.6", label="in random order")
axes.set(xlabel="samples looked at", ylabel="share of the wrong labels found")
axes.legend()
plt.show()

# %% [markdown]
# ## Does it help?
#
# Replace each label that is probably wrong by the suggested one. Then train on both: on the labels as given, and on the
# cleaned ones. The test labels are clean in both cases, so that the scores can be compared.

# %%
cleaned = np.where(found.p_wrong[0] > 0.5, found.suggested[0], given)
print(f"wrong before {np.mean(given != truth):.1%}, after {np.mean(cleaned != truth):.1%}")

shuffled = np.random.default_rng(1).permutation(len(truth))
parts = {"train": shuffled[:1000], "valid": shuffled[1000:1300], "test": shuffled[1300:]}
config = preset("custom", loss="ce", hidden_dims=(128,), embed_dim=32, learning_rate=1e-3, epochs=15)
for name, labels in (("as given", given), ("cleaned", cleaned)):
    data = {f"{part}_{m}": x[rows] for part, rows in parts.items() for m, x in (("left", left), ("right", right))}
    data |= {f"{part}_labels": (labels if part == "train" else truth)[rows] for part, rows in parts.items()}
    result = train(config, data=data)
    print(f"{name:8}  test mAP {result.scores['test']['last']['average']:.3f}")

# %% [markdown]
# ## No false alarm
#
# The labels as scikit-learn brings them are clean. The audit finds none of them suspicious.

# %%
audit(truth, z=np.concatenate([left, right], axis=1))

# %% [markdown]
# [Audit](../docs/audit.md) has the command, the page that it writes, duplicates, outliers and classes that look like
# one.
#
# The digits are by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, licensed under
# [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/).
