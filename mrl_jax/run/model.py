"""A trained model and its embedding of new features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mrl_jax.config import Config
from mrl_jax.data.preprocess import apply_preprocess, kinds_for
from mrl_jax.data.tables import columns_of, order_of
from mrl_jax.errors import InputError
from mrl_jax.methods.base import Method
from mrl_jax.methods.registry import hyperparameters_of, method_of
from mrl_jax.notebook import facts_html, facts_text
from mrl_jax.run.apply import Output, apply_model
from mrl_jax.run.representation import check_representation, represent, representation_of, representation_width
from mrl_jax.run.shapes import embedding_width
from mrl_jax.tensors import from_tensor

__all__ = ["Model", "Run", "TrainedModel", "embed_from_host", "embed_rows"]

_BLOCK = 4096  # rows embedded at once, so that hidden layers need little memory


class Model(NamedTuple):
    """Parameters and preprocessing, which are what embedding needs.

    Attributes:
        params: parameters of the method.
        preprocess: modality -> fitted statistics.
    """

    params: Any
    preprocess: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with all it needs to embed new features; `Run` is an alias.

    Attributes:
        config: its settings.
        epoch: number of completed epochs at this checkpoint.
        model: parameters and preprocessing.
        modalities: names of the modalities, in order.
        class_names: names of the K classes.
        columns: modality -> names of its features, for those that were trained from DataFrames.
        source: the version of the embedded set that it was trained on, as `load_dataset` takes it; None for other data.
    """

    config: Config
    epoch: int
    model: Model
    modalities: tuple[str, ...]
    class_names: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    source: str | None = None

    def __repr__(self) -> str:
        return facts_text("TrainedModel", self._facts())

    def _repr_html_(self) -> str:
        return facts_html("TrainedModel", self._facts())

    def _facts(self) -> dict[str, str]:
        return {
            "method": self.config.method,
            "modalities": " + ".join(self.modalities),
            "classes": str(len(self.class_names)),
            "epoch": str(self.epoch),
            "embedding": f"[{self.embed_dim}]",
        }

    def embed(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embed raw features, preprocessing included.

        Args:
            features: modality -> [N, D]; any of the run's modalities, each with its own N. Columns of DataFrames are
                found by their names, if the run was trained from DataFrames.

        Returns:
            Modality -> unit rows [N, L].

        Raises:
            InputError: an unknown modality, other columns than in training, or values NaN or inf.
        """
        kinds = kinds_for(self.modalities, self.config.preprocess)
        method, h = method_of(self.config), hyperparameters_of(self.config)
        embeddings = {}
        for m, x in features.items():
            if m not in kinds:
                raise InputError(f"modality {m!r} is not in this run; it has: {', '.join(self.modalities)}")
            if isinstance(x, jax.core.Tracer):
                raise InputError(
                    "embed and represent work on the host; under jit, vmap or grad use run.apply(run.model, …)"
                )
            stats = self.model.preprocess[m]
            order = order_of(columns_of(x) or (), self.columns.get(m, ()), f"{m} features")
            x, width = np.asarray(from_tensor(x)), len(stats["mean"])
            x = x if order is None else x[:, order]
            if x.ndim != 2 or x.shape[1] != width:
                raise InputError(f"{m} features have shape {list(x.shape)}; this run was trained on [N, {width}]")
            if x.dtype.kind not in "fiub":
                raise InputError(f"{m} features are {x.dtype}; they must be real numbers")
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise InputError(f"{m} features are not finite in float32: remove or impute NaN and inf")
            number = self.modalities.index(m)
            embeddings[m] = np.asarray(embed_from_host(method, h, self.model.params, number, kinds[m], stats, x))
        return embeddings

    def represent(self, features: Mapping[str, np.ndarray], representation: str | None = None) -> dict[str, np.ndarray]:
        """The rows that raw features are retrieved by; `mrl_jax.run.representation` has their formulas.

        Args:
            features: as of `embed`.
            representation: "embedding", "posterior" or "both"; None for that of the run.

        Returns:
            Modality -> [N, L], [N, K] or [N, K + L]. Those of "embedding" are compared by cosine, others by product.

        Raises:
            InputError: as `embed`, or the method does not have the representation.
        """
        kind = self.representation_for(representation)
        method, h = method_of(self.config), hyperparameters_of(self.config)
        z = self.embed(features)
        return {m: np.asarray(represent(method, h, self.model.params, x, kind)) for m, x in z.items()}

    def apply(self, model: Model, features: Mapping[str, Any], representation: str | None = None) -> dict[str, Output]:
        """What `represent` does as a pure function of arrays, for `jax.jit`, `jax.vmap`, `jax.grad` and `jax.export`.

        Preprocessing is included. Values are not checked, since they are unknown under a transformation.

        Args:
            model: parameters and preprocessing, such as `run.model`; a pytree of arrays.
            features: modality -> [N, D], or [D] of a single sample; columns as in training.
            representation: "embedding", "posterior" or "both"; None for that of the run.

        Returns:
            Modality -> `Output(rows, log_posterior)`: rows as of `represent`, and log p(k | x) [N, K]; None where the
            method assigns no classes.

        Raises:
            InputError: an unknown modality, another number of features, or a representation that the method lacks.
        """
        return apply_model(self.config, self.modalities, model, features, self.representation_for(representation))

    def representation_for(self, representation: str | None = None) -> str:
        """The given representation, otherwise that of the run.

        Raises:
            InputError: it is unknown, or the method does not have it.
        """
        return check_representation(method_of(self.config), representation or representation_of(self.config))

    def width(self, representation: str | None = None) -> int:
        """The number of columns of what `represent` returns."""
        kind = self.representation_for(representation)
        return representation_width(self.config, self.model.params, self._features, kind)

    @property
    def embed_dim(self) -> int:
        """L, the dimension of the common space."""
        return embedding_width(self.config, self.model.params, self._features)

    @property
    def _features(self) -> int:
        return len(self.model.preprocess[self.modalities[0]]["mean"])


Run = TrainedModel
"""A shorter name of `TrainedModel`: what `load_run` gives."""


def embed_from_host(
    method: Method,
    h: Any,
    params: Any,
    modality: int,
    kind: str,
    stats: Mapping[str, Any],
    x: np.ndarray,
    block: int = _BLOCK,
) -> jax.Array:
    """Preprocess and embed raw features [N, D] on the host or on disk as unit rows [N, L], block by block.

    The result has the same bits as `embed_rows` of all preprocessed features.
    """
    starts = range(0, max(len(x), 1), block)
    parts = [
        embed_rows(method, h, params, modality, apply_preprocess(kind, stats, x[i : i + block]), block) for i in starts
    ]
    return jax.numpy.concatenate(parts)


@partial(jax.jit, static_argnames=("method", "modality", "block"))
def embed_rows(method: Method, h: Any, params: Any, modality: int, x: jax.Array, block: int = _BLOCK) -> jax.Array:
    """Embed [N, D] as unit rows [N, L], in blocks, so that hidden layers need little memory."""
    return jax.lax.map(lambda row: method.embed(h, params, modality, row), x, batch_size=min(block, len(x)))
