"""The training command: flags, output, and one line with exit code 2 for everything a user can get wrong."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from toy import TOY_FLAGS, assert_same_checkpoints, save_npz, toy_arrays

from mrl_jax import cli, interrupt
from mrl_jax.cli import Parser
from mrl_jax.data.published.prepare import prepare
from mrl_jax.eval.__main__ import main as evaluate_main
from mrl_jax.train import main

pytestmark = pytest.mark.slow


def run_command(*args, **kwargs):
    return subprocess.run([sys.executable, "-m", *map(str, args)], capture_output=True, text=True, **kwargs)


@pytest.fixture
def data(tmp_path):
    return save_npz(tmp_path / "toy.npz")


def test_the_command_trains_and_ends_with_a_table(tmp_path, data):
    done = run_command(
        "mrl_jax.train", "--data-path", data, *TOY_FLAGS, "--noise-rate", 0.5, "--workdir", tmp_path / "run"
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("epoch")] != []
    for text in ("sound->touch", "touch->sound", "best (epoch", "last (epoch 3)", "chance (random ranking)"):
        assert text in done.stdout
    for text in (
        "symmetric noise 0.5 per modality",
        "wrong: sound ",
        "time: ",
        f"run folder: {tmp_path / 'run'}",
        "curves.png",
    ):
        assert text in done.stdout
    scored = run_command("mrl_jax.eval", "--workdir", tmp_path / "run", "--json")
    assert (
        json.loads(scored.stdout)["map"]
        == json.loads((tmp_path / "run/result.json").read_text())["test"]["best"]["map"]
    )


def test_every_flag_reaches_the_configuration(tmp_path):
    arrays, data = toy_arrays(), tmp_path / "whole.npz"
    np.savez(data, x=arrays["train_sound"], y=arrays["train_touch"], k=arrays["train_labels"])
    flags = ["--keys", "sound=x", "touch=y", "labels=k", "--split", "60/15/25", "--split-seed", "1"]
    flags += [
        "--modalities",
        "touch",
        "sound",
        "--preprocess",
        "l2",
        "none",
        "--noise-rate",
        "0.25",
        "--noise-scope",
        "instance",
    ]
    flags += [
        "--loss",
        "forward",
        "--assumed-noise",
        "0.125",
        "--beta",
        "0.75",
        "--tau1",
        "0.5",
        "--tau2",
        "0.25",
        "--self-similarity",
        "--seed",
        "7",
    ]
    flags += [
        "--contrastive-scale",
        "program",
        "--schedule",
        "cosine-hold",
        "--weight-decay",
        "0.1",
        "--clip-norm",
        "2",
    ]
    flags += ["--initializer", "lecun_normal", "--precision", "tf32", "--noise-kind", "matrix", "--stream", "on"]
    matrix = tmp_path / "matrix.json"
    matrix.write_text(json.dumps(np.full((3, 3), 1 / 3).tolist()))
    flags += ["--noise-matrix", str(matrix), "--noisy-validation", "--representation", "both"]
    assert main([*TOY_FLAGS, "--data-path", str(data), *flags, "--workdir", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config == {
        "format": 4, "method": "mrl", "method_options": [],
        "keys": ["sound=x", "touch=y", "labels=k"], "split": "60/15/25", "split_seed": 1, "valid_share": None,
        "preset": "custom", "data_path": str(data), "modalities": ["touch", "sound"], "preprocess": ["l2", "none"],
        "noise_rate": 0.25, "noise_kind": "matrix", "noise_scope": "instance", "noise_protocol": None,
        "noise_matrix": str(matrix), "noise_file": None, "noisy_validation": True, "stream": "on",
        "loss": "forward", "loss_options": [], "assumed_noise": 0.125,
        "beta": 0.75, "tau1": 0.5, "tau2": 0.25,
        "self_similarity": True, "contrastive_scale": "program", "epochs": 3, "batch_size": 16,
        "learning_rate": 0.01, "schedule": "cosine-hold", "weight_decay": 0.1, "clip_norm": 2.0, "hidden_dims": [16],
        "embed_dim": 8, "initializer": "lecun_normal", "precision": "tf32", "seed": 7, "init_from": None,
        "representation": "both",
    }  # fmt: skip


def test_custom_data_take_their_labels_as_they_are(tmp_path, data, capsys):
    assert main([*TOY_FLAGS, "--data-path", str(data), "--workdir", str(tmp_path / "run")]) == 0
    assert "as given, no noise injected" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "noise.json").read_text())["rate"] == 0


def test_the_default_run_folder_is_named_after_preset_and_time(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TOY_FLAGS, "--data-path", "toy.npz"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("custom-20")
    assert json.loads((folder / "config.json").read_text())["data_path"] == str(data)


def bad(name, flags, message, **changes):
    return pytest.param(flags, message, changes, id=name)


BAD = [
    bad("missing file", ["--data-path", "absent.npz"], "'absent.npz'|absent.npz' does not exist|neither a file"),
    bad("wrong key", [], "'valid_touch' is missing", valid_touch=None),
    bad("rows differ", [], "numbers of rows differ", train_sound=np.ones((7, 6))),
    bad("label -1", [], "labels must be 0..K-1", test_labels=np.full(27, -1)),
    bad("label 3 never trained", [], "class 3", test_labels=np.full(27, 3)),
    bad("fractional labels", [], "not whole numbers", train_labels=np.full(60, 0.5)),
    bad("NaN", [], "must be finite", train_sound=np.full((60, 6), np.nan)),
    bad("inf", [], "must be finite", valid_sound=np.full((24, 6), np.inf)),
    bad(
        "empty split",
        [],
        "is empty",
        valid_sound=np.ones((0, 6)),
        valid_touch=np.ones((0, 4)),
        valid_labels=np.ones(0, int),
    ),
    bad("class absent", [], "class 1 has no training sample", train_labels=np.arange(60) % 2 * 2),
    bad("batch size", ["--batch-size", "61"], "batch_size 61 is larger than the training split"),
    bad("noise rate", ["--noise-rate", "1.5"], r"noise_rate 1.5: must be in \[0, 1\]"),
    bad("noise rate NaN", ["--noise-rate", "nan"], "noise_rate nan: must be finite"),
    bad("preset", ["--", "imagenet"], "unknown preset 'imagenet'; choose from: emoji"),
    bad("modality", ["--modalities", "sound", "taste"], "no modality 'taste'"),
    bad("loss", ["--loss", "hinge"], "loss 'hinge': choose from rc, ce"),
    bad("not a number", ["--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    bad("unknown flag", ["--learning-rat", "1"], "unrecognized arguments: --learning-rat.*; see .* --help"),
    bad("preprocess", ["--preprocess", "l2", "l2", "l2"], "3 values for 2 modalities"),
    bad("emoji with data", ["--", "emoji"], "brings its own data"),
    bad("unwritable folder", ["--workdir", "/dev/null/run"], "cannot be written"),
    bad(
        "no share", ["--valid-share", "0"], "valid_share 0.0: must be a number greater than 0 and less than 1, such as"
    ),
    bad("noise kind", ["--noise-kind", "pink"], "noise_kind 'pink': choose from symmetric"),
    bad("protocol against kind", ["--noise-protocol", "mrl", "--noise-kind", "cyclic"], "mrl means symmetric"),
    bad("protocol against scope", ["--noise-protocol", "per-pair", "--noise-scope", "modality"], "means instance"),
    bad("kind without rate", ["--noise-kind", "cyclic"], "'cyclic' without noise: add noise_rate R"),
    bad("matrix without rate", ["--noise-kind", "matrix", "--noise-matrix", "m.npy"], "1 applies the matrix"),
    bad("matrix without file", ["--noise-kind", "matrix"], "need each other"),
    bad(
        "noise file and rate",
        ["--noise-file", "n.json", "--noise-rate", "0.2"],
        "noise_file brings the labels; leave out noise_rate",
    ),
    bad("no noise file", ["--noise-file", "absent.json"], "absent.json"),
    bad("noise file and noisy validation", ["--noise-file", "n.json", "--noisy-validation"], "leave noisy_validation"),
    bad("no run to resume", ["--resume"], "holds no run"),
]


@pytest.mark.parametrize(("flags", "message", "changes"), BAD)
def test_bad_input_is_one_line_exit_code_2_and_leaves_nothing(tmp_path, capsys, flags, message, changes):
    data = save_npz(tmp_path / "toy.npz", **changes)
    # Given flags come last and so win; `emoji` and `--resume` take their data from elsewhere.
    own_data = [] if "--resume" in flags else ["--data-path", str(data)]
    assert main([*TOY_FLAGS, *own_data, "--workdir", str(tmp_path / "run"), *flags]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert captured.out == ""
    assert not (tmp_path / "run").exists()


def test_a_list_given_twice_is_named_and_the_last_one_counts(capsys):
    flags = Parser(prog="x")
    flags.add_argument("--dims", nargs="+", type=int)
    flags.add_argument("--rate", type=float)
    given = flags.parse_args(["--dims", "1", "2", "--rate", "1", "--rate", "2", "--dims", "3"])
    assert (given.dims, given.rate) == ([3], 2.0)
    said = "warning: --dims is given twice; the last values count; to have all, give them at once\n"
    assert capsys.readouterr().err == said
    assert flags.parse_args(["--dims", "1"]).dims == [1]  # each command line by itself
    assert capsys.readouterr().err == ""


def test_a_folder_with_another_run_is_refused_and_untouched(tmp_path, data, capsys):
    flags = [*TOY_FLAGS, "--data-path", str(data), "--workdir", str(tmp_path / "run")]
    assert main(flags) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert main([*flags, "--seed", "1"]) == 2
    assert "already holds a run; --resume continues it" in capsys.readouterr().err
    assert main([*flags, "--resume", "--seed", "1"]) == 2
    assert "seed 1 was given, but the run in" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def test_resume_needs_a_folder(capsys):
    assert main(["--resume"]) == 2
    assert "--resume needs the folder of the run" in capsys.readouterr().err


def test_paper_presets_ask_for_their_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    assert main(["wikipedia", "--workdir", str(tmp_path / "run")]) == 2
    assert "python -m mrl_jax.data prepare wikipedia --data-path FILE" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::mrl_jax.errors.DatasetWarning")
def test_a_prepared_set_trains_and_evaluates_by_its_name(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    arrays = {k.replace("sound", "image").replace("touch", "text"): v for k, v in toy_arrays().items()}
    prepare("wikipedia", save_npz(tmp_path / "w.npz", arrays))
    assert main([*TOY_FLAGS, "--workdir", str(tmp_path / "run"), "wikipedia"]) == 0
    assert "wikipedia: 3 classes" in capsys.readouterr().out
    assert evaluate_main(["--workdir", str(tmp_path / "run")]) == 0
    assert "warning" not in capsys.readouterr().err
    flags = ["--data-path", str(tmp_path / "w.npz"), "--workdir", str(tmp_path / "direct")]
    assert main([*TOY_FLAGS, *flags, "wikipedia"]) == 0
    assert "warning: " in capsys.readouterr().err
    results = [json.loads((tmp_path / run / "result.json").read_text())["test"] for run in ("run", "direct")]
    assert results[0] == results[1]


def test_a_non_finite_loss_is_exit_code_1(tmp_path, data, capsys):
    flags = [*TOY_FLAGS, "--data-path", str(data), "--learning-rate", "1e25", "--workdir", str(tmp_path / "run")]
    assert main(flags) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("error: epoch 1: the loss is")


def test_too_little_memory_is_one_line(tmp_path, data, capsys, monkeypatch):
    def short(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n[details]")

    monkeypatch.setattr("mrl_jax.training.single_run.SingleRun.run_epoch", short)
    assert main([*TOY_FLAGS, "--data-path", str(data), "--workdir", str(tmp_path / "run")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "error: the device has too little memory (Out of memory allocating 9 bytes.); smaller batches"
    )
    monkeypatch.setattr("mrl_jax.training.single_run.SingleRun.run_epoch", lambda *_: int("no number"))
    with pytest.raises(ValueError, match="no number"):
        main([*TOY_FLAGS, "--data-path", str(data), "--workdir", str(tmp_path / "other")])


def test_bad_input_as_a_process_has_no_traceback(tmp_path):
    done = run_command("mrl_jax.train", "--data-path", tmp_path / "absent.npz")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def started(flags, line, **kwargs):
    """A command in a process of its own, as soon as it has printed a line that begins so."""
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, flags)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, **kwargs
    )
    for text in process.stderr:
        if text.startswith(line):
            return process
    raise AssertionError("the command ended early")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_to_the_same_bits(tmp_path, data, number, code, capsys):
    epochs = 400
    args = ["--data-path", data, *TOY_FLAGS, "--epochs", epochs, "--workdir", tmp_path / "run"]
    process = started(["mrl_jax.train", *args], "epoch")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    last = re.fullmatch(
        rf"error: interrupted; saved after epoch (\d+) of {epochs}; --resume --workdir (.+) continues it",
        err.splitlines()[-1],
    )
    assert last[2] == str(tmp_path / "run")
    assert "stopping after this epoch; Ctrl-C again stops at once" in err
    assert "Traceback" not in err
    epoch = int(last[1])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == epoch < epochs
    assert max(int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()) == epoch
    if code == 143:
        return
    assert main(["--resume", "--workdir", str(tmp_path / "run")]) == 0
    assert f"resumed after epoch {epoch} of {epochs}" in capsys.readouterr().err
    assert main([str(x) for x in (*args[:-1], tmp_path / "whole")]) == 0
    assert_same_checkpoints(tmp_path / "run", tmp_path / "whole")


def test_a_second_interrupt_stops_in_the_middle_of_an_epoch(tmp_path):
    """The main thread waits for the compiled program of an epoch, many seconds long, and sees no signal meanwhile."""
    wide = ["--hidden-dims", 4096, 4096, 4096, "--epochs", 50, "--workdir", tmp_path / "run"]
    process = started(["mrl_jax.train", *wide], "run folder")
    time.sleep(5)  # the first epoch is compiled or runs
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if line.startswith("stopping after this epoch"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"error: interrupted; --resume --workdir {tmp_path / 'run'} continues it"


_AS_WITH_M = """
import runpy, sys
module = sys.argv.pop(1)
sys.argv[0] = "-m"
import mrl_jax  # before it, Python itself starts, which is not ours to guard
print("begun", flush=True)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""What `python -m` does, with a word when the package's own code has begun."""


