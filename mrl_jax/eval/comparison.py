"""Paired randomisation tests of the difference between two systems, on the average precision of each query."""

from typing import Any

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.eval.embedded import Embedded
from mrl_jax.eval.scores import Options, check_fit, counted, directions, rank_queries
from mrl_jax.eval.significance import LEVEL, bootstrap_means, interval, randomization_test, unit_means

__all__ = ["compare_embedded"]


def compare_embedded(a: Embedded, b: Embedded, options: Options, permutations: int = 10_000) -> dict[str, Any]:
    """Compare two systems that embedded the same samples.

    The unit of the test is the query's instance. For the average over the directions of the first protocol, the signs
    of all queries of an instance flip together, because they are not independent.

    Args:
        a: embeddings of the first system.
        b: embeddings of the second system.
        options: protocol, queries without relevant items, bootstrap samples and seed.
        permutations: number of permutations of the randomisation test.

    Returns:
        `{"a", "b": sources, "split", "epoch": {"a", "b"} (None unless a run embedded), "representation", "metric":
        {"a", "b"} (what each is ranked by), "map": {"a->b": {"a": mAP,
        "b": mAP, "difference": a - b, "ci": [low, high], "p", "queries"}}, "average": the same without queries,
        "notes", "options"}`; "ci" only with bootstrap samples.

    Raises:
        InputError: the samples, labels or pairs of the two differ, there are no labels, or the number of permutations
            is out of range.
    """
    if not 99 <= permutations <= 10**7:
        raise InputError(f"permutations {permutations}: give 99 to 10,000,000")
    _check_same(a, b)
    metrics = [options.metric_for(x) for x in (a, b)]
    for x, metric in zip((a, b), metrics, strict=True):
        check_fit(x, metric)
    by_name = directions(a, options.protocol)
    directions(b, options.protocol)
    ap, groups = {}, {}
    for name, direction in by_name.items():
        ours, theirs = (
            rank_queries(x, direction, (), ("ap",), metric) for x, metric in zip((a, b), metrics, strict=True)
        )
        counts = counted(ours, options.without_relevant, name)
        ap[name] = np.column_stack([ours["ap"], theirs["ap"]])[counts]
        groups[name] = (ap[name] @ np.array([[1.0], [-1.0]]), a.instances[direction.query][counts])
    first = list(directions(a, options.protocol[:1]))
    drawn = {}
    if options.bootstrap:
        samples = bootstrap_means(list(groups.values()), options.bootstrap, options.seed)
        drawn = {name: s[:, 0] for name, s in zip(groups, samples, strict=True)}

    def line(names: list[str]) -> dict[str, Any]:
        one, other = np.mean([ap[n].mean(axis=0) for n in names], axis=0).tolist()
        out = {"a": one, "b": other, "difference": one - other}
        if drawn:
            out["ci"] = interval(np.mean([drawn[n] for n in names], axis=0)).tolist()
        contributions = unit_means([groups[n] for n in names])[:, 0]
        return {**out, "p": randomization_test(contributions, permutations, options.seed)}

    return {
        "a": a.source,
        "b": b.source,
        "split": a.split or b.split,
        "epoch": {"a": a.epoch, "b": b.epoch},
        "representation": {"a": a.representation, "b": b.representation},
        "metric": dict(zip("ab", metrics, strict=True)),
        "map": {name: {**line([name]), "queries": len(ap[name])} for name in by_name},
        "average": line(first),
        "notes": [*a.notes, *b.notes],
        "options": {
            **options.of_ranking(a, b),
            "protocol": list(options.protocol),
            "without_relevant": options.without_relevant,
            "permutations": permutations,
            "bootstrap": options.bootstrap,
            "seed": options.seed,
            "level": LEVEL,
        },
    }


def _check_same(a: Embedded, b: Embedded) -> None:
    """Refuse two systems whose queries or galleries differ: differences per query would have no meaning."""
    what = f"{a.source} and {b.source}"
    for x in (a, b):
        if x.labels is None:
            raise InputError(f"{x.source} has no labels; give labels, which average precision needs")
    assert a.labels is not None
    assert b.labels is not None
    if set(a.embeddings) != set(b.embeddings):
        given = " against ".join(", ".join(x.embeddings) for x in (a, b))
        raise InputError(f"{what} differ in modalities: {given}; compare systems with the same modalities")
    sizes = [{m: len(x.embeddings[m]) for m in a.embeddings} for x in (a, b)]
    if sizes[0] != sizes[1]:
        given = " against ".join(", ".join(f"{m} {n}" for m, n in s.items()) for s in sizes)
        raise InputError(f"{what} differ in their numbers of samples: {given}; embed the same data and split")
    same_order = list(a.embeddings) == list(b.embeddings)
    if a.digest and b.digest and a.digest != b.digest and same_order:
        raise InputError(f"{what} were trained on different data (digests differ); compare runs on the same data")
    if a.ids is not None and b.ids is not None and any((a.ids[m] != b.ids[m]).any() for m in a.ids):
        raise InputError(f"{what} differ in ids or in their order; write the rows of both in the same order")
    if not _same_partition(a.labels, b.labels):
        raise InputError(
            f"{what} differ in labels, so that different items are relevant; write the rows of both in the same "
            "order, with the same labels (a run with --noisy-validation has its own labels of the split valid)"
        )
    if not _same_partition(a.instances, b.instances):
        raise InputError(f"{what} differ in which rows are pairs; give both the same ids, or no ids")


def _same_partition(a: Any, b: Any) -> bool:
    """Whether the same rows are equal in both, for any numbering of classes or instances; multi-hot rows must agree."""
    one, other = (np.concatenate([x[m] for m in a]) for x in (a, b))
    if one.ndim != other.ndim or one.ndim == 2:
        return one.shape == other.shape and bool((one == other).all())
    return bool((_first_seen(one) == _first_seen(other)).all())


def _first_seen(x: np.ndarray) -> np.ndarray:
    """Replace each value by the position of its first occurrence."""
    _, first, inverse = np.unique(x, return_index=True, return_inverse=True)
    return first[inverse]
