"""What a run needs at the least, no more than it has in fact; absurd sizes are refused before anything is written."""

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, grid, preset, sweep, train
from mrl_jax.config import fields_used
from mrl_jax.leaderboard.__main__ import main as leaderboard_main
from mrl_jax.methods.registry import METHODS, hyperparameters_of, method_of
from mrl_jax.methods.state import Shapes
from mrl_jax.sweep.__main__ import main as sweep_main
from mrl_jax.train import main as train_main
from mrl_jax.training import memory
from mrl_jax.training.memory import check_memory, least_bytes


def config_of(method, hidden, embed):
    sizes = {"hidden_dims": hidden, "embed_dim": embed}
    return preset("custom", method=method, **{k: v for k, v in sizes.items() if k in fields_used(method)})


def kept(config, shapes):
    """Bytes of the state of a run by `jax.eval_shape`, counted apart from the program."""
    method, h = method_of(config), hyperparameters_of(config)
    state = jax.eval_shape(lambda: method.init(h, jax.random.key(0), shapes))
    return [sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(part)) for part in state]


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(METHODS)),
    st.lists(st.integers(1, 4096), min_size=1, max_size=3),
    st.integers(1, 2048),
    st.tuples(st.integers(2, 3000), st.integers(2, 3000)),
)
def test_the_estimate_is_that_of_the_real_shapes(method, hidden, embed, dims):
    config, shapes = config_of(method, hidden, embed), Shapes(dims, 7, 50)
    params, optimizer, _, samples = kept(config, shapes)
    gradients = params if method_of(config).step is not None else 0
    assert sum(least_bytes(config, shapes).values()) == params + gradients + optimizer + samples
    total = params + gradients + optimizer + samples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "device_memory", lambda: float(total))
        check_memory(config, shapes)
        patch.setattr(memory, "device_memory", lambda: total - 1.0)
        with pytest.raises(InputError, match=f"training needs {total:,} bytes or more"):
            check_memory(config, shapes)
        check_memory(config, shapes, parts=2)


@pytest.mark.parametrize("method", ["mrl", "dcca", "cca"])
def test_the_estimate_is_no_more_than_what_a_run_holds(method):
    config, shapes = config_of(method, (12,), 4), Shapes((6, 5), 3, 20)
    state = method_of(config).init(hyperparameters_of(config), jax.random.key(0), shapes)
    held = sum(x.nbytes for x in jax.tree.leaves(state))
    needed = least_bytes(config, shapes)
    assert sum(needed.values()) - needed["gradients"] <= held


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"hidden_dims": (10**6, 10**6)}, r"hidden_dims=… \(now 1000000 1000000\)"),
        ({"embed_dim": 10**7, "hidden_dims": (10**6,)}, r"embed_dim=… \(now 10000000\)"),
    ],
)
def test_models_that_fit_no_device_are_refused_before_anything_is_written(changes, remedy, tmp_path):
    config = toy_config(**changes)
    for run in (train, lambda c, w, **kw: sweep([c], w, **kw)):
        with pytest.raises(InputError, match=rf"training needs [\d,]+ bytes or more \(parameters .*{remedy}"):
            run(config, tmp_path / "run", data=toy_arrays())
    assert not (tmp_path / "run").exists()


def test_more_steps_than_32_bits_count_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"epochs 2147483647: these are .* steps"):
        train(toy_config(epochs=2**31 - 1), tmp_path / "run", data=toy_arrays())
    assert not (tmp_path / "run").exists()


FLAGS = [
    (train_main, ["--hidden-dims", "1000000", "1000000"], "bytes or more"),
    (train_main, ["--embed-dim", str(2**62)], "must be at most 10000000"),
    (train_main, ["--epochs", str(2**70)], "must be at most 2147483647"),
    (train_main, ["--batch-size", str(10**12)], "must be at most"),
    (train_main, ["--batch-size", str(10**9)], "larger than the training split"),
    (train_main, ["--seed", str(2**64)], "must be in"),
    (train_main, ["--learning-rate", "1e99"], "must be at most"),
    (train_main, ["--method", "nirnl", "--method-options", "neighbours=1e12"], r"must be a number in \[1, 1000\]"),
    (train_main, ["--method", "acmr", "--method-options", "margin=1e99"], r"must be at most 3e\+38"),
    (train_main, ["--model-parallel", str(10**20)], "must divide the number of devices"),
    (sweep_main, ["--seeds", str(10**9)], "must be at most 10000"),
    (sweep_main, ["--seeds", "2000", "--betas", *[str(i / 10) for i in range(9)]], "18,000 combinations"),
    (leaderboard_main, ["--seeds", str(10**9)], "must be at most 10000"),
    (leaderboard_main, ["--seeds", "9000"], "36,000 combinations"),
]


@pytest.mark.parametrize(("main", "flags", "message"), FLAGS, ids=[" ".join(f[1][:2]) for f in FLAGS])
def test_absurd_flags_are_one_line_and_leave_nothing(main, flags, message, tmp_path, capsys):
    data, own = save_npz(tmp_path / "toy.npz"), dict(zip(TOY_FLAGS[::2], TOY_FLAGS[1::2], strict=True))
    if "--method" in flags or main is leaderboard_main:
        own = {}
    own = [x for k, v in own.items() if k not in flags for x in (k, v)]
    assert main(["--data-path", str(data), *own, *flags, "--workdir", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: .*{message}.*\n", err)
    assert [p.name for p in tmp_path.iterdir()] == ["toy.npz"]


def test_grids_are_counted_and_not_made():
    with pytest.raises(InputError, match="a sweep takes at most 10,000 runs"):
        grid(toy_config(), seed=range(10**15))


def test_labels_of_absurd_numbers_are_refused():
    for label in (2**40, 10**12, 10**9):
        arrays = toy_arrays()
        arrays["train_labels"] = arrays["train_labels"].astype(np.int64)
        arrays["train_labels"][3] = label
        with pytest.raises(InputError, match="label"):
            train(toy_config(), data=arrays)


def test_shapes_are_found_once_for_runs_that_differ_in_numbers(monkeypatch):
    sizes, calls = Shapes((7, 5), 3, 41), []
    whole = jax.eval_shape
    monkeypatch.setattr(jax, "eval_shape", lambda *given: calls.append(given) or whole(*given))
    base = toy_config(embed_dim=9)
    configs = grid(base, seed=[0, 1], noise_rate=[0.2, 0.6], beta=[0.25, 0.75], learning_rate=[1e-3, 2e-3])
    needed = {str(least_bytes(c, sizes)) for c in configs}
    assert (len(configs), len(needed), len(calls)) == (16, 1, 1)
    for other in (replace(base, embed_dim=10), replace(base, hidden_dims=(17,)), replace(base, loss="elr")):
        assert str(least_bytes(other, sizes)) not in needed
        parameters, optimiser, _, samples = kept(other, sizes)
        assert list(least_bytes(other, sizes).values()) == [parameters, parameters, optimiser, samples]
