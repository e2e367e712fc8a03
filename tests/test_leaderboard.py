"""The leaderboard: a ranking by hand, runs that are trained once, methods that fail, and the command."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats
from toy import TOY_FLAGS, save_npz, toy_arrays

from mrl_jax import InputError, evaluate
from mrl_jax.eval.differences import compared, holm_levels
from mrl_jax.interrupt import Interrupted
from mrl_jax.leaderboard import leaderboard
from mrl_jax.leaderboard.__main__ import main
from mrl_jax.leaderboard.ranking import compare_with, rank_methods
from mrl_jax.methods.linear.pls import ENTRY
from mrl_jax.methods.registry import METHODS, register

SETTINGS = {
    "preset": "custom",
    "hidden_dims": (16,),
    "embed_dim": 8,
    "batch_size": 16,
    "epochs": 2,
    "learning_rate": 1e-2,
}


def precision(mean, seed, rates=2, seeds=6, instances=40, spread=0.01):
    rng = np.random.default_rng(seed)
    return mean + spread * rng.normal(size=(rates, seeds, instances))


def test_ranks_and_groups_of_methods_that_differ_or_do_not():
    same = precision(0.5, 0)
    given = {"low": precision(0.3, 1), "a": same, "top": precision(0.7, 2), "b": same + 1e-6 * precision(0.0, 3)}
    ranking = rank_methods(given)
    assert ranking.names[0] == "top"
    assert ranking.names[-1] == "low"
    assert ranking.average_rank["top"] == 1.0
    assert ranking.average_rank["low"] == 4.0
    assert ranking.average_rank["a"] + ranking.average_rank["b"] == 5.0
    assert ranking.level == (slice(1, 3),)
    assert ranking.level_with("a") == ["b"]
    assert ranking.level_with("top") == []
    difference = ranking.differences["top", "low"]
    expected = compared(given["top"].mean(axis=(0, 2)), given["low"].mean(axis=(0, 2)))
    assert difference.mean == pytest.approx(expected.mean)
    assert difference.error == pytest.approx(expected.error)
    assert difference.level > 0.95  # Holm


def test_a_difference_that_only_instances_doubt_is_level():
    """The same gain in every seed, but from few instances alone: another test set might not have it."""
    base = precision(0.5, 0, instances=12)
    gain = np.zeros(12)
    gain[0] = 0.6
    ranking = rank_methods({"base": base, "better": base + gain + precision(0.0, 1, instances=12, spread=1e-4)})
    assert ranking.names[0] == "better"
    assert ranking.differences["better", "base"].verdict == "level"


def test_a_control_is_compared_with_each_other_and_corrected_for_those_alone():
    names = ("a", "control", "b", "c", "d", "e")
    given = {name: precision(0.5 + 0.003 * i, i, spread=0.02) for i, name in enumerate(names)}
    found = compare_with("control", given)
    assert list(found) == [name for name in names if name != "control"]
    maps = {name: x.mean(axis=(0, 2)) for name, x in given.items()}
    levels = dict(zip(found, holm_levels([d.p for d in found.values()]), strict=True))
    assert len(set(levels.values())) > 2
    for name, level in levels.items():
        test = stats.ttest_rel(maps["control"], maps[name])
        assert found[name].over_seeds == pytest.approx(tuple(test.confidence_interval(level)))
        assert found[name].p >= test.pvalue * (1 - 1e-9)  # the larger one of seeds and instances
    pairs = rank_methods(given).differences
    wide = [d for pair, d in pairs.items() if "control" in pair]
    assert sum(d.level for d in wide) > sum(d.level for d in found.values())  # 15 pairs, not 5
    assert compare_with("a", {"a": given["a"], "b": given["b"]})["b"].level == pytest.approx(0.95)
    assert compare_with("a", {"a": given["a"][:, :1], "b": given["b"][:, :1]}) == {}
    with pytest.raises(ValueError, match="'mine'; it is none of a, control"):
        compare_with("mine", given)


def test_instances_that_are_drawn_together_count_once():
    """Four copies of each instance say no more than one: the interval is that of the groups."""
    few = {name: precision(0.5, i, instances=10, spread=0.1) for i, name in enumerate("ab")}
    copies = {name: np.repeat(x, 4, axis=2) for name, x in few.items()}
    groups = np.repeat(np.arange(10), 4)
    alone, together, one = (
        compare_with("a", x, units)["b"].over_instances for x, units in ((copies, None), (copies, groups), (few, None))
    )
    assert together == pytest.approx(one)
    assert alone[1] - alone[0] < 0.7 * (one[1] - one[0])
    (ranked,) = rank_methods(copies, groups).differences.values()  # of the better less the worse
    assert sorted(map(abs, ranked.over_instances)) == pytest.approx(sorted(map(abs, one)))


def test_few_seeds_have_ranks_but_no_test():
    ranking = rank_methods({"a": precision(0.5, 0, seeds=3), "b": precision(0.9, 1, seeds=3)})
    assert ranking.names == ("b", "a")
    assert ranking.level == ()
    assert ranking.differences["b", "a"].verdict == ""
    assert rank_methods({"a": precision(0.5, 0, seeds=1)}).differences == {}
    with pytest.raises(ValueError, match="the same"):
        rank_methods({"a": precision(0.5, 0), "b": precision(0.5, 0, seeds=2)})


def test_equal_methods_share_their_rank():
    one = precision(0.5, 0)
    ranking = rank_methods({"a": one, "b": one})
    assert ranking.average_rank == {"a": 1.5, "b": 1.5}
    assert ranking.differences["a", "b"].verdict == "level"


@pytest.fixture
def broken():
    """A method whose closed form is at fault, for the length of a test."""

    def fit(h, data, shapes, shared):
        raise RuntimeError("this fit\nis broken")

    method = ENTRY.method(None)._replace(fit=fit)
    register(ENTRY._replace(name="broken", method=lambda config: method))
    yield "broken"
    del METHODS["broken"]


def test_a_method_that_refuses_a_setting_is_left_out(tmp_path):
    settings = {**SETTINGS, "data_path": str(save_npz(tmp_path / "toy.npz", toy_arrays())), "hidden_dims": ()}
    found = leaderboard(tmp_path / "board", ["dscmr", "mvda"], noise_rates=[0.4], seeds=1, **settings)
    assert set(found.rows) == {"mvda"}
    assert "hidden_dims" in found.left_out["dscmr"]
    with pytest.raises(InputError, match="epochs -1"):
        leaderboard(tmp_path / "other", ["mrl", "dscmr"], **settings | {"epochs": -1})
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_it_trains_ranks_and_goes_on(tmp_path, broken):
    data = save_npz(tmp_path / "toy.npz", toy_arrays(("sound", "touch", "smell")))
    folder = tmp_path / "board"
    methods = ["mrl", "mvda", "pls", "broken"]
    with pytest.raises(InputError, match="noise_rates: give at least one"):
        leaderboard(folder, ["mrl"], noise_rates=[], data_path=str(data))
    with pytest.raises(InputError, match="choose from"):
        leaderboard(folder, ["mrl", "nonsense"], data_path=str(data))
    settings = {**SETTINGS, "data_path": str(data), "method_options": ()}
    del settings["method_options"]
    first = leaderboard(folder, methods, noise_rates=[0.0, 0.4], seeds=2, **settings)
    assert set(first.rows) == {"mrl", "mvda"}
    assert "takes two modalities" in first.left_out["pls"]
    assert "takes two modalities" in first.left_out["broken"] or "broken" in first.failed["broken"]
    runs = sorted((folder / "mrl" / "runs").iterdir())
    scores = [json.loads((run / "result.json").read_text())["test"]["best"]["average"] for run in runs]
    assert sorted(first.rows["mrl"].maps.ravel()) == pytest.approx(sorted(scores), abs=1e-6)
    assert evaluate(runs[0])["average"] == pytest.approx(scores[0])
    lines = list(csv.DictReader(io.StringIO(first.csv())))
    assert len(lines) == 8
    assert (folder / "leaderboard.png").stat().st_size > 5000
    assert "pls was left out" in (folder / "leaderboard.md").read_text()
    written = {run: (run / "result.json").stat().st_mtime_ns for run in runs}
    with pytest.raises(InputError, match="is not empty; resume=True continues it"):
        leaderboard(folder, methods, **settings)
    other = save_npz(tmp_path / "other.npz", toy_arrays(("sound", "touch", "smell"), seed=1))
    before = {path.name: path.read_bytes() for path in folder.glob("leaderboard.*")}
    with pytest.raises(InputError, match="holds runs on other data than these"):
        leaderboard(folder, resume=True, data_path=str(other))
    assert {path.name: path.read_bytes() for path in folder.glob("leaderboard.*")} == before
    more = leaderboard(folder, ["mrl", "mvda"], seeds=3, resume=True)
    assert more.seeds == (0, 1, 2)
    spent = json.loads((runs[0] / "result.json").read_text())
    assert more.rows["mrl"].seconds[0, 0] == pytest.approx(spent["seconds"] / spent["trained_together"])
    assert more.noise_rates == (0.0, 0.4)
    np.testing.assert_array_equal(more.rows["mrl"].maps[:, :2], first.rows["mrl"].maps)
    assert {run: (run / "result.json").stat().st_mtime_ns for run in runs} == written


def test_data_that_fit_no_method_are_an_error(tmp_path):
    data = save_npz(tmp_path / "toy.npz", toy_arrays(("sound", "touch", "smell")))
    with pytest.raises(InputError, match="no method can be trained; the first, pls: method pls takes two modalities"):
        leaderboard(tmp_path / "board", ["pls", "dcca"], data_path=str(data))
    assert not (tmp_path / "board").exists()


@pytest.mark.slow
def test_default_batches_are_no_larger_than_the_data(tmp_path):
    data = save_npz(tmp_path / "toy.npz")
    settings = {"hidden_dims": (8,), "embed_dim": 2, "epochs": 1, "data_path": str(data)}
    found = leaderboard(tmp_path / "board", ["dcca", "mrl"], noise_rates=[0.4], seeds=1, **settings)
    assert set(found.rows) == {"dcca", "mrl"}
    assert json.loads((tmp_path / "board" / "dcca" / "sweep.json").read_text())["common"]["batch_size"] == 60
    with pytest.raises(InputError, match=r"batch_size 61 is larger .*; give 60 or less"):
        leaderboard(tmp_path / "other", ["mrl"], batch_size=61, **settings)


@pytest.mark.slow
def test_an_interrupt_names_the_folder_of_the_leaderboard(tmp_path, monkeypatch):
    data, folder = save_npz(tmp_path / "toy.npz"), tmp_path / "board"

    def stopped(configs, workdir, **_):
        raise Interrupted(f"interrupted; --resume --workdir {workdir} continues it", 2)

    monkeypatch.setattr("mrl_jax.leaderboard.board.sweep", stopped)
    with pytest.raises(Interrupted, match=f"--workdir {folder} continues it"):
        leaderboard(folder, ["cca"], data_path=str(data))


@pytest.mark.slow
def test_a_method_at_fault_does_not_end_the_others(tmp_path, broken):
    data = save_npz(tmp_path / "toy.npz")
    found = leaderboard(tmp_path / "board", [broken, "cca"], noise_rates=[0.4], seeds=1, data_path=str(data))
    assert found.failed == {"broken": "RuntimeError: this fit"}
    assert set(found.rows) == {"cca"}
    assert "broken failed: RuntimeError: this fit" in found.markdown()


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    data = save_npz(tmp_path / "toy.npz")
    flags = ["--methods", "cca", "mrl", "--noise-rates", "0.4", "--seeds", "1", *TOY_FLAGS]
    code = main([*flags, "--data", str(data), "--noise-protocol", "wrong-only", "--workdir", str(tmp_path / "board")])
    shown = capsys.readouterr()
    assert code == 0
    assert "cca (1 of 2)" in shown.err
    assert shown.out.splitlines()[0].split("|")[2].strip() == "method"
    assert "With fewer than 5 seeds there is no test." in shown.out
    config = json.loads((tmp_path / "board" / "mrl" / "sweep.json").read_text())["common"]
    assert config["noise_kind"] == "symmetric-wrong"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "nonsense"], "method 'nonsense': choose from mrl"),
        (["--data", "emoji", "--data-path", "x.npz"], "--data emoji and data_path 'x.npz' were both given"),
        (["--noise-rate", "0.2", "--noise-rates", "0.4"], "--noise-rate and --noise-rates were both given"),
        (["--resume"], "--resume needs the folder of the leaderboard"),
        (["--noise-file", "x.json"], "a leaderboard draws its noise"),
        (["--seeds", "0"], "seeds 0: must be at least 1"),
        (["--methods", "cca", "--beta", "0.5"], "beta 0.5 has no effect on the method cca"),
        (["--data", "none.npz", "--methods", "cca"], "none.npz"),
        (["--noise-rates", "1.5"], "noise_rate 1.5: must be"),
        (["--workdir", "setup.cfg"], "is not empty"),
        (["--resume", "--workdir", "docs"], "holds no leaderboard"),
    ],
)
def test_what_it_refuses(flags, message, capsys, tmp_path, monkeypatch):
    if "--workdir" not in flags:
        flags = [*flags, *(() if flags == ["--resume"] else ("--workdir", str(tmp_path / "board")))]
    else:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "docs").mkdir()
        (tmp_path / "setup.cfg").write_text("x")
    assert main(flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "board").exists()
