"""The files of results that claims read."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.shared.folders import RESULTS

__all__ = ["RATES", "RESULTS", "SETS", "Table", "methods_of", "table"]

SETS = ("emoji", "wikipedia-views")
RATES = ("0.2", "0.4", "0.6", "0.8")
Table = Mapping[tuple[str, ...], Sequence[float]]


def table(name: str, value: str, *keys: str) -> Table:
    """Columns of a CSV file of results: the values of `keys` -> the values of all seeds."""
    found = defaultdict(list)
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row[value]:
                found[tuple(row[key] for key in keys)].append(float(row[value]))
    return found


def methods_of(of_set: str) -> dict[str, Any]:
    """Method -> its trials and runs, of a file of runs."""
    content = json.loads((RESULTS / f"runs_{of_set}.json").read_text("utf-8"))
    return dict(content["methods"])
