"""The compared methods at four noise rates beside the published cells: common part of table1 and table2.

Every method has 9 trials (`experiments.shared.field`): one run each at the lowest and at the highest noise rate, with
a seed that no result uses. The setting with the highest mean validation mAP by clean labels is used at all rates,
with 5 seeds. So is what items are retrieved by, the embedding alone or with the class posterior, for all methods that
have a posterior. As published comparisons retrieve by the embedding, a column has the mean where validation mAP by
embedding chose the setting, and items are retrieved by embedding. Methods with networks have the same ones, the same
learning rate and schedule, but for the directions of dcca, dccae and smln and the outputs of fgcrossnet, and batches
of 100, but for dcca, dccae and smln, whose objectives need larger ones; these see each instance at least as often. A
run is scored by the model that it keeps, the best by validation mAP or, as consensus does, the last. Methods that
read no labels have the same runs at all rates. The time of an epoch is that of
`experiments.benchmarks.method_timings`: runs here share the machine with others, and are scored after many epochs.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.benchmarks import method_timings
from experiments.shared.command_line import checked, parser
from experiments.shared.field import FIELD, config_of
from experiments.shared.outputs import save
from experiments.shared.protocol import MEDIUM, PUBLISHED_SETS, RATES, SMALL, SMOKE, TRIAL_SEED, published
from experiments.shared.tables import markdown, mean_and_std
from experiments.shared.timings import read_numbers
from experiments.shared.traces import Trace, facts_of, kept_traces, read_traces, trace
from experiments.studies.sets import load_set
from mrl_jax import Config, InputError, grid, load_dataset, preset
from mrl_jax.config import with_settings
from mrl_jax.data.published.prepared import copies
from mrl_jax.methods.registry import entry_of

__all__ = ["TITLES", "Choice", "Field", "field_of", "make", "published_mean", "stored_fields"]

TITLES = {"wikipedia-views": "Wikipedia, reduced features"}
_OF_PAPER = {"wikipedia-views": "wikipedia"}
_SMALL = ("emoji-31", "generated")


class Choice(NamedTuple):
    """What validation chooses for a method.

    Attributes:
        setting: one of its trials.
        representation: what items are retrieved by.
    """

    setting: Mapping[str, Any]
    representation: str


class Field:
    """The runs of the compared methods on a set.

    Args:
        name: the set.
        trials: method -> its 9 trials -> traces at the lowest and at the highest rate.
        chosen: method -> the setting that is used, and the representation.
        runs: method -> noise rate -> seed.
        plain: method -> the same for retrieval by embedding alone; methods of which runs are missing are absent.
    """

    def __init__(
        self,
        name: str,
        trials: Mapping[str, Sequence[Sequence[Trace]]],
        chosen: Mapping[str, "Choice"],
        runs: Mapping[str, Sequence[Sequence[Trace]]],
        plain: Mapping[str, Sequence[Sequence[Trace]]],
    ) -> None:
        self.name, self.trials, self.chosen, self.runs, self.plain = name, trials, chosen, runs, plain

    def maps(self, method: str) -> list[list[float]]:
        """Test mAP of the model that a run keeps: noise rate -> seed."""
        kind = self.chosen[method].representation
        return [[t.score("kept", kind) for t in at] for at in self.runs[method]]

    def maps_by_embedding(self, method: str) -> list[list[float]]:
        """As `maps`, by embedding, with the setting that is best by embedding."""
        return [[t.score("kept") for t in at] for at in self.plain[method]]

    def precision(self, method: str) -> np.ndarray:
        """Average precision of every test instance, float [R, S, U], for `rank_methods`."""
        kind = self.chosen[method].representation
        return np.array([[t.of_instances("kept", kind) for t in at] for at in self.runs[method]])


def _base(name: str, smoke: bool) -> Config:
    """What all runs on a set have in common."""
    if name in PUBLISHED_SETS:
        base = preset(name)
    else:
        base = with_settings(Config(), **(SMALL if name.startswith(_SMALL) else MEDIUM))
    return with_settings(base, **SMOKE) if smoke else base


def _trial_configs(base: Config, method: str, instances: int) -> list[list[Config]]:
    rates = (RATES[0], RATES[-1]) if entry_of(method).reads_labels else (0.0,)
    own = [config_of(base, method, setting, instances) for setting in FIELD[method].trials]
    return [[with_settings(c, noise_rate=rate, seed=TRIAL_SEED) for rate in rates] for c in own]


def _run_configs(
    base: Config, method: str, setting: Mapping[str, Any], instances: int, seeds: int
) -> list[list[Config]]:
    own = config_of(base, method, setting, instances)
    rates = RATES if entry_of(method).reads_labels else (0.0,)
    by_rate = [grid(with_settings(own, noise_rate=rate), seed=range(seeds)) for rate in rates]
    return by_rate if entry_of(method).reads_labels else by_rate * len(RATES)


def _chosen(method: str, trials: Sequence[Sequence[Trace]], kinds: Sequence[str]) -> Choice:
    """The setting and representation with the highest mean validation mAP over the rates; the first one of a tie."""
    valid = {
        (i, kind): statistics.mean(t.score("kept", kind, "valid_clean") for t in at)
        for kind in kinds
        for i, at in enumerate(trials)
    }
    best, kind = max(valid, key=lambda choice: valid[choice])
    return Choice(FIELD[method].trials[best], kind)


def _kinds(method: str) -> tuple[str, ...]:
    """What items of a method may be retrieved by."""
    return ("embedding", "both") if "representation" in entry_of(method).uses else ("embedding",)


def field_of(name: str, args: argparse.Namespace, methods: Sequence[str]) -> Field:
    """The runs of methods on a set; those that are missing are trained, unless `args.from_results`.

    With `from_results`, methods whose runs are not complete are left out.
    """
    path, base = args.out / f"field_{name}.jsonl", _base(name, args.smoke)
    data = None if args.from_results else _load(name, args.views)
    stored = read_traces(path) if data is None else []
    if data is None and not stored:
        raise InputError(f"no results in {path}; run without --from-results to make them")
    facts = stored[0].record["data"] if data is None else facts_of(data)

    def traces(configs: list[list[Config]], instances: bool) -> list[list[Trace]] | None:
        flat = [c for own in configs for c in own]
        if data is not None:
            found: Sequence[Any] = trace(flat, data, path, instances=instances)
        else:
            found = kept_traces(flat, facts, stored)
        if any(t is None for t in found):
            return None
        rows = iter(found)
        return [[next(rows) for _ in own] for own in configs]

    trials, chosen, runs, plain = {}, {}, {}, {}
    for method in methods:
        if (tried := traces(_trial_configs(base, method, facts["instances"]), False)) is None:
            continue
        best, by_embedding = (_chosen(method, tried, kinds) for kinds in (_kinds(method), ("embedding",)))
        first, second = (
            traces(_run_configs(base, method, choice.setting, facts["instances"], args.seeds), True)
            for choice in (best, by_embedding)
        )
        if first is not None:
            trials[method], chosen[method], runs[method] = tried, best, first
        if first is not None and second is not None:
            plain[method] = second
    return Field(name, trials, chosen, runs, plain)


def _load(name: str, views: str | None) -> Any:
    return load_dataset(name) if name in PUBLISHED_SETS else load_set(name, views)


def stored_fields(args: argparse.Namespace, methods: Sequence[str]) -> list[Field]:
    """The fields of all sets that have runs in a folder."""
    names = [path.stem.removeprefix("field_") for path in sorted(args.out.glob("field_*.jsonl"))]
    return [field for name in names if (field := field_of(name, args, methods)).runs]


def make(doc: str | None, number: int, sets: Sequence[str], argv: Sequence[str] | None) -> None:
    """Train what is missing, print the table, and write it with its plot.

    Args:
        doc: docstring of the program.
        number: number of the table in the paper.
        sets: its sets, and those that stand in for them here.
        argv: flags.
    """
    flags = parser(doc, ", ".join(sets) + ", as far as they are at hand", smoke="tiny networks, 2 epochs, 2 seeds")
    flags.add_argument("--methods", nargs="+", metavar="NAME", help=f"some of {', '.join(FIELD)}; default: all")
    args = checked(flags.parse_args(argv))
    methods = args.methods or list(FIELD)
    if unknown := [method for method in methods if method not in FIELD]:
        raise InputError(f"--methods {unknown[0]!r}: choose from {', '.join(FIELD)}")
    names = args.sets or [name for name in sets if _at_hand(name, args)]
    fields = [field for name in names if (field := field_of(name, args, methods)).runs]
    if not fields:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    parts = [part for field in fields for part in _parts(field, number, args)]
    head = ["set", "method", "noise_rate", "seed", "map", "setting", "map_by_embedding"]
    save(args.out / f"table{number}", "\n\n".join(parts), head, [x for f in fields for x in _lines(f)], _draw(fields))


def _at_hand(name: str, args: argparse.Namespace) -> bool:
    if args.from_results:
        return (args.out / f"field_{name}.jsonl").exists()
    if name in PUBLISHED_SETS:
        return bool(copies(name))
    return args.views is not None if name.startswith("wikipedia") else True


def _parts(field: Field, number: int, args: argparse.Namespace) -> list[str]:
    rates = [f"noise {rate:g}" for rate in RATES]
    rows = [["method", "retrieved by", *rates, "mean", "mean by embedding", "an epoch, MRL = 1"]]
    epochs = {
        method: statistics.median(of) for method, of in read_numbers(method_timings.RESULTS_FILE)["epochs"].items()
    }
    for method in field.runs:
        cells = []
        for rate, values in zip(RATES, field.maps(method), strict=True):
            paper = published_mean(number, field.name, method, rate)
            cells.append(mean_and_std(values) + ("" if paper is None else f" ({paper:.3f})"))
        mean = statistics.mean(map(statistics.mean, field.maps(method)))
        plain = (
            f"{statistics.mean(map(statistics.mean, field.maps_by_embedding(method))):.3f}"
            if method in field.plain
            else ""
        )
        cost = f"{epochs[method] / epochs['mrl']:.2f}" if method in epochs else "closed form"
        rows.append([method, field.chosen[method].representation, *cells, f"{mean:.3f}", plain, cost])
    base = _base(field.name, args.smoke)
    layers = "-".join(map(str, (*base.hidden_dims, base.embed_dim)))
    title = f"### {TITLES.get(field.name, field.name)}, layers {layers}, {args.seeds} seeds"
    return [title, markdown(rows)]


def published_mean(number: int, name: str, method: str, rate: float) -> float | None:
    """The published value of a cell, the mean of both directions; None where there is none."""
    of_paper = _OF_PAPER.get(name, name).replace("-", "_")
    cells = [published(number, of_paper, FIELD[method].published, direction, rate) for direction in (0, 1)]
    return None if None in cells else statistics.mean(cell for cell in cells if cell is not None)


def _lines(field: Field) -> list[list[Any]]:
    """A line per run; the last column is empty where the setting that is best by embedding was not run."""
    rows = []
    for method, of_method in field.runs.items():
        plain = field.maps_by_embedding(method) if method in field.plain else [[""] * len(at) for at in of_method]
        for rate, at, maps, by_embedding in zip(RATES, of_method, field.maps(method), plain, strict=True):
            rows += [
                [field.name, method, rate, t.config.seed, value, _text(field.chosen[method]), other]
                for t, value, other in zip(at, maps, by_embedding, strict=True)
            ]
    return rows


def _text(chosen: Choice) -> str:
    return " ".join([*(f"{name}={value:g}" for name, value in chosen.setting.items()), f"by {chosen.representation}"])


def _draw(fields: Sequence[Field]) -> Figure:
    """A row of points for every method, one per noise rate; the best mean at the top."""
    most = max(len(field.runs) for field in fields)
    figure = Figure(figsize=(4.8 * len(fields), 1.4 + 0.24 * most), layout="constrained")
    for field, axes in zip(fields, figure.subplots(1, len(fields), squeeze=False)[0], strict=True):
        means = {method: [statistics.mean(at) for at in field.maps(method)] for method in field.runs}
        ordered = sorted(means, key=lambda method: statistics.mean(means[method]))
        for i, rate in enumerate(RATES):
            axes.plot([means[m][i] for m in ordered], range(len(ordered)), "o", ms=5, color=f"C{i}", label=f"{rate:g}")
        axes.hlines(
            range(len(ordered)),
            [min(means[m]) for m in ordered],
            [max(means[m]) for m in ordered],
            color="0.8",
            zorder=0,
        )
        axes.set_yticks(range(len(ordered)), ordered)
        axes.set(title=TITLES.get(field.name, field.name), xlabel="test mAP, mean of both directions")
        axes.grid(alpha=0.3, axis="x")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="noise rate", loc="outside lower center", ncols=len(RATES), fontsize=8)
    return figure
