"""What a method is: pure functions that the trainer, the sweep, evaluation and search call, and its registry entry."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mrl_jax.config import Config
    from mrl_jax.methods.state import OracleNoise
    from mrl_jax.options import Number

__all__ = ["NEEDS", "Method", "MethodEntry"]

NEEDS = ("noise", "resident", "two modalities")
"""What a method may need: the oracle noise; all training data on the device, as every method with `refresh` or
`complete` does; exactly two modalities."""


class Method(NamedTuple):
    """How a common space is learned, as pure functions of arrays.

    `h` are the hyperparameters: a pytree whose leaves are numbers, over which a sweep may `vmap` (as float32); its
    static parts decide shapes and structure. All functions but `fit`, `prepare` and `log` run under `jit` and `vmap`. A
    method has either `fit` or `step`.

    Attributes:
        name: for messages, such as "method cca" or "loss gmm".
        init: (h, key, shapes) -> `State`, before training.
        embed: (h, params, modality, x [..., D]) -> unit rows [..., L]; `modality` is a Python integer.
        fit: (h, data, shapes, shared) -> parameters, of the structure, shapes and dtypes of those of `init`. Closed
            form: training is this one call, one epoch long, on the host. `data` and `shared` are those of `prepare`.
        step: (h, state, batch, epoch, axis_name) -> `State`, metrics, samples. One step of gradient descent; metrics
            are scalars by name, "loss" among them; samples replace those of the batch (leaves [B, ...]), None leaves
            them. With an `axis_name` every device has the whole state and its part of the batch: state and metrics
            must be those of the whole batch, samples those of the part.
        prepare: (h, data, shapes, shared) -> samples of all instances, once before training and outside of `jit`; of
            the structure, shapes and dtypes of `state.samples`. The features of `data` are read as `x[rows]`, in
            blocks, so that they may lie on disk, and row j belongs to instance j also where `data.partners` says that
            noise has moved rows. `shared` is a dictionary for what the features alone decide, so not after such noise:
            runs on the same data share it.
        refresh: (h, state, data, epoch) -> `State`, before every epoch: samples of all instances, or parameters that no
            gradient finds, from the whole training split.
        complete: (h, params, data) -> params, after every epoch: parameters in closed form that belong to the others,
            such as the canonical directions of DCCA.
        assign: (h, params, z [..., L]) -> log p(k | z) [..., K], for accuracy and for retrieval by class posterior.
        log: (h, epoch) -> numbers for the epoch's line in `metrics.jsonl`, such as the learning rate.
        needs: some of `NEEDS`, checked before training.
        init_params: (h, key, shapes) -> the parameters that `init` returns, or their shapes. Embedding then needs no
            optimiser; None takes those of `init`.
        layers: (h, params, modality) -> the embedding as affine maps x W + b, pairs of kernel [D, H] and bias [H]: ReLU
            between two maps, none after the last, then unit rows. Exports to other libraries need it; None where an
            embedding has another form.
        class_layers: (h, params) -> the same from an embedding to scores, whose log-softmax `assign` returns.
        factorises: whether a step factorises matrices (SVD, Cholesky). Runs of it are then not trained together on CPU,
            where batches of factorisations can lock the threads of XLA for ever.
    """

    name: str
    init: Callable[..., Any]
    embed: Callable[..., Any]
    fit: Callable[..., Any] | None = None
    step: Callable[..., Any] | None = None
    prepare: Callable[..., Any] | None = None
    refresh: Callable[..., Any] | None = None
    complete: Callable[..., Any] | None = None
    assign: Callable[..., Any] | None = None
    log: Callable[..., Mapping[str, float]] = lambda h, epoch: {}
    needs: frozenset[str] = frozenset()
    init_params: Callable[..., Any] | None = None
    layers: Callable[..., Any] | None = None
    class_layers: Callable[..., Any] | None = None
    factorises: bool = False


class MethodEntry(NamedTuple):
    """What the registry knows of a method: how settings become a `Method` and its hyperparameters.

    Attributes:
        name: value of `--method`.
        summary: the idea in one or two sentences.
        source: the paper.
        equation: what is optimised, in TeX.
        cost: what training takes, in words, beside the networks where it has some.
        method: `Config` -> `Method`; equal settings must give the same object, or programs compile anew.
        hyperparameters: (`Config`, `OracleNoise` or None) -> h. The noise is given in training only, and only to a
            method that needs it; a saved model is loaded, evaluated and searched without.
        for_steps: (h, number of steps of the run) -> h, for numbers that depend on the length of training.
        describe: `Config` -> one line for the table at the end of a run.
        title: `Config` -> a few words for the heading of its picture.
        numbers: what `--method-options` sets: name -> `Number`.
        settings: fields of `Config` for which `preset` and the commands have other defaults with this method.
        uses: fields of `Config` that have an effect on the method, beside `options.COMMON_FIELDS`. Setting another is
            an error. `gradient.SETTINGS` are those of every gradient method.
        representation: what its samples are retrieved by unless the settings say otherwise, one of
            `options.REPRESENTATIONS`. It counts if the method has `assign` and "representation" is among its `uses`.
        keeps: which model a run keeps, "best" by validation mAP or "last". A method that holds its level to the last
            epoch needs no choice by validation labels, which may be wrong, too.
        steps: about how many steps a run takes where the number of epochs is left open.
        reads_labels: whether training reads the given labels. Where it does not, label noise changes nothing.
        axes: fields that the tables of a sweep always show.
        stem: `Config` -> how the names of its runs in a sweep begin.
        check: `Config` -> None; raises an InputError for settings that make no sense together.
        warnings: (`Config`, `OracleNoise` or None) -> advice to the user before training.
        memorises: advice to the user whose last epoch lies far below the best one.
        remedy: advice to the user whose training ended with values that are not finite.
    """

    name: str
    summary: str
    source: str
    equation: str
    method: "Callable[[Config], Method]"
    hyperparameters: "Callable[[Config, OracleNoise | None], Any]"
    describe: "Callable[[Config], str]"
    title: "Callable[[Config], str]"
    cost: str = ""
    for_steps: Callable[[Any, int], Any] = lambda h, steps: h
    numbers: "Mapping[str, Number]" = MappingProxyType({})
    settings: Mapping[str, Any] = MappingProxyType({})
    uses: frozenset[str] = frozenset()
    representation: str = "embedding"
    keeps: str = "best"
    steps: int = 900
    reads_labels: bool = True
    axes: tuple[str, ...] = ("method", "noise_rate", "seed")
    stem: "Callable[[Config], str]" = lambda config: config.method
    check: "Callable[[Config], None]" = lambda config: None
    warnings: "Callable[[Config, OracleNoise | None], Iterable[str]]" = lambda config, noise: ()
    memorises: str = "train fewer epochs, or with the method consensus"
    remedy: str = "check the features for extreme values"
