"""Configuration: presets, checks, JSON."""

import dataclasses
import hashlib
import inspect
import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from mrl_jax import Config, InputError, config_formats, preset
from mrl_jax.config import PRESETS, auto_temperature
from mrl_jax.config_formats import DEFAULTS, FORMAT, current_values
from mrl_jax.methods.registry import hyperparameters_of
from mrl_jax.options import (
    FILE_FIELDS,
    INITIALIZERS,
    LOSSES,
    NOISE_FIELDS,
    NOISE_KINDS,
    OPTIONS,
    PRECISIONS,
    PREPROCESS,
)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_json_round_trip(name):
    config = preset(name, seed=3)
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config.preset == name
    assert config.seed == 3


def test_presets_of_the_paper_hold_its_protocol():
    sizes = {"wikipedia": 50, "inria-websearch": 200, "nus-wide": 500, "xmedianet": 500}
    for name, batch in sizes.items():
        config = preset(name, recipe="paper")
        assert (config.batch_size, config.epochs, config.learning_rate) == (batch, 100, 1e-4)
        assert (config.hidden_dims, config.embed_dim, config.tau1, config.tau2) == ((4096, 4096), 512, 1.0, 1.0)
    assert 0.5 <= preset("wikipedia", recipe="paper").beta <= 0.8
    assert 0.85 <= preset("inria-websearch", recipe="paper").beta <= 0.95


def test_every_published_set_has_a_preset():
    from mrl_jax.data.published.catalog import CATALOG

    assert set(PRESETS) == {"emoji", "custom", *CATALOG}


def test_only_benchmarks_get_noise_by_default():
    assert preset("emoji").noise_rate == 0.6
    assert preset("custom").noise_rate == 0.0
    assert Config().noise_rate == 0.0


def test_options_and_fields_of_a_configuration_are_the_same():
    assert list(OPTIONS) == [f.name for f in dataclasses.fields(Config)]
    assert {*NOISE_FIELDS, *FILE_FIELDS} <= set(OPTIONS)
    for name, option in OPTIONS.items():
        assert Config.__dataclass_fields__[name].default == option.default
        assert option.help


def test_every_choice_of_preprocessing_noise_and_layers_is_implemented():
    import jax

    from mrl_jax.data.preprocess import apply_preprocess, fit_preprocess
    from mrl_jax.models.mlp import Encoder
    from mrl_jax.noise.inject import NoiseSpec

    x = {"m": np.ones((2, 2), np.float32)}
    for kind in PREPROCESS:
        assert apply_preprocess(kind, fit_preprocess({"m": kind}, x, {})["m"], x["m"]).shape == (2, 2)
    for kind in NOISE_KINDS:
        NoiseSpec(0.5, kind, matrix=((0.5, 0.5), (0.5, 0.5)) if kind == "matrix" else None)
    for initializer, precision in itertools.product(INITIALIZERS, PRECISIONS):
        jax.eval_shape(Encoder((4,), 2, initializer, precision).init, jax.random.key(0), x["m"])


def test_defaults_of_the_numbers_of_losses_are_those_of_the_code():
    from mrl_jax.losses import robust

    elsewhere = {("elr", "momentum"): inspect.signature(robust.ema_targets).parameters["momentum"].default}
    for name, loss in LOSSES.items():
        for number, known in loss.numbers.items():
            if name in robust.PER_SAMPLE_LOSSES:  # the others read their defaults from the options
                parameters = inspect.signature(robust.PER_SAMPLE_LOSSES[name]).parameters
                default = elsewhere[name, number] if (name, number) in elsewhere else parameters[number].default
                assert known.default == default, (name, number)
            assert known.default is None or known.low <= known.default <= known.high
            assert known.help


def test_importing_the_options_is_light():
    code = "import mrl_jax.options, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    light = {"names", "errors", "options", "version", "methods", "methods.registry"}
    assert {m for m in loaded if m.startswith("mrl_jax.")} == {f"mrl_jax.{m}" for m in light}
    assert {"jax", "numpy"}.isdisjoint(loaded)


def test_numbers_and_single_values_take_the_field_type():
    config = Config(beta=1, hidden_dims=64, epochs=5.0, preprocess="l2", data_path=None)
    assert (config.beta, config.hidden_dims, config.epochs, config.preprocess) == (1.0, (64,), 5, ("l2",))
    assert isinstance(config.beta, float)


