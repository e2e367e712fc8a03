"""The rows of the comparison, the conditions under which they are compared, and their runs."""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.shared.protocol import RATES, SMALL, SMOKE
from experiments.shared.traces import Trace, facts_of, kept_traces, read_traces, trace
from experiments.studies.sets import load_set
from mrl_jax import Config, InputError, grid
from mrl_jax.config import auto_epochs, with_settings
from mrl_jax.methods.consensus import NUMBERS, hidden_dropout_of
from mrl_jax.options import LOSSES

__all__ = [
    "AUGMENTED",
    "BY_BOTH",
    "BY_EMBEDDING",
    "CONDITIONS",
    "OURS",
    "ROWS",
    "Condition",
    "Rows",
    "Runs",
    "runs_of",
]

OURS = "consensus"
PAPER = {"beta": 0.7, "tau1": 1.0, "tau2": 1.0, "schedule": "cosine-hold"}
BY_EMBEDDING = f"{OURS}, by embedding"
BY_BOTH = ", by embedding and posterior"
AUGMENTED = " with dropout and mixup"
"""Of a row with all that consensus has but the inference of labels; it retrieves by both, too."""


class Row(NamedTuple):
    """A row of the tables.

    Attributes:
        changes: fields of `Config`.
        representation: what is retrieved by.
    """

    changes: Mapping[str, Any]
    representation: str = "embedding"


_ROBUST = {
    f"{name} + contrastive{' (oracle noise)' if loss.needs_noise else ''}": Row({"loss": name})
    for name, loss in LOSSES.items()
    if name not in ("rc", "ce")
}
_UNALTERED = {
    OURS: Row({"method": "consensus"}, "both"),
    BY_EMBEDDING: Row({"method": "consensus"}),
    "MRL": Row({}),
    f"MRL{BY_BOTH}": Row({}, "both"),
    "cross-entropy + contrastive": Row({"loss": "ce"}),
    f"cross-entropy + contrastive{BY_BOTH}": Row({"loss": "ce"}, "both"),
    "cross-entropy": Row({"loss": "ce", "beta": 1.0}),
    "paper's recipe": Row(PAPER),
    f"paper's recipe{BY_BOTH}": Row(PAPER, "both"),
    "contrastive": Row({"beta": 0.0}),
}
_NONE_OF_UNITS = ("hidden_dropout=0", "mixup=0")
_WITHOUT = {
    "consensus without mixup": Row({"method": "consensus", "method_options": _NONE_OF_UNITS}, "both"),
    "consensus without mixup and dropout": Row(
        {"method": "consensus", "method_options": ("dropout=0", *_NONE_OF_UNITS)}, "both"
    ),
}
"""At the default length, where consensus has no dropout of units."""
_AUGMENTED = {
    f"MRL{AUGMENTED}": Row({}, "both"),
    f"cross-entropy + contrastive{AUGMENTED}": Row({"loss": "ce"}, "both"),
}
_OTHERS = {f"{name}{BY_BOTH}": Row({"method": name.lower()}, "both") for name in ("ELRCMR", "ACMR")}
"""What came after MRL, and what it compares with: the best of either kind in Table 1 (`experiments.paper.table1`)."""
ROWS = _UNALTERED | _WITHOUT | _AUGMENTED | _OTHERS | _ROBUST
_FEW = tuple(_UNALTERED)[:6]
_SYMMETRIC = {f"noise {rate:g}": {"noise_rate": rate} for rate in RATES}
"""Symmetric noise, the paper's: what a column is called -> fields of `Config`."""
_KINDS = {
    f"{kind} {rate:g}": {"noise_kind": kind, "noise_rate": rate}
    for kind in ("asymmetric", "nearest-class", "instance-dependent")
    for rate in RATES[:2]  # beyond, most labels of a class may be those of another one
}


class Condition(NamedTuple):
    """Under what rows are compared.

    Attributes:
        changes: fields of `Config`.
        rows: names of the rows.
        noises: the noises, which are the columns of a table: heading -> fields of `Config`.
    """

    changes: Mapping[str, Any]
    rows: Sequence[str] = tuple(_UNALTERED)
    noises: Mapping[str, Mapping[str, Any]] = _SYMMETRIC


