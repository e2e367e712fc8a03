"""Choices, ranges, defaults and help of every option, in one place. Light: imports no library."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mrl_jax.errors import InputError
from mrl_jax.methods.registry import METHODS

__all__ = [
    "ARRAY_LIMIT",
    "COMMON_FIELDS",
    "CONTRASTIVE_SCALES",
    "CUT_FIELDS",
    "FILE_FIELDS",
    "INITIALIZERS",
    "LOSSES",
    "MOST_NEIGHBOURS",
    "MOST_RUNS",
    "MOST_STEPS",
    "NOISE_FIELDS",
    "NOISE_KINDS",
    "NOISE_PROTOCOLS",
    "NOISE_SCOPES",
    "OPTIONS",
    "PARALLEL",
    "PRECISIONS",
    "PREPROCESS",
    "RECIPES",
    "REPRESENTATIONS",
    "SCHEDULES",
    "STREAMS",
    "SWEEP_WAYS",
    "Loss",
    "Number",
    "Option",
    "parse_numbers",
]

# ---------------------------------------------------------------------------------------------------------------------
# Choices

PREPROCESS = ("none", "standardize", "l2")
"""Preprocessing of the features of a modality: `mrl_jax.data.preprocess`."""

NOISE_KINDS = (
    "symmetric",
    "symmetric-wrong",
    "asymmetric",
    "cyclic",
    "nearest-class",
    "matrix",
    "instance-dependent",
    "pair-mismatch",
)
"""What the noise does to a selected sample: `mrl_jax.noise.inject.NoiseSpec`."""

NOISE_SCOPES = ("modality", "instance")
"""Whether the noise is drawn for each modality or once per instance."""

NOISE_PROTOCOLS: dict[str, tuple[str, str]] = {
    "mrl": ("symmetric", "modality"),
    "per-pair": ("symmetric", "instance"),
    "wrong-only": ("symmetric-wrong", "instance"),
}
"""Name of a protocol of published work -> its noise kind and scope."""

CONTRASTIVE_SCALES = ("equation", "program")
"""Scale of the contrastive loss: eq. 7, or the official implementation (it differs for more than two modalities)."""

SCHEDULES = ("cosine", "cosine-hold", "cosine-hold-v1", "constant")
"""Schedules of the learning rate: `mrl_jax.methods.gradient.learning_rate_at`."""

INITIALIZERS = ("uniform", "lecun_normal")
"""Initial values of the linear layers."""

ARRAY_LIMIT = "MRL_JAX_MAX_ARRAY_GB"
"""Environment variable that sets how large one array of a file may be, in 10^9 bytes; default: the machine's memory.
The flag --max-array-gb of a command sets it."""

PRECISIONS = ("float32", "tf32", "bfloat16")
"""Precision of the encoders' layers."""

STREAMS = ("auto", "on", "off")
"""Whether batches are read from disk while training."""

RECIPES = ("default", "paper")
"""Ours, chosen on validation data of several sets (docs/method.md), and the objective and schedule of the paper."""

REPRESENTATIONS = ("embedding", "posterior", "both")
"""What samples are retrieved by: `mrl_jax.run.representation`."""

PARALLEL = ("auto", "jit", "shard_map", "pmap")
"""How a run uses several devices."""

SWEEP_WAYS = ("auto", "together", "apart")
"""Whether runs of a sweep are trained as one compiled program or one after the other."""

# ---------------------------------------------------------------------------------------------------------------------
# Losses and their numbers


class Number(NamedTuple):
    """A number of a loss or a method, set by `NAME=NUMBER`.

    Attributes:
        default: used where none is given; None where it depends on the data.
        low: lower bound, included.
        high: upper bound, included; inf for none.
        help: what it is.
        whole: it must be a whole number.
    """

    default: float | None
    low: float
    high: float
    help: str
    whole: bool = False


class Loss(NamedTuple):
    """A clustering loss.

    Attributes:
        summary: one line.
        numbers: name -> number that `loss_options` may set.
        needs_noise: it uses the transition or the rate of the label noise.
    """

    summary: str
    numbers: dict[str, Number]
    needs_noise: bool = False


