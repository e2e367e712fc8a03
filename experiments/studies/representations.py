"""The study behind retrieval by class posterior: its sharpness, and the weight of the embedding beside it.

    python -m experiments.studies.representations [--sets emoji …] [--views wikipedia_4views.npz]
    python -m experiments.studies.representations --from-results

Rows are retrieved by the product of (p^s / Σ p^s, √w z), of the posterior p of the classes and the embedding z: s is
the sharpness, w the weight; by default 2, and the number of classes / 300, at least 0.1. The models are those that runs
of consensus and MRL with their defaults keep, noise 0.2 and 0.8, one seed that no result uses. Prints validation mAP,
which chooses, and the mean reciprocal rank of the own instance among the validation samples; then, for every set left
out once, test mAP of what the other sets choose. 4 runs of 900 steps per set: 3 minutes on one core (AMD EPYC,
2026-11-29). Every score is kept in `representations.json`.
"""

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.leave_one_out import leave_one_out_table
from experiments.shared.machine import machine
from experiments.shared.outputs import save
from experiments.shared.protocol import SMOKE, TRIAL_SEED
from experiments.shared.store import exclusive, read_results, write_results
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, load_set
from mrl_jax import Config, InputError, train
from mrl_jax.config import with_settings
from mrl_jax.data.dataset import Dataset, Split
from mrl_jax.retrieval.measure import cross_modal_map
from mrl_jax.retrieval.pairs import pair_ranks
from mrl_jax.run.load import load_run
from mrl_jax.run.representation import SHARPNESS, embedding_weight

METHODS = ("consensus", "mrl")
RATES = (0.2, 0.8)
SHARPNESSES = (0.5, 1.0, 2.0, 4.0)
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
EMBEDDING = "embedding alone"
KNOWN = ("emoji", "emoji-31", "wikipedia-views", "generated-10", "generated-100", "generated-300")
SCORES = ("valid", "test", "reciprocal_rank")
LEFT_OUT = (
    "Every set left out once, with its family; mean of both methods and noise rates (sharpness, weight of the "
    "embedding):"
)


def name_of(sharpness: float, weight: float) -> str:
    """A way to retrieve, as in the tables."""
    return f"{sharpness:g}, {weight:g}"


DEFAULTS = f"{SHARPNESS:g}, by the number of classes (default)"
TRIED = (EMBEDDING, *(name_of(s, w) for s in SHARPNESSES for w in WEIGHTS), DEFAULTS)


def rows_of(p2: np.ndarray, z: np.ndarray, sharpness: float, weight: float) -> np.ndarray:
    """The rows [N, K + L] to retrieve by, from those of the representation "posterior" and the embeddings."""
    with np.errstate(divide="ignore"):
        log_p = np.log(p2.astype(np.float64)) * (sharpness / SHARPNESS)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return np.concatenate([p / p.sum(axis=1, keepdims=True), weight**0.5 * z], axis=1).astype(np.float32)


def scores_of(config: Config, data: Dataset) -> dict[str, dict[str, float]]:
    """Train a model and score every way to retrieve by it: way -> score -> value."""
    with tempfile.TemporaryDirectory() as folder:
        train(config, workdir=f"{folder}/run", data=data)
        model = load_run(f"{folder}/run")
        held_out = {name: data.splits[name] for name in ("valid", "test")}
        z = {name: model.embed(split.features) for name, split in held_out.items()}
        p2 = {name: model.represent(split.features, "posterior") for name, split in held_out.items()}
    found = {EMBEDDING: _scored(z, held_out, "cosine")}
    ways = {name_of(s, w): (s, w) for s in SHARPNESSES for w in WEIGHTS}
    ways[DEFAULTS] = SHARPNESS, embedding_weight(data.num_classes)
    for way, numbers in ways.items():
        rows = {name: {m: rows_of(p2[name][m], z[name][m], *numbers) for m in z[name]} for name in held_out}
        found[way] = _scored(rows, held_out, "dot")
    return found


def _scored(
    rows: Mapping[str, Mapping[str, np.ndarray]], held_out: Mapping[str, Split], metric: str
) -> dict[str, float]:
    maps = {name: cross_modal_map(rows[name], split.labels, metric).values() for name, split in held_out.items()}
    own = rows["valid"]
    ranks = [np.mean(1.0 / pair_ranks(own[a], own[b], metric=metric)) for a, b in permutations(own, 2)]
    values = {**{name: statistics.mean(of_split) for name, of_split in maps.items()}, "reciprocal_rank": np.mean(ranks)}
    return {name: round(float(values[name]), 4) for name in SCORES}


