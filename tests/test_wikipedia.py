"""The two files of the Wikipedia pairs with real features, which lie beside the project where it is developed."""

from pathlib import Path

import numpy as np
import pytest

from mrl_jax import load_dataset
from mrl_jax.data.published.catalog import CATALOG

pytestmark = [pytest.mark.wikipedia, pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")]

FOLDER = Path(__file__).parents[2] / "shared/data/wikipedia"


def test_both_files_give_the_same_labels_and_split():
    old = load_dataset(FOLDER / "raw_features.mat", set_name="wikipedia")
    new = load_dataset(FOLDER / "wikipedia_4views.npz")
    facts = CATALOG["wikipedia"]
    assert old.class_names == new.class_names == facts.class_names
    for s, size in facts.sizes.items():
        assert len(old.splits[s]) == size
        for m in new.modalities:
            np.testing.assert_array_equal(old.splits[s].labels["image"], new.splits[s].labels[m])
