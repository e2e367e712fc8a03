"""Settings and data of the tests of the studies."""

import numpy as np
import pytest
from toy import toy_arrays

from experiments.studies import sets


@pytest.fixture(autouse=True, scope="session")
def small_generated_sets():
    """Generated sets of 400 training instances in place of 2,000; the studies do the same with them."""
    whole = dict(sets.GENERATED)
    sets.GENERATED.update(train=(400, 8), valid=(100, 2), test=(100, 2))
    yield whole
    sets.GENERATED.update(whole)


@pytest.fixture(scope="session")
def views(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "views.npz"
    arrays = {k.replace("sound", "image_cnn").replace("touch", "text_vec"): x for k, x in toy_arrays().items()}
    np.savez(path, **arrays)
    return path
