"""Learning cross-modal retrieval from noisy labels, in JAX and Flax.

Names load on first use: importing the package itself brings neither JAX nor any data library.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036  in a clone that was never installed
    raise ImportError(f"mrl_jax needs Python 3.11 or newer; this is {'.'.join(map(str, sys.version_info[:3]))}")

if TYPE_CHECKING:
    from mrl_jax.audit.found import Audit
    from mrl_jax.audit.run import audit
    from mrl_jax.config import Config, preset
    from mrl_jax.data.load import Dataset, load_dataset
    from mrl_jax.errors import CallbackError, InputError, NonFiniteLossError
    from mrl_jax.eval.evaluate import compare, evaluate, evaluate_embeddings
    from mrl_jax.export.write import export
    from mrl_jax.losses.contrastive import contrastive_loss
    from mrl_jax.losses.mrl import mrl_loss, robust_clustering_loss, soft_assignment
    from mrl_jax.models.mlp import Encoder
    from mrl_jax.noise.inject import NoiseSpec, inject_noise
    from mrl_jax.retrieval.measure import mean_average_precision, retrieval_metrics
    from mrl_jax.run.load import load_run
    from mrl_jax.run.model import Run, TrainedModel
    from mrl_jax.search.index import Index, top_k
    from mrl_jax.search.searcher import Query, Searcher
    from mrl_jax.sweep.sweep import Sweep, grid, sweep
    from mrl_jax.train import Result, train
    from mrl_jax.train_step import Batch, Recipe, TrainState, init_state, train_epoch, train_step
    from mrl_jax.training.callbacks import Callback, RunStart
    from mrl_jax.training.early_stopping import EarlyStopping

from mrl_jax.version import __version__ as __version__

if sys.argv[:1] == ["-m"]:  # `python -m mrl_jax.…` looks up the command, whose imports take a second
    from mrl_jax.backend import report_faults_of_imports
    from mrl_jax.interrupt import end_imports_quietly

    end_imports_quietly()
    report_faults_of_imports()

__all__ = [
    "Audit",
    "Batch",
    "Callback",
    "CallbackError",
    "Config",
    "Dataset",
    "EarlyStopping",
    "Encoder",
    "Index",
    "InputError",
    "NoiseSpec",
    "NonFiniteLossError",
    "Query",
    "Recipe",
    "Result",
    "Run",
    "RunStart",
    "Searcher",
    "Sweep",
    "TrainState",
    "TrainedModel",
    "audit",
    "compare",
    "contrastive_loss",
    "evaluate",
    "evaluate_embeddings",
    "export",
    "grid",
    "init_state",
    "inject_noise",
    "load_dataset",
    "load_run",
    "mean_average_precision",
    "mrl_loss",
    "preset",
    "retrieval_metrics",
    "robust_clustering_loss",
    "soft_assignment",
    "sweep",
    "top_k",
    "train",
    "train_epoch",
    "train_step",
]

_HOME = {
    "audit.found": ("Audit",),
    "audit.run": ("audit",),
    "config": ("Config", "preset"),
    "data.dataset": ("Dataset",),
    "data.load": ("load_dataset",),
    "errors": ("CallbackError", "InputError", "NonFiniteLossError"),
    "eval.evaluate": ("compare", "evaluate", "evaluate_embeddings"),
    "export.write": ("export",),
    "losses.contrastive": ("contrastive_loss",),
    "losses.mrl": ("mrl_loss", "robust_clustering_loss", "soft_assignment"),
    "models.mlp": ("Encoder",),
    "noise.inject": ("NoiseSpec", "inject_noise"),
    "retrieval.measure": ("mean_average_precision", "retrieval_metrics"),
    "run.load": ("load_run",),
    "run.model": ("Run", "TrainedModel"),
    "search.index": ("Index", "top_k"),
    "search.searcher": ("Query", "Searcher"),
    "sweep.sweep": ("Sweep", "grid", "sweep"),
    "train": ("Result", "train"),
    "training.callbacks": ("Callback", "RunStart"),
    "training.early_stopping": ("EarlyStopping",),
    "train_step": ("Batch", "Recipe", "TrainState", "init_state", "train_epoch", "train_step"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


class _Package(ModuleType):
    """`mrl_jax.train`, `train_step` and `sweep` are functions, although modules of the same name define them.

    Importing a submodule sets it as an attribute of its package; here its function of that name takes the place, so
    that `from mrl_jax import train` gives the same thing whatever was imported before.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in _MODULE_OF:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
