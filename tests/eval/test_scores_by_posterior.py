"""Evaluation of runs by class posterior: the numbers of training, the flags, comparisons of unlike runs."""

import json

import numpy as np
import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays

from mrl_jax import compare, evaluate, evaluate_embeddings, load_run
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.scores import Options
from mrl_jax.train import main as train_main

pytestmark = pytest.mark.slow

QUICK = ("--bootstrap", "0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs on the same data: representation -> folder, and cca."""
    base = tmp_path_factory.mktemp("runs")
    data = ["--data-path", str(save_npz(base / "toy.npz")), "--noise-rate", "0.5"]
    for kind in ("embedding", "posterior", "both"):
        flags = [*TOY_FLAGS, *data, "--representation", kind, "--workdir", str(base / kind)]
        assert train_main(flags) == 0
    assert train_main([*data, "--method", "cca", "--workdir", str(base / "cca")]) == 0
    return base


@pytest.mark.parametrize("kind", ["posterior", "both"])
@pytest.mark.parametrize("split", ["test", "valid"])
def test_numbers_equal_result_json_exactly(runs, kind, split, capsys):
    result = json.loads((runs / kind / "result.json").read_text())[split]["best"]
    assert eval_main(["--workdir", str(runs / kind), "--split", split, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["map"] == result["map"]
    assert (scores["options"]["representation"], scores["options"]["metric"]) == (kind, "dot")
    assert scores["instances"]["sound->touch"]["queries"] == (27 if split == "test" else 24)


def test_the_flag_overrides_the_run(runs, capsys):
    flags = ["--workdir", str(runs / "embedding"), *QUICK, "--json"]
    assert eval_main([*flags, "--representation", "both"]) == 0
    scores = json.loads(capsys.readouterr().out)
    run = load_run(runs / "embedding")
    rows = run.represent({m: toy_arrays()[f"test_{m}"] for m in run.modalities}, "both")
    labels, options = toy_arrays()["test_labels"], Options(bootstrap=0, metric="dot")
    assert scores["map"] == evaluate_embeddings(rows, labels, options=options)["map"]
    assert scores["map"] == evaluate(run, toy_arrays(), representation="both")["map"]
    assert eval_main([*flags, "--representation", "posterior", "--metric", "cosine"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert (named["options"]["representation"], named["options"]["metric"]) == ("posterior", "cosine")
    rows = run.represent({m: toy_arrays()[f"test_{m}"] for m in run.modalities}, "posterior")
    assert named["map"] == evaluate_embeddings(rows, labels, options=Options(bootstrap=0))["map"]
    z = evaluate(runs / "both", representation="embedding")
    assert (z["options"]["representation"], z["options"]["metric"]) == ("embedding", "cosine")


def test_rows_have_the_width_that_the_run_says(runs):
    run = load_run(runs / "both")
    x = {m: toy_arrays()[f"test_{m}"][:2] for m in run.modalities}
    for kind, width in (("embedding", 8), ("posterior", 3), ("both", 11), (None, 11)):
        assert {m: rows.shape for m, rows in run.represent(x, kind).items()} == dict.fromkeys(x, (2, width))
        assert run.width(kind) == width
    for m, z in run.embed(x).items():
        np.testing.assert_array_equal(run.represent(x, "embedding")[m], z)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--workdir", "both"], "ranked by probability of the same class + weighted cosine of embeddings, ties in"),
        (["--workdir", "posterior"], "ranked by probability of the same class, ties in"),
        (["--workdir", "posterior", "--metric", "cosine"], "ranked by cosine similarity of class posteriors, ties in"),
        (["--workdir", "cca", "--representation", "embedding"], "ranked by cosine similarity, ties in"),
    ],
)
def test_the_table_says_what_items_are_ranked_by(runs, flags, line, tmp_path, capsys):
    flags = [str(runs / f) if i == 1 else f for i, f in enumerate(flags)]
    assert eval_main([*flags, *QUICK, "--plot", str(tmp_path / "curve.png")]) == 0
    out = capsys.readouterr().out
    assert line in out
    assert "R@1" in out


def test_unlike_runs_are_compared_each_as_it_ranks(runs, capsys):
    a, b = runs / "embedding", runs / "both"
    assert eval_main(["--compare", str(a), str(b), *QUICK, "--permutations", "99"]) == 0
    by = "A ranked by cosine similarity, B by probability of the same class + weighted cosine of embeddings, ties in"
    assert by in capsys.readouterr().out
    options = Options(bootstrap=0)
    result = compare(a, b, options=options, permutations=99)
    for d, line in result["map"].items():
        assert [line[x] for x in "ab"] == pytest.approx([evaluate(x, options=options)["map"][d] for x in (a, b)])
    assert result["representation"] == {"a": "embedding", "b": "both"}
    assert (result["metric"], result["options"]["metric"]) == ({"a": "cosine", "b": "dot"}, None)
    alike = compare(a, b, options=options, permutations=99, representation="posterior")
    assert (alike["options"]["metric"], alike["representation"]["a"]) == ("dot", "posterior")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir", "cca", "--representation", "both"], "the method cca assigns no classes; choose embedding"),
        (
            ["--embeddings", "z.npz", "--representation", "both"],
            "cannot be combined with --embeddings",
        ),
        (["--compare", "z.npz", "z.npz", "--representation", "both"], "cannot be combined with --compare of two files"),
        (["--workdir", "both", "--representation", "text"], "invalid choice: 'text'"),
        (["--workdir", "both", "--metric", "hamming"], "of this run are real numbers"),
    ],
)
def test_what_makes_no_sense_is_one_line(runs, flags, message, capsys):
    assert eval_main([f if f.startswith("--") or i > 2 else str(runs / f) for i, f in enumerate(flags)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
