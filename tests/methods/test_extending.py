"""`docs/extending.md` as a program: its methods train, resume, are swept and searched like those of the registry."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from toy import assert_same_checkpoints, toy_arrays, toy_config

from mrl_jax import InputError, evaluate, grid, load_run, sweep, train
from mrl_jax.config import fields_used
from mrl_jax.methods.registry import METHODS, register
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.training.prepare import prepared_samples
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
NAMES = ("ridge", "recursive", "pairs", "agreeing", "central")


@pytest.fixture(scope="module")
def page():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    names = {}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    yield names
    for name in NAMES:
        METHODS.pop(name)


def config_of(name, **more):
    return toy_config(method=name, noise_rate=0.4, **more)


def test_the_example_learns(page):
    assert page["result"].scores["test"]["best"]["average"] > 0.7
    assert page["result"].scores["test"]["best"]["accuracy"]["sound"] > 0.7
    assert "method: ridge, ridge 10, seed 0" in page["result"].table()


@pytest.mark.parametrize("name", NAMES)
def test_its_methods_resume_to_the_same_bits_and_are_evaluated_and_searched(page, name, tmp_path):
    arrays = toy_arrays()
    whole = train(config_of(name), tmp_path / "whole", data=arrays)
    train(config_of(name), tmp_path / "again", data=arrays)
    for file in ("result.json", "model.npz"):
        (tmp_path / "again" / file).unlink()
    epochs = sorted(int(p.name) for p in (tmp_path / "again" / "checkpoints").iterdir())
    for epoch in epochs[1:]:
        (tmp_path / "again" / "checkpoints" / str(epoch)).rename(tmp_path / f"{name}-{epoch}")
    resumed = train(config_of(name), tmp_path / "again", data=arrays, resume=True)
    assert resumed.metrics == whole.metrics
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "again")
    assert evaluate(tmp_path / "whole", data=arrays)["map"] == whole.scores["test"]["best"]["map"]
    searcher = Searcher(tmp_path / "whole", data=arrays)
    assert len(searcher.answer(Query("row", "sound:test:0"))["results"]) == 10


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parallel", ["jit", "shard_map", "pmap"])
def test_its_methods_give_the_numbers_of_one_device_on_eight(page, name, parallel):
    uneven = {"batch_size": 13} if "batch_size" in fields_used(name) else {}
    one = train(config_of(name, **uneven), data=toy_arrays())
    eight = train(config_of(name, **uneven), data=toy_arrays(), parallel=parallel)
    for a, b in zip(eight.metrics, one.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)
        assert a["valid"]["map"] == pytest.approx(b["valid"]["map"], abs=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_of_them_gives_the_numbers_of_each_alone(page, name):
    configs = grid(config_of(name), seed=[0, 1])
    found = sweep(configs, data=toy_arrays(), way="together")
    for config, outcome in zip(configs, found.runs.values(), strict=True):
        alone = train(config, data=toy_arrays())
        assert outcome.scores.get("trained_together", 1) == (1 if name == "ridge" else 2)
        expected = alone.scores["test"]["last"]["average"]
        assert outcome.scores["test"]["last"]["average"] == pytest.approx(expected, abs=0.02)


def test_the_step_of_its_own_ends_where_the_closed_form_does(page):
    arrays = toy_arrays() | {"train_touch_mask": np.arange(60) % 7 != 3}
    fitted = train(config_of("ridge"), data=arrays)
    added = train(config_of("recursive", epochs=1, batch_size=13), data=arrays)
    streamed = train(config_of("recursive", epochs=1, batch_size=13, stream="on"), data=arrays)
    for other in (added, streamed):
        for a, b in zip(other.run.model.params.encoders, fitted.run.model.params.encoders, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert added.metrics[0]["train"] == streamed.metrics[0]["train"]


def test_features_are_prepared_as_the_noise_has_moved_them(page):
    data = prepare_data(config_of("central"), toy_arrays())
    for kind, kept in (("pair-mismatch", set()), ("symmetric", {"weights"})):
        spec = prepare_run(config_of("central", noise_kind=kind), data)
        assert (spec.partners is not None) == (kind == "pair-mismatch")
        orders = [np.arange(60)] * 2 if spec.partners is None else spec.partners
        moved = [np.asarray(x)[order] for x, order in zip(data.features, orders, strict=True)]
        expected = 1.0 / (1.0 + sum((x**2).mean(axis=1) for x in moved))
        np.testing.assert_allclose(prepared_samples(spec), expected, rtol=1e-6)
        assert set(data.shared) == kept


def test_methods_that_read_all_samples_at_once_are_not_streamed_whatever_they_declare(page):
    entry = METHODS["agreeing"]
    bare = entry.method(toy_config(method="agreeing"))._replace(needs=frozenset())
    METHODS["agreeing"] = entry._replace(method=lambda config: bare)
    with pytest.raises(InputError, match=r"method agreeing reads all training samples at once.*--stream off"):
        train(config_of("agreeing", stream="on"), data=toy_arrays())
    METHODS["agreeing"] = entry


def test_a_closed_form_streams_and_must_return_the_parameters_of_init(page):
    one, streamed = (train(config_of("ridge", stream=s), data=toy_arrays()) for s in ("off", "on"))
    for a, b in zip(*(r.run.model.params.encoders for r in (one, streamed)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    entry, method = page["ENTRY"], page["method"]()
    narrow = method._replace(fit=lambda *args: page["Weights"]((np.zeros((3, 2)), np.zeros((4, 5)))))
    METHODS["ridge"] = entry._replace(method=lambda config: narrow)
    try:
        with pytest.raises(ValueError, match="method ridge: fit returned parameters of the shapes"):
            train(config_of("ridge"), data=toy_arrays())
    finally:
        METHODS["ridge"] = entry


def test_a_name_is_registered_once(page):
    with pytest.raises(InputError, match="method 'ridge' is registered already; choose another name"):
        register(page["ENTRY"]._replace(summary="another"))
    register(page["ENTRY"])  # the same again is fine, as when a notebook's cell runs twice


def test_mistakes_in_a_method_are_named(page):
    entry, method = page["ENTRY"], page["method"]()
    broken = {
        "must have either fit or step": method._replace(fit=None),
        "needs 'two', which is unknown; known: noise": method._replace(needs=frozenset({"two"})),
    }
    try:
        for message, wrong in broken.items():
            METHODS["ridge"] = entry._replace(method=lambda config, wrong=wrong: wrong)
            with pytest.raises(InputError, match=message):
                train(config_of("ridge"), data=toy_arrays())
        METHODS["ridge"] = entry._replace(name="other")
        with pytest.raises(InputError, match="its module must hold a MethodEntry of this name"):
            train(config_of("ridge"), data=toy_arrays())
    finally:
        METHODS["ridge"] = entry


def test_parameters_named_like_the_preprocessing_are_kept_apart(page, tmp_path):
    """An encoder with a `mean` and a `scale` of its own is read back as it was written."""

    class Affine(NamedTuple):
        mean: Any
        scale: Any
        weight: Any

    entry, method = page["ENTRY"], page["method"]()

    def fit(*args):
        affine = tuple(Affine(np.full(w.shape[0], 0.5), 2.0, w) for w in method.fit(*args).encoders)
        return page["Weights"](affine)

    def init(h, key, shapes):
        state = method.init(h, key, shapes)
        affine = tuple(Affine(jnp.zeros(w.shape[0]), jnp.float32(1.0), w) for w in state.params.encoders)
        return state._replace(params=page["Weights"](affine))

    def embed(h, params, modality, x):
        mean, scale, weight = params.encoders[modality]
        return method.embed(h, page["Weights"]((weight,)), 0, (x - jnp.broadcast_to(mean, x.shape)) / scale)

    other = method._replace(init=init, fit=fit, embed=embed)
    METHODS["ridge"] = entry._replace(method=lambda config: other)
    try:
        result = train(config_of("ridge"), tmp_path / "run", data=toy_arrays())
        read = load_run(tmp_path / "run").model
        for encoder in read.params.encoders:
            np.testing.assert_array_equal(encoder.mean, np.full(len(encoder.mean), 0.5))
        assert not np.allclose(read.preprocess["sound"]["mean"], 0.5)
        assert evaluate(tmp_path / "run", data=toy_arrays())["map"] == result.scores["test"]["best"]["map"]
    finally:
        METHODS["ridge"] = entry
