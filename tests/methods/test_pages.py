"""Pages that programs write are those of the code."""

from pathlib import Path

from mrl_jax.methods.__main__ import main, page
from mrl_jax.methods.registry import METHODS
from mrl_jax.options import LOSSES

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_page_of_methods_is_that_of_the_registry():
    assert PAGE.read_text("utf-8") == page(), "write it anew: python -m mrl_jax.methods > docs/methods.md"


def test_every_method_and_loss_is_on_it(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n## {name}\n" in printed for name in METHODS)
    assert all(f"\n| {name} | " in printed for name in LOSSES)


def test_flags_are_refused(capsys):
    assert main(["--no"]) == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --no")
