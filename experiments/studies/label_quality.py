"""Quality of inferred labels: accuracy, calibration, detection of wrong labels, and the estimated noise rate.

    python -m experiments.studies.label_quality [--sets emoji …] [--views wikipedia_4views.npz] [--seeds N]
    python -m experiments.studies.label_quality --from-results

Nothing is trained: `mrl_jax.label_inference` reads features and given labels. Clean labels only score what it finds.
Four noises at rates 0 to 0.8, one label per modality and one per pair. Beside it, its votes alone, without the labels
of the instance, and votes of the 20 nearest neighbours in the same features (cosine, weights softmax(s / 0.1), the
classes' shares of the given labels), with the same annotators. Sets: emoji (9 classes), its subgroups of at least 20
members (31 classes), Wikipedia pairs with reduced features (10), and generated ones of 10 to 1,000 classes. Every
row of every seed is kept in label_quality.json.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.machine import machine
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import TRIAL_SEED
from experiments.shared.store import exclusive, read_results, stored_sets, write_results
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, load_set
from mrl_jax import Config, InputError
from mrl_jax.data.dataset import Dataset
from mrl_jax.label_inference import VoteKernel, infer_labels, label_quality, transition_error, vote_kernel
from mrl_jax.label_inference.posterior import annotators
from mrl_jax.training.run_spec import RunData, prepare_data, prepare_run

RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
KINDS = ("symmetric", "asymmetric", "nearest-class", "instance-dependent")
SCOPES = ("modality", "instance")
GENERATED = (10, 100, 300, 1000)
ASYMMETRIC_UP_TO = 0.4  # beyond, most labels of a class may be those of another one
SHOWN = (0.2, 0.4, 0.6, 0.8)  # rates of symmetric noise in the table
NEIGHBOURS, TEMPERATURE = 20, 0.1
METHODS = ("consensus", "votes", "neighbours")
COLUMNS = ("true", "estimated", "transition_error", "accuracy", "ece", "auroc", "auroc_lowest")
SCORES = ("accuracy", "ece", "auroc", "auroc_lowest", "estimated", "true", "transition_error")


def cells(smoke: bool = False) -> list[dict[str, Any]]:
    """The noises to try, as fields of `Config`."""
    found = []
    for kind in KINDS[:2] if smoke else KINDS:
        for scope in SCOPES:
            for rate in (0.4,) if smoke else RATES:
                if kind != "symmetric" and (rate == 0.0 or rate > ASYMMETRIC_UP_TO):
                    continue
                if kind == "instance-dependent" and scope == "instance":
                    continue
                found.append({"noise_kind": kind, "noise_scope": scope, "noise_rate": rate})
    return found


def measured(data: RunData, kernel: VoteKernel, neighbours: np.ndarray, cell: Mapping[str, Any], seed: int) -> Any:
    """Scores of one draw of the noise: method -> scores."""
    config = Config(modalities=data.dataset.modalities, **cell, seed=seed)
    spec = prepare_run(config, data)
    names = data.dataset.modalities
    clean = data.dataset.splits["train"].labels[names[0]]
    classes = data.dataset.num_classes
    inferred = infer_labels(kernel, spec.labels, classes, spec.mask)
    found = {
        "consensus": np.asarray(inferred.posterior),
        "votes": np.asarray(inferred.votes),
        "neighbours": neighbour_posterior(neighbours, spec.labels, classes),
    }
    scores = {name: label_quality(q, spec.labels, clean, spec.mask) for name, q in found.items()}
    error = transition_error(np.asarray(inferred.transition), spec.labels, clean, spec.mask)
    scores["consensus"]["transition_error"] = error
    return {name: {k: None if np.isnan(v) else round(v, 5) for k, v in of.items()} for name, of in scores.items()}


def neighbour_weights(features: Sequence[Any]) -> np.ndarray:
    """Weights [N, N] of the nearest neighbours of every instance by the mean cosine of the modalities."""
    total = 0.0
    for x in features:
        rows = np.asarray(x, np.float64)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        total = total + rows @ rows.T / len(features)
    similarity = np.asarray(total)
    np.fill_diagonal(similarity, -np.inf)
    least = np.partition(similarity, -NEIGHBOURS, axis=1)[:, [-NEIGHBOURS]]
    weights = np.where(similarity >= least, np.exp(similarity / TEMPERATURE), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def neighbour_posterior(weights: np.ndarray, labels: np.ndarray, classes: int, rounds: int = 4) -> np.ndarray:
    """Posterior [N, K] by votes of neighbours and annotators, as a prototype of the method had it."""
    given, _ = annotators(labels)
    one_hot = np.eye(classes)[given]  # [A, N, K]
    q = one_hot.mean(axis=0)
    share = 0.5
    for _ in range(rounds):
        votes = weights @ q + 0.01 / classes
        kept = share * np.eye(classes) + (1 - share) / max(classes - 1, 1) * (1 - np.eye(classes))
        q = votes * np.prod([kept[:, y].T for y in given], axis=0)
        q /= q.sum(axis=1, keepdims=True)
        share = float(np.mean([np.take_along_axis(q, y[:, None], axis=1).mean() for y in given]))
    return q


def rows_of(name: str, dataset: Dataset, wanted: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[Any]:
    """Scores of a set, one entry per noise and seed."""
    data = prepare_data(Config(modalities=dataset.modalities), dataset)
    kernel, weights = vote_kernel(data.features or ()), neighbour_weights(data.features or ())
    rows = []
    for i, cell in enumerate(wanted):
        print(f"\r{name}: noise {i + 1} of {len(wanted)}", end="", file=sys.stderr, flush=True)
        rows += [{**cell, "seed": seed, **measured(data, kernel, weights, cell, seed)} for seed in seeds]
    print(file=sys.stderr)
    return rows


def results(args: argparse.Namespace, sets: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Set -> classes and rows; `label_quality.json` is written after every set."""
    path = args.out / "label_quality.json"
    if args.from_results:
        return stored_sets(path)
    wanted = cells(args.smoke)
    with exclusive(path):
        content: dict[str, Any] = read_results(path, sets=dict) if path.exists() else {"sets": {}}
        for name in args.sets or sets:
            dataset = load_set(name, args.views)
            identity = {"sha256": dataset.digest(), "cells": wanted, "seeds": list(seeds)}
            stored = content["sets"].get(name)
            if stored is not None and any(stored[key] != value for key, value in identity.items()):
                raise InputError(f"{path} holds {name} with other noises or seeds; move it away, or name another --out")
            if stored is None:
                rows = rows_of(name, dataset, wanted, seeds)
                content["sets"][name] = {
                    "classes": dataset.num_classes,
                    "instances": len(dataset.splits["train"]),
                    **identity,
                    "rows": rows,
                    "machine": machine(["jax", "jaxlib", "numpy"]),
                }
                write_results(path, content)
    return dict(content["sets"])