BAD = [
    ("noise_rate", 1.5, r"must be in \[0, 1\]"),
    ("noise_rate", -0.1, r"must be in \[0, 1\]"),
    ("noise_rate", math.nan, "must be finite"),
    ("beta", 2.0, r"must be in \[0, 1\]"),
    ("tau1", 0.0, "must be greater than 0"),
    ("tau1", 1e-50, "must be at least 1e-30"),
    ("tau2", -1.0, "must be greater than 0"),
    ("tau2", math.inf, "must be finite"),
    ("epochs", 0, "must be at least 1"),
    ("epochs", 2.5, "must be of type int"),
    ("epochs", True, "must be of type int"),
    ("batch_size", 0, "must be at least 1"),
    ("learning_rate", 0.0, "must be greater than 0"),
    ("hidden_dims", (16, 0), "must be at least 1"),
    ("hidden_dims", None, "must be a list"),
    ("hidden_dims", (16, 10**8), "must be at most 10000000"),
    ("hidden_dims", (16,) * 257, "257 values; give at most 256"),
    ("embed_dim", 2**62, "must be at most 10000000"),
    ("epochs", 2**70, "must be at most 2147483647"),
    ("batch_size", 2**31, "must be at most 2147483647"),
    ("learning_rate", 1e300, r"must be at most 3e\+38"),
    ("tau1", 1e39, r"must be at most 3e\+38"),
    ("loss_options", ("gamma=1e99",), "options of the loss rc are"),
    ("embed_dim", "big", "must be of type int"),
    ("seed", 2**32, r"must be in \[0, 4294967295\]"),
    ("seed", -1, r"must be in \[0, 4294967295\]"),
    ("loss", "hinge", "choose from rc, ce"),
    ("preprocess", ("l2", "zca"), "choose from none, standardize, l2"),
    ("preprocess", (), "preprocess is empty"),
    ("noise_kind", "odd", "choose from symmetric"),
    ("noise_scope", "batch", "choose from modality, instance"),
    ("schedule", "linear", "choose from cosine"),
    ("precision", "float8", "choose from float32"),
    ("clip_norm", 0.0, "must be greater than 0"),
    ("modalities", ("a",), "two or more"),
    ("modalities", ("a", "a"), "two or more"),
    ("preset", "imagenet", "unknown preset 'imagenet'"),
    ("data_path", "https://x.org/a.npz", "is an address; download it first"),
    ("init_from", "s3://runs/1", "is an address; download it first"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD)
def test_bad_values_are_refused_with_name_rule_and_value(field, value, message):
    with pytest.raises(InputError, match=message) as caught:
        Config(**{field: value})
    assert field in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numpy_numbers_are_numbers():
    config = Config(batch_size=np.int64(8), beta=np.float32(0.5), hidden_dims=np.array([8, 4]))
    assert (config.batch_size, config.beta, config.hidden_dims) == (8, 0.5, (8, 4))


def test_unknown_presets_and_fields_are_refused():
    with pytest.raises(InputError, match="unknown preset 'mnist'; choose from: emoji"):
        preset("mnist")
    with pytest.raises(InputError, match="unknown configuration field 'bta'"):
        preset("emoji", bta=0.5)
    with pytest.raises(InputError, match="method 'svm': choose from mrl, consensus, cca"):
        Config(method="svm")


# Formats of config.json

# What the first version wrote for preset("emoji", recipe="paper", loss="gce", loss_options="q=0.5").
FORMAT_1 = {
    "preset": "emoji", "data_path": None, "modalities": ["image", "text"], "preprocess": ["standardize"],
    "noise_rate": 0.6, "noise_kind": "symmetric", "noise_scope": "modality", "noise_protocol": None,
    "noise_matrix": None, "noise_file": None, "noisy_validation": False, "loss": "gce", "loss_options": ["q=0.5"],
    "assumed_noise": None, "beta": 0.7, "tau1": 1.0, "tau2": 1.0, "self_similarity": False,
    "contrastive_scale": "equation", "epochs": 20, "batch_size": 100, "learning_rate": 0.0001, "schedule": "cosine",
    "weight_decay": 0.0, "clip_norm": None, "hidden_dims": [1024, 1024], "embed_dim": 512, "initializer": "uniform",
    "stream": "auto", "precision": "float32", "seed": 0,
}  # fmt: skip


# SHA-256 of the defaults of every format.
DIGESTS = {
    1: "e4556bc3f474839f45377759d282390551d6a70a65f926499c37a0eb3a01d103",
    2: "2f6271c76599aace0166fb60f06f354133251aca07b41fd6f335db0a7b23c72a",
    3: "fe2e625153b8952dc1e5fc21101e2e8bf1c2772c5fe6bc3788691d73f46c4a5b",
    4: "fe2e625153b8952dc1e5fc21101e2e8bf1c2772c5fe6bc3788691d73f46c4a5b",
}


def test_defaults_of_the_current_format_are_those_of_this_version():
    defaults = Config().to_json()
    assert defaults.pop("format") == FORMAT == max(DEFAULTS)
    assert DEFAULTS[FORMAT] == defaults, (
        "a default of Config differs from the table of the format that this version writes; files without the field "
        "would be read with another value: raise FORMAT in mrl_jax/config_formats.py, freeze the old defaults there, "
        "and add a table for the new format"
    )
    for number in DEFAULTS:
        assert set(current_values({"format": number}, "c.json")) == set(defaults)


@pytest.mark.parametrize("number", DEFAULTS)
def test_defaults_of_a_released_format_never_change(number):
    digest = hashlib.sha256(json.dumps(DEFAULTS[number], sort_keys=True).encode()).hexdigest()
    assert digest == DIGESTS[number], "files of this format would be read with other values: make a new format"


def test_a_new_field_needs_no_change_of_older_formats(monkeypatch):
    later = FORMAT + 1
    monkeypatch.setattr(config_formats, "FORMAT", later)
    monkeypatch.setitem(DEFAULTS, later, DEFAULTS[FORMAT] | {"colour": "red", "epochs": 99})
    old, schedule = {"format": FORMAT, "beta": 0.5}, {"schedule": "cosine-hold"}
    assert current_values(old, "c.json") == DEFAULTS[FORMAT] | {"beta": 0.5, "colour": "red"}
    first = {"schedule": "cosine-hold-v1", "epochs": 30, "colour": "red"}
    assert current_values(schedule, "c.json") == DEFAULTS[FORMAT] | first
    monkeypatch.setitem(config_formats._TO_NEXT, FORMAT, lambda fields: fields | {"colour": "grey"})
    assert current_values(old, "c.json")["colour"] == "grey"
    assert current_values({"format": later}, "c.json")["colour"] == "red"
    with pytest.raises(InputError, match="field 'colour' is unknown"):
        current_values({"format": FORMAT, "colour": "red"}, "c.json")


def test_a_file_of_format_1_has_the_values_of_its_time():
    expected = preset("emoji", beta=0.7, tau1=1.0, tau2=1.0, loss="gce", loss_options="q=0.5", epochs=20)
    config = Config.from_json(FORMAT_1)
    assert config == expected
    assert (config.method, config.method_options) == ("mrl", ())
    added = {name: value for name, value in DEFAULTS[2].items() if name not in FORMAT_1}
    assert config.to_json() == {"format": FORMAT, **FORMAT_1, **added}


def test_the_cut_of_the_data_is_a_part_of_the_configuration(tmp_path):
    entries = ("image=I_tr,I_te", "labels=L_tr,L_te")
    (tmp_path / "keys.json").write_text('{"image": ["I_tr", "I_te"], "labels": ["L_tr", "L_te"]}')
    config = Config(keys=(str(tmp_path / "keys.json"),), valid_share=0.1, split_seed=3)
    assert config.keys == entries
    assert config == Config(keys=entries, valid_share=0.1, split_seed=3)
    named = {"image": ("I_tr", "I_te"), "labels": ["L_tr", "L_te"]}
    assert config == preset("custom", keys=named, valid_share=0.1, split_seed=3)
    assert Config.from_json(config.to_json()) == config
    assert config.cut == {"keys": entries, "split": None, "split_seed": 3, "valid_share": 0.1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "60/40"}, "split '60/40': give the percentages of train, validation and test"),
        ({"split": "60/15/26"}, "with the sum 100"),
        ({"split": "100/0/0"}, "with the sum 100"),
        ({"split": "a/b/c"}, "with the sum 100"),
        ({"split": "60/15/25", "valid_share": 0.1}, "leave valid_share out"),
        ({"split_seed": 1}, "split_seed 1 needs split or valid_share"),
        ({"split_seed": 1, "preset": "wikipedia"}, "split_seed 1 needs split or valid_share"),
        ({"split_seed": -1, "preset": "emoji"}, "split_seed -1: must be"),
        ({"valid_share": 0.0}, "valid_share 0.0: must be a number greater than 0 and less than 1, such as 0.1"),
        ({"valid_share": 1.0}, "valid_share 1.0: must be a number greater than 0 and less than 1"),
        ({"keys": ("image",)}, "keys 'image': no entry NAME=KEY,KEY, and no JSON file"),
        ({"keys": ("image=a,,b",)}, "give NAME=KEY"),
        ({"keys": ("image=a", "text=")}, "give NAME=KEY"),
        ({"keys": ("image=a", "image=b")}, "image is given twice"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Config(**values)


def test_cosine_hold_of_format_1_keeps_its_rates():
    assert Config.from_json(FORMAT_1 | {"schedule": "cosine-hold"}).schedule == "cosine-hold-v1"
    now = Config(schedule="cosine-hold").to_json()
    assert Config.from_json(now).schedule == "cosine-hold"
    assert Config.from_json({k: v for k, v in now.items() if k in DEFAULTS[1]}).schedule == "cosine-hold-v1"


def test_consensus_of_older_formats_has_no_mixup_and_no_dropout_of_units():
    for older in (1, 2, 3):
        numbers = Config.from_json({"format": older, "method": "consensus"}).method_numbers
        assert numbers == {"dropout": 0.35, "hidden_dropout": 0.0, "mixup": 0.0}
        given = Config.from_json({"format": older, "method": "consensus", "method_options": ["dropout=0.1"]})
        assert given.method_options == ("dropout=0.1", "hidden_dropout=0", "mixup=0")
        assert Config.from_json({"format": older}).method_options == ()
    assert Config.from_json(Config(method="consensus").to_json()).method_numbers["mixup"] == 0.5


@pytest.mark.parametrize("number", DEFAULTS)
def test_missing_fields_take_the_default_of_their_format(number, monkeypatch):
    monkeypatch.setitem(DEFAULTS, number, DEFAULTS[number] | {"epochs": 7})
    assert Config.from_json({"format": number}) == Config(epochs=7)
    assert Config.from_json({"format": number, "epochs": 9, "beta": 0.5}) == Config(epochs=9, beta=0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"format": 5},
            r"c\.json was written by a newer version \(format 5; this version reads up to 4\); update mrl_jax",
        ),
        ({"format": 5, "colour": 1}, "newer version"),
        ({"format": "2"}, r"c\.json: format '2' must be a whole number from 1 to 4"),
        ({"format": True}, "format True must be"),
        ({"format": 0}, "format 0 must be"),
        ({"colour": 1}, r"c\.json: field 'colour' is unknown to this version; restore the file, or update mrl_jax"),
        ({"format": 2, "colour": 1}, "field 'colour' is unknown"),
        ({"beta": "big"}, r"c\.json: beta 'big': must be of type float"),
        ({"format": 2, "hidden_dims": 1.5}, r"c\.json: hidden_dims 1\.5: must be of type int"),
        ({"format": 2, "method_options": 3}, r"c\.json: method_options 3: must be of type str"),
        ({"format": 3, "method": "consensus", "method_options": 3}, r"method_options 3: must be of type str"),
    ],
)
def test_files_that_cannot_be_read_are_refused_with_their_name(values, message):
    with pytest.raises(InputError, match=message):
        Config.from_json(values, "c.json")


