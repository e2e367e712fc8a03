"""What a choice of settings is worth on a set that had no part in it."""

import statistics
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from experiments.shared.tables import markdown

__all__ = ["chosen_without", "leave_one_out_table"]

S = TypeVar("S", bound=Hashable)


def chosen_without(valid: Mapping[str, Mapping[S, float]]) -> dict[str, S]:
    """For every set the setting with the highest mean score over the other sets; the first one of a tie.

    Args:
        valid: set -> setting -> score by which settings are chosen. Settings that a set lacks are left out.

    Raises:
        ValueError: fewer than two sets, or no setting that all of them have.

    Example:
        >>> chosen_without({"a": {1: 0.5, 2: 0.4}, "b": {1: 0.1, 2: 0.3}, "c": {1: 0.2, 2: 0.3}})
        {'a': 2, 'b': 1, 'c': 2}
    """
    common = [s for s in next(iter(valid.values()), {}) if all(s in scores for scores in valid.values())]
    if len(valid) < 2 or not common:
        raise ValueError(f"{len(valid)} sets with {len(common)} settings in common: two sets and a setting are needed")
    return {
        left: max(common, key=lambda s: statistics.mean(valid[name][s] for name in valid if name != left))
        for left in valid
    }


def leave_one_out_table(
    valid: Mapping[str, Mapping[S, float]],
    test: Mapping[str, Mapping[S, float]],
    defaults: S,
    text: Callable[[S], str],
) -> str:
    """Test mAP on every set of the setting that the other sets choose, beside the defaults and the set's own choice.

    Args:
        valid: set -> setting -> validation mAP.
        test: set -> setting -> test mAP.
        defaults: the setting of the defaults.
        text: a setting in words.
    """
    rows = [["set", "chosen on the other sets", "test mAP", "the defaults", "chosen on the set itself", "test mAP"]]
    for name, chosen in chosen_without(valid).items():
        own = max(valid[name], key=lambda s: valid[name][s])
        cells = [text(chosen), f"{test[name][chosen]:.3f}", f"{test[name][defaults]:.3f}"]
        rows.append([name, *cells, text(own), f"{test[name][own]:.3f}"])
    return markdown(rows)
