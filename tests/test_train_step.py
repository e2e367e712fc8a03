"""Training: a step against Adam in NumPy, an epoch against a loop of steps, batches, schedules, transformations."""

import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tolerances

from mrl_jax.losses.mrl import mrl_loss
from mrl_jax.train_step import (
    Batch,
    Recipe,
    TrainData,
    embed,
    epoch_batches,
    init_state,
    learning_rate_at,
    train_epoch,
    train_step,
)

DIMS, K, N = (5, 4), 3, 10
SMALL = Recipe(
    beta=0.6,
    tau1=0.5,
    tau2=0.4,
    learning_rate=1e-3,
    hidden_dims=(6,),
    embed_dim=4,
    epochs=4,
    batch_size=4,
)

pytestmark = pytest.mark.slow
step = jax.jit(train_step)
run_epoch = jax.jit(train_epoch)
initial = jax.jit(init_state, static_argnums=(1, 2))


def make_data(n=N, dims=DIMS, k=K, seed=0):
    rng = np.random.default_rng(seed)
    features = tuple(jnp.asarray(rng.normal(size=(n, d)), jnp.float32) for d in dims)
    return TrainData(features, jnp.asarray(rng.integers(0, k, (len(dims), n)), jnp.int32))


def take(data, rows, mask=None):
    mask = np.ones(len(rows), bool) if mask is None else mask
    return Batch(tuple(x[rows] for x in data.features), data.labels[:, rows], jnp.asarray(mask))


def new_state(recipe=SMALL, dims=DIMS, k=K, seed=0):
    return initial(jax.random.key(seed), dims, k, recipe)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def assert_close(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@jax.jit
def gradient_at(encoders, centers, batch, recipe):
    """Gradient of the total loss at the given parameters, the centres taken as they are."""

    def objective(encoders, centers):
        z = jnp.stack([recipe.encoder.apply(p, x) for p, x in zip(encoders, batch.features, strict=True)])
        options = {"beta": recipe.beta, "tau1": recipe.tau1, "tau2": recipe.tau2, "mask": batch.mask}
        options |= {"loss": recipe.loss, "self_similarity": recipe.self_similarity}
        return mrl_loss(z, centers, batch.labels, contrastive_scale=recipe.contrastive_scale, **options)[0]

    return jax.grad(objective, (0, 1))(encoders, centers)


# One step


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("float32", {"weight_decay": 0.1}),
        ("float64", {"weight_decay": 0.1, "clip_norm": 0.2}),
        ("float64", {"loss": "ce", "self_similarity": True, "contrastive_scale": "program", "clip_norm": 1e6}),
        ("float64", {"adam_betas": (0.9, 0.99), "schedule": "constant"}),
    ],
    ids=str,
)
def test_three_steps_equal_adam_in_numpy(dtype, options):
    recipe = replace(SMALL, **options)
    b1, b2 = options.get("adam_betas", (0.5, 0.999))
    with jax.enable_x64(dtype == "float64"):
        cast = lambda x: jnp.asarray(x, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)  # noqa: E731
        data, state = (jax.tree.map(cast, tree) for tree in (make_data(), new_state(recipe)))
        batches = [take(data, np.arange(i, i + 4)) for i in range(3)]
        first, second = (
            jax.tree.map(np.zeros_like, float64((state.params.encoders, state.params.centers))) for _ in range(2)
        )
        for t, batch in enumerate(batches, start=1):
            epoch = t - 1
            share = 0.0 if recipe.schedule == "constant" else epoch / recipe.epochs
            rate = recipe.learning_rate * (1.0 + math.cos(math.pi * share)) / 2.0
            centers = unit(float64(state.params.centers))
            gradient = float64(gradient_at(state.params.encoders, cast(centers), batch, recipe))
            if recipe.clip_norm is not None:
                norm = math.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(gradient)))
                assert 0.2 < norm < 1e6  # so the first bound below acts and the second does not
                factor = min(1.0, recipe.clip_norm / norm)
                gradient = jax.tree.map(lambda g, factor=factor: factor * g, gradient)
            first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradient)
            second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, second, gradient)

            def adam(path, p, m, v, rate=rate, t=t):
                update = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
                if "kernel" in jax.tree_util.keystr(path):
                    update = update + recipe.weight_decay * p
                return p - rate * update

            before = (float64(state.params.encoders), centers)
            expected = jax.tree_util.tree_map_with_path(adam, before, first, second)
            state, metrics = step(state, batch, recipe, epoch)
            if dtype == "float64":
                assert_close((state.params.encoders, state.params.centers), expected, **tolerances.FLOAT64)
            else:
                assert_close(
                    (state.params.encoders, state.params.centers), expected, rtol=2e-7, atol=tolerances.ADAM_STEP * rate
                )
            assert int(state.step) == t
            assert int(metrics["instances"]) == 4
        assert state.params.centers.dtype == dtype


