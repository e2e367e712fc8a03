"""A picture of the search page, for the documentation.

python -m experiments.screenshots.search_page --workdir RUN [--query row=text:test:192] [--width 1100] [--dark]

Serves a run on the emoji set (`python -m mrl_jax.train --method consensus --workdir RUN`) on a free port of this
machine, opens a query in chromium without a window, and writes what it shows. Needs the extras `serve` and `test`, and
chromium.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from experiments.shared.command_line import require, run_main
from experiments.shared.folders import ROOT
from mrl_jax import InputError
from mrl_jax.files import write_atomically

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCALE = 1.5  # pixels of the file per pixel of the page


def taken(address: str, width: int, dark: bool) -> bytes:
    """What a page shows, from its top to its end, as PNG."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise InputError("there is no browser; run: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": 700},
            color_scheme="dark" if dark else "light",
            device_scale_factor=SCALE,
        )
        page.goto(address, wait_until="networkidle")
        page.wait_for_selector("#results:not(.busy) .tile")
        page.evaluate("document.activeElement.blur()")
        png: bytes = page.screenshot(full_page=True)
        browser.close()
    return png


def main() -> None:
    """Serve, look, write."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--workdir", required=True, help="folder of a run on the emoji set")
    flags.add_argument("--query", default="row=text:test:192&top=5", help="what is asked, as in the page's address")
    flags.add_argument("--width", type=int, default=1100, help="of the window; default: 1100")
    flags.add_argument("--dark", action="store_true", help="dark instead of light")
    flags.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "search_page.png")
    args = flags.parse_args()
    require("playwright", "starlette", "uvicorn", "httptools")
    command = [sys.executable, "-m", "mrl_jax.search", "--workdir", args.workdir, "--serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            address = server.stdout.readline().split(" ")[0]  # type: ignore[union-attr]
            if not address:
                raise InputError(f"{args.workdir} cannot be served; {' '.join(command[1:])} says why")
            png = taken(f"{address}/?{args.query}", args.width, args.dark)
        finally:
            server.terminate()
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    write_atomically(args.out, small.getvalue())
    print(f"{args.out}: {len(small.getvalue()) // 1024} KiB")


if __name__ == "__main__":
    run_main(main)
