"""Arrays of other libraries as NumPy arrays, recognised by what they can do: none of these libraries is imported."""

from typing import Any

import numpy as np

from mrl_jax.errors import InputError

__all__ = ["from_tensor"]


def from_tensor(x: Any, *, tensors_only: bool = False) -> Any:
    """Convert a tensor of PyTorch, on any device and with or without gradients, or an array of CuPy, to NumPy.

    Types that NumPy lacks, such as bfloat16, become float32, which holds their values exactly. Lists and tuples of
    tensors are converted element by element. Sparse matrices of SciPy become dense, and masked arrays without masked
    values lose their mask. Anything else is returned as it is.

    Args:
        x: anything.
        tensors_only: leave sparse matrices and masked arrays as they are, for a caller that handles them.

    Raises:
        InputError: values are masked, or a sparse matrix does not fit into memory as a dense one.
    """
    if isinstance(x, list | tuple) and x and _is_tensor(x[0]):
        return [from_tensor(y) for y in x]
    if not tensors_only:
        if isinstance(x, np.ma.MaskedArray):
            return _unmasked(x)
        if isinstance(x, list | tuple) and any(isinstance(y, np.ma.MaskedArray) for y in x):
            return [from_tensor(y) for y in x]
        if hasattr(x, "tocsr") and hasattr(x, "toarray"):  # SciPy
            return _dense(x)
    if _is_tensor(x):
        x = x.detach()
        if str(getattr(x, "layout", "torch.strided")) != "torch.strided":
            x = x.to_dense()
        x = x.cpu()
        for name in ("resolve_conj", "resolve_neg"):
            x = getattr(x, name)() if hasattr(x, name) else x
        try:
            return x.numpy()
        except TypeError:  # a type that NumPy lacks
            return x.float().numpy()
    if hasattr(x, "__cuda_array_interface__") and callable(getattr(x, "get", None)):
        return x.get()
    return x


def _unmasked(x: np.ma.MaskedArray) -> np.ndarray:
    if count := int(np.ma.getmaskarray(x).sum()):
        raise InputError(
            f"a masked array {x.dtype} {list(x.shape)} with {count} masked values, which would be read as numbers; "
            "fill them (x.filled(0)), or leave those rows out"
        )
    return np.asarray(x.data)


def _dense(x: Any) -> np.ndarray:
    try:
        return np.asarray(x.toarray())
    except MemoryError as error:
        raise InputError(
            f"a sparse matrix {x.dtype} {list(x.shape)} does not fit into memory as a dense one; "
            "keep fewer rows or columns"
        ) from error


def _is_tensor(x: Any) -> bool:
    return all(callable(getattr(x, name, None)) for name in ("detach", "cpu", "numpy"))