def _active_passive(a: str, b: str) -> dict[str, Number]:
    """The weights of a sum of two losses; both defaults depend on the number of classes."""
    return {"a": Number(None, 0.0, math.inf, a), "b": Number(None, 0.0, math.inf, b)}


LOSSES: dict[str, Loss] = {
    "rc": Loss("robust clustering (Hu et al., CVPR 2021)", {}),
    "ce": Loss("cross-entropy", {}),
    "focal": Loss(
        "focal loss (Lin et al., ICCV 2017)",
        {"gamma": Number(2.0, 0.0, math.inf, "exponent of 1 - p; 0 is cross-entropy")},
    ),
    "mae": Loss("mean absolute error (Ghosh et al., AAAI 2017)", {}),
    "gce": Loss(
        "generalised cross-entropy (Zhang and Sabuncu, NeurIPS 2018)",
        {"q": Number(0.7, 1e-3, 1.0, "towards 0 cross-entropy, at 1 half the mean absolute error")},
    ),
    "sce": Loss(
        "symmetric cross-entropy (Wang et al., ICCV 2019)",
        _active_passive(
            "weight of the cross-entropy; 0.1, over 50 classes 6",
            "weight of the reverse cross-entropy; 1, over 50 classes 0.1",
        ),
    ),
    "nce-rce": Loss(
        "normalised and reverse cross-entropy (Ma et al., ICML 2020)",
        _active_passive(
            "weight of the normalised cross-entropy; 1, over 50 classes 10",
            "weight of the reverse cross-entropy; 1, over 50 classes 0.1",
        ),
    ),
    "nce-mae": Loss(
        "normalised cross-entropy and mean absolute error (Ma et al., ICML 2020)",
        _active_passive(
            "weight of the normalised cross-entropy; 1, over 50 classes 10",
            "weight of the mean absolute error; 1",
        ),
    ),
    "label-smoothing": Loss(
        "cross-entropy with smoothed labels (Szegedy et al., CVPR 2016)",
        {"epsilon": Number(0.1, 0.0, 1.0, "weight of the uniform distribution in the label")},
    ),
    "bootstrap-soft": Loss(
        "cross-entropy with the label and the prediction (Reed et al., 2015)",
        {"trust": Number(0.95, 0.0, 1.0, "weight of the given label")},
    ),
    "bootstrap-hard": Loss(
        "cross-entropy with the label and the most probable class (Reed et al., 2015)",
        {"trust": Number(0.8, 0.0, 1.0, "weight of the given label")},
    ),
    "forward": Loss("forward correction by the noise transition (Patrini et al., CVPR 2017)", {}, needs_noise=True),
    "elr": Loss(
        "early-learning regularisation (Liu et al., NeurIPS 2020)",
        {
            "strength": Number(3.0, 0.0, math.inf, "weight of the regulariser"),
            "momentum": Number(0.7, 0.0, 0.999, "decay of the EMA targets"),
        },
    ),
    "lq": Loss("bounded loss of RSHNL (AAAI 2025)", {"q": Number(0.01, 1e-3, 1.0, "exponent of p")}),
    "small-loss": Loss(
        "cross-entropy of the samples with the smallest losses (Han et al., NeurIPS 2018)",
        {"ramp": Number(10.0, 0.0, math.inf, "epochs until the whole noise rate is dropped")},
        needs_noise=True,
    ),
    "gmm": Loss(
        "cross-entropy of the samples in the lower of two Gaussians of the losses (Li et al., ICLR 2020)",
        {
            "warmup": Number(5.0, 0.0, math.inf, "epochs with all samples"),
            "threshold": Number(0.5, 0.0, 1.0, "posterior above which a sample is used"),
        },
    ),
}
"""Name of a clustering loss -> what it is, and its numbers."""


