"""Table 1 of the paper: MRL and deep-SM (cross-entropy alone) on Wikipedia and INRIA-Websearch at four noise rates.

    python -m experiments.paper.table1 [--sets wikipedia inria-websearch] [--views wikipedia_4views.npz]
    python -m experiments.paper.table1 --from-results

The published cells of all 15 methods are in published.csv; those of the sets at hand stand beside ours. With reduced
features, and on emoji, they are context and no target. 76 runs a set: emoji 16 minutes, the views 28, on one core (AMD
EPYC, 2026-11-28); the published features, layers 4096-4096-512 and 100 epochs, ask for a GPU and are not timed yet.
"""

from collections.abc import Sequence

from experiments.paper.comparison_table import make
from experiments.shared.command_line import main_of
from experiments.shared.protocol import CE, MRL


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 1, (CE, MRL), argv)


if __name__ == "__main__":
    main_of(main)
