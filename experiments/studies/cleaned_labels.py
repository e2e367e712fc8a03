"""Training on cleaned labels: what relabelling and filtering by the audit gain, and what they cost.

    python -m experiments.studies.cleaned_labels [--sets emoji …] [--views wikipedia_4views.npz] [--seeds N]
    python -m experiments.studies.cleaned_labels --from-results

The way of a user with a file of noisy labels. A file with the given labels (training and validation; test labels are
clean) is written, loaded and audited; the audit writes it relabelled, and filtered to the least suspicious share that
its estimated noise rate says (`--keep` 1 - rate). On each of the three files MRL and cross-entropy with the contrastive
loss train with their defaults; consensus, which infers labels itself, trains on the given ones. Symmetric noise, one
label per modality and one per pair; without noise the two are the same. Small networks. Every run is kept
in cleaned_labels.json, so that a program that was killed goes on with the next one.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.machine import machine
from experiments.shared.outputs import against_noise, plot_means, save
from experiments.shared.protocol import SMALL, SMOKE
from experiments.shared.store import exclusive, read_results, stored_sets, write_results
from experiments.shared.tables import markdown
from experiments.studies.sets import SETS, audited_sets, load_set
from mrl_jax import Config, InputError, load_dataset, train
from mrl_jax.audit.output import write_cleaned
from mrl_jax.audit.run import audit_data
from mrl_jax.compile_cache import keep_compiled
from mrl_jax.config import with_settings
from mrl_jax.data.dataset import SPLITS, Dataset
from mrl_jax.retrieval.measure import cross_modal_map
from mrl_jax.train import Result
from mrl_jax.training.run_spec import prepare_data, prepare_run

NOISES = (("modality", 0.0), ("modality", 0.2), ("modality", 0.6), ("pair", 0.2), ("pair", 0.6))
"""Labels per what, and noise rate."""
SMOKE_NOISE = NOISES[3]
SCOPES = {"modality": "modality", "pair": "instance"}
VERSIONS = ("given", "relabelled", "filtered")
METHODS: dict[str, dict[str, Any]] = {"MRL": {}, "cross-entropy + contrastive": {"loss": "ce"}}
CONSENSUS = "consensus"
Cell = tuple[str, float, int]
"""Labels per what, noise rate, and seed."""
ONE_METHOD = ("pair",)
"""Labels per what for which only MRL and consensus train."""


def given_arrays(dataset: Dataset, config: Config) -> dict[str, Any]:
    """The data with the noisy labels of a configuration as a file of one's own; ids are rows of the training split."""
    spec = prepare_run(with_settings(config, noisy_validation=config.noise_rate > 0), prepare_data(config, dataset))
    labels: dict[str, Mapping[str, Any]] = {
        **spec.held_out,
        "train": dict(zip(dataset.modalities, spec.labels, strict=True)),
    }
    arrays: dict[str, Any] = {"class_names": np.array(dataset.class_names)}
    for name in SPLITS:
        split = dataset.splits[name]
        arrays[f"{name}_ids"] = np.arange(len(split)).astype(str)
        for m in dataset.modalities:
            arrays[f"{name}_{m}"] = np.asarray(split.features[m])
            arrays[f"{name}_{m}_labels"] = np.asarray(labels[name][m])
    return arrays