@pytest.mark.parametrize("module", ["mrl_jax.train", "mrl_jax.methods"])
@pytest.mark.parametrize("seconds", [0, 0.3, 0.7])
def test_an_interrupt_of_the_imports_has_no_traceback(module, seconds):
    flags = ["--help"] if module == "mrl_jax.train" else []
    command = [sys.executable, "-c", _AS_WITH_M, module, *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT)  # 0: the machine was faster; the last: in the end of Python
    assert "Traceback" not in err


@pytest.mark.parametrize("module", ["mrl_jax.train", "mrl_jax.eval"])
def test_help_lists_the_flags(module):
    done = run_command(module, "--help")
    assert done.returncode == 0
    assert "--workdir" in done.stdout
    assert done.stderr == ""


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    from mrl_jax.display.progress import epoch_progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = {"epoch": 1, "train": {"loss": 0.5}, "valid": {"average": 0.25}}
    with epoch_progress(2, enabled=True) as show:
        show([line])
        show([line, {**line, "epoch": 2}])
    err = capsys.readouterr().err
    assert "training" in err
    assert "loss 0.5000, valid mAP 0.250 (best 0.250)" in err


def test_an_interrupt_in_a_finaliser_is_raised_again():
    program = """
import sys, time
from mrl_jax.cli import run_command

class Held:
    def __del__(self):
        raise KeyboardInterrupt

def command():
    Held()
    for _ in range(1000):
        time.sleep(0.001)

sys.exit(run_command(command))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted; run it again\n")


def test_an_interrupt_hides_the_errors_of_its_own_command_only(capsys, monkeypatch):
    def fault():
        raise ValueError("no number")

    def interrupted_import():
        with contextlib.suppress(KeyboardInterrupt):  # as libraries do that change it into an error of theirs
            interrupt._raise(signal.SIGINT, None)
        fault()

    assert cli.run_command(interrupted_import) == 130
    assert capsys.readouterr().err == "error: interrupted; run it again\n"
    with pytest.raises(ValueError, match="no number"):
        cli.run_command(fault)


def test_closed_standard_output_and_input_do_no_harm(tmp_path):
    np.savez(tmp_path / "e.npz", image=np.eye(3), text=np.eye(3), labels=np.arange(3))
    command = f"{sys.executable} -m mrl_jax.eval --embeddings {tmp_path / 'e.npz'} --bootstrap 0 --csv {tmp_path / 'o'}"
    done = subprocess.run(["sh", "-c", f"{command} <&- >&-"], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "o").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has this device")
def test_standard_output_on_a_full_disk_is_an_error(tmp_path):
    np.savez(tmp_path / "e.npz", image=np.eye(3), text=np.eye(3), labels=np.arange(3))
    command = f"{sys.executable} -m mrl_jax.eval --embeddings {tmp_path / 'e.npz'} --bootstrap 0 > /dev/full"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output cannot be written (No space left on device)\n")


def test_one_flag_sets_both_temperatures_and_a_recipe_the_rest(tmp_path, data, capsys):
    def config_of(*flags):
        folder = tmp_path / "-".join(flags).replace("--", "")
        assert main([*TOY_FLAGS, "--data-path", str(data), *flags, "--workdir", str(folder)]) == 0
        return json.loads((folder / "config.json").read_text())

    assert (config_of("--tau", "0.5")["tau1"], config_of("--tau", "0.25")["tau2"]) == (0.5, 0.25)
    paper = config_of("--recipe", "paper", "--tau", "auto")
    assert (paper["beta"], paper["tau1"], paper["tau2"], paper["schedule"]) == (0.7, 1.0, 1.0, "cosine-hold")
    capsys.readouterr()
    for flags, message in (
        (["--tau", "warm"], "--tau warm: give a number, or auto"),
        (["--tau", "0"], "must be greater than 0"),
        (["--recipe", "best"], "recipe 'best': choose from default, paper"),
        (["--resume", "--workdir", str(tmp_path / "tau-0.5"), "--recipe", "paper"], "--recipe is for new runs"),
        (["--resume", "--workdir", str(tmp_path / "tau-0.5"), "--tau", "0.7"], "tau1 0.7 was given, but the run in"),
    ):
        assert main(flags) == 2
        assert message in capsys.readouterr().err
    assert main(["--resume", "--workdir", str(tmp_path / "tau-0.5"), "--tau", "auto"]) == 0


@pytest.mark.parametrize("platforms", ["cuda", "no-such-backend"])
def test_a_backend_that_is_not_there_is_one_line_and_nothing_is_written(platforms, tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    flags = ["mrl_jax.train", "--epochs", "1", "--workdir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", *flags], env=environment, capture_output=True, text=True)
    if platforms == "cuda" and done.returncode == 0:
        pytest.skip("a GPU is here")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: JAX_PLATFORMS={platforms}: JAX cannot start this backend here; unset it, or name one that is "
        "installed, such as JAX_PLATFORMS=cpu"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("JAX_PLATFORM_NAME=no-such-backend", "JAX cannot start this backend here; unset it, or name one that is inst"),
        ("JAX_ENABLE_X64=maybe", "JAX does not take this value; correct the variable, or unset it"),
        ("JAX_NUM_CPU_DEVICES=x", "JAX does not take this value; correct the variable, or unset it"),
        ("JAX_NUM_CPU_DEVICES=0", "JAX cannot start with it; give 1 or more, or unset it"),
        ("JAX_DEFAULT_MATMUL_PRECISION=best", "JAX does not take this value; correct the variable, or unset it"),
        ("JAX_DEFAULT_DEVICE=best", "JAX does not take this value; correct the variable, or unset it"),
    ],
)
@pytest.mark.parametrize("command", [["mrl_jax.train"], ["mrl_jax", "train"]])
def test_a_variable_that_jax_does_not_take_is_one_line(variable, message, command, tmp_path):
    environment = os.environ | dict([variable.split("=")])
    flags = [*command, "--epochs", "1", "--workdir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", *flags], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"{variable}: {message}" in line
    assert not (tmp_path / "run").exists()


def test_a_backend_that_is_not_there_has_a_message_in_python():
    code = """
