"""The programs of the paper's tables and figures, at tiny sizes: what they train, keep, choose and rebuild."""

import csv
import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from toy import toy_arrays

from mrl_jax import Config, InputError, grid, load_dataset, preset, train
from mrl_jax.config_formats import DEFAULTS
from mrl_jax.files import lock
from mrl_jax.training.run_spec import prepare_data, prepare_run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parents[2] / "experiments"
PROGRAMS = ("table3", "figure2", "figure3", "figure4", "figure5")
COMMITTED = (
    "table3", "figure2", "figure3", "figure4", "figure5",
    "comparison", "consensus_settings", "defaults", "choose_defaults", "label_quality", "audit_quality",
    "cleaned_labels", "noisy_label_losses", "temperatures",
)  # fmt: skip


def place_of(name):
    """experiments.ROOM.NAME of a program."""
    (path,) = HERE.glob(f"*/{name}.py")
    return f"experiments.{path.parent.name}.{name}"


def module_of(name):
    return importlib.import_module(place_of(name))


def run(name, *flags):
    module_of(name).main([str(flag) for flag in flags])


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "views.npz"
    arrays = {k.replace("sound", "image_cnn").replace("touch", "text_vec"): x for k, x in toy_arrays().items()}
    np.savez(path, **arrays)
    return path


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


def lines_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def kept(results):
    return json.loads((results / "runs_wikipedia-views.json").read_text())


def stored_config(of_set):
    """The configuration in a file of results; "format" is no field."""
    return Config(**{k: v for k, v in of_set["config"].items() if k not in ("data_path", "format")})


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


