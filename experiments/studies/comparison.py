"""Consensus beside MRL, the paper's recipe and losses against noisy labels, on equal terms.

    python -m experiments.studies.comparison [--sets emoji] [--views wikipedia_4views.npz] [--conditions NAME …]
    python -m experiments.studies.comparison --from-results

Every row has its untuned defaults, the same networks (1024-1024-512), batches, learning rate and schedule, the same
noise and seeds; the paper's recipe has its own beta, temperatures and schedule. Every run is scored after its epochs
on the validation split, with clean and with noisy labels, and on the test split, so that one run gives the best epoch
by either and the last one. A run keeps the best by clean validation labels, or, as consensus does, the last: that is
the score of the first two tables and of the README. Test labels choose nothing. A difference is "ahead" or "behind" if
the t-interval over seeds and the bootstrap interval over test instances do not hold 0 and p, corrected for the number
of comparisons in the table (Holm), is below 0.05; else it is "level". The runs are kept in `comparison_SET.jsonl`; 900
steps take 35 seconds on one core (AMD EPYC, 2026-11-29), and all conditions with 5 seeds 20 hours a set.
"""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.differences import Difference, compared, instance_intervals, with_holm
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import RATES
from experiments.shared.tables import markdown, mean_and_std
from experiments.shared.traces import CHOSEN_BY
from experiments.studies.compared_rows import BY_BOTH, CONDITIONS, OURS, ROWS, Rows, Runs, runs_of
from experiments.studies.sets import SETS
from mrl_jax import InputError
from mrl_jax.options import REPRESENTATIONS

TITLES = {"wikipedia-views": "Wikipedia, reduced features"}
HEADLINE = (OURS, "MRL", f"MRL{BY_BOTH}", "cross-entropy + contrastive", "cross-entropy", "paper's recipe")
"""Rows of the README, as far as they have been run."""


def scores(rows: Rows, row: str, chosen_by: str) -> list[list[float]]:
    """Test mAP: noise -> seed."""
    return [[t.score(chosen_by, ROWS[row].representation) for t in at] for at in rows[row]]


def differences(rows: Rows, chosen_by: str) -> dict[str, list[Difference]]:
    """How far consensus lies above every other row with every noise, corrected for all of these comparisons."""
    ours, cells = (
        scores(rows, OURS, chosen_by),
        [(name, i) for name in rows if name != OURS for i in range(len(rows[OURS]))],
    )
    kept = [(name, i) for name, i in cells if ROWS[name].representation == "embedding"]  # the default of their method
    of_instances = [_instances(rows, OURS, i, chosen_by) - _instances(rows, name, i, chosen_by) for name, i in kept]
    intervals = dict(zip(kept, instance_intervals(np.stack(of_instances, axis=1)) if kept else (), strict=True))
    found = [compared(ours[i], scores(rows, name, chosen_by)[i], intervals.get((name, i))) for name, i in cells]
    apart: dict[str, list[Difference]] = {}
    for (name, _), difference in zip(cells, with_holm(found), strict=True):
        apart.setdefault(name, []).append(difference)
    return apart


def _instances(rows: Rows, row: str, noise: int, chosen_by: str) -> np.ndarray:
    """Average precision of every test instance, the mean of the seeds."""
    return np.mean([t.of_instances(chosen_by) for t in rows[row][noise]], axis=0)


def map_table(condition: str, rows: Rows, chosen_by: str) -> str:
    """Test mAP of all rows, mean ± standard deviation over seeds."""
    lines = [["", *CONDITIONS[condition].noises, "mean"]]
    for name in rows:
        maps = scores(rows, name, chosen_by)
        lines.append([name, *map(mean_and_std, maps), f"{statistics.mean(map(statistics.mean, maps)):.3f}"])
    return markdown(lines)


def difference_table(condition: str, rows: Rows, chosen_by: str) -> str:
    """The differences with their intervals over seeds, and verdicts."""
    lines = [[f"{OURS} less", *CONDITIONS[condition].noises]]
    for name, of_noises in differences(rows, chosen_by).items():
        lines.append([name, *(d.text for d in of_noises)])
    return markdown(lines)


def length_table(runs: Runs) -> str:
    """Test mAP by the way in which the epoch is chosen, for all rows and conditions; the mean of all noises."""
    head = [
        "",
        "",
        "best by clean labels",
        "best by noisy labels",
        "last",
        "last, lowest",
        "last below best, at most",
    ]
    lines = [head]
    for condition, rows in runs.items():
        for name in rows:
            of = {by: [statistics.mean(at) for at in scores(rows, name, by)] for by in CHOSEN_BY}
            below = max(best - last for best, last in zip(of["clean"], of["last"], strict=True))
            values = [*(statistics.mean(of[by]) for by in CHOSEN_BY), min(of["last"]), below]
            lines.append([condition, name, *(f"{round(x, 3) + 0.0:.3f}" for x in values)])  # no -0.000
    return markdown(lines)


def representation_table(rows: Rows) -> str:
    """Test mAP, and the mean reciprocal rank of the own instance, by what is retrieved by; the mean of all rates."""
    lines = [["", *(f"{what}, {kind}" for what in ("mAP", "reciprocal rank") for kind in REPRESENTATIONS)]]
    for name in rows:
        if name.endswith(BY_BOTH):
            continue
        traces = [t for at in rows[name] for t in at]
        values = [
            statistics.mean(t.score("clean", kind, what) for t in traces)
            for what in ("test", "reciprocal_rank")
            for kind in REPRESENTATIONS
        ]
        lines.append([name, *(f"{x:.3f}" for x in values)])
    return markdown(lines)


