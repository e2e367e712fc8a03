"""What an audit finds: a row per training sample and modality, and facts of the whole set.

Shape letters: M modalities, N training instances, K classes, J neighbours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrl_jax.label_inference.quality import auroc
from mrl_jax.notebook import facts_html, facts_text, table_html

__all__ = ["METHODS", "Audit", "Noise", "average_precision", "ranking_quality"]

METHODS = {
    "consensus": "the given labels and the votes of the other instances",
    "votes": "the votes of the other instances alone",
    "model": "the class posterior of the model",
    "confident": "cleanlab on the votes, or on the given probabilities",
}
"""How the probability that a label is wrong is found -> in words."""


@dataclass(frozen=True)
class Noise:
    """The noise of the given labels, with intervals of 95 %.

    Attributes:
        rate: estimated share of wrong labels, float64 [M]; `low` and `high` are its interval.
        low: float64 [M].
        high: float64 [M].
        even: whether the wrong labels of a class spread over all others. If not, the rate is rather a lower bound: two
            classes that are taken for each other look like one.
        transition: probability that a sample of class k is labelled y, float64 [M, K, K].
        transition_low: lower ends of the intervals, [M, K, K].
        transition_high: upper ends.
        counts: how many given labels y have the believed class k, float64 [M, K, K].
    """

    rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    even: bool
    transition: np.ndarray
    transition_low: np.ndarray
    transition_high: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Attributes:
        method: a key of `METHODS`.
        modalities: M names.
        class_names: K names.
        given: given labels, integers [M, N].
        present: bool [M, N], False where a sample is missing.
        suggested: the most probable class, integers [M, N].
        p_wrong: probability that the given label is wrong, float64 [M, N]; 0 for missing samples.
        posterior: class posterior of every sample, float32 [M, N, K].
        noise: rate and transition matrix.
        ids: text [N], or None.
        rows: row of the sample in the training split, integers [M, N].
        agreement: share of the other modalities of an instance with the same given label, [M, N]; NaN without another.
        margin: log-probability of the given label less the highest of the others by the model, the mean over training
            or of the model that is kept, [M, N]; None without a model.
        neighbours: the nearest instances, best first, integers [N, J]; -1 where they were not sought. None without
            features.
        outlyingness: 1 - cosine to the nearest class mean in the space of the votes, [N]; None without features.
        outlier_limit: above it an instance is far from every class.
        overlap: how much two classes are taken for each other by the votes, [K, K], 1 for classes that cannot be told
            apart.
        duplicates: pairs of instances with almost equal features, in the whole data set.
        injected: where clean labels are known, how well they are found.
    """

    method: str
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    given: np.ndarray
    present: np.ndarray
    suggested: np.ndarray
    p_wrong: np.ndarray
    posterior: np.ndarray
    noise: Noise
    rows: np.ndarray
    ids: np.ndarray | None = None
    agreement: np.ndarray | None = None
    margin: np.ndarray | None = None
    neighbours: np.ndarray | None = None
    outlyingness: np.ndarray | None = None
    outlier_limit: float = float("inf")
    overlap: np.ndarray | None = None
    duplicates: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    injected: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        """Number of samples that are present, of all modalities."""
        return int(self.present.sum())

    def __repr__(self) -> str:
        return facts_text("Audit", self._facts())

    def _repr_html_(self) -> str:
        suspects = self.suspects(10)
        head = ("row", "modality", "given", "suggested", "p_wrong")
        rows = [[f"{x[name]:.3f}" if name == "p_wrong" else x[name] for name in head] for x in suspects]
        return facts_html("Audit", self._facts(), table_html([head, *rows]) if rows else "")

    def _facts(self) -> dict[str, str]:
        noise = zip(self.modalities, self.noise.rate, self.noise.low, self.noise.high, strict=True)
        wrong = [f"{m} {rate:.1%} ({low:.1%} to {high:.1%})" for m, rate, low, high in noise]
        counts = {"samples": f"{len(self):,}", "classes": str(len(self.class_names))}
        return {"method": self.method, **counts, "wrong": ", ".join(wrong)}

    def ranking(self) -> tuple[np.ndarray, np.ndarray]:
        """Modality and instance of all samples that are present, most suspicious first; ties in order of the rows."""
        m, n = np.nonzero(self.present)
        order = np.lexsort((m, n, -self.p_wrong[m, n]))
        return m[order], n[order]

    def lines(self, most: int | None = None) -> Iterator[dict[str, Any]]:
        """The samples as mappings, most suspicious first; keys are the columns of the CSV file.

        Args:
            most: how many; None for all.
        """
        m, n = (x[:most].tolist() for x in self.ranking())
        for i, j in zip(m, n, strict=True):
            yield {
                "row": int(self.rows[i, j]),
                "id": None if self.ids is None else str(self.ids[j]),
                "modality": self.modalities[i],
                "given": self.class_names[self.given[i, j]],
                "suggested": self.class_names[self.suggested[i, j]],
                "p_wrong": float(self.p_wrong[i, j]),
                "agreement": _number(self.agreement, i, j),
                "margin": _number(self.margin, i, j),
                "outlyingness": None if self.outlyingness is None else float(self.outlyingness[j]),
                "neighbours": [] if self.neighbours is None else [x for x in self.neighbours[j].tolist() if x >= 0],
            }

    def suspects(self, most: int = 20) -> list[dict[str, Any]]:
        """The most suspicious samples whose suggested label differs from the given one."""
        found = (line for line in self.lines() if line["suggested"] != line["given"])
        return [line for line, _ in zip(found, range(most), strict=False)]

    def confusion(self) -> list[dict[str, Any]]:
        """Given against believed classes: expected numbers of samples, the most frequent confusions first."""
        found = []
        for m, counts in zip(self.modalities, self.noise.counts, strict=True):
            for believed, given in zip(*np.nonzero(counts >= 0.5), strict=True):
                if believed != given:
                    names = {"given": self.class_names[given], "believed": self.class_names[believed]}
                    found.append({"modality": m, **names, "samples": float(counts[believed, given])})
        return sorted(found, key=lambda line: -line["samples"])

    def outliers(self) -> np.ndarray:
        """Instances that are far from every class, farthest first."""
        if self.outlyingness is None:
            return np.zeros(0, int)
        far = np.flatnonzero(self.outlyingness > self.outlier_limit)
        return far[np.argsort(-self.outlyingness[far], kind="stable")]

    def merged(self, least: float = 0.5) -> list[dict[str, Any]]:
        """Pairs of classes that look like one: their overlap is `least` or more, highest first."""
        if self.overlap is None:
            return []
        a, b = np.nonzero(np.triu(self.overlap, 1) >= least)
        found = [
            {"a": self.class_names[i], "b": self.class_names[j], "overlap": float(self.overlap[i, j])}
            for i, j in zip(a, b, strict=True)
        ]
        return sorted(found, key=lambda line: -line["overlap"])

    def summary(self) -> dict[str, Any]:
        """Facts of the whole set, JSON-ready."""
        noise = {
            m: {
                "rate": float(self.noise.rate[i]),
                "interval": [float(self.noise.low[i]), float(self.noise.high[i])],
                "samples": int(self.present[i].sum()),
                "suspects": int(((self.suggested[i] != self.given[i]) & self.present[i]).sum()),
            }
            for i, m in enumerate(self.modalities)
        }
        return {
            "method": self.method,
            "instances": int(self.given.shape[1]),
            "samples": len(self),
            "classes": list(self.class_names),
            "noise": noise,
            "spreads_evenly": self.noise.even,
            "transition": {
                m: {"mean": t.tolist(), "low": low.tolist(), "high": high.tolist()}
                for m, t, low, high in zip(
                    self.modalities,
                    self.noise.transition.round(4),
                    self.noise.transition_low.round(4),
                    self.noise.transition_high.round(4),
                    strict=True,
                )
            },
            "confusion": self.confusion(),
            "outliers": [self._named(j) for j in self.outliers().tolist()],
            "merged_classes": self.merged(),
            "duplicates": list(self.duplicates),
            **({} if self.injected is None else {"injected": dict(self.injected)}),
        }

    def _named(self, j: int) -> dict[str, Any]:
        assert self.outlyingness is not None
        return {
            "row": int(self.rows[0, j]),
            "id": None if self.ids is None else str(self.ids[j]),
            "outlyingness": float(self.outlyingness[j]),
        }