def test_runs_of_another_configuration_are_not_mixed(results, tmp_path, views, monkeypatch):
    paper = module_of("protocol")
    (tmp_path / "runs_wikipedia-views.json").write_text((results / "runs_wikipedia-views.json").read_text())
    monkeypatch.setitem(paper.SMOKE, "batch_size", 30)
    with pytest.raises(InputError, match=r"holds runs with another config \(batch_size\); move it away"):
        run("table3", "--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)


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


def earlier_runs(path, scores=None):
    """A file of results as format 1 wrote it: no format number; "cosine-hold" is the earlier form."""
    content = json.loads(path.read_text())
    config = content["set"]["config"]
    content["set"]["config"] = {name: value for name, value in config.items() if name in DEFAULTS[1]}
    for r in content["methods"]["paper's recipe"]["runs"]:
        assert r["settings"]["schedule"] == "cosine-hold"
        if scores is not None:
            r["test"]["best"]["average"] = scores
    path.write_text(json.dumps(content))


NOTE = "were measured with the earlier form of `cosine-hold`"


def test_runs_with_the_earlier_schedule_are_read_with_a_note_and_never_mixed(tmp_path, five_classes, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    monkeypatch.setattr(module_of("defaults"), "BETAS", (0.5, 0.9))
    flags = ("--smoke", "--sets", "wikipedia-views", "--views", five_classes, "--out", tmp_path)
    run("defaults", *flags)
    corrected = (tmp_path / "defaults.md").read_text()
    assert NOTE not in corrected
    earlier_runs(tmp_path / "runs_wikipedia-views.json", scores=0.125)
    run("defaults", "--from-results", "--out", tmp_path, "--seeds", 2)
    noted = (tmp_path / "defaults.md").read_text()
    assert f"Rows of the paper's recipe {NOTE}" in noted
    assert "| paper's recipe, β 0.5 | 0.125 ± 0.000 |" in noted
    run("defaults", *flags)  # trains the recipe anew, and only that
    assert (tmp_path / "defaults.md").read_text() == corrected
    content = kept(tmp_path)
    schedules = [r["settings"]["schedule"] for r in content["methods"]["paper's recipe"]["runs"]]
    assert sorted(schedules) == ["cosine-hold"] * 16 + ["cosine-hold-v1"] * 16
    assert content["set"]["config"]["format"] == Config().to_json()["format"]
    rebuilt("defaults", tmp_path, "--seeds", 2)


def test_the_committed_runs_of_the_papers_recipe_have_the_earlier_schedule():
    protocol, store = module_of("protocol"), module_of("store")
    for dataset in protocol.find_sets(["emoji", "wikipedia-views"], None, smoke=False, on_disk=False):
        stored = store.Store(dataset, HERE / "results", train=False)
        for schedule, complete in (("cosine-hold", False), ("cosine-hold-v1", True)):
            config = replace(dataset.config, noise_rate=0.2, beta=0.5, tau1=1.0, tau2=1.0, schedule=schedule)
            if complete:
                assert stored.fixed("paper's recipe", [config])
            else:
                with pytest.raises(InputError, match="lacks runs of paper's recipe"):
                    stored.fixed("paper's recipe", [config])


def test_a_study_with_the_earlier_schedule_is_read_with_a_note_and_never_mixed(tmp_path):
    flags = ("--smoke", "--out", tmp_path, "--sets")
    run("choose_defaults", *flags, "generated-5", "generated-6")
    path = tmp_path / "choose_defaults.json"
    content = json.loads(path.read_text())
    schedules = [s["schedule"] for s in content["sets"]["generated-5"]["settings"]]
    assert "cosine-hold" in schedules
    del content["sets"]["generated-5"]["config"]["format"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="holds generated-5 with other settings; move it away"):
        run("choose_defaults", *flags, "generated-5")
    with pytest.raises(InputError, match="holds generated-5 with an earlier form of a schedule; name the sets"):
        run("choose_defaults", *flags[:-1], "--from-results")
    for name, noted in (("generated-5", True), ("generated-6", False)):
        run("choose_defaults", *flags, name, "--from-results")
        assert (NOTE in (tmp_path / "choose_defaults.md").read_text()) == noted


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


def test_kept_scores_of_a_study_stay_valid_when_a_field_is_added(tmp_path, monkeypatch):
    flags, path = ("--smoke", "--sets", "generated-5", "--out", tmp_path), tmp_path / "temperatures.json"
    run("temperatures", *flags)
    content = json.loads(path.read_text())
    del content["sets"]["generated-5"]["config"]["clip_norm"]
    path.write_text(json.dumps(content))
    monkeypatch.setattr(module_of("trained"), "sweep", lambda *_, **__: 1 / 0)
    run("temperatures", *flags)
    monkeypatch.setitem(module_of("protocol").SMOKE, "clip_norm", 1.0)
    with pytest.raises(InputError, match=r"holds generated-5 with other config \(clip_norm\); move it away"):
        run("temperatures", *flags)


def test_runs_with_the_earlier_schedule_are_noted():
    note = module_of("protocol").hold_note
    assert note("Rows", ["cosine-hold-v1", "cosine"]).startswith(f"\n\nRows {NOTE}, ")
    assert note("Rows", ["cosine-hold"]) == note("Rows", []) == ""


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


def test_bad_input_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.paper.table3", "--sets", "imagenet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown set 'imagenet'; choose from emoji")
    assert len(done.stderr.splitlines()) == 1


def test_a_program_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", place_of("figure3"), "--smoke", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith((tmp_path / "figure3.md").read_text("utf-8").rstrip())


ITS_PARTS = ("benchmark_program", "pytorch_mrl")  # which benchmark_pytorch starts
COMMANDS = sorted(p.stem for p in HERE.glob("*/*.py") if '__name__ == "__main__"' in p.read_text("utf-8"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ITS_PARTS])
def test_every_program_has_help_as_a_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    for variable, value in module_of("machine").KEEP_MEMORY.items():
        monkeypatch.setenv(variable, value)  # else some programs start themselves again with it
    monkeypatch.delitem(sys.modules, place_of(name), raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(place_of(name), run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


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


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        module_of("command_line").run_main(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert ended.value.code == 130
    expected = "error: interrupted; complete results are kept: run the command again to continue\n"
    assert capsys.readouterr().err == expected


BACKEND = [
    ("paper.table3", "--smoke"),
    ("benchmarks.sweep_timings", "--smoke"),
    ("benchmarks.startup_timings", "--smoke"),
    ("benchmarks.benchmark_pytorch", "--smoke"),
    ("benchmarks.benchmark_program", "ours", "smoke"),
    ("benchmarks.gpu_check", "--smoke"),
    ("benchmarks.audit_timings", "--smoke"),
]


@pytest.mark.parametrize("command", BACKEND, ids=lambda command: command[0])
def test_a_backend_that_is_not_there_has_no_traceback(command):
    """Programs that use JAX, in their own process or in others."""
    flags = [sys.executable, "-m", f"experiments.{command[0]}", *command[1:]]
    environment = os.environ | {"JAX_PLATFORMS": "no-such-backend"}
    done = subprocess.run(flags, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: JAX_PLATFORMS=no-such-backend: JAX cannot start this")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["pytorch_mrl"], "these programs are run by python -m experiments.benchmarks.benchmark_pytorch"),
        (["benchmark_program", "best", "smoke"], "torch is not installed; run: pip install torch"),
        (["benchmark_program"], "give KIND (ours, best, compiled, reference, reference kept) and SHAPE (wikipedia, re"),
        (["benchmark_program", "ours", "huge"], "give KIND ("),
    ],
)
def test_the_programs_of_pytorch_run_directly_end_in_one_line(tmp_path, command, message):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}
    flags = [sys.executable, "-m", f"experiments.benchmarks.{command[0]}", *command[1:]]
    done = subprocess.run(flags, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_process_of_a_program_that_fails_ends_it_in_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}
    flags = ["-m", "experiments.benchmarks.retrieval_timings", "--smoke", "--parts", "timings"]
    done = subprocess.run([sys.executable, *flags], capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "not installed here; run: pip install" in done.stderr.splitlines()[-1]


def test_the_time_of_label_inference_is_measured_beside_an_epoch(capsys):
    module = module_of("label_inference_timings")
    run("label_inference_timings", "--smoke", "--size", 300)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"kernel", "posterior", "epoch", "compiled", "peak"}
    assert min(found.values()) > 0
    assert module.share({"kernel": 1.0, "posterior": 2.0, "epoch": 0.1}) == pytest.approx(0.5)  # of 30 epochs


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (130, 130), (1, 1), (-9, 1)])
def test_the_exit_code_of_a_process_is_that_of_the_program(capsys, code, expected):
    def fails():
        raise subprocess.CalledProcessError(code, ["python", "-m", "a.b"], stderr=b"error: its own line\n")

    with pytest.raises(SystemExit) as ended:
        module_of("command_line").run_main(fails)
    assert ended.value.code == expected
    error = capsys.readouterr().err
    assert error.startswith("error: its own line\n")
    more = "" if expected == code and code != 1 else f"error: python -m a.b … failed with exit code {code}; its message"
    assert error.removeprefix("error: its own line\n").startswith(more)
    assert bool(more) == (error != "error: its own line\n")


def test_pages_hold_the_tables_of_the_results():
    module = module_of("insert_results")
    for name in module.PAGES:
        text = (module.ROOT / name).read_text("utf-8")
        assert "<!-- end -->" in text
        assert module.filled(text) == text, f"{name}: run python -m experiments.studies.insert_results"


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_tables_are_those_of_the_committed_runs(tmp_path, name):
    shutil.copytree(HERE / "results", tmp_path, dirs_exist_ok=True)
    run(name, "--from-results", "--out", tmp_path)
    suffixes = [".md", ".csv"]
    drawn = (HERE / "results" / f"{name}.svg").read_text("utf-8")
    if f"Matplotlib v{matplotlib.__version__}," in drawn:  # another draws other paths
        suffixes.append(".svg")
    for suffix in suffixes:
        path = HERE / "results" / f"{name}{suffix}"
        assert (tmp_path / path.name).read_text("utf-8") == path.read_text("utf-8"), path.name


def test_the_committed_benchmark_table_is_that_of_its_numbers(capsys):
    run("benchmark_pytorch", "--from-results")
    assert capsys.readouterr().out == (HERE / "results" / "benchmark_pytorch.md").read_text("utf-8")


def test_the_benchmark_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"No module named 'torch'\); run: pip install torch \(for all"):
        run("benchmark_pytorch", "--smoke")


