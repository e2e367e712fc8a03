"""Figure 5 of the paper: mAP on the validation set against the epoch, cross-entropy and MRL, noise 0.6.

    python experiments/figure5.py [--sets inria-websearch] [--views wikipedia_4views.npz]
    python experiments/figure5.py --from-results

A line per direction: mean and range of the seeds. The runs are those of table1.py, which tells their time.
"""

from collections.abc import Sequence

from learning_curves import make
from program import main_of


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and draw the figure."""
    make(__doc__, "figure5", "map", argv)


if __name__ == "__main__":
    main_of(main)
