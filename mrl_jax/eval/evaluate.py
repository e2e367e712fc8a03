"""Evaluate a run or embeddings of any origin with all retrieval metrics, and test the difference of two systems."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.backend import names_backend
from mrl_jax.data.dataset import SPLITS, Dataset, Split
from mrl_jax.errors import InputError, listed
from mrl_jax.eval.comparison import compare_embedded
from mrl_jax.eval.embedded import Embedded, check_embedded
from mrl_jax.eval.embeddings import read_embeddings
from mrl_jax.eval.scores import Options, full_report
from mrl_jax.files import refuse_address
from mrl_jax.retrieval.score import check_finite
from mrl_jax.run.folder import RunFolder
from mrl_jax.run.load import load_run, run_data
from mrl_jax.run.model import Run

__all__ = ["PERMUTATIONS", "Options", "compare", "embed_dataset", "embed_split", "evaluate", "evaluate_embeddings"]

PERMUTATIONS = 10_000
"""Random permutations of the paired test, where no other number is asked for."""


@names_backend
def evaluate(
    run: Run | str | os.PathLike[str],
    data: Any = None,
    split: str = "test",
    checkpoint: str | int = "kept",
    *,
    options: Options = Options(),  # noqa: B008 - frozen
    representation: str | None = None,
) -> dict[str, Any]:
    """Evaluate a run on a split of its data.

    Args:
        run: the folder of a run, or a `Run` from `load_run`.
        data: anything that `load_dataset` takes; None for the data in the run's configuration.
        split: "train", "valid" or "test". Labels are those of the data set, without injected noise; only the folder of
            a run with noisy validation labels is scored on these.
        checkpoint: "kept", "best", "last" or a number of epochs; only used with a folder.
        options: cut-offs, protocol, bootstrap samples, etc.
        representation: "embedding", "posterior" or "both"; None for that of the run.

    Returns:
        `{"epoch", "split", "map": {"a->b": mAP}, "average", "average_ci", "chance": {"a->b": mAP of a random ranking},
        "metrics": {"a->b": {…, "ci"}}, "classes": {"a->b": {class: {…}}}, "instances": {"a->b": {…}}, "notes",
        "options"}`; docs/evaluation.md describes each.

    Raises:
        InputError: no run, an unknown checkpoint or split, data that do not fit the run, or a representation that its
            method does not have.
        NonFiniteLossError: an embedding is inf or NaN.
    """
    embedded = embed_split(run, data, split, checkpoint, representation)
    return {"epoch": embedded.epoch, "split": split, **full_report(embedded, options)[0]}


@names_backend
def evaluate_embeddings(
    embeddings: Mapping[str, Any],
    labels: Any = None,
    *,
    ids: Any = None,
    class_names: Sequence[str] = (),
    options: Options = Options(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Evaluate embeddings of any origin.

    Args:
        embeddings: modality -> numbers [N, L]; need not have unit length.
        labels: shared by all modalities, or modality -> labels: integers or names [N], or multi-hot [N, K]. Without
            labels, only instance-level scores are reported.
        ids: shared by all modalities, or modality -> text or integers [N]; rows of two modalities with the same id are
            pairs. Without ids, row i of one modality is paired with row i of any other of the same length.
        class_names: K names, for scores per class.
        options: cut-offs, protocol, bootstrap samples, etc.

    Returns:
        As `evaluate`, without "epoch" and "split".

    Raises:
        InputError: the input is wrong.

    Example:
        >>> import numpy as np
        >>> scores = evaluate_embeddings({"image": np.eye(3), "text": np.eye(3)}, [0, 1, 2])
        >>> scores["map"]
        {'image->text': 1.0, 'text->image': 1.0}
    """
    return full_report(check_embedded(embeddings, labels, ids, class_names), options)[0]