def test_weight_decay_shrinks_weight_matrices_alone():
    batch, state = take(make_data(), np.arange(4)), new_state()
    plain, _ = step(state, batch, SMALL)
    decayed, _ = step(state, batch, replace(SMALL, weight_decay=0.1))
    for i, layers in enumerate(state.params.encoders):
        for name, layer in layers["params"].items():
            with_decay, without = (s.params.encoders[i]["params"][name] for s in (decayed, plain))
            np.testing.assert_array_equal(with_decay["bias"], without["bias"])
            expected = -1e-3 * 0.1 * np.asarray(layer["kernel"])
            np.testing.assert_allclose(with_decay["kernel"] - without["kernel"], expected, atol=1e-7)
    np.testing.assert_array_equal(decayed.params.centers, plain.params.centers)


def test_the_gradient_is_the_one_at_unit_centers_and_keeps_its_radial_part():
    batch, state = take(make_data(), np.arange(4)), new_state()
    at_unit = np.asarray(gradient_at(state.params.encoders, state.params.centers, batch, SMALL)[1])
    scaled = state.params._replace(centers=state.params.centers * jnp.array([[0.2], [1.0], [7.0]]))
    moved = state._replace(params=scaled)
    for start in (state, moved):
        after, _ = step(start, batch, SMALL)
        moment = np.asarray(optax.tree_utils.tree_get(after.optimizer, "mu")[1])
        np.testing.assert_allclose(moment / (1 - 0.5), at_unit, rtol=1e-4, atol=1e-6)
        # Adam's first step is the rate times the sign of the gradient, from the unit centres.
        expected = np.asarray(state.params.centers) - 1e-3 * np.sign(at_unit)
        np.testing.assert_allclose(after.params.centers, expected, atol=1e-5)
    # A gradient through the renormalisation would have no part along the centres.
    assert np.abs((at_unit * np.asarray(state.params.centers)).sum(-1)).max() > 1e-2


def test_metrics_are_those_of_the_loss_before_the_step():
    batch, state = take(make_data(), np.arange(4)), new_state()

    @jax.jit
    def evaluate(state):
        z = jnp.stack(embed(state.params.encoders, batch.features, SMALL))
        return mrl_loss(z, state.params.centers, batch.labels, beta=0.6, tau1=0.5, tau2=0.4)

    loss, terms = evaluate(state)
    _, metrics = step(state, batch, SMALL)
    names = ("loss", "clustering", "contrastive", "instances")
    np.testing.assert_allclose([metrics[n] for n in names], (loss, *terms, 4), **tolerances.LOSS)


def test_precision_is_that_of_the_layers_while_losses_parameters_and_moments_stay_float32():
    recipe, batch = replace(SMALL, precision="bfloat16"), take(make_data(), np.arange(4))
    state, metrics = step(new_state(), batch, recipe)
    exact, expected = step(new_state(), batch, SMALL)
    assert {x.dtype for x in jax.tree.leaves(state)} == {x.dtype for x in jax.tree.leaves(exact)}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=0.02)
    assert metrics["loss"] != expected["loss"]

    def products(precision, mark):
        program = str(jax.make_jaxpr(train_step)(new_state(), batch, replace(SMALL, precision=precision)))
        return sum(mark in one for one in re.findall(r"\w+\[[\d,]*\] = dot_general\[.*?\n *\]", program, re.DOTALL))

    # Two layers of two encoders, forward and backward; the rest are of the losses.
    layers, losses = 12, products("float32", "Precision.HIGHEST") - 12
    assert losses > 4
    assert (products("bfloat16", "bf16["), products("bfloat16", "Precision.HIGHEST")) == (layers, losses)
    assert (products("tf32", "Precision.HIGH,"), products("tf32", "Precision.HIGHEST")) == (layers, losses)