def parse_numbers(given: tuple[str, ...], known: Mapping[str, Number], what: str, field: str) -> dict[str, float]:
    """Parse options of the form `NAME=NUMBER`.

    Args:
        given: the options.
        known: name -> number that may be set.
        what: kind and name of what they belong to, such as "loss gce", for messages.
        field: the field of `Config` that holds them, for messages.

    Returns:
        Name -> number, of those given.

    Raises:
        InputError: no `NAME=NUMBER`, an unknown name, a number outside its range or not whole, or a name given twice.

    Example:
        >>> parse_numbers(("q=0.5",), LOSSES["gce"].numbers, "loss gce", "loss_options")
        {'q': 0.5}
    """
    numbers = dict[str, float]()
    for option in given:
        name, equals, value = option.partition("=")
        if name not in known or not equals:
            names = ", ".join(f"{n}=NUMBER" for n in known) or "none"
            raise InputError(f"{field} {option!r}: options of the {what} are: {names}")
        low, high, whole = known[name].low, known[name].high, known[name].whole
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (low <= number <= high and math.isfinite(number)):
            bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
            raise InputError(f"{field} {option!r}: must be a number {bounds}")
        if number > _LARGEST:
            raise InputError(f"{field} {option!r}: must be at most {_LARGEST:g}")
        if whole and number % 1:
            raise InputError(f"{field} {option!r}: must be a whole number, such as {name}={max(round(number), low):g}")
        if name in numbers:
            raise InputError(f"{field}: {name} is given twice")
        numbers[name] = number
    return numbers


# ---------------------------------------------------------------------------------------------------------------------
# Fields of a configuration

NOISE_FIELDS = ("noise_rate", "noise_kind", "noise_scope", "noise_protocol", "noise_matrix")
"""Fields that say which noise to draw; `noise_file` replaces all of them."""

CUT_FIELDS = ("keys", "split", "split_seed", "valid_share")
"""Fields that say how the arrays of the data are named and cut: `cut_options`."""

FILE_FIELDS = ("data_path", "noise_matrix", "noise_file", "init_from")
"""Fields that are paths. They may change between the start of a run and its resumption."""

COMMON_FIELDS = frozenset(
    {
        *("preset", "data_path", *CUT_FIELDS, "modalities", "preprocess"),
        *(*NOISE_FIELDS, "noise_file", "noisy_validation"),
        *("method", "method_options", "stream", "seed"),
    }
)
"""Fields of every run. The others have an effect on the methods that name them: `MethodEntry.uses`."""


class Option(NamedTuple):
    """A field of `mrl_jax.config.Config`, and a flag of the commands that train.

    Attributes:
        default: its default.
        help: text of the flag.
        choices: values that it may take; empty for any.
        low: lower bound, included.
        high: upper bound, included.
        above: lower bound, excluded.
        limit: what no run can use more of; larger values are refused before any work.
        most: how many values it may have at most; None for a field with one value, or any number.
        log: plots show it on a logarithmic axis.
    """

    default: Any
    help: str
    choices: Collection[str] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    limit: float | None = None
    most: int | None = None
    log: bool = False


_WIDEST = 10_000_000  # of a layer; whether the memory holds it is checked with the data
_LARGEST = 3e38  # of a number that becomes a float32

MOST_RUNS = 10_000
"""Runs of a sweep, and seeds of a leaderboard."""

MOST_NEIGHBOURS = 1000
"""Neighbours that an audit names."""

MOST_STEPS = 2**31 - 1
"""Steps of a run; they are counted in 32 bits."""

