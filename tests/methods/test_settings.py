"""A setting either has an effect on a method or is refused; saved settings are those with an effect."""

import csv
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import Config, InputError, evaluate, grid, preset, sweep, train
from mrl_jax.config import fields_used, with_settings
from mrl_jax.methods.base import MethodEntry
from mrl_jax.methods.gradient import gradient_method
from mrl_jax.methods.linear.cca import CCA
from mrl_jax.methods.mrl import Hyperparameters
from mrl_jax.methods.registry import METHODS, entry_of, hyperparameters_of, register
from mrl_jax.methods.state import Shapes, State
from mrl_jax.options import COMMON_FIELDS, OPTIONS
from mrl_jax.search.searcher import Query, Searcher
from mrl_jax.train import main

# Another value of every setting of a method than its default.
OTHER = {
    "loss": "gce",
    "loss_options": ("q=0.5",),
    "assumed_noise": 0.3,
    "beta": 0.5,
    "tau1": 0.4,
    "tau2": 0.4,
    "self_similarity": True,
    "contrastive_scale": "program",
    "epochs": 7,
    "batch_size": 9,
    "learning_rate": 0.3,
    "schedule": "constant",
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "hidden_dims": (3,),
    "embed_dim": 3,
    "initializer": "lecun_normal",
    "precision": "bfloat16",
    "init_from": "/x/run",
    "representation": "posterior",
}
NEEDS = {"loss_options": {"loss": "gce"}, "assumed_noise": {"loss": "forward"}}  # which settings they belong to
SETTINGS = [(method, name) for method in METHODS for name in OTHER]


def test_every_setting_is_tried():
    assert set(OTHER) == set(OPTIONS) - COMMON_FIELDS


@pytest.mark.parametrize(("method", "name"), [pair for pair in SETTINGS if pair[1] not in fields_used(pair[0])])
def test_a_setting_without_effect_is_refused(method, name):
    message = f"{name} .* has no effect on the method {method}; leave it out"
    with pytest.raises(InputError, match=message):
        Config(method=method, **{name: OTHER[name]})
    with pytest.raises(InputError, match=message):
        with_settings(Config(method=method), **{name: OTHER[name]})
    if (default := OPTIONS[name].default) is not None:
        with pytest.raises(InputError, match=message):
            preset("custom", method=method, **{name: default})  # given, though it is the default
    with pytest.raises(InputError, match=f"{name} has no effect on the method {method}; leave it out"):
        grid(Config(method=method), **{name: [OTHER[name]]})
    assert name not in Config(method=method).to_json()


@pytest.mark.parametrize(("method", "name"), [pair for pair in SETTINGS if pair[1] in fields_used(pair[0])])
def test_a_setting_with_an_effect_reaches_the_method(method, name):
    base = Config(method=method, **NEEDS.get(name, {}))
    changed = with_settings(base, **{name: OTHER[name]})
    assert Config.from_json(changed.to_json()) == changed
    if name == "assumed_noise":  # it reaches the labels' oracle noise, if the method needs that
        assert "noise" in entry_of(method).method(base).needs
        return
    if name == "representation":  # the scores read it: tests/run/test_representation.py
        assert entry_of(method).method(base).assign is not None
        return
    if name == "init_from":  # the trainer reads it: tests/training/test_longer_and_further.py
        assert entry_of(method).method(base).step is not None
        return
    structure = [jax.tree.structure(hyperparameters_of(c)) for c in (base, changed)]
    leaves = [jax.tree.leaves(hyperparameters_of(c)) for c in (base, changed)]
    methods = [entry_of(method).method(c) for c in (base, changed)]
    assert structure[0] != structure[1] or leaves[0] != leaves[1] or methods[0] is not methods[1]


def test_the_noise_rate_is_assumed_only_where_a_loss_uses_it():
    with pytest.raises(InputError, match=r"assumed_noise 0.3 has no effect on the loss rc; leave it out"):
        Config(assumed_noise=0.3)
    assert [c.assumed_noise for c in grid(Config(loss="forward"), assumed_noise=[0.1, 0.2])] == [0.1, 0.2]


def test_presets_and_recipes_keep_to_the_settings_of_the_method():
    config = preset("wikipedia", method="cca")
    assert (config.epochs, config.hidden_dims) == (Config.epochs, Config.hidden_dims)
    assert config.noise_rate == 0.6
    with pytest.raises(InputError, match=r"recipe paper sets beta, tau1, tau2, schedule; beta has no effect on .* cca"):
        preset("wikipedia", method="cca", recipe="paper")


def test_settings_of_another_method_return_to_their_defaults():
    config = with_settings(Config(beta=0.5, hidden_dims=(4,), embed_dim=7, noise_rate=0.4), method="cca")
    assert config == Config(method="cca", embed_dim=7, noise_rate=0.4)
    with pytest.raises(InputError, match=r"beta 0.3 has no effect"):
        with_settings(config, beta=0.3)


