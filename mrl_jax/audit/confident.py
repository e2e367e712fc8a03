"""Label quality by the library cleanlab (Northcutt et al., JAIR 2021), for comparison; the extra `audit`."""

import numpy as np

from mrl_jax.errors import InputError

__all__ = ["confident_scores"]


def confident_scores(labels: np.ndarray, p: np.ndarray, present: np.ndarray) -> np.ndarray:
    """1 - cleanlab's quality score of every label by its default, self-confidence: float64 [N].

    Args:
        labels: given labels, integers [N].
        p: class probabilities of a model that was not trained on them, [N, K].
        present: bool [N], False where a sample is missing; its score is 0.

    Raises:
        InputError: cleanlab is not installed, or a class has no label, which it does not allow.
    """
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        raise InputError("method 'confident' needs cleanlab; pip install cleanlab") from None
    known, there = labels[present], np.asarray(p[present], np.float64)
    there = there / there.sum(axis=1, keepdims=True)
    if missing := sorted(set(range(p.shape[1])) - set(known.tolist())):
        raise InputError(f"method 'confident': no label is of class {missing[0]}; cleanlab needs labels of every class")
    scores = np.zeros(len(labels))
    scores[present] = 1.0 - get_label_quality_scores(known, there, method="self_confidence")
    return scores
