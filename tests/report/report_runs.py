"""Small runs for tests of the report, and the reading of a page without a browser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
from toy import SIZES, toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.report.opened import open_run, read_run

HOSTILE = ("</script><script>window.hacked = 1</script>", "<img src=x onerror=window.hacked=1>", "a&b \"c\" 'd'")
"""Names that break out of a page that does not escape them."""
ODD = ("<b>sound", "touch")


def trained(path, data=None, modalities=("sound", "touch"), **changes):
    """Train a toy run in a folder; returns the folder."""
    data = toy_arrays(modalities) if data is None else data
    train(toy_config(modalities=modalities, **changes), path, data=data)
    return path


def hostile_arrays():
    """Arrays whose classes, ids and one modality have hostile names."""
    arrays = {k.replace("sound", ODD[0]): v for k, v in toy_arrays().items()}
    arrays["class_names"] = np.array(HOSTILE)
    for split, n in SIZES.items():
        arrays[f"{split}_ids"] = np.array([f"{HOSTILE[i % 3]} {split} {i}" for i in range(n)])
    return arrays


def odd_arrays():
    """Three modalities, missing samples, and galleries of different sizes."""
    arrays = toy_arrays(("sound", "touch", "smell"))
    labels = arrays.pop("test_labels")
    for m in ("sound", "touch", "smell"):
        arrays[f"test_{m}_labels"] = labels if m != "smell" else labels[:20]
    arrays["test_smell"] = arrays["test_smell"][:20]
    mask = np.ones(SIZES["train"], bool)
    mask[[3, 10]] = False
    arrays["train_touch_mask"] = mask
    return arrays


def opened(path, data, split="test"):
    """A run with its data and scores."""
    return open_run(read_run(path, "run"), split, data)


class Page(HTMLParser):
    """What a page holds: its tags, its text, its sections, and the data of its script."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self.texts, self.sections = html, [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())
        found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', html, re.DOTALL)
        self.data = json.loads(found[1])

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(dict(attrs)["id"])

    def handle_data(self, data):
        self.texts.append(data)