def test_files_that_hold_settings_without_effect_are_read():
    """Format 2 wrote all fields before it left those out."""
    config = Config(method="cca", embed_dim=7)
    assert Config.from_json(config.to_json() | {"beta": 0.5, "tau1": 1.0, "hidden_dims": [4]}) == config


def test_a_grid_over_methods_varies_what_each_uses():
    configs = grid(toy_config(beta=0.5), method=["mrl", "cca"], learning_rate=[1e-3], seed=[0, 1])
    assert [(c.method, c.learning_rate, c.beta, c.seed) for c in configs] == [
        *[("mrl", 1e-3, 0.5, seed) for seed in (0, 1)],
        *[("cca", Config.learning_rate, Config.beta, seed) for seed in (0, 1)],
    ]
    with pytest.raises(InputError, match="beta has no effect on the method cca; give it one value"):
        grid(Config(), method=["mrl", "cca"], beta=[0.1, 0.2])


@pytest.mark.slow
def test_tables_of_a_sweep_show_the_settings_that_have_an_effect():
    configs = [toy_config(loss="ce", beta=0.5, epochs=1), toy_config(method="cca", method_options="ridge=0.1")]
    found = sweep(configs, data=toy_arrays())
    assert list(found.runs) == [
        "ce-noise0-beta0.5-tauauto-lr0.01-seed0",
        "cca-noise0-seed0",
    ]
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(found.csv()))}
    ours, theirs = rows.values()
    assert (ours["loss"], ours["beta"], ours["method"]) == ("ce", "0.5", "mrl")
    assert (theirs["loss"], theirs["beta"], theirs["learning_rate"], theirs["method"]) == ("", "", "", "cca")
    alone = next(csv.DictReader(io.StringIO(sweep(configs[1:], data=toy_arrays()).csv())))
    assert {"method", "noise_rate", "seed"} < set(alone)
    assert {"loss", "beta", "tau1"}.isdisjoint(alone)


def test_an_entry_that_uses_what_does_not_exist_is_refused():
    register(CCA._replace(name="typo", uses=frozenset({"embed_dims"})))
    try:
        with pytest.raises(InputError, match="method 'typo' uses the setting 'embed_dims', which does not exist"):
            Config(method="typo", embed_dim=3)
    finally:
        METHODS.pop("typo")


@pytest.mark.slow
def test_a_method_that_needs_the_noise_is_evaluated_and_searched_without(tmp_path):
    """Outside of training its hyperparameters are made without the oracle noise."""
    given = []

    def hyperparameters(config, noise):
        given.append(noise)
        return CCA.hyperparameters(config, None)

    bare = CCA.method(Config(method="cca"))
    needing = bare._replace(needs=bare.needs | {"noise"})
    register(CCA._replace(name="needing", method=lambda config: needing, hyperparameters=hyperparameters))
    try:
        arrays = toy_arrays()
        result = train(Config(method="needing", noise_rate=0.4, assumed_noise=None), tmp_path / "run", data=arrays)
        assert any(noise is not None and np.allclose(noise.wrong_share, 0.4, atol=0.2) for noise in given)
        assert evaluate(tmp_path / "run", data=arrays)["map"] == result.scores["test"]["best"]["map"]
        assert Searcher(tmp_path / "run", data=arrays).answer(Query("row", "sound:test:0"))["results"]
    finally:
        METHODS.pop("needing")


def test_weight_decay_acts_on_matrices_whatever_holds_them():
    """MRL names its own matrices; by default it is every leaf of two or more axes."""

    def init_params(h, key, shapes):
        return (jnp.ones((3, 2)), jnp.ones(2))

    def objective(h, params, batch, epoch, axis_name):
        return 0.0 * sum(p.sum() for p in params), ({}, None)

    method = gradient_method("toy", init_params=init_params, embed=lambda *_: None, objective=objective)
    h = Hyperparameters(weight_decay=0.5, learning_rate=0.1, schedule="constant")
    state = method.init(h, jax.random.key(0), Shapes((3,), 2))
    assert isinstance(state, State)
    matrix, bias = method.step(h, state, None, 0)[0].params
    np.testing.assert_allclose(matrix, 0.95, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1.0)


def test_entries_have_defaults():
    minimal = MethodEntry("x", "", "", "", *([lambda *_: None] * 4))
    assert minimal.axes == ("method", "noise_rate", "seed")
    assert minimal.stem(Config()) == "mrl"


@pytest.mark.slow
def test_a_run_resumes_with_its_own_method(tmp_path, capsys):
    data, folder = str(save_npz(tmp_path / "toy.npz")), str(tmp_path / "run")
    assert main(["--data-path", data, "--workdir", folder, *TOY_FLAGS]) == 0
    assert main(["--resume", "--data-path", data, "--workdir", folder, "--method", "cca"]) == 2
    assert "method cca was given, but the run in" in capsys.readouterr().err
