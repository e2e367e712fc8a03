"""Consensus beside MRL, the paper's recipe and losses against noisy labels, on equal terms.

    python -m experiments.studies.comparison [--sets emoji] [--views wikipedia_4views.npz] [--conditions NAME …]
    python -m experiments.studies.comparison --from-results

Every row has its defaults, the same networks (1024-1024-512), batches, learning rate and schedule, the same noise and
seeds; the paper's recipe has its own beta, temperatures and schedule. Every run is scored after its epochs on the
validation split, with clean and with noisy labels, and on the test split, so that one run gives the best epoch by
either and the last one. A run keeps the best by clean validation labels, or, as consensus does, the last: that is the
score of the first two tables and of the README. Test labels choose nothing. The second table has consensus less another
row, with the seeds of both and retrieved in the same way, with the smallest interval that holds the t-interval over
seeds and the bootstrap interval over test instances, where the runs keep them; near-duplicates of emoji are drawn
together. Their confidence is raised so that all verdicts of a table err together in at most 5 % of the cases (Holm);
"level" is a difference whose interval holds 0. With fewer than 5 seeds there is no verdict. The third table has
consensus less the best of all rows of MRL, which mean clean validation mAP chooses for every noise, with its standard
error. The runs are kept in `comparison_SET.jsonl`; 900 steps take 35 to 50 seconds on one core (AMD EPYC, 2026-11-29),
and all conditions with 5 seeds more than a day a set.
"""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.outputs import plot_means, save
from experiments.shared.protocol import RATES
from experiments.shared.tables import markdown, mean_and_std
from experiments.shared.traces import CHOSEN_BY, Trace
from experiments.studies.compared_rows import (
    BY_BOTH,
    BY_EMBEDDING,
    CONDITIONS,
    OURS,
    ROWS,
    Rows,
    Runs,
    runs_of,
)
from experiments.studies.sets import SETS
from mrl_jax import InputError
from mrl_jax.data.emoji.load import load_records
from mrl_jax.eval.differences import Difference, bootstrap_samples, compared, with_holm
from mrl_jax.options import REPRESENTATIONS

TITLES = {"wikipedia-views": "Wikipedia, reduced features"}
HEADLINE = (
    OURS,
    f"MRL{BY_BOTH}",
    f"paper's recipe{BY_BOTH}",
    f"cross-entropy + contrastive{BY_BOTH}",
    f"ELRCMR{BY_BOTH}",
    f"ACMR{BY_BOTH}",
)
"""Rows of the README, as far as they have been run. All are retrieved by embedding and posterior."""
_OF_OURS = (OURS, BY_EMBEDDING)
_OF_MRL = ("MRL", "paper's recipe")
"""What the names of rows begin with that are MRL in some setting."""


def scores(rows: Rows, row: str, chosen_by: str) -> list[list[float]]:
    """Test mAP: noise -> seed."""
    return [[t.score(chosen_by, ROWS[row].representation) for t in at] for at in rows[row]]


def units_of(name: str) -> np.ndarray | None:
    """The groups of near-duplicates among the test instances of emoji, integers [N]; None for another set."""
    if name != "emoji":
        return None
    return np.unique([record["group"] for record in load_records("test")], return_inverse=True)[1]


def differences(rows: Rows, chosen_by: str, units: np.ndarray | None = None) -> dict[str, list[Difference]]:
    """How far consensus lies above every other row with every noise, corrected for all of these comparisons.

    Both are retrieved in the same way: by embedding, or by embedding and posterior. Test instances of a unit are drawn
    together.
    """
    cells = [(name, i) for name in rows if name not in _OF_OURS for i in range(len(rows[OURS]))]
    of_instances = {cell: d for cell in cells if (d := _apart(rows, *cell, chosen_by)) is not None}
    drawn = bootstrap_samples(np.stack(list(of_instances.values()), axis=1), units).T if of_instances else ()
    samples = dict(zip(of_instances, drawn, strict=True))
    found = []
    for name, i in cells:
        kind = ROWS[name].representation
        pairs = _paired(rows, _opponent(name), name, i)
        ours, theirs = ([t.score(chosen_by, kind) for t in own] for own in zip(*pairs, strict=True))
        found.append(compared(ours, theirs, samples.get((name, i))))
    apart: dict[str, list[Difference]] = {}
    for (name, _), difference in zip(cells, with_holm(found), strict=True):
        apart.setdefault(name, []).append(difference)
    return apart


