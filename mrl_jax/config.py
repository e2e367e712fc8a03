"""The configuration of a run: one frozen dataclass, presets, JSON round trip. Light: imports neither JAX nor data."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from mrl_jax.errors import InputError

__all__ = [
    "FILE_FIELDS", "LOSS_OPTIONS", "NOISE_FIELDS", "PRESETS", "RECIPES", "TOLD_NOISE", "Config",
    "auto_temperature", "preset", "shown",
]  # fmt: skip

LOSS_OPTIONS: dict[str, dict[str, tuple[float, float]]] = {
    "rc": {},
    "ce": {},
    "focal": {"gamma": (0.0, math.inf)},
    "mae": {},
    "gce": {"q": (1e-3, 1.0)},
    "sce": {"a": (0.0, math.inf), "b": (0.0, math.inf)},
    "nce-rce": {"a": (0.0, math.inf), "b": (0.0, math.inf)},
    "nce-mae": {"a": (0.0, math.inf), "b": (0.0, math.inf)},
    "label-smoothing": {"epsilon": (0.0, 1.0)},
    "bootstrap-soft": {"trust": (0.0, 1.0)},
    "bootstrap-hard": {"trust": (0.0, 1.0)},
    "forward": {},
    "elr": {"strength": (0.0, math.inf), "momentum": (0.0, 0.999)},
    "lq": {"q": (1e-3, 1.0)},
    "small-loss": {"ramp": (0.0, math.inf)},
    "gmm": {"warmup": (0.0, math.inf), "threshold": (0.0, 1.0)},
}
"""Clustering loss -> its numbers that `loss_options` sets -> the range of each; defaults stand in `robust_losses`."""
_SCALES = ("equation", "program")
_INITS = ("uniform", "lecun_normal")
_SCHEDULES = ("cosine", "cosine-hold", "constant")
_KINDS = (
    "symmetric",
    "symmetric-wrong",
    "asymmetric",
    "cyclic",
    "nearest-class",
    "matrix",
    "instance-dependent",
    "pair-mismatch",
)
_SCOPES = ("modality", "instance")
_PROTOCOLS = {
    "mrl": ("symmetric", "modality"),
    "per-pair": ("symmetric", "instance"),
    "wrong-only": ("symmetric-wrong", "instance"),
}
TOLD_NOISE = ("forward", "small-loss")
"""Losses that are told how wrong the labels are."""
_PREPROCESS = ("none", "standardize", "l2")
_PRECISIONS = ("float32", "tf32", "bfloat16")
_STREAMS = ("auto", "on", "off")
NOISE_FIELDS = ("noise_rate", "noise_kind", "noise_scope", "noise_protocol", "noise_matrix")
"""What says which noise to draw; `noise_file` stands in place of all."""
FILE_FIELDS = ("data_path", "noise_matrix", "noise_file")
"""Paths: they may change while the run stays the same."""


def _opt(default: Any, help: str, **metadata: Any) -> Any:
    """A field with the help text of its flag and, where given, `choices`, `low`, `high` (bounds included)."""
    return field(default=default, metadata={"help": help, **metadata})


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run. Each field is a flag of `python -m mrl_jax.train`.

    Raises:
        InputError: a value of the wrong type or outside its range, on construction.
    """

    preset: str = _opt("custom", "named defaults")
    data_path: str | None = _opt(
        None, "data file or folder: your own, or a published one of the preset; default: the prepared copy"
    )
    modalities: tuple[str, ...] = _opt((), "modalities to use, in this order; default: all in the file")
    preprocess: tuple[str, ...] = _opt(
        ("standardize",),
        "one for all modalities or one each; standardize: centre columns, divide by one overall deviation",
        choices=_PREPROCESS,
    )
    noise_rate: float = _opt(0.0, "share of training samples that the noise selects", low=0.0, high=1.0)
    noise_kind: str = _opt("symmetric", "what happens to selected samples (docs/data.md)", choices=_KINDS)
    noise_scope: str = _opt("modality", "draw for each modality, or once per instance", choices=_SCOPES)
    noise_protocol: str | None = _opt(
        None, "kind and scope of published work: MRL; RSHNL and NIRNL; RFCMH", choices=tuple(_PROTOCOLS)
    )
    noise_matrix: str | None = _opt(None, "file with the K x K transition matrix of noise kind matrix")
    noise_file: str | None = _opt(
        None, "noisy labels from a file: a run's noise.json, or another program's .json, .mat"
    )
    noisy_validation: bool = _opt(False, "choose the model by noisy validation labels; the paper's are clean")
    loss: str = _opt("rc", "clustering loss; rc: robust clustering, ce: cross-entropy", choices=tuple(LOSS_OPTIONS))
    loss_options: tuple[str, ...] = _opt((), "numbers of the loss, such as q=0.5 for gce; default: of its source")
    assumed_noise: float | None = _opt(
        None,
        "share of wrong labels that forward and small-loss count on; default: of the injected noise",
        low=0,
        high=1,
    )
    beta: float = _opt(0.9, "weight of the clustering loss; 1 - beta weighs the contrastive loss", low=0.0, high=1.0)
    tau1: float | None = _opt(
        None, "temperature of the soft assignment; default: from the number of classes", above=0.0, low=1e-30
    )
    tau2: float | None = _opt(
        None, "temperature of the contrastive loss; default: from the number of classes", above=0.0, low=1e-30
    )
    self_similarity: bool = _opt(
        False, "count a sample's similarity with itself (the paper's eq. 6; its program does not)"
    )
    contrastive_scale: str = _opt("equation", "eq. 7, or the authors' program (differs for m > 2)", choices=_SCALES)
    epochs: int = _opt(30, "passes over the training split", low=1)
    batch_size: int = _opt(100, "instances per step", low=1)
    learning_rate: float = _opt(1e-4, "Adam's initial rate", above=0.0)
    schedule: str = _opt("cosine", "of the rate; cosine-hold is the authors' program", choices=_SCHEDULES)
    weight_decay: float = _opt(0.0, "decoupled weight decay", low=0.0)
    clip_norm: float | None = _opt(None, "bound on the gradient's global norm; default: none", above=0.0)
    hidden_dims: tuple[int, ...] = _opt((1024, 1024), "widths of the hidden layers", low=1)
    embed_dim: int = _opt(512, "dimensions of the common space", low=1)
    initializer: str = _opt("uniform", "of linear layers; uniform is the authors' program", choices=_INITS)
    stream: str = _opt("auto", "read batches from disk; auto: where the data do not fit the device", choices=_STREAMS)
    precision: str = _opt("float32", "of the encoders' layers; losses and parameters are float32", choices=_PRECISIONS)
    seed: int = _opt(0, "seed of noise, initial parameters and batches", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f, _hints()[f.name], getattr(self, f.name)))
        for name in FILE_FIELDS:  # a run must find its files again from any folder
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, self.absolute(path))
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}; choose from: {', '.join(PRESETS)}")
        if len(set(self.modalities)) != len(self.modalities) or len(self.modalities) == 1:
            raise InputError(f"modalities {' '.join(self.modalities)}: name two or more different ones")
        if not self.preprocess:
            raise InputError(
                f"preprocess is empty; give one of {', '.join(_PREPROCESS)} for all modalities or one each"
            )

        self._settle_noise()
        if self.assumed_noise is not None and self.loss not in TOLD_NOISE:
            raise InputError(
                f"assumed_noise {self.assumed_noise:g}: of the losses only {' and '.join(TOLD_NOISE)} use it, not "
                f"{self.loss}; leave it out"
            )
        self.loss_numbers  # noqa: B018  refuses what is wrong

    @property
    def loss_numbers(self) -> dict[str, float]:
        """`loss_options` as numbers."""
        known, found = LOSS_OPTIONS[self.loss], {}
        for option in self.loss_options:
            name, equals, value = option.partition("=")
            if name not in known or not equals:
                have = ", ".join(f"{n}=NUMBER" for n in known) or "none"
                raise InputError(f"loss_options {option!r}: options of the loss {self.loss} are: {have}")
            low, high = known[name]
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not (low <= number <= high and math.isfinite(number)):
                bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
                raise InputError(f"loss_options {option!r}: must be a number {bounds}")
            if name in found:
                raise InputError(f"loss_options: {name} is given twice")
            found[name] = number
        return found

    def _settle_noise(self) -> None:
        """Spell out the protocol; refuse what contradicts. A file of labels stands in place of a draw."""
        if self.noise_file is not None:
            for f in dataclasses.fields(self):
                if f.name in NOISE_FIELDS:
                    object.__setattr__(self, f.name, f.default)
        if self.noise_protocol is not None:
            for name, value in zip(("noise_kind", "noise_scope"), _PROTOCOLS[self.noise_protocol], strict=True):
                given, default = (
                    getattr(self, name),
                    next(f.default for f in dataclasses.fields(self) if f.name == name),
                )
                if given not in (value, default):
                    raise InputError(
                        f"{name} {given!r}: noise_protocol {self.noise_protocol} means {value}; leave one of them out"
                    )
                object.__setattr__(self, name, value)
        if (self.noise_kind == "matrix") != (self.noise_matrix is not None):
            raise InputError("noise_kind matrix and noise_matrix FILE need each other; give both or neither")
        if self.noise_file is not None and self.noisy_validation:
            raise InputError("noise_file holds training labels only; leave noisy_validation out")
        if self.noise_kind == "pair-mismatch" and self.noisy_validation:
            raise InputError("noise_kind pair-mismatch changes no labels; leave noisy_validation out")

    @staticmethod
    def absolute(path: str) -> str:
        """A path as a run keeps it."""
        return str(Path(path).expanduser().absolute())

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str | Path = "configuration") -> "Config":
        """The configuration that `to_json` wrote.

        Raises:
            InputError: a field is missing or unknown.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(names.symmetric_difference(values)))
            raise InputError(
                f"{source}: fields missing or unknown: {odd}; it was written by another version, train anew"
            )
        return cls(**values)


_PAPER: dict[str, Any] = {
    "modalities": ("image", "text"),
    "preprocess": ("none",),
    "noise_rate": 0.6,
    "hidden_dims": (4096, 4096),
    "epochs": 100,
}

# The paper's layers, batches and epochs. It does not use the last two sets: their batches are ours.
PRESETS: dict[str, dict[str, Any]] = {
    "emoji": {"modalities": ("image", "text"), "noise_rate": 0.6, "epochs": 20},
    "wikipedia": {**_PAPER, "batch_size": 50},
    "inria-websearch": {**_PAPER, "batch_size": 200},
    "nus-wide": {**_PAPER, "batch_size": 500},
    "xmedianet": {**_PAPER, "batch_size": 500},
    "xmedia": {**_PAPER, "batch_size": 100},
    "pascal-sentence": {**_PAPER, "batch_size": 50},
    "custom": {},
}
"""Preset -> what it sets differently from the defaults of `Config`."""

RECIPES = ("default", "paper")
"""Ours, chosen on validation data of several sets (docs/method.md), and the objective and schedule of the paper."""

# The paper gives ranges of beta for two sets (Figure 4: Wikipedia 0.5-0.8, INRIA-Websearch 0.85-0.95), none for others;
# 0.7 is that of its program's example.
_PAPER_BETA = {"inria-websearch": 0.9}


def auto_temperature(num_classes: int) -> float:
    r"""The temperature from the number of classes K that is used where none is given.

    A sample that lies on the centre of its class, among centres that are spread evenly on the sphere (cosines of
    -1 / (K - 1)), has the largest probability that eq. 2 can give,

    $$p = 1 / (1 + (K - 1) \exp(-\tfrac{K}{K - 1} / \tau)).$$

    It is 1/2 at $\tau = \tfrac{K}{K - 1} / \log(K - 1)$; that, and at most 1 (K < 5), is the temperature.

    Args:
        num_classes: K, at least 1.

    Example:
        >>> [round(auto_temperature(k), 2) for k in (2, 4, 10, 100, 1000)]
        [1.0, 1.0, 0.51, 0.22, 0.14]
    """
    if num_classes < 5:
        return 1.0
    return num_classes / (num_classes - 1) / math.log(num_classes - 1)


def preset(name: str, *, recipe: str = "default", **overrides: Any) -> Config:
    """The configuration of a preset, with fields replaced.

    Args:
        name: of the preset.
        recipe: "paper" takes the paper's beta, temperatures (1) and schedule.
        overrides: fields of `Config`, which come before both.

    Raises:
        InputError: unknown preset, recipe or field, or a bad value.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose from: {', '.join(PRESETS)}")
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r}: choose from {', '.join(RECIPES)}")
    paper = {"beta": _PAPER_BETA.get(name, 0.7), "tau1": 1.0, "tau2": 1.0, "schedule": "cosine-hold"}
    unknown = sorted(set(overrides) - set(_hints()))
    if unknown:
        raise InputError(f"unknown configuration field {unknown[0]!r}; known: {', '.join(_hints())}")
    config = Config(**{"preset": name, **PRESETS[name], **(paper if recipe == "paper" else {}), **overrides})
    _refuse_idle_noise(config, overrides)
    return config


