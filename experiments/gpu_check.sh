#!/usr/bin/env bash
# All checks that need a GPU, in one command of under 8 minutes: numbers against the CPU, times against the limits of
# the device and against PyTorch. Needs a Python with jax, flax, optax and orbax-checkpoint; a part whose package is
# missing is skipped, and its row names the package. PYTHON chooses the interpreter; `--smoke` runs tiny sizes anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} exec "${PYTHON:-python3}" -m experiments.benchmarks.gpu_check "$@"