def _number(values: np.ndarray | None, i: int, j: int) -> float | None:
    return None if values is None or np.isnan(values[i, j]) else float(values[i, j])


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean of the precision at every positive of a ranking; ties share the precision of their last item.

    Args:
        scores: numbers [N], high for positives.
        positive: bool [N].

    Returns:
        The area under the steps of the precision-recall curve; NaN without a positive.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])).round(3)
        np.float64(0.833)
    """
    scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # last item of each group of ties
    found = np.diff(np.append(0, hits[ends]))
    return np.float64((hits[ends] / (ends + 1) * found).sum() / hits[-1])


def ranking_quality(p_wrong: np.ndarray, wrong: np.ndarray, rate: float) -> dict[str, float]:
    """How well a ranking finds wrong labels.

    Args:
        p_wrong: [N].
        wrong: bool [N].
        rate: estimated share of wrong labels.

    Returns:
        "auroc", "average_precision", "precision" among as many of the first ones as the rate says, "share" of labels
        that are wrong.
    """
    first = np.argsort(-p_wrong, kind="stable")[: round(rate * len(p_wrong))]
    return {
        "auroc": auroc(p_wrong, wrong),
        "average_precision": float(average_precision(p_wrong, wrong)),
        "precision": float(wrong[first].mean()) if len(first) else float("nan"),
        "share": float(wrong.mean()) if len(wrong) else float("nan"),
    }
