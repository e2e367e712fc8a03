"""What the page must know of a run before the first query, and the rows that a user may pick."""

from collections.abc import Mapping
from typing import Any

from mrl_jax.data.dataset import SPLITS
from mrl_jax.errors import InputError
from mrl_jax.run.representation import ranked_by
from mrl_jax.search.server.service import Service

__all__ = ["about", "rows"]

_CLASSES = 200  # names of classes that are listed


def about(service: Service, top: int) -> dict[str, Any]:
    """The run, its galleries, and what queries it takes; no path of the server is in it.

    Args:
        service: the run.
        top: number of results where a request does not say it.
    """
    searcher = service.searcher
    run, dataset = searcher.run, searcher.dataset
    noise = searcher.folder.noise() if searcher.folder is not None else None
    return {
        "data": dataset.name,
        "method": run.config.method,
        "epoch": run.epoch,
        "wrong_labels": _wrong_share(noise),
        "ranked_by": ranked_by(searcher.representation, searcher.metric),
        "metric": searcher.metric,
        "splits": list(searcher.splits),
        "classes": list(dataset.class_names[:_CLASSES]),
        "class_count": dataset.num_classes,
        "galleries": {m: len(index) for m, index in service.galleries.items()},
        "modalities": list(run.modalities),
        "rows": {s: {m: int(dataset.splits[s].present(m).sum()) for m in run.modalities} for s in SPLITS},
        "takes": {kind: {"modalities": service.taking(kind), "why_not": service.closed.get(kind)} for kind in _KINDS},
        "top": top,
        "limits": {name: getattr(service.limits, name) for name in ("top", "text", "body", "pixels")},
        "attribution": str(dataset.metadata.get("attribution", "")),
    }


_KINDS = ("text", "image")


def _wrong_share(noise: Mapping[str, Any] | None) -> float | None:
    """The share of training labels that were wrong, if it is known."""
    share = (noise or {}).get("wrong_share_overall")
    return round(float(share), 4) if share else None


def rows(service: Service, modality: str, find: str, offset: int, most: int) -> dict[str, Any]:
    """A part of the rows of a gallery that a user may pick.

    Args:
        service: the run.
        modality: the gallery.
        find: a part of the name, id or class of the rows, in any case; empty for all.
        offset: number of rows that are left out before the first.
        most: number of rows at most.

    Returns:
        `{"rows": [{"id", "label", "split", "row", …}, …], "more": whether there are more}`.

    Raises:
        InputError: there is no such gallery.
    """
    index = service.galleries.get(modality)
    if index is None:
        raise InputError(f"modality {modality!r} is not there; choose from {', '.join(service.galleries)}")
    wanted, found = find.casefold().strip(), []
    if not wanted:
        numbers = range(offset, min(offset + most + 1, len(index)))
    else:
        words = service.words(modality)
        matching = (i for i, word in enumerate(words) if wanted in word)
        numbers = [i for _, i in zip(range(offset + most + 1), matching, strict=False)][offset:]  # type: ignore[assignment]
    found = [service.entry(modality, i) for i in numbers]
    return {"rows": found[:most], "more": len(found) > most}