def test_a_file_of_labels_replaces_the_noise_fields():
    config = preset("emoji", noise_file="noise.json")
    assert (config.noise_rate, config.noise_kind) == (0.0, "symmetric")
    with pytest.raises(InputError, match="leave out noise_kind 'cyclic'"):
        preset("emoji", noise_file="noise.json", noise_kind="cyclic")


def test_noise_fields_without_effect_are_refused():
    with pytest.raises(InputError, match="noise_scope 'instance' without noise: add noise_rate R"):
        preset("custom", noise_scope="instance")
    assert preset("custom", noise_scope="instance", noise_rate=0).noise_rate == 0
    assert preset("emoji", noise_scope="instance").noise_rate == 0.6
    with pytest.raises(InputError, match="noise_scope 'modality': noise_protocol per-pair means instance"):
        preset("emoji", noise_protocol="per-pair", noise_scope="modality")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "gce", "loss_options": ("q=2",)}, r"loss_options 'q=2': must be a number in \[0.001, 1\]"),
        ({"loss": "gce", "loss_options": ("q=nan",)}, "must be a number"),
        ({"loss": "gce", "loss_options": ("q",)}, "options of the loss gce are: q=NUMBER"),
        ({"loss": "sce", "loss_options": ("c=1",)}, "options of the loss sce are: a=NUMBER, b=NUMBER"),
        ({"loss": "sce", "loss_options": ("a=1", "a=2")}, "a is given twice"),
        ({"loss": "sce", "loss_options": ("a=inf",)}, "must be a number at least 0"),
        ({"loss": "rc", "loss_options": ("q=0.5",)}, "options of the loss rc are: none"),
        ({"assumed_noise": 0.3}, "assumed_noise 0.3 has no effect on the loss rc; leave it out"),
        ({"loss": "forward", "assumed_noise": 1.5}, r"must be in \[0, 1\]"),
    ],
)
def test_options_of_losses_are_checked(values, message):
    with pytest.raises(InputError, match=message):
        Config(**values)


