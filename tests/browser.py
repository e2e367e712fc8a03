"""A real browser for tests of pages: chromium, driven by Playwright. Without it the tests are skipped with a word."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE, NARROW = (1280, 900), (400, 800)


def program():
    """The path of the browser; the test is skipped if there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("no browser: apt-get install chromium")
    if find_spec("playwright") is None:
        pytest.skip("no driver of browsers: pip install playwright")
    return found


class Faults(list):
    """What a page complains of: errors on its console, exceptions, requests that failed."""

    def __init__(self, page):
        super().__init__()
        page.on("console", lambda message: message.type in ("error", "warning") and self.append(message.text))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("requestfailed", lambda request: self.append(f"{request.url}: {request.failure}"))


@contextmanager
def open_browser() -> Iterator:
    """The browser without a window."""
    executable = program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def new_page(browser, size=WIDE):
    """A page in a context of its own, and its faults."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    yield page, Faults(page)
    context.close()


def overflow(page):
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
