"""Arguments of the public functions of retrieval: from arrays of any library to what rankings take, checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mrl_jax.errors import InputError, first_line
from mrl_jax.retrieval.ranking import SIMILARITIES
from mrl_jax.tensors import from_tensor

__all__ = ["checked_arguments", "finite_rows", "host_array"]


def host_array(name: str, what: str, x: Any) -> Any:
    """As `from_tensor`.

    Args:
        name: name of the function, for messages.
        what: the argument, for messages.
        x: its value.

    Raises:
        InputError: as `from_tensor`.
    """
    try:
        return from_tensor(x)
    except InputError as error:
        raise InputError(f"{name}: {what} are {error}") from error


def finite_rows(name: str, what: str, x: Any) -> Any:
    """Check that rows are finite in float32; arrays of JAX stay on their device, others become float32.

    Args:
        name: name of the function, for messages.
        what: the argument, for messages.
        x: [N, L].

    Raises:
        InputError: they are no real numbers.
        ValueError: a value is NaN or inf.
    """
    try:
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        if x.dtype.kind == "c":
            raise TypeError("complex numbers")
        if not isinstance(x, jax.Array):
            with np.errstate(over="ignore"):
                x = x.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        given = f"{getattr(x, 'dtype', type(x).__name__)} {list(np.shape(x))}"
        raise InputError(f"{name}: {what} are {given} ({first_line(error)}); give real numbers [N, L]") from error
    finite = (jnp if isinstance(x, jax.Array) else np).isfinite(x).all(axis=1)
    if not bool(finite.all()):
        raise ValueError(
            f"{name}: {what} hold NaN or inf, the first in row {int(finite.argmin())}; embeddings must be finite in "
            "float32: leave such rows out"
        )
    return x


def checked_arguments(
    name: str,
    queries: Any,
    gallery: Any,
    query_labels: Any,
    gallery_labels: Any,
    similarity: str,
    exclude_self: bool,
) -> tuple:
    """Check the arguments of the function `name`, which are as in `retrieval_metrics`.

    Returns:
        Queries, gallery and the labels of both, for `map_rankings`, and an upper bound on the gains.

    Raises:
        ValueError: as `retrieval_metrics`.
    """
    q, g = np.shape(queries), np.shape(gallery)
    ql, gl = np.shape(query_labels), np.shape(gallery_labels)
    if (
        len(q) != 2 or len(g) != 2 or q[1] != g[1] or 0 in (*q, *g)
        or ql[:1] != q[:1] or gl[:1] != g[:1] or ql[1:] != gl[1:] or len(ql) > 2
    ):  # fmt: skip
        raise ValueError(
            f"{name}: queries {q} with labels {ql}, gallery {g} with labels {gl}; give [Q, L] with [Q] and [G, L] "
            "with [G], all at least 1, or multi-hot labels [Q, K] and [G, K]"
        )
    if exclude_self and q[0] != g[0]:
        raise ValueError(
            f"{name}: {q[0]} queries and {g[0]} gallery rows with exclude_self, where row i of both is the same item; "
            "give the same rows twice"
        )
    if similarity not in SIMILARITIES:
        raise ValueError(f"{name}: similarity {similarity!r}: choose from {', '.join(SIMILARITIES)}")
    queries, gallery = finite_rows(name, "queries", queries), finite_rows(name, "gallery", gallery)
    given = [np.asarray(query_labels), np.asarray(gallery_labels)]
    if len(ql) == 2:
        if not {x.dtype.kind for x in given} <= set("biuf") or any(((x != 0) & (x != 1)).any() for x in given):
            raise ValueError(f"{name}: labels [N, K] must be multi-hot, 0 or 1; give class numbers as [N]")
        multi = [x.astype(np.uint8) for x in given]
        most = min(int(x.sum(axis=1, dtype=np.int64).max()) for x in multi)
        if most > 255:
            raise ValueError(f"{name}: items have up to {most} labels; give at most 255 per item")
        return queries, gallery, *multi, max(1, most)
    # NumPy would concatenate signed and unsigned 64-bit integers as floats.
    given = [x.astype(np.int64) if x.dtype == np.uint64 and x.max() < 2**63 else x for x in given]
    together = np.concatenate(given)
    if together.dtype.kind not in "iu":
        if together.dtype.kind in "USOT":
            raise InputError(
                f"{name}: labels are names ({together.dtype}); number those of queries and gallery together: "
                "np.unique(np.concatenate([query_labels, gallery_labels]), return_inverse=True)[1]"
            )
        raise ValueError(f"{name}: labels are {together.dtype}; give integers")
    # Classes are renumbered: JAX would cut 64-bit labels to 32 bits, so that different labels could become equal.
    numbers = np.unique(together, return_inverse=True)[1].astype(np.int32)
    return queries, gallery, numbers[: q[0]], numbers[q[0] :], 1
