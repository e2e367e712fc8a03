"""The compared methods and the settings that are tried for each: `BUDGET` of them, as for MRL.

Settings are numbers of a method around the values of its paper, temperatures, and multiples of the learning rate.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.shared.protocol import BUDGET
from mrl_jax import Config
from mrl_jax.config import with_settings
from mrl_jax.methods.registry import entry_of

__all__ = ["FIELD", "Compared", "config_of"]

Setting = Mapping[str, Any]
_TAU = (0.25, 0.5, 1.0)
_RATES = (0.3, 1.0, 3.0)
_FASTER = (1.0, 3.0, 10.0)
_RIDGE, _ENERGY = (1.0, 10.0, 100.0), (0.9, 0.98, 1.0)


class Compared(NamedTuple):
    """A compared method.

    Attributes:
        trials: the settings to try: fields of `Config`, and numbers of the method by name.
        published: its row in published.csv, or None.
    """

    trials: Sequence[Setting]
    published: str | None = None


def _trials(**values: Sequence[Any]) -> list[Setting]:
    """Every combination; "tau" stands for both temperatures, "rate" for a multiple of the learning rate."""
    combined = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
    assert len(combined) == BUDGET
    return combined


FIELD = {
    "mcca": Compared(_trials(embed_dim=(4, 8, 32), ridge=_RIDGE), "MCCA"),
    "pls": Compared(_trials(embed_dim=(3, 5, 7, 10, 15, 20, 30, 60, 100)), "PLS"),
    "dcca": Compared(_trials(embed_dim=(2, 4, 8), rate=_FASTER), "DCCA"),
    "dccae": Compared(_trials(embed_dim=(2, 4, 8), reconstruction=(1e-3, 1e-1, 10.0)), "DCCAE"),
    "gma": Compared(_trials(alignment=(0.05, 1.0, 10.0), ridge=_RIDGE), "GMA"),
    "mvda": Compared(_trials(energy=_ENERGY, ridge=_RIDGE), "MvDA"),
    "mvda-vc": Compared(_trials(consistency=(1.0, 10.0, 100.0), ridge=_RIDGE), "MvDA-VC"),
    "gss-sl": Compared(_trials(graph=(1e-2, 1e-1, 1.0), sparsity=(1e-4, 1e-3, 1e-2)), "GSS-SL"),
    "acmr": Compared(_trials(triplet=(1.0, 8.0, 32.0), tau1=_TAU), "ACMR"),
    "deep-sm": Compared(_trials(tau1=(0.07, 0.11, 0.18, 0.28, 0.45, 0.7, 1.1, 1.8, 2.8)), "deep-SM"),
    "fgcrossnet": Compared(_trials(ranking=(0.01, 0.1, 1.0), rate=_FASTER), "FGCrossNet"),
    "sdml": Compared(_trials(reconstruction=(0.02, 0.1, 0.5), rate=_RATES), "SDML"),
    "dscmr": Compared(_trials(discrimination=(1e-2, 1e-1, 1.0), invariance=(1e-2, 1e-1, 1.0)), "DSCMR"),
    "smln": Compared(_trials(ridge=(0.05, 0.2, 1.0), rate=_FASTER), "SMLN"),
    "mrl": Compared(_trials(beta=(0.5, 0.8, 0.95), tau=_TAU), "MRL"),
    "elrcmr": Compared(_trials(beta=(0.75, 0.9, 1.0), tau=_TAU)),
    "rono": Compared(_trials(margin=(0.01, 0.1, 0.3), temperature=(0.1, 0.22, 0.5))),
    "rshnl": Compared(_trials(alpha=(0.1, 0.3, 1.0), tau=_TAU)),
    "nirnl": Compared(_trials(alpha=(0.5, 0.9, 1.8), tau1=_TAU)),
    "rfcmh": Compared(_trials(alpha=(0.03, 0.1, 0.3), inter=(0.1, 0.3, 1.0))),
    "consensus": Compared(_trials(beta=(0.5, 0.8, 0.95), tau=_TAU)),
}
"""Method -> how it is compared: the rows of Tables 1 and 2 of the paper, and what came after, by year."""


def config_of(base: Config, method: str, setting: Setting, instances: int) -> Config:
    """The configuration of a method with one of its settings.

    Args:
        base: what all runs have in common; a method has its own batches and directions where it needs them.
        method: a key of `FIELD`.
        setting: one of its trials.
        instances: of the training split, the upper bound of a batch.
    """
    entry = entry_of(method)
    own: dict[str, Any] = dict(entry.settings) | {name: v for name, v in setting.items() if name not in entry.numbers}
    if (rate := own.pop("rate", None)) is not None:
        own["learning_rate"] = rate * base.learning_rate
    if (tau := own.pop("tau", None)) is not None:
        own |= {"tau1": tau, "tau2": tau}
    if "batch_size" in own:
        own["batch_size"] = min(own["batch_size"], instances)
    numbers = tuple(f"{name}={setting[name]:g}" for name in entry.numbers if name in setting)
    return with_settings(base, method=method, method_options=numbers, **own)
