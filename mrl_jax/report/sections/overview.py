"""The top of a page: a verdict in one line, key numbers, and what was trained on what."""

from collections.abc import Mapping, Sequence
from typing import Any

from mrl_jax.display.text import describe_noise, memorised
from mrl_jax.report.blocks import Block, Cell, Facts, Section, Table, Tile, share_cell
from mrl_jax.report.memory import Memory
from mrl_jax.report.opened import OpenedRun
from mrl_jax.run.representation import ranked_by

__all__ = ["about", "heading", "protocol", "tiles", "verdict"]

_HELD = 0.25
"""Share of the wrong labels that a model repeats, from which on it is said to have memorised some of them. A model that
guesses among K classes repeats 1 / K of them."""


def heading(opened: OpenedRun) -> str:
    """The title of a page on a run: data, noise and method."""
    noise = describe_noise(opened.recorded.noise).split(";")[0].removesuffix(", no noise injected")
    labels = "labels as given" if noise == "as given" else noise
    return f"{opened.dataset.name}: {opened.recorded.entry.title(opened.run.config)}, {labels}"


def about(opened: OpenedRun) -> str:
    """One sentence for a reader who knows nothing of the run."""
    *others, last = opened.run.modalities
    n = opened.recorded.data["instances"]["train"]
    return (
        f"A model that finds {', '.join(others)} and {last} by each other, trained on {n:,} instances of "
        f"{len(opened.run.class_names)} classes."
    )


def verdict(opened: OpenedRun, memory: Memory | None) -> tuple[str, str]:
    """One line on a run, and "good", "bad" or "".

    Args:
        opened: the run.
        memory: how it treats right and wrong labels; None if that is unknown.
    """
    average, ends = opened.scores["average"], opened.scores.get("average_ci")
    chance = _chance(opened)
    above = (average if ends is None else ends[0]) > chance
    what = "Retrieves well above chance" if average >= 2 * chance and above else "Retrieves above chance"
    text = f"{what if above else 'Retrieves no better than chance'}: mAP {average:.3f}, chance {chance:.3f}."
    if memory is None:
        return f"{text} Whether it memorised wrong labels is unknown.", "" if above else "bad"
    if not memory.has_wrong:
        return f"{text} No training label is known to be wrong.", "good" if above else "bad"
    at = memory.epochs.index(opened.run.epoch)
    repeated, recovered = memory.repeated[at], memory.recovered[at]
    shares = f"it repeats {repeated:.0%} of the wrong labels and sees through {recovered:.0%}"
    if repeated >= _HELD and repeated > recovered:
        return f"{text} It memorised its labels: {shares}.", "bad"
    part = repeated >= _HELD
    text += f" It memorised a part of the wrong labels: {shares}." if part else f" It did not memorise: {shares}."
    if memory.repeated[-1] - repeated >= _HELD:  # a later epoch, which is not kept
        text += f" Epoch {memory.epochs[-1]}, which is not kept, repeats {memory.repeated[-1]:.0%}."
    return text, "bad" if not above else "" if part else "good"


