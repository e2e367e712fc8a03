"""Trackers, each with its own library and its files read back: a run, one that resumes, and one that fails."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import TOY_FLAGS, save_npz, toy_arrays, toy_config

from mrl_jax import CallbackError, InputError, grid, sweep, train
from mrl_jax.run.folder import RunFolder
from mrl_jax.sweep.__main__ import main as sweep_main
from mrl_jax.track import MLflow, TensorBoard, WandB
from mrl_jax.track.recorded_id import read_id, write_id
from mrl_jax.track.scalars import as_text, final_scalars, scalars
from mrl_jax.train import main
from mrl_jax.training import loop

pytestmark = pytest.mark.slow
EPOCHS = 3


class FailsOnce:
    """Fails after the second epoch."""

    def epoch_ends(self, line):
        if line["epoch"] == 2:
            raise RuntimeError("no reply")


@dataclass
class Tracked:
    """A run that failed after its second epoch, and was resumed with the same kind of tracker."""

    result: Any
    folder: Path
    name: str


def resumed(make, folder, monkeypatch):
    """Train, fail, and resume from the checkpoint of the first epoch, so that the second is trained twice."""
    monkeypatch.setattr(loop, "_save", first_only(loop._save))
    config, arrays = toy_config(epochs=EPOCHS), toy_arrays()
    with pytest.raises(CallbackError, match="no reply"):
        train(config, folder, data=arrays, callbacks=[make(), FailsOnce()])
    result = train(config, folder, data=arrays, resume=True, callbacks=[make()])
    assert result.scores["test"]["last"]["epoch"] == EPOCHS
    return Tracked(result, folder, folder.name)


def first_only(save):
    """Leave out the checkpoint of the second epoch: the run is killed before it is written."""
    return lambda trainer, runs, *rest: None if len(runs[0].log) == 2 else save(trainer, runs, *rest)


def expected(result):
    """Name -> (epoch, value) of everything that is logged per epoch, in the words of the documentation."""
    found = {}
    for line in result.metrics:
        values = {"learning_rate": line["learning_rate"], "valid/average": line["valid"]["average"]}
        values |= {f"train/{name}": value for name, value in line["train"].items()}
        values |= {f"valid/map/{d.replace('->', '-to-')}": value for d, value in line["valid"]["map"].items()}
        for name, value in values.items():
            found.setdefault(name, []).append((line["epoch"], value))
    return found


def crc32c(data):
    """Castagnoli's CRC, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path):
    """The events of a file, as TensorBoard frames them: length, its CRC, data, its CRC."""
    from tensorboardX.proto.event_pb2 import Event

    content, at = path.read_bytes(), 0
    while at < len(content):
        head = content[at : at + 8]
        (size,), (crc,) = struct.unpack("<Q", head), struct.unpack("<I", content[at + 8 : at + 12])
        data = content[at + 12 : at + 12 + size]
        assert crc == masked(head)
        assert struct.unpack("<I", content[at + 12 + size : at + 16 + size]) == (masked(data),)
        yield Event.FromString(data)
        at += 16 + size


def test_names_are_those_that_every_tracker_takes():
    line = {
        "epoch": 4,
        "learning_rate": 0.1,
        "train": {"loss": 1.5},
        "valid": {"map": {"größe(cm)->text": 0.5}, "average": 0.5, "accuracy": {"text": None, "ok": True}},
    }
    assert scalars(line) == {
        "learning_rate": 0.1,
        "train/loss": 1.5,
        "valid/map/größe_cm_-to-text": 0.5,
        "valid/average": 0.5,
    }
    both = {"epoch": 2, "map": {"a->b": 0.1}, "average": 0.1}
    assert final_scalars({"test": {"best": both}, "valid": {}, "seconds": 3}) == {
        "test/best/epoch": 2.0,
        "test/best/map/a-to-b": 0.1,
        "test/best/average": 0.1,
    }
    assert (as_text(None), as_text("x"), as_text([1]), len(as_text("y" * 900))) == ("null", "x", "[1]", 500)


def test_names_of_a_run_are_kept_and_a_damaged_file_is_refused(tmp_path):
    RunFolder.create(tmp_path / "run", toy_config())
    first = write_id(tmp_path / "run", "wandb")
    write_id(tmp_path / "run", "mlflow", "7")
    assert (read_id(tmp_path / "run", "wandb"), read_id(tmp_path / "run", "mlflow")) == (first, "7")
    assert read_id(tmp_path / "run", "tensorboard") is None
    path = tmp_path / "run" / "trackers.json"
    path.write_text(path.read_text().replace('"7"', '"8"'))
    with pytest.raises(
        InputError, match=r"trackers\.json was changed or damaged; restore it .*, or delete it: trackers"
    ):
        read_id(tmp_path / "run", "mlflow")
    path.unlink()
    assert read_id(tmp_path / "run", "mlflow") is None
    assert write_id(tmp_path / "run", "wandb") == read_id(tmp_path / "run", "wandb") != first
    assert read_id(None, "wandb") is None


