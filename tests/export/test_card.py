"""The model card: as the library of the hub reads it, with the numbers of the run."""

import json

import pytest
from huggingface_hub import ModelCard
from toy import toy_arrays, toy_config
from untrained import untrained

from mrl_jax import InputError, evaluate, export, train
from mrl_jax.export.card import _origin, _plain
from mrl_jax.methods.registry import entry_of
from mrl_jax.report.sections.reproduce import training_command
from mrl_jax.run.folder import RunFolder


@pytest.fixture(scope="module")
def card(toy_run, base):
    (path,) = export(toy_run, base / "README.md", "card")
    return path.read_text("utf-8")


def test_the_hub_reads_its_header(card, toy_run):
    data = ModelCard(card).data
    assert data.library_name == "mrl_jax"
    assert data.tags == ["cross-modal-retrieval", "noisy-labels", "jax", "mrl", "sound", "touch"]
    assert (data.license, data.pipeline_tag) == ("unknown", "feature-extraction")
    scores = evaluate(toy_run)
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert found == {
        "mAP sound->touch": round(scores["map"]["sound->touch"], 4),
        "mAP touch->sound": round(scores["map"]["touch->sound"], 4),
        "mAP average": round(scores["average"], 4),
    }
    assert {r.dataset_split for r in data.eval_results} == {"test"}


def test_it_tells_scores_noise_and_versions(card, toy_run):
    scores, result = evaluate(toy_run), json.loads((toy_run / "result.json").read_text())
    wrong = json.loads((toy_run / "noise.json").read_text())["wrong_share_overall"]
    average, (low, high) = scores["average"], scores["average_ci"]
    assert f"| average |  | {average:.3f} | {low:.3f} to {high:.3f} |" in card
    assert f"{wrong:.0%} of the training labels are wrong" in card
    assert f"jax {result['versions']['jax']}" in card
    assert "| licence of the data | not recorded |" in card
    assert "--noise-rate 0.4" in card
    assert "own partner first" in card


def test_it_tells_no_folder_and_names_the_method_once(card, base, toy_run):
    assert "--data-path toy.npz" in card
    assert "| source | toy.npz |" in card
    assert str(base) not in card
    assert base.name not in card
    described = entry_of("mrl").describe(RunFolder.open(toy_run).config()).removeprefix("method: ")
    assert f"| method | {_plain(described)} |" in card


@pytest.mark.parametrize("path", ["/home/ann/my set.npz", r"C:\Users\ann\my set.npz", "sets/my set.npz", "my set.npz"])
def test_every_path_is_told_by_its_last_part(path):
    command = training_command(toy_config(data_path=path, noise_file=path, init_from=path), folders=False)
    assert [f"--{flag} 'my set.npz'" in command for flag in ("data-path", "noise-file", "init-from")] == [True] * 3
    assert "ann" not in command
    assert _origin("source", {"source": path}) == "my set.npz"
    emoji = {"source": "emoji/2.0.0, made from packages"}
    assert _origin("source", emoji) == emoji["source"]


def test_it_claims_no_noise_where_none_was_injected(ragged_run, tmp_path):
    (path,) = export(ragged_run, tmp_path / "README.md", "card", split="valid")
    text = path.read_text("utf-8")
    assert "How many labels of the data are wrong is not recorded" in text
    assert "On the valid split" in text


def test_names_of_the_data_are_text():
    assert _plain("a|b <script> *x* [y](z)") == r"a\|b \<script> \*x\* \[y\](z)"


def test_an_incomplete_run_has_no_card(toy_run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("config.json", "data.json", "noise.json", "metrics.jsonl", "model.npz"):
        (copy / name).write_bytes((toy_run / name).read_bytes())
    (copy / "checkpoints").mkdir()
    with pytest.raises(InputError, match="the run is not complete, and has no model to describe"):
        export(copy, tmp_path / "README.md", "card")
    with pytest.raises(InputError, match="give the folder instead of the model"):
        export(untrained(), tmp_path / "README.md", "card")


def test_data_in_memory_are_given(tmp_path):
    result = train(toy_config(epochs=1), tmp_path / "run", data=toy_arrays())
    with pytest.raises(InputError, match="trained on arrays in memory"):
        export(tmp_path / "run", tmp_path / "README.md", "card")
    assert export(result, tmp_path / "README.md", "card", data=toy_arrays())
