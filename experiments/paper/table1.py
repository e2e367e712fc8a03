"""Table 1 of the paper: MRL and deep-SM (cross-entropy alone) on Wikipedia and INRIA-Websearch at four noise rates.

    python -m experiments.paper.table1 [--sets wikipedia inria-websearch] [--views wikipedia_4views.npz]
    python -m experiments.paper.table1 --from-results

The published cells of all 15 methods are in published.csv; the table shows those of its sets beside our numbers. For
reduced features they are context, not a target. 76 runs per set: emoji 16 minutes, the views 28, on one core (AMD EPYC,
2026-11-28). The published features, with layers 4096-4096-512 and 100 epochs, need a GPU and are not timed yet.
"""

from collections.abc import Sequence

from experiments.paper.comparison_table import make
from experiments.shared.command_line import run_main
from experiments.shared.protocol import CE, MRL


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 1, (CE, MRL), argv)


if __name__ == "__main__":
    run_main(main)
