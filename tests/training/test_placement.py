"""One run over eight devices: the parameters of one device, whatever cuts the program up."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec
from toy import TOY_FLAGS, lose, placement_of, save_npz, toy_arrays, toy_config, unchecked

from mrl_jax import InputError, load_run, train
from mrl_jax.losses.mrl import mrl_loss
from mrl_jax.methods.mrl import mrl
from mrl_jax.methods.state import State
from mrl_jax.train_step import Recipe, TrainData, init_state, train_epoch
from mrl_jax.training.placement import choose_placement, epoch_program
from mrl_jax.training.processes import on_main

pytestmark = pytest.mark.slow
MODES = ("jit", "shard_map", "pmap")
N, B, STEPS = 150, 16, 20  # ten steps an epoch, the last with 6 instances: some devices have none


def problem(m, masked, count=N, batch_size=B, **options):
    rng, dims = np.random.default_rng(m), (6, 4, 5, 3)[:m]
    features = tuple(jnp.asarray(rng.normal(size=(count, d)), jnp.float32) for d in dims)
    mask = jnp.asarray(rng.random((m, count)) > 0.1) if masked else None
    data = TrainData(features, jnp.asarray(rng.integers(0, 3, (m, count)), jnp.int32), mask)
    recipe = Recipe(hidden_dims=(16,), embed_dim=8, batch_size=batch_size, epochs=2, learning_rate=1e-3, **options)
    return data, recipe, jax.jit(init_state, static_argnums=(1, 2))(jax.random.key(0), dims, 3, recipe)


@pytest.mark.parametrize(
    ("m", "masked", "options"),
    [
        (2, False, {"loss": "rc", "beta": 0.6, "tau1": 0.5, "tau2": 0.4}),
        (4, True, {"loss": "ce", "contrastive_scale": "program", "clip_norm": 0.5, "weight_decay": 0.1}),
    ],
    ids=["two modalities", "four, missing samples"],
)
def test_twenty_steps_on_eight_devices_give_the_parameters_of_one(m, masked, options):
    data, recipe, start = problem(m, masked, **options)
    key, one = jax.random.key(1), jax.jit(train_epoch)
    state, expected = start, []
    for epoch in range(2):
        state, metrics = one(state, data, key, epoch, recipe)
        expected.append(metrics)
    assert int(state.step) == STEPS
    for mode in MODES:
        placement = placement_of(mode)
        found, program = (
            placement.place(jax.device_get(start)),
            epoch_program(mrl(recipe.loss), placement, recipe.batch_size),
        )
        arguments = placement.place((data, key))
        for epoch in range(2):
            found, metrics, finite = program(found, *arguments, epoch, recipe)
            assert finite
            for name, values in metrics.items():
                np.testing.assert_allclose(
                    values, expected[epoch][name], rtol=1e-5, atol=1e-5, err_msg=f"{mode} {name}"
                )
        for a, b in zip(jax.tree.leaves(placement.own(found)), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=mode)
        if m == 2 and mode != "pmap":
            text = program.lower(found, *arguments, 0, recipe).compile().as_text()
            assert "all-reduce" in text
            assert text.count("f32[2,16,8]") < text.count("f32[2,2,8]")  # batches are cut: two instances on each device


def test_a_last_batch_of_its_own_shape_is_shared_too():
    data, recipe, start = problem(2, False, count=90, batch_size=80)  # 10 instances are left, for 8 devices
    key = jax.random.key(1)
    state, expected = jax.jit(train_epoch)(start, data, key, 0, recipe)
    for mode in MODES:
        placement = placement_of(mode)
        found, metrics, _ = epoch_program(mrl(recipe.loss), placement, recipe.batch_size)(
            *placement.place((jax.device_get(start), data, key)), 0, recipe
        )
        np.testing.assert_array_equal(metrics["instances"], [80, 10], err_msg=mode)
        np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5, err_msg=mode)
        for a, b in zip(jax.tree.leaves(placement.own(found)), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=mode)


def test_the_shares_of_the_loss_and_of_its_gradient_sum_to_the_whole():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, 24, 8)).astype(np.float32)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    centers, labels = np.eye(3, 8, dtype=np.float32), rng.integers(0, 3, (2, 24))
    mask = rng.random((2, 24)) > 0.3
    mask[:, 18:] = False  # devices without any instance
    mesh, spec = Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec(None, "batch")
    for scale in ("equation", "program"):
        options = {"tau1": 0.5, "tau2": 0.3, "contrastive_scale": scale}

        def share(z, labels, mask):
            own = lambda z: mrl_loss(z, centers, labels, mask=mask, axis_name="batch", **options)[0]  # noqa: E731, B023
            value, slope = jax.value_and_grad(own)(z)
            return value[None], slope

        split = jax.shard_map(
            share, mesh=mesh, in_specs=(spec, spec, spec), out_specs=(PartitionSpec("batch"), spec), check_vma=False
        )
        values, slopes = jax.jit(split)(z, labels, mask)
        whole = jax.value_and_grad(lambda z: mrl_loss(z, centers, labels, mask=mask, **options)[0])  # noqa: B023
        value, slope = whole(jnp.asarray(z))
        np.testing.assert_allclose(values.sum(), value, rtol=1e-5)
        np.testing.assert_allclose(slopes, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stream", ["off", "on"])
def test_a_run_over_devices_ends_as_on_one(mode, stream, tmp_path):
    arrays = toy_arrays() | {"train_touch_mask": np.arange(60) % 7 != 2}
    config = toy_config(stream=stream, batch_size=13, noise_rate=0.4)
    one = train(config, data=arrays)
    found = train(config, tmp_path / "run", data=arrays, parallel=mode)
    for a, b in zip(found.metrics, one.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)
        assert a["valid"]["map"] == pytest.approx(b["valid"]["map"], abs=0.01)
    for a, b in zip(jax.tree.leaves(found.run.model), jax.tree.leaves(one.run.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    if (mode, stream) == ("shard_map", "off"):  # goes on with other devices
        lose(tmp_path / "run", "result.json", "model.npz")
        (tmp_path / "run" / "checkpoints" / "3").rename(tmp_path / "3")
        again = train(config, tmp_path / "run", data=arrays, resume=True)
        assert again.scores["test"]["last"]["map"] == pytest.approx(found.scores["test"]["last"]["map"], abs=0.01)


def test_divided_parameters_give_the_numbers_of_whole_ones_and_each_device_holds_its_part(tmp_path):
    data, recipe, start = problem(2, True, clip_norm=0.5)
    key, one = jax.random.key(1), jax.jit(train_epoch)
    state = start
    for epoch in range(2):
        state, _ = one(state, data, key, epoch, recipe)
    placement = choose_placement("auto", B, model_parallel=4)
    assert (placement.mode, placement.batch_parts, placement.divides) == ("jit", 2, True)
    start = jax.device_get(start)
    found, program = (
        placement.place(start, placement.of_state(start)),
        epoch_program(mrl(recipe.loss), placement, recipe.batch_size),
    )
    for epoch in range(2):
        found, _, finite = program(found, *placement.place((data, key)), epoch, recipe)
        assert finite
    for tree in (found.params.encoders, optax.tree_utils.tree_get(found.optimizer, "mu")[0]):
        for x in jax.tree.leaves(tree):
            assert x.addressable_data(0).shape == (*x.shape[:-1], x.shape[-1] // 4)
    assert found.params.centers.is_fully_replicated
    for a, b in zip(jax.tree.leaves(placement.own(found)), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

    config = toy_config(batch_size=13, noise_rate=0.4)
    whole = train(config, data=toy_arrays())
    divided = train(config, tmp_path / "run", data=toy_arrays(), model_parallel=8)
    for a, b in zip(divided.metrics, whole.metrics, strict=True):
        assert a["train"] == pytest.approx(b["train"], rel=1e-4, abs=1e-4)
    for a, b in zip(jax.tree.leaves(load_run(tmp_path / "run").model), jax.tree.leaves(whole.run.model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    for name in ("result.json", "model.npz", "checkpoints/3"):
        (tmp_path / "run" / name).rename(tmp_path / name.replace("/", "-"))
    streamed = dataclasses.replace(divided.run.config, stream="on")
    (unchecked(tmp_path / "run") / "config.json").write_text(json.dumps(streamed.to_json()))
    again = train(streamed, tmp_path / "run", data=toy_arrays(), resume=True, model_parallel=2)
    assert again.scores["test"]["last"]["map"] == pytest.approx(whole.scores["test"]["last"]["map"], abs=0.01)


def test_devices_that_cannot_share_parameters_are_refused():
    with pytest.raises(InputError, match="model_parallel 3: must divide the number of devices, which is 8"):
        choose_placement("auto", 100, 3)
    with pytest.raises(InputError, match="goes with parallel jit alone; leave pmap out"):
        choose_placement("pmap", 100, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (toy_config(hidden_dims=(16, 10)), "model_parallel 4: must divide the width of every layer; one is 10"),
        (toy_config(embed_dim=6), "model_parallel 4: must divide the width of every layer; one is 6"),
        (toy_config(method="cca"), "model_parallel 4: method cca is a closed form, which is computed on one device"),
    ],
    ids=["hidden layer", "embedding", "closed form"],
)
def test_parameters_that_cannot_be_divided_are_refused_before_anything_is_written(config, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run", data=toy_arrays(), model_parallel=4)
    assert not (tmp_path / "run").exists()


def test_a_method_without_encoders_divides_its_matrices_alone():
    placement, method = choose_placement("auto", 100, 4), mrl("rc")
    params = {"map": np.zeros((3, 8)), "offset": np.zeros(8)}
    state = State(params, (params,), np.zeros(()), np.zeros((20, 8)))
    placement.check_layers(method, state)
    divided = jax.tree.map(lambda s: s != placement.everywhere, placement.of_state(state))
    assert divided == State({"map": True, "offset": False}, ({"map": True, "offset": False},), False, False)
    with pytest.raises(InputError, match="model_parallel 4: loss rc has no layers to divide; leave model_parallel out"):
        placement.check_layers(method, State({"offset": np.zeros(8)}, (), np.zeros(())))


def test_devices_are_chosen_by_the_size_of_the_batch():
    assert choose_placement("auto", 100) is None
    assert choose_placement("auto", 1023) is None
    assert choose_placement("auto", 2100).batch_parts == 4
    assert choose_placement("auto", 100_000).batch_parts == 8
    assert choose_placement("auto", 2100).mode == "shard_map"
    assert [choose_placement(mode, 100).batch_parts for mode in MODES] == [8, 8, 8]
    with pytest.raises(InputError, match="parallel 'all': choose from auto, jit, shard_map, pmap"):
        choose_placement("all", 100)


def test_a_bad_way_is_refused_by_the_command_before_anything_is_written(tmp_path, capsys):
    from mrl_jax.train import main

    data = save_npz(tmp_path / "toy.npz")
    flags = [*TOY_FLAGS, "--data-path", data, "--workdir", tmp_path / "run", "--parallel", "all"]
    assert main([str(f) for f in flags]) == 2
    assert "parallel 'all': choose from" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_process_does_itself_what_the_main_one_is_to_do():
    assert on_main(lambda: 3) == 3
