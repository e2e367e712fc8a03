"""What a choice of settings is worth on a set that had no part in it."""

import statistics
import textwrap
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from experiments.shared.tables import markdown

__all__ = ["chosen_without", "leave_one_out_table"]

S = TypeVar("S", bound=Hashable)


def chosen_without(valid: Mapping[str, Mapping[S, float]]) -> dict[str, S]:
    """For every set the setting with the highest mean score over the sets of other families; the first one of a tie.

    Args:
        valid: set -> setting -> score by which settings are chosen. Settings that a set lacks are left out. Sets whose
            names begin with the same word, such as emoji and emoji-31, are one family: they share instances, or how
            they are made.

    Raises:
        ValueError: fewer than two families, or no setting that all sets have.

    Example:
        >>> chosen_without({"a": {1: 0.5, 2: 0.4}, "b": {1: 0.1, 2: 0.3}, "c": {1: 0.2, 2: 0.3}})
        {'a': 2, 'b': 1, 'c': 2}
    """
    common = [s for s in next(iter(valid.values()), {}) if all(s in scores for scores in valid.values())]
    families = {name: name.partition("-")[0] for name in valid}
    if len(set(families.values())) < 2 or not common:
        raise ValueError(
            f"sets {', '.join(valid)} with {len(common)} settings in common: two families and a setting are needed"
        )

    def mean_without(left: str, setting: S) -> float:
        return statistics.mean(valid[name][setting] for name in valid if families[name] != families[left])

    return {left: max(common, key=lambda s: mean_without(left, s)) for left in valid}


def leave_one_out_table(
    title: str,
    valid: Mapping[str, Mapping[S, float]],
    test: Mapping[str, Mapping[S, float]],
    defaults: S,
    text: Callable[[S], str],
) -> str:
    """Test mAP on every set of the setting that sets of other families choose, beside the defaults and its own choice.

    Args:
        title: a line above the table.
        valid: set -> setting -> validation mAP.
        test: set -> setting -> test mAP.
        defaults: the setting of the defaults.
        text: a setting in words.

    Returns:
        A blank line, the title, and the table; "" if there are fewer than two families, or no setting in common.
    """
    try:
        chosen = chosen_without(valid)
    except ValueError:
        return ""
    rows = [["set", "chosen on other families", "test mAP", "the defaults", "chosen on the set itself", "test mAP"]]
    for name, setting in chosen.items():
        own = max(valid[name], key=lambda s: valid[name][s])
        default = f"{test[name][defaults]:.3f}" if defaults in test[name] else "-"
        rows.append([name, text(setting), f"{test[name][setting]:.3f}", default, text(own), f"{test[name][own]:.3f}"])
    return f"\n\n{textwrap.fill(title, 120)}\n\n{markdown(rows)}"
