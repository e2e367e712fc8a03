"""Pages of runs of all kinds, from the function and from the command."""

import dataclasses
import json
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_runs import Page, odd_arrays, trained
from scipy import stats
from toy import lose, save_npz, toy_config

from mrl_jax import InputError, compare
from mrl_jax.audit.run import audit_run
from mrl_jax.cli import Parser, add_config_flags
from mrl_jax.config import preset, with_settings
from mrl_jax.report import write_report
from mrl_jax.report.__main__ import main
from mrl_jax.report.blocks import NOTHING, Table
from mrl_jax.report.opened import find_runs, open_run, read_run
from mrl_jax.report.sections import comparison
from mrl_jax.report.sections.reproduce import training_command
from mrl_jax.report.sections.swept import sweep_section
from mrl_jax.run.folder import RunFolder
from mrl_jax.sweep.results import Sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_library")]
OF_A_RUN = [
    "protocol",
    "results",
    "curves",
    "memory",
    "precision-recall",
    "classes",
    "map",
    "examples",
    "suspects",
    "reproduce",
]


def page_of(path):
    return Page(path.read_text("utf-8"))


def test_a_run_has_all_sections(noisy, arrays):
    path = write_report(noisy, data=arrays)
    assert path == noisy / "report.html"
    page = page_of(path)
    assert page.sections == OF_A_RUN
    result = json.loads((noisy / "result.json").read_text())
    assert f"mAP {result['test'][result['kept']]['average']:.3f}" in page.text
    path.unlink()


def test_three_modalities_missing_samples_unequal_galleries_no_noise_streamed(odd, tmp_path):
    page = page_of(write_report(odd, tmp_path / "odd.html", data=odd_arrays()))
    assert page.sections == OF_A_RUN
    assert "missing training samples touch 2" in page.text
    assert "test: sound 27, touch 27, smell 20" in page.text
    assert "which of the labels of the data set are wrong is unknown" in page.text
    assert {item["m"] for item in page.data["items"]} == {"sound", "touch", "smell"}


def test_a_closed_form_has_neither_curves_nor_classes(closed, arrays, tmp_path):
    page = page_of(write_report(closed, tmp_path / "closed.html", data=arrays))
    assert "closed form" in page.text
    assert "assigns no classes" in page.text


def test_noisy_validation_and_few_rows(base, arrays, tmp_path):
    few = {**arrays, "test_labels": np.array([0, 1, 2]), "test_sound": arrays["test_sound"][:3]}
    few["test_touch"] = arrays["test_touch"][:3]
    run = trained(tmp_path / "run", few, noise_rate=0.5, noisy_validation=True, epochs=1)
    page = page_of(write_report(run, tmp_path / "valid.html", data=few, split="valid"))
    assert "with the noise of the run's validation labels" in page.text
    assert page_of(write_report(run, tmp_path / "test.html", data=few)).sections == OF_A_RUN


def test_mismatched_pairs_are_no_wrong_labels(arrays, tmp_path):
    run = trained(tmp_path / "run", arrays, noise_rate=0.5, noise_kind="pair-mismatch")
    page = page_of(write_report(run, data=arrays))
    assert "all labels are right" in page.text
    share = json.loads((run / "noise.json").read_text())["mismatched_share"]
    assert f"{sum(share.values()) / 2:.0%} mean of the modalities" in page.text


