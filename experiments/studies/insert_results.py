"""Insert the tables of `results/` into README.md and the pages of docs/, between their markers.

    python -m experiments.studies.insert_results

The content of `results/NAME.md` stands between the lines `<!-- NAME -->` and `<!-- end -->`.
"""

import argparse
import re

from experiments.shared.command_line import run_main
from experiments.shared.folders import RESULTS, ROOT
from mrl_jax import InputError

PAGES = (
    "README.md",
    *(f"docs/{name}_evidence.md" for name in ("audit", "consensus", "retrieval")),
    *("docs/report.md", "docs/scale.md", "docs/search.md"),
    *(
        f"docs/{name}.md"
        for name in ("results", "results_comparison", "results_field", "results_paper", "results_settings")
    ),
)
_MARKED = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The text of a page with today's tables.

    Raises:
        InputError: a table is missing.
    """

    def content(match: re.Match[str]) -> str:
        path = RESULTS / f"{match[1]}.md"
        if not path.exists():
            raise InputError(f"{path} is missing; make it with the program {match[1]} of experiments/")
        return f"<!-- {match[1]} -->\n\n{path.read_text('utf-8').strip()}\n\n<!-- end -->"

    return _MARKED.sub(content, text)


def main(_: object = None) -> None:
    """Insert the tables into all pages."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    pages = {ROOT / name: filled((ROOT / name).read_text("utf-8")) for name in PAGES}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
