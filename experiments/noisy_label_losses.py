"""All losses against noisy labels, each with and without the contrastive loss, at four noise rates.

    python experiments/noisy_label_losses.py [--sets emoji] [--views wikipedia_4views.npz] [--losses rc gce …]
    python experiments/noisy_label_losses.py --from-results

Settings are chosen as for the paper's tables (`paper.py`), with the same number of trials for every row. Layers
512-512-128, 3 seeds. forward and small-loss are told of the noise, as those who proposed them do. Test mAP, the mean
of both directions, mean ± standard deviation over seeds; chance is the class prior.
"""

import csv
import statistics
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.figure import Figure
from paper import RATES, Method, Store, find_sets, main_of, markdown, parser, save_figure, settled, told

from mrl_jax.config import LOSS_OPTIONS

SMALL = {"hidden_dims": (512, 512), "embed_dim": 128, "learning_rate": 2e-4}


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is missing, print the table and draw it."""
    flags = parser(__doc__)
    flags.add_argument("--losses", nargs="+", choices=LOSS_OPTIONS, default=list(LOSS_OPTIONS))
    flags.set_defaults(seeds=3)
    args = settled(flags.parse_args(argv))
    known = [s for s in ("emoji", "wikipedia-views") if (args.out / f"runs_{s}-small.json").exists()]
    names = args.sets or (known if args.from_results else ["emoji", *(["wikipedia-views"] if args.views else [])])
    sets = find_sets(names, args.views, args.smoke, not args.from_results)
    if not args.smoke:
        sets = [replace(s, config=replace(s.config, **SMALL)) for s in sets]
    found = [
        Store(replace(s, name=f"{s.name}-small"), args.out, not args.from_results, args.seeds, RATES, args.smoke)
        for s in sets
    ]
    methods = [Method(loss, loss, contrastive=False) for loss in args.losses]
    methods += [Method(f"{loss} + contrastive", loss) for loss in args.losses]
    parts, lines = [], []
    figure = Figure(figsize=(5.2 * len(found), 5.5), layout="constrained")
    for store, axes in zip(found, figure.subplots(1, len(found), squeeze=False)[0], strict=True):
        rows = [["loss", *(f"noise {rate:g}" for rate in RATES), "mean", "settings"]]
        means = {}
        for method in methods:
            runs = store.runs(method)
            at = [[r["test"]["best"]["average"] for r in runs if r["noise_rate"] == rate] for rate in RATES]
            means[method.name] = [statistics.mean(values) for values in at]
            chosen = store.kept["methods"][method.name]["chosen"]
            settings = ", ".join(f"{name} {value:g}" for name, value in chosen.items())
            rows.append([method.name, *map(told, at), f"{statistics.mean(means[method.name]):.3f}", settings])
            lines += [
                [store.dataset.name, method.name, r["noise_rate"], r["seed"], round(r["test"]["best"]["average"], 5)]
                for r in runs
            ]
        parts.append(f"### {store.dataset.title}\n\n{markdown(rows)}")
        order = sorted(means, key=lambda name: statistics.mean(means[name]))
        for rate, color in zip(RATES, ("C0", "C1", "C2", "C3"), strict=True):
            values = [means[name][RATES.index(rate)] for name in order]
            axes.plot(values, order, "o", color=color, label=f"noise {rate:g}")
        axes.set(title=store.dataset.title, xlabel="test mAP, mean of both directions")
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    save_figure(figure, args.out / "noisy_label_losses")
    with (args.out / "noisy_label_losses.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([["set", "loss", "noise_rate", "seed", "map"], *lines])
    text = "\n\n".join(parts)
    (args.out / "noisy_label_losses.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main_of(main)