def test_tensorboard_reads_every_number_at_its_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorboardX.event_file_writer.time", SimpleNamespace(time=lambda: 1.8e9))  # within one second
    run = resumed(TensorBoard, tmp_path / "run", monkeypatch)
    files = sorted((run.folder / "tensorboard").iterdir())
    assert len(files) == 2
    found: dict[str, list[tuple[int, float]]] = {}
    starts, texts = [], []
    for path in files:
        for event in events(path):
            if event.HasField("session_log"):  # later ones of these and all further epochs are hidden
                starts.append(event.step)
                found = {name: [(s, v) for s, v in points if s < event.step] for name, points in found.items()}
            for value in event.summary.value:
                if value.HasField("tensor"):
                    texts.append(value.tensor.string_val[0].decode())
                else:
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert starts == [2]
    at = {which: run.result.scores["test"][which] for which in ("best", "last")}
    tests = {f"test/average/{which}": [(scores["epoch"], scores["average"])] for which, scores in at.items()}
    for name, points in (expected(run.result) | tests).items():
        assert [s for s, _ in found[name]] == [s for s, _ in points], name
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in points], rel=1e-6)
    settings = json.loads(texts[-1].strip("`\n"))
    assert settings["beta"] == run.result.run.config.beta
    assert settings["data"]["sha256"] == run.result.data["sha256"]


def test_tensorboard_needs_a_folder_and_a_sweep_has_one_for_each_run(tmp_path):
    with pytest.raises(InputError, match=r"TensorBoard\(\) has no folder, and the run is in memory"):
        train(toy_config(), data=toy_arrays(), callbacks=[TensorBoard()])
    runs = sweep(
        grid(toy_config(), seed=range(2)), data=toy_arrays(), callbacks=lambda name: [TensorBoard(tmp_path / name)]
    ).runs
    for name, outcome in runs.items():
        (path,) = (tmp_path / name).iterdir()
        points = [(e.step, v.simple_value) for e in events(path) for v in e.summary.value if v.tag == "valid/average"]
        assert points == [(x["epoch"], pytest.approx(x["valid"]["average"], rel=1e-6)) for x in outcome.metrics]


def test_the_flag_names_trackers(tmp_path, capsys):
    data = ["--data-path", str(save_npz(tmp_path / "toy.npz"))]
    flags = [*TOY_FLAGS, *data, "--workdir"]
    for command in (main, sweep_main):
        assert command([*flags, str(tmp_path / "none"), "--track", "paper"]) == 2
        assert "--track paper: choose from tensorboard, wandb, mlflow" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main([*flags, str(tmp_path / "run"), "--track", "tensorboard"]) == 0
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    assert sweep_main([*flags, str(tmp_path / "sweep"), "--seeds", "1", "--track", "tensorboard"]) == 0
    assert len(list((tmp_path / "sweep" / "runs").glob("*/tensorboard/events*"))) == 1


@pytest.mark.parametrize(("make", "module"), [(TensorBoard, "tensorboardX"), (WandB, "wandb"), (MLflow, "mlflow")])
def test_a_library_that_is_not_installed_is_named(monkeypatch, make, module):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"{make.__name__} needs {module}, not installed here; run: pip install"):
        make()


def wandb_records(path):
    """The records of a file that wandb wrote offline: blocks of 32 KiB in the layout of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, data = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too little of the block is left for a header
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        data, at = data + content[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(data)
            data = b""


@pytest.mark.bench
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_logs_offline_and_goes_on_under_the_same_name(tmp_path, monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    run = resumed(lambda: WandB(mode="offline", settings={"silent": True}), tmp_path / "run", monkeypatch)
    name = json.loads((run.folder / "trackers.json").read_text())["wandb"]
    files = sorted(run.folder.glob(f"wandb/offline-run-*/run-{name}.wandb"))
    assert len(files) == 2
    found, exits, begun, summary = {}, [], [], {}
    for path in files:
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                for key, value in values.items():
                    found.setdefault(key, {})[values["_step"]] = value
            elif kind == "exit":
                exits.append(record.exit.exit_code)
            elif kind == "run":
                begun.append((record.run.project, record.run.display_name, record.run.run_id))
            elif kind == "summary":
                summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    assert set(begun) == {("mrl_jax", "run", name)}
    assert exits == [1, 0]
    for key, points in expected(run.result).items():
        assert found[key] == pytest.approx(dict(points))
    assert summary["test/best/average"] == pytest.approx(run.result.scores["test"]["best"]["average"])


@pytest.mark.bench
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_logs_to_a_file_and_goes_on_with_its_record(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = resumed(lambda: MLflow("toy", uri), tmp_path / "run", monkeypatch)
    client = MlflowClient(tracking_uri=uri)
    (record,) = client.search_runs([client.get_experiment_by_name("toy").experiment_id])
    assert record.info.run_id == json.loads((run.folder / "trackers.json").read_text())["mlflow"]
    assert (record.info.run_name, record.info.status) == ("run", "FINISHED")
    assert record.data.params["beta"] == str(run.result.run.config.beta)
    assert record.data.metrics["test/last/average"] == run.result.scores["test"]["last"]["average"]
    for name, points in expected(run.result).items():
        history = [(m.step, m.value) for m in client.get_metric_history(record.info.run_id, name)]
        assert sorted(set(history)) == points  # the second epoch was logged twice, with the same value
        assert len(history) == EPOCHS + 1
    with pytest.raises(FloatingPointError):
        train(toy_config(learning_rate=1e30), data=toy_arrays(), callbacks=[MLflow("fails", uri)])
    (failed,) = client.search_runs([client.get_experiment_by_name("fails").experiment_id])
    assert failed.info.status == "FAILED"
