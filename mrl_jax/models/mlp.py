"""Encoders onto the unit sphere, one per modality, and the class centres they share (paper, section 3.1).

Shape letters: B batch, D features, L embedding dimensions, K classes.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from mrl_jax.options import INITIALIZERS, PRECISIONS
from mrl_jax.unit_rows import unit_rows

__all__ = ["INITIALIZERS", "PRECISIONS", "Encoder", "dense_layers", "init_centers", "unit_rows"]

_MATMUL = {"tf32": "tensorfloat32"}  # JAX's names, where they differ


class Encoder(nn.Module):
    """Multi-layer perceptron with ReLU, by default with output rows of unit length: f_i(x) / ||f_i(x)||.

    Attributes:
        hidden_dims: widths of the hidden layers; the paper uses (4096, 4096).
        embed_dim: L; the paper uses 512.
        initializer: "uniform" draws weights and biases from U(-1/sqrt(D), 1/sqrt(D)) with D the layer's input width, as
            the official implementation does; "lecun_normal" is Flax's default (biases 0).
        precision: precision of the layers: "float32"; "tf32", products of rounded factors on accelerators that support
            it; "bfloat16", layers and their outputs. Parameters and embeddings are float32 in any case.
        unit: whether output rows have unit length.
    """

    hidden_dims: Sequence[int] = (4096, 4096)
    embed_dim: int = 512
    initializer: str = "uniform"
    precision: str = "float32"
    unit: bool = True

    @nn.compact
    def __call__(self, x: Array, change: Callable[[Array, int], Array] = lambda x, layer: x) -> Array:
        """Embed features [..., D] as rows [..., L].

        Args:
            x: the features.
            change: function of the output of a hidden layer [..., H] and the number of the layer, such as dropout.
        """
        for layer, width in enumerate(self.hidden_dims):
            x = change(nn.relu(self._dense(x, width)), layer)
        x = self._dense(x, self.embed_dim)
        x = x.astype(jnp.float32) if self.precision == "bfloat16" else x
        return unit_rows(x) if self.unit else x

    def _dense(self, x: Array, width: int) -> Array:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        options: dict[str, Any] = {
            "dot_general": _dot_general,
            "precision": _MATMUL.get(self.precision, self.precision),
        }
        if self.precision == "bfloat16":
            options["dtype"] = jnp.bfloat16
        if self.initializer == "lecun_normal":
            return nn.Dense(width, **options)(x)
        if self.initializer != "uniform":
            raise ValueError(f"unknown initializer {self.initializer!r}; known: {', '.join(INITIALIZERS)}")
        bound = 1.0 / math.sqrt(x.shape[-1])

        def uniform(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        return nn.Dense(width, kernel_init=uniform, bias_init=uniform, **options)(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None) -> Array:
    """`lax.dot_general` of a layer, x [..., D] with kernel [D, H], whose gradient in the kernel is fast on CPU.

    There, XLA's product with the transpose of x takes up to 1.7 times as long as with a transposed copy.
    """
    return jax.lax.dot_general(x, kernel, dimensions, precision)


def _dot_forward(x: Array, kernel: Array, dimensions: Any, precision: Any) -> tuple[Array, tuple[Array, Array]]:
    return _dot_general(x, kernel, dimensions, precision), (x, kernel)


def _dot_backward(
    dimensions: Any, precision: Any, residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    columns = jax.lax.platform_dependent(
        x.reshape(-1, x.shape[-1]), cpu=lambda x: jax.lax.optimization_barrier(x.T), default=lambda x: x.T
    )
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    in_kernel = jnp.dot(columns, flat, precision=precision)
    in_x = jax.lax.dot_general(cotangent, kernel, (((cotangent.ndim - 1,), (1,)), ((), ())), precision)
    return in_x, in_kernel


_dot_general.defvjp(_dot_forward, _dot_backward)


def dense_layers(params: Any) -> list[tuple[Array, Array]]:
    """The layers of an `Encoder` from its parameters, in their order: kernel [D, H] and bias [H] of each."""
    layers = params["params"]
    return [(layers[f"Dense_{i}"]["kernel"], layers[f"Dense_{i}"]["bias"]) for i in range(len(layers))]


def init_centers(key: Array, num_classes: int, embed_dim: int) -> Array:
    """Draw initial class centres, unit rows [K, L].

    For K <= L they are columns of a random orthogonal L x L matrix, as in the official implementation. For K > L no K
    orthogonal directions exist; the centres are then independent and uniform on the sphere.
    """
    if num_classes <= embed_dim:
        return jax.nn.initializers.orthogonal()(key, (num_classes, embed_dim), jnp.float32)
    return unit_rows(jax.random.normal(key, (num_classes, embed_dim)))
