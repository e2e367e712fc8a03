"""All losses against noisy labels, each with and without the contrastive loss, at four noise rates.

    python -m experiments.studies.noisy_label_losses [--sets emoji] [--views wikipedia_4views.npz] [--losses rc gce …]
    python -m experiments.studies.noisy_label_losses --from-results

Settings are chosen as for the paper's tables (`shared/protocol.py`), with the same number of trials for every row. The
first row, our defaults, is the same for all sets. The defaults were chosen from more settings, on validation data of
these and other sets (choose_defaults.py); at an equal number of trials, the row "rc + contrastive" stands for MRL.
Layers 256-256-128, 5 seeds. Rows marked "oracle noise" are told the rate or the transition of the noise, as in the
papers that proposed them. Test mAP at the best validation epoch, the mean of both directions, mean ± standard deviation
over seeds. 1,236 runs per set: emoji 42 minutes, the views 75, on one core (AMD EPYC, 2026-11-28).
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from experiments.shared.command_line import parser, run_main
from experiments.shared.outputs import save
from experiments.shared.protocol import SMALL, SMOKE, Method
from experiments.shared.store import stores
from experiments.shared.tables import average_map, markdown, mean_and_std
from experiments.studies.defaults import OURS
from mrl_jax import grid
from mrl_jax.config import auto_temperature
from mrl_jax.options import LOSSES


def _titled(name: str) -> str:
    """The name of a row; those with a loss that is told the noise say so."""
    loss = name.removesuffix(" + contrastive")
    return f"{name} (oracle noise)" if loss in LOSSES and LOSSES[loss].needs_noise else name


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print the table and draw it."""
    flags = parser(__doc__)
    flags.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all")
    args = flags.parse_args(argv)
    sets = stores(args, "-small", **(SMOKE if args.smoke else SMALL))
    methods = [Method(loss, loss, contrastive=False) for loss in args.losses]
    methods += [Method(f"{loss} + contrastive", loss) for loss in args.losses]
    parts, lines = [], []
    figure = Figure(figsize=(5.2 * len(sets), 1 + 0.14 * (1 + len(methods))), layout="constrained")
    for store, axes in zip(sets, figure.subplots(1, len(sets), squeeze=False)[0], strict=True):
        tau = auto_temperature(store.classes)
        base = replace(store.dataset.config, tau1=tau, tau2=tau)
        chosen = {OURS: f"beta {base.beta:g}, tau1 {tau:.3g}, tau2 {tau:.3g}"}
        runs = {OURS: store.fixed(OURS, grid(base, noise_rate=store.rates, seed=list(range(store.seeds))))}
        for method in methods:
            runs[method.name] = store.runs(method)
            chosen[method.name] = store.setting(method)
        rows = [["loss", *(f"noise {rate:g}" for rate in store.rates), "mean", "settings"]]
        means = {}
        for name, of_method in runs.items():
            at = average_map(of_method, store.rates)
            means[name] = [statistics.mean(values) for values in at]
            rows.append([_titled(name), *map(mean_and_std, at), f"{statistics.mean(means[name]):.3f}", chosen[name]])
            lines += [
                [store.dataset.name, name, rate, seed, round(value, 5)]
                for rate, values in zip(store.rates, at, strict=True)
                for seed, value in enumerate(values)
            ]
        parts.append(f"### {store.dataset.title}, {store.layers}, {store.seeds} seeds\n\n{markdown(rows)}")
        order = sorted(means, key=lambda name: statistics.mean(means[name]))
        for i, rate in enumerate(store.rates):
            axes.plot(
                [means[name][i] for name in order],
                list(map(_titled, order)),
                "o",
                color=f"C{i}",
                label=f"noise {rate:g}",
            )
        axes.set(title=store.dataset.title, xlabel="test mAP, mean of both directions")
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    head = ["set", "loss", "noise_rate", "seed", "map"]
    save(args.out / "noisy_label_losses", "\n\n".join(parts), head, lines, figure)


if __name__ == "__main__":
    run_main(main)
