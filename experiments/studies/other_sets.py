"""Consensus beside MRL on sets where no number of either was chosen, and on several splits of emoji.

    python -m experiments.studies.other_sets [--sets emoji-31 …] [--views wikipedia_4views.npz]
    python -m experiments.studies.other_sets --from-results

The untuned defaults of both, as in `comparison`, whose files `comparison_SET.jsonl` these runs share. Sets: subgroups
of emoji (31 classes), emoji without flags, whose names give their class away, Wikipedia with all four views as four
modalities, and generated ones of 10 to 300 classes; symmetric noise, one label per modality and one per pair. On five
splits of emoji, with one seed each, intervals are over splits. 900 steps take 35 seconds on one core (AMD EPYC,
2026-11-29), and one set with 3 seeds half an hour.
"""

import statistics
from argparse import Namespace
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.differences import Difference, compared, with_holm
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import RATES
from experiments.shared.tables import markdown, mean_and_std
from experiments.studies.compared_rows import BY_BOTH, OURS, ROWS, Rows, runs_of
from experiments.studies.sets import SETS
from mrl_jax import InputError

OTHERS = ("emoji-31", "emoji-no-flags", "wikipedia-4views", "generated-10", "generated-100", "generated-300")
SPLITS = ("emoji", *(f"emoji-split-{seed}" for seed in range(1, 5)))
COMPARED = (OURS, "MRL", f"MRL{BY_BOTH}")
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


def differences(maps: Maps) -> dict[str, list[Difference]]:
    """Consensus less the other rows, at every rate, corrected for all of these comparisons."""
    others = [row for row in maps if row != OURS]
    found = [compared(a, b) for row in others for a, b in zip(maps[OURS], maps[row], strict=True)]
    corrected = with_holm(found)
    return {row: corrected[i * len(RATES) : (i + 1) * len(RATES)] for i, row in enumerate(others)}


def lines_of(maps: Maps) -> list[list[str]]:
    """The lines of a table: mAP of all rows, then the differences."""
    lines = [
        [row, *map(mean_and_std, values), f"{statistics.mean(map(statistics.mean, values)):.3f}"]
        for row, values in maps.items()
    ]
    for row, apart in differences(maps).items():
        mean = statistics.mean(d.mean for d in apart)
        lines.append([f"{OURS} less {row}", *(d.text for d in apart), f"{mean:+.3f}"])
    return lines


def draw(sets: Mapping[tuple[str, str], Maps]) -> Figure:
    """Consensus less MRL, both by embedding and posterior, against the noise rate."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    names = list(dict.fromkeys(name for name, _ in sets))
    for axes, scope in zip(figure.subplots(1, 2, sharey=True), SCOPES.values(), strict=True):
        for (name, of), maps in sets.items():
            if of == scope:
                apart = [
                    [a - b for a, b in zip(ours, theirs, strict=True)]
                    for ours, theirs in zip(maps[OURS], maps[COMPARED[-1]], strict=True)
                ]
                plot_means(axes, RATES, apart, name, color=f"C{names.index(name)}")
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
        rows = runs_of(name, one, ["default length"], COMPARED, least=1).get("default length", {})
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
        for condition, rows in runs_of(name, args, list(SCOPES), COMPARED).items()
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
        parts += [markdown([["", *_HEAD, "mean"], *lines_of(splits)])]
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