def _paired(rows: Rows, ours: str, theirs: str, noise: int) -> list[tuple[Trace, Trace]]:
    """The runs of two rows with the same seeds."""
    other = {t.config.seed: t for t in rows[theirs][noise]}
    return [(t, other[t.config.seed]) for t in rows[ours][noise] if t.config.seed in other]


def _opponent(row: str) -> str:
    """The row of consensus that is retrieved as a row is."""
    return BY_EMBEDDING if ROWS[row].representation == "embedding" else OURS


def _apart(rows: Rows, row: str, noise: int, chosen_by: str) -> np.ndarray | None:
    """Average precision of every test instance, consensus less a row, the mean of the seeds that keep it; or None."""
    if chosen_by == "noisy":
        return None
    kind, apart = ROWS[row].representation, []
    for ours, theirs in _paired(rows, _opponent(row), row, noise):
        a, b = ours.of_instances(chosen_by, kind), theirs.of_instances(chosen_by, kind)
        apart += [] if a is None or b is None else [a - b]
    return np.mean(apart, axis=0) if apart else None


def map_table(condition: str, rows: Rows, chosen_by: str) -> str:
    """Test mAP of all rows, mean ± standard deviation over seeds."""
    lines = [["", "seeds", *CONDITIONS[condition].noises, "mean"]]
    for name in rows:
        maps = scores(rows, name, chosen_by)
        mean = f"{statistics.mean(map(statistics.mean, maps)):.3f}"
        lines.append([name, str(len(maps[0])), *map(mean_and_std, maps), mean])
    return markdown(lines)


def difference_table(condition: str, rows: Rows, chosen_by: str, units: np.ndarray | None) -> str:
    """The differences with their intervals, and verdicts."""
    lines = [[f"{OURS}, retrieved alike, less", *CONDITIONS[condition].noises]]
    for name, of_noises in differences(rows, chosen_by, units).items():
        lines.append([name, *(d.text for d in of_noises)])
    return markdown(lines)


def best_of_mrl(rows: Rows, noise: int) -> tuple[str, Difference]:
    """The row of MRL with the highest validation mAP by clean labels, and how far consensus lies above it.

    Every row is retrieved by its own representation and has the model that a run keeps.
    """
    of_mrl = [row for row in rows if row.startswith(_OF_MRL)]
    valid = {
        row: statistics.mean(t.score("kept", ROWS[row].representation, "valid_clean") for t in rows[row][noise])
        for row in of_mrl
    }
    best = max(of_mrl, key=lambda row: valid[row])
    pairs = _paired(rows, OURS, best, noise)
    ours = [t.score("kept", ROWS[OURS].representation) for t, _ in pairs]
    return best, compared(ours, [t.score("kept", ROWS[best].representation) for _, t in pairs])


def best_of_mrl_table(condition: str, rows: Rows) -> str:
    """Consensus less the best row of MRL: mean ± standard error, and whether it is below by more than that."""
    noises = CONDITIONS[condition].noises
    found = [best_of_mrl(rows, i) for i in range(len(noises))]
    differences = [f"{d.mean:+.3f} ± {d.error:.3f}{' below' * (d.mean < -d.error)}" for _, d in found]
    return markdown(
        [
            [f"{OURS} less the best of MRL", *noises],
            ["mean ± standard error", *differences],
            ["the best of MRL", *(row for row, _ in found)],
        ]
    )


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
        if name.endswith(BY_BOTH) or name == BY_EMBEDDING:
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
    """The table of the README: mean test mAP of the model that a run keeps, and of the last epoch with most noise.

    All rows are retrieved in the same way, which their names leave out. A star marks cells that consensus is
    significantly above; two stars those that it is below.
    """
    shown = {name: runs[condition] for name, runs in sets.items() if OURS in runs.get(condition, ())}
    rates = [f"{rate:g}" for rate in RATES]
    head = ["", *(f"{name.removesuffix('-views')} {rate}" for name in shown for rate in [*rates, "0.8, last epoch"])]
    lines = [head]
    apart = {
        name: [differences(rows, chosen_by, units_of(name)) for chosen_by in ("kept", "last")]
        for name, rows in shown.items()
    }
    marks = {"ahead": "\\*", "behind": "\\*\\*"}
    for row in (row for row in HEADLINE if any(row in rows for rows in shown.values())):
        cells = [row.removesuffix(BY_BOTH)]
        for name, rows in shown.items():
            if row not in rows:
                cells += ["-"] * (len(RATES) + 1)
                continue
            values = [*scores(rows, row, "kept"), scores(rows, row, "last")[-1]]
            kept, last = (of.get(row, ()) for of in apart[name])
            verdicts = [*(d.verdict for d in kept), *(d.verdict for d in last[-1:])] or [""] * len(values)
            cells += [f"{statistics.mean(at):.3f}{marks.get(v, '')}" for at, v in zip(values, verdicts, strict=True)]
        lines.append(cells)
    return markdown(lines)


