"""The full report on embeddings: all metrics per direction and class, instance-level scores, bootstrap intervals.

Shape letters: Q queries, G gallery items, S metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.significance import LEVEL, bootstrap_means, bootstrap_medians, interval
from mrl_jax.retrieval import measure as retrieval
from mrl_jax.retrieval.similarity import (
    NO_CODES_OF_RUN,
    NoCodesError,
    check_metric,
    code_kinds,
    common_magnitude,
    find_form,
    scaled_lengths,
    squared_lengths,
)
from mrl_jax.run.representation import metric_of

__all__ = [
    "PROTOCOLS",
    "Direction",
    "Options",
    "PerQuery",
    "check_fit",
    "compared_exactly",
    "counted",
    "directions",
    "full_report",
    "rank_queries",
]

PROTOCOLS = ("cross", "others", "within")
"""Which gallery a query of a modality ranks: each other modality alone, all others together, or its own."""
INSTANCE_K = (1, 5, 10)  # cut-offs of instance-level recall

_MIN_SAMPLES = 100  # of the bootstrap; with fewer, the ends of a 95% interval are the extremes
_ORDER = ("ap", "r_precision", "rr", "ndcg", "ap@", "ap_min@", "precision@", "recall@", "ndcg@", "curve", "relevant")

PerQuery = dict[str, np.ndarray]
"""Metric -> its values of all queries, [Q], as from `retrieval.retrieval_metrics`."""


class Direction(NamedTuple):
    """Modality of the queries, and modalities of the gallery; `exclude_self` if these are the same."""

    query: str
    gallery: tuple[str, ...]
    exclude_self: bool


@dataclass(frozen=True)
class Options:
    """What to report.

    Attributes:
        k: cut-offs of the metrics at k.
        protocol: one or more of `PROTOCOLS`; the average is over the directions of the first.
        without_relevant: whether queries without a relevant item count as 0 ("zero") or are left out ("skip").
        bootstrap: number of bootstrap samples for the intervals; 0 for no intervals.
        seed: seed of these samples.
        metric: similarity to rank by: "cosine", "dot", or "hamming" for codes; None for what the representation of the
            rows is made for: "cosine" for embeddings, otherwise "dot".

    Raises:
        InputError: a value out of range.
    """

    k: tuple[int, ...] = (1, 5, 10, 50)
    protocol: tuple[str, ...] = ("cross",)
    without_relevant: str = "zero"
    bootstrap: int = 1000
    seed: int = 0
    metric: str | None = None

    def __post_init__(self) -> None:
        for name in ("k", "protocol"):  # a single value needs no tuple
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | int) else tuple(value))
        if (
            not self.k
            or len(set(self.k)) < len(self.k)
            or any(not isinstance(k, int | np.integer) or k < 1 for k in self.k)
        ):
            raise InputError(f"k {_joined(self.k)}: give integers from 1 on, each once")
        unknown = [p for p in self.protocol if p not in PROTOCOLS]
        if unknown or not self.protocol or len(set(self.protocol)) < len(self.protocol):
            raise InputError(f"protocol {_joined(self.protocol)}: choose from {', '.join(PROTOCOLS)}, each once")
        if self.without_relevant not in ("zero", "skip"):
            raise InputError(f"without_relevant {self.without_relevant!r}: choose zero or skip")
        if self.bootstrap and not _MIN_SAMPLES <= self.bootstrap <= 10**7:
            raise InputError(f"bootstrap {self.bootstrap}: give 0 for no intervals, or {_MIN_SAMPLES} to 10,000,000")
        if self.metric is not None:
            check_metric(self.metric)

    def metric_for(self, data: Embedded) -> str:
        """The similarity that rows are ranked by."""
        return self.metric or metric_of(data.representation)

    def of_ranking(self, *systems: Embedded) -> dict[str, Any]:
        """What a report says of the order of items; metric is None where that of two systems differs."""
        metrics = [self.metric_for(data) for data in systems]
        exact = all(compared_exactly(data, metric) for data, metric in zip(systems, metrics, strict=True))
        return {
            "metric": metrics[0] if len(set(metrics)) == 1 else None,
            "ties": "gallery order",
            "similarities": "exact" if exact else "float32",
        }


def directions(data: Embedded, protocols: Sequence[str]) -> dict[str, Direction]:
    """The directions of some protocols, by name: `a->b`, `a->others`, `a->a`.

    Raises:
        InputError: only one modality for a protocol that needs two, different embedding sizes, or one row for the
            protocol within.
    """
    names = list(data.embeddings)
    if {"cross", "others"} <= set(protocols) and "others" in names:
        raise InputError(
            f"{data.source}: with a modality of the name others, choose protocol cross or others, not both"
        )
    by_name: dict[str, Direction] = {}
    for protocol in protocols:
        if protocol == "within":
            by_name |= {f"{a}->{a}": Direction(a, (a,), True) for a in names}
            continue
        if len(names) < 2:
            notes = "".join(f" ({note})" for note in data.notes)
            raise InputError(
                f"{data.source}: {names[0]} is the only modality{notes}; add another, or choose protocol within"
            )
        widths = {m: np.shape(z)[1] for m, z in data.embeddings.items()}
        if len(set(widths.values())) > 1:
            given = ", ".join(f"{m} has {n}" for m, n in widths.items())
            raise InputError(f"{data.source}: numbers of columns differ: {given}; embed into one common space")
        if protocol == "cross":
            by_name |= {f"{a}->{b}": Direction(a, (b,), False) for a in names for b in names if a != b}
        else:
            by_name |= {f"{a}->others": Direction(a, tuple(b for b in names if b != a), False) for a in names}
    if single := next(
        (d.query for d in by_name.values() if d.exclude_self and len(data.embeddings[d.query]) < 2), None
    ):
        raise InputError(f"{data.source}: {single} has one row and an empty gallery within; add rows, or leave it out")
    return by_name


def rank_queries(
    data: Embedded,
    direction: Direction,
    k: Sequence[int],
    metrics: Sequence[str] | None = None,
    metric: str = "cosine",
) -> PerQuery:
    """Compute metrics of every query of a direction, in the order of reports; the data must have labels."""
    assert data.labels is not None
    gallery = np.concatenate([data.embeddings[m] for m in direction.gallery])
    labels = np.concatenate([data.labels[m] for m in direction.gallery])
    values = retrieval.retrieval_metrics(
        data.embeddings[direction.query],
        gallery,
        data.labels[direction.query],
        labels,
        k=tuple(k),
        metrics=metrics,
        exclude_self=direction.exclude_self,
        metric=metric,
    )
    return {name: values[name] for name in sorted(values, key=_report_order)}


def _report_order(name: str) -> tuple[int, int]:
    base, at, k = name.partition("@")
    return _ORDER.index(base + at), int(k or 0)


def check_fit(data: Embedded, metric: str) -> None:
    """Refuse embeddings that are no codes, or codes of different kinds, for the metric "hamming".

    Raises:
        InputError: with the modality.
    """
    kinds: tuple[str, ...] = ("bits", "signs")
    for m, z in data.embeddings.items() if metric == "hamming" else ():
        try:
            kinds = code_kinds(f"{data.source}: {m}", z, kinds)
        except NoCodesError as error:
            raise error if data.epoch is None else InputError(f"{data.source}: {NO_CODES_OF_RUN}") from None


def counted(per_query: PerQuery, without_relevant: str, name: str) -> np.ndarray:
    """Which queries count, bool [Q].

    Raises:
        InputError: no query counts.
    """
    counts = np.ones(len(per_query["ap"]), bool) if without_relevant == "zero" else per_query["relevant"] > 0
    if not counts.any():
        raise InputError(f"{name}: no query has a relevant item, and such queries are skipped; count them as 0 instead")
    return counts


def full_report(data: Embedded, options: Options) -> tuple[dict[str, Any], dict[str, PerQuery]]:
    """All scores of embeddings.

    Args:
        data: the embeddings, with labels and pairs.
        options: what to report.

    Returns:
        The report, ready for JSON (docs/evaluation.md describes it), and the values of every query per direction; with
        known pairs these include "pair_rank", which is 0 for a query without a pair.

    Raises:
        InputError: there are neither labels nor pairs, or the options do not fit the data.
    """
    by_name = directions(data, options.protocol)
    metric = options.metric_for(data)
    check_fit(data, metric)
    per_query: dict[str, PerQuery] = {name: {} for name in by_name}
    out: dict[str, Any] = {}
    if data.labels is not None:
        for name, direction in by_name.items():
            per_query[name] |= rank_queries(data, direction, options.k, metric=metric)
        out |= _label_scores(data, by_name, per_query, options)
    ranks = {name: r for name, d in by_name.items() if (r := _pair_ranks(data, d, metric)) is not None}
    if data.labels is None and not ranks:
        raise InputError(
            f"{data.source}: there are neither labels nor pairs to score by; add labels, or ids that define pairs"
        )
    for name, r in ranks.items():
        per_query[name]["pair_rank"] = r
    units = {name: data.instances[by_name[name].query] for name in ranks}
    out["instances"] = {name: _instance_scores(r, units[name], options) for name, r in ranks.items()}
    out["notes"] = _notes(data, metric)
    out["options"] = {
        "representation": data.representation,
        **options.of_ranking(data),
        "k": [int(k) for k in options.k],
        "protocol": list(options.protocol),
        "without_relevant": options.without_relevant,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        "level": LEVEL,
    }
    return out, {name: values for name, values in per_query.items() if values}


def _label_scores(
    data: Embedded, by_name: Mapping[str, Direction], per_query: Mapping[str, PerQuery], options: Options
) -> dict[str, Any]:
    """The scores that need labels: means, means per class, chance, intervals."""
    assert data.labels is not None
    metrics, chance, classes, groups = {}, {}, {}, []
    for name, direction in by_name.items():
        values = per_query[name]
        counts = counted(values, options.without_relevant, name)
        metrics[name] = retrieval.summarize(values, options.without_relevant)
        size = sum(len(data.embeddings[m]) for m in direction.gallery) - direction.exclude_self
        chance[name] = float(np.mean(retrieval.expected_average_precision(values["relevant"][counts], size)))
        by_class = retrieval.summarize_by_class(values, data.labels[direction.query], options.without_relevant)
        classes[name] = {data.class_name(k): means for k, means in by_class.items()}
        columns = np.column_stack([values[q] for q in _means(values)])
        groups.append((columns[counts], data.instances[direction.query][counts]))
    first = list(directions(data, options.protocol[:1]))
    by_direction = {name: m["map"] for name, m in metrics.items()}
    out: dict[str, Any] = {"map": by_direction, "average": sum(by_direction[d] for d in first) / len(first)}
    if options.bootstrap:
        drawn = dict(zip(by_name, bootstrap_means(groups, options.bootstrap, options.seed), strict=True))
        for name, samples in drawn.items():
            ends = interval(samples).T.tolist()
            metrics[name]["ci"] = dict(zip(_means(per_query[name]).values(), ends, strict=True))
        at = list(_means(per_query[first[0]])).index("ap")
        out["average_ci"] = interval(np.mean([drawn[d][:, at] for d in first], axis=0)).tolist()
    return {**out, "chance": chance, "metrics": metrics, "classes": classes}


def _means(per_query: PerQuery) -> dict[str, str]:
    """The metrics whose means are reported: name per query -> name of the mean."""
    names = [q for q, v in per_query.items() if v.ndim == 1 and q not in ("relevant", "pair_rank")]
    return {q: "mrr" if q == "rr" else "m" + q if q.split("@")[0] in ("ap", "ap_min") else q for q in names}


def _pair_ranks(data: Embedded, direction: Direction, metric: str) -> np.ndarray | None:
    """Rank of the first gallery item of each query's own instance; 0 if the gallery has none.

    Returns:
        int64 [Q]; None if there are no pairs, and within a modality.
    """
    if direction.exclude_self:
        return None
    own = data.instances[direction.query]
    others = np.concatenate([data.instances[m] for m in direction.gallery])
    numbers, first = np.unique(others, return_index=True)
    at = np.minimum(np.searchsorted(numbers, own), len(numbers) - 1)
    paired = numbers[at] == own
    if not paired.any():
        return None
    queries = data.embeddings[direction.query]
    gallery = np.concatenate([data.embeddings[m] for m in direction.gallery])
    if len(numbers) == len(others):
        return retrieval.pair_ranks(queries, gallery, np.where(paired, first[at], -1), metric=metric)
    # Several rows per instance, such as the captions of a picture: the first in the ranking counts.
    reciprocal = retrieval.retrieval_metrics(queries, gallery, own, others, metrics=("rr",), metric=metric)["rr"]
    return np.where(paired, np.rint(1 / np.where(paired, reciprocal, 1.0)), 0).astype(np.int64)


def _instance_scores(ranks: np.ndarray, units: np.ndarray, options: Options) -> dict[str, Any]:
    """Instance-level recall and median rank over the queries with a pair; the bootstrap draws instances."""
    ranks, units = ranks[ranks > 0], units[ranks > 0]
    hits = np.column_stack([ranks <= k for k in INSTANCE_K]).astype(np.float64)
    names = [f"recall@{k}" for k in INSTANCE_K]
    out: dict[str, Any] = dict(zip(names, hits.mean(axis=0).tolist(), strict=True))
    out |= {"median_rank": float(np.median(ranks)), "queries": len(ranks)}
    if options.bootstrap:
        (samples,) = bootstrap_means([(hits, units)], options.bootstrap, options.seed)
        out["ci"] = dict(zip(names, interval(samples).T.tolist(), strict=True))
        out["ci"]["median_rank"] = interval(bootstrap_medians(ranks, units, options.bootstrap, options.seed)).tolist()
    return out


def _notes(data: Embedded, metric: str) -> list[str]:
    """Remarks on the embeddings for readers of the scores."""
    notes = list(data.notes)
    if compared_exactly(data, metric):
        whole = all(squared_lengths(z) is not None for z in data.embeddings.values())
        what = "integers" if whole else "scaled codes, which count as their signs"
        notes.append(f"all embeddings are {what}: their similarities are compared exactly")
    for m, z in data.embeddings.items() if metric != "hamming" else ():
        if zero := int((~np.asarray(z).any(axis=1)).sum()):
            notes.append(f"{zero} of {len(z)} embeddings of {m} are zero vectors; their similarity to everything is 0")
    if data.labels is None:
        notes.append("there are no labels: only instance-level scores are reported")
    return notes


def compared_exactly(data: Embedded, metric: str) -> bool:
    """Whether similarities are computed without rounding.

    They are if all embeddings are integers small enough for exact sums, or all are scaled codes. The metric dot needs
    codes of one scale.
    """
    rows = list(data.embeddings.values())
    scaled = metric == "cosine"
    if metric == "dot":
        magnitudes = {common_magnitude(z) for z in rows}
        scaled = len(magnitudes) == 1 and None not in magnitudes
    for lengths_of in (squared_lengths, scaled_lengths) if scaled else (squared_lengths,):
        squares = [lengths_of(z) for z in rows]
        if known := [x for x in squares if x is not None]:
            together = np.concatenate(known)
            if len(known) == len(squares) and find_form(together, together, metric)[0] in ("exact", "ratio"):
                return True
    return False


def _joined(values: Any) -> str:
    return " ".join(map(str, values)) or "is empty"
