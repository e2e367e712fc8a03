"""From the folders of runs to one file of HTML."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mrl_jax.audit.run import audit_run
from mrl_jax.backend import names_backend
from mrl_jax.data.dataset import Dataset
from mrl_jax.errors import InputError
from mrl_jax.files import check_outputs, write_atomically
from mrl_jax.interface import option
from mrl_jax.report.blocks import Note, Section
from mrl_jax.report.memory import Memory, Predictions, memory_of, memory_record, predictions
from mrl_jax.report.opened import Found, OpenedRun, find_runs, open_run
from mrl_jax.report.page import Page, check_packages, packing, render
from mrl_jax.report.retrieved import retrieve
from mrl_jax.report.samples import Samples
from mrl_jax.report.sections.comparison import TESTED, compared_verdict, comparison, tested
from mrl_jax.report.sections.overview import about, heading, protocol, tiles, verdict
from mrl_jax.report.sections.reproduce import report_command, reproduce
from mrl_jax.report.sections.results import by_class, precision_recall, results
from mrl_jax.report.sections.shown import PageItems, example_section, map_section
from mrl_jax.report.sections.suspects import suspect_table
from mrl_jax.report.sections.swept import sweep_section, sweep_verdict
from mrl_jax.report.sections.training import learning_curves, memorising
from mrl_jax.search.named import Texts

__all__ = ["write_report"]

SUSPECTS = 40
"""Doubtful labels that a page shows."""

_SUSPECTS = (
    "Training samples whose given label is most probably wrong, with the label that their neighbours suggest: look at "
    "these first."
)

Say = Callable[[str], None]


@names_backend
def write_report(
    workdirs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    html: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    data: Any = None,
    title: str | None = None,
    pictures: str | os.PathLike[str] | None = None,
    texts: Texts = None,
    progress: bool = False,
) -> Path:
    """Write a page on a run, or on several.

    Args:
        workdirs: the folder of a run or of a sweep, or several.
        html: the file to write; None for `report.html` in the folder, if there is one only.
        split: "test" or "valid".
        data: anything `load_dataset` takes; None for the data that the runs name.
        title: heading of the page; None for data and method.
        pictures: folder of pictures of the samples, named by id; None for those that come with the data.
        texts: their texts by id, or a CSV of them; None for those that come with the data.
        progress: say on standard error what is being computed.

    Returns:
        The file.

    Raises:
        InputError: a package is missing, a folder holds no run, the data do not fit, or the file cannot be written.
    """
    check_packages()
    if split not in ("test", "valid"):
        raise InputError(f"split {split!r}: choose test or valid")
    folders = [workdirs] if isinstance(workdirs, str | os.PathLike) else list(workdirs)
    found = find_runs(folders)
    if html is None and len(folders) > 1:
        raise InputError(
            f"a report on several folders belongs to none of them; name its file: {option('html', 'FILE')}"
        )
    path = Path(html) if html is not None else Path(folders[0]) / "report.html"
    inputs = [str(x) if isinstance(x, str | os.PathLike) else None for x in (data, texts)]
    for recorded in found.runs:
        check_outputs({"--html": str(path)}, inputs, str(recorded.folder.path))
    started = time.monotonic()
    say: Say = lambda what: None  # noqa: E731
    if progress:
        say = lambda what: print(f"{time.monotonic() - started:5.1f} s  {what}", file=sys.stderr)  # noqa: E731
    with packing():
        given = {
            "html": html if len(folders) > 1 else None,
            "split": None if split == "test" else split,
            "data_path": data,
            "title": title,
        }
        command = report_command(folders, **given, pictures=pictures, texts=texts)
        shown = _Shown(None if pictures is None else str(pictures), texts)
        page = _page(found, split, data, title, shown, command, say)
    write_atomically(path, render(page))
    return path


class _Shown(NamedTuple):
    """What is shown of the samples, where it does not come with the data."""

    pictures: str | None
    texts: Texts


def _page(found: Found, split: str, data: Any, title: str | None, shown: _Shown, command: str, say: Say) -> Page:
    best = max(found.runs, key=lambda r: r.valid_map)
    alone = not found.sweeps and len(found.runs) <= TESTED  # runs that are loaded, and tested one by one
    opened: list[OpenedRun] = []
    shared: dict[Any, Dataset] = {}
    for recorded in found.runs if alone else (best,):
        say(f"scores of {recorded.name}")
        opened.append(open_run(recorded, split, data, shared=shared))
    main = next(o for o in opened if o.recorded is best)
    swept = [sweep_section(name, sweep, i) for i, (name, sweep) in enumerate(found.sweeps.items(), 1)]
    comparing = " ".join(sweep_verdict(name, sweep) for name, sweep in found.sweeps.items())
    compared = []
    if len(found.runs) > 1:
        say("comparison")
        tests, notes = tested(opened, best) if alone else ([], [])
        compared.append(comparison(found.runs, opened if alone else [], best, tests, notes))
        comparing = comparing or compared_verdict(found.runs, tests, best)
        title = title or f"{main.dataset.name}: {len(found.runs)} runs compared"
    return _page_of(main, [*swept, *compared], title, comparing, " ".join(found.skipped), shown, command, say)


def _page_of(
    opened: OpenedRun,
    before: Sequence[Section],
    title: str | None,
    comparing: str,
    remark: str,
    shown: _Shown,
    command: str,
    say: Say,
) -> Page:
    """The page of a run, with other sections before its own, and with a verdict on several runs before its own."""
    samples = Samples(opened.dataset, opened.run, opened.recorded.folder, opened.data, *shown)
    items = PageItems()
    say("training labels")
    kept, memory, why = _memory(opened)
    say("classes")
    retrieved = retrieve(opened.embedded, opened.metric)
    sections = [*before, protocol(opened), results(opened), learning_curves(opened)]
    sections.append(memorising(opened, kept, memory, why))
    sections += [precision_recall(opened), by_class(opened, retrieved)]
    say("map")
    sections.append(map_section(opened, samples, items, kept))
    say("examples")
    sections.append(example_section(opened, retrieved, samples))
    say("audit of the labels")
    sections += [_audited(opened, samples), reproduce(opened, command)]
    text, tone = verdict(opened, memory)
    if comparing:
        text, remark = comparing, f"{opened.recorded.name}, shown below: {text} {remark}".strip()
    top = title or heading(opened), about(opened), text, tone, remark, tiles(opened, memory)
    return Page(*top, sections, items.values, samples.pictures)


def _memory(opened: OpenedRun) -> tuple[dict[str, Predictions] | None, Memory | None, str]:
    """What the kept model says of training samples, and the shares of it; or why that is unknown."""
    try:
        kept = predictions(opened)
    except InputError as error:
        return None, None, str(error)
    return kept, memory_record(opened, kept) or memory_of(opened, kept), ""


def _audited(opened: OpenedRun, samples: Samples) -> Section:
    """The section of the most doubtful labels, by the audit of the run."""
    try:
        if not opened.own_data:
            raise InputError("these are other data than those of the training labels")
        audit = audit_run(opened.recorded.folder.path, data=opened.dataset).audit
    except InputError as error:  # it says why a run has none
        return Section("suspects", "Suspicious labels", "", [Note(f"Unknown: {error}.")])
    table = suspect_table(audit.suspects(SUSPECTS), samples, _SUSPECTS)
    return Section("suspects", "Suspicious labels", "", [table or Note("The audit suspects no label.")])