def test_padded_rows_change_nothing_in_a_step():
    data, state = make_data(), new_state()
    short = step(state, take(data, np.array([3, 5])), SMALL)
    padded = step(state, take(data, np.array([9, 3, 5, 0]), [False, True, True, False]), SMALL)
    assert_close(padded, short, rtol=1e-6, atol=1e-6)


def test_the_state_is_arrays_alone_and_keeps_its_types():
    state = new_state()
    after, _ = step(state, take(make_data(), np.arange(4)), SMALL)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for before, later in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert isinstance(before, jax.Array)
        assert isinstance(later, jax.Array)
        assert (before.shape, before.dtype, before.weak_type) == (later.shape, later.dtype, later.weak_type)


def test_initial_states_differ_between_keys_and_modalities():
    state, again, other = new_state(dims=(5, 5)), new_state(dims=(5, 5)), new_state(dims=(5, 5), seed=1)
    assert_same(again, state)
    kernels = [
        np.asarray(s.params.encoders[i]["params"]["Dense_0"]["kernel"]) for s in (state, other) for i in range(2)
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(kernels[i] - kernels[j]).max() > 0.1
    np.testing.assert_allclose(state.params.centers @ state.params.centers.T, np.eye(K), **tolerances.UNIT)


def test_modalities_may_have_different_numbers_of_rows_when_embedded():
    data, state = make_data(), new_state()
    found = embed(state.params.encoders, (data.features[0][:7], data.features[1][:2]), SMALL)
    assert [z.shape for z in found] == [(7, 4), (2, 4)]
    for z in found:
        np.testing.assert_allclose(np.linalg.norm(z, axis=-1), np.ones(len(z)), **tolerances.UNIT)


# Batches and epochs


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (10, 5), (10, 10), (10, 64), (1, 1), (7, 3)])
def test_every_instance_is_used_once_per_epoch_and_only_the_last_batch_is_padded(n, batch_size):
    rows, mask = (np.asarray(x) for x in epoch_batches(jax.random.key(0), n, batch_size))
    assert rows.shape == mask.shape == (math.ceil(n / batch_size), batch_size)
    np.testing.assert_array_equal(np.sort(rows[mask]), np.arange(n))
    assert mask[:-1].all()
    assert rows.min() >= 0
    assert rows.max() < n  # padding too points at rows that exist
    np.testing.assert_array_equal(mask[-1], np.arange(batch_size) < (n - 1) % batch_size + 1)


def test_instances_are_shuffled():
    first, other = (np.asarray(epoch_batches(jax.random.key(seed), 100, 10)[0]).ravel() for seed in (0, 1))
    assert (first != np.arange(100)).sum() > 80
    assert (first != other).sum() > 80


@pytest.mark.parametrize(
    ("n", "batch_size"), [(10, 4), (3, 4), (90, 80), (30, 100)], ids=["padded", "one", "own shape", "own shape, one"]
)
def test_an_epoch_equals_a_loop_of_steps_over_true_short_batches(n, batch_size):
    data, state, key = make_data(n), new_state(), jax.random.key(7)
    recipe = replace(SMALL, batch_size=batch_size)
    for epoch in (0, 2):
        rows, mask = epoch_batches(jax.random.fold_in(key, epoch), n, batch_size)
        looped, collected = state, []
        for r, valid in zip(np.asarray(rows), np.asarray(mask), strict=True):
            looped, metrics = step(looped, take(data, r[valid]), recipe, epoch)
            collected.append(metrics)
        found, metrics = run_epoch(state, data, key, epoch, recipe)
        assert_close(found, looped, **tolerances.EPOCH)
        assert_close(metrics, jax.tree.map(lambda *x: jnp.stack(x), *collected), **tolerances.LOSS)
        assert int(metrics["instances"].sum()) == n
        state = found


