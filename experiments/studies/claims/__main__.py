"""Figures in the prose of docs/: every sentence is rendered from the files of results.

    python -m experiments.studies.claims            # checks that every sentence stands in its page
    python -m experiments.studies.claims --write    # replaces the sentences whose figures differ

A claim is a sentence with fields in Python's format syntax, and a function that computes the fields. What the sentence
says in words is a condition of its function: if it does not hold any more, the sentence has to be written anew, and
neither command passes. Exit code 1 where a page and the results differ.
"""

import argparse
import sys
from collections.abc import Sequence

from experiments.shared.command_line import run_main
from experiments.shared.folders import ROOT
from experiments.studies.claims import consensus, defaults, field, losses, summary, temperatures
from experiments.studies.claims.claim import checked_page

__all__ = ["CLAIMS", "main"]

CLAIMS = (*consensus.CLAIMS, *defaults.CLAIMS, *field.CLAIMS, *losses.CLAIMS, *temperatures.CLAIMS, *summary.CLAIMS)


def main(argv: Sequence[str] | None = None) -> None:
    """Check all pages, or write them."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--write", action="store_true", help="replace the sentences whose figures differ")
    write, failed = flags.parse_args(argv).write, False
    for page in dict.fromkeys(claim.page for claim in CLAIMS):
        path = ROOT / page
        own = [claim for claim in CLAIMS if claim.page == page]
        text, lines = checked_page(path.read_text("utf-8"), own)
        if write:
            path.write_text(text, encoding="utf-8")
            lines = checked_page(text, own)[1]  # what cannot be written remains
        print(*lines, sep="\n", end="\n" if lines else "", file=sys.stderr)
        failed |= bool(lines)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    run_main(main)
