"""One run over several processes: trained, killed, gone on with in other numbers; errors reach all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import evaluate, train

pytestmark = pytest.mark.slow
EPOCHS = 6
MAIN = "from mrl_jax.train import main; sys.exit(main(sys.argv[1:]))"


def start(count, devices, *flags, last=()):
    """Start the processes of a run; the last with some flags more."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    together = ["--coordinator-address", f"localhost:{port}", "--num-processes", str(count), "--process-id"]
    each = [str(f) for f in flags]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mrl_jax.train",
                *each,
                *together,
                str(i),
                *(map(str, last) if i + 1 == count else ()),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in range(count)
    ]


def ended(processes, timeout):
    """Wait for all: exit codes, standard outputs, standard errors."""
    until = time.monotonic() + timeout
    told = [p.communicate(timeout=max(0.1, until - time.monotonic())) for p in processes]
    return [p.returncode for p in processes], [out for out, _ in told], [err for _, err in told]


def test_two_processes_train_one_is_killed_and_four_go_on_to_the_end_of_one(tmp_path):
    arrays = toy_arrays() | {"train_touch_mask": np.arange(60) % 7 != 2}
    flags = [*TOY_FLAGS, "--epochs", EPOCHS, "--noise-rate", 0.4, "--stream", "on", "--batch-size", 13]
    flags += ["--data-path", save_npz(tmp_path / "toy.npz", arrays), "--workdir", tmp_path / "run"]
    processes = start(2, 2, *flags)
    log = tmp_path / "run" / "metrics.jsonl"
    while all(p.poll() is None for p in processes) and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.002)
    processes[1].kill()
    codes, _, errors = ended(processes, 60)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None), errors[0]
    assert "start all again with --resume" in errors[0]
    assert not (tmp_path / "run" / "result.json").exists()

    resumed = ["--resume", "--workdir", tmp_path / "run"]
    codes, outputs, errors = ended(start(4, 1, *resumed), 240)
    assert codes == [0, 0, 0, 0], errors
    assert ["chance" in out for out in outputs] == [True, False, False, False]  # one speaks
    assert "resumed after epoch" in errors[0]
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    one = train(toy_config(epochs=EPOCHS, noise_rate=0.4, batch_size=13), data=arrays)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    for line, alone in zip(lines, one.metrics, strict=True):
        assert line["train"] == pytest.approx(alone["train"], rel=5e-3, abs=5e-3)
        assert line["valid"]["map"] == pytest.approx(alone["valid"]["map"], abs=0.02)
    assert found["test"]["last"]["map"] == pytest.approx(one.scores["test"]["last"]["map"], abs=0.02)
    again = evaluate(tmp_path / "run", checkpoint="last")["map"]
    assert again == pytest.approx(found["test"]["last"]["map"], abs=1e-6)


def test_divided_parameters_and_pmap_over_processes_and_the_first_one_killed(tmp_path):
    flags = [*TOY_FLAGS, "--epochs", EPOCHS, "--batch-size", 13, "--noise-rate", 0.4]
    flags += ["--data-path", save_npz(tmp_path / "toy.npz"), "--workdir", tmp_path / "run", "--model-parallel", 2]
    processes = start(2, 2, *flags)
    log = tmp_path / "run" / "metrics.jsonl"
    while all(p.poll() is None for p in processes) and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.002)
    processes[0].kill()
    codes, _, errors = ended(processes, 60)
    assert codes[0] == -signal.SIGKILL
    assert codes[1] not in (0, None), errors[1]
    assert "start all again with --resume" in errors[1]

    codes, _, errors = ended(start(2, 2, "--resume", "--workdir", tmp_path / "run", "--parallel", "pmap"), 240)
    assert codes == [0, 0], errors
    one = train(toy_config(epochs=EPOCHS, noise_rate=0.4, batch_size=13), data=toy_arrays())
    for line, alone in zip(map(json.loads, log.read_text().splitlines()), one.metrics, strict=True):
        assert line["train"] == pytest.approx(alone["train"], rel=5e-3, abs=5e-3)