OPTIONS: dict[str, Option] = {
    "preset": Option("custom", "named defaults"),
    "data_path": Option(
        None, "data file or folder: your own, or a published one of the preset; default: the prepared copy"
    ),
    "keys": Option(
        (),
        "names for the arrays of the file, NAME=TRAIN,TEST (or KEY alone), of tables NAME=COLUMN,COLUMN or "
        "NAME=PREFIX; or a JSON file of them (docs/data.md)",
    ),
    "split": Option(None, "cut data without splits, by class: percentages of train/validation/test, such as 60/15/25"),
    "split_seed": Option(0, "seed of --split and --valid-share; of emoji, which of its splits", low=0, high=2**32 - 1),
    "valid_share": Option(None, "take this fraction of train as validation, by class, where the data have none"),
    "modalities": Option((), "modalities to use, in this order; default: all in the file"),
    "preprocess": Option(
        ("standardize",),
        "one for all modalities or one each; standardize: centre columns, divide by one overall deviation",
        PREPROCESS,
    ),
    "noise_rate": Option(0.0, "fraction of training samples that the noise selects", low=0.0, high=1.0),
    "noise_kind": Option("symmetric", "what happens to selected samples (docs/data.md)", NOISE_KINDS),
    "noise_scope": Option("modality", "draw for each modality, or once per instance", NOISE_SCOPES),
    "noise_protocol": Option(
        None, "kind and scope of published work: MRL; RSHNL and NIRNL; RFCMH", tuple(NOISE_PROTOCOLS)
    ),
    "noise_matrix": Option(None, "file with the K x K transition matrix of noise kind matrix"),
    "noise_file": Option(
        None, "noisy labels from a file: noise.json of a run, or .json, .mat, .npz or .csv of other software"
    ),
    "noisy_validation": Option(False, "choose the model by noisy validation labels; the paper's are clean"),
    "method": Option("mrl", "how the common space is learned (docs/methods.md)", METHODS.keys()),
    "method_options": Option((), "numbers of the method, NAME=NUMBER (docs/methods.md)"),
    "loss": Option("rc", "clustering loss; rc: robust clustering, ce: cross-entropy (docs/method.md)", tuple(LOSSES)),
    "loss_options": Option((), "numbers of the loss, such as q=0.5 for gce; default: those of its source"),
    "assumed_noise": Option(
        None,
        "fraction of wrong labels that is assumed where a loss or method needs it; default: that of the injected noise",
        low=0.0,
        high=1.0,
    ),
    "beta": Option(0.9, "weight of the clustering loss; 1 - beta weighs the contrastive loss", low=0.0, high=1.0),
    "tau1": Option(
        None,
        "temperature of the soft assignment; default: from the number of classes",
        low=1e-30,
        limit=_LARGEST,
        above=0.0,
        log=True,
    ),
    "tau2": Option(
        None,
        "temperature of the contrastive loss; default: from the number of classes",
        low=1e-30,
        limit=_LARGEST,
        above=0.0,
        log=True,
    ),
    "self_similarity": Option(
        False, "count a sample's similarity with itself, as in eq. 6; the official implementation does not"
    ),
    "contrastive_scale": Option(
        "equation", "equation: eq. 7; program: the official implementation (differs for M > 2)", CONTRASTIVE_SCALES
    ),
    "epochs": Option(
        None,
        "passes over the training split; default: by the method, from a number of steps, at least 10 (docs/methods.md)",
        low=1,
        limit=MOST_STEPS,
    ),
    "batch_size": Option(100, "instances per step", low=1, limit=MOST_STEPS),
    "learning_rate": Option(1e-4, "Adam's initial rate", limit=_LARGEST, above=0.0, log=True),
    "schedule": Option(
        "cosine",
        "schedule of the learning rate; cosine-hold: the official implementation; cosine-hold-v1: what older versions "
        "called cosine-hold, only to resume their runs",
        SCHEDULES,
    ),
    "weight_decay": Option(0.0, "decoupled weight decay", low=0.0, limit=_LARGEST),
    "clip_norm": Option(
        None, "upper bound on the global norm of the gradient; default: none", limit=_LARGEST, above=0.0
    ),
    "hidden_dims": Option((1024, 1024), "widths of the hidden layers", low=1, limit=_WIDEST, most=256),
    "embed_dim": Option(512, "dimensions of the common space", low=1, limit=_WIDEST),
    "initializer": Option(
        "uniform", "initial values of the linear layers; uniform: the official implementation", INITIALIZERS
    ),
    "init_from": Option(None, "folder of a run whose weights and preprocessing the run starts with"),
    "representation": Option(
        None,
        "what is retrieved by: the embedding, the class posterior, or both; default: by the method (docs/methods.md)",
        REPRESENTATIONS,
    ),
    "stream": Option("auto", "read batches from disk; auto: where the data do not fit the device", STREAMS),
    "precision": Option("float32", "of the encoders' layers; losses and parameters are float32", PRECISIONS),
    "seed": Option(0, "seed of noise, initial parameters and batches", low=0, high=2**32 - 1),
}
"""Name of a field of `Config`, in its order -> its default, range and help."""
