"""Figure 5 of the paper: mAP on the validation set against the epoch, cross-entropy and MRL, noise 0.6.

    python -m experiments.paper.figure5 [--sets inria-websearch] [--views wikipedia_4views.npz]
    python -m experiments.paper.figure5 --from-results

A line per direction: mean and range of the seeds. The runs are those of table1.py, which tells their time.
"""

from collections.abc import Sequence

from experiments.paper.learning_curves import make
from experiments.shared.command_line import main_of


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and draw the figure."""
    make(__doc__, "figure5", "map", argv)


if __name__ == "__main__":
    main_of(main)