def headline(sets: Mapping[str, Runs], condition: str) -> str:
    """The table of the README: test mAP of the model that a run keeps, and of the last epoch with most noise.

    A star marks cells that consensus is significantly above, or below.
    """
    shown = {name: runs[condition] for name, runs in sets.items() if condition in runs}
    rates = [f"{rate:g}" for rate in RATES]
    head = ["", *(f"{name.removesuffix('-views')} {rate}" for name in shown for rate in [*rates, "0.8, last epoch"])]
    lines = [head]
    apart = {name: differences(rows, "kept") for name, rows in shown.items()}
    for row in (row for row in HEADLINE if any(row in rows for rows in shown.values())):
        cells = [row]
        for name, rows in shown.items():
            if row not in rows:
                cells += ["-"] * (len(RATES) + 1)
                continue
            verdicts = [d.verdict for d in apart[name].get(row, ())] or ["level"] * len(RATES)
            marks = ["" if verdict == "level" else "\\*" for verdict in verdicts]
            kept = [mean_and_std(at) for at in scores(rows, row, "kept")]
            cells += [f"{value}{mark}" for value, mark in zip(kept, marks, strict=True)]
            cells.append(mean_and_std(scores(rows, row, "last")[-1]))
        lines.append(cells)
    return markdown(lines)


def draw(sets: Mapping[str, Runs]) -> Figure:
    """Test mAP against the noise rate, and with most noise against the epoch of the longest runs."""
    figure = Figure(figsize=(9.5, 3.6 * len(sets)), layout="constrained")
    for (name, runs), axes in zip(sets.items(), figure.subplots(len(sets), 2, squeeze=False), strict=True):
        title, first, long = TITLES.get(name, name), next(iter(runs)), _longest(runs)
        for row in HEADLINE:
            if row.endswith(BY_BOTH):
                continue
            color = f"C{list(ROWS).index(row)}"
            if row in runs[first]:
                plot_means(axes[0], RATES, scores(runs[first], row, "kept"), row, color=color)
            if row in runs[long]:
                traces = runs[long][row][-1]
                curves = [t.record["scores"][ROWS[row].representation]["test"] for t in traces]
                axes[1].plot(traces[0].epochs, [statistics.mean(at) for at in zip(*curves, strict=True)], color=color)
        axes[0].set(
            title=f"{title.partition(',')[0]}, {first}",
            xlabel="noise rate",
            ylabel="test mAP of the model that is kept",
        )
        axes[0].set_xticks(RATES)
        axes[0].legend(fontsize=7)
        axes[1].set(title=f"{title.partition(',')[0]}, {long}, noise {RATES[-1]:g}", xlabel="epoch", ylabel="test mAP")
        for one in axes:
            one.grid(alpha=0.3)
    return figure


def _longest(runs: Runs) -> str:
    """The condition with the longest runs of the rows of the README."""
    most = max(len(set(HEADLINE) & set(rows)) for rows in runs.values())
    whole = [c for c, rows in runs.items() if len(set(HEADLINE) & set(rows)) == most]
    return max(whole, key=lambda c: runs[c][OURS][0][0].epochs[-1])


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    flags = parser(__doc__, SETS, smoke="tiny networks, 2 epochs, 2 seeds")
    flags.add_argument("--conditions", nargs="+", metavar="NAME", help=f"some of: {'; '.join(CONDITIONS)}")
    args = checked(flags.parse_args(argv))
    conditions = args.conditions or list(CONDITIONS)
    if unknown := [name for name in conditions if name not in CONDITIONS]:
        raise InputError(f"--conditions {unknown[0]!r}: choose from {', '.join(map(repr, CONDITIONS))}")
    stored = [n for n in ("emoji", "wikipedia-views") if (args.out / f"comparison_{n}.jsonl").exists()]
    names = args.sets or (stored if args.from_results else ["emoji", *(["wikipedia-views"] if args.views else [])])
    sets = {name: runs for name in names if (runs := runs_of(name, args, conditions))}
    if not sets:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    parts, lines = [], []
    for name, runs in sets.items():
        for condition, rows in runs.items():
            seeds = len(rows[OURS][0])
            parts.append(f"### {TITLES.get(name, name)}, {condition}, {seeds} seeds")
            parts += [map_table(condition, rows, "kept")]
            parts += [difference_table(condition, rows, "kept")] if len(rows) > 1 else []
            lines += [
                [name, condition, row, by, noise, t.config.noise_rate, t.config.seed, value]
                for row in rows
                for by in CHOSEN_BY
                for noise, at, own in zip(CONDITIONS[condition].noises, rows[row], scores(rows, row, by), strict=True)
                for t, value in zip(at, own, strict=True)
            ]
        title, first = TITLES.get(name, name), next(iter(runs))
        parts += [f"### {title}: which epoch, mean of all columns", length_table(runs)]
        parts += [f"### {title}: retrieved by what, {first}, best epoch of each", representation_table(runs[first])]
    (args.out / "headline.md").write_text(headline(sets, conditions[0]) + "\n", encoding="utf-8")
    head = ["set", "condition", "row", "epoch", "noise", "noise_rate", "seed", "map"]
    save(args.out / "comparison", "\n\n".join(parts), head, lines, draw(sets))


if __name__ == "__main__":
    run_main(main)
