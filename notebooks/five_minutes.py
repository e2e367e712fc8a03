# %% [markdown]
# # Five minutes
#
# Labels are wrong, and networks learn that, too. Here two models learn to find emoji by their names, from labels of
# which most are wrong. One trains as usual. The other first asks which labels to believe.

# %%
try:
    import mrl_jax
except ImportError as error:
    raise ImportError("mrl_jax is not installed; in a clone of its repository run: pip install -e .") from error

# %% [markdown]
# ## Data
#
# The package contains a data set: 1,898 pictures and names of emoji in nine classes. The first time it is built, which
# takes about 15 seconds.

# %%
from mrl_jax import Query, Searcher, load_dataset, preset, train

load_dataset("emoji")

# %% [markdown]
# ## Noise
#
# With a noise rate of 0.8, eight of ten training labels are drawn anew, from all nine classes. The seed decides which,
# so the next run gets the same. Validation and test labels stay clean. The loss `ce` is cross-entropy, the usual one;
# networks and runs are small here.

# %%
settings = dict(noise_rate=0.8, hidden_dims=(256,), embed_dim=128, learning_rate=5e-4, batch_size=200, epochs=20)
usual = train(preset("emoji", loss="ce", **settings), "runs/usual", resume="auto")
usual

# %% [markdown]
# The score is mAP, between 0 and 1: how far up in the list of all results the right ones stand. *Best* is the epoch
# with the highest validation mAP, *last* is where training ends.
#
# You may stop the cell while it trains: the run is saved in its folder. Run the cell again, and it goes on.
#
# ## Two methods
#
# The method `consensus` lets every instance vote on the labels of the others, and trains on what comes out.

# %%
robust = train(preset("emoji", method="consensus", **settings), "runs/robust", resume="auto")
robust

# %% [markdown]
# ## Curves
#
# Usual training first learns what most labels have in common. Then it learns the wrong ones, and its validation mAP
# falls.

# %%
usual.plot()

# %% [markdown]
# The other keeps what it has learned.

# %%
robust.plot()

# %% [markdown]
# ## Search
#
# Both models now search the test pictures. The queries are four names of the test split, and words of our own. A tick
# means that a picture has the class of the name. First the robust model:

# %%
queries = [*(Query("row", f"text:test:{row}") for row in (50, 150, 250, 350)), "flag of a country"]
Searcher("runs/robust").show(*queries, top=8)

# %% [markdown]
# And the usual one, after its last epoch:

# %%
Searcher("runs/usual", checkpoint="last").show(*queries, top=8)

# %% [markdown]
# ## Next
#
# - [Your data](your_data.ipynb): the same from a table of your own.
# - [Find wrong labels](find_wrong_labels.ipynb): which labels to look at again.
# - [Noise study](noise_study.ipynb): several noise rates, methods and seeds.
# - [Methods](../docs/methods.md): what else there is to train.
#
# The pictures are [Twemoji](https://github.com/twitter/twemoji), © Twitter, Inc and other contributors, licensed under
# [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/).
