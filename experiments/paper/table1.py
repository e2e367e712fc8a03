"""Table 1 of the paper, Wikipedia and INRIA-Websearch: all compared methods and later ones at four noise rates.

    python -m experiments.paper.table1 [--views wikipedia_4views.npz] [--methods mrl consensus …]
    python -m experiments.paper.table1 --from-results

Published cells stand in brackets, the mean of both directions. For reduced features and on other sets they are context
or absent. Each method has 9 trials on validation data (`experiments.paper.field_tables`); 38 runs per method and set,
of which one takes 15 to 30 seconds with networks 512-512-256 on one core (AMD EPYC, 2026-11-30).
"""

from collections.abc import Sequence

from experiments.paper.field_tables import make
from experiments.shared.command_line import run_main

SETS = ("wikipedia", "inria-websearch", "wikipedia-views", "emoji")


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 1, SETS, argv)


if __name__ == "__main__":
    run_main(main)
