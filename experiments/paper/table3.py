"""Table 3 of the paper, the ablation: cross-entropy, either loss of MRL alone, and both, at four noise rates.

    python -m experiments.paper.table3 [--sets wikipedia] [--views wikipedia_4views.npz]
    python -m experiments.paper.table3 --from-results

152 runs per set: emoji 31 minutes, the views 54, on one core (AMD EPYC, 2026-11-28).
"""

from collections.abc import Sequence

from experiments.paper.comparison_table import make
from experiments.shared.command_line import run_main
from experiments.shared.protocol import ABLATION


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 3, ABLATION, argv)


if __name__ == "__main__":
    run_main(main)
