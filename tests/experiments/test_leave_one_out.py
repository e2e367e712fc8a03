"""The choice of a setting by sets other than the one that is reported."""

import pytest

from experiments.shared.leave_one_out import chosen_without, leave_one_out_table

VALID = {"a": {1: 0.9, 2: 0.4, 3: 0.5}, "b": {1: 0.1, 2: 0.3, 3: 0.3}, "c": {1: 0.2, 2: 0.3}}


def test_a_set_has_no_part_in_its_choice():
    """Without a, 2 has 0.3 and 1 has 0.15; without b, 1 has 0.55; 3 is no choice, since c lacks it."""
    assert chosen_without(VALID) == {"a": 2, "b": 1, "c": 1}
    changed = {**VALID, "a": {1: 0.0, 2: 0.0, 3: 0.0}}
    assert chosen_without(changed)["a"] == 2


def test_the_family_of_a_set_has_no_part_either():
    valid = {"emoji": {1: 0.9, 2: 0.1}, "emoji-31": {1: 0.9, 2: 0.1}, "wikipedia-views": {1: 0.1, 2: 0.2}}
    assert chosen_without(valid) == {"emoji": 2, "emoji-31": 2, "wikipedia-views": 1}


def test_the_table_reports_test_scores_of_the_choice_of_the_defaults_and_of_the_own_choice():
    test = {name: {s: value / 2 for s, value in scores.items()} for name, scores in VALID.items()}
    without_c = {name: VALID[name] for name in ("a", "b")}
    title, _, *rows = leave_one_out_table("Title:", without_c, test, 3, lambda s: f"setting {s}").splitlines()[2:]
    assert title == "Title:"
    assert rows[2:] == [
        "| a | setting 2 | 0.200 | 0.250 | setting 1 | 0.450 |",
        "| b | setting 1 | 0.050 | 0.150 | setting 2 | 0.150 |",
    ]
    assert leave_one_out_table("Title:", without_c, test, 4, str).splitlines()[-1].split("|")[4] == " - "
    assert leave_one_out_table("Title:", {"a": VALID["a"]}, test, 3, str) == ""


@pytest.mark.parametrize("valid", [{"a": {1: 0.5}, "a-1": {1: 0.5}}, {"a": {1: 0.5}, "b": {2: 0.5}}, {}])
def test_two_sets_and_a_common_setting_are_needed(valid):
    with pytest.raises(ValueError, match="two families and a setting are needed"):
        chosen_without(valid)
