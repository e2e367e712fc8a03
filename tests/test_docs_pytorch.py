"""`docs/from_pytorch.md`: its blocks of JAX are a program that runs, and so are those of PyTorch, where it is there."""

import re
from pathlib import Path

import jax.numpy as jnp
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "from_pytorch.md"


def program(fence):
    blocks = re.findall(rf"^```{re.escape(fence)}\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 7
    return compile("\n".join(blocks), str(PAGE), "exec")


@pytest.mark.slow
def test_the_blocks_of_jax_run(capsys):
    names = {}
    exec(program("python"), names)
    assert [tuple(s) for s in (names["sizes"]["params"][f"Dense_{i}"]["kernel"] for i in (0, 1))] == [
        (20, 64),
        (64, 16),
    ]
    assert int(names["state"].step) == 21  # one step, then 5 epochs of 4
    assert names["score"] > 0.5  # chance is 0.2
    assert jnp.isfinite(names["loss"])
    printed = capsys.readouterr().out
    assert "(4,)" in printed  # steps of an epoch
    assert "(3,)" in printed  # runs under vmap


@pytest.mark.bench
def test_the_blocks_of_pytorch_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(program('python title="PyTorch"'), names)
    assert names["sizes"]["0.weight"] == (64, 20)
