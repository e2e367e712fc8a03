"""Studies of settings at tiny sizes: losses, defaults, temperatures, sets, representations, consensus."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from experiment_programs import NOTE, kept, lines_of, module_of, rebuilt, run, stored_config

from mrl_jax import Config, InputError, load_dataset, preset, train
from mrl_jax.config_formats import DEFAULTS
from mrl_jax.files import lock

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="module")
def defaults(tmp_path_factory, five_classes):
    """The folder of the study of the defaults with three betas, and the flags that made it."""
    out = tmp_path_factory.mktemp("defaults")
    flags = ("--smoke", "--sets", "wikipedia-views", "--views", five_classes, "--out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module_of("protocol").SMOKE, "batch_size", 20)
        patch.setattr(module_of("defaults"), "BETAS", (0.5, 0.8, 0.95))
        run("defaults", *flags, out)
        yield out, flags


def test_defaults_stand_beside_the_papers_recipe_at_its_best_beta(defaults):
    out, _ = defaults
    rows = lines_of(out / "defaults.csv")
    betas = module_of("defaults").BETAS
    assert len(rows) == (2 + len(betas)) * 4 * 2
    methods = kept(out)["methods"]
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
    last = (out / "defaults.md").read_text().splitlines()[-1]
    assert float(last.split("|")[2].split("[")[0]) == pytest.approx(ahead, abs=6e-4)
    rebuilt("defaults", out, "--seeds", 2)


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


def test_runs_with_the_earlier_schedule_are_read_with_a_note_and_never_mixed(defaults, tmp_path):
    shutil.copytree(defaults[0], tmp_path, dirs_exist_ok=True)
    corrected = (tmp_path / "defaults.md").read_text()
    assert NOTE not in corrected
    earlier_runs(tmp_path / "runs_wikipedia-views.json", scores=0.125)
    run("defaults", "--from-results", "--out", tmp_path, "--seeds", 2)
    noted = (tmp_path / "defaults.md").read_text()
    assert f"Rows of the paper's recipe {NOTE}" in noted
    assert "| paper's recipe, β 0.5 | 0.125 ± 0.000 |" in noted
    run("defaults", *defaults[1], tmp_path)  # trains the recipe anew, and only that
    assert (tmp_path / "defaults.md").read_text() == corrected
    content = kept(tmp_path)
    schedules = [r["settings"]["schedule"] for r in content["methods"]["paper's recipe"]["runs"]]
    assert sorted(schedules) == ["cosine-hold"] * 24 + ["cosine-hold-v1"] * 24
    assert content["set"]["config"]["format"] == Config().to_json()["format"]
    rebuilt("defaults", tmp_path, "--seeds", 2)


@pytest.fixture(scope="module")
def choice(tmp_path_factory):
    """The folder of the study that chooses defaults."""
    out = tmp_path_factory.mktemp("choice")
    run("choose_defaults", "--smoke", "--sets", "generated-5", "generated-6", "--out", out)
    return out


def test_the_study_of_the_defaults_ranks_every_setting(choice):
    module = module_of("choose_defaults")
    assert len(module.combinations()) == 108
    rows = lines_of(choice / "choose_defaults.csv")
    assert len(rows) == 3 + 1  # every 40th of 108, and the defaults
    mean = {tuple(r.values())[:4]: np.mean([float(x) for x in list(r.values())[4:]]) for r in rows}
    text = (choice / "choose_defaults.md").read_text()
    order = [tuple(line.strip("| ").split(" | ")[1:5]) for line in text.split("\n\n")[0].splitlines()[2:]]
    assert order == sorted(mean, key=lambda s: -mean[s])
    assert "of 4 (defaults) | 0.9 | 1.0 | 1.0 | cosine |" in text
    of_set = {tuple(r.values())[:4]: float(r["generated-6 0.2"]) + float(r["generated-6 0.8"]) for r in rows}
    place = sorted(of_set, key=lambda s: -of_set[s]).index(("0.9", "1.0", "1.0", "cosine")) + 1
    line = next(x for x in text.splitlines() if x.startswith("| generated-6 |"))
    assert line.endswith(
        f" | {max(of_set.values()) / 2:.3f} | {of_set['0.9', '1.0', '1.0', 'cosine'] / 2:.3f} | {place} of 4 |"
    )
    rebuilt("choose_defaults", choice, "--smoke")


def test_a_study_with_the_earlier_schedule_is_read_with_a_note_and_never_mixed(choice, tmp_path):
    shutil.copytree(choice, tmp_path, dirs_exist_ok=True)
    flags = ("--smoke", "--out", tmp_path, "--sets")
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


@pytest.fixture(scope="module")
def temperatures(tmp_path_factory):
    """The folder of the study of temperatures."""
    out = tmp_path_factory.mktemp("temperatures")
    run("temperatures", "--smoke", "--sets", "generated-5", "generated-10", "--out", out)
    return out


def test_temperatures_are_compared(temperatures, monkeypatch):
    flags = ("--smoke", "--sets", "generated-5", "generated-10", "--out", temperatures)
    ten = json.loads((temperatures / "temperatures.json").read_text())["sets"]["generated-10"]
    assert [s["tau1"] for s in ten["settings"][:4]] == [0.1, 1.0, 0.5057, 1.0]  # one temperature by two names
    assert ten["valid"][1] == ten["valid"][3]
    found = json.loads((temperatures / "temperatures.json").read_text())["sets"]["generated-5"]
    assert (found["classes"], [s["tau1"] for s in found["settings"][2:4]]) == (5, [0.9017, 4.1642])
    assert np.shape(found["valid"]) == (2 * 4, 2, 1)
    config = replace(stored_config(found), **found["settings"][5], noise_rate=0.6, seed=found["seeds"][0])
    data = module_of("sets").load_set("generated-5", None)
    alone = train(config, data=data).scores["valid"]["best"]["average"]
    assert alone == pytest.approx(found["valid"][5][1][0], abs=2e-3)
    rebuilt("temperatures", temperatures, "--smoke")
    for flags_read, message in (
        ([], "holds generated-5 with other settings; give --smoke"),
        (["--smoke", "--sets", "generated-5", "generated-9"], "lacks generated-9; run without"),
    ):
        with pytest.raises(InputError, match=message):
            run("temperatures", "--from-results", "--out", temperatures, *flags_read)
    with (temperatures / ".temperatures.json.lock").open("w") as handle:
        lock(handle.fileno(), "never shown")
        with pytest.raises(InputError, match=r"another program trains for .*temperatures\.json; wait"):
            run("temperatures", *flags)
    monkeypatch.setattr(module_of("temperatures"), "BETA", 0.5)
    with pytest.raises(InputError, match="holds generated-5 with other settings; move it away"):
        run("temperatures", *flags)


def test_kept_scores_of_a_study_stay_valid_when_a_field_is_added(temperatures, tmp_path, monkeypatch):
    shutil.copytree(temperatures, tmp_path, dirs_exist_ok=True)
    flags, path = ("--smoke", "--sets", "generated-5", "--out", tmp_path), tmp_path / "temperatures.json"
    content = json.loads(path.read_text())
    del content["sets"]["generated-5"]["config"]["clip_norm"]
    path.write_text(json.dumps(content))
    monkeypatch.setattr(module_of("trained"), "sweep", lambda *_, **__: 1 / 0)
    run("temperatures", *flags)
    monkeypatch.setitem(module_of("protocol").SMOKE, "clip_norm", 1.0)
    with pytest.raises(InputError, match=r"holds generated-5 with other config \(clip_norm\); move it away"):
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
    small = module.load_set("emoji-900", None)
    place = {x.tobytes(): i for i, x in enumerate(whole.splits["train"].features["text"])}
    rows = [place[x.tobytes()] for x in small.splits["train"].features["text"]]
    assert len(set(rows)) == 900
    np.testing.assert_array_equal(small.splits["train"].labels["text"], whole.splits["train"].labels["text"][rows])
    np.testing.assert_array_equal(small.splits["test"].features["text"], whole.splits["test"].features["text"])
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
        ("mrl", "0.0", "0.0", "225"), ("consensus", "0.2", "0.0", "450"), ("consensus", "0.35", "0.0", "900"),
        ("consensus", "0.5", "0.0", "1800"), ("consensus", "0.0", "0.5", "900"),
        ("consensus", "0.35", "0.5", "900"), ("consensus", "0.35", "0.5", "1800"),
    ]  # fmt: skip
    rebuilt("consensus_settings", tmp_path, "--smoke")