def _mean(rows: Sequence[Mapping[str, Any]], method: str, score: str) -> str:
    """A mean over seeds as text; empty for the AUROC where no label is wrong."""
    values = [row[method][score] for row in rows if row[method][score] is not None]
    return f"{statistics.mean(values):.3f}" if values else ""


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """One row per set and some of the noises, the mean over seeds; the CSV file has all."""
    head = ["set", "noise", "labels per", "rate", "wrong", "estimated", "error of T", "accuracy", "ECE"]
    head += ["AUROC", "AUROC, lower modality", "accuracy, votes alone", "accuracy, neighbours", "AUROC, neighbours"]
    rows = [head]
    for name, of_set in found.items():
        for cell in of_set["cells"]:
            shown = SHOWN if cell["noise_kind"] == "symmetric" else (ASYMMETRIC_UP_TO,)
            if cell["noise_rate"] not in shown:
                continue
            own = [row for row in of_set["rows"] if all(row[key] == value for key, value in cell.items())]
            values = [_mean(own, "consensus", score) for score in COLUMNS]
            values += [_mean(own, "votes", "accuracy")]
            values += [_mean(own, "neighbours", score) for score in ("accuracy", "auroc")]
            labels = "pair" if cell["noise_scope"] == "instance" else "modality"
            rows.append([name, cell["noise_kind"], labels, f"{cell['noise_rate']:g}", *values])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print and draw."""
    args = checked(
        parser(
            __doc__, f"{SETS}, generated sets of 10, 100, 300 and 1,000 classes", smoke="two noises, two sets"
        ).parse_args(argv)
    )
    sets = ["emoji", "emoji-31", *(["wikipedia-views"] if args.views else []), *(f"generated-{k}" for k in GENERATED)]
    seeds = range(TRIAL_SEED, TRIAL_SEED + args.seeds)
    found = results(args, ["emoji", "generated-10"] if args.smoke else sets, seeds)
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, len(SCOPES), sharey=True)
    for scope, axes in zip(SCOPES, panels, strict=True):
        for name, of_set in found.items():
            chosen = [r for r in of_set["rows"] if r["noise_kind"] == "symmetric" and r["noise_scope"] == scope]
            rates = sorted({r["noise_rate"] for r in chosen})
            values = [[r["consensus"]["accuracy"] for r in chosen if r["noise_rate"] == rate] for rate in rates]
            if rates:
                plot_means(axes, rates, values, f"{name}, K = {of_set['classes']}")
        given = [1.0 - rate for rate in RATES]
        axes.plot(RATES, given, "--", color="0.6", label="given labels (many classes)")
        title = "one label per modality" if scope == "modality" else "one label per pair"
        axes.set(title=title, xlabel="noise rate (symmetric)")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy of the inferred labels")
    panels[0].legend(fontsize=7)
    lines = [
        [name, of_set["classes"], *(row[key] for key in ("noise_kind", "noise_scope", "noise_rate", "seed")), method]
        + [row[method].get(score) for score in SCORES]
        for name, of_set in found.items()
        for row in of_set["rows"]
        for method in METHODS
    ]
    head = ["set", "classes", "kind", "scope", "rate", "seed", "method", *SCORES]
    save(args.out / "label_quality", markdown(table(found)), head, lines, figure)


if __name__ == "__main__":
    run_main(main)
