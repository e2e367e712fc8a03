"""What a method computes on the host from the whole training split: what it prepares, or a closed form.

Shape letters: M modalities, N training instances, B rows, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrl_jax.data.preprocess import apply_preprocess
from mrl_jax.methods.state import TrainData
from mrl_jax.training.run_spec import RunSpec

__all__ = ["FeatureRows", "fitted_params", "prepared_samples"]


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
    if spec.method.prepare is None:
        return None
    return spec.method.prepare(spec.hyperparameters, _training_rows(spec), spec.shapes, _shared(spec))


def fitted_params(spec: RunSpec) -> Any:
    """The parameters of a closed form, as arrays of NumPy with the shapes and dtypes of those of `init`.

    Raises:
        ValueError: the method returns other ones.
    """
    assert spec.method.fit is not None
    params = spec.method.fit(spec.hyperparameters, _training_rows(spec), spec.shapes, _shared(spec))
    expected = spec.template.state.params
    found, wanted = (jax.tree.map(jnp.shape, tree) for tree in (params, expected))
    if found != wanted:
        raise ValueError(f"{spec.method.name}: fit returned parameters of the shapes {found}; init has {wanted}")
    return jax.tree.map(lambda x, like: np.asarray(x, like.dtype), params, expected)


def _shared(spec: RunSpec) -> dict[str, Any]:
    return {} if spec.data.shared is None else spec.data.shared


def _training_rows(spec: RunSpec) -> TrainData:
    data = spec.data
    orders = [None] * len(data.kinds) if spec.partners is None else list(spec.partners)
    if data.features is None:
        raw = data.dataset.splits["train"].features
        rows = tuple(
            FeatureRows(raw[m], data.kinds[m], data.stats[m], o) for m, o in zip(data.kinds, orders, strict=True)
        )
    else:
        rows = tuple(FeatureRows(x, order=o) for x, o in zip(data.features, orders, strict=True))
    return TrainData(rows, spec.labels, spec.mask, spec.partners)  # type: ignore[arg-type]
