"""The picture of the page of an audit in the documentation: `docs/pictures/audit_page.png`.

python -m mrl_jax.train --method consensus --noise-rate 0.6 --workdir runs/consensus
python -m experiments.screenshots.audit_page --workdir runs/consensus

Needs Chromium (`apt-get install chromium`) and the package playwright, which is in the extra `test`.
"""

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.screenshots.report_page import PICTURES, WIDE, joined, taken
from experiments.shared.command_line import require, run_main
from mrl_jax.audit.run import audit_run
from mrl_jax.files import write_atomically
from mrl_jax.report import write_audit_page

SHOWN = ("suspects", "classes", "transition")
"""Sections whose beginnings are shown after the top of the page."""


def choose(window: Any, section: str) -> None:
    """Choose the suspects that have a picture."""
    if section == "suspects":
        window.locator("#suspects select").first.select_option("image")


def main() -> None:
    """Audit, look, write."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--workdir", required=True, help="folder of a run on the embedded set")
    flags.add_argument("--out", type=Path, default=PICTURES / "audit_page.png")
    args = flags.parse_args()
    require("playwright", "jinja2", "vl_convert")
    with tempfile.TemporaryDirectory() as folder:
        page = write_audit_page(audit_run(args.workdir), Path(folder) / "audit.html", flags="--workdir runs/consensus")
        size = page.stat().st_size
        sheet = joined(taken(page, WIDE, SHOWN, choose), 2)
    small = io.BytesIO()
    # 256 colours are enough, and take a third of the bytes.
    sheet.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_atomically(args.out, small.getvalue())
    print(f"{args.out}: {len(small.getvalue()) // 1024} KiB; the page has {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_main(main)
