"""A sentence whose figures are rendered from the files of results, and its page."""

import re
import string
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mrl_jax import InputError

__all__ = ["Claim", "checked_page", "ends", "holds", "in_words"]

_WIDTH = 120


@dataclass(frozen=True)
class Claim:
    """A sentence, or several, in a page.

    Attributes:
        page: path from the root of the repository.
        template: the text with named fields, as for `str.format`; white space counts as one space.
        fields: computes the fields from the files of results; an InputError says which words do not hold.
    """

    page: str
    template: str
    fields: Callable[[], Mapping[str, Any]]

    def sentence(self) -> str:
        """The text with today's figures, in one line."""
        return _one_line(self.template.format(**self.fields()))

    def pattern(self) -> re.Pattern[str]:
        """Matches the text with any figures, within a paragraph."""
        parts = []
        for literal, field, _, _ in string.Formatter().parse(_one_line(self.template)):
            parts.append(re.escape(literal).replace(r"\ ", r"\s+"))
            parts.append("" if field is None else r"(?:(?!\n\n).)+?")
        return re.compile("".join(parts) + r"(?!\w)", re.DOTALL)  # a final point is no decimal point


def checked_page(text: str, claims: Iterable[Claim]) -> tuple[str, list[str]]:
    """The text of a page with today's figures, and what differs.

    Args:
        text: the page.
        claims: those of this page.

    Returns:
        The page, and one line for each sentence that was replaced, or that cannot be.
    """
    lines = []
    for claim in claims:
        try:
            wanted = claim.sentence()
        except InputError as error:
            lines.append(f"{claim.page}: write this anew, {error}: {_one_line(claim.template)}")
            continue
        found = list(claim.pattern().finditer(text))
        if len(found) != 1:
            lines.append(f"{claim.page}: stands {len(found)} times, not once: {wanted}")
        elif _one_line(found[0].group()) != wanted:
            lines.append(f"{claim.page}: {_one_line(found[0].group())}\n  is now: {wanted}")
            text = _replaced(text, found[0], wanted)
    return text, lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _replaced(text: str, match: re.Match[str], sentence: str) -> str:
    """The text with a sentence replaced, and the lines of its paragraph filled again."""
    starts = [m.end() for m in re.finditer(r"\n\n|\n(?=- )", text[: match.start()])]
    after = re.search(r"\n\n|\n- |\n?\Z", text[match.end() :])
    assert after is not None  # the end of the text, at the latest
    first, last = starts[-1] if starts else 0, match.end() + after.start()
    paragraph = _one_line(text[first : match.start()] + sentence + text[match.end() : last])
    indent = "  " if paragraph.startswith("- ") else ""
    options = {"break_on_hyphens": False, "break_long_words": False}
    return text[:first] + textwrap.fill(paragraph, _WIDTH, subsequent_indent=indent, **options) + text[last:]


def holds(condition: bool, words: str) -> None:
    """What a sentence says in words.

    Raises:
        InputError: the condition is not met.
    """
    if not condition:
        raise InputError(f"it does not hold that {words}")


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def in_words(number: int) -> str:
    """A number up to twelve as a word."""
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def ends(values: Iterable[float]) -> dict[str, float]:
    """The lowest and the highest value."""
    values = list(values)
    return {"low": min(values), "high": max(values)}
