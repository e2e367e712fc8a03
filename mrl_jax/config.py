"""The configuration of a run: a frozen dataclass, presets, JSON.

Imports neither JAX nor data sets. The file of a method, which brings JAX, is imported when one of its settings is read.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin, get_type_hints

from mrl_jax.config_formats import FORMAT, current_values
from mrl_jax.cut_options import CutOptions, key_entries, parse_keys
from mrl_jax.errors import InputError
from mrl_jax.files import refuse_address
from mrl_jax.methods.registry import entry_of
from mrl_jax.options import (
    COMMON_FIELDS,
    CUT_FIELDS,
    FILE_FIELDS,
    LOSSES,
    NOISE_FIELDS,
    NOISE_PROTOCOLS,
    OPTIONS,
    PREPROCESS,
    RECIPES,
    parse_numbers,
)

__all__ = [
    "PRESETS",
    "Config",
    "auto_epochs",
    "auto_temperature",
    "fields_used",
    "preset",
    "refuse_no_config",
    "shown",
    "with_settings",
]


def _default(name: str) -> Any:
    """A field with the default that `mrl_jax.options` gives."""
    return field(default=OPTIONS[name].default)


@dataclass(frozen=True)
class Config:
    """All settings that determine the result of a run. Each field is a flag of `python -m mrl_jax.train`.

    A field that has no effect on the method keeps its default.

    Raises:
        InputError: a value of the wrong type or outside its range, or a setting without effect, on construction.
    """

    preset: str = _default("preset")
    data_path: str | None = _default("data_path")
    keys: tuple[str, ...] = _default("keys")
    split: str | None = _default("split")
    split_seed: int = _default("split_seed")
    valid_share: float | None = _default("valid_share")
    modalities: tuple[str, ...] = _default("modalities")
    preprocess: tuple[str, ...] = _default("preprocess")
    noise_rate: float = _default("noise_rate")
    noise_kind: str = _default("noise_kind")
    noise_scope: str = _default("noise_scope")
    noise_protocol: str | None = _default("noise_protocol")
    noise_matrix: str | None = _default("noise_matrix")
    noise_file: str | None = _default("noise_file")
    noisy_validation: bool = _default("noisy_validation")
    method: str = _default("method")
    method_options: tuple[str, ...] = _default("method_options")
    loss: str = _default("loss")
    loss_options: tuple[str, ...] = _default("loss_options")
    assumed_noise: float | None = _default("assumed_noise")
    beta: float = _default("beta")
    tau1: float | None = _default("tau1")
    tau2: float | None = _default("tau2")
    self_similarity: bool = _default("self_similarity")
    contrastive_scale: str = _default("contrastive_scale")
    epochs: int | None = _default("epochs")
    batch_size: int = _default("batch_size")
    learning_rate: float = _default("learning_rate")
    schedule: str = _default("schedule")
    weight_decay: float = _default("weight_decay")
    clip_norm: float | None = _default("clip_norm")
    hidden_dims: tuple[int, ...] = _default("hidden_dims")
    embed_dim: int = _default("embed_dim")
    initializer: str = _default("initializer")
    init_from: str | None = _default("init_from")
    representation: str | None = _default("representation")
    stream: str = _default("stream")
    precision: str = _default("precision")
    seed: int = _default("seed")

    def __post_init__(self) -> None:
        if isinstance(self.keys, Mapping):
            object.__setattr__(self, "keys", key_entries(self.keys))
        for f in dataclasses.fields(self):
            object.__setattr__(self, f.name, _checked(f.name, _hints()[f.name], getattr(self, f.name)))
        for name in FILE_FIELDS:  # absolute, so that a run finds its files from any folder
            if (path := getattr(self, name)) is not None:
                refuse_address(path, name)
                object.__setattr__(self, name, self.absolute(path))
        if self.preset not in PRESETS:
            raise InputError(f"unknown preset {self.preset!r}; choose from: {', '.join(PRESETS)}")
        if len(set(self.modalities)) != len(self.modalities) or len(self.modalities) == 1:
            raise InputError(f"modalities {' '.join(self.modalities)}: name two or more different ones")
        if not self.preprocess:
            raise InputError(f"preprocess is empty; give one of {', '.join(PREPROCESS)} for all modalities or one each")

        self._settle_cut()
        self._settle_noise()
        for f in dataclasses.fields(self):
            if f.name not in COMMON_FIELDS and getattr(self, f.name) != f.default:
                self.refuse_without_effect(f.name)
        self.loss_numbers  # noqa: B018  raises an InputError
        if self.method_options:
            self.method_numbers  # noqa: B018  likewise
        entry_of(self.method).check(self)

    def has_effect(self, name: str) -> bool:
        """Whether a field has an effect on the method of this configuration."""
        if name == "assumed_noise" and not self._method_needs_noise():
            return False
        return name in fields_used(self.method)

    def refuse_without_effect(self, name: str) -> None:
        """Refuse a field that is set but has no effect.

        Raises:
            InputError: it has none.
        """
        if not self.has_effect(name):
            entry = entry_of(self.method)
            what = entry.method(self).name if name in entry.uses else f"method {self.method}"  # such as its loss
            raise InputError(f"{name} {shown(getattr(self, name))} has no effect on the {what}; leave it out")

    def _method_needs_noise(self) -> bool:
        return "noise" in entry_of(self.method).method(self).needs

    @property
    def loss_numbers(self) -> dict[str, float]:
        """`loss_options` as numbers."""
        return parse_numbers(self.loss_options, LOSSES[self.loss].numbers, f"loss {self.loss}", "loss_options")

    @property
    def method_numbers(self) -> dict[str, float]:
        """The numbers of the method: those of `method_options`, the others by default."""
        known = entry_of(self.method).numbers
        defaults = {name: number.default for name, number in known.items() if number.default is not None}
        return defaults | parse_numbers(self.method_options, known, f"method {self.method}", "method_options")

    @property
    def cut(self) -> dict[str, Any]:
        """The arguments of `load_dataset` that say how the data are named and cut."""
        return {name: getattr(self, name) for name in CUT_FIELDS}

    def _settle_cut(self) -> None:
        """Read a file of keys, so that the configuration holds its content; refuse what contradicts itself."""
        if self.keys:
            object.__setattr__(self, "keys", key_entries(self.keys))
            parse_keys(self.keys)
        options = CutOptions(self.split, self.split_seed, self.valid_share)
        options.check(seed_alone=self.preset == "emoji")  # it has a split for every seed

    def _settle_noise(self) -> None:
        """Set kind and scope from the protocol, reset all noise fields for a file of labels, refuse contradictions."""
        if self.noise_file is not None:
            for name in NOISE_FIELDS:
                object.__setattr__(self, name, OPTIONS[name].default)
        if self.noise_protocol is not None:
            for name, value in zip(("noise_kind", "noise_scope"), NOISE_PROTOCOLS[self.noise_protocol], strict=True):
                given = getattr(self, name)
                if given not in (value, OPTIONS[name].default):
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
        """A path as `config.json` holds it."""
        return str(Path(path).expanduser().absolute())

    def to_json(self) -> dict[str, Any]:
        """The format number and the fields that have an effect on the method, as JSON values."""
        return {"format": FORMAT, **json.loads(json.dumps(_with_effect(dataclasses.asdict(self))))}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], source: str | Path = "configuration") -> "Config":
        """The configuration that `to_json` wrote, in this version or an older one.

        Args:
            values: its content. A field that is missing has the default of the version that wrote it.
            source: the file, for messages.

        Raises:
            InputError: a newer version wrote it, a field is unknown, or a value is wrong.
        """
        fields = current_values(values, source)
        try:
            return cls(**_with_effect(fields))
        except InputError as error:
            raise InputError(f"{source}: {error}") from None


_PAPER: dict[str, Any] = {
    "modalities": ("image", "text"),
    "preprocess": ("none",),
    "noise_rate": 0.6,
    "hidden_dims": (4096, 4096),
    "epochs": 100,
}

# Layers, batches and epochs of the paper. It does not use the last two sets; their batches are ours.
PRESETS: dict[str, dict[str, Any]] = {
    "emoji": {"modalities": ("image", "text"), "noise_rate": 0.6},
    "wikipedia": {**_PAPER, "batch_size": 50},
    "inria-websearch": {**_PAPER, "batch_size": 200},
    "nus-wide": {**_PAPER, "batch_size": 500},
    "xmedianet": {**_PAPER, "batch_size": 500},
    "xmedia": {**_PAPER, "batch_size": 100},
    "pascal-sentence": {**_PAPER, "batch_size": 50},
    "custom": {},
}
"""Preset -> what it sets differently from the defaults of `Config`."""

# The paper gives ranges of beta for two sets (Figure 4: Wikipedia 0.5-0.8, INRIA-Websearch 0.85-0.95). Others have 0.7,
# from the example of the official implementation.
_PAPER_BETA = {"inria-websearch": 0.9}


_MIN_EPOCHS = 10


def auto_temperature(num_classes: int) -> float:
    r"""The default temperature, from the number of classes K.

    For one sample of every class, the geometric mean over the classes of the probability of eq. 2 has the upper bound

    $$p = 1 / (1 + (K - 1) \exp(-\tfrac{K}{K - 1} / \tau)),$$

    reached by a simplex ETF (cosines of -1 / (K - 1) between any two centres) with every sample on its centre. Trained
    centres stay below it. The temperature is that at which the bound is 1/2,
    $\tau = \tfrac{K}{K - 1} / \log(K - 1)$, and 1 for K < 5.

    Args:
        num_classes: K, at least 1.

    Example:
        >>> [round(auto_temperature(k), 2) for k in (2, 4, 10, 100, 1000)]
        [1.0, 1.0, 0.51, 0.22, 0.14]
    """
    if num_classes < 5:
        return 1.0
    return num_classes / (num_classes - 1) / math.log(num_classes - 1)


def auto_epochs(config: Config, instances: int) -> int:
    """The default number of epochs: those of about `MethodEntry.steps` steps, but at least 10.

    A number of steps, so that a small set is not trained too briefly.

    Args:
        config: the settings; method and batch size count.
        instances: N, training instances.

    Example:
        >>> [auto_epochs(Config(), n) for n in (900, 2173, 42941)]
        [100, 41, 10]
    """
    return max(_MIN_EPOCHS, round(entry_of(config.method).steps / math.ceil(instances / config.batch_size)))


def refuse_no_config(config: Any) -> None:
    """Refuse what is given in place of a configuration, such as the data.

    Raises:
        InputError: it is no `Config`.
    """
    if not isinstance(config, Config):
        raise InputError(
            f"config is a {type(config).__name__}; give a Config, such as preset('custom', split='60/15/25'); data go "
            "as data=…"
        )


def preset(name: str, *, recipe: str = "default", **overrides: Any) -> Config:
    """The configuration of a preset, with fields replaced.

    Args:
        name: a key of `PRESETS`.
        recipe: "paper" takes the paper's beta, temperatures (1) and schedule.
        overrides: fields of `Config`; they take precedence over preset and recipe.

    Raises:
        InputError: unknown preset, recipe or field, or a bad value.
    """
    if not isinstance(name, str) or name not in PRESETS:
        given = repr(name) if isinstance(name, str) else f"of type {type(name).__name__}"
        raise InputError(f"unknown preset {given}; choose from: {', '.join(PRESETS)}")
    if recipe not in RECIPES:
        raise InputError(f"recipe {recipe!r}: choose from {', '.join(RECIPES)}")
    unknown = sorted(set(overrides) - set(_hints()))
    if unknown:
        raise InputError(f"unknown configuration field {unknown[0]!r}; known: {', '.join(_hints())}")
    paper = {"beta": _PAPER_BETA.get(name, 0.7), "tau1": 1.0, "tau2": 1.0, "schedule": "cosine-hold"}
    method = overrides.get("method", OPTIONS["method"].default)
    if recipe == "paper" and (idle := set(paper) - set(_with_effect({"method": method, **paper}))):
        raise InputError(
            f"recipe paper sets {', '.join(paper)}; {sorted(idle)[0]} has no effect on the method {method}; leave the "
            "recipe out"
        )
    of_method = entry_of(method).settings if method in OPTIONS["method"].choices else {}
    own = {"preset": name, "method": method, **PRESETS[name], **of_method, **(paper if recipe == "paper" else {})}
    config = Config(**{**_with_effect(own), **overrides})
    _refuse_idle_noise(config, overrides)
    for field_name, value in overrides.items():
        if field_name not in COMMON_FIELDS and value is not None:
            config.refuse_without_effect(field_name)
    return config


def with_settings(config: Config, **changes: Any) -> Config:
    """A configuration with fields replaced, perhaps for another method.

    Args:
        config: the configuration. Its settings without effect on the new method return to their defaults.
        changes: fields of `Config`.

    Raises:
        InputError: a bad value, or a change that has no effect on the method.
    """
    fields = dataclasses.asdict(config) | {"method": changes.get("method", config.method)}
    return Config(**{**_with_effect(fields), **changes})


def fields_used(method: str) -> frozenset[str]:
    """The fields of `Config` that have an effect on a method.

    Raises:
        InputError: there is no such method, or its entry names a field that does not exist.
    """
    entry = entry_of(method)
    if unknown := sorted({*entry.uses, *entry.axes} - set(OPTIONS)):
        raise InputError(f"method {method!r} uses the setting {unknown[0]!r}, which does not exist")
    return COMMON_FIELDS | entry.uses


def _with_effect(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have an effect on the method among them."""
    # From JSON, the method may be of any type.
    if not set(fields) - COMMON_FIELDS or fields["method"] not in list(OPTIONS["method"].choices):
        return dict(fields)
    used = fields_used(fields["method"])
    return {name: value for name, value in fields.items() if name in used}


