"""Settings that every test shares: eight CPU devices, no silent rank promotion, and each program compiled once."""

import os
import shutil
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"

# Compiling takes most of the time, and test processes compile the same programs: they share a cache that lives as long
# as the session. Set by the controlling process only; workers and subprocesses inherit it.
_CACHE = "JAX_COMPILATION_CACHE_DIR"
_created = None
if _CACHE not in os.environ:
    _created = os.environ[_CACHE] = tempfile.mkdtemp(prefix="mrl_jax_test_compilations_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    if _created:
        shutil.rmtree(_created, ignore_errors=True)
