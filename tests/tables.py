"""A small data set of two modalities as tables, and as arrays of the own layout."""

import numpy as np
import pandas as pd

from mrl_jax.data.dataset import SPLITS

N = 60
NAMES = np.array(["cat", "dog", "emu"])


def parts():
    """Features of two modalities, classes as numbers, and the split of each row."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 3
    image = (rng.normal(size=(N, 4)) + y[:, None]).astype(np.float32)
    return image, rng.normal(size=(N, 3)) - y[:, None], y, np.array(["train"] * 36 + ["valid"] * 9 + ["test"] * 15)


def wide(**changes):
    """A frame with a column per number."""
    image, text, y, split = parts()
    columns = {f"image_{j}": image[:, j] for j in range(4)} | {f"text_{j}": text[:, j] for j in range(3)}
    columns |= {"label": NAMES[y], "split": split} | changes
    return pd.DataFrame({name: x for name, x in columns.items() if x is not None})


def narrow(**changes):
    """A frame with a column of lists per modality."""
    image, text, y, split = parts()
    columns = {"image": list(image), "text": text.tolist(), "label": NAMES[y], "split": split} | changes
    return pd.DataFrame({name: x for name, x in columns.items() if x is not None})


def arrays(y=None):
    """The same in the own layout."""
    image, text, classes, split = parts()
    y = NAMES[classes] if y is None else y
    return {f"{s}_{key}": x[split == s] for s in SPLITS for key, x in (("image", image), ("text", text), ("labels", y))}
