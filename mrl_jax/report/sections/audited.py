"""The top of the page of an audit, and its sections on labels, classes and noise."""

from collections.abc import Sequence

import numpy as np

from mrl_jax.audit.found import METHODS, Audit
from mrl_jax.report.blocks import Block, Cell, Chart, Note, Section, Table, Tile, number_cell, share_cell
from mrl_jax.report.charts import heat_map

__all__ = ["about", "by_class", "headline", "noise_section", "remark", "tiles"]

_CLASSES = 30  # of the heat maps; of more, those with the most wrong labels
_SMALL = 16  # classes up to which two heat maps stand side by side
_MAPS = 6  # modalities with a heat map each; of more, one of all
_ROWS = 60  # of the table of confusions
_WRONG = 0.05  # noise rate from which a modality is said to be noisy


def headline(audit: Audit) -> tuple[str, str]:
    """How many labels are wrong, in words, and "good", "bad" or ""."""
    noise, labels = audit.noise, audit.present.sum(axis=1)
    rates = [
        f"{m} {rate:.1%} ({low:.1%} to {high:.1%})"
        for m, rate, low, high in zip(audit.modalities, noise.rate, noise.low, noise.high, strict=True)
    ]
    wrong = float(noise.rate @ labels)
    text = (
        f"About {wrong:,.0f} of {len(audit):,} labels are wrong, {wrong / max(len(audit), 1):.1%}: {'; '.join(rates)}. "
        f"{_suspects(audit).sum():,} labels are suspect: another class is more probable."
    )
    return text, "bad" if (noise.low > _WRONG).any() else "good" if (noise.high < _WRONG).all() else ""


def about(audit: Audit, of_run: bool) -> str:
    """What was audited, and how, in one or two sentences."""
    source = "as a run was trained on them" if of_run else "of the training split"
    return (
        f"{len(audit):,} labels {source}: {audit.given.shape[1]:,} instances, {len(audit.modalities)} modalities, "
        f"{len(audit.class_names)} classes. They are judged by {METHODS[audit.method]}; no clean label is used."
    )


def remark(audit: Audit) -> str:
    """What the reader must know beside the headline."""
    parts = ["Intervals are of 95 %."]
    if not audit.noise.even:
        parts.append("Wrong labels of a class concentrate on few others: the rate may be higher than estimated.")
    if audit.injected is not None:
        q = audit.injected["all"]
        parts.append(
            f"The noise was injected, so that the truth is known, and only used here: {q['share']:.1%} are wrong. The "
            f"order by suspicion has an AUROC of {q['auroc']:.3f}; of as many first suspects as the estimate says "
            f"{q['precision']:.1%} are wrong."
        )
    return " ".join(parts)


def tiles(audit: Audit) -> list[Tile]:
    """The key numbers of an audit."""
    noise, suspects = audit.noise, _suspects(audit).sum(axis=1)
    found = [
        Tile(
            f"wrong labels, {m}",
            f"{noise.rate[i]:.1%}",
            f"95% interval {noise.low[i]:.1%} to {noise.high[i]:.1%}; {suspects[i]:,} suspects of "
            f"{audit.present[i].sum():,}",
            "bad" if noise.low[i] > _WRONG else "good" if noise.high[i] < _WRONG else "",
        )
        for i, m in enumerate(audit.modalities[:_MAPS])
    ]
    across = sum(d["a"]["split"] != d["b"]["split"] for d in audit.duplicates)
    merged = len(audit.merged())
    found.append(Tile("near-duplicates across splits", f"{across:,}", "pairs; they flatter test scores", _bad(across)))
    if audit.outlyingness is not None:
        found.append(Tile("outliers", f"{len(audit.outliers()):,}", "instances far from every class"))
    found.append(Tile("pairs of classes that look like one", f"{merged:,}", "", _bad(merged)))
    return found


def _bad(count: int) -> str:
    return "bad" if count else "good"


def _suspects(audit: Audit) -> np.ndarray:
    """Which labels are less probable than another one, bool [M, N]."""
    return (audit.suggested != audit.given) & audit.present


