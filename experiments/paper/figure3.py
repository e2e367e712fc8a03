"""Figure 3 of the paper: cross-entropy -log p and robust clustering log(1 - p) against the probability p, and slopes.

    python -m experiments.paper.figure3

Values and slopes come from the losses of mrl_jax, at K = 10 classes. A line marks the upper bound of p at tau1 = 1,
reached by a simplex ETF. Takes seconds; writes figure3.csv, .md, .png and .svg.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments.shared.command_line import checked, parser, run_main
from experiments.shared.outputs import save
from experiments.shared.tables import markdown
from mrl_jax.losses.mrl import cross_entropy_loss, robust_clustering_loss

CLASSES = 10
LOSSES = {"CE(p) = -log p": cross_entropy_loss, "RC(p) = log(1 - p)": robust_clustering_loss}


def curves(p: np.ndarray) -> dict[str, np.ndarray]:
    """Values and slopes in p: name -> [2, N].

    Args:
        p: probabilities of the given label [N]; the others have equal parts of the rest.
    """
    centers, labels = jnp.eye(CLASSES), jnp.zeros(len(p), int)

    def value(p: jax.Array, loss: object) -> jax.Array:
        rest = jnp.log((1 - p) / (CLASSES - 1))[:, None]
        z = jnp.concatenate([jnp.log(p)[:, None], jnp.tile(rest, (1, CLASSES - 1))], axis=1)  # logits with these p
        return loss(z, centers, labels)  # type: ignore[operator]

    values = {}
    for name, loss in LOSSES.items():
        slope = jax.grad(lambda p, loss=loss: value(p, loss).sum())(jnp.asarray(p))
        values[name] = np.stack([value(jnp.asarray(p), loss), slope])
    return values


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the figure and write its numbers."""
    out = checked(parser(__doc__, sets=None, seeds=False).parse_args(argv)).out
    p = np.linspace(0.01, 0.99, 99)
    values = curves(p)
    bound = np.e / (np.e + (CLASSES - 1) * np.exp(-1 / (CLASSES - 1)))
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    for axes, row, title in zip(figure.subplots(1, 2), (0, 1), ("loss", "slope in p"), strict=True):
        for name, of_loss in values.items():
            axes.plot(p, of_loss[row], label=name)
        axes.axvline(bound, color="0.5", linestyle=":", label=f"bound of p (simplex ETF), K = {CLASSES}, tau1 = 1")
        axes.set(xlabel="p(y | x)", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    names = [f"{name}, {what}" for name in values for what in ("value", "slope")]
    table = np.concatenate(list(values.values()))
    lines = [[f"{x:.6g}" for x in (q, *column)] for q, column in zip(p, table.T, strict=True)]
    rows = [["p", *names], *([f"{p[i]:.2f}", *(f"{x:.3f}" for x in table[:, i])] for i in (9, 49, 89))]
    save(out / "figure3", markdown(rows), ["p", *names], lines, figure)


if __name__ == "__main__":
    run_main(main)
