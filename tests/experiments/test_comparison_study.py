"""The comparison of methods, on its own sets and on others: scores of `train`, rebuilt from what is kept."""

import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
from experiment_programs import lines_of, module_of, rebuilt, run

from mrl_jax import InputError, load_dataset, preset, train

pytestmark = pytest.mark.slow


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
    shown = [row.removesuffix(", by embedding and posterior") for row in module_of("comparison").HEADLINE]
    assert [line.split("|")[1].strip() for line in head[2:]] == shown
    kinds = {module_of("compared_rows").ROWS[row].representation for row in module_of("comparison").HEADLINE}
    assert kinds == {"both"}  # the names of the rows do not say it, the page does
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
