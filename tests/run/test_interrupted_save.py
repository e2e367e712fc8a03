"""Ctrl-C while a checkpoint is being saved that never ends: the run ends, and goes on later."""

import json
import os
import signal
import threading

import orbax.checkpoint as ocp
import pytest
from toy import toy_arrays, toy_config

from mrl_jax import train
from mrl_jax.run import checkpoint

pytestmark = pytest.mark.slow


def test_ctrl_c_twice_does_not_wait_for_a_save_that_never_ends(tmp_path, monkeypatch):
    save, wait = ocp.CheckpointManager.save, ocp.CheckpointManager.wait_until_finished
    saving, released, waited = [], threading.Event(), []

    def begin(self, *args, **how):
        saving.append(save(self, *args, **how))
        return saving[-1]

    def never_ends(self):
        if not saving:
            return wait(self)
        waited.append(threading.current_thread())
        if waited == [threading.main_thread()]:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        assert released.wait(60), "the run waits for the save"
        return wait(self)

    monkeypatch.setattr(checkpoint, "_PATIENCE", 0.1)
    with monkeypatch.context() as blocked:
        blocked.setattr(ocp.CheckpointManager, "save", begin)
        blocked.setattr(ocp.CheckpointManager, "wait_until_finished", never_ends)
        with pytest.raises(KeyboardInterrupt):
            train(toy_config(), tmp_path / "run", data=toy_arrays())
        released.set()
        for thread in waited[1:]:
            thread.join()
    assert len(waited) == 2  # before the interrupt, and in the thread that closes
    assert not (tmp_path / "run" / "result.json").exists()
    train(toy_config(), tmp_path / "run", data=toy_arrays(), resume=True)
    train(toy_config(), tmp_path / "whole", data=toy_arrays())
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    scores = [json.loads((tmp_path / name / "result.json").read_text())["test"] for name in ("run", "whole")]
    assert scores[0] == scores[1]
