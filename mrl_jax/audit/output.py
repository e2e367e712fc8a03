"""An audit as text, CSV and Parquet, and the data with cleaned labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrl_jax.audit.found import METHODS, Audit
from mrl_jax.audit.run import Audited
from mrl_jax.data.dataset import SPLITS
from mrl_jax.display.tables import aligned_lines, csv_table
from mrl_jax.errors import InputError
from mrl_jax.files import atomic_path
from mrl_jax.names import printable

__all__ = ["COLUMNS", "audit_csv", "audit_text", "write_cleaned", "write_parquet"]

COLUMNS = (
    *("row", "id", "modality", "given", "suggested", "p_wrong", "agreement", "margin", "outlyingness", "neighbours"),
)
"""Columns of the CSV and the Parquet file of an audit, in their order: one line per suspect sample."""
_SHOWN = 5  # classes, duplicates and outliers in the text


def audit_csv(audit: Audit) -> str:
    """Every sample, most suspicious first. Neighbours are rows of the first modality, separated by spaces."""
    return csv_table([COLUMNS, *([_cell(line[name]) for name in COLUMNS] for line in audit.lines())])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(map(str, value)) if isinstance(value, list) else value


def write_parquet(path: Path, audit: Audit) -> None:
    """The same table as Parquet; neighbours are lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = list(audit.lines())
    kinds = {
        "row": pa.int64(),
        **dict.fromkeys(("id", "modality", "given", "suggested"), pa.string()),
        **dict.fromkeys(("p_wrong", "agreement", "margin", "outlyingness"), pa.float64()),
        "neighbours": pa.list_(pa.int64()),
    }
    table = pa.table({name: pa.array([line[name] for line in lines], kinds[name]) for name in COLUMNS})
    with atomic_path(path) as part:
        pq.write_table(table, part)


def audit_text(audited: Audited, most: int = 20) -> str:
    """The audit as text: noise, the top suspects, confusions, duplicates, outliers, classes that look merged."""
    audit = audited.audit
    head = f"audit of {audited.data.name}: {len(audit):,} labels, {len(audit.class_names)} classes; judged by "
    parts = [printable(head + METHODS[audit.method]), _noise_text(audit)]
    if audit.injected is not None:
        parts.append(_injected_text(audit))
    if suspects := audit.suspects(most):
        parts.append(f"most suspicious labels (row of the training split):\n{_suspects_text(suspects)}")
    if confusion := audit.confusion()[:_SHOWN]:
        lines = [f"{c['modality']}: {c['given']} for {c['believed']}, {c['samples']:.0f} samples" for c in confusion]
        parts.append("\n  ".join(["most frequent confusions, given for believed:", *map(printable, lines)]))
    parts.append(_pairs_text(audit))
    return "\n\n".join(parts)


def _noise_text(audit: Audit) -> str:
    noise = audit.noise
    rows = [["", "labels", "suspects", "estimated noise rate", "interval of 95 %"]]
    for i, m in enumerate(audit.modalities):
        suspects = int(((audit.suggested[i] != audit.given[i]) & audit.present[i]).sum())
        interval = f"{noise.low[i]:.3f} to {noise.high[i]:.3f}"
        rows.append([m, f"{audit.present[i].sum():,}", f"{suspects:,}", f"{noise.rate[i]:.3f}", interval])
    text = "\n".join(aligned_lines(rows))
    if not noise.even:
        text += "\nthe wrong labels of a class concentrate on few others: the rate may be higher than estimated"
    return text


def _injected_text(audit: Audit) -> str:
    assert audit.injected is not None
    rows = [["found of the injected noise", "share of wrong labels", "AUROC", "average precision", "precision"]]
    for name, q in audit.injected.items():
        values = [q[key] for key in ("share", "auroc", "average_precision", "precision")]
        rows.append([name, *(f"{x:.3f}" for x in values)])
    return "\n".join(aligned_lines(rows))


