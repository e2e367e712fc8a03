"""`audit_labels`: the audit of labels on plain arrays, with the class probabilities or the embeddings of any model.

Shape letters: M modalities, N training instances, K classes, D features.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.stats import beta

from mrl_jax.audit.found import METHODS, Audit, Noise, ranking_quality
from mrl_jax.audit.geometry import axes, class_overlap, nearest, outlyingness
from mrl_jax.errors import InputError
from mrl_jax.label_inference import Inferred, VoteKernel, infer_labels, loo_scores, vote_kernel
from mrl_jax.label_inference.noise_rate import noise_rates
from mrl_jax.label_inference.posterior import ROUNDS, given_targets, infer_from_log_p
from mrl_jax.label_inference.quality import wrong_probability
from mrl_jax.options import MOST_NEIGHBOURS
from mrl_jax.tensors import from_tensor

__all__ = ["audit_labels"]

_NEIGHBOURS = 5
_NEIGHBOURS_OF = 10_000  # of so many of the most suspicious samples neighbours are sought


def audit_labels(
    labels: Any,
    log_p: Any = None,
    z: Any = None,
    *,
    method: str = "consensus",
    mask: Any = None,
    clean: Any = None,
    ids: Any = None,
    rows: Any = None,
    modalities: Sequence[str] = (),
    class_names: Sequence[str] = (),
    margin: Any = None,
    neighbours: int = _NEIGHBOURS,
    kernel: VoteKernel | None = None,
) -> Audit:
    """Rank labels by the probability that they are wrong.

    Give log-probabilities of a model that was not trained on these labels (cross-validated), or features or embeddings
    that no label has shaped, or both: the probabilities are then the votes, and the embeddings give neighbours and
    outliers. From embeddings alone, the votes are a leave-one-out regression of the labels on them.

    Args:
        labels: given labels 0..K-1, integers [N] (one per instance) or [M, N].
        log_p: log-probabilities of the classes, [N, K], or one per modality, [M, N, K].
        z: features or embeddings [N, D], or one such array per modality.
        method: a key of `METHODS`; "model" and "confident" take `log_p` as it is.
        mask: bool, False where a sample is missing, of the shape of `labels`.
        clean: clean labels, of the shape of `labels` or [N], if they are known: they only score what is found.
        ids: names of the instances, [N].
        rows: row of every sample in the training split, [M, N]; by default its number.
        modalities: M names.
        class_names: K names.
        margin: of the given label by a model, [M, N]; only shown.
        neighbours: how many to name, for the 10,000 most suspicious samples.
        kernel: `vote_kernel(z, mask)`, if it is at hand.

    Raises:
        InputError: shapes or values that do not fit, an unknown method, or neither `log_p` nor `z`.
    """
    y = np.atleast_2d(np.asarray(from_tensor(labels)))
    if y.ndim != 2 or y.dtype.kind not in "iu" or not y.size:
        raise InputError(f"labels are {y.dtype} {list(y.shape)}; give integers 0 to K - 1, [N] or [M, N]{_remedy(y)}")
    present = np.ones(y.shape, bool) if mask is None else np.atleast_2d(np.asarray(mask, bool))
    if present.shape != y.shape:
        raise InputError(f"mask is {list(present.shape)}; it must have the shape of the labels, {list(y.shape)}")
    if method not in METHODS:
        raise InputError(f"method {method!r}: choose from {', '.join(METHODS)}")
    _check_shown(y, ids, rows, margin, modalities, neighbours)
    by_modality = None if log_p is None else _log_probabilities(log_p, y)
    features = _per_modality(z, y)
    if by_modality is None and features is None and kernel is None:
        raise InputError("nothing to judge the labels by: give log_p, or z")
    if method == "model" and by_modality is None:
        raise InputError("method 'model' needs log_p, the log-probabilities of the model; give them, or 'consensus'")
    classes = _classes(y, present, by_modality, class_names)
    y = np.where(present, y, 0)
    shared = None if mask is None else present
    if kernel is None and features is not None:
        kernel = vote_kernel(features, shared)
    scores, inferred = _inferred(by_modality, kernel, y, classes, shared)
    posterior = _posterior(method, by_modality, inferred, y, present)
    p_wrong = _p_wrong(method, posterior, by_modality, inferred, y, present)
    noise = _noise(scores, inferred, y, present, shared)
    where = np.asarray(rows) if rows is not None else np.broadcast_to(np.arange(y.shape[1]), y.shape)
    near, far, limit, overlap = None, None, float("inf"), None
    if kernel is not None:
        at = axes(kernel)
        far, limit = outlyingness(at, np.asarray(inferred.posterior))
        suspicious = np.argsort(-p_wrong.max(axis=0), kind="stable")[:_NEIGHBOURS_OF]
        near = nearest(at, np.sort(suspicious), neighbours)
    overlap = class_overlap(np.asarray(inferred.posterior), np.asarray(inferred.votes))
    return Audit(
        method=method,
        modalities=tuple(modalities) or _names(len(y)),
        class_names=tuple(map(str, class_names)) or tuple(map(str, range(classes))),
        given=y,
        present=present,
        suggested=posterior.argmax(axis=2),
        p_wrong=p_wrong,
        posterior=posterior,
        noise=noise,
        rows=where,
        ids=None if ids is None else np.asarray(ids),
        agreement=_agreement(y, present),
        margin=None if margin is None else np.asarray(margin, np.float64),
        neighbours=near,
        outlyingness=far,
        outlier_limit=limit,
        overlap=overlap,
        injected=None if clean is None else _injected(p_wrong, y, present, clean, noise.rate, tuple(modalities)),
    )


def _remedy(labels: np.ndarray) -> str:
    """How names of classes become numbers, and where features belong that are given as labels."""
    if labels.size and isinstance(labels.flat[0], str):
        return ": class_names, labels = np.unique(labels, return_inverse=True), and give both"
    return "; features go with z" if labels.dtype.kind == "f" else ""


def _check_shown(labels: np.ndarray, ids: Any, rows: Any, margin: Any, modalities: Any, neighbours: int) -> None:
    """Refuse what is only shown, where it does not fit the labels [M, N]."""
    count, instances = labels.shape
    shapes = {"ids": (ids, (instances,)), "rows": (rows, labels.shape), "margin": (margin, labels.shape)}
    for name, (value, shape) in shapes.items():
        if value is not None and np.shape(value) != shape:
            raise InputError(f"{name} is {list(np.shape(value))}; with these labels it must be {list(shape)}")
    if len(modalities) not in (0, count):
        raise InputError(f"modalities are {len(modalities)} names, and the labels are of {count}; give one name each")
    if not 0 <= neighbours <= MOST_NEIGHBOURS:
        rule = "0 or more" if neighbours < 0 else f"at most {MOST_NEIGHBOURS}"
        raise InputError(f"neighbours={neighbours}: it must be {rule}")


def _names(count: int) -> tuple[str, ...]:
    return ("sample",) if count == 1 else tuple(f"modality {i + 1}" for i in range(count))


def _log_probabilities(log_p: Any, labels: np.ndarray) -> np.ndarray:
    """Log-probabilities float32 [1 or M, N, K]."""
    x = np.asarray(from_tensor(log_p), np.float32)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[1] != labels.shape[1] or x.shape[0] not in (1, len(labels)):
        rule = f"[{labels.shape[1]}, K] or [{len(labels)}, {labels.shape[1]}, K]"
        raise InputError(f"log_p is {list(np.shape(log_p))}; with these labels it must be {rule}")
    if bad := int((~np.isfinite(x) | (x > 1e-3)).sum()):
        raise InputError(f"log_p has {bad} values that are not finite or above 0; give np.log(p + 1e-9)")
    return x


def _per_modality(z: Any, labels: np.ndarray) -> list[Any] | None:
    if z is None:
        return None
    found = list(z) if isinstance(z, list | tuple) else [z]
    if isinstance(z, np.ndarray) and z.ndim == 3:
        found = list(z)
    if any(np.ndim(x) != 2 or len(x) != labels.shape[1] for x in found) or len(found) not in (1, len(labels)):
        shapes = ", ".join(str(list(np.shape(x))) for x in found)
        raise InputError(f"z is {shapes}; give [{labels.shape[1]}, D], one array or one per modality")
    return found if len(found) == len(labels) else found * len(labels)


def _classes(labels: np.ndarray, present: np.ndarray, log_p: np.ndarray | None, names: Sequence[str]) -> int:
    given = labels[present]
    low, high = (int(given.min()), int(given.max())) if given.size else (0, 0)
    classes = len(names) or (high + 1 if log_p is None else log_p.shape[2])
    if log_p is not None and log_p.shape[2] != classes:
        raise InputError(f"log_p has {log_p.shape[2]} classes, and there are {classes} class names; give as many")
    if low < 0 or high >= classes or classes < 2:
        raise InputError(f"labels are {low} to {high} with {classes} classes; give 0 to K - 1, and two classes or more")
    return classes


def _inferred(
    log_p: np.ndarray | None, kernel: VoteKernel | None, labels: np.ndarray, classes: int, mask: np.ndarray | None
) -> tuple[Any, Inferred]:
    """The votes on the given labels, [N, K], and what is inferred from them.

    The mean of the posteriors by votes on the given labels and by votes on the posterior finds wrong labels a little
    better than either. The votes of the result are those on the given labels: another model's equal.
    """
    if log_p is not None:
        scores = _mean_of_present(log_p, mask)
        return jnp.asarray(scores), infer_from_log_p(scores, labels, mask)
    assert kernel is not None
    scores = loo_scores(kernel, jnp.asarray(given_targets(labels, classes, mask)))
    first, last = (infer_labels(kernel, labels, classes, mask, rounds=n) for n in (1, ROUNDS))
    return scores, Inferred((first.posterior + last.posterior) / 2.0, first.votes, last.transition)


def _mean_of_present(log_p: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The mean of the log-probabilities of the modalities of an instance, [N, K]."""
    if mask is None or len(log_p) == 1:
        return log_p.mean(axis=0)
    weights = mask / np.maximum(mask.sum(axis=0), 1)
    return np.einsum("mn,mnk->nk", weights.astype(np.float32), log_p)


