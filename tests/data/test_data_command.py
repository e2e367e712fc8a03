"""`python -m mrl_jax.data`: list, info, prepare."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from layout_files import SIZES, inria_short, small_set

from mrl_jax import load_dataset
from mrl_jax.data.__main__ import main
from mrl_jax.data.published import hub
from mrl_jax.data.published.catalog import CATALOG, EMOJI
from mrl_jax.errors import DatasetWarning

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    return inria_short(tmp_path / "INRIA-Websearch.mat", small_set())


def run(capsys, *argv):
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_list_names_every_set_and_what_is_ready(source, capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for name, facts in CATALOG.items():
        [line] = [line for line in out.splitlines() if line.startswith(f"{name} ")]
        assert facts.files[0].names in line
        assert " no " in line
    run(capsys, "prepare", "inria-websearch", "--data-path", source)
    [line] = [line for line in run(capsys, "list")[1].splitlines() if line.startswith("inria-websearch ")]
    assert "image text" in line


@pytest.mark.parametrize("name", CATALOG)
def test_info_prints_file_keys_and_place_of_every_set(source, name, capsys):
    code, out, _ = run(capsys, "info", name)
    assert code == 0
    facts = CATALOG[name]
    for known in facts.files:
        assert f"file: {known.names}\n      keys: {known.keys}" in out
    assert facts.published in out
    assert ("not in the paper; the values of the preset are not the paper's" in out) == (not facts.in_paper)
    assert "not prepared; run: python -m mrl_jax.data prepare" in out
    info = json.loads(run(capsys, "info", name, "--json")[1])
    assert info["published"]["classes"] == facts.classes


def test_prepare_then_info_shows_digests_splits_and_histogram(source, capsys):
    code, out, err = run(capsys, "prepare", "inria-websearch", "--data-path", source)
    assert code == 0
    assert err.count("warning: ") == 1
    assert "4 classes; INRIA-Websearch has 100" in err
    assert "now: python -m mrl_jax.train inria-websearch" in out
    code, out, _ = run(capsys, "info", "inria-websearch", "--verify")
    assert code == 0
    data = load_dataset("inria-websearch")
    assert f"sha256: {data.digest()}" in out
    assert "image: 6 features, 40 / 12 / 20 samples" in out
    assert "differs: 4 classes; INRIA-Websearch has 100" in out
    assert "verified: 12 arrays are unchanged" in out
    counts = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()[:1] in (["0"], ["3"])}
    assert counts["0"] == [str((data.splits[s].labels["image"] == 0).sum()) for s in SIZES]


def test_info_looks_into_files_of_ones_own(tmp_path, capsys):
    np.savez(tmp_path / "own.npz", **small_set(("image", "audio")))
    code, out, _ = run(capsys, "info", "mine", "--data-path", tmp_path / "own.npz")
    assert code == 0
    assert "audio: 3 features, 40 / 12 / 20 samples" in out


def test_info_and_prepare_cut_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = small_set()
    np.savez(tmp_path / "whole.npz", A=arrays["train_image"], B=arrays["train_text"], C=arrays["train_labels"])
    keys = ["--keys", "image=A", "text=B", "labels=C"]
    cut = [*keys, "--split", "50/25/25", "--split-seed", "7"]
    code, out, _ = run(capsys, "info", "mine", "--data-path", tmp_path / "whole.npz", *cut)
    assert code == 0
    assert "text: 5 features, 20 / 10 / 10 samples" in out
    assert "cut: split 50/25/25, by class, seed 7" in out
    code, out, _ = run(capsys, "prepare", "xmedia", "--data-path", tmp_path / "whole.npz", *cut)
    assert code == 0
    expected = load_dataset(tmp_path / "whole.npz", keys=keys[1:], split="50/25/25", split_seed=7)
    assert load_dataset("xmedia").digest() == expected.digest()
    assert load_dataset("xmedia").metadata["cut"]["seed"] == 7
    np.savez(tmp_path / "two.npz", **{k: v for k, v in arrays.items() if not k.startswith("valid")})
    code, out, _ = run(capsys, "info", "mine", "--data-path", tmp_path / "two.npz", "--valid-share", "0.1")
    assert "36 / 4 / 20 samples" in out
    assert "cut: validation: 0.1 of train, by class, seed 0" in out


@pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")
def test_a_prepared_copy_whose_validation_lacks_classes_of_the_test_is_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = small_set()
    arrays["valid_labels"] %= 2
    np.savez(tmp_path / "own.npz", **arrays)
    run(capsys, "prepare", "xmedia", "--data-path", tmp_path / "own.npz")
    message = (
        r"2 of 4 classes have test samples but no validation sample .* prepare xmedia --data-path FILE --valid-share"
    )
    with pytest.warns(DatasetWarning, match=message):
        load_dataset("xmedia")


def test_verify_reports_damage(source, tmp_path, capsys):
    run(capsys, "prepare", "inria-websearch", "--data-path", source)
    path = tmp_path / "cache/inria-websearch/image-text/1.0.0/arrays/valid_text.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 4
    path.write_bytes(raw)
    code, _, err = run(capsys, "info", "inria-websearch", "--verify")
    assert code == 2
    assert "valid_text.npy: its digest differs" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "arguments are required"),
        (["frobnicate"], "invalid choice"),
        (["info"], "arguments are required"),
        (["info", "mnist"], "unknown data set 'mnist'"),
        (["info", "mine", "--data-path", "absent.h5"], "does not exist"),
        (["info", "nus-wide", "--verify"], "no prepared copy to verify"),
        (["info", "nus-wide", "--modalities", "image", "text"], "nus-wide is not prepared"),
        (["info", "nus-wide", "--data-path", "x", "--verify"], "--verify compares the prepared copy, and --data-path"),
        (["info", "mine", "--verify"], "unknown data set 'mine'"),
        (["info", "nus-wide", "--data-path", ""], "--data-path is empty"),
        (["info", "emoji", "--data-path", "x"], "emoji comes with the package"),
        (["info", "emoji", "--verify"], "emoji comes with the package and has no prepared copy that could be verified"),
        (["info", "emoji", "--modalities", "image", "smell"], "modalities image smell"),
        (["info", "emoji:9.0.0"], "emoji has the versions 1.0.0, 2.0.0"),
        (["info", "emoji", "--split", "60/15/25"], "--split is for a file; give it with --data-path"),
        (["info", "emoji", "--split-seed", "1", "--keys", "a=b"], "--keys is for a file; give it with --data-path"),
        (["info", "nus-wide", "--split-seed", "1"], "--split-seed is for a file; give it with --data-path"),
        (["prepare", "emoji", "--data-path", "x"], "emoji comes with the package"),
        (["prepare", "emoji", "--data-path", ""], "--data-path is empty"),
        (["prepare", "emoji", "--download"], "emoji comes with the package"),
        (["prepare", "nus-wide", "--data-path", ""], "--data-path is empty"),
        (["prepare", "mnist", "--data-path", "x"], "unknown data set 'mnist'"),
        (["prepare", "nus-wide"], "needs either --data-path FILE"),
        (["prepare", "nus-wide", "--data-path", "x", "--download"], "needs either --data-path FILE"),
        (["prepare", "nus-wide", "--download"], "not on the hub"),
        (["prepare", "nus-wide", "--data-path", "absent.h5py"], "does not exist"),
        (["prepare", "emoji", "--split", "60/15/25"], "emoji comes with the package"),
        (["prepare", "nus-wide", "--data-path", "x", "--split", "60/40"], "give the percentages of train, validation"),
        (["info", "nus-wide", "--split", "60/15/25"], "--split is for a file; give it with --data-path"),
        (
            ["info", "nus-wide", "--data-path", "x", "--split-seed", "1"],
            "split_seed 1 needs split or valid_share",
        ),
        (["info", "nus-wide", "--valid-share", "0"], "--valid-share is for a file; give it with --data-path"),
        (
            ["info", "mine", "--data-path", "x", "--valid-share", "0"],
            "valid_share 0.0: must be a number greater than 0",
        ),
        (["prepare", "emoji", "--valid-share", "0"], "emoji comes with the package"),
        (["featurize"], "arguments are required"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(source, tmp_path, argv, message, capsys):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    line = err.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in err
    assert not list(tmp_path.glob("cache/*"))  # nothing was prepared


def test_download_prepares_what_the_hub_holds(source, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "inria-websearch.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(source, "INRIA-Websearch/INRIA-Websearch.mat")
        zipped.writestr("readme.txt", "features")

    def download(repo, filename, folder, **options):
        assert (repo, filename) == ("xinxin713/hashing-benchmark-datasets", "data/inria-websearch.zip")
        hub.unpack_zip(archive, folder)
        return folder

    monkeypatch.setattr(hub, "download", download)  # test_hub.py tests it against a server
    code, out, _ = run(capsys, "prepare", "inria-websearch", "--download")
    assert code == 0
    assert "prepared in" in out
    assert load_dataset("inria-websearch").digest() == load_dataset(source).digest()


def test_emoji_needs_no_preparation(monkeypatch, capsys):
    monkeypatch.setattr("mrl_jax.data.__main__.load_dataset", lambda name: name)
    assert run(capsys, "prepare", "emoji")[:2] == (0, "emoji: ready (it comes with the package)\n")


@pytest.mark.slow
def test_info_of_another_split_of_emoji(capsys):
    code, out, _ = run(capsys, "info", "emoji", "--split-seed", "3")
    assert code == 0
    assert "data: emoji/2.0.0, made from packages" in out
    assert "cut: split 70/10/20, by class, near-duplicates together, seed 3" in out
    assert json.loads(run(capsys, "info", "emoji:1.0.0", "--json")[1])["data"]["metadata"]["source"].startswith(
        "emoji/1.0.0"
    )


def test_info_prints_of_emoji_what_the_catalog_says(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path))
    code, out, _ = run(capsys, "info", "emoji")
    assert code == 0
    assert "emoji: Emoji, 9 classes, 1,338 / 185 / 375 instances (train / valid / test)" in out
    assert "where: comes with the package" in out
    for m in ("image", "text"):
        assert f"{m}: {EMOJI.dims[m]} features, 1,338 / 185 / 375 samples" in out
    assert "Smileys & Emotion" in out
    info = json.loads(run(capsys, "info", "emoji", "--modalities", "text_de", "image", "--json")[1])
    assert info["data"]["instances"] == info["published"]["instances"]
    assert list(info["data"]["modalities"]) == ["text_de", "image"]


def test_prepare_repairs_and_info_verifies(source, tmp_path, capsys):
    run(capsys, "prepare", "inria-websearch", "--data-path", source)
    (tmp_path / "cache/inria-websearch/image-text/1.0.0/prepared.json").write_text("{")
    assert run(capsys, "info", "inria-websearch", "--verify")[0] == 2
    assert run(capsys, "list")[0] == 0
    code, _, err = run(capsys, "prepare", "inria-websearch", "--data-path", source)
    assert code == 0
    assert "is damaged and is prepared again" in err
    assert run(capsys, "info", "inria-websearch", "--verify")[0] == 0


def test_prepare_shows_the_copy_that_it_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "own.npz", **small_set(("image", "text", "audio")))
    for modalities in (["--modalities", "image", "text"], []):
        out = run(capsys, "prepare", "xmedianet", "--data-path", tmp_path / "own.npz", *modalities)[1]
        assert ("audio: 3 features" in out) == (not modalities)


def test_a_closed_pipe_is_no_error(source):
    code = "import sys; from mrl_jax.data.__main__ import main; sys.exit(main(['list']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_after_preparing_other_modalities_the_next_command_names_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    np.savez(tmp_path / "own.npz", **small_set(("audio", "video")))
    _, out, _ = run(capsys, "prepare", "wikipedia", "--data-path", tmp_path / "own.npz")
    assert "now: python -m mrl_jax.train wikipedia --modalities audio video" in out
    assert load_dataset("wikipedia", ("audio", "video")).dims == {"audio": 3, "video": 2}