def tiles(opened: OpenedRun, memory: Memory | None) -> list[Tile]:
    """The key numbers of a run."""
    scores, recorded = opened.scores, opened.recorded
    ends = scores.get("average_ci")
    out = [
        Tile(
            f"mAP on {opened.split}, mean of directions",
            f"{scores['average']:.3f}",
            (f"95% interval {ends[0]:.3f} to {ends[1]:.3f}; " if ends else "") + f"chance {_chance(opened):.3f}",
        )
    ]
    share = recorded.noise.get("wrong_share_overall")
    known = recorded.noise["kind"] == "file" or recorded.noise.get("rate", 0) > 0
    if known and share is not None:
        out.append(Tile("training labels that are wrong", f"{share:.0%}", describe_noise(recorded.noise).split(";")[0]))
    if mismatched := recorded.noise.get("mismatched_share"):
        mean = sum(mismatched.values()) / len(mismatched)
        out.append(Tile("samples paired with another instance", f"{mean:.0%}", "mean of the modalities"))
    if memory is not None and memory.has_wrong:
        at = memory.epochs.index(opened.run.epoch)
        repeated, recovered = memory.repeated[at], memory.recovered[at]
        tone = "good" if repeated < _HELD else "bad" if repeated > recovered else ""
        out.append(Tile("wrong labels that the model repeats", f"{repeated:.0%}", "0% is best", tone))
        out.append(Tile("wrong labels that it sees through", f"{recovered:.0%}", "it predicts the true class"))
    if recorded.result is not None:
        best, last = (recorded.result["test"][which] for which in ("best", "last"))
        drop = best["average"] - last["average"]
        tone = "bad" if memorised(best["average"], last["average"]) else "good"
        remark = f"test mAP of epoch {last['epoch']} less that of epoch {best['epoch']}, the best in validation"
        if last["epoch"] != best["epoch"]:
            out.append(Tile("last epoch against the best", f"{-drop:+.3f}", remark, tone))
        device = recorded.result["device"]
        out.append(
            Tile("epoch kept", str(opened.run.epoch), f"of {last['epoch']}; {_time(recorded.result)} on {device}")
        )
    return out


def protocol(opened: OpenedRun) -> Section:
    """What was trained on what, and how it is scored."""
    data, noise, config = opened.recorded.data, opened.recorded.noise, opened.run.config
    entry, options = opened.recorded.entry, opened.scores["options"]
    sizes = ", ".join(f"{name} {n:,}" for name, n in data["instances"].items())
    samples = data["samples"]
    missing = {m: data["instances"]["train"] - n for m, n in samples["train"].items()}
    rows = [
        ("data", f"{data['name']}: {len(data['class_names'])} classes; instances: {sizes}"),
        ("modalities", ", ".join(f"{m} ({d} features)" for m, d in data["dims"].items())),
        ("training labels", describe_noise(noise)),
        ("method", entry.describe(config).removeprefix("method: ")),
        ("model", f"of epoch {opened.run.epoch}, {_KEPT[opened.recorded.kept]}"),
        ("retrieval", f"by {ranked_by(options['representation'], options['metric'])}, ties in gallery order"),
        ("relevant", "results of the query's class, by the labels of the data set" + _noisy(opened)),
    ]
    if any(missing.values()):
        text = ", ".join(f"{m} {n:,}" for m, n in missing.items() if n)
        rows.insert(2, ("missing training samples", text))
    if any(len(set(of.values())) > 1 for name, of in samples.items() if name != "train"):
        gallery = "; ".join(
            f"{name}: " + ", ".join(f"{m} {n:,}" for m, n in of.items())
            for name, of in samples.items()
            if name != "train"
        )
        rows.insert(2, ("samples of the galleries", gallery))
    blocks: list[Block] = [Facts(rows)]
    if (table := _wrong_by_class(opened)) is not None:
        blocks.append(table)
    return Section("protocol", "Protocol and noise", "What was trained, on what labels, and how it is scored.", blocks)


_KEPT = {"best": "the best by validation mAP", "last": "the last, which the method keeps"}


def _wrong_by_class(opened: OpenedRun) -> Table | None:
    """The true share of wrong labels by class and modality, where labels were changed."""
    noise = opened.recorded.noise
    by_class = noise.get("wrong_share_by_class", {})
    if not by_class or not any(noise["wrong_share"].values()):
        return None
    modalities = list(by_class)
    rows: list[Sequence[Cell]] = [
        (Cell(name), *(share_cell(by_class[m].get(name)) for m in modalities)) for name in opened.run.class_names
    ]
    return Table(
        "Share of the samples of each class whose training label is wrong: the noise as it was drawn.",
        ("true class", *modalities),
        rows,
        folded=True,
    )


def _noisy(opened: OpenedRun) -> str:
    if opened.split == "valid" and "validation" in opened.recorded.noise:
        return ", with the noise of the run's validation labels"
    return ""


def _chance(opened: OpenedRun) -> float:
    chance = opened.scores["chance"]
    return float(sum(chance.values()) / len(chance))


def _time(result: Mapping[str, Any]) -> str:
    seconds = float(result["seconds"])
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"
