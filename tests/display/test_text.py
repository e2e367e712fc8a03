"""What a run says at its end."""

import pytest

from mrl_jax.display.text import memorised, summary

DATA = {"name": "toy", "class_names": ["a", "b"], "instances": {"train": 6, "valid": 2, "test": 2}}
NOISE = {"kind": "symmetric", "rate": 0.0}


def text(best, last, **more):
    scores = {"best": {"epoch": 3, "map": {"a->b": best}, "average": best}}
    scores["last"] = {"epoch": 9, "map": {"a->b": last}, "average": last}
    result = {"test": scores, "chance": {"a->b": 0.5}, "seconds": 1.0, "device": "cpu"}
    return summary("method: x", DATA, NOISE, result, None, **more)


@pytest.mark.parametrize(("last", "said"), [(0.481, False), (0.48, True), (0.2, True), (0.6, False)])
def test_a_model_that_memorises_is_named_with_what_helps(last, said):
    found = text(0.5 + 1e-9, last, advice="train on clean labels")
    assert ("below the best: the model memorises its training labels; train on clean labels" in found) == said


def test_chance_is_named_as_what_the_result_holds():
    """A result of an earlier version holds the class prior, and does not say so."""
    assert "  chance (class prior)\n" in text(0.5, 0.5)
    scores = {which: {"epoch": 1, "map": {"a->b": 0.5}, "average": 0.5} for which in ("best", "last")}
    result = {"test": scores, "chance": {"a->b": 0.25}, "chance_of": "random ranking", "seconds": 1.0, "device": "cpu"}
    assert "  chance (random ranking)\n" in summary("method: x", DATA, NOISE, result, None)


def test_the_difference_is_that_of_the_table():
    assert "the last epoch lies 0.260 mAP below the best" in str(memorised(0.449, 0.189))