def by_class(audit: Audit) -> Section:
    """How many labels of each class are suspect, and what they are believed to be."""
    rows = []
    suspects = _suspects(audit)
    for i, m in enumerate(audit.modalities):
        of_given = audit.noise.counts[i].sum(axis=0)
        for k, name in enumerate(audit.class_names):
            own = audit.present[i] & (audit.given[i] == k)
            wrong = 1.0 - audit.noise.counts[i, k, k] / of_given[k] if of_given[k] > 0 else None
            counts = int(own.sum()), int((own & suspects[i]).sum())
            cells = [Cell(f"{count:,}", float(count)) for count in counts]
            rows.append((Cell(name), Cell(m), *cells, share_cell(wrong)))
    rows.sort(key=lambda row: -(row[-1].sort or 0.0))
    head = ("given label", "modality", "labels", "suspects", "wrong, estimated")
    table = Table("The labels by class: those with the most wrong ones first.", head, rows, filters=(1,))
    caption = "Each row is what the labels of a class are believed to be: bright cells beside the diagonal are wrong."
    blocks: list[Block] = [
        _map(audit, title, _shares(counts.T), caption, "given label", "believed class", "share of the given labels")
        for title, counts in _of_modalities(audit, "Given against believed")
    ]
    return Section("classes", "By class", "Which labels are wrong most often, and what they should be.",
                   [*blocks, table])  # fmt: skip


def noise_section(audit: Audit) -> Section:
    """The transition matrix of the noise, and the most frequent confusions with their intervals."""
    caption = "Each row is what the samples of a class are labelled: the probability of every label. It adds up to 1."
    maps = [(f"Transition matrix, {m}", t) for m, t in zip(audit.modalities, audit.noise.transition, strict=True)]
    if len(maps) > _MAPS:
        maps = [("Transition matrix, mean of all modalities", audit.noise.transition.mean(axis=0))]
    blocks: list[Block] = [
        _map(audit, title, t, caption, "true class, as believed", "given label", "probability") for title, t in maps
    ]
    index = {name: k for k, name in enumerate(audit.class_names)}
    rows = []
    for line in audit.confusion()[:_ROWS]:
        i, k, y = audit.modalities.index(line["modality"]), index[line["believed"]], index[line["given"]]
        ends = float(audit.noise.transition_low[i, k, y]), float(audit.noise.transition_high[i, k, y])
        rows.append(
            (
                *(Cell(line[name]) for name in ("believed", "given", "modality")),
                Cell(f"{line['samples']:,.0f}", line["samples"]),
                number_cell(float(audit.noise.transition[i, k, y]), 3, ends),
            )
        )
    if rows:
        head = ("believed class", "given label", "modality", "labels, expected", "probability, interval of 95 %")
        text = "Confusions that are expected at least once, the most frequent first."
        if len(rows) == _ROWS:
            text = f"The {_ROWS} most frequent confusions; --json has all."
        blocks.append(Table(text, head, rows, filters=(0, 1, 2)))
    else:
        blocks.append(Note("No confusion is expected even once."))
    lead = "How the noise changes labels. A method that needs a transition matrix can take it from --json."
    return Section("transition", "Noise", lead, blocks)


def _of_modalities(audit: Audit, title: str) -> list[tuple[str, np.ndarray]]:
    """Titles and counts [K, K] of the modalities, or of all together where they are many."""
    if len(audit.modalities) > _MAPS:
        return [(f"{title}, all modalities", audit.noise.counts.sum(axis=0))]
    return [(f"{title}, {m}", counts) for m, counts in zip(audit.modalities, audit.noise.counts, strict=True)]


def _shares(counts: np.ndarray) -> np.ndarray:
    """Rows that add up to 1; NaN where there is nothing to share."""
    total = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)


def _map(audit: Audit, title: str, table: np.ndarray, caption: str, row: str, column: str, value: str) -> Chart:
    shown = _most_confused(audit)
    names = [audit.class_names[k] for k in shown]
    if len(shown) < len(audit.class_names):
        caption += f" The {len(shown)} of {len(audit.class_names)} classes with the most wrong labels are shown."
    spec = heat_map(table[np.ix_(shown, shown)], names, names, row, column, value)
    return Chart(title, caption, spec, least=max(340, 26 * len(shown) + 200), half=len(shown) <= _SMALL)


def _most_confused(audit: Audit) -> Sequence[int]:
    """Classes with the most wrong labels, in the order of the classes."""
    counts = audit.noise.counts.sum(axis=0)
    np.fill_diagonal(counts, 0.0)
    most = np.argsort(-(counts.sum(axis=0) + counts.sum(axis=1)), kind="stable")[:_CLASSES]
    return sorted(most.tolist())
