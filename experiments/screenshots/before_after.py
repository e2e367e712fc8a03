"""The first picture of the README: what queries find after usual training, and after training for wrong labels.

python -m experiments.screenshots.before_after [--noise-rate 0.8] [--seed 0] [--rows 8] [--top 8] [--workdir FOLDER]

Trains cross-entropy with the contrastive loss, and the method consensus, on the same noisy labels of the emoji set,
with the same networks, batches and length. Both are searched at their last epoch, by embedding and class posterior. The
queries are rows of the test split, in turn as text and as picture: of 100 random draws the one whose shares of hits, in
both models, are nearest to those of all test queries. They are shown in the order of their classes. Writes
docs/pictures/before_after.png. On 2 CPU cores it takes two to four minutes.
"""

import argparse
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.screenshots.panels import Panel, Row, Shown, draw_panels
from experiments.shared.command_line import run_main
from experiments.shared.folders import ROOT
from mrl_jax import InputError, preset, train
from mrl_jax.files import write_atomically
from mrl_jax.retrieval import retrieval_metrics
from mrl_jax.search.output import Pictures
from mrl_jax.search.picture_grid import open_picture
from mrl_jax.search.searcher import Query, Searcher

BEFORE = {"loss": "ce", "representation": "both"}
AFTER = {"method": "consensus"}
MODALITIES = ("text", "image")
DRAWS = 100
"""Random draws of queries, of which the most typical is shown."""
WORDS = (("Usual training", "cross-entropy + contrastive loss"), ("Robust training", "the method consensus"))


def typical(precision: Sequence[Mapping[str, np.ndarray]], rows: int, seed: int) -> list[tuple[str, int]]:
    """Queries that stand for all: of `DRAWS` random draws the one whose mean precision is nearest to that of all.

    Args:
        precision: for each model: modality -> precision of each query of the test split [N].
        rows: number of queries, in turn of the first modality and of the second.
        seed: of the draws.

    Returns:
        Modality and row of each query; no row twice.
    """
    modalities = list(precision[0])
    key, size = np.random.default_rng(seed), len(precision[0][modalities[0]])
    draws = [key.choice(size, rows, replace=False) for _ in range(DRAWS)]
    turns = np.arange(rows) % len(modalities)
    distances = np.zeros(DRAWS)
    for model in precision:
        values = np.stack([model[m] for m in modalities])  # [M, N]
        distances += np.abs([values[turns, draw].mean() - values.mean() for draw in draws])
    return [(modalities[turn], int(row)) for turn, row in zip(turns, draws[distances.argmin()], strict=True)]


def precision_of(searcher: Searcher, top: int) -> dict[str, np.ndarray]:
    """Precision of the first results of every test query in the other modality: modality -> [N]."""
    split, kind = searcher.dataset.splits["test"], searcher.representation
    z = searcher.run.represent({m: split.features[m] for m in MODALITIES}, kind)
    found = {}
    for query, gallery in (MODALITIES, MODALITIES[::-1]):
        labels = (split.labels[query], split.labels[gallery])
        scores = retrieval_metrics(z[query], z[gallery], *labels, k=top, metric=searcher.metric)
        found[query] = scores[f"precision@{top}"]
    return found


def searched(workdir: Path, name: str, changes: Mapping[str, Any], **settings: Any) -> Searcher:
    """The last epoch of a run; it is trained unless its folder exists, and then goes on or is complete."""
    folder = workdir / name
    train(preset("emoji", **changes, **settings), folder, resume=folder.exists(), progress=True)
    return Searcher(folder, checkpoint="last")


def panel_of(
    searcher: Searcher, words: tuple[str, str], queries: Sequence[tuple[str, int]], top: int
) -> tuple[Panel, list[Row]]:
    """What the queries find in a run: a panel, and the queries themselves.

    Raises:
        InputError: the run has no pictures.
    """
    assert searcher.folder is not None
    pictures = Pictures(searcher.run, searcher.folder, None, None)
    rows, found = [], []
    for modality, row in queries:
        answer = searcher.answer(Query("row", f"{modality}:test:{row}"), top)
        query, gallery = answer["query"], answer["gallery"]["modality"]
        rows.append(Row(query["name"], query["label"], open_picture(pictures.of(query, modality))))
        found.append([Shown(r["name"], open_picture(pictures.of(r, gallery)), r["hit"]) for r in answer["results"]])
    scores = searcher.folder.result()
    assert scores is not None
    return Panel(*words, scores["test"]["last"]["average"], found), rows


def wrong_share(runs: Sequence[Searcher]) -> float:
    """The share of wrong labels among those of all training samples; all runs have the same labels."""
    noise = [s.folder.noise() for s in runs if s.folder is not None]
    assert len({n["labels_sha256"] for n in noise}) == 1
    return float(noise[0]["wrong_share_overall"])


def main() -> None:
    """Train twice, search, draw."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument(
        "--noise-rate", type=float, default=0.8, help="share of labels that are drawn anew; default: 0.8"
    )
    flags.add_argument("--seed", type=int, default=0, help="of noise, training, and the draw of queries; default: 0")
    flags.add_argument("--rows", type=int, default=8, help="number of queries; default: 8")
    flags.add_argument("--top", type=int, default=8, help="results of each query; default: 8")
    flags.add_argument("--epochs", type=int, help="passes over the training split; default: that of train")
    flags.add_argument("--workdir", type=Path, help="folder that keeps both runs; default: none")
    flags.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "before_after.png")
    args = flags.parse_args()
    for name, value in (("rows", args.rows), ("top", args.top)):
        if not 1 <= value <= 50:
            raise InputError(f"--{name} {value}: it must be between 1 and 50")
    settings = {"noise_rate": args.noise_rate, "seed": args.seed, "epochs": args.epochs}
    with tempfile.TemporaryDirectory() as folder:
        workdir = args.workdir or Path(folder)
        runs = [
            searched(workdir, name, changes, **settings) for name, changes in (("before", BEFORE), ("after", AFTER))
        ]
        precision = [precision_of(s, args.top) for s in runs]
        labels = runs[0].dataset.splits["test"].labels
        queries = sorted(typical(precision, args.rows, args.seed), key=lambda q: int(labels[q[0]][q[1]]))
        (before, rows), (after, _) = (panel_of(s, t, queries, args.top) for s, t in zip(runs, WORDS, strict=True))
        heading = f"Both models learned from the same labels, of which {100 * wrong_share(runs):.0f} % are wrong."
        foot = (
            f"Queries: test rows, as texts and as pictures; of {DRAWS} random draws the one whose shares of hits "
            "are nearest to those of all. Pictures: Twemoji, CC BY 4.0."
        )
        sheet = draw_panels(rows, (before, after), heading, foot)
        best = [s.folder.result()["test"]["best"] for s in runs]  # type: ignore[union-attr, index]
    small = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_atomically(args.out, small.getvalue())
    print(f"{args.out}: {len(small.getvalue()) // 1024} KiB")
    for panel, found, at_best in zip((before, after), precision, best, strict=True):
        hits, results = panel.hits
        print(
            f"{panel.training}: test mAP {panel.score:.3f}; at its best epoch by clean labels {at_best['average']:.3f}"
        )
        share = np.mean([*found.values()])
        print(f"  hits among the first {args.top}: {share:.0%} of all queries, here {hits / results:.0%}")


if __name__ == "__main__":
    run_main(main)
