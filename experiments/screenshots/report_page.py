"""The picture of a report in the README: `docs/pictures/report.png`, and a narrow one.

python -m mrl_jax.train --method consensus --noise-rate 0.6 --workdir runs/consensus
python -m experiments.screenshots.report_page --workdir runs/consensus

Needs Chromium (`apt-get install chromium`) and the package playwright, which is in the extra `test`.
"""

import argparse
import io
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from mrl_jax.errors import InputError
from mrl_jax.report import write_report

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = (1280, 720), (400, 800)
SHOWN = ("memory", "map", "suspects")
"""Sections whose beginnings are shown after the top of the page."""
HOVERED = 40
"""The point of the map that the pointer is on."""


def hover(window: Any, section: str) -> None:
    """Put the pointer on a sample of the map, whose tooltip then shows."""
    if section == "map":
        place = window.locator("#map .mark-symbol.role-mark path").nth(HOVERED).bounding_box()
        window.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)


def taken(
    page: Path, size: tuple[int, int], sections: tuple[str, ...], act: Callable[[Any, str], None] = hover
) -> list[Image.Image]:
    """The top of a page and the beginnings of some sections, each a window of that size.

    Args:
        page: the file.
        size: width and height of a window.
        sections: their names.
        act: what the reader does in a section: of Playwright's page and its name.
    """
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise InputError("no browser: apt-get install chromium")
    pictures = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        window = browser.new_page(viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce")
        window.goto(page.absolute().as_uri())
        window.wait_for_function("document.documentElement.dataset.drawn === 'yes'")
        pictures.append(Image.open(io.BytesIO(window.screenshot())))
        for section in sections:
            window.evaluate("name => document.getElementById(name).scrollIntoView()", section)
            window.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            act(window, section)
            pictures.append(Image.open(io.BytesIO(window.screenshot())))
        browser.close()
    return pictures


def joined(pictures: list[Image.Image], columns: int, gap: int = 12) -> Image.Image:
    """Pictures in columns, line by line, on grey."""
    lines = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    width = max(sum(p.width + gap for p in line) for line in lines) + gap
    height = sum(max(p.height for p in line) + gap for line in lines) + gap
    sheet, y = Image.new("RGB", (width, height), "#8b949e"), gap
    for line in lines:
        x = gap
        for p in line:
            sheet.paste(p.convert("RGB"), (x, y))
            x += p.width + gap
        y += max(p.height for p in line) + gap
    return sheet


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of a run on the embedded set")
    args = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(args.workdir, Path(folder) / "report.html", progress=True)
        wide = taken(page, WIDE, SHOWN)
        narrow = taken(page, NARROW, ("memory", "map"))
    for name, sheet in (("report", joined(wide, 2)), ("report_narrow", joined(narrow, 3))):
        # 256 colours are enough, and take a third of the bytes.
        sheet.quantize(256, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
