"""Runs that are scored at many epochs: validation mAP with clean and with noisy labels, and test mAP.

A trace is one run with the scores of its model after several epochs, by every representation that the method has. It
tells what the best epoch by clean or by noisy validation labels gives, and what the last one gives, without further
training. Test scores choose nothing. Traces are kept in a file of JSON lines, one per run, and are never trained twice.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.shared.machine import machine
from experiments.shared.store import exclusive
from mrl_jax import Config, InputError
from mrl_jax.config import auto_epochs, auto_temperature
from mrl_jax.data.dataset import Dataset
from mrl_jax.methods.registry import entry_of
from mrl_jax.options import OPTIONS, REPRESENTATIONS
from mrl_jax.retrieval.measure import cross_modal_map, retrieval_metrics
from mrl_jax.retrieval.pairs import pair_ranks
from mrl_jax.run.model import embed_rows
from mrl_jax.run.representation import metric_of, represent
from mrl_jax.sweep.groups import groups
from mrl_jax.training.active_run import ActiveRun
from mrl_jax.training.run_spec import RunSpec, prepare_data, prepare_run
from mrl_jax.training.single_run import SingleRun
from mrl_jax.training.vmapped_runs import VmappedRuns

__all__ = ["CHOSEN_BY", "Trace", "facts_of", "kept_traces", "read_traces", "scored_epochs", "trace"]

CHOSEN_BY = ("clean", "noisy", "last")
"""How the model of a run is chosen: the best epoch by validation mAP with clean or with noisy labels, or the last."""
_DIGITS = 4
_TOGETHER = 16  # runs between two writes of the file


class Trace:
    """The scores of a run.

    Args:
        record: a line of the file.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = record
        self.config = Config.from_json(record["config"], "traces")
        self.key = _key(self.config, record["data"]["sha256"])
        self.epochs: list[int] = record["epochs"]

    def point(self, chosen_by: str, representation: str = "embedding") -> int:
        """Which of `epochs` is chosen, as an index; the first one of a tie."""
        chosen_by = self._resolved(chosen_by)
        if chosen_by == "last":
            return len(self.epochs) - 1
        return int(np.argmax(self.record["scores"][representation][f"valid_{chosen_by}"]))

    def score(self, chosen_by: str, representation: str = "embedding", what: str = "test") -> float:
        """A score of the chosen epoch.

        Args:
            chosen_by: one of `CHOSEN_BY`, or "kept" for the epoch whose model a run keeps.
            representation: what is retrieved by, one of `options.REPRESENTATIONS`.
            what: "test", "valid_clean" or "valid_noisy" (mAP, the mean of all directions), or "reciprocal_rank" (of the
                own instance among the test samples of the other modality, the mean of all directions).
        """
        values = self.record["scores"][representation]
        return float(values[what][self.point(chosen_by, representation)])

    def _resolved(self, chosen_by: str) -> str:
        """What "kept" means for the method: the best epoch by clean validation labels, or the last."""
        if chosen_by != "kept":
            return chosen_by
        return "last" if entry_of(self.config.method).keeps == "last" else "clean"

    def of_instances(self, chosen_by: str, representation: str = "embedding") -> np.ndarray | None:
        """Average precision of every test instance, the mean of its queries in all directions: float64 [N].

        None for a representation that the trace does not keep: traces of earlier versions keep the default one of their
        method only. `chosen_by` is "clean", "last" or "kept".
        """
        kept = self.record.get("instances", {})
        if "last" in kept:  # of an earlier version
            kept = {entry_of(self.config.method).representation: kept}
        values = kept.get(representation)
        return None if values is None else np.array(values[self._resolved(chosen_by)]) / 1000.0

    def best_test(self, representation: str = "embedding") -> float:
        """The highest test mAP of all scored epochs, only to tell how far other epochs lie below it."""
        return float(max(self.record["scores"][representation]["test"]))


