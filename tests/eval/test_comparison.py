"""Comparison of two systems: the numbers against their definition, and systems that cannot be compared."""

import csv
import json

import numpy as np
import pytest
import tolerances
from numpy.testing import assert_allclose
from scipy import stats

from mrl_jax import InputError
from mrl_jax.eval.__main__ import main as eval_main
from mrl_jax.eval.comparison import compare_embedded
from mrl_jax.eval.embedded import check_embedded
from mrl_jax.eval.scores import Options, directions, rank_queries
from mrl_jax.eval.significance import bootstrap_means, interval

LABELS = np.arange(40) % 4
QUICK = Options(bootstrap=200)


def system(noise, seed=0, n=40):
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(4, 8))
    return {m: means[LABELS[:n]] + noise * rng.normal(size=(n, 8)) for m in ("image", "text")}


def checked(noise, seed=0, labels=LABELS, ids=None):
    return check_embedded(system(noise, seed), labels, ids)


def ap(data, name):
    return rank_queries(data, directions(data, ("cross",))[name], (1,))["ap"]


def test_numbers_are_those_of_the_definition():
    a, b = checked(0.9), checked(1.2, 1)
    result = compare_embedded(a, b, QUICK, 5000)
    both = []
    for name, line in result["map"].items():
        ours, theirs = ap(a, name), ap(b, name)
        both.append(ours - theirs)
        assert_allclose([line["a"], line["b"]], [ours.mean(), theirs.mean()], **tolerances.FLOAT64)
        assert_allclose(line["difference"], (ours - theirs).mean(), **tolerances.FLOAT64)
        assert line["ci"][0] <= line["difference"] <= line["ci"][1]
        expected = stats.permutation_test(
            (ours, theirs), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=5000,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        assert abs(line["p"] - expected.pvalue) < 0.03
        assert line["queries"] == 40
    average = result["average"]
    # Both queries of an instance flip together: the test of the average is that of their mean difference.
    signs = np.random.default_rng(1).choice([-1, 1], size=(5000, 40))
    sums = np.abs(signs @ np.mean(both, axis=0))
    assert abs(average["p"] - np.mean(sums >= abs(np.mean(both, axis=0).sum()))) < 0.03
    assert_allclose(average["difference"], np.mean(both), **tolerances.FLOAT64)
    mean = np.mean(both, axis=0)[:, None]
    assert_allclose(
        average["ci"], interval(bootstrap_means([(mean, np.arange(40))], 200)[0][:, 0]), **tolerances.FLOAT64
    )


def test_a_clear_difference_is_significant_and_none_is_not():
    better = compare_embedded(checked(0.3), checked(2.0, 1), QUICK)
    assert better["average"]["p"] < 0.001
    assert better["average"]["ci"][0] > 0
    assert better["options"]["permutations"] == 10_000
    same = compare_embedded(checked(1.0), checked(1.0), QUICK, 99)
    assert same["average"] == {
        "a": same["average"]["a"],
        "b": same["average"]["a"],
        "difference": 0,
        "ci": [0, 0],
        "p": 1,
    }
    turned = compare_embedded(checked(2.0, 1), checked(0.3), QUICK)
    assert turned["average"]["p"] == better["average"]["p"]
    assert turned["average"]["difference"] == -better["average"]["difference"]


def test_classes_may_be_numbered_otherwise_and_modalities_stand_in_another_order():
    a, b = checked(0.9), checked(1.2, 1)
    shifted = check_embedded(dict(reversed(system(1.2, 1).items())), LABELS + 1)
    assert compare_embedded(a, shifted, QUICK, 99)["map"] == compare_embedded(a, b, QUICK, 99)["map"]


def test_options_reach_the_comparison():
    labels = {"image": np.where(np.arange(40) < 8, 9, LABELS), "text": LABELS}
    a, b = checked(0.9, labels=labels), checked(1.2, 1, labels=labels)
    skip = Options(protocol=("within", "cross"), without_relevant="skip", bootstrap=0)
    result = compare_embedded(a, b, skip, 99)
    assert {d: line["queries"] for d, line in result["map"].items()} == {
        "image->image": 40, "text->text": 40, "image->text": 32, "text->image": 40
    }  # fmt: skip
    within = [result["map"][d]["a"] for d in ("image->image", "text->text")]
    assert_allclose(result["average"]["a"], np.mean(within))
    assert "ci" not in result["average"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: check_embedded(system(1), None), "has no labels"),
        (
            lambda: check_embedded({**system(1), "sound": np.eye(40, 8)}, LABELS),
            "differ in modalities: image, text against",
        ),
        (
            lambda: check_embedded(system(1, n=30), LABELS[:30]),
            "numbers of samples: image 40, text 40 against image 30",
        ),
        (lambda: checked(1, labels=LABELS[::-1] // 2), "differ in labels"),
        (lambda: checked(1, labels=np.eye(4)[LABELS]), "differ in labels"),
        (lambda: checked(1, ids=np.arange(40)[::-1]), "differ in ids or in their order"),
        (lambda: checked(1, ids={"image": np.arange(40), "text": np.arange(40)[::-1]}), "differ in ids"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(InputError, match=message):
        compare_embedded(checked(1, ids=np.arange(40)), other(), QUICK)


def test_other_pairs_digests_and_too_few_permutations_are_refused():
    a = checked(1)
    with pytest.raises(InputError, match="differ in which rows are pairs"):
        compare_embedded(a, checked(1, ids={"image": np.arange(40), "text": np.arange(40)[::-1]}), QUICK)
    one, two = (type(a)(**{**vars(a), "digest": d}) for d in "xy")
    with pytest.raises(InputError, match="different data"):
        compare_embedded(one, two, QUICK)
    with pytest.raises(InputError, match="permutations 5: give 99"):
        compare_embedded(a, a, QUICK, 5)


def test_two_files_by_the_command(tmp_path, capsys):
    for name, noise in (("a", 0.5), ("b", 1.5)):
        np.savez(tmp_path / f"{name}.npz", labels=LABELS, **system(noise))
    files = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    flags = ["--compare", *files, "--permutations", "999", "--bootstrap", "200"]
    assert eval_main([*flags, "--json", str(tmp_path / "c.json"), "--csv", str(tmp_path / "c.csv")]) == 0
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "c.json").read_text())
    assert [result["a"], result["b"]] == files
    assert max(map(len, out.splitlines()[2:])) <= 100
    assert "999 permutations" in out
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = {r["direction"]: r for r in csv.DictReader(file)}
    assert set(rows) == {"image->text", "text->image", "average"}
    for direction, row in rows.items():
        line = result["map"].get(direction, result["average"])
        assert [float(row[k]) for k in ("a", "b", "difference", "p")] == [
            line[k] for k in ("a", "b", "difference", "p")
        ]
        assert [float(row["low"]), float(row["high"])] == line["ci"]
        assert f"{line['difference']:+.3f}" in next(x for x in out.splitlines() if x.startswith(direction))


def test_modalities_of_numbered_files_are_named(tmp_path, capsys):
    for name, noise in (("a", 0.5), ("b", 1.5)):
        (tmp_path / name).mkdir()
        for i, z in enumerate(system(noise).values(), 1):
            np.save(tmp_path / name / f"mic{i}.npy", z)
        np.save(tmp_path / name / "labels.npy", LABELS)
    flags = ["--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--bootstrap", "0"]
    assert eval_main(flags) == 2
    assert "--modalities mic1 mic2 takes each as a modality" in capsys.readouterr().err
    assert eval_main([*flags, "--modalities", "mic1", "mic2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = compare_embedded(checked(0.5), checked(1.5), Options(bootstrap=0))
    assert [*found["map"].values()] == [*expected["map"].values()]
    assert [*found["map"]] == ["mic1->mic2", "mic2->mic1"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compare", "A"], "expected 2 arguments"),
        (["--compare", "A", "DIR"], "holds neither a run nor embeddings"),
        (["--compare", "A", "DIR/absent.npz"], "does not exist"),
        (["--compare", "A", "B"], "differ in labels"),
        (["--compare", "A", "A", "--permutations", "0"], "permutations 0"),
        (["--compare", "A", "A", "--per-query", "q.csv"], "--per-query cannot be combined with --compare"),
        (["--compare", "A", "A", "--plot", "q.png"], "--plot cannot be combined with --compare"),
        (["--compare", "A", "A", "--data-path", "x.npz"], "--data-path cannot be combined with --compare"),
        (["--compare", "A", "A", "--split", "test"], "--split cannot be combined with --compare"),
        (["--compare", "A", "A", "--k", "3"], "--k cannot be combined with --compare"),
        (["--compare", "A", "A", "--workdir", "DIR"], "give one of"),
    ],
)
def test_bad_input_to_the_command_is_one_line(flags, message, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", labels=LABELS, **system(1))
    np.savez(tmp_path / "b.npz", labels=LABELS[::-1] // 2, **system(1))
    names = {"A": str(tmp_path / "a.npz"), "B": str(tmp_path / "b.npz")}
    assert eval_main([names.get(f, f.replace("DIR", str(tmp_path))) for f in flags]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
