"""The programs of the paper's tables and figures, at tiny sizes: what they train, keep, choose and rebuild."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from experiment_programs import HERE, kept, lines_of, module_of, run, stored_config

from mrl_jax import InputError, load_dataset, train
from mrl_jax.files import lock

pytestmark = pytest.mark.slow
PROGRAMS = ("table3", "figure2", "figure3", "figure4", "figure5")


@pytest.fixture(scope="module")
def results(tmp_path_factory, views):
    """All programs, one after the other."""
    out = tmp_path_factory.mktemp("results")
    data = ("--sets", "wikipedia-views", "--views", views)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
        for name in PROGRAMS:
            run(name, "--smoke", "--out", out, *(() if name == "figure3" else data))
    return out


def test_every_program_writes_its_table_its_numbers_and_its_plot(results):
    for name in PROGRAMS:
        for suffix in (".md", ".csv", ".png", ".svg"):
            path = results / f"{name}{suffix}"
            assert path.stat().st_size > 100, path
    assert not list(results.glob("*.part"))


def test_methods_share_their_runs_and_each_has_the_same_number_of_trials(results):
    methods = kept(results)["methods"]
    assert list(methods) == ["CE", "MRL (Lr only)", "MRL (Lc only)", "MRL", "MRL against beta"]
    for name in list(methods)[:4]:
        assert len(methods[name]["trials"]) == 2
        assert [(r["noise_rate"], r["seed"]) for r in methods[name]["runs"]] == [
            (rate, seed) for rate in (0.2, 0.4, 0.6, 0.8) for seed in (0, 1)
        ]
    assert {r["settings"]["loss"] for r in methods["CE"]["runs"]} == {"ce"}
    assert {r["settings"]["beta"] for r in methods["MRL (Lc only)"]["runs"]} == {0.0}
    assert {r["settings"]["beta"] for r in methods["MRL (Lr only)"]["runs"]} == {1.0}
    full = module_of("protocol")
    assert {len(m.trials()) for m in full.ABLATION} == {full.BUDGET}


def test_trials_are_scored_at_their_own_settings(results, views):
    paper = module_of("protocol")
    trial = kept(results)["methods"]["MRL"]["trials"][1]
    config = stored_config(kept(results)["set"])
    for rate, valid in zip((0.2, 0.8), trial["valid"], strict=True):
        alone = replace(config, **trial["settings"], noise_rate=rate, seed=paper.TRIAL_SEED)
        found = train(alone, data=load_dataset(views, paper.VIEWS)).scores["valid"]["best"]["average"]
        assert found == pytest.approx(valid, abs=2e-3)


def test_the_setting_with_the_best_validation_map_is_chosen(results):
    for name, entry in kept(results)["methods"].items():
        if "trials" not in entry:
            continue
        best = max(entry["trials"], key=lambda t: sum(t["valid"]))
        assert entry["chosen"] == best["settings"], name
        for settings in (r["settings"] for r in entry["runs"]):
            assert settings | entry["chosen"] == settings


def test_tables_hold_the_mean_over_seeds_and_the_difference_to_the_paper(results):
    rows = lines_of(results / "table3.csv")
    assert len(rows) == 4 * 2 * 4
    row = next(
        r for r in rows if (r["method"], r["noise_rate"], r["direction"]) == ("CE", "0.6", "image_cnn->text_vec")
    )
    runs = [r for r in kept(results)["methods"]["CE"]["runs"] if r["noise_rate"] == 0.6]
    maps = [r["test"]["best"]["map"]["image_cnn->text_vec"] for r in runs]
    assert float(row["map"]) == pytest.approx(np.mean(maps), abs=1e-5)
    assert float(row["std"]) == pytest.approx(np.std(maps, ddof=1), abs=1e-5)
    named = {"table": "3", "dataset": "wikipedia", "method": "CE", "direction": "image_to_text", "noise_rate": "0.6"}
    cell = next(r for r in lines_of(HERE / "paper" / "published.csv") if r | named == r)
    assert float(row["published"]) == float(cell["map"])
    assert float(row["difference"]) == pytest.approx(float(row["map"]) - float(cell["map"]), abs=1e-5)
    text = (results / "table3.md").read_text()
    assert f"(paper {cell['map']}" in text
    full = module_of("protocol").published(1, "wikipedia", "MRL", 0, 0.6)
    assert f"(paper {full:.3f}" in next(line for line in text.splitlines() if "| MRL |" in line)


def test_figure_three_holds_the_losses(results):
    rows = lines_of(results / "figure3.csv")
    p = np.array([float(r["p"]) for r in rows])
    expected = {"CE(p) = -log p": (-np.log(p), -1 / p), "RC(p) = log(1 - p)": (np.log(1 - p), -1 / (1 - p))}
    for name, both in expected.items():
        for what, values in zip(("value", "slope"), both, strict=True):
            np.testing.assert_allclose([float(r[f"{name}, {what}"]) for r in rows], values, rtol=2e-4)


def test_curves_lie_within_their_panels(results, tmp_path, monkeypatch):
    module, drawn = module_of("learning_curves"), []
    monkeypatch.setattr(module, "save", lambda stem, text, head, lines, figure: drawn.append(figure))
    monkeypatch.setattr(module_of("trained"), "sweep", lambda *_, **__: 1 / 0)
    found = kept(results)
    for r in found["methods"]["MRL"]["runs"]:  # well above those of CE
        r["valid_curves"]["map"] = {name: [0.9 for _ in x] for name, x in r["valid_curves"]["map"].items()}
    (tmp_path / "runs_wikipedia-views.json").write_text(json.dumps(found))
    run("figure5", "--from-results", "--out", tmp_path, "--seeds", 2)
    for axes in drawn[0].axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert all(low <= y <= high for line in axes.lines for y in line.get_ydata())


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_rebuild_table_and_plot_without_training_or_data(results, tmp_path, name, monkeypatch):
    monkeypatch.setattr(module_of("trained"), "sweep", lambda *_, **__: 1 / 0)
    (tmp_path / "runs_wikipedia-views.json").write_text((results / "runs_wikipedia-views.json").read_text())
    more = {"figure3": [], "figure4": ["--seeds", 2, "--smoke"]}.get(name, ["--seeds", 2])
    run(name, "--from-results", "--out", tmp_path, *more)
    for suffix in (".md", ".csv", ".svg"):
        assert (tmp_path / f"{name}{suffix}").read_bytes() == (results / f"{name}{suffix}").read_bytes(), suffix


def test_what_is_missing_is_trained_alone(results, tmp_path, views, monkeypatch):
    module, counted = module_of("trained"), []
    whole = module.sweep

    def counting(configs, *rest, **named):
        counted.append(len(configs))
        return whole(configs, *rest, **named)

    monkeypatch.setattr(module, "sweep", counting)
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    path = tmp_path / "runs_wikipedia-views.json"
    found = kept(results)
    del found["methods"]["CE"]["runs"][3:]
    path.write_text(json.dumps(found))
    run("table3", "--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)
    assert counted == [5]
    assert (tmp_path / "table3.md").read_bytes() == (results / "table3.md").read_bytes()


def test_runs_of_another_configuration_are_not_mixed(results, tmp_path, views, monkeypatch):
    paper = module_of("protocol")
    (tmp_path / "runs_wikipedia-views.json").write_text((results / "runs_wikipedia-views.json").read_text())
    monkeypatch.setitem(paper.SMOKE, "batch_size", 30)
    with pytest.raises(InputError, match=r"holds runs with another config \(batch_size\); move it away"):
        run("table3", "--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)


def test_kept_runs_stay_valid_when_a_field_is_added(results, tmp_path, views, monkeypatch):
    content, path = kept(results), tmp_path / "runs_wikipedia-views.json"
    del content["set"]["config"]["clip_norm"]
    path.write_text(json.dumps(content))
    smoke = module_of("protocol").SMOKE
    monkeypatch.setitem(smoke, "batch_size", 20)
    monkeypatch.setattr(module_of("trained"), "sweep", lambda *_, **__: 1 / 0)
    flags = ("--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)
    run("table3", *flags)
    assert (tmp_path / "table3.md").read_bytes() == (results / "table3.md").read_bytes()
    with monkeypatch.context() as patch:
        patch.setitem(smoke, "clip_norm", 1.0)
        with pytest.raises(InputError, match=r"holds runs with another config \(clip_norm\); move it away"):
            run("table3", *flags)
    content["set"]["config"]["momentum"] = 0.9
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"holds runs with another config \(momentum\); move it away"):
        run("table3", *flags)


def test_trials_of_another_grid_and_programs_at_the_same_time_are_refused(results, tmp_path, views, monkeypatch):
    paper = module_of("protocol")
    (tmp_path / "runs_wikipedia-views.json").write_text((results / "runs_wikipedia-views.json").read_text())
    monkeypatch.setitem(paper.SMOKE, "batch_size", 20)
    flags = ("--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(paper, "TAUS", (0.3, *paper.TAUS[1:]))
        with pytest.raises(InputError, match="holds CE chosen from other trials; move it away"):
            run("table3", *flags)
    with (tmp_path / ".runs_wikipedia-views.json.lock").open("w") as handle:
        lock(handle.fileno(), "never shown")
        with pytest.raises(InputError, match=r"another program trains for .*runs_wikipedia-views\.json; wait"):
            run("defaults", *flags)


def test_every_run_records_its_settings_and_its_machine(results):
    found = kept(results)
    for entry in found["methods"].values():
        for r in entry["runs"]:
            assert set(r["settings"]) == {"loss", "beta", "tau1", "tau2", "schedule"}
            assert set(found["machines"][r["machine"]]) == {"cores", "cpu", "versions", "date", "device"}


def test_missing_results_and_sets_are_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "runs_emoji.json").write_text("{")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "runs_wikipedia-views.json").write_text('{"set": 3, "machines": [], "methods": []}')
    for flags, message in (
        (["--from-results", "--sets", "emoji", "--out", tmp_path], "lacks runs of CE; run without --from-results"),
        (["--sets", "wikipedia-views"], "the set wikipedia-views needs --views FILE"),
        (["--from-results", "--out", tmp_path], "no results"),
        (["--from-results", "--smoke"], "--smoke keeps its results in a temporary folder; name it with --out"),
        (["--seeds", 0], "--seeds 0: must be at least 1"),
        (["--out", tmp_path / "file" / "x"], "cannot be written (Not a directory)"),
        (["--sets", "wikipedia-views", "--views", tmp_path / "none.npz", "--smoke"], "none.npz"),
        (["--from-results", "--sets", "emoji", "--out", tmp_path / "damaged"], "is damaged; restore it"),
        (["--from-results", "--sets", "wikipedia-views", "--out", tmp_path / "odd"], "is damaged; restore it"),
        (["--sets", "emoji", "emoji"], "--sets: emoji is named twice"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            run("table3", *flags)


def test_seeds_that_are_missing_are_named(results):
    with pytest.raises(InputError, match="lacks runs of CE for seeds 2, 3; give a smaller --seeds, or run without"):
        run("table3", "--from-results", "--out", results, "--seeds", 4)