@names_backend
def compare(
    a: Run | str | os.PathLike[str],
    b: Run | str | os.PathLike[str],
    data: Any = None,
    split: str = "test",
    checkpoint: str | int = "kept",
    *,
    modalities: Sequence[str] = (),
    options: Options = Options(),  # noqa: B008 - frozen
    permutations: int = PERMUTATIONS,
    representation: str | None = None,
) -> dict[str, Any]:
    """Test whether two systems differ in mAP, by a paired randomisation test on per-query average precision.

    Args:
        a: the folder of a run, a `Run`, or a file of embeddings.
        b: likewise, with embeddings of the same samples.
        data: for runs: as in `evaluate`.
        split: for runs: as in `evaluate`.
        checkpoint: for runs: as in `evaluate`.
        modalities: which to use of both systems, in this order; empty for all.
        options: protocol, bootstrap samples, etc.
        permutations: number of permutations of the test.
        representation: for runs: as in `evaluate`.

    Returns:
        As `comparison.compare_embedded`.

    Raises:
        InputError: as `evaluate`; or the two differ in data, split, modalities, labels or pairs.
    """
    systems = []
    for x in (a, b):
        if not isinstance(x, Run):
            refuse_address(x, "system")
        if isinstance(x, Run) or (Path(x) / "config.json").is_file():
            systems.append(_of_modalities(embed_split(x, data, split, checkpoint, representation), modalities))
        else:
            if Path(x).is_dir() and not any((*Path(x).glob("*.npy"), *Path(x).glob("*/*.npy"))):
                raise InputError(f"{str(x)!r} holds neither a run nor embeddings; give the folder of a run, or a file")
            systems.append(read_embeddings(x, modalities))
    return compare_embedded(systems[0], systems[1], options, permutations)


def _of_modalities(run: Embedded, modalities: Sequence[str]) -> Embedded:
    """The embeddings of some modalities of a run; empty for all."""
    if missing := [m for m in modalities if m not in run.embeddings]:
        raise InputError(f"{run.source}: it has no modality {missing[0]!r}; choose from {listed(run.embeddings)}")
    chosen: dict[str, Any] = {
        name: {m: getattr(run, name)[m] for m in modalities}
        for name in ("embeddings", "labels", "instances", "rows")
        if modalities
    }
    return replace(run, **chosen)


def embed_split(
    run: Run | str | os.PathLike[str], data: Any, split: str, checkpoint: str | int, representation: str | None = None
) -> Embedded:
    """Rows of a split of a run's data; arguments and errors as in `evaluate`."""
    if split not in SPLITS:
        raise InputError(f"split {split!r}: choose from {', '.join(SPLITS)}")
    folder = None if isinstance(run, Run) else RunFolder.open(run)
    loaded = run if isinstance(run, Run) else load_run(run, checkpoint)
    loaded.representation_for(representation)  # refused before the data are read
    dataset = run_data(loaded, folder, data)
    source = "run" if folder is None else str(run)
    return embed_dataset(loaded, folder if data is None else None, dataset, split, representation, source)


def embed_dataset(
    run: Run, own: RunFolder | None, dataset: Dataset, split: str, representation: str | None, source: str
) -> Embedded:
    """Rows of a split of data that are loaded.

    Args:
        run: the run.
        own: its folder, if the data are those that it was trained on: they then have its digest, and the validation
            split the labels that it was validated on.
        dataset: the data.
        split: "train", "valid" or "test".
        representation: as in `evaluate`.
        source: what messages and tables call the run.

    Raises:
        InputError: its method does not have the representation.
        NonFiniteLossError: an embedding is inf or NaN.
    """
    kind = run.representation_for(representation)
    given = None if own is None else own.noise().get("validation", {}).get("labels")
    samples = {m: dataset.splits[split].samples(m) for m in run.modalities}
    labels = {m: y for m, (_, y) in samples.items()}
    if split == "valid" and given is not None:
        labels = {m: np.asarray(given[m], np.int32)[: len(y)] for m, y in dataset.splits["valid"].labels.items()}
        labels = {m: y[dataset.splits["valid"].present(m)] for m, y in labels.items()}
    rows = {m: np.flatnonzero(dataset.splits[split].present(m)) for m in run.modalities}
    instances = _instances(dataset.splits[split], rows)
    z = run.represent({m: x for m, (x, _) in samples.items()}, kind)
    check_finite(z)
    digest = None if own is None else own.data()["sha256"]
    found = Embedded(source, z, labels, instances, rows, run.class_names, split, run.epoch, digest)
    return replace(found, representation=kind)


def _instances(split: Split, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Number the instances: row j of every modality is instance j, unless sizes and labels contradict that."""
    sizes = {m: len(split.labels[m]) for m in rows}
    both = np.all([split.present(m)[: min(sizes.values())] for m in rows], axis=0)
    labels = [split.labels[m][: len(both)][both] for m in rows]
    if len(set(sizes.values())) == 1 or all((y == labels[0]).all() for y in labels):
        return dict(rows)
    ends = dict(zip(sorted(set(sizes.values())), np.cumsum(sorted(set(sizes.values()))), strict=True))
    return {m: ends[sizes[m]] + row for m, row in rows.items()}  # only modalities of the same size pair
