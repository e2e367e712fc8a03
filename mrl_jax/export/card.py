"""A model card: Markdown with a YAML header, as the Hugging Face hub reads it, from what a run's folder records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mrl_jax.data.emoji.versions import recorded_source
from mrl_jax.display.text import describe_noise
from mrl_jax.errors import InputError
from mrl_jax.files import write_atomically
from mrl_jax.names import base_name
from mrl_jax.report.blocks import Facts
from mrl_jax.report.opened import OpenedRun, open_run, read_run
from mrl_jax.report.sections.overview import about, heading, protocol
from mrl_jax.report.sections.reproduce import training_command
from mrl_jax.run.folder import RunFolder

__all__ = ["card_text", "write_card"]


def write_card(path: Path, folder: RunFolder, split: str = "test", data: Any = None) -> list[Path]:
    """Write the card of the model that a run keeps, with its scores on a split.

    Args:
        path: the file; the hub reads README.md.
        folder: the folder of a complete run.
        split: "test" or "valid".
        data: as for `mrl_jax.evaluate`.

    Raises:
        InputError: the run is not complete, its data are not at hand, or the file cannot be written.
    """
    if split == "train":
        raise InputError("split 'train': a card has the scores of test or valid; choose one of them")
    recorded = read_run(folder.path, folder.path.name)
    if recorded.result is None:
        raise InputError(f"{folder.path}: the run is not complete, and has no model to describe; finish it (--resume)")
    write_atomically(path, card_text(open_run(recorded, split, data)))
    return [path]


def card_text(opened: OpenedRun) -> str:
    """The text of the card."""
    title = heading(opened)
    parts = [
        _header(opened, title),
        f"# {_plain(title)}",
        _plain(about(opened)),
        "## Scores",
        _scores(opened),
        "## Data, labels and method",
        _facts(opened),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(opened)),
        "## Use",
        _use(opened),
        "## Training",
        _training(opened),
    ]
    return "\n\n".join(parts) + "\n"


def _header(opened: OpenedRun, title: str) -> str:
    """The YAML header, as the hub's `ModelCardData` reads it; every value is JSON, which YAML reads as it is.

    The licence is for the publisher to choose; "unknown" is the hub's word until then.
    """
    scores, config = opened.scores, opened.run.config
    metrics = [
        {"type": "mean_average_precision", "name": f"mAP {direction}", "value": round(value, 4)}
        for direction, value in [*scores["map"].items(), ("average", scores["average"])]
    ]
    name = opened.dataset.name
    result = {
        "task": {"type": "cross-modal-retrieval", "name": "Cross-modal retrieval by class"},
        "dataset": {"type": name, "name": name, "split": opened.split},
        "metrics": metrics,
    }
    tags = ["cross-modal-retrieval", "noisy-labels", "jax", config.method, *opened.run.modalities]
    header = {
        "license": "unknown",
        "library_name": "mrl_jax",
        "pipeline_tag": "feature-extraction",
        "tags": list(dict.fromkeys(tags)),
        "model-index": [{"name": title, "results": [result]}],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items()]
    return "\n".join(["---", *lines, "---"])


def _scores(opened: OpenedRun) -> str:
    scores = opened.scores
    rows = [["direction", "queries", "mAP", "interval of 95 %", "mAP of a random ranking"]]
    for direction, found in scores["metrics"].items():
        ends = _ends(found.get("ci", {}).get("map"))
        chance = f"{scores['chance'][direction]:.3f}"
        rows.append([direction, f"{found['queries']:,}", f"{found['map']:.3f}", ends, chance])
    chance = f"{sum(scores['chance'].values()) / len(scores['chance']):.3f}"
    rows.append(["average", "", f"{scores['average']:.3f}", _ends(scores.get("average_ci")), chance])
    text = f"On the {opened.split} split, by a ranking of all items of the other modality.\n\n{_table(rows)}"
    if scores["instances"]:
        pairs = [["direction", "pairs", "own partner first (R@1)", "among ten (R@10)"]]
        pairs += [
            [d, f"{s['queries']:,}", f"{s['recall@1']:.3f}", f"{s['recall@10']:.3f}"]
            for d, s in scores["instances"].items()
        ]
        text += f"\n\n{_table(pairs)}"
    return text


def _facts(opened: OpenedRun) -> str:
    facts = next(block for block in protocol(opened).blocks if isinstance(block, Facts))
    return _table([["", ""], *([name, str(value)] for name, value in facts.rows)])


def _limits(opened: OpenedRun) -> Iterator[str]:
    recorded = opened.recorded
    yield (
        "An item counts as relevant if its class is that of the query. A high mAP does not mean that the very partner "
        "of an item is found."
    )
    noise = describe_noise(recorded.noise).split(";")[0]
    share = recorded.noise.get("wrong_share_overall")
    if share:
        yield f"The model was trained with wrong labels: {_plain(noise)}; {share:.0%} of the training labels are wrong."
    else:
        yield "No labels were changed for training. How many labels of the data are wrong is not recorded."
    if mismatched := recorded.noise.get("mismatched_share"):
        mean = sum(mismatched.values()) / len(mismatched)
        yield f"{mean:.0%} of the training samples were paired with another instance (mean of the modalities)."
    chosen = {"best": "the best by validation mAP", "last": "the last of its training"}[recorded.kept]
    validation = "noisy" if "validation" in recorded.noise else "given"
    by = f", which the {validation} validation labels decided" if recorded.kept == "best" else ""
    seed = opened.run.config.seed
    yield f"The model is that of epoch {opened.run.epoch}, {chosen}{by}. It was trained once, with seed {seed}."
    yield "Intervals cover the choice of queries, not that of data, seed or settings."
    dims = ", ".join(f"{_plain(m)} {d}" for m, d in recorded.data["dims"].items())
    yield f"Its input are features, not raw samples, of the same extractors as in training. Their numbers: {dims}."
    yield (
        "Its licence is not stated: replace unknown in the header before the model is published. The data may have "
        "terms of their own."
    )
    if (notes := opened.scores["notes"]) and not isinstance(notes, str):
        yield from (_plain(str(note)) for note in notes)


def _use(opened: OpenedRun) -> str:
    first = opened.run.modalities[0]
    width = opened.recorded.data["dims"][first]
    return (
        "```python\nfrom mrl_jax import load_run\n\n"
        'run = load_run("DIR")                      # the folder of the run\n'
        f"z = run.embed({{{json.dumps(first, ensure_ascii=False)}: features}})  # [N, {width}] -> unit rows "
        f"[N, {opened.run.embed_dim}]\n```"
    )


def _training(opened: OpenedRun) -> str:
    recorded, metadata = opened.recorded, opened.recorded.data.get("metadata", {})
    result = recorded.result or {}
    versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    rows = [["", ""], ["time", f"{result['seconds']:.0f} s on {result['device']}"], ["versions", versions]]
    rows += [["SHA-256 of the data", recorded.data["sha256"]]]
    rows += [[name, _origin(name, metadata)] for name in ("source", "homepage", "attribution") if name in metadata]
    if "attribution" not in metadata:
        rows.append(["licence of the data", "not recorded"])
    return f"```\n{training_command(opened.run.config, folders=False)}\n```\n\n{_table(rows)}"


def _origin(name: str, metadata: Mapping[str, Any]) -> str:
    text = str(metadata[name])
    return base_name(text) if name == "source" and recorded_source(metadata) is None else text


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _ends(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is; names come from data."""
    shown = " ".join(text.replace("\\", "\\\\").split())
    for character in "|<*_`[]":
        shown = shown.replace(character, f"\\{character}")
    return shown