def test_a_run_that_is_not_complete(noisy, arrays, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(noisy, begun)
    lose(begun, "result.json", "model.npz")
    assert page_of(write_report(begun, data=arrays)).sections == OF_A_RUN


def test_two_runs_are_tested(base, noisy, closed, arrays, tmp_path):
    page = page_of(write_report([noisy, closed], tmp_path / "two.html", data=arrays))
    assert page.sections == ["comparison", *OF_A_RUN]
    runs = [read_run(p, p.name) for p in (noisy, closed)]
    opened = [open_run(r, "test", arrays) for r in runs]
    best = max(runs, key=lambda r: r.valid_map)
    (test,), notes = comparison.tested(opened, best)
    (other,) = (r for r in runs if r is not best)
    expected = compare(other.folder.path, best.folder.path, arrays)["average"]
    assert not notes
    assert (test.difference, test.p, test.ends) == (expected["difference"], expected["p"], expected["ci"])
    assert test.verdict == ("behind" if test.difference < 0 else "ahead") if test.p <= 0.05 else "level"
    assert comparison.compared_verdict(runs, [test], best) in page.text


def test_runs_on_other_data_are_named_and_not_tested(noisy, odd, arrays, tmp_path):
    runs = [read_run(noisy, "noisy"), read_run(odd, "odd")]
    opened = [open_run(runs[0], "test", arrays), open_run(runs[1], "test", odd_arrays())]
    tests, (note,) = comparison.tested(opened, runs[0])
    assert tests == []
    assert note.startswith("Not tested: odd and noisy differ in modalities")


def test_a_sweep_is_its_runs(swept, tmp_path):
    page = page_of(write_report(swept, tmp_path / "sweep.html"))
    assert page.sections == ["sweep-1", "comparison", *OF_A_RUN]
    summary = json.loads((swept / "summary.json").read_text())
    for cell in summary["cells"]:
        spread = cell["test"]["kept"]["average"]
        assert f"{spread['mean']:.3f} ± {spread['std']:.3f}" in page.text
    assert "4 runs in 2 cells" in page.text
    assert "no differences are tested" in page.text  # one method: nothing to choose from


def test_cells_of_a_sweep_are_tested_over_seeds(swept):
    """Against SciPy, on scores made up for a second setting."""
    (sweep,) = find_runs([swept]).sweeps.values()
    runs = {}
    for beta, shift in ((0.9, 0.0), (0.7, 0.2)):
        for (name, run), noise in zip(sweep.runs.items(), (0.0, 0.03, 0.0, 0.01), strict=True):
            scores = json.loads(json.dumps(run.scores))
            for split in ("valid", "test"):
                scores[split][scores["kept"]]["average"] -= shift and shift + noise
            config = with_settings(run.config, beta=beta)
            runs[f"{name}-{beta}"] = dataclasses.replace(run, config=config, scores=scores)
    section = sweep_section("made up", Sweep(runs, None), 1)
    table = next(b for b in section.blocks if isinstance(b, Table) and b.head[1] == "against")
    expected = {(f"noise rate {r}, beta 0.7", f"noise rate {r}, beta 0.9") for r in (0.2, 0.6)}
    assert {(r[0].text, r[1].text) for r in table.rows} == expected
    for row in table.rows:
        rate = float(row[0].text.split()[2].rstrip(","))
        pairs = [
            [runs[f"{n}-{b}"].scores["test"][runs[f"{n}-{b}"].scores["kept"]]["average"] for b in (0.7, 0.9)]
            for n, run in sweep.runs.items()
            if run.config.noise_rate == rate
        ]
        expected = stats.ttest_rel(*np.transpose(pairs))
        assert row[2].sort == pytest.approx(np.diff(np.transpose(pairs)[::-1], axis=0).mean())
        assert row[3].sort == pytest.approx(expected.pvalue)
        assert row[4].text == NOTHING.text  # two seeds are too few for a verdict


def test_runs_of_sweeps_and_many_runs_are_not_loaded(swept, noisy, arrays, tmp_path, monkeypatch):
    page = page_of(write_report(swept, tmp_path / "swept.html"))
    assert "without tests of single runs" in page.text
    assert "swept: 4 runs in 2 cells." in page.text
    runs = sorted((swept / "runs").iterdir())
    monkeypatch.setattr("mrl_jax.report.write.TESTED", 3)
    many = page_of(write_report(runs, tmp_path / "many.html"))
    assert "without tests of single runs" in many.text
    monkeypatch.setattr("mrl_jax.report.write.TESTED", 4)
    few = page_of(write_report(runs, tmp_path / "few.html"))
    assert "Paired randomisation test" in few.text


def test_names_of_folders_differ(swept, base, tmp_path):
    (tmp_path / "swept").mkdir()
    found = find_runs([swept, base / "swept/runs" / next((swept / "runs").iterdir()).name])
    assert len({r.name for r in found.runs}) == len(found.runs) == 5


@pytest.mark.parametrize(
    "config",
    [
        preset("emoji"),
        preset("emoji", method="consensus", noise_rate=0.4, tau1=0.3),
        preset("custom", data_path="/x y/a.npz", modalities=("a", "b c"), noisy_validation=True, noise_rate=0.2),
        preset("wikipedia", loss="gce", hidden_dims=(7, 8)),
        preset("custom", method="cca", keys=("a=b", "c=d")),
    ],
)
def test_the_command_gives_the_configuration(config):
    words = shlex.split(training_command(config))
    assert words[:3] == ["python", "-m", "mrl_jax.train"]
    parser = Parser()
    add_config_flags(parser)
    given = vars(parser.parse_args(words[3:]))
    assert preset(given.pop("preset"), **given) == config


def test_the_command(noisy, arrays, tmp_path, capsys):
    data = save_npz(tmp_path / "data.npz", arrays)
    out = tmp_path / "page.html"
    flags = ["--workdir", str(noisy), "--data-path", str(data), "--html", str(out), "--title", "A & B"]
    assert main(flags) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"report: {out} (")
    assert "s  map" in captured.err
    assert "<title>A &amp; B</title>" in out.read_text("utf-8")
    command = f"python -m mrl_jax.report --workdir {noisy} --data-path {data} --title 'A & B'"
    assert command in page_of(out).text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz", "page.html"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "needs the folder of a run or a sweep: --workdir DIR"),
        (["--workdir", "RUN", "--split", "train"], "invalid choice: 'train'"),
        (["--workdir", "BASE/nowhere"], "holds no run"),
        (["--workdir", "BASE"], "holds neither a run nor a sweep"),
        (["--workdir", "RUN", "RUN"], "is given twice"),
        (["--workdir", "RUN", "ODD"], "name its file: --html FILE"),
        (["--workdir", "RUN", "--html", "RUN/config.json"], "belongs to the run"),
        (["--workdir", "RUN", "--html", "BASE/none/x.html"], "its folder does not exist"),
        (["--workdir", "RUN"], "trained on arrays in memory; pass them, or their file: --data-path FILE"),
        (["--workdir", "https://x.org/run"], "is an address"),
    ],
)
def test_bad_input_is_one_line(flags, message, noisy, odd, base, capsys):
    words = {"RUN": str(noisy), "ODD": str(odd), "BASE": str(base)}
    flags = [f.replace("BASE", words["BASE"]).replace("RUN", words["RUN"]).replace("ODD", words["ODD"]) for f in flags]
    assert main(flags) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_in_python_the_message_names_the_argument(noisy, odd):
    with pytest.raises(InputError, match="html=FILE"):
        write_report([noisy, odd])
    with pytest.raises(InputError, match="choose test or valid"):
        write_report(noisy, split="train")


