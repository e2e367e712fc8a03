"""Tables 1 and 2: trials of every method, what is chosen, trained once and shown."""

import csv
import re
import statistics
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks import audit_timings, method_timings, record_timings, serve_timings
from experiments.paper import field_tables, table1, table2
from experiments.shared.field import FIELD, config_of
from experiments.shared.protocol import BUDGET, RATES, TRIAL_SEED, published
from experiments.shared.timings import read_numbers
from experiments.studies import field_ranking
from mrl_jax import Config, InputError
from mrl_jax.config import with_settings
from mrl_jax.methods.registry import METHODS, entry_of

METHODS_TRIED = ("pls", "mvda", "consensus")


@pytest.mark.parametrize("method", FIELD)
def test_every_method_has_as_many_trials_within_its_ranges(method):
    configs = [config_of(Config(), method, setting, 500) for setting in FIELD[method].trials]
    assert len(set(configs)) == BUDGET
    assert all(config.method == method for config in configs)
    if "batch_size" in entry_of(method).settings:
        assert configs[0].batch_size == min(entry_of(method).settings["batch_size"], 500)
    row = FIELD[method].published
    assert row is None or published(1, "wikipedia", row, 0, 0.2) is not None


def test_every_method_of_the_package_and_of_the_paper_is_compared():
    assert set(METHODS) - set(FIELD) == {"cca"}  # which is mcca of two modalities
    assert sum(compared.published is not None for compared in FIELD.values()) == 15


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    table2.main(["--smoke", "--sets", "generated-5", "--methods", *METHODS_TRIED, "--out", str(folder)])
    return folder


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_table_has_the_setting_that_validation_chooses(out):
    args = Namespace(out=out, smoke=True, seeds=2, from_results=True, views=None)
    field = field_tables.field_of("generated-5", args, METHODS_TRIED)
    assert list(field.runs) == list(METHODS_TRIED)
    for method, tried in field.trials.items():
        kinds = ["embedding", "both"] if method == "consensus" else ["embedding"]
        valid = [[statistics.mean(t.score("kept", k, "valid_clean") for t in at) for at in tried] for k in kinds]
        kind, setting = np.unravel_index(np.argmax(valid), np.shape(valid))
        assert field.chosen[method] == (FIELD[method].trials[setting], kinds[kind])
        plain = FIELD[method].trials[np.argmax(valid[0])]
        assert {t.config for at in field.plain[method] for t in at} == {
            with_settings(config_of(t.config, method, plain, 2000), noise_rate=t.config.noise_rate)
            for at in field.runs[method]
            for t in at
        }
        assert {t.config.seed for at in tried for t in at} == {TRIAL_SEED}
        rates = [0.0] if not entry_of(method).reads_labels else [RATES[0], RATES[-1]]
        assert [t.config.noise_rate for t in tried[0]] == rates
        assert {t.config.seed for at in field.runs[method] for t in at} == {0, 1}
        precision = field.precision(method)
        assert precision.shape[:2] == (4, 2)
        np.testing.assert_allclose(precision.mean(axis=2), field.maps(method), atol=6e-4)  # kept in thousandths
    assert len({t.key for at in field.runs["pls"] for t in at}) == 2  # labels are not read
    rows = {(r["method"], r["noise_rate"], r["seed"]): float(r["map"]) for r in lines_of(out / "table2.csv")}
    assert rows["consensus", "0.8", "1"] == pytest.approx(field.maps("consensus")[3][1])


@pytest.mark.slow
def test_it_is_rebuilt_without_training(out, tmp_path, monkeypatch):
    for name in ("table2.md", "table2.csv", "table2.png"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    monkeypatch.setattr("experiments.shared.traces._train", lambda *_: 1 / 0)
    flags = ["--smoke", "--sets", "generated-5", "--out", str(out), "--from-results"]
    table2.main([*flags, "--methods", *METHODS_TRIED])
    for name in ("table2.md", "table2.csv", "table2.png"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    with pytest.raises(InputError, match="no results"):
        table1.main(["--smoke", "--out", str(out), "--from-results"])


@pytest.mark.slow
def test_the_kept_runs_are_ranked(out, capsys):
    args = Namespace(out=out, smoke=True, seeds=2, from_results=True, views=None)
    field = field_tables.field_of("generated-5", args, METHODS_TRIED)
    maps = np.array([field.precision(method).mean(axis=2) for method in METHODS_TRIED])  # [M, R, S]
    worse = (maps[None] > maps[:, None]).sum(axis=1) + ((maps[None] == maps[:, None]).sum(axis=1) - 1) / 2
    ranks = dict(zip(METHODS_TRIED, (1 + worse).mean(axis=(1, 2)), strict=True))
    field_ranking.main(["--smoke", "--out", str(out)])
    lines = lines_of(out / "field_ranking.csv")
    assert {line["method"]: float(line["average_rank"]) for line in lines} == pytest.approx(ranks, abs=1e-4)
    assert [line["method"] for line in lines] == sorted(ranks, key=lambda method: ranks[method])
    for line in lines:
        method = line["method"]
        mine, ours = (float(maps[METHODS_TRIED.index(m)].mean()) for m in (method, "consensus"))
        assert line["below_consensus"] == ("" if method == "consensus" else f"{ours - mine:.4f}")
    table = (out / "field_ranking_2.md").read_text("utf-8")
    assert capsys.readouterr().out == table
    for method in METHODS_TRIED:
        row = next(row for row in table.splitlines() if f"| {method} |" in row)
        assert f"{statistics.mean(map(statistics.mean, field.maps(method))):.3f} | {ranks[method]:.2f}" in row
    with Image.open(out / "field_ranking_generated-5.png") as picture:
        assert np.asarray(picture).std() > 10  # something is drawn


def test_published_cells_stand_in_brackets():
    assert field_tables.published_mean(1, "wikipedia-views", "pls", 0.2) == pytest.approx((0.337 + 0.320) / 2)
    assert field_tables.published_mean(1, "wikipedia-views", "nirnl", 0.2) is None
    assert field_tables.published_mean(1, "emoji", "pls", 0.2) is None


def test_the_committed_times_are_those_of_their_numbers():
    for module in (method_timings, audit_timings, record_timings, serve_timings):
        numbers = read_numbers(module.RESULTS_FILE)
        text = module.RESULTS_FILE.with_suffix(".md").read_text("utf-8")
        assert text == module.table(numbers) + "\n"
    numbers = read_numbers(method_timings.RESULTS_FILE)
    assert {*numbers["epochs"], *numbers["closed_forms"]} == set(FIELD)


def test_unknown_methods_are_refused(tmp_path):
    with pytest.raises(InputError, match=re.escape("--methods 'nonsense': choose from mcca")):
        table1.main(["--methods", "nonsense", "--out", str(tmp_path)])
