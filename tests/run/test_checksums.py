"""Damage and edits of a run's files: the undisturbed numbers, or a refusal; never a killed run that is refused."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from faults import damage  # a namespace package
from toy import TOY_FLAGS, lose, save_npz, toy_arrays, toy_config

from mrl_jax import InputError, load_run, train
from mrl_jax.checksums import CHECKSUMS, CheckedFolder
from mrl_jax.errors import DamageWarning
from mrl_jax.run import folder as folder_module
from mrl_jax.run.folder import RunFolder
from mrl_jax.training import loop

CONFIG = toy_config(epochs=4, noise_rate=0.3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run with a checkpoint of every epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_INTERVAL", 0.0)
        patch.setattr(loop, "_TIME_FRACTION", np.inf)
        folder = tmp_path_factory.mktemp("runs") / "run"
        train(CONFIG, folder, data=toy_arrays(), keep_checkpoints=True)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def flip_arrays(run, epoch):
    """All files with arrays of a checkpoint: it is a matter of timing which of them are read."""
    for path in (run / "checkpoints" / str(epoch) / "default").rglob("d/*"):
        flip(path)


def without_time(result):
    return {k: v for k, v in json.loads((result / "result.json").read_text()).items() if k != "seconds"}


def test_a_run_has_a_checksum_of_every_file_that_is_read(run):
    listed = CheckedFolder(run).recorded()
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file() and "checkpoints" not in p.parts}
    assert set(listed["files"]) | {"config.json", CHECKSUMS, "curves.png"} == names
    assert all(len(checksums) == 1 for checksums in listed["files"].values())  # nothing is left half-way
    assert listed["settings"] == [json.loads((run / "config.json").read_text())]


@pytest.mark.parametrize("name", ["data.json", "noise.json", "result.json", "metrics.jsonl", "samples/000002.npz"])
def test_a_changed_file_is_refused_by_name(run, name):
    content = (run / name).read_bytes()
    digit = max(i for i, c in enumerate(content) if chr(c).isdigit())
    (run / name).write_bytes(content[:digit] + b"%d" % ((content[digit] - 47) % 10) + content[digit + 1 :])
    folder = RunFolder.open(run)
    with pytest.raises(InputError, match=rf"{name}.*(was changed or damaged|is damaged)"):
        folder.data(), folder.noise(), folder.result(), folder.metrics(), folder.samples()
    (run / CHECKSUMS).unlink()  # the way out, which the message names
    if name.endswith("json"):
        folder.data(), folder.noise(), folder.result()


def test_settings_that_were_edited_are_named_with_what_they_were(run):
    path = run / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))  # other spaces, the same settings
    assert RunFolder.open(run).config() == load_run(run).config
    path.write_text(json.dumps(values | {"learning_rate": 0.5}))
    with pytest.raises(InputError, match=r"learning_rate is 0\.5, was 0\.01; put that back, or start another run"):
        load_run(run)


def test_files_that_are_lost_are_missed_or_made_again(run, finished):
    for name in ("noise.json", "data.json", "result.json"):
        (run / name).unlink()
    train(CONFIG, run, data=toy_arrays(), resume=True)
    assert without_time(run) == without_time(finished)
    for name in ("noise.json", "data.json"):
        assert (run / name).read_bytes() == (finished / name).read_bytes()
    (run / "samples" / "000003.npz").unlink()
    with pytest.raises(InputError, match=r"000003\.npz is missing; delete the folder samples"):
        RunFolder.open(run).samples()
    shutil.rmtree(run / "samples")
    assert RunFolder.open(run).samples() == {}
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    with pytest.raises(InputError, match=r"result\.json is missing"):
        load_run(run)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, finished):
    (run / "result.json").unlink()
    flip_arrays(run, 4)
    with pytest.warns(DamageWarning, match=r"checkpoint of epoch 4 .*goes on from the checkpoint before, of epoch 3"):
        train(CONFIG, run, data=toy_arrays(), resume=True)
    assert without_time(run) == without_time(finished)
    assert (run / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert load_run(run, "last").epoch == 4  # written anew
    flip_arrays(run, 4)  # now the only one
    (run / "result.json").unlink()
    with pytest.raises(InputError, match="checkpoint of epoch 4"):
        train(CONFIG, run, data=toy_arrays(), resume=True)


def test_a_checkpoint_that_is_half_deleted_is_no_obstacle(run, finished, monkeypatch):
    remove, lost = shutil.rmtree, []

    def remove_half(path):
        lost.append(path)
        remove(next(Path(path).glob("metrics")))
        raise SystemExit  # as if killed

    (run / "result.json").unlink()
    monkeypatch.setattr(shutil, "rmtree", remove_half)
    with pytest.raises(SystemExit):
        train(CONFIG, run, data=toy_arrays(), resume=True)  # which keeps the last checkpoint only
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert len(lost) == 1
    assert lost[0].exists()
    lose(run, "result.json")
    train(CONFIG, run, data=toy_arrays(), resume=True)
    assert without_time(run) == without_time(finished)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["4"]


def test_the_log_of_another_run_is_refused(run, tmp_path):
    train(toy_config(epochs=4, seed=7), tmp_path / "other", data=toy_arrays())
    shutil.copy(tmp_path / "other" / "metrics.jsonl", run)
    with pytest.raises(InputError, match="its last checksum differs"):
        RunFolder.open(run).metrics()
    (run / "model.npz").unlink()
    with pytest.raises(InputError, match="is not the file of this run"):
        load_run(run)


def test_a_write_that_is_killed_at_any_step_leaves_a_folder_that_is_read(run, monkeypatch):
    folder, before, replace, killed = RunFolder.open(run), RunFolder.open(run).noise(), os.replace, 0
    after = before | {"scope": "instance"}
    for step in range(3):  # of both renames: of the checksums, and of the file
        calls = []

        def at_step(source, target, step=step, calls=calls):
            if len(calls) == step:
                raise SystemExit  # nothing but the clean-up of the temporary file runs
            calls.append(target)
            replace(source, target)

        monkeypatch.setattr(os, "replace", at_step)
        try:
            folder.write("noise.json", after)
        except SystemExit:
            killed += 1
        monkeypatch.setattr(os, "replace", replace)
        assert RunFolder.open(run).noise() == (after if step == 2 else before)
    assert killed == 2


def test_a_run_of_an_earlier_version_is_told_of_and_gets_checksums_when_it_resumes(tmp_path, monkeypatch):
    with tarfile.open(Path(__file__).parent / "consensus3.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr(folder_module, "_noted", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("complete", "half"):
            config = load_run(tmp_path / name).config
    assert [w.category for w in caught] == [DamageWarning]
    assert "has no checksums (an earlier version wrote it)" in str(caught[0].message)
    assert not (tmp_path / "half" / CHECKSUMS).exists()  # reading writes nothing
    train(config, tmp_path / "half", data=dict(np.load(tmp_path / "toy.npz")), resume=True)
    flip(tmp_path / "half" / "data.json")
    with pytest.raises(InputError, match=r"data\.json"):
        load_run(tmp_path / "half")


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["d/*", "_METADATA"])
def test_a_failed_read_is_one_line_on_standard_error(run, tmp_path, lost):
    (run / "model.npz").unlink()
    (run / CHECKSUMS).unlink()
    for path in (run / "checkpoints" / "4" / "default").rglob(lost):
        path.write_bytes(path.read_bytes()[:20])
    flags = ["--workdir", run, "--data-path", save_npz(tmp_path / "toy.npz"), "--checkpoint", "last"]
    done = subprocess.run([sys.executable, "-m", "mrl_jax.eval", *map(str, flags)], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if "has no checksums" not in line]
    assert done.returncode == 2
    assert len(lines) == 1, done.stderr
    assert "checkpoint of epoch 4 cannot be read" in lines[0]


@pytest.mark.slow
def test_too_few_file_handles_are_one_line(tmp_path):
    pytest.importorskip("resource")
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16));"
        "from mrl_jax.train import main; sys.exit(main(sys.argv[1:]))"
    )
    flags = ["--data-path", save_npz(tmp_path / "toy.npz"), *TOY_FLAGS, "--workdir", tmp_path / "run"]
    done = subprocess.run([sys.executable, "-c", limited, *map(str, flags)], capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if not line.startswith(("run folder", "epoch"))]
    assert done.returncode in (0, 1)
    assert len(errors) == done.returncode, done.stderr
    assert all("ulimit" in line for line in errors)


@pytest.mark.slow
def test_a_share_of_the_damages_that_the_program_tries():
    """`python tests/faults/damage.py` tries thousands."""
    counts, failed = damage.run(60, seed=11, kinds=("complete", "killed", "index"), shown=False)
    assert not failed
    assert sum(counts.values()) == 60
    assert {outcome for _, _, outcome in counts} >= {"same", "refused"}