import numpy as np
import mrl_jax
from mrl_jax.cli import Parser
from mrl_jax import retrieval
x, y = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
for function in (
    lambda: mrl_jax.train(mrl_jax.Config(epochs=1)),
    lambda: mrl_jax.sweep([mrl_jax.Config(epochs=1)]),
    lambda: mrl_jax.evaluate_embeddings({"a": x, "b": x}, y),
    lambda: mrl_jax.retrieval_metrics(x, x, y, y),
    lambda: mrl_jax.mean_average_precision(x, x, y, y),
    lambda: retrieval.precision_recall_curve(x, x, y, y),
    lambda: retrieval.pair_ranks(x, x),
    lambda: retrieval.cross_modal_map({"a": x, "b": x}, {"a": y, "b": y}),
    lambda: mrl_jax.top_k(x, x, 2),
    lambda: mrl_jax.Index.build(x).search(x, 2),
    lambda: mrl_jax.inject_noise(np.stack([y, y]), 2, mrl_jax.NoiseSpec(0.5), 0),
):
    try:
        function()
    except Exception as error:
        print(type(error).__name__, error)
    else:
        print("ran")
"""
    environment = os.environ | {"JAX_PLATFORMS": "no-such-backend"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    expected = "InputError JAX_PLATFORMS=no-such-backend: JAX cannot start this backend here"
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert [line for line in lines if not line.startswith(expected) and line != "ran"] == []
    assert lines.count("ran") <= 2  # what ranks by NumPy alone
