"""Programs of `experiments/` as commands: help, exit codes, what is missing, and bad input in one line."""

import json
import os
import re
import runpy
import subprocess
import sys

import pytest
from experiment_programs import HERE, module_of, place_of, run

from mrl_jax import InputError

pytestmark = pytest.mark.slow


def test_bad_input_is_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.paper.table3", "--sets", "imagenet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown set 'imagenet'; choose from emoji")
    assert len(done.stderr.splitlines()) == 1


def test_a_program_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", place_of("figure3"), "--smoke", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith((tmp_path / "figure3.md").read_text("utf-8").rstrip())


ITS_PARTS = ("benchmark_program", "pytorch_mrl")  # which benchmark_pytorch starts
COMMANDS = sorted(p.stem for p in HERE.glob("*/*.py") if '__name__ == "__main__"' in p.read_text("utf-8"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ITS_PARTS])
def test_every_program_has_help_as_a_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    for variable, value in module_of("machine").KEEP_MEMORY.items():
        monkeypatch.setenv(variable, value)  # else some programs start themselves again with it
    monkeypatch.delitem(sys.modules, place_of(name), raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(place_of(name), run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_ctrl_c_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        module_of("command_line").run_main(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert ended.value.code == 130
    expected = "error: interrupted; complete results are kept: run the command again to continue\n"
    assert capsys.readouterr().err == expected


BACKEND = [
    ("paper.table3", "--smoke"),
    ("benchmarks.sweep_timings", "--smoke"),
    ("benchmarks.startup_timings", "--smoke"),
    ("benchmarks.benchmark_pytorch", "--smoke"),
    ("benchmarks.benchmark_program", "ours", "smoke"),
    ("benchmarks.gpu_check", "--smoke"),
    ("benchmarks.audit_timings", "--smoke"),
]


@pytest.mark.parametrize("command", BACKEND, ids=lambda command: command[0])
def test_a_backend_that_is_not_there_has_no_traceback(command):
    """Programs that use JAX, in their own process or in others."""
    flags = [sys.executable, "-m", f"experiments.{command[0]}", *command[1:]]
    environment = os.environ | {"JAX_PLATFORMS": "no-such-backend"}
    done = subprocess.run(flags, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: JAX_PLATFORMS=no-such-backend: JAX cannot start this")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["pytorch_mrl"], "these programs are run by python -m experiments.benchmarks.benchmark_pytorch"),
        (["benchmark_program", "best", "smoke"], "torch is not installed; run: pip install torch"),
        (["benchmark_program"], "give KIND (ours, best, compiled, reference, reference kept) and SHAPE (wikipedia, re"),
        (["benchmark_program", "ours", "huge"], "give KIND ("),
    ],
)
def test_the_programs_of_pytorch_run_directly_end_in_one_line(tmp_path, command, message):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}
    flags = [sys.executable, "-m", f"experiments.benchmarks.{command[0]}", *command[1:]]
    done = subprocess.run(flags, capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_a_process_of_a_program_that_fails_ends_it_in_one_line(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}
    flags = ["-m", "experiments.benchmarks.retrieval_timings", "--smoke", "--parts", "timings"]
    done = subprocess.run([sys.executable, *flags], capture_output=True, text=True, env=environment, cwd=HERE.parent)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "not installed here; run: pip install" in done.stderr.splitlines()[-1]


def test_the_time_of_label_inference_is_measured_beside_an_epoch(capsys):
    module = module_of("label_inference_timings")
    run("label_inference_timings", "--smoke", "--size", 300)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"kernel", "posterior", "epoch", "compiled", "peak"}
    assert min(found.values()) > 0
    assert module.share({"kernel": 1.0, "posterior": 2.0, "epoch": 0.1}) == pytest.approx(0.5)  # of 30 epochs


@pytest.mark.parametrize(("code", "expected"), [(2, 2), (130, 130), (1, 1), (-9, 1)])
def test_the_exit_code_of_a_process_is_that_of_the_program(capsys, code, expected):
    def fails():
        raise subprocess.CalledProcessError(code, ["python", "-m", "a.b"], stderr=b"error: its own line\n")

    with pytest.raises(SystemExit) as ended:
        module_of("command_line").run_main(fails)
    assert ended.value.code == expected
    error = capsys.readouterr().err
    assert error.startswith("error: its own line\n")
    more = "" if expected == code and code != 1 else f"error: python -m a.b … failed with exit code {code}; its message"
    assert error.removeprefix("error: its own line\n").startswith(more)
    assert bool(more) == (error != "error: its own line\n")


def test_the_benchmark_without_pytorch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"No module named 'torch'\); run: pip install torch \(for all"):
        run("benchmark_pytorch", "--smoke")


@pytest.mark.parametrize(
    ("name", "modules", "packages"),
    [
        ("training_timings", ["torch"], "torch"),
        ("search_timings", ["faiss"], "faiss-cpu"),
        ("retrieval_timings", ["torch", "torchmetrics", "pytrec_eval"], "torch torchmetrics pytrec-eval-terrier"),
        ("benchmark_pytorch", ["torch"], "torch"),
    ],
)
def test_a_missing_package_is_one_line_and_stored_results_need_none(tmp_path, name, modules, packages):
    code = f"""
import runpy, sys
for module in {modules}:
    sys.modules[module] = None
sys.argv = ["{name}", *sys.argv[1:]]
runpy.run_module("experiments.benchmarks.{name}", run_name="__main__")
"""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HERE.parent}"}

    def started(*flags):
        command = [sys.executable, "-c", code, *flags]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parent)

    done = started("--smoke")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    named = re.search(r"run: pip install (.+) \(for all programs: pip install -e '\.\[bench\]'\)", done.stderr)[1]
    assert set(packages.split()) <= set(named.split())  # others may be missing, too
    done = started("--from-results" if name == "benchmark_pytorch" else "--markdown")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("|", "<"))


def test_a_package_that_a_program_misses_later_is_one_line_too(capsys):
    def program():
        import no_such_package  # noqa: F401

    with pytest.raises(SystemExit) as caught:
        module_of("command_line").run_main(program)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: this program compares with no_such_package, not installed here; ")