@pytest.mark.parametrize(
    ("name", "modules", "packages"),
    [
        ("training_timings", ["torch"], "torch"),
        ("search_timings", ["faiss"], "faiss-cpu"),
        ("retrieval_timings", ["torch", "torchmetrics", "pytrec_eval"], "torch torchmetrics pytrec-eval-terrier"),
        ("benchmark_pytorch", ["torch"], "torch"),
    ],
)
def test_a_missing_package_is_one_line_and_stored_results_need_none(tmp_path, name, modules, packages):
    code = f"""
import runpy, sys
for module in {modules}:
    sys.modules[module] = None
sys.argv = ["{name}", *sys.argv[1:]]
runpy.run_module("experiments.benchmarks.{name}", run_name="__main__")
"""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}

    def started(*flags):
        command = [sys.executable, "-c", code, *flags]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent)

    done = started("--smoke")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    named = re.search(r"run: pip install (.+) \(for all programs: pip install -e '\.\[bench\]'\)", done.stderr)[1]
    assert set(packages.split()) <= set(named.split())  # others may be missing, too
    done = started("--from-results" if name == "benchmark_pytorch" else "--markdown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("|", "<"))


def test_a_package_that_a_program_misses_later_is_one_line_too(capsys):
    def program():
        import no_such_package  # noqa: F401

    with pytest.raises(SystemExit) as caught:
        module_of("command_line").run_main(program)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: this program compares with no_such_package, not installed here; ")


def rebuilt(name, out, *flags):
    """The files of a program are the same from its results."""
    before = {p.name: p.read_bytes() for p in out.glob(f"{name}.*")}
    assert {".md", ".csv", ".png", ".svg"} <= {Path(p).suffix for p in before}
    run(name, "--from-results", "--out", out, *flags)
    assert {p.name: p.read_bytes() for p in out.glob(f"{name}.*")} == before


def test_losses_are_compared(tmp_path, views, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    chosen = ("--losses", "gce", "small-loss")
    run("noisy_label_losses", "--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path, *chosen)
    rows = lines_of(tmp_path / "noisy_label_losses.csv")
    assert len(rows) == (1 + 2 * 2) * 4 * 2
    text = (tmp_path / "noisy_label_losses.md").read_text()
    assert [line.split(" | ")[0] for line in text.splitlines()[4:]] == [
        "| defaults", "| gce", "| small-loss (oracle noise)",
        "| gce + contrastive", "| small-loss + contrastive (oracle noise)",
    ]  # fmt: skip
    rebuilt("noisy_label_losses", tmp_path, *chosen, "--seeds", 2)


@pytest.fixture(scope="module")
def five_classes(tmp_path_factory):
    """Views of five classes, for which the temperature from the number of classes is not 1."""
    arrays, rng = {}, np.random.default_rng(0)
    for split, n in {"train": 60, "valid": 25, "test": 25}.items():
        labels = np.arange(n) % 5
        arrays[f"{split}_labels"] = labels
        for name in ("image_cnn", "text_vec"):
            arrays[f"{split}_{name}"] = (3 * np.eye(5)[labels] + rng.normal(size=(n, 5))).astype(np.float32)
    path = tmp_path_factory.mktemp("five") / "views.npz"
    np.savez(path, **arrays)
    return path


def test_defaults_stand_beside_the_papers_recipe_at_its_best_beta(tmp_path, five_classes, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    run("defaults", "--smoke", "--sets", "wikipedia-views", "--views", five_classes, "--out", tmp_path)
    rows = lines_of(tmp_path / "defaults.csv")
    betas = module_of("defaults").BETAS
    assert len(rows) == (2 + len(betas)) * 4 * 2
    methods = kept(tmp_path)["methods"]
    ours, theirs = (
        {tuple(r["settings"].values()) for r in methods[name]["runs"]} for name in ("defaults", "paper's recipe")
    )
    (only,) = ours
    assert only == ("rc", 0.9, pytest.approx(1.25 / np.log(4)), pytest.approx(1.25 / np.log(4)), "cosine")
    assert theirs == {("rc", beta, 1.0, 1.0, "cosine-hold") for beta in betas}
    at = {}
    for r in rows:
        if r["noise_rate"] == "0.2":
            at.setdefault(r["row"], []).append(float(r["map"]))
    means = {name: np.mean(values) for name, values in at.items()}
    ahead = means.pop("defaults") - max(value for name, value in means.items() if name != "cross-entropy")
    last = (tmp_path / "defaults.md").read_text().splitlines()[-1]
    assert float(last.split("|")[2].split("[")[0]) == pytest.approx(ahead, abs=6e-4)
    rebuilt("defaults", tmp_path, "--seeds", 2)


def test_temperatures_are_compared(tmp_path, monkeypatch):
    flags = ("--smoke", "--sets", "generated-5", "generated-10", "--out", tmp_path)
    run("temperatures", *flags)
    ten = json.loads((tmp_path / "temperatures.json").read_text())["sets"]["generated-10"]
    assert [s["tau1"] for s in ten["settings"][:4]] == [0.1, 1.0, 0.5057, 1.0]  # one temperature by two names
    assert ten["valid"][1] == ten["valid"][3]
    found = json.loads((tmp_path / "temperatures.json").read_text())["sets"]["generated-5"]
    assert (found["classes"], [s["tau1"] for s in found["settings"][2:4]]) == (5, [0.9017, 4.1642])
    assert np.shape(found["valid"]) == (2 * 4, 2, 1)
    config = replace(stored_config(found), **found["settings"][5], noise_rate=0.6, seed=found["seeds"][0])
    data = module_of("sets").load_set("generated-5", None)
    alone = train(config, data=data).scores["valid"]["best"]["average"]
    assert alone == pytest.approx(found["valid"][5][1][0], abs=2e-3)
    rebuilt("temperatures", tmp_path, "--smoke")
    for flags_read, message in (
        ([], "holds generated-5 with other settings; give --smoke"),
        (["--smoke", "--sets", "generated-5", "generated-9"], "lacks generated-9; run without"),
    ):
        with pytest.raises(InputError, match=message):
            run("temperatures", "--from-results", "--out", tmp_path, *flags_read)
    with (tmp_path / ".temperatures.json.lock").open("w") as handle:
        lock(handle.fileno(), "never shown")
        with pytest.raises(InputError, match=r"another program trains for .*temperatures\.json; wait"):
            run("temperatures", *flags)
    monkeypatch.setattr(module_of("temperatures"), "BETA", 0.5)
    with pytest.raises(InputError, match="holds generated-5 with other settings; move it away"):
        run("temperatures", *flags)


def test_temperatures_reach_the_probability_that_they_are_named_after():
    module = module_of("temperatures")
    assert module.temperature_of(10, module.OF_TEN) == pytest.approx(1.0)
    assert [round(module.temperature_of(k, module.OF_TEN), 2) for k in (100, 200)] == [0.29, 0.24]
    assert module.temperature_of(31, 0.5) == pytest.approx(module.auto_temperature(31))
    for classes, tau in ((100, module.temperature_of(100, 0.4)), (10, module.auto_temperature(10))):
        cosines = np.full(classes, -1 / (classes - 1))
        cosines[0] = 1.0
        p = np.exp(cosines / tau) / np.exp(cosines / tau).sum()
        assert p[0] == pytest.approx(0.4 if classes == 100 else 0.5)


def test_the_study_of_the_defaults_ranks_every_setting(tmp_path):
    run("choose_defaults", "--smoke", "--sets", "generated-5", "generated-6", "--out", tmp_path)
    module = module_of("choose_defaults")
    assert len(module.combinations()) == 108
    rows = lines_of(tmp_path / "choose_defaults.csv")
    assert len(rows) == 3 + 1  # every 40th of 108, and the defaults
    mean = {tuple(r.values())[:4]: np.mean([float(x) for x in list(r.values())[4:]]) for r in rows}
    text = (tmp_path / "choose_defaults.md").read_text()
    order = [tuple(line.strip("| ").split(" | ")[1:5]) for line in text.split("\n\n")[0].splitlines()[2:]]
    assert order == sorted(mean, key=lambda s: -mean[s])
    assert "of 4 (defaults) | 0.9 | 1.0 | 1.0 | cosine |" in text
    of_set = {tuple(r.values())[:4]: float(r["generated-6 0.2"]) + float(r["generated-6 0.8"]) for r in rows}
    place = sorted(of_set, key=lambda s: -of_set[s]).index(("0.9", "1.0", "1.0", "cosine")) + 1
    line = next(x for x in text.splitlines() if x.startswith("| generated-6 |"))
    assert line.endswith(
        f" | {max(of_set.values()) / 2:.3f} | {of_set['0.9', '1.0', '1.0', 'cosine'] / 2:.3f} | {place} of 4 |"
    )
    rebuilt("choose_defaults", tmp_path, "--smoke")


@pytest.mark.filterwarnings("ignore:.*samples but no:mrl_jax.errors.DatasetWarning")  # small classes of the subgroups
def test_sets_of_the_studies(small_generated_sets, monkeypatch):
    module = module_of("sets")
    for name, message in (("wikipedia-views", "needs --views FILE"), ("generated-4", "K at least 5")):
        with pytest.raises(InputError, match=message):
            module.load_set(name, None)
    data = module._subgroups()
    assert data.num_classes == 31
    whole = module.load_set("emoji", None)
    picture = data.splits["test"].features["image"][0]
    assert (whole.splits["test"].features["image"] == picture).all(axis=1).any()
    without = module.load_set("emoji-no-flags", None)
    assert without.class_names == whole.class_names[:8]
    assert "Flags" not in without.class_names
    for name, split in whole.splits.items():
        kept = split.labels["text"] != whole.class_names.index("Flags")
        assert kept.sum() < len(kept)
        for m in whole.modalities:
            np.testing.assert_array_equal(without.splits[name].features[m], split.features[m][kept])
            np.testing.assert_array_equal(without.splits[name].labels[m], split.labels[m][kept])
    other = module.load_set("emoji-split-2", None)
    assert other.digest() == load_dataset("emoji", split_seed=2).digest() != whole.digest()
    for unknown in ("emoji-split-0", "emoji-split-10", "emoji-split-"):
        with pytest.raises(InputError, match="unknown set"):
            module.load_set(unknown, None)
    epochs = [module.epochs_of(s) for s in ("emoji", "emoji-31", "emoji-no-flags", "emoji-split-2", "generated-30")]
    assert epochs == [20] * 4 + [30]
    made = module.load_set("generated-30", None)
    assert (made.num_classes, len(made.splits["train"])) == (30, 400)
    assert made.digest() == module._generated(30).digest()
    monkeypatch.setattr(module, "GENERATED", small_generated_sets)
    sizes = {
        (name, k): len(split)
        for k in (30, 300)
        for name, split in module.load_set(f"generated-{k}", None).splits.items()
    }
    assert [sizes[name, k] for k in (30, 300) for name in ("train", "valid", "test")] == [
        2000,
        500,
        500,
        2400,
        600,
        600,
    ]


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


@pytest.fixture(scope="module")
def comparison(tmp_path_factory, views):
    out = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
        data = ("--sets", "wikipedia-views", "--views", views)
        run("comparison", "--smoke", *data, "--conditions", *CONDITIONS, "--out", out)
    return out


CONDITIONS = ("default length", "one label per pair")


def test_the_comparison_has_the_scores_of_train(comparison, views, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    rows, module = lines_of(comparison / "comparison.csv"), module_of("compared_rows")
    assert len(rows) == sum(len(module.CONDITIONS[name].rows) for name in CONDITIONS) * 3 * 4 * 2
    of = {(r["condition"], r["row"], r["epoch"], r["noise_rate"], r["seed"]): float(r["map"]) for r in rows}
    small = module_of("protocol").SMOKE
    for row, changes in (("MRL", {}), ("consensus", {"method": "consensus"})):
        config = preset("custom", modalities=("image_cnn", "text_vec"), noise_rate=0.6, seed=1, **changes, **small)
        test = train(config, data=load_dataset(views, config.modalities)).scores["test"]
        for epoch, which in (("clean", "best"), ("last", "last")):
            found = of["default length", row, epoch, "0.6", "1"]
            assert found == pytest.approx(test[which]["average"], abs=6e-5)
    pair = replace(config, noise_scope="instance")
    best = train(pair, data=load_dataset(views, config.modalities)).scores["test"]["best"]["average"]
    assert of["one label per pair", "consensus", "clean", "0.6", "1"] == pytest.approx(best, abs=6e-5)


def test_the_comparison_is_rebuilt_without_the_data_from_what_is_complete(comparison, tmp_path, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    flags = ("--smoke", "--conditions", *CONDITIONS)
    rebuilt("comparison", comparison, *flags)
    head = (comparison / "headline.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in head[2:]] == list(module_of("comparison").HEADLINE)
    lines = (comparison / "comparison_wikipedia-views.jsonl").read_text().splitlines(keepends=True)
    paper = [line for line in lines if json.loads(line)["config"].get("schedule") == "cosine-hold"]
    (tmp_path / "comparison_wikipedia-views.jsonl").write_text("".join(x for x in lines if x not in paper[1:]))
    run("comparison", "--from-results", "--out", tmp_path, *flags)
    rows = set(module_of("compared_rows").CONDITIONS["default length"].rows)
    assert {r["row"] for r in lines_of(tmp_path / "comparison.csv")} == rows - {
        "paper's recipe",
        "paper's recipe, by embedding and posterior",
    }
    with pytest.raises(InputError, match="no results in"):
        run("comparison", "--from-results", "--out", tmp_path / "other", *flags)
    with pytest.raises(InputError, match="--conditions '10 epochs': choose from 'default length'"):
        run("comparison", "--smoke", "--conditions", "10 epochs")


def test_the_best_of_mrl_is_the_row_with_the_best_validation_map(comparison, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    args = Namespace(out=comparison, from_results=True, smoke=True, seeds=2)
    rows = module_of("compared_rows").runs_of("wikipedia-views", args, ["default length"])["default length"]
    plain = {"MRL": "MRL", "paper's recipe": "paper's recipe"}
    both = {f"{name}, by embedding and posterior": name for name in plain}
    of_mrl = [(row, "embedding") for row in plain] + [(row, "both") for row in (*both, "MRL with dropout and mixup")]
    for noise in range(4):
        best, difference = module_of("comparison").best_of_mrl(rows, noise)
        valid, test = {}, {}
        for row, kind in of_mrl:
            scores = [t.record["scores"][kind] for t in rows[row][noise]]
            valid[row] = np.mean([max(s["valid_clean"]) for s in scores])
            test[row] = np.array([s["test"][np.argmax(s["valid_clean"])] for s in scores])
        assert valid[best] == max(valid.values())
        ours = np.array([t.record["scores"]["both"]["test"][-1] for t in rows["consensus"][noise]])
        apart = ours - test[best]
        assert difference.mean == pytest.approx(apart.mean())
        assert difference.error == pytest.approx(apart.std(ddof=1) / 2**0.5)


def test_other_sets_have_the_scores_of_the_comparison(tmp_path, views, monkeypatch):
    module = module_of("other_sets")
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 40)
    monkeypatch.setattr(module, "SPLITS", ("generated-5", "generated-6"))
    run("other_sets", "--smoke", "--sets", "wikipedia-4views", "--views", views, "--out", tmp_path)
    rows = lines_of(tmp_path / "other_sets.csv")
    assert len(rows) == 4 * 4 * (2 * 2 + 2)  # rows, rates, seeds of both scopes and splits
    of = {(r["set"], r["labels_per"], r["row"], r["noise_rate"], r["seed"]): float(r["map"]) for r in rows}
    config = preset("custom", noise_rate=0.6, noise_scope="instance", seed=1, **module_of("protocol").SMOKE)
    best = train(config, data=load_dataset(views)).scores["test"]["best"]["average"]
    assert of["wikipedia-4views", "pair", "MRL", "0.6", "1"] == pytest.approx(best, abs=6e-5)
    split = replace(config, noise_scope="modality", seed=0, method="consensus")
    last = train(split, data=module_of("sets").load_set("generated-6", None)).scores["test"]["last"]["average"]
    assert of["splits of emoji", "modality", "consensus", "0.6", "1"] == pytest.approx(last, abs=6e-5)
    table = (tmp_path / "other_sets.md").read_text()
    assert "### wikipedia-4views, one label per pair, 2 seeds" in table
    assert "### emoji, one label per modality, 2 splits" in table
    rebuilt("other_sets", tmp_path, "--smoke")
    with pytest.raises(InputError, match="no results in"):
        run("other_sets", "--from-results", "--smoke", "--out", tmp_path / "none")


def test_ways_to_retrieve_are_those_of_evaluation(tmp_path, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "epochs", 4)
    run("representations", "--smoke", "--sets", "generated-5", "generated-6", "--out", tmp_path)
    module = module_of("representations")
    rows = lines_of(tmp_path / "representations.csv")
    assert len(rows) == 2 * 4 * len(module.TRIED)
    data = module_of("sets").load_set("generated-6", None)
    at = {(r["set"], r["method"], r["noise_rate"], r["sharpness_and_weight"]): r for r in rows}
    for representation, way in (("embedding", module.EMBEDDING), ("both", module.DEFAULTS), ("posterior", "2, 0")):
        settings = {"method": "consensus", "noise_rate": 0.8, "seed": 1000, "representation": representation}
        result = train(preset("custom", **settings, **module_of("protocol").SMOKE), data=data)
        found = at["generated-6", "consensus", "0.8", way]
        for split in ("valid", "test"):
            assert float(found[split]) == pytest.approx(result.scores[split]["last"]["average"], abs=6e-5)
    rebuilt("representations", tmp_path)
    with pytest.raises(InputError, match="lacks generated-7; run without"):
        run("representations", "--from-results", "--sets", "generated-7", "--out", tmp_path)
    with pytest.raises(InputError, match="no results in"):
        run("representations", "--from-results", "--out", tmp_path / "none")
    monkeypatch.setattr(module, "TRIAL_SEED", 1)
    with pytest.raises(InputError, match="holds generated-5 with other configs; move it away"):
        run("representations", "--smoke", "--sets", "generated-5", "--out", tmp_path)


def test_a_sharper_posterior_by_hand():
    """(1/5, 4/5) has the square root (1/3, 2/3); the product of two rows adds w times that of z."""
    module = module_of("representations")
    (row,) = module.rows_of(np.array([[0.2, 0.8]], np.float32), np.array([[0.6, 0.8]], np.float32), 1.0, 0.25)
    np.testing.assert_allclose(row, [1 / 3, 2 / 3, 0.3, 0.4], atol=1e-6)


def test_the_study_of_consensus_keeps_and_rebuilds_its_runs(tmp_path, views, monkeypatch):
    monkeypatch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
    run("consensus_settings", "--smoke", "--sets", "wikipedia-views", "--views", views, "--out", tmp_path)
    rows = lines_of(tmp_path / "consensus_settings.csv")
    assert [(r["method"], r["dropout"], r["mixup"], r["steps"]) for r in rows[::2]] == [
        ("mrl", "0.0", "0.0", "450"), ("consensus", "0.35", "0.0", "450"), ("consensus", "0.5", "0.0", "900"),
        ("consensus", "0.35", "0.0", "3600"), ("consensus", "0.35", "0.5", "1800"),
        ("consensus", "0.35", "0.5", "3600"),
    ]  # fmt: skip
    rebuilt("consensus_settings", tmp_path, "--smoke")