CONDITIONS = {
    "default length": Condition({}, (*_UNALTERED, *_AUGMENTED, *_WITHOUT, *_OTHERS)),
    "30 epochs": Condition({"epochs": 30}),
    "100 epochs": Condition({"epochs": 100}, (*_UNALTERED, *_AUGMENTED)),
    "200 epochs": Condition({"epochs": 200}, _FEW[:4]),
    "100 epochs, three times the learning rate": Condition({"epochs": 100, "learning_rate": 3e-4}, _FEW[:4]),
    "one label per pair": Condition({"noise_scope": "instance"}),
    "losses against noisy labels, small networks": Condition(SMALL, (*_FEW, *_ROBUST)),
    "other noise": Condition({}, _FEW, {"no noise": {"noise_rate": 0.0}, **_KINDS}),
    "other noise, one label per pair": Condition(
        {"noise_scope": "instance"},
        _FEW,
        {name: of for name, of in _KINDS.items() if of["noise_kind"] != "instance-dependent"},
    ),
}
Rows = dict[str, list[list[Trace]]]
"""Row -> noise -> seed."""
Runs = dict[str, Rows]
"""Condition -> rows."""


def runs_of(
    name: str,
    args: Namespace,
    conditions: Sequence[str],
    rows: Sequence[str] | None = None,
    least: int = 2,
    common: bool = False,
) -> Runs:
    """The runs of a set under all conditions.

    Args:
        name: the set.
        args: flags of the program. Without `from_results` the runs that are missing are trained. With it, rows that
            have `least` seeds at least are taken, each with its own seeds.
        conditions: keys of `CONDITIONS`.
        rows: keys of `ROWS`, which all of the conditions have; None: all rows of each.
        least: number of seeds.
        common: take only the seeds that all rows of a condition have.

    Raises:
        InputError: nothing is stored and nothing may be trained, or the set cannot be loaded.
    """
    path = args.out / f"comparison_{name}.jsonl"
    if args.from_results:
        return _stored(path, args, {c: rows or CONDITIONS[c].rows for c in conditions}, least, common)
    data, runs = load_set(name, args.views), Runs()
    instances = facts_of(data)["instances"]
    for condition in conditions:
        wanted = {row: _configs(condition, row, args, instances) for row in rows or CONDITIONS[condition].rows}
        found = iter(trace([c for own in wanted.values() for c in own], data, path, instances=True))
        runs[condition] = {row: _by_noise([next(found) for _ in own], args.seeds) for row, own in wanted.items()}
    return runs


def _stored(path: Path, args: Namespace, wanted: Mapping[str, Sequence[str]], least: int, common: bool) -> Runs:
    """What a file holds of the wanted rows of conditions."""
    traces = read_traces(path)
    if not traces:
        raise InputError(f"no results in {path}; run without --from-results to make them")
    facts, runs = traces[0].record["data"], Runs()
    for condition, of_condition in wanted.items():
        found = {
            row: _by_noise(kept_traces(_configs(condition, row, args, facts["instances"]), facts, traces), args.seeds)
            for row in of_condition
        }
        seeds = {
            row: {i for i in range(args.seeds) if all(of_noise[i] for of_noise in at)} for row, at in found.items()
        }
        if rows := [row for row in found if len(seeds[row]) >= least]:
            of_all = set.intersection(*(seeds[row] for row in rows))
            own = {row: sorted(of_all if common else seeds[row]) for row in rows}
            runs[condition] = {row: [[of_noise[i] for i in own[row]] for of_noise in found[row]] for row in rows}
    return runs


def _configs(condition: str, row: str, args: Namespace, instances: int) -> list[Config]:
    """The configurations of a row, noises first."""
    changes = {**CONDITIONS[condition].changes, **ROWS[row].changes, **(SMOKE if args.smoke else {})}
    config = with_settings(Config(), **changes)
    if row.endswith(AUGMENTED):
        config = with_settings(config, method_options=_augmentation(config, instances))
    noises = CONDITIONS[condition].noises.values()
    return [c for noise in noises for c in grid(with_settings(config, **noise), seed=list(range(args.seeds)))]


def _augmentation(config: Config, instances: int) -> tuple[str, ...]:
    """The numbers of dropout and mixup that consensus has in a run of this length."""
    steps = (config.epochs or auto_epochs(config, instances)) * math.ceil(instances / config.batch_size)
    numbers = {name: number.default for name, number in NUMBERS.items()}
    numbers["hidden_dropout"] = hidden_dropout_of(steps)
    return tuple(f"{name}={value:.3g}" for name, value in numbers.items())


def _by_noise(traces: Sequence[Any], seeds: int) -> list[list[Any]]:
    return [list(traces[i : i + seeds]) for i in range(0, len(traces), seeds)]
