"""Quality of the audit: how well it finds wrong labels, beside cleanlab, and how near its noise rate is.

    python -m experiments.studies.audit_quality [--sets emoji …] [--views wikipedia_4views.npz] [--seeds N]
    python -m experiments.studies.audit_quality --from-results

Symmetric noise at four rates, one label per modality and one per pair; seeds that no choice used. AUROC of the
probability that a label is wrong, of both modalities together. cleanlab has the votes of the other instances alone,
leave-one-out, so that no label has a part in its own probability, and its default score, self-confidence. With one
label per pair and noise that spreads evenly, the order by these probabilities is the best that they allow. "Precision"
is the share of wrong labels among as many of the most suspicious ones as the estimated rate says. Intervals are counted
once per draw: with one label per pair, both modalities have the same. Nothing is trained.
Every row of every seed is kept in audit_quality.json.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.machine import machine
from experiments.shared.outputs import against_noise, plot_means, save
from experiments.shared.protocol import RATES
from experiments.shared.store import exclusive, read_results, stored_sets, write_results
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, audited_sets, load_set
from mrl_jax import Config, InputError
from mrl_jax.audit import audit_labels
from mrl_jax.data.dataset import Dataset
from mrl_jax.label_inference import vote_kernel
from mrl_jax.training.run_spec import prepare_data, prepare_run

METHODS = {"consensus": "audit", "confident": "cleanlab"}
"""Method of the audit -> its name in the table."""
SCOPES = {"modality": "one label per modality", "instance": "one label per pair"}
_QUALITY = ("auroc", "average_precision", "precision")


def rows_of(name: str, dataset: Dataset, rates: Sequence[float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row per scope, rate and seed: the true and the estimated rates, and the quality by method."""
    data = prepare_data(Config(modalities=dataset.modalities), dataset)
    kernel = vote_kernel(data.features or ())
    clean = dataset.splits["train"].labels[dataset.modalities[0]]
    cells = [(scope, rate, seed) for scope in SCOPES for rate in rates for seed in seeds]
    rows = []
    for i, (scope, rate, seed) in enumerate(cells):
        print(f"\r{name}: {i + 1} of {len(cells)}", end="", file=sys.stderr, flush=True)
        config = Config(modalities=dataset.modalities, noise_scope=scope, noise_rate=rate, seed=seed)
        labels = prepare_run(config, data).labels
        found = {
            method: audit_labels(
                labels, kernel=kernel, method=method, clean=clean, class_names=dataset.class_names, neighbours=0
            )
            for method in METHODS
        }
        noise, wrong = found["consensus"].noise, (labels != clean).mean(axis=1)
        quality = {}
        for method, audit in found.items():
            assert audit.injected is not None
            quality[method] = {name: round(audit.injected["all"][name], 5) for name in _QUALITY}
        rows.append(
            {
                "scope": scope,
                "rate": rate,
                "seed": seed,
                "wrong": [round(float(x), 5) for x in wrong],
                "estimated": [round(float(x), 5) for x in noise.rate],
                "interval": [[round(float(x), 5) for x in ends] for ends in zip(noise.low, noise.high, strict=True)],
                "quality": quality,
            }
        )
    print(file=sys.stderr)
    return rows


def results(args: Any, names: Sequence[str]) -> dict[str, Any]:
    """Set -> its rows; `audit_quality.json` is written after every set."""
    path = args.out / "audit_quality.json"
    if args.from_results:
        return stored_sets(path)
    rates, seeds = ((0.4,) if args.smoke else RATES), list(range(args.seeds))
    with exclusive(path):
        content: dict[str, Any] = read_results(path, sets=dict) if path.exists() else {"sets": {}}
        for name in names:
            dataset = load_set(name, args.views)
            identity = {"sha256": dataset.digest(), "rates": list(rates), "seeds": seeds}
            stored = content["sets"].get(name)
            if stored is not None and any(stored[key] != value for key, value in identity.items()):
                raise InputError(f"{path} holds {name} with other rates or seeds; move it away, or name another --out")
            if stored is None:
                rows = rows_of(name, dataset, rates, seeds)
                content["sets"][name] = {**identity, "rows": rows, "machine": machine(["jax", "numpy", "cleanlab"])}
                write_results(path, content)
    return dict(content["sets"])


def table(found: Mapping[str, Any]) -> list[list[str]]:
    """One row per set, scope and rate, the mean over seeds."""
    rows = [["set", "labels per", "noise rate", "wrong", "estimated", "furthest off", "interval holds the truth"]]
    rows[0] += [f"AUROC, {name}" for name in METHODS.values()] + ["average precision", "precision"]
    for name, of_set in found.items():
        for scope in SCOPES:
            for rate in of_set["rates"]:
                own = [row for row in of_set["rows"] if row["scope"] == scope and row["rate"] == rate]
                draws = slice(None) if scope == "modality" else slice(1)  # with a label per pair, both have the same
                true, estimated = (np.array([row[key] for row in own])[:, draws] for key in ("wrong", "estimated"))
                ends = np.array([row["interval"] for row in own])[:, draws]
                inside = (ends[..., 0] <= true) & (true <= ends[..., 1])
                cells = [f"{true.mean():.3f}", f"{estimated.mean():.3f}", f"{np.abs(estimated - true).max():.3f}"]
                cells.append(f"{inside.sum()} of {inside.size}")
                cells += [f"{_mean(own, method, 'auroc'):.3f}" for method in METHODS]
                cells += [f"{_mean(own, 'consensus', score):.3f}" for score in _QUALITY[1:]]
                labels = "modality" if scope == "modality" else "pair"
                rows.append([name, labels, f"{rate:g}", *cells])
    return rows


def _mean(rows: Sequence[Mapping[str, Any]], method: str, score: str) -> float:
    return statistics.mean(row["quality"][method][score] for row in rows)


def draw(found: Mapping[str, Any]) -> Figure:
    """AUROC against the noise rate, a panel per set and scope."""
    figure = Figure(figsize=(4.2 * len(SCOPES), 3.2 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(SCOPES), squeeze=False, sharey=True)
    for (name, of_set), line in zip(found.items(), panels, strict=True):
        for (scope, title), axes in zip(SCOPES.items(), line, strict=True):
            for method, label in METHODS.items():
                values = [
                    [
                        row["quality"][method]["auroc"]
                        for row in of_set["rows"]
                        if (row["scope"], row["rate"]) == (scope, rate)
                    ]
                    for rate in of_set["rates"]
                ]
                plot_means(axes, of_set["rates"], values, label)
            against_noise(axes, f"{name.removesuffix('-views')}, {title}")
        line[0].set_ylabel("AUROC of wrong labels")
    panels[0][0].legend(fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, smoke="one rate, one set", default_seeds=3).parse_args(argv))
    found = results(args, args.sets or audited_sets(args))
    lines = [
        [name, row["scope"], row["rate"], row["seed"], method, *(of[score] for score in _QUALITY)]
        for name, of_set in found.items()
        for row in of_set["rows"]
        for method, of in row["quality"].items()
    ]
    head = ["set", "scope", "rate", "seed", "method", *_QUALITY]
    save(args.out / "audit_quality", markdown(table(found)), head, lines, draw(found))


if __name__ == "__main__":
    run_main(main)
