"""Settings of the tests of the studies."""

import pytest

from experiments.studies import sets


@pytest.fixture(autouse=True, scope="session")
def small_generated_sets():
    """Generated sets of 400 training instances in place of 2,000; the studies do the same with them."""
    whole = dict(sets.GENERATED)
    sets.GENERATED.update(train=(400, 8), valid=(100, 2), test=(100, 2))
    yield whole
    sets.GENERATED.update(whole)
