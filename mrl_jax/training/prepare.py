"""What a method prepares from the whole training split before it trains.

Shape letters: M modalities, N training instances, B rows, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrl_jax.data.preprocess import apply_preprocess
from mrl_jax.methods.state import TrainData
from mrl_jax.training.run_spec import RunSpec

__all__ = ["FeatureRows", "prepared_samples"]


@dataclass(frozen=True)
class FeatureRows:
    """Preprocessed features of one modality by instance, read as `x[rows]`; raw ones may lie on disk.

    Attributes:
        x: [N, D].
        kind: the preprocessing that raw features still need; None for preprocessed ones.
        stats: its fitted statistics.
        order: row of the features that belongs to each instance, [N]; None for row j at instance j.
    """

    x: Any
    kind: str | None = None
    stats: Mapping[str, Any] | None = None
    order: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> Any:
        """Features [B, D] of instances, a slice or integers [B]."""
        x = self.x[rows if self.order is None else self.order[rows]]
        return x if self.kind is None or self.stats is None else apply_preprocess(self.kind, self.stats, x)


def prepared_samples(spec: RunSpec) -> Any:
    """The per-sample state of a run as its method prepares it, or None if the method prepares nothing."""
    prepare, data = spec.method.prepare, spec.data
    if prepare is None:
        return None
    orders = [None] * len(data.kinds) if spec.partners is None else list(spec.partners)
    if data.features is None:
        raw = data.dataset.splits["train"].features
        rows = tuple(
            FeatureRows(raw[m], data.kinds[m], data.stats[m], o) for m, o in zip(data.kinds, orders, strict=True)
        )
    else:
        rows = tuple(FeatureRows(x, order=o) for x, o in zip(data.features, orders, strict=True))
    train = TrainData(rows, spec.labels, spec.mask, spec.partners)  # type: ignore[arg-type]
    return prepare(spec.hyperparameters, train, spec.shapes, {} if data.shared is None else data.shared)
