#!/usr/bin/env bash
# Everything that wants a GPU, in one call of under 8 minutes: numbers against CPU, times against what the device can
# do and against PyTorch. Needs a Python with jax, flax, optax and orbax-checkpoint; parts whose packages are missing
# are left out, and say so. PYTHON chooses the interpreter; `--smoke` runs tiny sizes anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -m experiments.benchmarks.gpu_check "$@"