def _suspects_text(suspects: Sequence[dict[str, Any]]) -> str:
    ids = any(line["id"] is not None for line in suspects)
    rows = [["row", *(["id"] if ids else []), "modality", "given", "suggested", "p wrong"]]
    for line in suspects:
        own = [str(line["id"])] if ids else []
        rows.append(
            [str(line["row"]), *own, line["modality"], line["given"], line["suggested"], f"{line['p_wrong']:.3f}"]
        )
    return "\n".join(aligned_lines(rows, left=range(1, len(rows[0]) - 1)))


def _pairs_text(audit: Audit) -> str:
    lines = []
    for what, found in (
        ("pairs of near-duplicates", audit.duplicates),
        ("of these across splits", [d for d in audit.duplicates if d["a"]["split"] != d["b"]["split"]]),
        ("of these with different labels", [d for d in audit.duplicates if not d["same_label"]]),
        ("instances far from every class", audit.outliers()),
        ("pairs of classes that look like one", audit.merged()),
    ):
        lines.append([what, f"{len(found):,}"])
    text = "\n".join(aligned_lines(lines))
    for pair in audit.merged()[:_SHOWN]:
        text += f"\n  {printable(pair['a'])} and {printable(pair['b'])}: overlap {pair['overlap']:.2f}"
    return text


def write_cleaned(path: Path, audited: Audited, keep: float | None = None) -> dict[str, Any]:
    """Write the data with cleaned training labels, as a `.npz` file that `load_dataset` and `train` take.

    Args:
        path: the file.
        audited: the audit and its data.
        keep: None to relabel: a label that is wrong with a probability above 0.5 becomes the suggested one. A share in
            (0, 1] to filter instead: of every modality this share of the samples, the least suspicious ones, stays,
            and the others are marked as missing. An instance without any sample that stays is left out.

    Returns:
        "relabelled" or "removed": the number of samples; "instances": those of the training split in the file.

    Raises:
        InputError: `keep` is outside (0, 1], nothing would be left, or the file cannot be written.
    """
    audit, data = audited.audit, audited.data
    if keep is not None and not 0.0 < keep <= 1.0:
        raise InputError(f"--keep {keep:g}: give a share greater than 0 and at most 1")
    names, train = data.modalities, data.splits["train"]
    labels = np.stack([train.labels[m] for m in names])
    present = np.stack([train.present(m) for m in names])
    where = np.arange(len(names))[:, None], audit.rows
    labels[where] = audit.given  # as the run had them
    if keep is None:
        change = audit.present & (audit.p_wrong > 0.5) & (audit.suggested != audit.given)
        labels[where] = np.where(change, audit.suggested, audit.given)
        result = {"relabelled": int(change.sum())}
    else:
        stays = np.zeros_like(present)
        for i in range(len(names)):
            own = np.flatnonzero(audit.present[i])
            best = own[np.argsort(audit.p_wrong[i, own], kind="stable")][: round(keep * len(own))]
            stays[i, audit.rows[i, best]] = True
        result = {"removed": int((present & ~stays).sum())}
        present = stays
    rows = np.flatnonzero(present.any(axis=0))
    if not len(rows):
        raise InputError(f"--keep {keep:g}: no sample would be left; give a higher share")
    arrays: dict[str, Any] = {"class_names": np.array(data.class_names)}
    for name in SPLITS:
        split = data.splits[name]
        chosen: Any = rows if name == "train" else slice(None)
        for i, m in enumerate(names):
            there = present[i, rows] if name == "train" else split.present(m)
            arrays[f"{name}_{m}"] = np.asarray(split.features[m])[chosen]
            arrays[f"{name}_{m}_labels"] = labels[i, rows] if name == "train" else split.labels[m]
            if not there.all():
                arrays[f"{name}_{m}_mask"] = there
            if m in split.shown:
                arrays[f"{name}_{m}_shown"] = split.shown[m][chosen]
        if split.ids is not None:
            arrays[f"{name}_ids"] = np.asarray(split.ids, str)[chosen]
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)
    return {**result, "instances": len(rows)}
