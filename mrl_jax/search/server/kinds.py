"""Kinds of query besides rows: which modalities take a text or a picture, and why none does."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from mrl_jax.errors import InputError
from mrl_jax.names import printable
from mrl_jax.search.query import Inputs
from mrl_jax.search.server.limits import RefusedError

__all__ = ["Guarded", "taking", "why_closed"]


@dataclass(frozen=True)
class Guarded:
    """Inputs whose errors name no file of the server: those go to standard error."""

    inputs: Inputs

    @property
    def modalities(self) -> Any:
        """As of `Inputs`."""
        return self.inputs.modalities

    def features(self, kind: str, value: str) -> np.ndarray:
        """As of `Inputs`.

        Raises:
            RefusedError: they cannot be computed.
        """
        try:
            return self.inputs.features(kind, value)
        except InputError as error:
            print(f"warning: features of a {kind}: {printable(error)}", file=sys.stderr, flush=True)
            raise RefusedError(500, f"the features of this {kind} cannot be computed") from None


def taking(inputs: Inputs | None, kind: str) -> tuple[str, ...]:
    """Modalities that a text or a picture can be embedded as."""
    return () if inputs is None else tuple(inputs.modalities[kind])


def why_closed(kind: str) -> str:
    """Why a run takes no query of a kind, "text" or "image"."""
    what = {"text": "a typed text", "image": "a picture"}[kind]
    return (
        f"features of {what} cannot be computed for the data of this run, only for the emoji set and for files made by "
        "python -m mrl_jax.data featurize; choose a row"
    )