def scored_epochs(epochs: int, points: int) -> list[int]:
    """The epochs after which a run is scored: all of a short run, every second, third, … of a long one, and the last.

    Args:
        epochs: length of the run.
        points: at most so many epochs are scored.

    Example:
        >>> scored_epochs(4, 50), scored_epochs(125, 50)[-3:]
        ([1, 2, 3, 4], [120, 123, 125])
    """
    step = -(-epochs // points)
    return sorted({*range(step, epochs + 1, step), epochs})


def read_traces(path: Path) -> list[Trace]:
    """The traces in a file; none if it does not exist.

    Raises:
        InputError: a line is damaged.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            found.append(Trace(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: no trace of a run ({error}); remove the line") from None
    return found


def trace(
    configs: Sequence[Config],
    data: Dataset,
    path: Path,
    *,
    points: int = 50,
    instances: bool = False,
) -> list[Trace]:
    """Traces of runs, in their order; those that the file lacks are trained and appended to it.

    Args:
        configs: one per run; `noisy_validation` and `representation` are left out, since both are scored.
        data: the data of all runs.
        path: the file.
        points: scored epochs of a run, at most.
        instances: whether new traces keep the average precision of every test instance.

    Raises:
        InputError: another program trains for the file.
    """
    facts = facts_of(data)
    kept = kept_traces(configs, facts, read_traces(path))
    missing = list(dict.fromkeys(c for c, found in zip(configs, kept, strict=True) if found is None))
    if missing:
        with exclusive(path):
            _train([_filled(config, facts) for config in missing], data, path, points, instances)
        kept = kept_traces(configs, facts, read_traces(path))
    return [found for found in kept if found is not None]


def facts_of(data: Dataset) -> dict[str, Any]:
    """What a record holds of the data: their digest, and what fills in open settings."""
    return {
        "sha256": data.digest(),
        "classes": data.num_classes,
        "instances": len(data.splits["train"]),
        "modalities": list(data.modalities),
    }


def kept_traces(configs: Sequence[Config], facts: Mapping[str, Any], traces: Sequence[Trace]) -> list[Trace | None]:
    """The traces of runs among those of a file, in the order of their configurations; None for those that it lacks.

    Args:
        configs: one per run.
        facts: those of the data, from `facts_of` or from a record, so that the data are not needed.
        traces: those of the file.
    """
    found = {t.key: t for t in traces}
    return [found.get(_key(_filled(config, facts), facts["sha256"])) for config in configs]


def _train(configs: Sequence[Config], data: Dataset, path: Path, points: int, instances: bool) -> None:
    """Train and score runs, and append each group to the file."""
    loaded = {c.preprocess: prepare_data(c, data) for c in configs}  # runs on the same data share what they derive
    runs = [ActiveRun(prepare_run(c, loaded[c.preprocess]), None) for c in configs]
    parts = [part for group in groups(runs, [0] * len(runs), "auto", jax.devices()) for part in _parts(group)]
    done, started = 0, time.perf_counter()
    for part in parts:
        lines = [
            json.dumps(record, separators=(",", ":"))
            for record in _scored([run.spec for run in part], points, instances)
        ]
        with path.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        done += len(part)
        seconds = time.perf_counter() - started
        print(f"{path.stem}: {done} of {len(runs)} runs, {seconds:.0f} s", file=sys.stderr, flush=True)


def _parts(group: Sequence[ActiveRun]) -> Iterator[Sequence[ActiveRun]]:
    for i in range(0, len(group), _TOGETHER):
        yield group[i : i + _TOGETHER]


def _scored(specs: Sequence[RunSpec], points: int, instances: bool) -> list[dict[str, Any]]:
    """Train runs that share a program, and score them."""
    started = time.perf_counter()
    trainer = SingleRun(specs[0]) if len(specs) == 1 else VmappedRuns(specs, jax.devices()[:1])
    trainer.begin([None] * len(specs))
    epochs = scored_epochs(specs[0].epochs, points)
    scores = [_Scores(spec) for spec in specs]
    for epoch in range(specs[0].epochs):
        trainer.run_epoch(epoch)
        if epoch + 1 in epochs:
            for i, own in enumerate(scores):
                own.add(trainer.snapshot(i).state.params)
    seconds = (time.perf_counter() - started) / len(specs)
    return [
        {
            "config": _settings(spec.config),
            "data": facts_of(spec.data.dataset),
            "wrong_share": {m: round(share, _DIGITS) for m, share in spec.noise["wrong_share"].items()},
            "epochs": epochs,
            "scores": own.values,
            **({"instances": own.instances} if instances else {}),
            "seconds": round(seconds, 1),
            "machine": machine(["jax"]),
        }
        for spec, own in zip(specs, scores, strict=True)
    ]


class _Scores:
    """The scores of a run after several epochs.

    Attributes:
        values: representation -> score -> its values.
        instances: representation, without "posterior" -> "clean" and "last" -> average precision of every test
            instance, in thousandths.
    """

    def __init__(self, spec: RunSpec) -> None:
        self._spec, self._noisy = spec, _noisy_validation(spec)
        kinds = REPRESENTATIONS if spec.method.assign is not None else REPRESENTATIONS[:1]
        self.values: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
        self.instances: dict[str, dict[str, list[int]]] = {kind: {} for kind in kinds if kind != "posterior"}

    def add(self, params: Any) -> None:
        """Score a model."""
        embedded = {split: self._embedded(params, split) for split in self._spec.data.held_out}
        for kind, own in self.values.items():
            rows = {split: self._rows(params, z, kind) for split, z in embedded.items()}
            precision = _instance_precision(rows["test"], self._spec.held_out["test"], kind)
            scores = {
                "valid_clean": _mean_map(rows["valid"], self._spec.held_out["valid"], kind),
                "valid_noisy": _mean_map(rows["valid"], self._noisy, kind),
                "test": float(precision.mean()),
                "reciprocal_rank": _reciprocal_rank(rows["test"], kind),
            }
            for name, value in scores.items():
                own.setdefault(name, []).append(round(value, _DIGITS))
            if kind in self.instances:
                of_kind, valid = self.instances[kind], own["valid_clean"]
                of_kind["last"] = np.round(1000 * precision).astype(int).tolist()
                if valid[-1] > max(valid[:-1], default=-1.0):  # the first one of a tie of the rounded scores
                    of_kind["clean"] = of_kind["last"]

    def _embedded(self, params: Any, split: str) -> dict[str, jax.Array]:
        method, h, features = self._spec.method, self._spec.hyperparameters, self._spec.data.held_out[split]
        return {m: embed_rows(method, h, params, i, x) for i, (m, x) in enumerate(features.items())}

    def _rows(self, params: Any, embedded: Mapping[str, jax.Array], kind: str) -> dict[str, np.ndarray]:
        method, h = self._spec.method, self._spec.hyperparameters
        return {m: np.asarray(represent(method, h, params, z, kind)) for m, z in embedded.items()}


def _mean_map(rows: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], kind: str) -> float:
    by_direction = cross_modal_map(rows, labels, metric_of(kind))
    return sum(by_direction.values()) / len(by_direction)


def _instance_precision(rows: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], kind: str) -> np.ndarray:
    """Average precision of every instance, the mean of its queries in all directions; no sample may be missing."""
    of_directions = [
        retrieval_metrics(rows[a], rows[b], labels[a], labels[b], metrics=["ap"], metric=metric_of(kind))["ap"]
        for a, b in permutations(rows, 2)
    ]
    return np.mean(of_directions, axis=0)


def _reciprocal_rank(rows: Mapping[str, np.ndarray], kind: str) -> float:
    """Mean reciprocal rank of the own instance among the samples of another modality."""
    ranks = [pair_ranks(rows[a], rows[b], metric=metric_of(kind)) for a, b in permutations(rows, 2)]
    return float(np.mean([np.mean(1.0 / r) for r in ranks]))


def _noisy_validation(spec: RunSpec) -> Mapping[str, np.ndarray]:
    """The validation labels with the noise of the training labels; the clean ones of a run without noise."""
    if spec.config.noise_rate == 0:
        return spec.held_out["valid"]
    return prepare_run(replace(spec.config, noisy_validation=True), spec.data).held_out["valid"]


def _filled(config: Config, facts: Mapping[str, Any]) -> Config:
    """The settings with what the data decide, as the record of a run holds them."""
    tau = auto_temperature(facts["classes"])
    filled: dict[str, Any] = {t: tau for t in ("tau1", "tau2") if config.has_effect(t) and getattr(config, t) is None}
    if config.has_effect("epochs") and config.epochs is None:
        filled["epochs"] = auto_epochs(config, facts["instances"])
    return replace(config, modalities=tuple(facts["modalities"]), **filled)


def _settings(config: Config) -> dict[str, Any]:
    """The settings that differ from the defaults, without what a trace does not depend on."""
    fields = replace(config, noisy_validation=False, representation=None, data_path=None).to_json()
    defaults = {name: json.loads(json.dumps(option.default)) for name, option in OPTIONS.items()}
    return {name: value for name, value in fields.items() if name == "format" or value != defaults[name]}


def _key(config: Config, digest: str) -> str:
    return json.dumps([digest, _settings(config)], sort_keys=True)
