"""Scores of codes: the command and the functions against fractions, and the rule of ties in every output."""

import json

import exact
import numpy as np
import pytest

from mrl_jax import InputError, compare, evaluate_embeddings
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.scores import Options

RNG = np.random.default_rng(3)
LABELS = np.arange(60) % 4
BITS = {m: RNG.random((60, 16)) < 0.4 for m in ("image", "text")}
SIGNS = {m: np.where(x, 1.0, -1.0).astype(np.float32) for m, x in BITS.items()}


def means(z, metric, a="image", b="text", skip=False):
    values = [
        exact.average_precision(q, z[b], y == LABELS, metric, skip=i if skip else None)
        for i, (q, y) in enumerate(zip(z[a], LABELS, strict=True))
    ]
    return np.mean(values)


@pytest.mark.parametrize(
    ("z", "metric"), [(BITS, "cosine"), (BITS, "hamming"), (BITS, "dot"), (SIGNS, "cosine"), (SIGNS, "hamming")]
)
def test_scores_of_codes_equal_fractions_in_every_protocol(z, metric):
    options = Options(protocol=("cross", "others", "within"), bootstrap=0, metric=metric)
    scores = evaluate_embeddings(z, LABELS, options=options)
    assert scores["map"]["image->text"] == pytest.approx(means(z, metric), abs=1e-6)
    assert scores["map"]["text->others"] == pytest.approx(means(z, metric, "text", "image"), abs=1e-6)
    assert scores["map"]["image->image"] == pytest.approx(means(z, metric, "image", "image", True), abs=1e-6)
    ranks = [exact.order(q, z["text"], metric).index(i) + 1 for i, q in enumerate(z["image"])]
    assert scores["instances"]["image->text"]["median_rank"] == np.median(ranks)
    assert scores["options"]["metric"] == metric
    assert scores["options"]["ties"] == "gallery order"
    assert scores["options"]["similarities"] == "exact"
    assert scores["notes"] == ["all embeddings are integers: their similarities are compared exactly"]


def test_captions_of_an_instance_are_ranked_by_the_metric():
    ids = {"image": np.arange(60), "text": np.arange(60) // 2}
    scores = evaluate_embeddings(BITS, ids=ids, options=Options(bootstrap=0, metric="hamming"))
    ranks = []
    for i, query in enumerate(BITS["image"][:30]):
        order = exact.order(query, BITS["text"], "hamming")
        ranks.append(1 + min(order.index(2 * i), order.index(2 * i + 1)))
    assert scores["instances"]["image->text"]["median_rank"] == np.median(ranks)


def test_the_command_names_metric_and_ties(tmp_path, capsys):
    np.savez(tmp_path / "e.npz", **BITS, labels=LABELS)
    flags = ["--embeddings", str(tmp_path / "e.npz"), "--metric", "hamming", "--bootstrap", "0"]
    assert eval_main([*flags, "--plot", str(tmp_path / "curve.png")]) == 0
    out = capsys.readouterr().out
    assert "ranked by Hamming distance, ties in gallery order; exact similarities" in out
    assert "note: all embeddings are integers: their similarities are compared exactly" in out
    assert eval_main([*flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["map"]["image->text"] == pytest.approx(means(BITS, "hamming"), abs=1e-6)
    np.savez(tmp_path / "real.npz", **{m: x + 0.5 for m, x in BITS.items()}, labels=LABELS)
    assert eval_main(["--embeddings", str(tmp_path / "real.npz"), "--metric", "hamming"]) == 2
    assert "real.npz: image: metric hamming compares codes" in capsys.readouterr().err
    assert eval_main(["--embeddings", str(tmp_path / "real.npz"), "--bootstrap", "0"]) == 0
    out = capsys.readouterr().out
    assert "ranked by cosine similarity, ties in gallery order; similarities in float32" in out
    assert "integers" not in out
    assert eval_main(["--embeddings", str(tmp_path / "real.npz"), "--bootstrap", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["similarities"] == "float32"
    assert eval_main(["--compare", str(tmp_path / "e.npz"), str(tmp_path / "e.npz"), "--metric", "hamming"]) == 0
    assert "ranked by Hamming distance, ties in gallery order; exact similarities" in capsys.readouterr().out
    assert eval_main(["--compare", str(tmp_path / "e.npz"), str(tmp_path / "real.npz")]) == 0
    assert "ties in gallery order; similarities in float32" in capsys.readouterr().out


def test_comparisons_rank_by_the_metric(tmp_path):
    np.savez(tmp_path / "a.npz", **BITS, labels=LABELS)
    np.savez(tmp_path / "b.npz", **SIGNS, labels=LABELS)
    options = Options(bootstrap=0, metric="hamming")
    result = compare(tmp_path / "a.npz", tmp_path / "b.npz", options=options)
    assert result["map"]["image->text"]["difference"] == 0
    assert result["map"]["image->text"]["a"] == pytest.approx(means(BITS, "hamming"), abs=1e-6)
    options = Options(bootstrap=0, metric="cosine")
    result = compare(tmp_path / "a.npz", tmp_path / "b.npz", options=options)
    assert result["map"]["image->text"]["a"] == pytest.approx(means(BITS, "cosine"), abs=1e-6)
    assert result["map"]["image->text"]["b"] == pytest.approx(means(SIGNS, "cosine"), abs=1e-6)


def test_unknown_metrics_and_codes_of_two_kinds_are_refused():
    with pytest.raises(InputError, match="metric 'l2': choose from cosine, dot, hamming"):
        Options(metric="l2")
    with pytest.raises(InputError, match="embeddings: text: metric hamming compares codes"):
        evaluate_embeddings({"image": BITS["image"], "text": SIGNS["text"]}, LABELS, options=Options(metric="hamming"))


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_scaled_codes_score_as_codes(metric):
    code = np.random.default_rng(5).choice([-1.0, 1.0], (2, 40, 12))
    scores = [
        evaluate_embeddings({"a": a, "b": b}, np.arange(40) % 3, options=Options(metric=metric))
        for a, b in (code, code / np.sqrt(12))
    ]
    assert scores[0]["map"] == scores[1]["map"]
    assert scores[1]["notes"] == [
        "all embeddings are scaled codes, which count as their signs: their similarities are compared exactly"
    ]
