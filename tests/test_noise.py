"""Label noise: how many labels change, to what, in which modalities, and that a key decides it all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_jax.errors import InputError
from mrl_jax.noise import NoiseSpec, inject_noise

pytestmark = pytest.mark.slow

SIGMAS = 5  # a statistical check fails by chance once in two million draws, and the draw is fixed
MANY = 1 << 30  # so many classes that a new label practically never equals the old one: every redraw shows
SCOPES = ("modality", "instance")


def clean_labels(m=2, n=1001, k=10, seed=0):
    return np.random.default_rng(seed).integers(0, k, (m, n)).astype(np.int32)


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("rate", [0.001, 0.25, 0.6, 1.0])
@pytest.mark.parametrize("scope", SCOPES)
def test_exactly_the_rounded_share_of_samples_is_redrawn_in_each_modality(rate, scope):
    clean = clean_labels()
    noisy = inject_noise(clean, NoiseSpec(rate, scope=scope), jax.random.key(0), MANY)
    np.testing.assert_array_equal((np.asarray(noisy.labels) != clean).sum(1), [round(rate * 1001)] * 2)


@pytest.mark.parametrize("rate", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("k", [2, 10])
def test_the_wrong_share_is_rate_times_k_minus_one_over_k(rate, k):
    n = 5000
    noisy = inject_noise(clean_labels(n=n, k=k), NoiseSpec(rate), jax.random.key(0), k)
    drawn, wrong = round(rate * n), (k - 1) / k  # each drawn label is wrong with this probability
    error = np.sqrt(drawn * wrong * (1 - wrong)) / n
    np.testing.assert_allclose(noisy.wrong_share, [rate * wrong] * 2, atol=SIGMAS * error)
    changed = (np.asarray(noisy.labels) != np.asarray(noisy.clean)).sum(1)
    assert (changed <= drawn).all()
    np.testing.assert_allclose(noisy.wrong_share, changed / n, rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_rate_zero_changes_nothing(scope):
    clean = clean_labels()
    noisy = inject_noise(clean, NoiseSpec(0.0, scope=scope), jax.random.key(0), 10)
    assert_same(noisy, (clean, clean, np.zeros(2)))


def test_clean_labels_come_back_untouched():
    clean = clean_labels()
    before = clean.copy()
    noisy = inject_noise(clean, NoiseSpec(1.0), jax.random.key(0), 10)
    np.testing.assert_array_equal(clean, before)
    np.testing.assert_array_equal(noisy.clean, before)
    assert (noisy.labels.dtype, noisy.clean.dtype) == (jnp.int32, jnp.int32)


def test_modalities_are_drawn_on_their_own_or_together():
    clean = np.broadcast_to(clean_labels(m=1), (3, 1001))
    apart = np.asarray(inject_noise(clean, NoiseSpec(0.5, scope="modality"), jax.random.key(0), MANY).labels)
    together = np.asarray(inject_noise(clean, NoiseSpec(0.5, scope="instance"), jax.random.key(0), MANY).labels)
    np.testing.assert_array_equal(together, np.broadcast_to(together[0], (3, 1001)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = ((apart[a] != clean[a]) & (apart[b] != clean[b])).sum()
        # Two independent halves of 1000 share 250 on average; hypergeometric variance 1000 / 16.
        assert abs(both - 250) < SIGMAS * np.sqrt(1000 / 16)
        assert not (apart[a] == apart[b])[apart[a] != clean[a]].any()


def test_scope_instance_draws_the_same_rows_and_labels_where_clean_labels_differ():
    clean = clean_labels(m=2)
    labels = np.asarray(inject_noise(clean, NoiseSpec(0.5, scope="instance"), jax.random.key(0), MANY).labels)
    redrawn = labels != clean
    np.testing.assert_array_equal(redrawn[0], redrawn[1])
    np.testing.assert_array_equal(labels[0, redrawn[0]], labels[1, redrawn[1]])


def test_redrawn_rows_are_spread_evenly_over_the_instances():
    clean = np.zeros((200, 50), np.int32)
    redrawn = np.asarray(inject_noise(clean, NoiseSpec(0.4), jax.random.key(0), MANY).labels) != 0
    # A row is redrawn in each of 200 modalities with probability 0.4.
    assert np.abs(redrawn.sum(0) - 80).max() < SIGMAS * np.sqrt(200 * 0.4 * 0.6)


def test_new_labels_are_uniform_over_all_classes_the_true_one_included():
    n, k = 20000, 10
    labels = inject_noise(np.full((2, n), 3), NoiseSpec(1.0), jax.random.key(0), k).labels
    for row in np.asarray(labels):
        counts = np.bincount(row, minlength=k)
        chi_square = (np.square(counts - n / k) / (n / k)).sum()
        assert chi_square < 27.88  # the 99.9 % point for 9 degrees of freedom
        assert chi_square > 1.15  # the 0.1 % point: no draw is this even by chance


@given(
    labels=st.lists(st.lists(st.integers(0, 4), min_size=12, max_size=12), min_size=2, max_size=2),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
    scope=st.sampled_from(SCOPES),
    k=st.integers(5, 300),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=60, derandomize=True, database=None)
def test_every_label_is_a_class_and_no_more_change_than_asked(labels, rate, scope, k, seed):
    clean = np.array(labels)
    noisy = inject_noise(clean, NoiseSpec(rate, scope=scope), jax.random.key(seed), k)
    given_labels = np.asarray(noisy.labels)
    assert given_labels.shape == clean.shape
    assert given_labels.min() >= 0
    assert given_labels.max() < k
    assert ((given_labels != clean).sum(1) <= round(rate * 12)).all()
    np.testing.assert_array_equal(noisy.clean, clean)


def test_with_one_class_nothing_can_be_wrong():
    noisy = inject_noise(np.zeros((2, 20), int), NoiseSpec(1.0), jax.random.key(0), 1)
    assert_same(noisy, (np.zeros((2, 20)), np.zeros((2, 20)), np.zeros(2)))


def test_a_class_that_is_absent_stays_a_class():
    clean = clean_labels(k=9)  # class 9 of 10 never occurs
    noisy = inject_noise(clean, NoiseSpec(0.5), jax.random.key(0), 10)
    assert (np.asarray(noisy.labels) == 9).any(axis=1).all()


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_decides_the_draw_eager_and_compiled(scope):
    clean, spec = clean_labels(), NoiseSpec(0.6, scope=scope)
    first = inject_noise(clean, spec, jax.random.key(1), 10)
    assert_same(inject_noise(clean, spec, jax.random.key(1), 10), first)
    assert_same(jax.jit(inject_noise, static_argnums=(1, 3))(clean, spec, jax.random.key(1), 10), first)
    assert_same(jax.jit(inject_noise, static_argnums=1)(clean, spec, jax.random.key(1), 10), first)
    other = inject_noise(clean, spec, jax.random.key(2), 10)
    assert (np.asarray(other.labels) != np.asarray(first.labels)).any(axis=1).all()


def test_vmap_over_keys_equals_one_call_each():
    clean, spec = clean_labels(), NoiseSpec(0.6)
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.jit(jax.vmap(lambda key: inject_noise(clean, spec, key, 10)))(keys)
    for r in range(3):
        assert_same([x[r] for x in together], inject_noise(clean, spec, keys[r], 10))


@pytest.mark.parametrize("rate", [-0.01, 1.01, float("nan"), float("inf"), 60])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(InputError, match=r"noise rate .* outside \[0, 1\]"):
        NoiseSpec(rate)


def test_unknown_kind_and_scope_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'random'.*symmetric"):
        NoiseSpec(0.5, kind="random")
    with pytest.raises(InputError, match=r"'batch'.*modality.*instance"):
        NoiseSpec(0.5, scope="batch")


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3)])
def test_labels_must_be_modalities_by_instances(shape):
    with pytest.raises(ValueError, match="modalities, instances"):
        inject_noise(np.zeros(shape, int), NoiseSpec(0.5), jax.random.key(0), 3)


def test_labels_that_are_not_integers_are_refused_and_no_labels_have_no_wrong_share():
    with pytest.raises(ValueError, match="labels are float32"):
        inject_noise(jnp.zeros((2, 3)), NoiseSpec(0.5), jax.random.key(0), 4)
    np.testing.assert_array_equal(inject_noise(jnp.zeros((2, 0), int), NoiseSpec(0.5), jax.random.key(0), 4)[2], 0)
    with pytest.raises(InputError, match="is no number"):
        NoiseSpec("0.6")
