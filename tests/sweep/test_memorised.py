"""A table of a sweep names runs that memorise."""

from mrl_jax.sweep.results import _memorised_lines


def cell(rate, best, last):
    return {
        "settings": {"noise_rate": rate},
        "test": {w: {"average": {"mean": v}} for w, v in (("best", best), ("last", last))},
    }


def test_rows_far_below_their_best_are_counted_and_the_worst_is_named():
    cells = [cell(0.2, 0.5, 0.49), cell(0.6, 0.47, 0.32), cell(0.8, 0.449, 0.189)]
    (_, line) = _memorised_lines({"cells": cells, "varied": ["noise_rate"]})
    assert "0.02 mAP or more below the best in 2 of 3 rows, at most by 0.260 in noise rate 0.8" in line
    assert _memorised_lines({"cells": cells[:1], "varied": ["noise_rate"]}) == []
    assert "by 0.260: the model" in _memorised_lines({"cells": cells[2:], "varied": []})[1]