def test_partners_bring_their_features():
    data, partners = make_data(), np.stack([np.arange(N), np.arange(N)[::-1]]).astype(np.int32)
    moved = tuple(x[i] for x, i in zip(data.features, partners, strict=True))
    found = run_epoch(new_state(), data._replace(partners=jnp.asarray(partners)), jax.random.key(5), 0, SMALL)
    assert_same(found, run_epoch(new_state(), data._replace(features=moved), jax.random.key(5), 0, SMALL))


def test_missing_samples_count_for_nothing_in_an_epoch():
    data = make_data()
    mask = np.ones((2, N), bool)
    mask[0, [1, 4]] = mask[1, [2, 7, 9]] = False
    garbage = [x.at[~m].set(1e6) for x, m in zip(data.features, mask, strict=True)]
    other_labels = jnp.where(mask, data.labels, (data.labels + 1) % K)
    a = run_epoch(new_state(), data._replace(mask=jnp.asarray(mask)), jax.random.key(5), 0, SMALL)
    b = run_epoch(new_state(), TrainData(tuple(garbage), other_labels, jnp.asarray(mask)), jax.random.key(5), 0, SMALL)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a[1]["instances"], [4, 4, 2])  # each instance still has one modality
    rows, valid = (
        np.asarray(x[0]) for x in epoch_batches(jax.random.fold_in(jax.random.key(5), 0), N, SMALL.batch_size)
    )
    batch = take(data, rows, mask[:, rows] & valid)
    state = new_state()
    z = jnp.stack(embed(state.params.encoders, batch.features, SMALL))
    loss, _ = mrl_loss(z, state.params.centers, batch.labels, beta=0.6, tau1=0.5, tau2=0.4, mask=batch.mask)
    np.testing.assert_allclose(a[1]["loss"][0], loss, rtol=1e-5, atol=1e-6)


def test_the_same_key_gives_the_same_bits_and_each_epoch_its_own_batches():
    data, state, key = make_data(), new_state(), jax.random.key(7)
    recipe = replace(SMALL, schedule="constant")
    first = run_epoch(state, data, key, 0, recipe)
    assert_same(run_epoch(state, data, key, 0, recipe), first)
    for other in (run_epoch(state, data, key, 1, recipe), run_epoch(state, data, jax.random.key(8), 0, recipe)):
        assert np.abs(other[1]["loss"] - first[1]["loss"]).max() > 1e-3


def test_training_separates_a_small_problem_completely():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = tuple(
        jnp.asarray((2 * rng.normal(size=(3, d)))[labels] + 0.3 * rng.normal(size=(30, d)), jnp.float32) for d in (8, 5)
    )
    data = TrainData(features, jnp.asarray(np.stack([labels, labels]), jnp.int32))
    recipe = replace(SMALL, learning_rate=1e-2, hidden_dims=(16,), embed_dim=8, epochs=40, batch_size=8)
    state = new_state(recipe, (8, 5))
    losses = []
    for epoch in range(recipe.epochs):
        state, metrics = run_epoch(state, data, jax.random.key(1), epoch, recipe)
        losses.append(float(metrics["loss"].mean()))
    for z in embed(state.params.encoders, features, recipe):
        nearest = np.argmax(np.asarray(z) @ unit(np.asarray(state.params.centers)).T, axis=-1)
        np.testing.assert_array_equal(nearest, labels)
    assert losses[-1] < losses[0] - 0.5


# Schedules


def rates(schedule, epochs, learning_rate=0.1):
    recipe = replace(SMALL, schedule=schedule, epochs=epochs, learning_rate=learning_rate)
    return np.array([float(learning_rate_at(recipe, epoch)) for epoch in range(epochs)])


def test_cosine_runs_from_the_rate_towards_zero():
    np.testing.assert_allclose(rates("cosine", 4), 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)
    np.testing.assert_allclose(rates("cosine", 1), [0.1], rtol=1e-6)
    recipe = replace(SMALL, schedule="cosine", epochs=4)
    assert abs(float(learning_rate_at(recipe, 4))) < 1e-9


def test_cosine_hold_is_the_cosine_one_epoch_later():
    found = rates("cosine-hold", 9)
    assert found[0] == found[1]
    np.testing.assert_allclose(found[0], 0.1, rtol=1e-6)
    np.testing.assert_array_equal(found[1:], rates("cosine", 9)[:-1])
    np.testing.assert_allclose(rates("cosine-hold", 1), [0.1], rtol=1e-6)