def test_options_of_losses_reach_the_recipe_in_any_order():
    a, b = (hyperparameters_of(Config(loss="sce", loss_options=o)) for o in (("a=2", "b=0.5"), ("b=.5", "a=2e0")))
    assert a == b
    assert a.loss_options == (("a", 2.0), ("b", 0.5))


@pytest.mark.parametrize("k", [5, 9, 10, 31, 100, 200, 1000])
def test_the_temperature_of_k_classes_bounds_their_probabilities_by_one_half(k):
    """The geometric mean over the classes; a simplex with every sample on its centre reaches it, nothing exceeds it."""

    def geometric_mean(centers, samples):
        centers, samples = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (centers, samples))
        logits = samples @ centers.T / auto_temperature(k)
        return np.exp(np.mean(np.diag(logits) - np.log(np.exp(logits).sum(axis=1))))

    simplex = np.eye(k) - 1.0 / k
    np.testing.assert_allclose(geometric_mean(simplex, simplex), 0.5, rtol=1e-9)
    rng = np.random.default_rng(k)
    for dim in (2, 8, k):
        centers = rng.normal(size=(k, dim))
        away = centers - centers.sum(axis=0) / k  # the best direction for the samples of a class
        for samples in (centers, away, rng.normal(size=(k, dim))):
            assert geometric_mean(centers, samples) < 0.5
        shaken = simplex + 0.1 * rng.normal(size=(k, k)) / k**0.5
        assert 0.4 < geometric_mean(shaken, shaken) < 0.5


