"""Figure 2 of the paper: validation accuracy per modality against the epoch, cross-entropy and MRL, noise 0.6.

    python -m experiments.paper.figure2 [--sets inria-websearch] [--views wikipedia_4views.npz]
    python -m experiments.paper.figure2 --from-results

Accuracy: the fraction of samples whose embedding is nearest to the centre of their class. Mean and range over seeds.
The runs are those of table1.py; their time is given there.
"""

from collections.abc import Sequence

from experiments.paper.learning_curves import make
from experiments.shared.command_line import run_main


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing and draw the figure."""
    make(__doc__, "figure2", "accuracy", argv)


if __name__ == "__main__":
    run_main(main)
