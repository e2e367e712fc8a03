"""Mixup of the instances of a batch, and dropout of units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from mrl_jax import Config, InputError
from mrl_jax.methods.augmentation import augment, drop_units, mix_instances
from mrl_jax.methods.class_centers import embed, embed_all
from mrl_jax.methods.mrl import Hyperparameters, mrl
from mrl_jax.methods.registry import entry_of
from mrl_jax.methods.state import Batch, OracleNoise, Shapes
from mrl_jax.models.dropout import instance_keys

COUNT = 12


def batch_of(count=COUNT, mask=None, first=0, step=0):
    """Instance j has the features j in all modalities, the labels j and j + 100, and the state j + 1000."""
    j = first + np.arange(count)
    features = tuple(jnp.broadcast_to(jnp.asarray(j, jnp.float32)[:, None], (count, d)) for d in (4, 3))
    mask = np.ones(count, bool) if mask is None else mask
    labels = jnp.asarray(np.stack([j, j + 100]), jnp.int32)
    keys = instance_keys(jnp.asarray(j), jnp.int32(step))
    return Batch(features, labels, jnp.asarray(mask), jnp.asarray(j), jnp.asarray(j + 1000.0)[:, None], keys)


def mixed(batch, **more):
    return mix_instances(batch, 0.5, **more)


def test_an_instance_gets_a_share_of_the_next_one_in_all_modalities():
    found = mixed(batch_of())
    share, own = np.asarray(found.partners.share), np.arange(COUNT)
    other = (own + 1) % COUNT
    for x in found.features:
        np.testing.assert_allclose(x, np.repeat(((1 - share) * own + share * other)[:, None], x.shape[1], 1), rtol=1e-6)
    np.testing.assert_array_equal(found.partners.labels, [other, other + 100])
    np.testing.assert_array_equal(found.partners.samples[:, 0], other + 1000)


def test_shares_are_uniform_and_depend_on_step_and_instance():
    share = np.asarray(mixed(batch_of(4000)).partners.share)
    assert 0.0 <= share.min() < 0.01 < 0.49 < share.max() < 0.5
    assert share.mean() == pytest.approx(0.25, abs=0.01)
    assert share.var() == pytest.approx(0.25 / 12, abs=0.002)
    assert (np.asarray(mixed(batch_of(4000, step=1)).partners.share) != share).mean() > 0.99
    np.testing.assert_array_equal(mixed(batch_of(100, first=50)).partners.share, share[50:150])


def test_padding_is_never_mixed_in():
    mask = np.arange(COUNT) < 7
    found = mixed(batch_of(mask=mask))
    np.testing.assert_array_equal(found.partners.labels[0, :7], [1, 2, 3, 4, 5, 6, 0])
    np.testing.assert_array_equal(found.partners.share[:7], mixed(batch_of(7)).partners.share)


def test_instances_that_lack_other_modalities_are_not_mixed():
    mask = np.ones((2, COUNT), bool)
    mask[1, 3] = False  # differs from 2 before it and 4 after it
    mask[0, 8:10] = False
    share = np.asarray(mixed(batch_of(mask=mask)).partners.share)
    np.testing.assert_array_equal(share == 0, np.isin(np.arange(COUNT), [2, 3, 7, 9]))
    x = np.asarray(mixed(batch_of(mask=mask)).features[0][:, 0])
    np.testing.assert_array_equal(x[[2, 3, 7, 9]], [2, 3, 7, 9])


@pytest.mark.parametrize("padded", [0, 3, 6])  # 6: the last device has no instance
def test_four_devices_mix_as_one(padded):
    size = COUNT + 4
    mask = np.arange(size) < size - padded
    batch = batch_of(size, mask)
    one = mixed(batch)
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    rows, columns = PartitionSpec("batch"), PartitionSpec(None, "batch")
    specs = Batch((rows, rows), columns, rows, rows, rows, rows)
    whole = jax.shard_map(
        lambda part: mixed(part, axis_name="batch"),
        mesh=mesh,
        in_specs=(specs,),
        out_specs=specs._replace(partners=type(one.partners)(rows, columns, rows)),
    )(batch)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(one), strict=True):
        kept = ..., slice(None, size - padded)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            continue
        a, b = (x[kept] if x.shape[0] == 2 else x[: size - padded] for x in (a, b))
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_losses_that_keep_state_of_samples_refuse_mixup():
    for loss in ("elr", "gmm", "small-loss"):
        with pytest.raises(InputError, match=f"mixup has no meaning with the loss {loss}"):
            Config(loss=loss, method_options=("mixup=0.5",), noise_rate=0.5)
        h = Hyperparameters(loss=loss, mixup=0.5, noise=OracleNoise(jnp.eye(3)[None], jnp.zeros(1)))
        shapes = Shapes((4, 3), 3, COUNT)
        state = mrl(loss).init(h, jax.random.key(0), shapes)
        batch = batch_of()._replace(labels=jnp.zeros((2, COUNT), jnp.int32), samples=state.samples)
        with pytest.raises(ValueError, match=f"mixup has no meaning with the loss {loss}"):
            mrl(loss).step(h, state, batch, 0)
    assert entry_of("mrl").hyperparameters(Config(method_options=("mixup=0.5",)), None).mixup == 0.5


def test_labels_of_missing_samples_are_not_read():
    mask = np.arange(2 * COUNT).reshape(2, COUNT) % 5 != 3
    labels = np.arange(2 * COUNT).reshape(2, COUNT) % 3
    features = tuple(jnp.asarray(np.random.default_rng(0).normal(size=(COUNT, d)), jnp.float32) for d in (4, 3))
    h = Hyperparameters(hidden_dims=(6,), embed_dim=5, loss="ce", mixup=0.5)
    state, losses = mrl("ce").init(h, jax.random.key(0), Shapes((4, 3), 3, COUNT)), []
    for of_missing in (0, 255):
        given = jnp.asarray(np.where(mask, labels, of_missing), jnp.int32)
        batch = Batch(features, given, jnp.asarray(mask), jnp.arange(COUNT))
        losses.append(float(mrl("ce").step(h, state, batch, 0)[1]["loss"]))
    assert losses[0] == losses[1]
    assert np.isfinite(losses[0])


def test_units_of_hidden_layers_are_dropped_in_training_alone():
    """A network whose hidden layers pass on what they get, so that the output counts the units that are left."""
    h = Hyperparameters(hidden_dims=(400, 400), embed_dim=2, hidden_dropout=0.5)
    shapes = Shapes((4, 4), 3, COUNT)
    params = mrl().init(h, jax.random.key(0), shapes).params
    batch = augment(h, batch_of(), jnp.int32(3), None)
    seen = {}

    def drop_and_keep(modality):
        drop = drop_units(h, batch, modality)

        def change(x, layer):
            y = drop(x, layer)
            seen[modality, layer] = np.asarray(y == 0) & np.asarray(x != 0), np.asarray(x != 0)
            np.testing.assert_allclose(y[y != 0], 2 * np.asarray(x)[np.asarray(y) != 0], rtol=1e-6)
            return y

        return change

    x = jnp.asarray(np.random.default_rng(0).normal(size=(COUNT, 4)), jnp.float32)
    for modality in (0, 1):
        h.encoder.apply(params.encoders[modality], x, drop_and_keep(modality))
    for dropped, active in seen.values():
        assert dropped.sum() / active.sum() == pytest.approx(0.5, abs=0.05)
    masks = [dropped for dropped, _ in seen.values()]
    assert all((a != b).any() for i, a in enumerate(masks) for b in masks[:i])
    np.testing.assert_array_equal(embed(h, params, 0, x), h.encoder.apply(params.encoders[0], x))
    trained = embed_all(h, params, batch._replace(features=(x, x)))
    assert np.abs(np.asarray(trained[0] - embed(h, params, 0, x))).max() > 0.01