def _refuse_idle_noise(config: Config, given: Mapping[str, Any]) -> None:
    """Refuse what was said of the noise if it is overruled, or if there is no noise to apply it to."""
    said = [name for name in NOISE_FIELDS[1:] if given.get(name) is not None]
    if config.noise_file is not None:
        if said := [name for name in NOISE_FIELDS if given.get(name) is not None]:
            raise InputError(f"noise_file brings the labels; leave out {said[0]} {given[said[0]]!r}")
        return
    if overruled := [name for name in said if getattr(config, name) != given[name] and not name.endswith("matrix")]:
        name = overruled[0]
        raise InputError(
            f"{name} {given[name]!r}: noise_protocol {config.noise_protocol} means {getattr(config, name)}; leave one "
            "of them out"
        )
    if said and config.noise_rate == 0 and given.get("noise_rate") is None:
        hint = " (1 applies the matrix to every sample)" if config.noise_kind == "matrix" else ""
        raise InputError(f"{said[0]} {given[said[0]]!r} without noise: add noise_rate R{hint}")


def shown(value: Any) -> str:
    """A value of a field as its flag takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _hints() -> dict[str, Any]:
    return get_type_hints(Config)


def _checked(f: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """`value` in the field's type, or an InputError with the field's name, the rule and what was given."""
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        value = value.tolist()
    if type(None) in get_args(hint):
        if value is None:
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
    if get_origin(hint) is tuple:
        items = (value,) if isinstance(value, str | int | float) else value
        if not isinstance(items, list | tuple):
            raise InputError(f"{f.name} {value!r}: must be a list")
        return tuple(_checked_one(f, get_args(hint)[0], v) for v in items)
    return _checked_one(f, hint, value)


def _checked_one(f: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    if kind is str and isinstance(value, Path):
        value = str(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{f.name} {value!r}: must be of type {kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{f.name} {value}: must be finite")
    rules = f.metadata
    if "choices" in rules and value not in rules["choices"]:
        raise InputError(f"{f.name} {value!r}: choose from {', '.join(rules['choices'])}")
    if "above" in rules and not value > rules["above"]:
        raise InputError(f"{f.name} {value}: must be greater than {rules['above']:g}")
    if ("low" in rules and value < rules["low"]) or ("high" in rules and value > rules["high"]):
        bounds = f"at least {rules['low']:g}" if "high" not in rules else f"in [{rules['low']:g}, {rules['high']:.10g}]"
        raise InputError(f"{f.name} {value}: must be {bounds}")
    return value