def _posterior(
    method: str, log_p: np.ndarray | None, inferred: Inferred, labels: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """The class posterior of every sample by a method, float32 [M, N, K]."""
    if method == "model":
        assert log_p is not None
        return np.broadcast_to(np.exp(log_p), (len(labels), *log_p.shape[1:]))
    of_instances = np.asarray(inferred.votes if method in ("votes", "confident") else inferred.posterior)
    if method == "confident" and log_p is not None:
        of_instances = np.exp(_mean_of_present(log_p, present))
    return np.broadcast_to(of_instances, (len(labels), *of_instances.shape))


def _p_wrong(
    method: str,
    posterior: np.ndarray,
    log_p: np.ndarray | None,
    inferred: Inferred,
    labels: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:
    if method == "confident":
        from mrl_jax.audit.confident import confident_scores  # deferred: cleanlab is an extra

        found = np.stack(
            [confident_scores(y, p, there) for y, p, there in zip(labels, posterior, present, strict=True)]
        )
    else:
        found = np.stack([wrong_probability(p, y[None])[0] for p, y in zip(posterior, labels, strict=True)])
    return np.where(present, found, 0.0)


def _noise(scores: Any, inferred: Inferred, labels: np.ndarray, present: np.ndarray, mask: np.ndarray | None) -> Noise:
    """Rate and transition matrix of every modality."""
    rates = noise_rates(scores, inferred, labels, mask)
    q = np.asarray(inferred.posterior, np.float64)
    classes = q.shape[1]
    counts = np.zeros((len(labels), classes, classes))
    for i, (y, there) in enumerate(zip(labels, present, strict=True)):
        for k in range(classes):
            counts[i, :, k] = q[there & (y == k)].sum(axis=0)
    counts = _with_rate(counts, rates.rate)
    size = counts.sum(axis=2, keepdims=True)
    prior = 1.0 / classes  # so that classes without samples have an interval
    a, b = counts + prior, size - counts + 1.0 - prior
    return Noise(
        rate=rates.rate,
        low=rates.low,
        high=rates.high,
        even=rates.even,
        transition=a / (a + b),
        transition_low=beta.ppf(0.025, a, b),
        transition_high=beta.ppf(0.975, a, b),
        counts=counts,
    )


def _with_rate(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Counts [M, K, K] with the estimated share of wrong labels: wrong ones are scaled, and right ones make room."""
    same = np.eye(counts.shape[1], dtype=bool)
    found = counts.copy()
    for own, rate in zip(found, rates, strict=True):
        wrong, total = own[~same].sum(), own.sum()
        if wrong <= 0 or total <= 0:
            continue
        size, factor = own.sum(axis=1), rate * total / wrong
        rows = np.where(same, 0.0, own)
        rows *= np.minimum(factor, 0.999 * size / np.maximum(rows.sum(axis=1), 1e-12))[:, None]
        own[:] = rows + np.diag(size - rows.sum(axis=1))
    return found


def _agreement(labels: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Share of the other modalities of an instance with the same given label, [M, N]; NaN without another."""
    found = np.full(labels.shape, np.nan)
    for i in range(len(labels)):
        others = np.delete(present, i, axis=0)
        same = (np.delete(labels, i, axis=0) == labels[i]) & others
        count = others.sum(axis=0)
        known = present[i] & (count > 0)
        found[i, known] = same.sum(axis=0)[known] / count[known]
    return found


def _injected(
    p_wrong: np.ndarray,
    labels: np.ndarray,
    present: np.ndarray,
    clean: Any,
    rates: np.ndarray,
    modalities: tuple[str, ...],
) -> dict[str, Any]:
    truth = np.asarray(clean)
    truth = np.broadcast_to(truth, labels.shape) if truth.shape == labels.shape[1:] else truth
    if truth.shape != labels.shape:
        raise InputError(
            f"clean is {list(np.shape(clean))}; it must have the shape of the labels, {list(labels.shape)}"
        )
    wrong, weight = truth != labels, present.sum(axis=1) / max(present.sum(), 1)
    found: dict[str, Any] = {"all": ranking_quality(p_wrong[present], wrong[present], float(rates @ weight))}
    for m, p, w, there, rate in zip(modalities or _names(len(labels)), p_wrong, wrong, present, rates, strict=True):
        found[m] = ranking_quality(p[there], w[there], float(rate))
    return found
