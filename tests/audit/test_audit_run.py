"""The audit of runs and data sets, its files and its command."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy import save_npz, toy_arrays, toy_config

from mrl_jax import InputError, load_dataset, train
from mrl_jax.audit import audit
from mrl_jax.audit.__main__ import main
from mrl_jax.audit.output import COLUMNS, audit_csv, audit_text, write_cleaned, write_parquet
from mrl_jax.audit.run import audit_data, audit_run

pytestmark = pytest.mark.slow
SIZES = {"train": 240, "valid": 24, "test": 27}


@pytest.fixture(scope="module")
def arrays():
    """Clear clusters of two modalities; "touch" lacks every tenth sample of the training split."""
    found = {}
    rng = np.random.default_rng(0)
    means = {m: 3.0 * rng.normal(size=(3, d)) for m, d in (("sound", 6), ("touch", 4))}
    for split, n in SIZES.items():
        labels = np.arange(n) % 3
        found |= {f"{split}_labels": labels, f"{split}_ids": np.array([f"{split}-{i}" for i in range(n)])}
        found |= {
            f"{split}_{m}": (mu[labels] + rng.normal(size=(n, mu.shape[1]))).astype(np.float32)
            for m, mu in means.items()
        }
    return found | {"train_touch_mask": np.arange(240) % 10 != 0, "class_names": np.array(["low", "mid", "=high"])}


@pytest.fixture(scope="module")
def run(arrays, tmp_path_factory):
    base = tmp_path_factory.mktemp("audit")
    data = save_npz(base / "toy.npz", arrays)
    train(toy_config(data_path=str(data), noise_rate=0.5, seed=3), base / "run")
    return base / "run"


@pytest.fixture(scope="module")
def audited(run):
    return audit_run(run)


def test_the_labels_of_the_run_are_audited_and_the_noise_is_found(run, audited):
    found = audited.audit
    record = json.loads((run / "noise.json").read_text())
    for i, m in enumerate(("sound", "touch")):
        np.testing.assert_array_equal(found.given[i][found.present[i]], np.array(record["labels"][m])[found.present[i]])
        assert found.injected[m]["auroc"] > 0.95
        assert found.injected[m]["share"] == pytest.approx(record["wrong_share"][m])
        assert found.noise.rate[i] == pytest.approx(record["wrong_share"][m], abs=0.06)
    assert not found.present[1, ::10].any()
    assert found.margin.shape == found.given.shape
    assert {line["id"] for line in found.lines()} == {f"train-{i}" for i in range(240)}
    assert (audit(run).p_wrong == found.p_wrong).all()


def test_clean_labels_of_the_data_do_not_matter(run, arrays, audited):
    """The same labels, given as clean ones."""
    given = {f"train_{m}_labels": audited.audit.given[i] for i, m in enumerate(("sound", "touch"))}
    data = {k: v for k, v in arrays.items() if k != "train_labels"} | given
    found = audit_data(load_dataset(data)).audit
    assert found.injected is None
    np.testing.assert_allclose(found.p_wrong, audited.audit.p_wrong, atol=1e-6)


def test_the_model_judges_by_its_class_posterior(run):
    found = audit_run(run, method="model").audit
    assert found.method == "model"
    own = np.take_along_axis(found.posterior, found.given[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(found.p_wrong, np.where(found.present, 1.0 - own, 0.0), atol=1e-6)
    # The margin is positive where the model has the given label in front.
    right = found.posterior.argmax(axis=2) == found.given
    np.testing.assert_array_equal(found.margin[found.present] > 0, right[found.present])


def test_moved_samples_keep_their_rows(arrays, tmp_path):
    data = save_npz(tmp_path / "toy.npz", {k: v for k, v in arrays.items() if "mask" not in k})
    train(toy_config(data_path=str(data), noise_rate=0.4, noise_kind="pair-mismatch", epochs=1), tmp_path / "run")
    found = audit_run(tmp_path / "run").audit
    assert (found.rows[0] == np.arange(240)).all()
    assert sorted(found.rows[1]) == list(range(240))
    assert (found.rows[1] != np.arange(240)).any()
    np.testing.assert_array_equal(found.given[1], arrays["train_labels"][found.rows[1]])


def test_closed_forms_are_audited_without_a_model(arrays, tmp_path):
    data = save_npz(tmp_path / "toy.npz", {k: v for k, v in arrays.items() if "mask" not in k})
    train(toy_config(data_path=str(data), method="cca", embed_dim=2), tmp_path / "run")
    found = audit_run(tmp_path / "run").audit
    assert found.margin is None
    assert found.injected is None
    with pytest.raises(InputError, match="no class posterior"):
        audit_run(tmp_path / "run", method="model")


def test_one_label_per_pair_and_four_modalities_of_a_streamed_run(tmp_path):
    arrays = toy_arrays(("sound", "touch", "smell"))
    data = save_npz(tmp_path / "toy.npz", arrays)
    config = toy_config(data_path=str(data), noise_rate=0.3, noise_scope="instance", stream="on", epochs=1)
    train(config, tmp_path / "run")
    found = audit_run(tmp_path / "run").audit
    assert found.modalities == ("sound", "touch", "smell")
    assert (found.agreement == 1).all()
    assert found.injected["all"]["auroc"] > 0.8


def test_csv_parquet_and_text_hold_the_same_samples(audited, tmp_path):
    rows = list(csv.DictReader(audit_csv(audited.audit).splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(audited.audit) == 456
    write_parquet(tmp_path / "a.parquet", audited.audit)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [r["id"] for r in rows] == [t["id"] for t in table]
    assert [float(r["p_wrong"]) for r in rows] == pytest.approx([t["p_wrong"] for t in table], rel=1e-5)
    assert rows[0]["neighbours"].split() == list(map(str, table[0]["neighbours"]))
    text = audit_text(audited, 3)
    assert rows[0]["id"] in text
    assert "found of the injected noise" in text
    json.dumps(audited.audit.summary(), allow_nan=False)


def test_relabelled_data_train_and_are_cleaner(run, audited, arrays, tmp_path):
    done = write_cleaned(tmp_path / "clean.npz", audited)
    data = load_dataset(tmp_path / "clean.npz")
    given = audited.audit.given
    labels = np.stack([data.splits["train"].labels[m] for m in ("sound", "touch")])
    there = audited.audit.present
    wrong_before = (given != arrays["train_labels"])[there].mean()
    wrong_after = (labels != arrays["train_labels"])[there].mean()
    assert wrong_after < wrong_before / 4
    assert done["relabelled"] == int((labels != given)[there].sum()) > 0
    assert data.class_names == ("low", "mid", "=high")
    assert list(data.splits["train"].ids) == [f"train-{i}" for i in range(240)]
    np.testing.assert_array_equal(data.splits["test"].labels["sound"], arrays["test_labels"])
    train(toy_config(data_path=str(tmp_path / "clean.npz"), epochs=1))


def test_filtered_data_keep_the_least_suspicious_samples(audited, arrays, tmp_path):
    done = write_cleaned(tmp_path / "kept.npz", audited, keep=0.5)
    data = load_dataset(tmp_path / "kept.npz")
    split = data.splits["train"]
    assert sum(split.present(m).sum() for m in ("sound", "touch")) == round(0.5 * 240) + round(0.5 * 216)
    assert done["removed"] == 456 - 228
    rows = [int(i.split("-")[1]) for i in split.ids]
    for m in ("sound", "touch"):
        there = split.present(m)
        clean = arrays["train_labels"][rows][there]
        assert (split.labels[m][there] == clean).mean() > 0.9
    with pytest.raises(InputError, match="no sample would be left"):
        write_cleaned(tmp_path / "none.npz", audited, keep=1e-6)


def test_the_command_audits_runs_and_files(run, tmp_path, capsys):
    outputs = {name: tmp_path / f"a.{name}" for name in ("csv", "parquet", "json")}
    flags = [x for name, path in outputs.items() for x in (f"--{name}", str(path))]
    assert main(["--workdir", str(run), *flags, "--write-cleaned", str(tmp_path / "c.npz")]) == 0
    assert "estimated noise rate" in capsys.readouterr().out
    assert all(path.exists() for path in outputs.values())
    assert main(["--data-path", str(tmp_path / "c.npz"), "--json", "--top", "3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["suspects"]) <= 3
    assert shown["instances"] == 240


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --workdir DIR, or --data-path FILE"),
        (["--workdir", "nowhere"], "holds no run"),
        (["--data-path", "x.npz", "--keep", "0.5"], "--write-cleaned"),
        (["--data-path", "x.npz", "--write-cleaned", "c.npz", "--keep", "2"], "at most 1"),
        (["--data-path", "x.npz", "--write-cleaned", "c.csv"], ".npz"),
        (["--data-path", "x.npz", "--checkpoint", "best"], "--workdir"),
        (["--workdir", "run", "--modalities", "a"], "--data-path alone"),
        (["--data-path", "x.npz", "--top", "0"], "1 or more"),
        (["--data-path", "x.npz", "--csv", "no/such/folder.csv"], "cannot be written"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(flags) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_a_result_in_memory_is_not_a_run(arrays):
    result = train(toy_config(epochs=1), data=load_dataset(arrays))
    with pytest.raises(InputError, match="no folder"):
        audit(result)
    with pytest.raises(InputError, match="goes with labels"):
        audit(load_dataset(arrays), clean=np.zeros(3))
