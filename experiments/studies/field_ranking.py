"""The methods of Tables 1 and 2 ranked on every set, from their kept runs: the leaderboard with tuned settings.

    python -m experiments.studies.field_ranking

Reads `field_SET.jsonl`, which `experiments.paper.table1` and `table2` write, and trains nothing. Ranks and tests are
those of `python -m mrl_jax.leaderboard`; here every method has the best of its 9 trials on validation data. "level
with" is corrected for all pairs, "consensus less it" for the comparisons with consensus alone, which the study is
about. Near-duplicates of emoji are drawn together. The sets of Table 1 and those of Table 2 have a page each,
`field_ranking_1.md` and `field_ranking_2.md`.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.paper import table1
from experiments.paper.field_tables import TITLES, Field, stored_fields
from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.field import FIELD
from experiments.shared.protocol import RATES
from experiments.shared.tables import markdown, mean_and_std
from experiments.studies.comparison import units_of
from mrl_jax import InputError
from mrl_jax.display.tables import csv_table
from mrl_jax.eval.differences import Difference
from mrl_jax.leaderboard.picture import draw_ranking
from mrl_jax.leaderboard.ranking import Ranking, compare_with, rank_methods

CONTROL = "consensus"
_HEAD = ("set", "method", "average_rank", "below_consensus", "verdict", "level_with")


def _table(field: Field, ranking: Ranking, apart: Mapping[str, Difference]) -> str:
    noises = [f"noise {rate:g}" for rate in RATES]
    rows = [["", "method", *noises, "mean", "average rank", f"{CONTROL} less it", "level with"]]
    for i, name in enumerate(ranking.names, 1):
        maps = field.maps(name)
        mean = f"{statistics.mean(map(statistics.mean, maps)):.3f}"
        less = apart[name].text if name in apart else ""
        level = ", ".join(ranking.level_with(name))
        rank = f"{ranking.average_rank[name]:.2f}"
        rows.append([str(i), name, *map(mean_and_std, maps), mean, rank, less, level])
    return markdown(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Rank the kept runs, print and draw."""
    flags = parser(__doc__, None, smoke="the runs are those of a smoke run")
    args: argparse.Namespace = checked(flags.parse_args(argv))
    args.views, args.from_results = None, True
    fields = stored_fields(args, list(FIELD))
    if not fields:
        raise InputError(f"no results in {args.out}; make them with experiments.paper.table1 or table2")
    parts: dict[int, list[str]] = {}
    lines = []
    for field in fields:
        precision = {name: np.asarray(field.precision(name)) for name in field.runs}
        units = units_of(field.name)
        ranking = rank_methods(precision, units)
        apart = compare_with(CONTROL, precision, units) if CONTROL in precision else {}
        of_table = parts.setdefault(1 if field.name in table1.SETS else 2, [])
        of_table += [f"### {TITLES.get(field.name, field.name)}, {args.seeds} seeds", _table(field, ranking, apart)]
        for name in ranking.names:
            less = [f"{apart[name].mean:.4f}", apart[name].verdict] if name in apart else ["", ""]
            rank = round(ranking.average_rank[name], 4)
            lines.append([field.name, name, rank, *less, " ".join(ranking.level_with(name))])
        draw_ranking(args.out / f"field_ranking_{field.name}.png", ranking)
    pages = {number: "\n\n".join(parts[number]) for number in sorted(parts)}
    for number, text in pages.items():
        (args.out / f"field_ranking_{number}.md").write_text(text + "\n", encoding="utf-8")
    (args.out / "field_ranking.csv").write_text(csv_table([_HEAD, *lines]), encoding="utf-8")
    print("\n\n".join(pages.values()))


if __name__ == "__main__":
    run_main(main)