def _refuse_idle_noise(config: Config, given: Mapping[str, Any]) -> None:
    """Refuse noise fields that another field overrules, or that have no effect because there is no noise."""
    details = [name for name in NOISE_FIELDS[1:] if given.get(name) is not None]
    if config.noise_file is not None:
        if drawn := [name for name in NOISE_FIELDS if given.get(name) is not None]:
            raise InputError(f"noise_file brings the labels; leave out {drawn[0]} {given[drawn[0]]!r}")
        return
    if overruled := [name for name in details if getattr(config, name) != given[name] and not name.endswith("matrix")]:
        name = overruled[0]
        raise InputError(
            f"{name} {given[name]!r}: noise_protocol {config.noise_protocol} means {getattr(config, name)}; leave one "
            "of them out"
        )
    if details and config.noise_rate == 0 and given.get("noise_rate") is None:
        hint = " (1 applies the matrix to every sample)" if config.noise_kind == "matrix" else ""
        raise InputError(f"{details[0]} {given[details[0]]!r} without noise: add noise_rate R{hint}")


def shown(value: Any) -> str:
    """A value of a field, as its flag takes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@functools.cache
def _hints() -> Mapping[str, Any]:
    return MappingProxyType(get_type_hints(Config))  # slow: every Config asks for every field


def _checked(name: str, hint: Any, value: Any) -> Any:
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
            raise InputError(f"{name} {value!r}: must be a list")
        if (most := OPTIONS[name].most) is not None and len(items) > most:
            raise InputError(f"{name}: {len(items)} values; give at most {most}")
        return tuple(_checked_one(name, get_args(hint)[0], v) for v in items)
    return _checked_one(name, hint, value)


def _checked_one(name: str, kind: Any, value: Any) -> Any:
    if kind is str and isinstance(value, Path):
        value = str(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} {value!r}: must be of type {kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{name} {value}: must be finite")
    rule = OPTIONS[name]
    if rule.choices and value not in rule.choices:
        raise InputError(f"{name} {value!r}: choose from {', '.join(rule.choices)}")
    if rule.above is not None and not value > rule.above:
        raise InputError(f"{name} {value}: must be greater than {rule.above:g}")
    if (rule.low is not None and value < rule.low) or (rule.high is not None and value > rule.high):
        bounds = f"at least {rule.low:g}" if rule.high is None else f"in [{rule.low:g}, {rule.high:.10g}]"
        raise InputError(f"{name} {value}: must be {bounds}")
    if rule.limit is not None and value > rule.limit:
        raise InputError(f"{name} {value}: must be at most {rule.limit:.10g}")
    return value
