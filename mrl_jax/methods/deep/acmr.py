r"""ACMR (Wang et al. 2017): embeddings from which a discriminator cannot tell the modality.

The networks and a shared linear classifier of the labels learn from the labels, from triplets across modalities, and
against a discriminator of the modalities, whose gradient is reversed. Then the discriminator takes a step of its own
on the same batch, with embeddings of the networks as they are now.

The paper has tanh networks of other widths with 40 outputs, and Adam at 1e-4 with batches of 64 for 50 epochs. Here
networks, optimiser and batch are those of all methods. Embeddings are unit rows, so the linear classifier has the
temperature tau1; the paper's is 1, for outputs of length up to 6.

In the public program neither the reversed gradient nor that of the classifier's weights reaches a parameter, and the
discriminator is linear. What stands here is the paper's game. The program also sums its triplets over a batch of 64,
with half squares, which is triplet=32 here; on unit rows the labels then have little weight. The default has the
weights of the objective, 100 to 1, for means over instances.

Shape letters: M modalities, B batch, D features, L embedding, K classes.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mrl_jax.losses.mrl import label_log_probability
from mrl_jax.methods.base import Method, MethodEntry
from mrl_jax.methods.class_centers import decays, embed, layers
from mrl_jax.methods.deep.parts import NETWORKS, Hyperparameters, hyperparameters, network, of_whole_batch, present
from mrl_jax.methods.gradient import adam, learning_rate_at
from mrl_jax.methods.state import Batch, Shapes, State
from mrl_jax.models.mlp import Encoder, dense_layers
from mrl_jax.options import Number
from mrl_jax.unit_rows import unit_rows

__all__ = ["ENTRY", "Weights", "acmr", "modality_loss", "reversal", "triplet_loss"]


class Weights(NamedTuple):
    """The trained model.

    Attributes:
        encoders: networks, one per modality.
        classifier: linear layer from an embedding to the classes, shared by the modalities.
        discriminator: network from an embedding to the modalities; it has an optimiser of its own.
    """

    encoders: tuple[Any, ...]
    classifier: Any
    discriminator: Any


def reversal(progress: ArrayLike) -> Array:
    r"""Weight of the reversed gradient: $2 / (1 + e^{-10 p}) - 1$, from 0 to nearly 1.

    Args:
        progress: p, share of the epochs that are done.
    """
    return jnp.tanh(5.0 * jnp.asarray(progress))  # the same function


def triplet_loss(
    z: Sequence[Array], features: Sequence[Array], labels: Array, valid: Array, margin: ArrayLike, ratio: ArrayLike
) -> Array:
    r"""Triplets across modalities, as the sum over samples and over the other modalities of their instance.

    $$[\mu + \rho \lVert z_j^i - z_j^l \rVert^2 - \lVert z_j^i - z_t^l \rVert^2]_+$$

    The negative t is another instance of the batch whose sample of modality l has another class than $x_j^i$, and whose
    sample of modality i has the highest cosine with the features of $x_j^i$. Samples without one do not count.

    The public program has one hinge around the sums over the batch, and takes an instance of the same class where all
    cosines with other classes are negative. Here every triplet has its hinge, as a triplet loss has.

    Args:
        z: embeddings, one [B, L] per modality.
        features: one [B, D] per modality.
        labels: given labels, int32 [B, M]; any number where a sample is missing.
        valid: samples that count, bool [B, M].
        margin: mu.
        ratio: rho, weight of the pair's distance.
    """
    total = jnp.zeros(())
    for i, x in enumerate(features):
        rows = unit_rows(x)
        cosine = jnp.dot(rows, rows.T, precision="highest")
        for other in range(len(z)):
            if other == i:
                continue
            pair = valid[:, i] & valid[:, other]
            others = pair[None, :] & ~jnp.eye(len(x), dtype=bool)  # labels of one instance may differ
            candidates = others & (labels[:, i, None] != labels[None, :, other])
            negative = jnp.where(candidates, cosine, -jnp.inf).argmax(axis=1)
            near = ((z[i] - z[other]) ** 2).sum(axis=1)
            far = ((z[i] - z[other][negative]) ** 2).sum(axis=1)
            counts = pair & candidates.any(axis=1)
            total += jnp.where(counts, jax.nn.relu(margin + ratio * near - far), 0.0).sum()
    return total


def modality_loss(scores: Array, valid: Array) -> Array:
    """Cross-entropy of the modality of every sample that counts, a sum.

    Args:
        scores: of the discriminator, [B, M, M]; the last axis are the modalities it may choose.
        valid: bool [B, M].
    """
    log_p = jnp.diagonal(jax.nn.log_softmax(scores, axis=-1), axis1=1, axis2=2)
    return -jnp.where(valid, log_p, 0.0).sum()


def _linear(h: Hyperparameters, out: int) -> Encoder:
    return Encoder((), out, h.initializer, unit=False)


def _discriminator(h: Hyperparameters, modalities: int) -> Encoder:
    """L - L/2 - L/4 - M, as the paper's 40-20-10-2."""
    widths = (max(h.embed_dim // 2, 1), max(h.embed_dim // 4, 1))
    return Encoder(widths, modalities, h.initializer, h.precision, unit=False)


def _class_scores(h: Hyperparameters, classifier: Any, z: Array) -> Array:
    scores: Array = _linear(h, len(classifier["params"]["Dense_0"]["bias"])).apply(classifier, z)  # type: ignore[assignment]
    return scores / h.tau1


def _init_params(h: Hyperparameters, key: Array, shapes: Shapes) -> Weights:
    *keys, of_classes, of_modalities = jax.random.split(key, len(shapes.dims) + 2)
    encoders = tuple(network(h).init(k, jnp.zeros((1, d))) for k, d in zip(keys, shapes.dims, strict=True))
    z = jnp.zeros((1, h.embed_dim))
    classifier = _linear(h, shapes.classes).init(of_classes, z)
    return Weights(encoders, classifier, _discriminator(h, len(shapes.dims)).init(of_modalities, z))


def _learned(params: Weights) -> Weights:
    """The part of the first optimiser, without the discriminator."""
    return params._replace(discriminator=())


def _init(h: Hyperparameters, key: Array, shapes: Shapes) -> State:
    params = _init_params(h, key, shapes)
    optimizer = (adam(h).init(_learned(params)), adam(h).init(params.discriminator))
    return State(params, optimizer, jnp.zeros((), jnp.int32))


def _assign(h: Hyperparameters, params: Weights, z: Array) -> Array:
    return jax.nn.log_softmax(_class_scores(h, params.classifier, z), axis=-1)


def _class_layers(h: Hyperparameters, params: Weights) -> list[tuple[Array, Array]]:
    kernel, bias = dense_layers(params.classifier)[0]
    return [(kernel / h.tau1, bias / h.tau1)]


def _embed_batch(h: Hyperparameters, encoders: Any, batch: Batch) -> list[Array]:
    return [network(h).apply(p, x) for p, x in zip(encoders, batch.features, strict=True)]  # type: ignore[misc]


def _modality_part(h: Hyperparameters, discriminator: Any, z: Sequence[Array], valid: Array) -> Array:
    scores: Array = _discriminator(h, len(z)).apply(discriminator, jnp.stack(z, axis=1))  # type: ignore[assignment]
    return modality_loss(scores, valid) / jnp.maximum(valid.any(axis=1).sum(), 1)


def _objective(
    h: Hyperparameters, learned: Weights, discriminator: Any, batch: Batch, weight: Array, axis_name: str | None
) -> tuple[Array, dict[str, Array]]:
    """What networks and classifier of the labels minimise: the share of this device, and its parts."""

    def loss(z: Any, features: Any, labels: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        instances = jnp.maximum(valid.any(axis=1).sum(), 1)
        log_p = jax.nn.log_softmax(_class_scores(h, learned.classifier, jnp.stack(z, axis=1)), axis=-1)
        label = -jnp.where(valid, label_log_probability(log_p, jnp.where(valid, labels, 0)), 0.0).sum() / instances
        triplet = triplet_loss(z, features, labels, valid, h["margin"], h["ratio"]) / instances
        modality = _modality_part(h, discriminator, z, valid)
        total = h["label"] * label + h["triplet"] * triplet - weight * modality
        return total, {"label": label, "triplet": triplet, "modality": modality}

    z = _embed_batch(h, learned.encoders, batch)
    return of_whole_batch(loss, axis_name, z, batch.features, batch.labels.T, present(batch).T)


def _step(
    h: Hyperparameters, state: State, batch: Batch, epoch: ArrayLike, axis_name: str | None = None
) -> tuple[State, dict[str, Array], None]:
    """One step of networks and classifier, then one of the discriminator."""
    params, weight = state.params, h["adversary"] * reversal(jnp.asarray(epoch) / h.epochs)

    opponent = _varying(params.discriminator, axis_name)

    def play(learned: Weights) -> tuple[Array, dict[str, Array]]:
        return _objective(h, learned, opponent, batch, weight, axis_name)

    learned, own, loss, metrics = _descend(h, play, _learned(params), state.optimizer[0], epoch, axis_name)
    z = _embed_batch(h, learned.encoders, batch)

    def tell_apart(discriminator: Any) -> tuple[Array, dict[str, Array]]:
        def part(z: Any, valid: Array) -> tuple[Array, dict[str, Array]]:
            return _modality_part(h, discriminator, z, valid), {}

        return of_whole_batch(part, axis_name, z, present(batch).T)

    discriminator, other, _, _ = _descend(h, tell_apart, params.discriminator, state.optimizer[1], epoch, axis_name)
    moved = State(learned._replace(discriminator=discriminator), (own, other), state.step + 1, state.samples)
    return moved, {"loss": loss, **metrics}, None


def _varying(params: Any, axis_name: str | None) -> Any:
    """Device-varying, so that each device finds the gradient of its share; a replicated one would be summed twice."""
    return params if axis_name is None else jax.lax.pcast(params, axis_name, to="varying")


def _descend(
    h: Hyperparameters, objective: Any, params: Any, optimizer: Any, epoch: ArrayLike, axis_name: str | None
) -> tuple[Any, Any, Array, dict[str, Array]]:
    """One step of Adam: parameters, state of the optimiser, loss and metrics, those of the whole batch."""
    (loss, metrics), gradient = jax.value_and_grad(objective, has_aux=True)(_varying(params, axis_name))
    if axis_name is not None:
        loss, metrics, gradient = jax.lax.psum((loss, metrics, gradient), axis_name)
    direction, optimizer = adam(h).update(gradient, optimizer, params)
    rate = learning_rate_at(h, epoch)

    def move(path: tuple[Any, ...], p: Array, d: Array) -> Array:
        return p - rate * (d + h.weight_decay * p if decays(path, p) else d)

    return jax.tree_util.tree_map_with_path(move, params, direction), optimizer, loss, metrics


def _log(h: Hyperparameters, epoch: int) -> dict[str, float]:
    weight = h["adversary"] * float(reversal(epoch / h.epochs))
    return {"learning_rate": float(learning_rate_at(h, epoch)), "reversal": weight}


@functools.cache
def acmr() -> Method:
    """ACMR of two modalities or more."""
    return Method(
        "method acmr",
        _init,
        embed,
        step=_step,
        assign=_assign,
        log=_log,
        init_params=_init_params,
        layers=layers,
        class_layers=_class_layers,
    )


ENTRY = MethodEntry(
    name="acmr",
    summary="Networks learn from labels and from triplets across modalities, and against a discriminator of the "
    "modalities, whose gradient is reversed. Then the discriminator takes its own step.",
    source="Wang et al., Adversarial Cross-Modal Retrieval, ACM Multimedia 2017",
    equation=r"L = - \tfrac{a}{N} \sum_{i,j} \log p(y_j^i \mid z_j^i) "
    r"+ \tfrac{w}{N} \sum_{j, i \neq l} [\mu + \rho \lVert z_j^i - z_j^l \rVert^2 "
    r"- \lVert z_j^i - z_t^l \rVert^2]_+ "
    r"+ \tfrac{\lambda}{N} \sum_{i,j} \log D(i \mid z_j^i)",
    cost="two steps for every batch, the second forward only in the networks; similarities of all instances of a batch",
    method=lambda config: acmr(),
    hyperparameters=hyperparameters,
    describe=lambda config: (
        f"method: acmr, label {config.method_numbers['label']:g}, triplet {config.method_numbers['triplet']:g}, "
        f"adversary {config.method_numbers['adversary']:g}, tau1 {config.tau1:.3g}, seed {config.seed}"
    ),
    title=lambda config: "method acmr",
    numbers={
        "label": Number(100.0, 0.0, float("inf"), "weight a of the cross-entropy of the labels"),
        "triplet": Number(1.0, 0.0, float("inf"), "weight w of the triplets"),
        "margin": Number(0.1, 0.0, float("inf"), "margin of a triplet"),
        "ratio": Number(5.0, 0.0, float("inf"), "weight of the distance of a pair in a triplet"),
        "adversary": Number(1.0, 0.0, float("inf"), "weight of the reversed gradient at the end of training"),
    },
    uses=NETWORKS | {"tau1", "representation"},
    axes=("method", "noise_rate", "tau1", "learning_rate", "seed"),
    remedy="try a lower learning rate, or --clip-norm 1",
)
"""What the registry knows of the method `acmr`."""
