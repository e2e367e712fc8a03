"""Protocol of the paper's tables and figures: data sets, methods with the settings to try, published cells.

Settings are chosen on validation mAP, with the same number of trials for every method: `BUDGET` values of the
temperature for a method with one loss, and `BUDGET` combinations of beta and temperature (tau1 = tau2) for a method
with both. A trial is one run at the lowest and one at the highest noise rate, with a seed that no result uses. The
setting with the best mean is used at all rates.
"""

import csv
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from experiments.shared.folders import ROOT
from mrl_jax import Config, InputError, load_dataset, preset
from mrl_jax.data.dataset import Dataset
from mrl_jax.data.published.prepared import copies

__all__ = [
    "BUDGET",
    "EARLIER",
    "EARLIER_HOLD",
    "RATES",
    "TRIAL_SEED",
    "DataSet",
    "Method",
    "find_sets",
    "hold_note",
    "published",
]

RATES = (0.2, 0.4, 0.6, 0.8)
BUDGET = 9
TRIAL_SEED = 1000
TAUS = (0.07, 0.11, 0.18, 0.28, 0.45, 0.7, 1.1, 1.8, 2.8)
BOTH = {"beta": (0.5, 0.8, 0.95), "tau": (0.25, 0.5, 1.0)}
PUBLISHED_SETS = ("wikipedia", "inria-websearch", "nus-wide", "xmedianet")
KNOWN = ("emoji", "wikipedia-views", *PUBLISHED_SETS)
VIEWS = ("image_cnn", "text_vec")
SMALL: dict[str, Any] = {"hidden_dims": (256, 256), "embed_dim": 128, "learning_rate": 2e-4}
"""Network and learning rate of the studies of many settings."""
MEDIUM: dict[str, Any] = {"hidden_dims": (512, 512), "embed_dim": 256}
"""Network of the tables of all compared methods: half the time of a run of the defaults, and mAP .005 lower."""
SMOKE: dict[str, Any] = {"hidden_dims": (16,), "embed_dim": 8, "epochs": 2, "batch_size": 400}
EARLIER = {"cosine-hold": "cosine-hold-v1"}
"""Schedule -> its form before a correction. Stored runs with the latter are read, with a note, but never trained."""
EARLIER_HOLD = (
    "{rows} were measured with the earlier form of `cosine-hold`, (e - 1)/(E - 1) in place of (e - 1)/E; "
    "they will be measured again."
)
"""Note below tables with runs that used the schedule `cosine-hold` before its correction."""


@dataclass(frozen=True)
class Method:
    """A loss to compare.

    Attributes:
        name: name in tables.
        loss: the clustering loss.
        clustering: whether the method has a clustering loss.
        contrastive: whether the method has the contrastive loss.
        published: name of its row in published.csv, if there is one.
    """

    name: str
    loss: str = "rc"
    clustering: bool = True
    contrastive: bool = True
    published: str | None = None

    def trials(self) -> list[dict[str, float]]:
        """The `BUDGET` settings to try."""
        if self.clustering and self.contrastive:
            return [{"beta": b, "tau1": t, "tau2": t} for b in BOTH["beta"] for t in BOTH["tau"]]
        if self.clustering:
            return [{"beta": 1.0, "tau1": t, "tau2": 1.0} for t in TAUS]  # tau2 has no effect
        return [{"beta": 0.0, "tau1": 1.0, "tau2": t} for t in TAUS]


MRL = Method("MRL", published="MRL")
CE = Method("CE", "ce", contrastive=False, published="deep-SM")
ABLATION = (
    replace(CE, published="CE"),
    Method("MRL (Lr only)", contrastive=False, published="MRL (Lr only)"),
    Method("MRL (Lc only)", clustering=False, published="MRL (Lc only)"),
    MRL,
)


@dataclass(frozen=True)
class DataSet:
    """A data set and the configuration of its runs, except method, noise and seed.

    Attributes:
        name: name of its file of results.
        title: name in tables.
        config: common configuration of all runs.
        source: argument of `load_dataset`.
    """

    name: str
    title: str
    config: Config
    source: str

    @cached_property
    def data(self) -> Dataset:
        """The data, loaded once."""
        return load_dataset(self.source, self.config.modalities)

    @property
    def published(self) -> str:
        """Name of the data set in published.csv."""
        return self.name.removesuffix("-views").replace("-", "_")


def find_sets(
    names: Sequence[str] | None, views: str | None, smoke: bool, on_disk: bool = True, suffix: str = "", **change: Any
) -> list[DataSet]:
    """The data sets to work on.

    Args:
        names: names of sets; None: emoji, the views if given, and the published sets that are prepared.
        views: file of the Wikipedia pairs with reduced features.
        smoke: tiny networks, few epochs.
        on_disk: whether the data must be on disk.
        suffix: appended to the names of the files of results.
        change: fields of the configuration that differ from the preset in all runs.

    Raises:
        InputError: a named set is unknown or not on disk; a set on disk is damaged.
    """
    change = (SMOKE if smoke else {}) | change
    sets = []
    for name in names or ("emoji", *(("wikipedia-views",) if views else ()), *PUBLISHED_SETS):
        if on_disk and not names and name in PUBLISHED_SETS and not copies(name):
            continue
        if name == "wikipedia-views":
            if views is None and on_disk:
                raise InputError("the set wikipedia-views needs --views FILE")
            config = preset("custom", **{"modalities": VIEWS, "epochs": 30, **change})
            sets.append(DataSet(name + suffix, "Wikipedia, reduced features", config, os.path.abspath(views or "")))
        elif name in KNOWN:
            own = {"epochs": 20} if name == "emoji" else {}
            sets.append(DataSet(name + suffix, name, preset(name, **own | change), name))
        else:
            raise InputError(f"unknown set {name!r}; choose from {', '.join(KNOWN)}")
        if on_disk:
            sets[-1].data  # noqa: B018  errors in the data are raised before anything is trained
    return sets


def published(table: int, dataset: str, method: str | None, direction: int, rate: float) -> float | None:
    """A cell of the paper. Table 3, the ablation, takes the row of the full method from Table 1.

    Args:
        table: number of the table.
        dataset: name of the set in published.csv.
        method: name of the row in published.csv.
        direction: 0 image to text, 1 text to image.
        rate: noise rate.
    """
    cell = dataset, str(method), ("image_to_text", "text_to_image")[direction], rate
    return _cells().get((table, *cell), _cells().get((1, *cell)) if table == 3 else None)


@cache
def _cells() -> dict[tuple[Any, ...], float]:
    with (ROOT / "experiments" / "paper" / "published.csv").open(newline="") as file:
        return {
            (int(r["table"]), r["dataset"], r["method"], r["direction"], float(r["noise_rate"])): float(r["map"])
            for r in csv.DictReader(file)
        }


def hold_note(rows: str, schedules: Iterable[str]) -> str:
    """`EARLIER_HOLD` as a paragraph to append, where a run has the schedule `cosine-hold-v1`; else "".

    Args:
        rows: the rows of the table that have such runs, in words.
        schedules: schedules of the runs.
    """
    earlier = any(schedule in EARLIER.values() for schedule in schedules)
    return "\n\n" + textwrap.fill(EARLIER_HOLD.format(rows=rows), 120) if earlier else ""
