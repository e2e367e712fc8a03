"""Committed tables, plots and pages are those of the committed runs."""

import shutil
from dataclasses import replace

import matplotlib
import pytest
from experiment_programs import HERE, module_of, run

from mrl_jax import InputError

pytestmark = pytest.mark.slow
COMMITTED = (
    "table1", "table3", "figure2", "figure3", "figure4", "figure5",
    "comparison", "consensus_settings", "defaults", "choose_defaults", "label_quality", "audit_quality",
    "cleaned_labels", "noisy_label_losses", "temperatures",
)  # fmt: skip


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