def test_pictures_from_a_folder_are_small_and_once(noisy, arrays, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    ids = np.array([f"id{i}" for i in range(27)])
    data = {**arrays, "test_ids": ids}
    data |= {f"{s}_ids": np.array([f"{s}{i}" for i in range(n)]) for s, n in (("train", 60), ("valid", 24))}
    for i in (0, 1):
        Image.new("RGB", (300, 200), (200 * i, 0, 0)).save(folder / f"id{i}.png")
    page = page_of(write_report(noisy, tmp_path / "p.html", data=data, pictures=folder))
    assert len(page.data["pictures"]) == 2
    assert all(p.startswith("data:image/") and len(p) < 2000 for p in page.data["pictures"])
    shown = [item for item in page.data["items"] if item["p"] >= 0]
    assert {item["id"] for item in shown} == {"id0", "id1"}
    assert len(shown) == 4  # of both modalities


def test_the_toy_run_is_what_it_says(noisy):
    assert RunFolder.open(noisy).config() == with_settings(
        toy_config(modalities=("sound", "touch"), noise_rate=0.5), tau1=1.0, tau2=1.0, representation="embedding"
    )


def test_suspects_of_the_audit_are_shown_in_their_order(noisy, arrays, tmp_path, monkeypatch):
    found = audit_run(noisy, data=arrays).audit.suspects(40)
    page = page_of(write_report(noisy, tmp_path / "audit.html", data=arrays))
    section = page.text[page.text.index("Suspicious labels\n") :] if "Suspicious labels\n" in page.text else page.text
    assert found
    assert f"train:{found[0]['row']}" in section

    def refuse(folder, data):
        raise InputError("no labels are recorded")

    monkeypatch.setattr("mrl_jax.report.write.audit_run", refuse)
    page = page_of(write_report(noisy, tmp_path / "none.html", data=arrays))
    assert page.sections == OF_A_RUN
    assert "Unknown: no labels are recorded." in page.text


def test_the_same_run_gives_the_same_page(noisy, arrays, tmp_path):
    pages = [write_report(noisy, tmp_path / name, data=arrays).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_folders_of_the_first_version(tmp_path):
    with tarfile.open(Path(__file__).parents[1] / "run" / "format1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in [
        *tmp_path.glob("*/config.json"),
        *tmp_path.glob("*/runs/*/config.json"),
        tmp_path / "sweep/sweep.json",
    ]:
        file.write_text(file.read_text().replace("/format1/toy.npz", str(tmp_path / "toy.npz")))
    page = page_of(write_report([tmp_path / "mrl", tmp_path / "sweep"], tmp_path / "old.html"))
    assert page.sections == ["sweep-1", "comparison", *OF_A_RUN]
