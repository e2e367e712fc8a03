"""The page of an audit: which labels are probably wrong, with their samples, in one file of HTML."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mrl_jax.audit.found import METHODS
from mrl_jax.audit.run import Audited
from mrl_jax.files import check_outputs, write_atomically
from mrl_jax.report.blocks import Block, Code, Facts, Hit, Note, Section
from mrl_jax.report.page import Page, check_packages, packing, render
from mrl_jax.report.samples import Samples
from mrl_jax.report.sections.audit_pairs import (
    duplicate_section,
    given_labels,
    merged_section,
    outlier_section,
    pictured,
)
from mrl_jax.report.sections.audited import about, by_class, headline, noise_section, remark, tiles
from mrl_jax.report.sections.reproduce import flags_of, training_command
from mrl_jax.report.sections.suspects import Line, suspect_table
from mrl_jax.search.named import Texts
from mrl_jax.version import __version__

__all__ = ["SUSPECTS", "write_audit_page"]

SUSPECTS = 100
"""Suspects of each modality that a page shows, if no other number is asked for."""


def write_audit_page(
    audited: Audited,
    html: str | os.PathLike[str],
    *,
    top: int = SUSPECTS,
    data: Any = None,
    pictures: str | os.PathLike[str] | None = None,
    texts: Texts = None,
    flags: str = "",
) -> Path:
    """Write the page of an audit.

    Args:
        audited: of `audit_run` or `audit_data`.
        html: the file to write.
        top: how many suspects of each modality to show.
        data: what was given as the data of the run, if it was not those that it names.
        pictures: folder of pictures of the samples, named by id; None for those that come with the data.
        texts: their texts by id, or a CSV of them; None for those that come with the data.
        flags: flags of `python -m mrl_jax.audit` that make this audit, for the commands on the page; by default the
            folder of the run, or a file to be named.

    Returns:
        The file.

    Raises:
        InputError: a package is missing, pictures or texts cannot be read or are not of these data, or the file cannot
            be written.
    """
    check_packages()
    path, folder = Path(html), audited.folder
    check_outputs({"--html": str(path)}, [], None if folder is None else str(folder.path))
    if not flags:
        flags = "--data-path FILE" if folder is None else f"--workdir {shlex.quote(str(folder.path))}"
    own = audited.data if folder is None else data
    where = None if pictures is None else str(pictures)
    with packing():
        samples = Samples(audited.data, audited.run, folder, own, where, texts)
        shown = flags_of(html=html, pictures=pictures, texts=texts)
        page = _page(audited, samples, top, flags, " ".join(shown))
    write_atomically(path, render(page))
    return path


def _page(audited: Audited, samples: Samples, top: int, flags: str, shown: str) -> Page:
    audit = audited.audit
    verdict, tone = headline(audit)
    # Pictures are bounded: those of pairs and outliers come before those of neighbours.
    pairs, outliers = duplicate_section(audit, samples), outlier_section(audit, samples)
    sections = [
        _suspect_section(audited, samples, top),
        by_class(audit),
        noise_section(audit),
        pairs,
        outliers,
        merged_section(audit),
        _cleaning(audited, flags),
        _reproduce(audited, f"{flags} {shown}"),
    ]
    title = f"{audited.data.name}: which labels are wrong?"
    top_of_page = title, about(audit, audited.folder is not None), verdict, tone, remark(audit), tiles(audit)
    return Page(*top_of_page, sections, (), samples.pictures)


def _suspect_section(audited: Audited, samples: Samples, top: int) -> Section:
    audit = audited.audit
    lines = _first_of_each(audited, top)
    everyone = int(((audit.suggested != audit.given) & audit.present).sum())
    caption = f"{len(lines):,} of {everyone:,} suspects: " if len(lines) < everyone else f"{everyone:,} suspects: "
    caption += f"of each modality the first {top:,}; --top N shows more, and --csv has every sample. "
    if audit.neighbours is not None:
        caption += "Neighbours have a green frame if one of their given labels is the suggested one."
    neighbours = None if audit.neighbours is None else lambda line: _neighbours(audited, samples, line)
    table = suspect_table(lines, samples, caption, neighbours, audit.injected is not None)
    lead = (
        "Samples whose given label is most probably wrong, and the label that the others suggest. Agreement: the share "
        "of the other modalities of the instance with the same given label."
    )
    blocks: list[Block] = [table or Note("The audit suspects no label.")]
    return Section("suspects", "Suspicious labels", lead, blocks)


def _first_of_each(audited: Audited, top: int) -> list[Line]:
    """The most suspicious labels of every modality, at most `top` of each."""
    audit = audited.audit
    left = dict.fromkeys(audit.modalities, top)
    found: list[Line] = []
    for line in audit.lines():
        if line["suggested"] != line["given"] and left[line["modality"]]:
            left[line["modality"]] -= 1
            found.append(line)
        if not any(left.values()):
            break
    return found


def _neighbours(audited: Audited, samples: Samples, line: Line) -> Sequence[Hit]:
    audit, hits = audited.audit, []
    for j in line["neighbours"]:
        there = [i for i in range(len(audit.modalities)) if audit.present[i, j]]
        there.sort(key=lambda i: audit.modalities[i] != line["modality"])  # that of the suspect first
        sample = pictured(samples, [(audit.modalities[i], int(audit.rows[i, j])) for i in there])
        labels = given_labels(audit, j)
        hits.append(Hit(sample, ", ".join(labels), line["suggested"] in labels))
    return hits


def _cleaning(audited: Audited, flags: str) -> Section:
    """The commands that write cleaned data, and what each is good for."""
    noise, labels = audited.audit.noise, audited.audit.present.sum(axis=1)
    share = 1.0 - float(noise.rate @ labels) / max(int(labels.sum()), 1)
    keep = min(max(round(share, 2), 0.01), 1.0)
    command = f"python -m mrl_jax.audit {flags} --write-cleaned"
    commands = [
        "# relabel: labels that are wrong with a probability above 0.5 become the suggested ones",
        f"{command} clean.npz",
        f"# filter: keep the least suspicious {keep:.0%} of every modality, as many as are right by the estimate",
        f"{command} clean.npz --keep {keep:g}",
        "# then",
        "python -m mrl_jax.train --data-path clean.npz",
    ]
    lead = (
        "Look at the suspects first: a list that is checked by a person is better than one that is applied blindly. "
        "docs/audit_evidence.md has measured gain and cost of both."
    )
    return Section("clean", "Write cleaned data", lead, [Code("Commands", "\n".join(commands))])


def _reproduce(audited: Audited, flags: str) -> Section:
    audit, data, commands = audited.audit, audited.data, [f"python -m mrl_jax.audit {flags}"]
    if audited.run is not None and audited.folder is not None:
        commands.insert(0, training_command(audited.run.config))
    facts = [
        ("method", f"{audit.method}: {METHODS[audit.method]}"),
        ("data", f"{data.name}, SHA-256 {data.digest()}"),
        ("training instances", f"{audit.given.shape[1]:,}"),
        ("version of mrl_jax", __version__),
    ]
    lead = "The command that makes this page."
    if len(commands) > 1:
        lead = "The first command trains the run again, with the same noise; the second makes this page."
    return Section("reproduce", "How to reproduce", lead, [Code("Commands", "\n".join(commands)), Facts(facts)])
