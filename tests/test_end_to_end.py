"""The main job on the embedded data, as a user runs it: prepare, train under noise, evaluate, use the model."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from mrl_jax import load_run

pytestmark = pytest.mark.slow


def test_emoji_from_nothing_to_a_searchable_model(tmp_path, monkeypatch):
    monkeypatch.setenv("MRL_JAX_DATA_DIR", str(tmp_path / "cache"))
    workdir = tmp_path / "run"

    def python(*args):
        done = subprocess.run([sys.executable, "-m", *map(str, args)], capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        return done

    small = ["--hidden-dims", 128, "--embed-dim", 64, "--epochs", 6, "--learning-rate", 1e-3]
    done = python("mrl_jax.train", *small, "--workdir", workdir)
    assert "symmetric noise 0.6 per modality; wrong: image 5" in done.stdout  # 0.6 * 8/9 = 53 % of the labels
    assert "emoji: 9 classes, 1,338 / 185 / 375 instances" in done.stdout
    result = json.loads((workdir / "result.json").read_text())
    assert result["test"]["best"]["average"] > 2.5 * np.mean(list(result["chance"].values()))
    assert result["wrong_share"] == pytest.approx({"image": 0.533, "text": 0.533}, abs=0.05)
    assert "CC BY 4.0" in json.loads((workdir / "data.json").read_text())["metadata"]["attribution"]

    scored = python("mrl_jax.eval", "--workdir", workdir, "--split", "valid", "--checkpoint", "last", "--json")
    assert json.loads(scored.stdout)["map"] == result["valid"]["last"]["map"]

    from mrl_jax.data.emoji.load import load, load_records

    # Half of the labels are wrong: which ones, without a clean label.
    audited = json.loads(python("mrl_jax.audit", "--workdir", workdir, "--json").stdout)
    assert audited["injected"]["all"]["auroc"] > 0.95
    for m, share in result["wrong_share"].items():
        assert audited["noise"][m]["rate"] == pytest.approx(share, abs=0.03)
    ids = {record["id"]: i for i, record in enumerate(load_records("train"))}
    assert all(ids[suspect["id"]] == suspect["row"] for suspect in audited["suspects"])

    # A new text finds pictures of its kind: the features are those of training, computed anew.
    from mrl_jax.data.emoji.features import text_features

    pictures = load().splits["train"]
    run = load_run(workdir)
    query = run.embed({"text": text_features(["flag of a country", "grinning face"])})["text"]
    gallery = run.embed({"image": pictures.features["image"]})["image"]
    nearest = np.argsort(-query @ gallery.T, axis=1)[:, :20]
    found = pictures.labels["image"][nearest]
    assert (found[0] == run.class_names.index("Flags")).mean() >= 0.5
    assert (found[1] == run.class_names.index("Smileys & Emotion")).mean() >= 0.5
