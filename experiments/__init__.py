"""Tables and figures of the paper, studies and benchmarks; run from the repository root with `python -m`."""

import mrl_jax  # noqa: F401  its commands and these end in one line if JAX cannot be imported
