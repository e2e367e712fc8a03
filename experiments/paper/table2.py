"""Table 2 of the paper: MRL and deep-SM (cross-entropy alone) on NUS-WIDE and XMediaNet at four noise rates.

    python -m experiments.paper.table2 [--sets nus-wide xmedianet]
    python -m experiments.paper.table2 --from-results

76 runs per set, layers 4096-4096-512, 100 epochs: it needs a GPU and is not timed yet.
"""

from collections.abc import Sequence

from experiments.paper.comparison_table import make
from experiments.shared.command_line import run_main
from experiments.shared.protocol import CE, MRL


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 2, (CE, MRL), argv)


if __name__ == "__main__":
    run_main(main)