def wrong_and_kept(data: Dataset, clean: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The share of wrong labels among the training samples of a file, and the share of all samples that it has."""
    split, wrong, there = data.splits["train"], 0, 0
    assert split.ids is not None
    rows = np.asarray(split.ids).astype(int)
    for m in data.modalities:
        present = split.present(m)
        wrong += int((split.labels[m] != clean[m][rows])[present].sum())
        there += int(present.sum())
    return round(wrong / there, 5), round(there / sum(map(len, clean.values())), 5)


def files_of(
    dataset: Dataset, cell: Cell, changes: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], dict[str, Dataset]]:
    """The three files of a cell, loaded, and what is known of their labels."""
    (scope, rate, seed), base = cell, _config(dataset, cell, changes)
    noise = {"noise_rate": rate, **({"noise_scope": SCOPES[scope]} if rate else {})}
    files = {name: folder / f"{name}.npz" for name in VERSIONS}
    np.savez(files["given"], **given_arrays(dataset, with_settings(base, **noise)))
    audited = audit_data(load_dataset(files["given"]), neighbours=0)
    estimated = audited.audit.noise.rate
    keep = round(1.0 - float(estimated.mean()), 2)
    done = write_cleaned(files["relabelled"], audited)
    write_cleaned(files["filtered"], audited, keep)
    data = {name: load_dataset(path) for name, path in files.items()}
    clean = {m: dataset.splits["train"].labels[m] for m in dataset.modalities}
    labels = {name: wrong_and_kept(of, clean) for name, of in data.items()}
    facts = {
        "scope": scope,
        "rate": rate,
        "seed": seed,
        "estimated": [round(float(x), 5) for x in estimated],
        "keep": keep,
        "replaced": done["relabelled"],
        "wrong": {name: wrong for name, (wrong, _) in labels.items()},
        "kept": {name: kept for name, (_, kept) in labels.items()},
        "map": {name: {} for name in VERSIONS},
    }
    return facts, data


def _config(dataset: Dataset, cell: Cell, changes: Mapping[str, Any]) -> Config:
    return Config(modalities=dataset.modalities, seed=cell[2], **changes)


def missing_runs(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """File and method of the runs that a cell lacks."""
    methods = list(METHODS)[: 1 if row["scope"] in ONE_METHOD else None]
    wanted = [(name, method) for method in methods for name in VERSIONS]
    wanted.append(("given", CONSENSUS))
    return [(name, method) for name, method in wanted if method not in row["map"][name]]


def train_missing(row: dict[str, Any], dataset: Dataset, changes: Mapping[str, Any], done: Callable[[], None]) -> None:
    """Train the runs that a cell lacks, each followed by `done`."""
    cell, scores = (row["scope"], row["rate"], row["seed"]), row["map"]
    with tempfile.TemporaryDirectory() as folder:
        _, data = files_of(dataset, cell, changes, Path(folder))
        for name, method in missing_runs(row):
            if name == "filtered" and row["kept"][name] == 1.0:  # nothing was removed
                scores[name][method] = scores["given"][method]
            else:
                settings = METHODS.get(method, {"method": method})
                result = train(with_settings(_config(dataset, cell, changes), **settings), data=data[name])
                scores[name][method] = scores_of(result, data[name])
            done()


def scores_of(result: Result, data: Dataset) -> dict[str, float]:
    """Test mAP of the last epoch and of the best one by the noisy validation labels; of consensus also by embedding."""
    test = result.scores["test"]
    found = {chosen: round(test[chosen]["average"], 5) for chosen in ("last", "best")}
    if result.run.representation_for(None) != "embedding":
        split = data.splits["test"]
        rows = result.run.represent(split.features, "embedding")
        maps = cross_modal_map(rows, split.labels)
        found["by embedding"] = round(sum(maps.values()) / len(maps), 5)
    return found


def results(args: Any, names: Sequence[str]) -> dict[str, Any]:
    """Set -> its cells; `cleaned_labels.json` is written after every cell."""
    path = args.out / "cleaned_labels.json"
    if args.from_results:
        return stored_sets(path)
    data = {name: load_set(name, args.views) for name in names}
    changes = SMOKE if args.smoke else SMALL
    noises = (SMOKE_NOISE,) if args.smoke else NOISES
    wanted = [(*noise, seed) for seed in range(args.seeds) for noise in noises]
    wanted.sort(key=lambda cell: cell[0] in ONE_METHOD)  # those last
    with exclusive(path):
        content: dict[str, Any] = read_results(path, sets=dict) if path.exists() else {"sets": {}}
        for name, dataset in data.items():
            identity = {"sha256": dataset.digest(), "config": Config(**changes).to_json()}
            samples = len(dataset.modalities) * len(dataset.splits["train"])
            start = {**identity, "samples": samples, "rows": [], "machine": machine(["jax", "numpy"])}
            of_set = content["sets"].setdefault(name, start)
            if any(of_set[key] != value for key, value in identity.items()):
                raise InputError(f"{path} holds {name} with other settings; move it away, or name another --out")
            rows = of_set["rows"]
            known = [_cell(row) for row in rows]
            for cell in (cell for cell in wanted if cell not in known):
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(files_of(dataset, cell, changes, Path(folder))[0])
            write_results(path, content)
        for number, cell in enumerate(wanted, 1):
            for name, dataset in data.items():
                (row,) = (row for row in content["sets"][name]["rows"] if _cell(row) == cell)
                if missing_runs(row):
                    print(f"{name}: cell {number} of {len(wanted)}, {cell}", file=sys.stderr, flush=True)
                    train_missing(row, dataset, changes, lambda: write_results(path, content))
    return dict(content["sets"])


def _cell(row: Mapping[str, Any]) -> Cell:
    return row["scope"], row["rate"], row["seed"]


def cells(of_set: Mapping[str, Any]) -> list[tuple[str, float, list[Mapping[str, Any]]]]:
    """Labels per what, noise rate and the rows of all seeds, for every noise that a set has."""
    found = []
    for scope, rate in NOISES:
        if own := [row for row in of_set["rows"] if (row["scope"], row["rate"]) == (scope, rate)]:
            found.append((scope, rate, sorted(own, key=lambda row: row["seed"])))
    return found


def label_table(found: Mapping[str, Any]) -> list[list[str]]:
    """The share of wrong labels in the three files, the mean over seeds."""
    rows = [["set", "labels per", "noise rate", "wrong as given", "estimated", "relabelled", "wrong after it"]]
    rows[0] += ["kept by the filter", "wrong among these"]
    for name, of_set in found.items():
        for scope, rate, own in cells(of_set):
            estimated = statistics.mean(x for row in own for x in row["estimated"])
            wrong = {v: statistics.mean(row["wrong"][v] for row in own) for v in VERSIONS}
            labels = statistics.mean(row["replaced"] for row in own) / of_set["samples"]
            kept = statistics.mean(row["kept"]["filtered"] for row in own)
            values = [wrong["given"], estimated, labels, wrong["relabelled"], kept, wrong["filtered"]]
            rows.append([name, _per(scope, rate), f"{rate:g}", *(f"{x:.1%}" for x in values)])
    return rows


def map_table(found: Mapping[str, Any]) -> list[list[str]]:
    """Test mAP on the given labels, and what relabelling and filtering add, mean and standard deviation over seeds."""
    epochs = {"last": "", "best": ", best epoch"}
    rows = [["set", "labels per", "noise rate", "seeds", "method"]]
    rows[0] += [f"{'as given' if v == 'given' else v}{of}" for of in epochs.values() for v in VERSIONS]
    for name, of_set in found.items():
        for scope, rate, all_rows in cells(of_set):
            start = [name, _per(scope, rate), f"{rate:g}"]
            for method in METHODS:
                if not (own := _complete(all_rows, method)):
                    continue
                line = [*start, str(len(own)), method]
                for chosen in epochs:
                    values = {v: [row["map"][v][method][chosen] for row in own] for v in VERSIONS}
                    gains = [gain_text(values[v], values["given"]) for v in VERSIONS[1:]]
                    line += [f"{statistics.mean(values['given']):.3f}", *gains]
                rows.append(line)
            if ours := [row["map"]["given"][CONSENSUS] for row in all_rows if CONSENSUS in row["map"]["given"]]:
                means = {key: f"{statistics.mean(of[key] for of in ours):.3f}" for key in ours[0]}
                line = [*start, str(len(ours))]
                rows.append([*line, CONSENSUS, means["last"], "", "", means["best"], "", ""])
                rows.append([*line, f"{CONSENSUS}, by embedding", means["by embedding"], *[""] * 5])
    return rows


def _complete(rows: Sequence[Mapping[str, Any]], method: str) -> list[Mapping[str, Any]]:
    """The rows that have a method on all files."""
    return [row for row in rows if all(method in row["map"][v] for v in VERSIONS)]


def gain_text(values: Sequence[float], given: Sequence[float]) -> str:
    """A mean, and in brackets the mean of the differences to others with the same seeds ± their standard deviation."""
    apart = [a - b for a, b in zip(values, given, strict=True)]
    spread = f" ± {statistics.stdev(apart):.3f}" if len(apart) > 1 else ""
    return f"{statistics.mean(values):.3f} ({statistics.mean(apart):+.3f}{spread})"


def _per(scope: str, rate: float) -> str:
    return scope if rate else "either"


def draw(found: Mapping[str, Any]) -> Figure:
    """Test mAP of the last epoch against the noise rate, a panel per set and method, one label per modality."""
    figure = Figure(figsize=(4.2 * len(METHODS), 3.4 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(METHODS), squeeze=False, sharey="row")
    for (name, of_set), line in zip(found.items(), panels, strict=True):
        for method, axes in zip(METHODS, line, strict=True):
            at = [(rate, _complete(rows, method)) for scope, rate, rows in cells(of_set) if scope == "modality"]
            own = [(rate, rows) for rate, rows in at if rows]
            for version in VERSIONS:
                values = [[row["map"][version][method]["last"] for row in rows] for _, rows in own]
                plot_means(axes, [rate for rate, _ in own], values, "as given" if version == "given" else version)
            both = [(rate, [r for r in rows if CONSENSUS in r["map"]["given"]]) for rate, rows in own]
            both = [(rate, rows) for rate, rows in both if rows]
            ours = [[row["map"]["given"][CONSENSUS]["by embedding"] for row in rows] for _, rows in both]
            plot_means(axes, [rate for rate, _ in both], ours, "consensus, by embedding", color="0.5")
            against_noise(axes, f"{name.removesuffix('-views')}, {method}")
        line[0].set_ylabel("test mAP, last epoch")
    panels[0][0].legend(fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, smoke="tiny networks, one noise", default_seeds=3).parse_args(argv))
    found = results(args, args.sets or audited_sets(args))
    lines = [
        [name, row["scope"], row["rate"], row["seed"], version, method, row["wrong"][version], row["kept"][version]]
        + [of[score] for score in ("last", "best")]
        for name, of_set in found.items()
        for row in of_set["rows"]
        for version in VERSIONS
        for method, of in row["map"][version].items()
    ]
    head = ["set", "scope", "rate", "seed", "file", "method", "wrong", "kept", "last", "best"]
    text = f"{markdown(label_table(found))}\n\n{markdown(map_table(found))}"
    save(args.out / "cleaned_labels", text, head, lines, draw(found))


if __name__ == "__main__":
    keep_compiled()  # runs on files of the same size share their programs
    run_main(main)
