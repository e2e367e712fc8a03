"""Table 2 of the paper, NUS-WIDE and XMediaNet: all compared methods and later ones at four noise rates.

    python -m experiments.paper.table2 [--methods mrl consensus …]
    python -m experiments.paper.table2 --from-results

The published features need a GPU and are not timed yet. Two sets with more classes stand beside them, with small
networks: the subgroups of emoji, and generated data of 100 classes. Trials and scores are those of
`experiments.paper.field_tables`.
"""

from collections.abc import Sequence

from experiments.paper.field_tables import make
from experiments.shared.command_line import run_main

SETS = ("nus-wide", "xmedianet", "emoji-31", "generated-100")


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and print the table."""
    make(__doc__, 2, SETS, argv)


if __name__ == "__main__":
    run_main(main)
