"""Consensus beside MRL on more sets, and on several splits of emoji: checks of what `comparison` finds.

    python -m experiments.studies.other_sets [--sets emoji-31 …] [--views wikipedia_4views.npz]
    python -m experiments.studies.other_sets --from-results

The defaults of both, as in `comparison`, whose files `comparison_SET.jsonl` these runs share. Sets: subgroups of emoji
(31 classes), emoji without flags, whose names give their class away, Wikipedia with all four views as four modalities,
and generated ones of 10 to 300 classes; symmetric noise, one label per modality and one per pair. None is independent
of all choices: docs/results_settings.md says what was chosen on which. Five splits of emoji have one seed each; they
share most of their instances, so their spread is given and no interval. 900 steps take 35 to 50 seconds on one core
(AMD EPYC, 2026-11-29), and one set with 3 seeds 40 minutes.
"""

import statistics
from argparse import Namespace
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import RATES
from experiments.shared.tables import markdown, mean_and_std
from experiments.studies.compared_rows import BY_BOTH, BY_EMBEDDING, OURS, ROWS, Rows, runs_of
from experiments.studies.sets import SETS
from mrl_jax import InputError
from mrl_jax.eval.differences import Difference, compared, with_holm

OTHERS = ("emoji-31", "emoji-no-flags", "wikipedia-4views", "generated-10", "generated-100", "generated-300")
SPLITS = ("emoji", *(f"emoji-split-{seed}" for seed in range(1, 5)))
COMPARED = (OURS, BY_EMBEDDING, "MRL", f"MRL{BY_BOTH}")
PAIRS = ((OURS, f"MRL{BY_BOTH}"), (BY_EMBEDDING, "MRL"))
"""Rows that are retrieved alike."""
SCOPES = {"default length": "modality", "one label per pair": "pair"}
"""Condition of `comparison` -> labels per what."""
_HEAD = [f"noise {rate:g}" for rate in RATES]
Maps = dict[str, list[list[float]]]
"""Row -> noise rate -> test mAP of every seed, or of every split."""


def maps_of(rows: Rows) -> Maps:
    """Test mAP of the models that the runs keep."""
    return {
        row: [[t.score("kept", ROWS[row].representation) for t in of_rate] for of_rate in found]
        for row, found in rows.items()
    }


def differences(maps: Maps) -> list[list[Difference]]:
    """Consensus less MRL by both ways to retrieve, at every rate, corrected for all of these comparisons."""
    found = [compared(a, b) for ours, theirs in PAIRS for a, b in zip(maps[ours], maps[theirs], strict=True)]
    corrected = with_holm(found)
    return [corrected[i : i + len(RATES)] for i in range(0, len(corrected), len(RATES))]


def apart(maps: Maps, ours: str, theirs: str) -> list[list[float]]:
    """Consensus less MRL: noise rate -> every seed, or every split."""
    return [
        [a - b for a, b in zip(of_ours, of_theirs, strict=True)]
        for of_ours, of_theirs in zip(maps[ours], maps[theirs], strict=True)
    ]


def lines_of(maps: Maps, intervals: bool = True) -> list[list[str]]:
    """The lines of a table: mAP of all rows, then the differences, with intervals or standard deviations."""
    lines = [
        [row, *map(mean_and_std, values), f"{statistics.mean(map(statistics.mean, values)):.3f}"]
        for row, values in maps.items()
    ]
    for (ours, theirs), found in zip(PAIRS, differences(maps), strict=True):
        cells = [d.text for d in found] if intervals else [mean_and_std(x) for x in apart(maps, ours, theirs)]
        lines.append([f"{ours} less {theirs}", *cells, f"{statistics.mean(d.mean for d in found):+.3f}"])
    return lines


def draw(sets: Mapping[tuple[str, str], Maps]) -> Figure:
    """Consensus less MRL, both by embedding and posterior, against the noise rate."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    names = list(dict.fromkeys(name for name, _ in sets))
    for axes, scope in zip(figure.subplots(1, 2, sharey=True), SCOPES.values(), strict=True):
        for (name, of), maps in sets.items():
            if of == scope:
                plot_means(axes, RATES, apart(maps, *PAIRS[0]), name, color=f"C{names.index(name)}")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=f"one label per {scope}", xlabel="noise rate", xticks=RATES)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test mAP, consensus less MRL,\nboth by embedding and posterior")
    handles = {h.get_label(): h for axes in figure.axes for h in axes.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def splits_of(args: Namespace) -> tuple[Maps, int]:
    """mAP of the splits of emoji, one seed each, and their number; with `from_results` of those that are kept."""
    one, found = Namespace(**{**vars(args), "seeds": 1}), []
    for name in SPLITS:
        if args.from_results and not (args.out / f"comparison_{name}.jsonl").exists():
            continue
        rows = runs_of(name, one, ["default length"], COMPARED, least=1, common=True).get("default length", {})
        found += [maps_of(rows)] if set(rows) == set(COMPARED) else []
    joined = {row: [[maps[row][i][0] for maps in found] for i in range(len(RATES))] for row in COMPARED}
    return joined, len(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    args = checked(parser(__doc__, SETS, smoke="tiny networks, 2 epochs, 2 seeds").parse_args(argv))
    names = args.sets or [n for n in OTHERS if args.views or args.from_results or not n.startswith("wikipedia")]
    if args.from_results and not args.sets:
        names = [n for n in names if (args.out / f"comparison_{n}.jsonl").exists()]
    sets = {
        (name, SCOPES[condition]): maps_of(rows)
        for name in names
        for condition, rows in runs_of(name, args, list(SCOPES), COMPARED, common=True).items()
        if set(rows) == set(COMPARED)
    }
    splits, count = splits_of(args)
    if not sets and count < 2:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    parts, lines = [], []
    for (name, scope), maps in sets.items():
        parts += [f"### {name}, one label per {scope}, {len(maps[OURS][0])} seeds"]
        parts += [markdown([["", *_HEAD, "mean"], *lines_of(maps)])]
    if count > 1:
        parts += [f"### emoji, one label per modality, {count} splits"]
        parts += [markdown([["", *_HEAD, "mean"], *lines_of(splits, intervals=False)])]
    groups = {**sets, **({("splits of emoji", "modality"): splits} if count > 1 else {})}
    for (name, scope), maps in groups.items():
        lines += [
            [name, scope, row, rate, i, value]
            for row, values in maps.items()
            for rate, of_rate in zip(RATES, values, strict=True)
            for i, value in enumerate(of_rate)
        ]
    head = ["set", "labels_per", "row", "noise_rate", "seed", "map"]
    save(args.out / "other_sets", "\n\n".join(parts), head, lines, draw(groups))


if __name__ == "__main__":
    run_main(main)