def test_few_classes_have_temperature_one():
    assert [auto_temperature(k) for k in (1, 2, 3, 4)] == [1.0] * 4
    assert all(a >= b for a, b in itertools.pairwise(map(auto_temperature, range(1, 50))))


def test_the_recipe_of_the_paper():
    for name, beta in (("wikipedia", 0.7), ("inria-websearch", 0.9), ("emoji", 0.7)):
        paper, ours = preset(name, recipe="paper"), preset(name)
        assert (paper.beta, paper.tau1, paper.tau2, paper.schedule) == (beta, 1.0, 1.0, "cosine-hold")
        assert (ours.beta, ours.tau1, ours.tau2, ours.schedule) == (0.9, None, None, "cosine")
    assert preset("wikipedia", recipe="paper", beta=0.5, tau1=None).beta == 0.5
    assert preset("wikipedia", recipe="paper", tau1=None).tau1 is None
    with pytest.raises(InputError, match="recipe 'best': choose from default, paper"):
        preset("wikipedia", recipe="best")


@pytest.mark.parametrize("method", [{}, ["mrl"], None, 3])
def test_a_method_of_a_wrong_type_in_a_file_is_refused(method):
    with pytest.raises(InputError, match="method"):
        Config.from_json(FORMAT_1 | {"format": 3, "method": method}, "sweep.json")
