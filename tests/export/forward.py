"""An exported model in NumPy and float64: what a program without JAX computes from tensors with names of PyTorch."""

import numpy as np


def chain(tensors, prefix, x):
    """Linear layers with ReLU between them."""
    names = sorted((n for n in tensors if n.startswith(f"{prefix}.") and n.endswith(".weight")), key=_number)
    for i, name in enumerate(names):
        weight, bias = tensors[name], tensors[name.replace("weight", "bias")]
        x = x @ weight.astype(np.float64).T + bias
        x = np.maximum(x, 0) if i < len(names) - 1 else x
    return x


def _number(name):
    return int(name.split(".")[-2])


def embed(tensors, facts, modality, x):
    """Unit rows."""
    i = facts["modalities"].index(modality)
    x = np.asarray(x, np.float64)
    if facts["preprocess"][i] == "standardize":
        x = (x - tensors[f"preprocess.{i}.mean"]) / tensors[f"preprocess.{i}.scale"]
    elif facts["preprocess"][i] == "l2":
        x = _unit(x)
    return _unit(chain(tensors, f"encoders.{i}", x))


def log_posterior(tensors, z):
    scores = chain(tensors, "classifier", z)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def represent(tensors, facts, z):
    if facts["representation"] == "embedding":
        return z
    p = np.exp(facts["sharpness"] * log_posterior(tensors, z))
    p /= p.sum(axis=1, keepdims=True)
    return p if facts["representation"] == "posterior" else np.hstack([p, np.sqrt(facts["embedding_weight"]) * z])


def _unit(x):
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)
