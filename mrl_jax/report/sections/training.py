"""How training went: losses, validation mAP, and whether wrong labels were memorised."""

from collections.abc import Mapping

from mrl_jax.report.blocks import Block, Cell, Chart, Note, Section, Table, share_cell
from mrl_jax.report.charts import bars, lines, stacked
from mrl_jax.report.memory import Memory, Predictions, histogram
from mrl_jax.report.opened import OpenedRun
from mrl_jax.report.sections.results import directed
from mrl_jax.retrieval.measure import cross_modal_chance

__all__ = ["learning_curves", "memorising"]


def learning_curves(opened: OpenedRun) -> Section:
    """Losses and validation mAP against the epoch."""
    metrics = opened.recorded.metrics
    if len(metrics) < 2:
        text = "The method is a closed form, computed at once: there are no curves."
        if not metrics or opened.recorded.result is None:
            text = "Fewer than two epochs are recorded: there are no curves."
        return Section("curves", "Learning curves", "", [Note(text)])
    blocks: list[Block] = []
    names = list(dict.fromkeys(name for line in metrics for name in line.get("train", {})))
    losses = {
        "total" if name == "loss" else name: [
            (line["epoch"], line["train"][name]) for line in metrics if name in line.get("train", {})
        ]
        for name in names
    }
    if losses:
        chart = lines(losses, "epoch", "training loss", whole=True)
        caption = "Mean over the instances of an epoch: it falls while the model fits its labels, right or wrong."
        blocks.append(Chart("Training loss", caption, chart, half=True))
    valid = {d: [(line["epoch"], line["valid"]["map"][d]) for line in metrics] for d in metrics[0]["valid"]["map"]}
    level = {}
    if opened.own_data:
        split = opened.dataset.splits["valid"]
        chance = cross_modal_chance({m: split.samples(m)[1] for m in opened.run.modalities})
        level = {"chance": sum(chance.values()) / len(chance)}
    chart = lines(
        directed(valid), "epoch", "validation mAP", rules={"epoch kept": opened.run.epoch}, levels=level, whole=True
    )
    caption = "A curve that falls again has memorised wrong labels; dashed: the epoch that is kept, dotted: chance."
    blocks.append(Chart("Validation mAP", caption, chart, half=True))
    return Section("curves", "Learning curves", "", blocks)


def memorising(
    opened: OpenedRun, found: Mapping[str, Predictions] | None, memory: Memory | None, why: str = ""
) -> Section:
    """Accuracy on right and wrong labels, and the probabilities of the given labels.

    Args:
        opened: the run.
        found: modality -> what the kept model says of its training samples; None if that is unknown.
        memory: the same as shares, perhaps at many epochs; None if that is unknown.
        why: why it is unknown.
    """
    title, anchor = "Did it memorise?", "memory"
    if found is None or memory is None:
        return Section(anchor, title, "", [Note(f"Unknown: {why}.")])
    blocks: list[Block] = []
    lead = (
        "Wrong labels are those that differ from the labels of the data set. A model that memorised repeats them; one "
        "that learned the classes predicts the true class instead."
    )
    if not memory.has_wrong and "mismatched_share" in opened.recorded.noise:
        lead = "The noise pairs samples of different instances and changes no label: all labels are right."
    elif not memory.has_wrong:
        lead = (
            "No noise was injected: which of the labels of the data set are wrong is unknown. All of them count as "
            "right here."
        )
    blocks.append(_predictions_chart(memory))
    series = {
        "right labels: accuracy": memory.right,
        "wrong labels: repeated": memory.repeated,
        "wrong labels: true class predicted": memory.recovered,
    }
    if len(memory.epochs) > 2 and memory.has_wrong:
        points = {name: list(zip(map(float, memory.epochs), values, strict=True)) for name, values in series.items()}
        chart = lines(points, "epoch", "share of training samples", whole=True, share=True)
        caption = (
            "Memorising is seen where the share of repeated wrong labels rises towards 1 and the third line falls."
        )
        blocks.append(Chart("Right and wrong labels during training", caption, chart))
    else:
        head = ("model", *(list(series) if memory.has_wrong else list(series)[:1]))
        rows = []
        for i, epoch in enumerate(memory.epochs):
            name = f"epoch {epoch}" + (f" ({memory.names[i]})" if memory.names else "")
            rows.append((Cell(name), *(share_cell(values[i]) for values in list(series.values())[: len(head) - 1])))
        caption = "Shares of the training samples of all modalities; repeated wrong labels are memorised ones."
        blocks.append(Table(caption, head, rows))
    for m, p in found.items():
        chart = bars(histogram(p.p_given, p.wrong), "p(given label | sample)", "share of the samples of a kind")
        caption = (
            "How sure the model is of the label that it was given: wrong labels at the right end are memorised, right "
            "ones belong there."
        )
        counts = f"{m}: {int((~p.wrong).sum()):,} right, {int(p.wrong.sum()):,} wrong labels"
        blocks.append(Chart(counts, caption, chart, half=True))
    if opened.recorded.data["instances"]["train"] > max(len(p.rows) for p in found.values()):
        blocks.append(Note("Computed from a part of the training samples, evenly spaced or those that are present."))
    return Section(anchor, title, lead, blocks)


def _predictions_chart(memory: Memory) -> Chart:
    """What the model predicts for samples with right and with wrong labels, at the first and the last of the epochs."""
    true, repeated, another = "the true class", "the wrong label, repeated", "another class"
    rows = []
    for i in sorted({0, len(memory.epochs) - 1}):
        at = f"epoch {memory.epochs[i]}" + (f" ({memory.names[i]})" if memory.names else "")
        rows.append((f"right labels, {at}", [(true, memory.right[i]), (another, 1 - memory.right[i])]))
        if memory.has_wrong:
            seen, held = memory.recovered[i], memory.repeated[i]
            rows.append((f"wrong labels, {at}", [(true, seen), (another, 1 - seen - held), (repeated, held)]))
    colours = {true: "var(--good)", another: "var(--line)", repeated: "var(--bad)"}
    if not memory.has_wrong:
        del colours[repeated]
    caption = "Red is memorised: the model repeats a label that is wrong. Green is right, whatever label it was given."
    return Chart("What the model predicts for training samples", caption, stacked(rows, "share of samples", colours))