def test_what_one_process_cannot_read_ends_all(tmp_path):
    flags = [*TOY_FLAGS, "--data-path", save_npz(tmp_path / "toy.npz"), "--workdir", tmp_path / "run"]
    codes, _, errors = ended(start(2, 1, *flags, last=["--data-path", tmp_path / "gone.npz"]), 60)
    assert codes == [2, 2], errors
    assert "gone.npz" in errors[1].splitlines()[-1]
    assert "process 1 could not begin" in errors[0].splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_processes_with_different_flags_are_refused(tmp_path):
    flags = [*TOY_FLAGS, "--data-path", save_npz(tmp_path / "toy.npz"), "--workdir", tmp_path / "run"]
    codes, _, errors = ended(start(2, 1, *flags, last=["--seed", 3]), 60)
    assert codes == [2, 2], errors
    assert "seed 3 was given, but the run in" in errors[1].splitlines()[-1]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-processes", "2", "--workdir", "w"], "give all three"),
        (
            ["--coordinator-address", "x:1", "--num-processes", "2", "--process-id", "2", "--workdir", "w"],
            "from 0 to 1",
        ),
        (["--coordinator-address", "x:1", "--num-processes", "2", "--process-id", "0"], "need the folder of the run"),
        (
            ["--coordinator-address", "x:1", "--num-processes", str(10**9), "--process-id", "0", "--workdir", "w"],
            "number of processes 1000000000: must be from 1 to 16384",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, capsys):
    from mrl_jax.train import main

    assert main(flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:1", "the first process cannot be reached at localhost:1 in 2 s"),
        ("localhost", "must be HOST:PORT of the first process"),
        ("localhost:99999", "PORT 1 to 65535"),
        ("a..b:4321", "is not a host name"),
        ("nowhere.invalid:99", "the first process cannot be reached at nowhere.invalid:99"),
    ],
)
def test_a_first_process_that_is_not_there_is_told_in_one_line(tmp_path, address, message):
    flags = ["--coordinator-address", address, "--num-processes", "2", "--process-id", "1", "--workdir", tmp_path / "w"]
    code = f"import sys; from mrl_jax.training import processes; processes._PATIENCE = 2; {MAIN}"
    command = [sys.executable, "-c", code, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "was killed" not in done.stderr
    assert not (tmp_path / "w").exists()


def test_without_a_cluster_there_is_nothing_to_detect(tmp_path):
    command = [sys.executable, "-m", "mrl_jax.train", "--distributed", "--workdir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be joined" in done.stderr.splitlines()[-1]
    assert "give the coordinator's address" in done.stderr.splitlines()[-1]


CALLBACKS = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
sys.path.insert(0, sys.argv[4])
from toy import toy_arrays, toy_config
from mrl_jax import Callback, CallbackError, EarlyStopping, train

class Speaks(Callback):
    def __init__(self, fails): self.fails = fails
    def epoch_ends(self, line):
        print("told", line["epoch"], flush=True)
        return 1 / 0 if line["epoch"] == self.fails else None

config, arrays = toy_config(epochs=8, noise_rate=0.6, learning_rate=0.1), toy_arrays()
try:
    train(config, sys.argv[3], data=arrays, callbacks=[EarlyStopping(2), Speaks(2)])
except CallbackError as error:
    print("failed", error, flush=True)
result = train(config, sys.argv[3], data=arrays, resume=True, callbacks=[EarlyStopping(2), Speaks(0)])
print("stopped", result.scores["stopped"]["epoch"], len(result.metrics), flush=True)
"""


def test_the_first_process_has_callbacks_and_all_do_what_they_decide(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    tests = os.path.dirname(os.path.dirname(__file__))
    commands = [[sys.executable, "-c", CALLBACKS, address, str(i), str(tmp_path / "run"), tests] for i in range(2)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    codes, outputs, errors = ended([subprocess.Popen(c, env=environment, **pipes) for c in commands], 240)
    assert codes == [0, 0], errors
    words = ("told", "failed", "stopped")  # other libraries print, too
    first, second = ([line for line in out.splitlines() if line.startswith(words)] for out in outputs)
    count = json.loads((tmp_path / "run" / "result.json").read_text())["stopped"]["epoch"]
    assert [line for line in first if line.startswith("told")] == [f"told {i + 1}" for i in range(count)]
    assert [line.split(";")[0] for line in second] == [
        "failed callback Speaks failed in epoch_ends after epoch 2 (ZeroDivisionError: division by zero)",
        f"stopped {count} {count}",
    ]
    assert second[-1] == first[-1]
