"""Results of a search as JSON holds them: found rows of an index, with label, id and payload."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mrl_jax.search.index import Index

__all__ = ["default_gallery", "is_own", "results_of"]


def default_gallery(modalities: Sequence[str], query: str) -> str:
    """The first modality that is not the query's; a run of one modality has only that."""
    return next((m for m in modalities if m != query), query)


def is_own(query: Mapping[str, Any], modality: str, splits: Sequence[str]) -> bool:
    """Whether a query is a row of the gallery, which then must not be among its own results."""
    return query["modality"] == modality and query.get("split") in splits


def results_of(
    query: Mapping[str, Any], index: Index, scores: np.ndarray, rows: np.ndarray, top: int, own: bool
) -> list[dict[str, Any]]:
    """Results of one query.

    Args:
        query: the query as `Searcher.answer` describes it; with `label` if its class is known.
        index: the gallery, with ids, labels and payloads.
        scores: of the found rows [k], best first.
        rows: their numbers [k].
        top: number of results.
        own: whether the query is a row of the gallery, see `is_own`.

    Returns:
        At most `top` entries `{"rank", "score", "label", "hit", "id", "split", "row", …}`; `hit` only if the query has
        a label.
    """
    assert index.ids is not None
    assert index.labels is not None
    assert index.payloads is not None
    results: list[dict[str, Any]] = []
    for score, number in zip(scores.tolist(), rows.tolist(), strict=True):
        payload = index.payloads[number]
        if own and (payload["split"], payload["row"]) == (query["split"], query["row"]):
            continue
        label = str(index.labels[number])
        hit = {"hit": label == query["label"]} if "label" in query else {}
        entry = {"rank": len(results) + 1, "score": round(score, 6), "label": label, **hit}
        results.append(entry | {"id": str(index.ids[number])} | payload)
    return results[:top]
