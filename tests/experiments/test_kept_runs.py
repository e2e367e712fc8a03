"""Runs that a program keeps: after a kill, and with a configuration of an older version."""

import importlib
from dataclasses import replace

import pytest
from experiment_programs import NOTE, module_of

from mrl_jax import Config, InputError, grid
from mrl_jax.config_formats import DEFAULTS

pytestmark = pytest.mark.slow


def test_a_killed_program_goes_on_with_the_runs_under_way(views, tmp_path, monkeypatch):
    paper, module = module_of("protocol"), module_of("store")
    (dataset,) = paper.find_sets(["wikipedia-views"], str(views), smoke=True)
    configs = grid(replace(dataset.config, tau1=1.0, tau2=1.0, batch_size=20), loss=("rc", "ce"), noise_rate=(0.2, 0.6))
    expected = module.Store(dataset, tmp_path, smoke=True).fixed("MRL", configs)  # in memory
    (tmp_path / "runs_wikipedia-views.json").unlink()
    sweeping = importlib.import_module("mrl_jax.sweep.sweep")
    counted, whole = [], sweeping._train_group  # a group for each loss

    def killed_after(groups):
        def train_group(group, shown, stop):
            if len(counted) == groups:
                raise KeyboardInterrupt
            counted.append(len(group))
            whole(group, shown, stop)

        return train_group

    for groups, hindered in ((0, None), (1, None), (4, module), (4, None)):
        with monkeypatch.context() as patch:
            patch.setattr(sweeping, "_train_group", killed_after(groups))
            if hindered:
                patch.setattr(hindered, "write_results", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            store = module.Store(dataset, tmp_path)
            if groups < 4 or hindered:
                with pytest.raises(KeyboardInterrupt):
                    store.fixed("MRL", configs)
                assert list((tmp_path / ".runs_wikipedia-views").iterdir())
            else:
                found = store.fixed("MRL", configs)
    assert counted == [2, 2]
    assert not (tmp_path / ".runs_wikipedia-views").exists()
    for a, b in zip(found, expected, strict=True):
        assert a["test"]["best"]["map"] == pytest.approx(b["test"]["best"]["map"], abs=1e-4)
        assert a["valid_curves"]["map"].keys() == b["valid_curves"]["map"].keys()
        assert (a["noise_rate"], a["seed"]) == (b["noise_rate"], b["seed"])


def test_a_config_is_the_same_when_fields_were_added_with_their_defaults():
    same_config = module_of("store").same_config
    now = Config(hidden_dims=(8,), loss="ce").to_json()
    stored = {name: value for name, value in now.items() if name not in ("clip_norm", "loss_options", "embed_dim")}
    assert same_config(stored, now, "file") == []
    older = {name: value for name, value in stored.items() if name in DEFAULTS[1]}
    assert same_config(older | {"format": 1}, now, "file") == []
    changed = now | {"embed_dim": 64, "loss_options": ["q=0.5"]}
    assert same_config(stored, changed, "file") == ["loss_options", "embed_dim"]
    assert same_config(stored | {"batch_size": 7, "momentum": 0.9}, now, "file") == ["batch_size", "momentum"]
    assert same_config({}, Config(epochs=30).to_json(), "file") == []  # the default of format 1
    assert same_config({}, now | {"epochs": 30}, "file") == ["loss", "hidden_dims"]


def test_a_config_of_an_older_format_is_compared_as_that_format_means_it():
    same_config = module_of("store").same_config
    now = Config(schedule="cosine-hold").to_json()
    older = {name: value for name, value in now.items() if name in DEFAULTS[1]}
    assert same_config(older, now, "file") == ["schedule"]
    assert same_config(older, Config(schedule="cosine-hold-v1").to_json(), "file") == []
    with pytest.raises(InputError, match="file was written by a newer version"):
        same_config(now | {"format": 99}, now, "file")


def test_runs_with_the_earlier_schedule_are_noted():
    note = module_of("protocol").hold_note
    assert note("Rows", ["cosine-hold-v1", "cosine"]).startswith(f"\n\nRows {NOTE}, ")
    assert note("Rows", ["cosine-hold"]) == note("Rows", []) == ""