def test_cosine_hold_has_the_rate_that_the_official_implementation_logs():
    # Its README: epoch 24, counted from 0, of 30 at rate 1e-4.
    np.testing.assert_allclose(rates("cosine-hold", 30, 1e-4)[24], 1.28428e-05, rtol=1e-5)


def test_cosine_hold_v1_is_the_cosine_over_all_epochs_but_the_first():
    found = rates("cosine-hold-v1", 9)
    np.testing.assert_allclose(found[:2], [0.1, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(found[1:], rates("cosine", 8))
    np.testing.assert_allclose(rates("cosine-hold-v1", 1), [0.1], rtol=1e-6)


def test_constant_stays_and_unknown_schedules_are_refused():
    np.testing.assert_allclose(rates("constant", 5), np.full(5, 0.1), rtol=1e-6)
    with pytest.raises(ValueError, match=r"'linear'.*cosine.*cosine-hold.*constant"):
        learning_rate_at(replace(SMALL, schedule="linear"), 0)


def test_the_step_uses_the_rate_of_its_epoch():
    batch, state = take(make_data(), np.arange(4)), new_state()
    moved = [step(state, batch, SMALL, epoch)[0].params.centers - state.params.centers for epoch in (0, 2)]
    np.testing.assert_allclose(moved[1], moved[0] * 0.5, atol=1e-6)  # half way, the cosine is at half the rate


# Transformations


def test_vmap_over_the_numbers_of_a_recipe_equals_separate_runs():
    data, key = make_data(), jax.random.key(3)
    betas, learning_rates = np.float32([0.0, 0.5, 1.0]), np.float32([1e-3, 5e-4, 0.0])
    axes = replace(jax.tree.map(lambda _: None, SMALL), beta=0, learning_rate=0)
    recipes = replace(SMALL, beta=jnp.asarray(betas), learning_rate=jnp.asarray(learning_rates))
    state = new_state()
    run = jax.jit(jax.vmap(lambda recipe: train_epoch(state, data, key, 1, recipe), in_axes=(axes,)))
    together, metrics = run(recipes)
    for i in range(3):
        recipe = replace(SMALL, beta=betas[i], learning_rate=learning_rates[i])
        alone, expected = run_epoch(state, data, key, 1, recipe)
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), alone, **tolerances.EPOCH)
        assert_close(jax.tree.map(lambda x, i=i: x[i], metrics), expected, **tolerances.LOSS)


def test_donating_the_state_changes_nothing_but_frees_it():
    batch = take(make_data(), np.arange(4))
    state = new_state()
    expected = step(state, batch, SMALL)
    found = jax.jit(train_step, donate_argnums=0)(state, batch, SMALL)
    assert_same(found, expected)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))


def test_calls_in_the_order_of_earlier_versions_warn_and_give_the_same():
    state = init_state(jax.random.key(3), (6, 4), 3, SMALL)
    features = (jnp.ones((2, 6)), jnp.ones((3, 4)))
    z = embed(state.params.encoders, features, SMALL)
    with pytest.warns(DeprecationWarning, match=r"give embed\(encoders, …, recipe\)"):
        jax.tree.map(np.testing.assert_array_equal, z, embed(SMALL, state.params.encoders, features))
    with pytest.warns(DeprecationWarning, match=r"give embed\(encoders, …, recipe\)"):
        compiled = jax.jit(embed)(SMALL, state.params.encoders, features)
    assert [x.shape for x in compiled] == [x.shape for x in z]
    for old in (
        lambda: init_state(SMALL, jax.random.key(3), (6, 4), 3),
        lambda: init_state(SMALL, jax.random.key(3), dims=(6, 4), num_classes=3),
        lambda: init_state(SMALL, jax.random.key(3), (6, 4), 3, 0),
    ):
        with pytest.warns(DeprecationWarning, match=r"give init_state\(key, …, recipe\)"):
            again = old()
        jax.tree.map(np.testing.assert_array_equal, state.params, again.params)
    by_name = init_state(recipe=SMALL, key=jax.random.key(3), dims=(6, 4), num_classes=3)
    jax.tree.map(np.testing.assert_array_equal, state.params, by_name.params)
