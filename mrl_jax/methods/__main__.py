"""The page of methods and losses, from the registry and the options.

python -m mrl_jax.methods > docs/methods.md
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import jax  # noqa: F401  the methods need it; here an interrupt of its import is one line

from mrl_jax.cli import Parser, exit_process, run_command
from mrl_jax.config import Config, fields_used, shown
from mrl_jax.methods.base import NEEDS, Method, MethodEntry
from mrl_jax.methods.registry import METHODS, entry_of
from mrl_jax.options import LOSSES, OPTIONS, Number

__all__ = ["main", "page"]

_HEAD = """\
# Methods and losses

Written by `python -m mrl_jax.methods > docs/methods.md` from the registry; do not edit it by hand. How to add a method:
[Extending](extending.md)."""

_NEEDS = dict(
    zip(
        NEEDS,
        (
            "the rate or the transition of the noise",
            "all features in the memory of the device",
            "exactly two modalities",
        ),
        strict=True,
    )
)

_LEFT_OUT = """\
## Left out

SEHA, a later method for noisy labels: its published code starts the soft targets of training from the clean labels
(`label_train`), so its figures say little about noisy ones."""

_LOSSES = """\
## Clustering losses of mrl

`--loss NAME --loss-options NAME=NUMBER` puts another loss in the place of the paper's. Equations:
[Method](method.md#other-losses-against-noisy-labels). A loss marked "oracle" uses the transition or the rate of the
injected noise, or the rate that `--assumed-noise` gives."""


def page() -> str:
    """The page as Markdown."""
    methods = "\n\n".join(_method(entry_of(name)) for name in METHODS)
    return f"{_HEAD}\n\n{methods}\n\n{_LEFT_OUT}\n\n{_LOSSES}\n\n{_loss_table()}\n"


def _method(entry: MethodEntry) -> str:
    method = entry.method(Config(method=entry.name))
    what = "features and given labels" if entry.reads_labels else "features, and no labels"
    facts = [
        f"- Source: {entry.source}.",
        f"- Reads: {what}, {_portions(method)}.",
        *([f"- Needs: {', and '.join(_NEEDS[need] for need in sorted(method.needs))}."] if method.needs else []),
        f"- Numbers (`--method-options NAME=NUMBER`): {_numbers(entry.numbers)}.",
    ]
    if entry.cost:
        facts.append(f"- Costs, beside the networks: {entry.cost}." if method.step else f"- Costs: {entry.cost}.")
    if entry.settings:
        own = ", ".join(f"`{name}` {shown(value)}" for name, value in entry.settings.items())
        facts.append(f"- Other defaults: {own}.")
    if "representation" in fields_used(entry.name):
        facts.append(f"- Retrieves by (`--representation`): {entry.representation}.")
    if "epochs" in fields_used(entry.name):
        facts.append(f"- Length (`--epochs`) where none is given: about {entry.steps} steps, at least 10 epochs.")
    if without := sorted(set(OPTIONS) - fields_used(entry.name)):
        facts.append(f"- Settings without effect: {', '.join(f'`{name}`' for name in without)}.")
    facts.append(f"- Example: `{_example(entry)}`.")
    lines = [line for fact in facts for line in _prose(fact, "  ")]
    equation = ["$$", *_equation(entry.equation), "$$"]
    return "\n".join([f"## {entry.name}", "", *_prose(entry.summary), "", *equation, "", *lines])


def _portions(method: Method) -> str:
    """How training reads its instances."""
    if method.fit is not None:
        return "of all training instances, in blocks"
    return "of a batch at a time" + ("; of all instances once before training" if method.prepare else "")


def _example(entry: MethodEntry) -> str:
    """A command that trains with the method, with the default of its first number."""
    name, number = next(iter(entry.numbers.items()), (None, None))
    flag = f" --method-options {name}={number.default:g}" if number is not None and number.default else ""
    return f"python -m mrl_jax.train emoji --method {entry.name}{flag}"


def _prose(text: str, margin: str = "") -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=margin, break_on_hyphens=False, break_long_words=False)


def _equation(text: str) -> list[str]:
    """Lines of an equation, broken only after a +, - or = outside of brackets.

    Before one, Markdown would read it as a list or a heading.
    """
    lines, depth, start = [""], 0, 0
    words = text.split()
    for end in range(1, len(words) + 1):
        depth += sum(words[end - 1].count(c) for c in "([{") - sum(words[end - 1].count(c) for c in ")]}")
        if end == len(words) or (depth == 0 and words[end - 1] in ("+", "-", "=")):
            part, start = " ".join(words[start:end]), end
            if lines[-1] and len(f"{lines[-1]} {part}") > 120:
                lines.append("")
            lines[-1] = f"{lines[-1]} {part}".strip()
    return lines


def _numbers(numbers: Mapping[str, Number]) -> str:
    return "; ".join(f"`{name}` {_number(n)}: {n.help}" for name, n in numbers.items()) or "none"


def _number(n: Number) -> str:
    default = "auto" if n.default is None else f"{n.default:g}"
    return f"({default}, {'from' if n.high == math.inf else 'in'} {_range(n)})"


def _range(n: Number) -> str:
    return f"{n.low:g} on" if n.high == math.inf else f"[{n.low:g}, {n.high:g}]"


def _loss_table() -> str:
    rows = ["| loss | what it is | numbers (default, range) | noise it knows |", "|---|---|---|---|"]
    for name, loss in LOSSES.items():
        rows.append(f"| {name} | {loss.summary} | {_numbers(loss.numbers)} | {'oracle' if loss.needs_noise else ''} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""

    def command() -> None:
        Parser(prog="python -m mrl_jax.methods", description="Print the page of methods and losses.").parse_args(argv)
        print(page(), end="")

    return run_command(command)


if __name__ == "__main__":
    exit_process(main())
