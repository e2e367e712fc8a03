"""MRL beside cross-entropy, tau = 1, on two real data sets: mAP at the best validation epoch and at the last.

    python experiments/first_results.py                                   # emoji, about 3 minutes on 2 CPU cores
    python experiments/first_results.py --wikipedia wikipedia_4views.npz  # needs the features image_cnn, text_vec

Prints a Markdown table, mean ± standard deviation over seeds; writes every run's raw numbers to
`experiments/results/first_results_SET.json`, and validation mAP against the epoch to `first_results_SET.png`.
`--from-results` prints and draws again without training.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mrl_jax import Config, load_dataset, preset, train

METHODS = {"MRL": {}, "cross-entropy": {"loss": "ce", "beta": 1.0}}


def main() -> None:
    """Run every cell and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikipedia", metavar="FILE", help="npz with the views image_cnn and text_vec")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise-rates", type=float, nargs="+", default=[0.2, 0.6, 0.8])
    parser.add_argument("--epochs", type=int, help="default: 20 for emoji, 30 for Wikipedia")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--from-results", action="store_true", help="read the JSON instead of training")
    args = parser.parse_args()

    stem = args.out / f"first_results_{'wikipedia' if args.wikipedia else 'emoji'}"
    if not args.from_results:
        args.out.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".json").write_text(json.dumps(run_all(args), indent=1) + "\n", encoding="utf-8")
    runs = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["runs"]
    print(table(runs))
    plot(runs, stem.with_suffix(".png"))


def run_all(args: argparse.Namespace) -> dict:
    """Train every cell, one run after the other."""
    epochs = {"epochs": args.epochs} if args.epochs else {}
    base = preset("emoji", tau1=1.0, tau2=1.0, **epochs)
    if args.wikipedia:
        views = {"modalities": ("image_cnn", "text_vec"), "data_path": args.wikipedia}
        base = preset("custom", tau1=1.0, tau2=1.0, **views, **epochs)
    data = load_dataset(base.data_path or "emoji", base.modalities)
    runs = []
    for method, change in METHODS.items():
        for rate in args.noise_rates:
            for seed in range(args.seeds):
                config = Config(**{**base.to_json(), **change, "noise_rate": rate, "seed": seed})
                result = train(config, data=data)
                curve = [line["valid"]["average"] for line in result.metrics]
                runs.append({"method": method, "noise_rate": rate, "seed": seed, **result.scores, "valid_curve": curve})
                best, last = (result.scores["test"][at]["average"] for at in ("best", "last"))
                cell = f"{method}, noise {rate:g}, seed {seed}"
                print(f"{cell}: best {best:.3f}, last {last:.3f}, {result.scores['seconds']:.0f} s", file=sys.stderr)
    config = {k: v for k, v in base.to_json().items() if k != "data_path"}
    return {"date": time.strftime("%Y-%m-%d"), "config": config, "methods": METHODS, "runs": runs}


def table(runs: list[dict]) -> str:
    """Lay out the runs as Markdown, a row per noise rate and method."""
    directions = list(runs[0]["chance"])
    heads = ["noise", "wrong labels", "method", *(f"{d.replace('->', ' → ')}, best / last" for d in directions)]
    rows = [heads, ["---"] * len(heads)]
    for rate in dict.fromkeys(r["noise_rate"] for r in runs):
        for method in METHODS:
            cell = [r for r in runs if (r["noise_rate"], r["method"]) == (rate, method)]
            wrong = statistics.mean(s for r in cell for s in r["wrong_share"].values())
            maps = {at: [r["test"][at]["map"] for r in cell] for at in ("best", "last")}
            values = [" / ".join(told([m[d] for m in maps[at]]) for at in ("best", "last")) for d in directions]
            rows.append([f"{rate:g}", f"{wrong:.0%}", method, *values])
    chance = " / ".join(f"{runs[0]['chance'][d]:.3f}" for d in directions)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"Chance (class prior): {chance}. Mean ± standard deviation over {len(cell)} seeds."])


def plot(runs: list[dict], path: Path) -> None:
    """Draw validation mAP against the epoch, a panel per noise rate, mean and range of the seeds."""
    rates = list(dict.fromkeys(r["noise_rate"] for r in runs))
    figure = Figure(figsize=(3.4 * len(rates), 3), layout="constrained")
    for axes, rate in zip(figure.subplots(1, len(rates), sharey=True, squeeze=False)[0], rates, strict=True):
        for method in METHODS:
            curves = np.array([r["valid_curve"] for r in runs if (r["noise_rate"], r["method"]) == (rate, method)])
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.mean(axis=0), label=method)
            axes.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), alpha=0.2)
        chance = np.mean(list(runs[0]["chance"].values()))
        axes.axhline(chance, color="0.5", linestyle=":", linewidth=1, label="chance")
        axes.set(title=f"noise {rate:g}", xlabel="epoch", ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("validation mAP")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def told(values: list[float]) -> str:
    """Format mean ± standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.3f}"


if __name__ == "__main__":
    main()
