"""Pages that programs write are those of the code."""

from pathlib import Path

from mrl_jax.methods.__main__ import _equation, main, page
from mrl_jax.methods.registry import METHODS, entry_of
from mrl_jax.options import LOSSES

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_of_methods_is_that_of_the_registry():
    assert PAGE.read_text("utf-8") == page(), "write it anew: python -m mrl_jax.methods > docs/methods.md"


def test_every_method_and_loss_is_on_it(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n## {name}\n" in printed for name in METHODS)
    assert all(f"\n| {name} | " in printed for name in LOSSES)


def test_every_method_says_what_it_costs_and_how_it_is_called():
    text = page()
    for name in METHODS:
        assert entry_of(name).cost
        assert f"- Example: `python -m mrl_jax.train emoji --method {name}" in text
    assert "--method-options ridge=0.001`" in text
    assert "- Other defaults: `batch_size` 800, `embed_dim` 64." in text


def test_equations_break_at_operators_and_keep_their_words():
    for name in METHODS:
        equation = entry_of(name).equation
        lines = _equation(equation)
        assert " ".join(lines).split() == equation.split()
        assert all(len(line) <= 120 and line[0] not in "+-=" for line in lines)
        assert all(line.endswith((" +", " -", " =")) for line in lines[:-1]), lines
    long = "f(" + "x + " * 20 + "x)"
    assert _equation(f"{long} = {long}") == [f"{long} =", long]


def test_flags_are_refused(capsys):
    assert main(["--no"]) == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --no")
