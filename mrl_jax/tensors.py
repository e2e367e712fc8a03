"""Arrays of other libraries as NumPy arrays, recognised by what they can do: none of these libraries is imported."""

from typing import Any

__all__ = ["from_tensor"]


def from_tensor(x: Any) -> Any:
    """Convert a tensor of PyTorch, on any device and with or without gradients, or an array of CuPy, to NumPy.

    Types that NumPy lacks, such as bfloat16, become float32, which holds their values exactly. Lists and tuples of
    tensors are converted element by element; anything else is returned as it is.
    """
    if isinstance(x, list | tuple) and x and _is_tensor(x[0]):
        return [from_tensor(y) for y in x]
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


def _is_tensor(x: Any) -> bool:
    return all(callable(getattr(x, name, None)) for name in ("detach", "cpu", "numpy"))
