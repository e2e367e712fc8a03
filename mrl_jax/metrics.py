"""Another name of `mrl_jax.retrieval.metrics`, for programs that import it from here."""

from mrl_jax.retrieval.metrics import *  # noqa: F403
from mrl_jax.retrieval.metrics import __all__ as __all__
