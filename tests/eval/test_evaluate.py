"""Evaluation of runs: the scores that training reported, from the checkpoint alone; pairs; comparisons."""

import json
import shutil

import numpy as np
import pytest
from toy import CLASSES, SIZES, TOY_FLAGS, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import InputError, evaluate, load_run, train
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.evaluate import compare, evaluate_embeddings
from mrl_jax.eval.scores import Options
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    base = tmp_path_factory.mktemp("eval")
    data = save_npz(base / "toy.npz")
    flags = [*TOY_FLAGS, "--data-path", str(data), "--noise-rate", "0.5", "--workdir", str(base / "run")]
    assert train_main(flags) == 0
    return base / "run"


@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_numbers_equal_result_json_exactly(run, split, checkpoint, capsys):
    result = json.loads((run / "result.json").read_text())[split][checkpoint]
    assert eval_main(["--workdir", str(run), "--split", split, "--checkpoint", checkpoint, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {**{k: scores[k] for k in ("epoch", "map", "average")}, "accuracy": result["accuracy"]} == result
    assert (scores["split"], scores["checkpoint"]) == (split, checkpoint)


def test_json_goes_to_a_file_and_the_table_to_the_terminal(run, tmp_path, capsys):
    assert eval_main(["--workdir", str(run), "--json", str(tmp_path / "scores.json")]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    out = capsys.readouterr().out
    for direction, value in scores["map"].items():
        assert direction in out
        assert f"{value:.3f}" in out
    assert "chance" in out
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_an_epoch_number_names_a_checkpoint(run, capsys):
    assert eval_main(["--workdir", str(run), "--checkpoint", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch"] == 3


def test_from_python_with_folder_run_and_data(run):
    from_folder = evaluate(run)
    assert evaluate(load_run(run))["map"] == from_folder["map"]
    assert evaluate(load_run(run), toy_arrays())["map"] == from_folder["map"]
    assert set(evaluate(run, split="train")["map"]) == set(from_folder["map"])


def test_galleries_of_other_data_are_scored_too(run):
    arrays = toy_arrays()
    arrays["test_sound"] = np.random.default_rng(0).normal(size=arrays["test_sound"].shape)
    assert evaluate(load_run(run), arrays)["average"] < evaluate(run)["average"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir", "RUN", "--split", "dev"], "invalid choice: 'dev'"),
        (["--workdir", "RUN", "--checkpoint", "99"], "no checkpoint of epoch 99"),
        (["--workdir", "RUN", "--checkpoint", "first"], "choose kept, best, last"),
        (["--workdir", "RUN/checkpoints"], "holds no run"),
        (["--workdir", "RUN", "--json", "RUN/no/such/dir/x.json"], "cannot be written"),
        (["--workdir", "RUN", "--json", "."], "is no file name"),
        (["--workdir", "RUN", "--json", ""], "is no file name"),
        (["--workdir", "RUN", "--metric", "hamming"], "embeddings of this run are real numbers of unit length; choose"),
        ([], "give one of --workdir DIR, --embeddings FILE and --compare A B (none given)"),
        (["--workdir", "RUN", "--compare", "RUN", "RUN"], "(--workdir and --compare given)"),
        (["--workdir", "RUN", "--modalities", "sound"], "--modalities cannot be combined with --workdir"),
        (["--workdir", "RUN", "--k", "0"], "k 0: give integers from 1 on"),
        (["--embeddings", "RUN"], "is the folder of a run, not of embeddings; score it with --workdir"),
        (["--compare", "RUN", "RUN/absent"], "does not exist"),
        (["--compare", "RUN", "RUN", "--checkpoint", "99"], "no checkpoint of epoch 99"),
        (["--workdir", "RUN", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, flags, message, capsys):
    assert eval_main([f.replace("RUN", str(run)) for f in flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_changed_or_missing_data_are_refused(run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    unchecked(moved)
    arrays = toy_arrays()
    arrays["test_sound"][0, 0] += 1
    save_npz(tmp_path / "changed.npz", arrays)
    for path, message in (("changed.npz", "have changed"), ("absent.npz", "does not exist")):
        (moved / "config.json").write_text(json.dumps({**config, "data_path": str(tmp_path / path)}))
        assert eval_main(["--workdir", str(moved)]) == 2
        assert message in capsys.readouterr().err


def test_arrays_in_memory_must_be_passed_again(tmp_path):
    for name, config in (("custom", toy_config()), ("emoji", toy_config(preset="emoji"))):
        train(config, tmp_path / name, data=toy_arrays())
        with pytest.raises(InputError, match="trained on arrays in memory; pass them"):
            evaluate(tmp_path / name)
        assert evaluate(tmp_path / name, toy_arrays())["epoch"] >= 1


def test_data_of_other_width_are_refused(run):
    arrays = toy_arrays()
    for split in ("train", "valid", "test"):
        arrays[f"{split}_sound"] = arrays[f"{split}_sound"][:, :2]
    with pytest.raises(InputError, match=r"sound features have shape \[27, 2\]; this run was trained on \[N, 6\]"):
        evaluate(load_run(run), arrays)
    with pytest.raises(InputError, match="split 'dev'"):
        evaluate(run, split="dev")


@pytest.fixture(scope="module")
def other_run(run):
    data, folder = run.parent / "toy.npz", run.parent / "other"
    flags = [*TOY_FLAGS, "--data-path", str(data), "--noise-rate", "0.5", "--seed", "1", "--workdir", str(folder)]
    assert train_main(flags) == 0
    return folder


def test_the_report_of_a_run_is_that_of_its_embeddings(run):
    scores = evaluate(run)
    loaded, arrays = load_run(run), toy_arrays()
    z = loaded.embed({m: arrays[f"test_{m}"] for m in ("sound", "touch")})
    labels = arrays["test_labels"]
    assert evaluate_embeddings(z, labels, class_names=loaded.class_names) == {
        k: v for k, v in scores.items() if k not in ("epoch", "split")
    }
    assert {d: m["map"] for d, m in scores["metrics"].items()} == scores["map"]
    assert set(scores["classes"]["sound->touch"]) == {str(k) for k in range(CLASSES)}
    assert scores["instances"]["sound->touch"]["queries"] == SIZES["test"]


def test_pairs_are_found_through_the_masks_of_missing_samples(run, tmp_path, capsys):
    arrays, n = toy_arrays(), SIZES["test"]
    sound, touch = np.arange(n) % 5 != 0, np.arange(n) % 4 != 1
    arrays |= {"test_sound_mask": sound, "test_touch_mask": touch}
    loaded = load_run(run)
    z = loaded.embed({m: arrays[f"test_{m}"] for m in ("sound", "touch")})
    similarity = np.where(touch, z["sound"].astype(np.float64) @ z["touch"].T.astype(np.float64), -np.inf)
    ranks = (similarity >= np.diag(similarity)[:, None]).sum(axis=1)[sound & touch]
    actual = evaluate(loaded, arrays)["instances"]["sound->touch"]
    assert actual["queries"] == (sound & touch).sum() < min(sound.sum(), touch.sum())
    assert actual["recall@5"] == pytest.approx(np.mean(ranks <= 5))
    assert actual["median_rank"] == np.median(ranks)

    data = save_npz(tmp_path / "masked.npz", arrays)
    flags = ["--workdir", str(run), "--data-path", str(data), "--per-query", str(tmp_path / "q.csv")]
    assert eval_main(flags) == 0
    lines = [x.split(",") for x in (tmp_path / "q.csv").read_text().splitlines()]
    rows = [int(x[1]) for x in lines if x[0] == "sound->touch"]
    assert rows == np.flatnonzero(sound).tolist()
    assert f" {actual['queries']} " in capsys.readouterr().out


def test_rows_beyond_those_of_the_other_modality_have_no_pair_and_unpaired_galleries_none_at_all(run):
    arrays = toy_arrays()
    labels = arrays.pop("test_labels")
    arrays |= {"test_touch": arrays["test_touch"][:20], "test_touch_labels": labels[:20], "test_sound_labels": labels}
    loaded = load_run(run)
    actual = evaluate(loaded, arrays)["instances"]
    assert {d: s["queries"] for d, s in actual.items()} == {"sound->touch": 20, "touch->sound": 20}
    arrays["test_touch"], arrays["test_touch_labels"] = arrays["test_touch"][1:], labels[1:20]
    assert evaluate(loaded, arrays)["instances"] == {}


def test_two_runs_are_compared(run, other_run, tmp_path, capsys):
    assert eval_main(["--compare", str(run), str(other_run), "--json", "--permutations", "999"]) == 0
    result = json.loads(capsys.readouterr().out)
    ours, theirs = evaluate(run), evaluate(other_run)
    assert {d: [line["a"], line["b"]] for d, line in result["map"].items()} == {
        d: [pytest.approx(ours["map"][d]), pytest.approx(theirs["map"][d])] for d in ours["map"]
    }
    assert result["average"]["difference"] == pytest.approx(ours["average"] - theirs["average"])
    assert result["split"] == "test"
    loaded, quick = [load_run(folder) for folder in (run, other_run)], Options(bootstrap=0)
    assert compare(*loaded, toy_arrays(), options=quick, permutations=999)["average"]["p"] == result["average"]["p"]

    arrays = toy_arrays()
    z = load_run(other_run).embed({m: arrays[f"test_{m}"] for m in ("sound", "touch")})
    np.savez(tmp_path / "z.npz", labels=arrays["test_labels"], **z)
    against_file = compare(run, tmp_path / "z.npz", permutations=999)
    assert against_file["map"] == result["map"]
    turned = compare(run, tmp_path / "z.npz", modalities=("touch", "sound"), permutations=999)
    assert [*turned["map"]] == [*result["map"]][::-1]
    with pytest.raises(InputError, match="it has no modality 'smell'; choose from sound, touch"):
        compare(run, tmp_path / "z.npz", modalities=("smell", "sound"))


def test_runs_on_other_data_or_other_validation_labels_are_not_compared(run, other_run, tmp_path, capsys):
    arrays = toy_arrays()
    arrays["train_sound"][0, 0] += 1
    data = save_npz(tmp_path / "changed.npz", arrays)
    assert train_main([*TOY_FLAGS, "--data-path", str(data), "--workdir", str(tmp_path / "changed")]) == 0
    flags = ["--data-path", str(run.parent / "toy.npz"), "--noise-rate", "0.5", "--noisy-validation"]
    assert train_main([*TOY_FLAGS, *flags, "--workdir", str(tmp_path / "noisy")]) == 0
    capsys.readouterr()
    for name, split, message in (
        ("changed", "test", "were trained on different data (digests differ)"),
        ("noisy", "valid", "differ in labels"),
    ):
        assert eval_main(["--compare", str(run), str(tmp_path / name), "--split", split]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert eval_main(["--compare", str(run), str(tmp_path / "noisy"), "--split", "test"]) == 0
