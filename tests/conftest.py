"""Settings that every test shares: eight CPU devices, no silent rank promotion, and each program compiled once."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Small programs that run a few times: optimised code would take most of the tests' time to compile. XLA aborts at a
# flag that it does not know, so the second, by which half the time is spared, is tried in another process first.
_FLAGS = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
if _FLAGS[0] not in os.environ.get("XLA_FLAGS", ""):  # else the process that started this one has seen to it
    _TRIAL = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"XLA_FLAGS": _FLAGS[1]},
        stderr=subprocess.DEVNULL,
    )
    _KNOWN = _FLAGS[: 1 if _TRIAL.returncode else 2]
    os.environ["XLA_FLAGS"] = " ".join([*_KNOWN, os.environ.get("XLA_FLAGS", "")])
# Compiling takes most of the time, and processes compile the same programs: they share pytest's cache folder.
_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "compilations"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Read when the hub's library is first imported, which any library may do: nothing is sought on the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir()) / f"mrl-jax-tests-{os.getpid()}")

# Shells let a command in the background ignore Ctrl-C, which tests send to processes that inherit this.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402
import pytest  # noqa: E402
from browser import open_browser  # noqa: E402

_MOST_MAPS = 15_000

# Imports the libraries of the extra `bench`, which other tests do without.
collect_ignore = [] if find_spec("pytrec_eval") and find_spec("ranx") else ["retrieval/test_retrieval_peers.py"]

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def browser():
    """A real browser, one for all tests of a process."""
    with open_browser() as found:
        yield found


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
    """Release compiled programs before the process has as many memory maps as Linux allows (65,530 by default).

    Each program has some; the compiler aborts the process when it gets no more.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
