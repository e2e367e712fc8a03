"""Studies of labels: quality of the label inference and of the audit, and training on cleaned files."""

import json

import numpy as np
import pytest
from experiment_programs import module_of, rebuilt, run

from mrl_jax import Config, InputError
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow


def test_the_quality_of_labels_is_measured_against_clean_ones(tmp_path):
    flags = ("--smoke", "--sets", "generated-5", "--out", tmp_path)
    run("label_quality", *flags)
    of_set = json.loads((tmp_path / "label_quality.json").read_text())["sets"]["generated-5"]
    assert (of_set["classes"], of_set["instances"], len(of_set["rows"])) == (5, 400, 4 * 2)
    data = module_of("sets").load_set("generated-5", None)
    config = Config(modalities=data.modalities, noise_rate=0.4, noise_scope="instance", seed=of_set["seeds"][1])
    wrong = np.mean(list(train_labels_of(config, data)["wrong_share"].values()))
    (row,) = [
        r
        for r in of_set["rows"]
        if (r["noise_kind"], r["noise_scope"], r["seed"]) == ("symmetric", "instance", config.seed)
    ]
    for method in ("consensus", "neighbours"):
        assert row[method]["true"] == pytest.approx(wrong, abs=1e-4)
        assert row[method]["accuracy"] > 0.8
        assert row[method]["auroc"] > 0.95
    rebuilt("label_quality", tmp_path, "--smoke")
    with pytest.raises(InputError, match="holds generated-5 with other noises or seeds; move it away"):
        run("label_quality", "--sets", "generated-5", "--out", tmp_path)


def test_the_quality_of_the_audit_is_measured_against_clean_ones(tmp_path):
    flags = ("--smoke", "--sets", "generated-5", "--out", tmp_path)
    run("audit_quality", *flags, "--seeds", 2)
    of_set = json.loads((tmp_path / "audit_quality.json").read_text())["sets"]["generated-5"]
    assert [(r["scope"], r["rate"], r["seed"]) for r in of_set["rows"]] == [
        (scope, 0.4, seed) for scope in ("modality", "instance") for seed in (0, 1)
    ]
    data = module_of("sets").load_set("generated-5", None)
    wrong = train_labels_of(Config(modalities=data.modalities, noise_rate=0.4, seed=1), data)["wrong_share"]
    row = of_set["rows"][1]
    assert row["wrong"] == pytest.approx(list(wrong.values()), abs=1e-4)
    assert row["estimated"] == pytest.approx(row["wrong"], abs=0.03)
    assert row["quality"]["consensus"]["auroc"] > row["quality"]["confident"]["auroc"] - 0.002 > 0.9
    rebuilt("audit_quality", tmp_path, "--smoke", "--seeds", 2)
    with pytest.raises(InputError, match="holds generated-5 with other rates or seeds; move it away"):
        run("audit_quality", "--sets", "generated-5", "--out", tmp_path)


def test_cleaned_files_have_the_injected_labels_and_are_trained_on(tmp_path, monkeypatch):
    module, whole = module_of("cleaned_labels"), module_of("cleaned_labels").missing_runs
    smoke = {**module_of("protocol").SMOKE, "epochs": 1}
    data, cell = module_of("sets").load_set("generated-5", None), ("pair", 0.2, 1)
    row, files = module.files_of(data, cell, smoke, tmp_path)
    config = Config(modalities=data.modalities, noise_rate=0.2, noise_scope="instance", seed=1, noisy_validation=True)
    spec = prepare_run(config, prepare_data(config, data))
    for i, m in enumerate(data.modalities):
        splits = files["given"].splits
        np.testing.assert_array_equal(splits["train"].labels[m], spec.labels[i])
        np.testing.assert_array_equal(splits["valid"].labels[m], spec.held_out["valid"][m])
        np.testing.assert_array_equal(splits["test"].labels[m], data.splits["test"].labels[m])
    wrong = np.mean(list(spec.noise["wrong_share"].values()))
    assert row["wrong"]["given"] == pytest.approx(wrong, abs=1e-4)
    assert max(row["wrong"]["relabelled"], row["wrong"]["filtered"]) < wrong / 4
    assert row["keep"] == pytest.approx(1.0 - wrong, abs=0.03)
    assert row["kept"]["filtered"] == pytest.approx(row["keep"], abs=1e-3)
    assert whole(row) == [(name, "MRL") for name in module.VERSIONS] + [("given", "consensus")]
    monkeypatch.setattr(module, "missing_runs", lambda row: [("filtered", "MRL")])
    monkeypatch.setitem(module.METHODS, "MRL", {"method": "cca"})  # compiles nothing
    written = []
    module.train_missing(row, data, smoke, lambda: written.append(json.dumps(row)))
    assert len(written) == 1
    assert ("filtered", "MRL") not in whole(row)
    assert 0.0 < row["map"]["filtered"]["MRL"]["last"] <= 1.0


def test_gains_of_cleaned_labels_by_hand():
    module = module_of("cleaned_labels")
    assert module.gain_text([0.5, 0.7], [0.4, 0.5]) == "0.600 (+0.150 ± 0.071)"
    maps = {v: {"MRL": {"last": 0.5, "best": 0.5}} for v in module.VERSIONS}
    rows = [
        {"scope": "pair", "rate": 0.2, "seed": seed, "map": maps if seed else {v: {} for v in maps}} for seed in (0, 1)
    ]
    assert module.map_table({"set": {"rows": rows}})[1][:6] == ["set", "pair", "0.2", "1", "MRL", "0.500"]


def train_labels_of(config, data):
    """The content of `noise.json`."""
    return prepare_run(config, prepare_data(config, data)).noise


def test_votes_of_neighbours_by_hand():
    """Three directions: the nearest one votes, not the row itself."""
    module = module_of("label_quality")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "NEIGHBOURS", 1)
        weights = module.neighbour_weights([np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])])
    assert weights.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    q = module.neighbour_posterior(weights, np.array([[0, 0, 1], [0, 0, 1]]), 2, rounds=1)
    votes = np.array([[1.005, 0.005], [1.005, 0.005], [1.005, 0.005]])  # + .01 / K
    np.testing.assert_allclose(q, votes / votes.sum(axis=1, keepdims=True))  # a kept share of 1/2 of two classes: 1 / 2
