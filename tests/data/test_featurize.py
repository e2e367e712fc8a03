"""The command `featurize`: arguments, the output file, and interrupted runs."""

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from raw_files import SPLITS, Job, cuda_is_there, draw, job_without_models, read, refused, small_models

from mrl_jax import load_dataset
from mrl_jax.data.featurize import pipeline as module
from mrl_jax.data.featurize.pipeline import add_arguments, run


@pytest.fixture
def job(tmp_path):
    return job_without_models(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with small_models(tmp_path_factory.getbasetemp() / "models") as made:
        yield made


@pytest.fixture
def real(tmp_path, models):
    return Job(tmp_path, models["vit"], models["bert"])


def test_neither_the_module_nor_a_refusal_imports_torch(job):
    job.rows[3]["id"] = "p2"
    job.write()
    code = f"""
import sys
from mrl_jax import InputError
from mrl_jax.data.featurize import featurize
try:
    featurize({str(job.images)!r}, {str(job.texts)!r}, "out.npz", image_model={str(job.root / "shell")!r},
              text_model="owner/name")
except InputError as error:
    print(error)
print(sorted({{"torch", "transformers"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'p2' occurs twice" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_missing_packages_are_reported_with_the_command_that_installs_them(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(job, "pip install torch 'transformers>=5'")
    assert not job.work().exists()


def test_the_flags_are_those_of_the_function(job, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flags = ["--images", "i", "--texts", "t", "--image-model", "m", "--text-model", "n", "--output", "o.npz"]
    calls = []
    monkeypatch.setattr(module, "featurize", lambda *args, **options: calls.append((args, options)) or Path("o.npz"))
    run(parser.parse_args(flags))
    run(parser.parse_args([*flags, "--batch-size", "4", "--device", "cuda", "--seed", "3"]))
    shared = {"image_model": "m", "text_model": "n", "progress": True}
    assert calls == [
        (("i", "t", "o.npz"), {**shared, "batch_size": 32, "device": "auto", "seed": 0}),
        (("i", "t", "o.npz"), {**shared, "batch_size": 4, "device": "cuda", "seed": 3}),
    ]
    assert capsys.readouterr().out == "o.npz\no.npz\n"


BAD_ARGUMENTS = {
    "batch size 0": ({"batch_size": 0}, ["batch size 0", "1 or more"]),
    "batch size is text": ({"batch_size": "8"}, ["batch size '8'"]),
    "device": ({"device": "tpu"}, ["device 'tpu'", "auto, cpu or cuda"]),
    "output suffix": ({"output": "out.csv"}, ["out.csv", ".npz"]),
    "no model folder": ({"image_model": "./absent"}, ["image model ./absent", "does not exist"]),
    "no deep model folder": ({"text_model": "a/b/c"}, ["text model a/b/c", "does not exist"]),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line(job, case):
    options, parts = BAD_ARGUMENTS[case]
    refused(lambda: job(**options), *parts)


def test_folders_without_pictures_or_model_are_refused(job):
    (job.root / "shell" / "config.json").unlink()
    refused(job, "image model", "shell", "no config.json")
    job.images = job.root / "absent"
    refused(job, "images", "absent", "no such folder")


FOREIGN_OUTPUTS = {
    "text": lambda job: job.output.write_text("mine"),
    "arrays": lambda job: np.savez(job.output, x=np.ones(3)),
    "folder": lambda job: job.output.mkdir(),
}


@pytest.mark.parametrize("kind", FOREIGN_OUTPUTS)
def test_an_output_of_others_is_refused_before_a_model_is_loaded(job, kind, monkeypatch):
    monkeypatch.setattr(module, "torch_device", lambda device: pytest.fail("went on to the models"))
    FOREIGN_OUTPUTS[kind](job)
    refused(job, "out.npz exists and was not made by featurize")
    assert not job.work().exists()


@pytest.mark.bench
def test_the_file_is_in_the_layout_and_loads(real, capfd):
    assert real() == real.output
    found = read(real.output)
    kinds = {f"{s}_{k}" for s in SPLITS for k in ("image", "image_shown", "text", "text_shown", "labels", "ids")}
    assert set(found) == kinds | {"class_names", "source"}
    assert found["class_names"].tolist() == ["blue", "green", "red"]
    assert found["train_labels"].dtype == np.int32
    assert [found["class_names"][k] for k in found["train_labels"]] == [row["label"] for row in real.rows[:12]]
    source = json.loads(str(found["source"]))
    assert source["image"]["model"] == str(real.options["image_model"])
    assert set(source["versions"]) >= {"torch", "transformers", "pillow"}
    assert source["split"] == "column"
    data = load_dataset(real.output)
    assert data.modalities == ("image", "text")
    assert data.dims == {"image": 16, "text": 16}
    assert {s: len(x) for s, x in data.splits.items()} == {"train": 12, "valid": 3, "test": 3}
    assert data.splits["test"].shown["text"].tolist() == [row["text"] for row in real.rows[15:]]
    assert data.splits["test"].shown["image"].tolist() == ["images/p15.png", "images/p16.png", "images/p17.png"]
    assert not real.work().exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.bench
def test_the_same_inputs_give_the_same_bytes_and_batches_change_rounding_only(real):
    first = real().read_bytes()
    assert real(real.root / "again.npz").read_bytes() == first
    alone, whole = read(real(real.root / "one.npz", batch_size=1)), read(real(real.root / "all.npz", batch_size=100))
    for key, x in read(real.output).items():
        if x.dtype == np.float32:
            np.testing.assert_allclose(alone[key], x, rtol=0, atol=1e-5)
            np.testing.assert_allclose(whole[key], x, rtol=0, atol=1e-5)
        elif key != "source":
            np.testing.assert_array_equal(alone[key], x)


@pytest.mark.bench
def test_missing_texts_and_pictures_are_zeros_under_a_mask(real, capsys):
    complete = read(real(real.root / "complete.npz"))
    (real.images / "p1.png").unlink()
    real.rows[2]["text"] = "  "
    real.rows[13]["text"] = ""
    real.write()
    module.run(argparse.Namespace(images=real.images, texts=real.texts, output=real.output, seed=0, **real.options))
    printed = capsys.readouterr()
    assert "1 of 18 rows have no picture (the first: p1)" in printed.err
    assert "2 of 18 rows have no text (the first: p2)" in printed.err
    assert printed.out == f"{real.output}\n"
    found = read(real.output)
    masks = {key for key in found if key.endswith("_mask")}
    assert masks == {"train_image_mask", "train_text_mask", "valid_text_mask"}
    for key, absent in (("train_image", 1), ("train_text", 2), ("valid_text", 1)):
        expected = np.arange(len(found[key])) != absent
        assert found[f"{key}_mask"].dtype == bool
        np.testing.assert_array_equal(found[f"{key}_mask"], expected)
        assert not found[key][absent].any()
        assert [bool(shown) for shown in found[f"{key}_shown"]] == expected.tolist()
        np.testing.assert_allclose(found[key][expected], complete[key][expected], rtol=0, atol=1e-5)


@pytest.mark.bench
@pytest.mark.parametrize("commits", [1, 4, 6])
def test_an_interrupted_run_continues_to_the_same_bytes(real, monkeypatch, commits):
    expected = real(real.root / "whole.npz").read_bytes()
    commit, calls = module._Work.commit, []

    def interrupted(work, *args):
        if len(calls) == commits:  # features are written, but not yet committed
            raise KeyboardInterrupt
        calls.append(args)
        commit(work, *args)

    monkeypatch.setattr(module._Work, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        real()
    assert not real.output.exists()
    monkeypatch.setattr(module._Work, "commit", lambda work, *args: (calls.append(args), commit(work, *args)))
    assert real().read_bytes() == expected
    assert len(calls) == 8  # four batches of pictures and four of texts, each once
    assert not real.work().exists()


@pytest.mark.bench
def test_a_killed_process_continues_to_the_same_bytes(real):
    expected = real(real.root / "whole.npz").read_bytes()
    options = {key: str(value) if isinstance(value, Path) else value for key, value in real.options.items()}
    code = f"""
import os, signal
from mrl_jax.data.featurize import pipeline as module
save, calls = module._Work.save, []
def killed(work):
    calls.append(0)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    save(work)
module._Work.save = killed
module.featurize({str(real.images)!r}, {str(real.texts)!r}, {str(real.output)!r}, **{options!r})"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = json.loads((real.work() / "progress.json").read_text())
    assert state["image"]["done"] == 10
    assert real().read_bytes() == expected


@pytest.mark.bench
def test_an_output_of_the_same_settings_is_left_and_others_are_refused(real, capsys):
    first = real().read_bytes()
    when = real.output.stat().st_mtime_ns
    real.work().mkdir()  # as if killed before the work folder was removed
    digest = json.loads(str(read(real.output)["source"]))["digest"]
    (real.work() / "progress.json").write_text(json.dumps({"digest": digest, "image": {"done": 18, "pooling": ""}}))
    assert real(progress=True, device="auto" if not cuda_is_there() else "cpu") == real.output
    assert "nothing to do" in capsys.readouterr().err
    assert (real.output.read_bytes(), real.output.stat().st_mtime_ns) == (first, when)
    assert not real.work().exists()
    refused(lambda: real(batch_size=4), "out.npz exists and was made from other inputs or with other settings")
    refused(lambda: real(image_model=real.options["text_model"]), "other settings")
    draw(real.images / "p1.png", 2)
    refused(real, "other inputs")
    assert real.output.read_bytes() == first


def interrupt(job, monkeypatch):
    commit = module._Work.commit

    def interrupted(work, *args):
        commit(work, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Work, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            job()


@pytest.mark.bench
def test_a_work_folder_of_others_is_refused(real, monkeypatch):
    interrupt(real, monkeypatch)
    refused(lambda: real(batch_size=4), "out.npz.partial holds features of other inputs or settings", "delete it")
    with module._locked(real.work()):
        refused(real, "another process is using it")
    (real.work() / "image.npy").write_bytes(b"damaged")
    refused(real, "out.npz.partial is damaged", "delete it")
    (real.work() / "progress.json").write_text("{")
    refused(real, "other files or is damaged")
    (real.work() / "progress.json").unlink()
    refused(real, "other files or is damaged")
    assert (real.work() / "image.npy").exists()


@pytest.mark.bench
def test_a_full_disk_is_reported_and_the_run_continues_later(real, monkeypatch):
    expected = real(real.root / "whole.npz").read_bytes()

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        refused(real, "out.npz cannot be written (No space left on device)", "free space")
    assert not real.work().exists()
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "open", full)
        refused(real, "No space left on device")
    assert real.work().exists()
    assert real().read_bytes() == expected


@pytest.mark.bench
def test_progress_is_lines_in_a_log_and_a_bar_on_a_terminal(real, capsys, monkeypatch):
    real(progress=True)
    assert capsys.readouterr().err.splitlines() == ["image: 18 of 18 rows", "text: 18 of 18 rows"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    real(real.root / "again.npz", progress=True)
    assert "18/18" in capsys.readouterr().err