def draw(sets: Mapping[str, Runs]) -> Figure:
    """Test mAP against the noise rate, and with most noise against the epoch of the longest runs."""
    figure = Figure(figsize=(9.5, 3.6 * len(sets)), layout="constrained")
    for (name, runs), axes in zip(sets.items(), figure.subplots(len(sets), 2, squeeze=False), strict=True):
        title, first, long = TITLES.get(name, name), next(iter(runs)), _longest(runs)
        for color, row in ((f"C{i}", row) for i, row in enumerate(HEADLINE)):
            if row in runs[first]:
                label = row.removesuffix(BY_BOTH)
                plot_means(axes[0], RATES, scores(runs[first], row, "kept"), label, color=color)
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
        axes[1].set(title=f"{title.partition(',')[0]}, {long}, noise {RATES[-1]:g}", xlabel="epoch", ylabel="test mAP")
        for one in axes:
            one.grid(alpha=0.3)
    handles = {h.get_label(): h for h in figure.axes[0].get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _longest(runs: Runs) -> str:
    """The condition with the longest runs of the rows of the README."""
    most = max(len(set(HEADLINE) & set(rows)) for rows in runs.values())
    whole = [c for c, rows in runs.items() if len(set(HEADLINE) & set(rows)) == most]
    return max(whole, key=lambda c: next(iter(runs[c].values()))[0][0].epochs[-1])


def _without_repeats(runs: Runs) -> Runs:
    """The conditions that have other runs than those before them, which may not be so while some are missing."""
    kept, seen = Runs(), set[str]()
    for condition, rows in runs.items():
        keys = {f"{row}: {t.key}" for row, at in rows.items() for of_noise in at for t in of_noise}
        if not keys <= seen:
            kept[condition] = rows
        seen |= keys
    return kept


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print and draw."""
    flags = parser(__doc__, SETS, smoke="tiny networks, 2 epochs, 2 seeds", default_seeds=10)
    flags.add_argument("--conditions", nargs="+", metavar="NAME", help=f"some of: {'; '.join(CONDITIONS)}")
    args = checked(flags.parse_args(argv))
    conditions = args.conditions or list(CONDITIONS)
    if unknown := [name for name in conditions if name not in CONDITIONS]:
        raise InputError(f"--conditions {unknown[0]!r}: choose from {', '.join(map(repr, CONDITIONS))}")
    stored = [n for n in ("emoji", "wikipedia-views") if (args.out / f"comparison_{n}.jsonl").exists()]
    names = args.sets or (stored if args.from_results else ["emoji", *(["wikipedia-views"] if args.views else [])])
    sets = {name: runs for name in names if (runs := _without_repeats(runs_of(name, args, conditions)))}
    if not sets:
        raise InputError(f"no results in {args.out}; run without --from-results to make them")
    parts, lines = [], []
    for name, runs in sets.items():
        for condition, rows in runs.items():
            parts.append(f"### {TITLES.get(name, name)}, {condition}")
            parts += [map_table(condition, rows, "kept")]
            if OURS in rows and set(rows) - set(_OF_OURS):
                parts += [difference_table(condition, rows, "kept", units_of(name))]
            if OURS in rows and any(row.startswith(_OF_MRL) for row in rows):
                parts += [best_of_mrl_table(condition, rows)]
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