def results(args: Any, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The runs of all sets, each with its scores; what is missing is trained.

    Raises:
        InputError: nothing is stored and nothing may be trained; a set of the file has other data or settings.
    """
    path = args.out / "representations.json"
    content: dict[str, Any] = read_results(path, sets=dict) if path.exists() else {"sets": {}}
    if args.from_results:
        if missing := [name for name in args.sets or () if name not in content["sets"]]:
            raise InputError(f"{path} lacks {missing[0]}; run without --from-results to train it")
        if not content["sets"]:
            raise InputError(f"no results in {path}; run without --from-results to make them")
        return {name: content["sets"][name]["runs"] for name in args.sets or content["sets"]}
    with exclusive(path):
        for name in names:
            data = load_set(name, args.views)
            changes: dict[str, Any] = SMOKE if args.smoke else {}
            base = with_settings(Config(modalities=data.modalities, seed=TRIAL_SEED), **changes)
            configs = [with_settings(base, method=m, noise_rate=r) for m in METHODS for r in RATES]
            identity = {"sha256": data.digest(), "configs": [c.to_json() for c in configs], "tried": list(TRIED)}
            stored = content["sets"].get(name)
            if stored is None:
                runs = [{"method": c.method, "noise_rate": c.noise_rate, "scores": scores_of(c, data)} for c in configs]
                content["sets"][name] = {**identity, "runs": runs, "machine": machine(["jax", "jaxlib", "numpy"])}
                write_results(path, content)
            elif different := [key for key, value in identity.items() if stored.get(key) != value]:
                raise InputError(f"{path} holds {name} with other {different[0]}; move it away, or name another --out")
    return {name: content["sets"][name]["runs"] for name in names}


def mean_of(runs: Sequence[Mapping[str, Any]], way: str, score: str, method: str | None = None) -> float:
    """A score of a way to retrieve, the mean over runs."""
    return statistics.mean(run["scores"][way][score] for run in runs if method in (None, run["method"]))


def table(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Validation mAP of every way on every set, by method, and the mean reciprocal rank, the mean of both methods."""
    head = ["sharpness, weight", *(f"{name}, {m}" for name in sets for m in METHODS), "mean", "reciprocal rank"]
    lines = [head]
    for way in TRIED:
        values = [mean_of(runs, way, "valid", m) for runs in sets.values() for m in METHODS]
        rank = statistics.mean(mean_of(runs, way, "reciprocal_rank") for runs in sets.values())
        lines.append([way, *(f"{x:.3f}" for x in (*values, statistics.mean(values), rank))])
    return markdown(lines)


def draw(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Validation mAP against the weight of the embedding, one curve per sharpness; a dashed line for z alone."""
    across = min(3, len(sets))
    down = math.ceil(len(sets) / across)
    figure = Figure(figsize=(3.2 * across, 2.6 * down * len(METHODS)), layout="constrained")
    panels = figure.subplots(down * len(METHODS), across, squeeze=False)
    for i, (name, runs) in enumerate(sets.items()):
        for row, method in enumerate(METHODS):
            axes = panels[len(METHODS) * (i // across) + row][i % across]
            for sharpness in SHARPNESSES:
                at = [mean_of(runs, name_of(sharpness, w), "valid", method) for w in WEIGHTS]
                axes.plot(range(len(WEIGHTS)), at, "o-", label=f"sharpness {sharpness:g}", markersize=3)
            axes.axhline(
                mean_of(runs, EMBEDDING, "valid", method), color="black", linestyle="--", label=EMBEDDING, linewidth=1
            )
            axes.set_title(f"{name}, {method}", fontsize=9)
            axes.set_xticks(range(len(WEIGHTS)), [f"{w:g}" for w in WEIGHTS])
            axes.grid(alpha=0.3)
    for row in panels:
        row[0].set_ylabel("validation mAP")
    for axes in panels[-1]:
        axes.set_xlabel("weight of the embedding")
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, seeds=False, smoke="tiny networks").parse_args(argv))
    names = args.sets or [n for n in KNOWN if args.views or not n.startswith("wikipedia")]
    sets = results(args, names)
    valid, test = (
        {name: {way: mean_of(runs, way, score) for way in TRIED} for name, runs in sets.items()}
        for score in ("valid", "test")
    )
    text = table(sets) + leave_one_out_table(LEFT_OUT, valid, test, DEFAULTS, str)
    lines = [
        [name, run["method"], run["noise_rate"], way, *(run["scores"][way][score] for score in SCORES)]
        for name, runs in sets.items()
        for run in runs
        for way in TRIED
    ]
    head = ["set", "method", "noise_rate", "sharpness_and_weight", *SCORES]
    save(args.out / "representations", text, head, lines, draw(sets))


if __name__ == "__main__":
    run_main(main)
