"""The full report on embeddings: every metric per direction and class, instance-level scores, bootstrap intervals.

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

__all__ = ["PROTOCOLS", "Direction", "Options", "PerQuery", "counted", "directions", "full_report", "rank_queries"]

PROTOCOLS = ("cross", "others", "within")
INSTANCE_K = (1, 5, 10)  # instance-level recall at these

_FEWEST_SAMPLES = 100  # below, the ends of a 95% interval are mere extremes
_ORDER = ("ap", "r_precision", "rr", "ndcg", "ap@", "ap_min@", "precision@", "recall@", "ndcg@", "curve", "relevant")

PerQuery = dict[str, np.ndarray]  # metric -> [Q], as `retrieval.retrieval_metrics` gives them


class Direction(NamedTuple):
    """Queries of one modality against a gallery: another one, all others together, or itself without the query."""

    query: str
    gallery: tuple[str, ...]
    exclude_self: bool


@dataclass(frozen=True)
class Options:
    """What to report.

    Attributes:
        k: cut-offs of the metrics at k.
        protocol: any of `PROTOCOLS`; the average is over the directions of the first.
        without_relevant: queries without a relevant item count 0 ("zero") or are left out ("skip").
        bootstrap: samples for the intervals; 0 for none.
        seed: of these samples.

    Raises:
        InputError: a value out of range.
    """

    k: tuple[int, ...] = (1, 5, 10, 50)
    protocol: tuple[str, ...] = ("cross",)
    without_relevant: str = "zero"
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "protocol"):  # one of them needs no tuple
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str | int) else tuple(value))
        if (
            not self.k
            or len(set(self.k)) < len(self.k)
            or any(not isinstance(k, int | np.integer) or k < 1 for k in self.k)
        ):
            raise InputError(f"k {_told(self.k)}: give whole numbers from 1 on, each once")
        unknown = [p for p in self.protocol if p not in PROTOCOLS]
        if unknown or not self.protocol or len(set(self.protocol)) < len(self.protocol):
            raise InputError(f"protocol {_told(self.protocol)}: choose from {', '.join(PROTOCOLS)}, each once")
        if self.without_relevant not in ("zero", "skip"):
            raise InputError(f"without_relevant {self.without_relevant!r}: choose zero or skip")
        if self.bootstrap and not _FEWEST_SAMPLES <= self.bootstrap <= 10**7:
            raise InputError(f"bootstrap {self.bootstrap}: give 0 for no intervals, or {_FEWEST_SAMPLES} to 10,000,000")


def directions(data: Embedded, protocols: Sequence[str]) -> dict[str, Direction]:
    """The directions of some protocols by their names: `a->b`, `a->others`, `a->a`.

    Raises:
        InputError: one modality for a protocol that needs two, or modalities of different embedding sizes.
    """
    names = list(data.embeddings)
    found: dict[str, Direction] = {}
    for protocol in protocols:
        if protocol == "within":
            found |= {f"{a}->{a}": Direction(a, (a,), True) for a in names}
            continue
        if len(names) < 2:
            raise InputError(f"{data.source}: {names[0]} is the only modality; add another, or choose protocol within")
        widths = {m: np.shape(z)[1] for m, z in data.embeddings.items()}
        if len(set(widths.values())) > 1:
            told = ", ".join(f"{m} has {n}" for m, n in widths.items())
            raise InputError(f"{data.source}: numbers of columns differ: {told}; embed into one common space")
        if protocol == "cross":
            found |= {f"{a}->{b}": Direction(a, (b,), False) for a in names for b in names if a != b}
        else:
            found |= {f"{a}->others": Direction(a, tuple(b for b in names if b != a), False) for a in names}
    if single := next((d.query for d in found.values() if d.exclude_self and len(data.embeddings[d.query]) < 2), None):
        raise InputError(f"{data.source}: {single} has one row, its gallery within is empty; add rows, or leave it out")
    return found


def rank_queries(
    data: Embedded, direction: Direction, k: Sequence[int], metrics: Sequence[str] | None = None
) -> PerQuery:
    """Every metric of every query of a direction, or only some, in the order of reports; the data have labels."""
    assert data.labels is not None
    gallery = np.concatenate([data.embeddings[m] for m in direction.gallery])
    labels = np.concatenate([data.labels[m] for m in direction.gallery])
    found = retrieval.retrieval_metrics(
        data.embeddings[direction.query],
        gallery,
        data.labels[direction.query],
        labels,
        k=tuple(k),
        metrics=metrics,
        exclude_self=direction.exclude_self,
    )
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> tuple[int, int]:
    base, at, k = name.partition("@")
    return _ORDER.index(base + at), int(k or 0)


def counted(per_query: PerQuery, without_relevant: str, name: str) -> np.ndarray:
    """Which queries count, bool [Q].

    Raises:
        InputError: none does.
    """
    kept = np.ones(len(per_query["ap"]), bool) if without_relevant == "zero" else per_query["relevant"] > 0
    if not kept.any():
        raise InputError(f"{name}: no query has a relevant item, and such are skipped; count them 0 instead")
    return kept


def full_report(data: Embedded, options: Options) -> tuple[dict[str, Any], dict[str, PerQuery]]:
    """All scores of some embeddings.

    Args:
        data: the embeddings and what they are scored by.
        options: what to report.

    Returns:
        The report, ready for JSON (docs/evaluation.md describes it), and the values of every query by direction; with
        known pairs these include "pair_rank", 0 for a query without a pair.

    Raises:
        InputError: neither labels nor pairs, or options that do not fit the data.
    """
    found = directions(data, options.protocol)
    per_query: dict[str, PerQuery] = {name: {} for name in found}
    out: dict[str, Any] = {}
    if data.labels is not None:
        for name, direction in found.items():
            per_query[name] |= rank_queries(data, direction, options.k)
        out |= _class_scores(data, found, per_query, options)
    ranks = {name: r for name, d in found.items() if (r := _pair_ranks(data, d)) is not None}
    if data.labels is None and not ranks:
        raise InputError(
            f"{data.source}: there are neither labels nor pairs to score by; add labels, or ids that say which rows "
            "belong together"
        )
    for name, r in ranks.items():
        per_query[name]["pair_rank"] = r
    units = {name: data.instances[found[name].query] for name in ranks}
    out["instances"] = {name: _instance_scores(r, units[name], options) for name, r in ranks.items()}
    out["notes"] = _notes(data)
    out["options"] = {
        "k": [int(k) for k in options.k],
        "protocol": list(options.protocol),
        "without_relevant": options.without_relevant,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        "level": LEVEL,
    }
    return out, {name: values for name, values in per_query.items() if values}


def _class_scores(
    data: Embedded, found: Mapping[str, Direction], per_query: Mapping[str, PerQuery], options: Options
) -> dict[str, Any]:
    """Whatever needs labels: means, also by class, chance, intervals."""
    assert data.labels is not None
    metrics, chance, classes, groups = {}, {}, {}, []
    for name, direction in found.items():
        values = per_query[name]
        kept = counted(values, options.without_relevant, name)
        metrics[name] = retrieval.summarize(values, options.without_relevant)
        size = sum(len(data.embeddings[m]) for m in direction.gallery) - direction.exclude_self
        chance[name] = float(np.mean(values["relevant"][kept] / size))
        by_class = retrieval.summarize_by_class(values, data.labels[direction.query], options.without_relevant)
        classes[name] = {data.class_name(k): means for k, means in by_class.items()}
        columns = np.column_stack([values[q] for q in _means(values)])
        groups.append((columns[kept], data.instances[direction.query][kept]))
    first = list(directions(data, options.protocol[:1]))
    by_direction = {name: m["map"] for name, m in metrics.items()}
    out: dict[str, Any] = {"map": by_direction, "average": sum(by_direction[d] for d in first) / len(first)}
    if options.bootstrap:
        drawn = dict(zip(found, bootstrap_means(groups, options.bootstrap, options.seed), strict=True))
        for name, samples in drawn.items():
            ends = interval(samples).T.tolist()
            metrics[name]["ci"] = dict(zip(_means(per_query[name]).values(), ends, strict=True))
        at = list(_means(per_query[first[0]])).index("ap")
        out["average_ci"] = interval(np.mean([drawn[d][:, at] for d in first], axis=0)).tolist()
    return {**out, "chance": chance, "metrics": metrics, "classes": classes}


def _means(per_query: PerQuery) -> dict[str, str]:
    """The metrics of which a mean is reported: their names per query -> those of the means."""
    names = [q for q, v in per_query.items() if v.ndim == 1 and q not in ("relevant", "pair_rank")]
    return {q: "mrr" if q == "rr" else "m" + q if q.split("@")[0] in ("ap", "ap_min") else q for q in names}


def _pair_ranks(data: Embedded, direction: Direction) -> np.ndarray | None:
    """Rank of each query's own instance in the gallery, the first one of several; 0 where it has none.

    None where nothing pairs, and within a modality.
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
        return retrieval.pair_ranks(queries, gallery, np.where(paired, first[at], -1))
    # Several rows of an instance, such as the captions of a picture: the first of them counts.
    reciprocal = retrieval.retrieval_metrics(queries, gallery, own, others, metrics=("rr",))["rr"]
    return np.where(paired, np.rint(1 / np.where(paired, reciprocal, 1.0)), 0).astype(np.int64)


def _instance_scores(ranks: np.ndarray, units: np.ndarray, options: Options) -> dict[str, Any]:
    """Recall of the pair and its median rank, over the queries that have one; all of an instance are drawn together."""
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


def _notes(data: Embedded) -> list[str]:
    """What a reader of the scores should know of the embeddings."""
    notes = []
    for m, z in data.embeddings.items():
        if zero := int((~np.asarray(z).any(axis=1)).sum()):
            notes.append(f"{zero} of {len(z)} embeddings of {m} are zero vectors; their similarity to everything is 0")
    if data.labels is None:
        notes.append("there are no labels: only instance-level scores are reported")
    return notes


def _told(values: Any) -> str:
    return " ".join(map(str, values)) or "is empty"
