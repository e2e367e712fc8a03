"""Traces: the scores of a run after its epochs are those of `train`, and are kept."""

import json
from dataclasses import replace

import numpy as np
import pytest
from toy import toy_arrays, toy_config

from experiments.shared.traces import Trace, facts_of, kept_traces, read_traces, scored_epochs, trace
from mrl_jax import InputError, load_dataset, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data():
    return load_dataset(toy_arrays())


@pytest.fixture(scope="module")
def configs():
    base = toy_config(noise_rate=0.4, epochs=5)
    return [replace(base, seed=0), replace(base, seed=1), toy_config(method="consensus", noise_rate=0.4, epochs=5)]


@pytest.fixture(scope="module")
def file(tmp_path_factory, data, configs):
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    trace(configs, data, path, instances=True)
    return path


def test_a_trace_has_the_scores_of_train(file, data, configs):
    for config, found in zip(configs, trace(configs, data, file), strict=True):
        kind = "both" if config.method == "consensus" else "embedding"
        result = train(config, data=data)
        curve = [line["valid"]["average"] for line in result.metrics]
        np.testing.assert_allclose(found.record["scores"][kind]["valid_clean"], curve, atol=6e-5)  # four digits
        for chosen_by, which in (("clean", "best"), ("last", "last")):
            scores = result.scores["test"][which]
            assert found.score(chosen_by, kind) == pytest.approx(scores["average"], abs=6e-5)
            assert found.epochs[found.point(chosen_by, kind)] == scores["epoch"]
            assert found.of_instances(chosen_by, kind).mean() == pytest.approx(scores["average"], abs=6e-4)


def test_a_trace_of_an_earlier_version_has_the_instances_of_its_default_representation(file, configs):
    for found in read_traces(file):
        kind, other = ("both", "embedding") if found.config.method == "consensus" else ("embedding", "both")
        assert found.of_instances("last", other) is not None
        assert found.of_instances("last", "posterior") is None
        earlier = Trace({**found.record, "instances": found.record["instances"][kind]})
        for chosen_by in ("clean", "last", "kept"):
            np.testing.assert_array_equal(earlier.of_instances(chosen_by, kind), found.of_instances(chosen_by, kind))
        assert earlier.of_instances("last", other) is None


def test_noisy_validation_chooses_the_epoch_that_a_run_with_it_chooses(file, data, configs):
    for config, found in zip(configs, trace(configs, data, file), strict=True):
        kind = "both" if config.method == "consensus" else "embedding"
        result = train(replace(config, noisy_validation=True), data=data)
        curve = [line["valid"]["average"] for line in result.metrics]
        np.testing.assert_allclose(found.record["scores"][kind]["valid_noisy"], curve, atol=6e-5)
        assert found.score("noisy", kind) == pytest.approx(result.scores["test"]["best"]["average"], abs=6e-5)


def test_runs_are_trained_once_and_damage_is_named(file, data, configs, tmp_path):
    before = file.read_text()
    trace(configs[:1], data, file)
    assert file.read_text() == before
    facts = read_traces(file)[0].record["data"]
    assert facts == facts_of(data)
    found = kept_traces(
        [configs[1], replace(configs[0], seed=7), configs[0]], facts, read_traces(file)
    )  # without the data
    assert [None if t is None else t.config.seed for t in found] == [1, None, 0]
    again = tmp_path / "again.jsonl"
    again.write_text(before + '{"config": 3}\n')
    with pytest.raises(InputError, match=r"again\.jsonl, line 4: no trace of a run"):
        read_traces(again)
    record = json.loads(before.splitlines()[0])
    assert set(record["config"]) >= {"format", "noise_rate", "epochs"}


def test_a_long_run_is_scored_at_some_epochs():
    assert scored_epochs(4, 50) == [1, 2, 3, 4]
    assert scored_epochs(100, 50) == list(range(2, 101, 2))
    assert scored_epochs(101, 50)[-2:] == [99, 101]
