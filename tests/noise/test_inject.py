"""Label noise: number of changed labels, their new classes, modalities, and dependence on the key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_jax.errors import InputError
from mrl_jax.noise.files import noise_record
from mrl_jax.noise.inject import (
    NOISE_KINDS,
    NOISE_PROTOCOLS,
    NOISE_SCOPES,
    NoiseSource,
    NoiseSpec,
    inject_noise,
    transition_matrix,
)

pytestmark = pytest.mark.slow

SIGMAS = 5  # a statistical check fails by chance once in two million draws, and the draw is fixed
MANY = 1 << 30  # so many classes that a new label practically never equals the old one: every redraw shows
SCOPES = NOISE_SCOPES
FEATURE_KINDS = ("nearest-class", "instance-dependent")
LABEL_KINDS = tuple(kind for kind in NOISE_KINDS if kind != "pair-mismatch")
K = 5
ZEROS = ((0.0, 0.5, 0.5, 0.0, 0.0), (0.2, 0.2, 0.2, 0.2, 0.2), (0.0, 0.0, 0.0, 0.0, 1.0), (0.1, 0.0, 0.9, 0.0, 0.0),
         (1.0, 0.0, 0.0, 0.0, 0.0))  # fmt: skip


def clean_labels(m=2, n=1001, k=10, seed=0):
    return np.random.default_rng(seed).integers(0, k, (m, n)).astype(np.int32)


def rows_of(clean):
    return np.broadcast_to(np.arange(clean.shape[1]), clean.shape)


def features_of(clean, dims=(4, 6, 3), seed=1, spread=1.0):
    """Clouds around random class means, one array [N, D] per modality."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(300, d)) * 3 + 1)[y] + spread * rng.normal(size=(len(y), d))
        for y, d in zip(clean, dims, strict=False)
    ]


def spec_of(kind, rate, scope="modality"):
    return NoiseSpec(rate, kind, scope, ZEROS if kind == "matrix" else None)


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
    np.testing.assert_array_equal(noisy.wrong_share, (changed / n).astype(np.float32))


@pytest.mark.parametrize("scope", SCOPES)
def test_rate_zero_changes_nothing(scope):
    clean = clean_labels()
    noisy = inject_noise(clean, NoiseSpec(0.0, scope=scope), jax.random.key(0), 10)
    assert_same(noisy, (clean, clean, np.zeros(2), np.zeros(clean.shape, bool), rows_of(clean)))


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
    clean = np.zeros((50, 50), np.int32)
    redrawn = np.asarray(inject_noise(clean, NoiseSpec(0.4), jax.random.key(0), MANY).labels) != 0
    # A row is redrawn in each of 50 modalities with probability 0.4.
    assert np.abs(redrawn.sum(0) - 20).max() < SIGMAS * np.sqrt(50 * 0.4 * 0.6)


def test_new_labels_are_uniform_over_all_classes_the_true_one_included():
    n, k = 20000, 10
    labels = inject_noise(np.full((2, n), 3), NoiseSpec(1.0), jax.random.key(0), k).labels
    for row in np.asarray(labels):
        counts = np.bincount(row, minlength=k)
        chi_square = (np.square(counts - n / k) / (n / k)).sum()
        assert chi_square < 27.88  # the 99.9 % point for 9 degrees of freedom
        assert chi_square > 1.15  # the 0.1 % point: no draw is this even by chance


def test_with_one_class_nothing_can_be_wrong():
    noisy = inject_noise(np.zeros((2, 20), int), NoiseSpec(1.0), jax.random.key(0), 1)
    zeros = np.zeros((2, 20))
    assert_same(noisy, (zeros, zeros, np.zeros(2), np.ones((2, 20)), rows_of(zeros)))


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


# Drawn by the version that produced the published results; they must never change.
GOLDEN_CLEAN = [[8, 6, 5, 2, 3, 0, 0, 0, 1, 8, 6, 9, 5, 6, 9, 7, 6, 5, 5, 9],
                [2, 8, 6, 0, 3, 8, 5, 0, 7, 7, 8, 1, 0, 8, 0, 5, 0, 2, 4, 4]]  # fmt: skip
GOLDEN = {
    "modality": (
        [[8, 6, 8, 3, 3, 8, 0, 7, 8, 9, 5, 9, 5, 6, 9, 7, 6, 0, 5, 3],
         [6, 8, 6, 9, 9, 6, 9, 0, 2, 1, 9, 1, 0, 9, 0, 5, 3, 2, 4, 0]],
        "7c7abe67c632505b44331c2b6e6b9f85c051c08473144692239320ff3785da1b"),
    "instance": (
        [[8, 8, 8, 2, 4, 0, 0, 0, 1, 7, 1, 9, 5, 5, 7, 7, 6, 1, 0, 9],
         [2, 8, 8, 0, 4, 8, 5, 0, 7, 7, 1, 1, 5, 5, 7, 5, 6, 1, 0, 4]],
        "872a04bda16d5dd53bd9f6cab778e56c48317703cdc3c9aba28a8af17b0ccdac"),
}  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
def test_symmetric_draws_are_those_of_the_published_results(scope):
    labels, digest = GOLDEN[scope]
    drawn = inject_noise(np.array(GOLDEN_CLEAN), NoiseSpec(0.6, scope=scope), jax.random.key(7), 10).labels
    np.testing.assert_array_equal(drawn, labels)
    large = clean_labels(m=3, n=2173, k=10, seed=1)
    spec = NoiseSpec(0.6, scope=scope)
    noisy = inject_noise(large, spec, jax.random.key(7), 10)
    assert noise_record(spec, noisy, 7, "abc", "0123456789")["labels_sha256"] == digest


def run(kind, rate, scope, k, key, features, clean):
    return inject_noise(clean, spec_of(kind, rate, scope), key, k, features=features)


RATES = (0.0, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0)


def count_bounds(kind, scope, rate, mask):
    """Lower and upper bound on the selected samples [M]; they differ only for scope "instance" with a mask."""
    if scope == "modality":
        least = most = [round(rate * int(p.sum())) for p in mask]
    else:
        chosen, pool = round(rate * int(mask.any(0).sum())), mask.any(0)
        least = [max(0, chosen - int((pool & ~p).sum())) for p in mask]
        most = [min(chosen, int(p.sum())) for p in mask]
    if kind == "pair-mismatch":  # one alone cannot move
        least, most = ([0, *(c if c > 1 else 0 for c in counts[1:])] for counts in (least, most))
    return least, most


def checked_draw(kind, scope, rate, mask, clean, k, key, features):
    """A draw with exactly the required counts."""
    m, n = clean.shape
    p = np.random.default_rng(k).dirichlet(np.ones(k), k) if kind == "matrix" else None
    spec = NoiseSpec(rate, kind, scope, p)
    before = clean.copy()
    draw = lambda key: inject_noise(clean, spec, key, k, features=features, mask=mask)  # noqa: E731
    noisy = draw(key)
    labels, selected, partners = (np.asarray(x) for x in (noisy.labels, noisy.selected, noisy.partners))
    np.testing.assert_array_equal(clean, before)
    np.testing.assert_array_equal(noisy.clean, before)
    assert (labels.dtype, selected.dtype, partners.dtype) == (np.int32, bool, np.int32)
    assert labels.min() >= 0
    assert labels.max() < k
    full = np.ones((m, n), bool) if mask is None else mask
    least, most = count_bounds(kind, scope, rate, full)
    counts, pool = selected.sum(1), full.any(0)
    assert (least <= counts).all(), (least, counts)
    assert (counts <= most).all(), (counts, most)
    if scope == "instance" and kind != "pair-mismatch":
        assert selected.any(0).sum() == round(rate * int(pool.sum()))
        np.testing.assert_array_equal(selected, selected.any(0) & full)
    if scope == "instance" and kind == "pair-mismatch":  # the same instances; one alone stays
        some = selected[1:].any(0)
        for i in range(1, m):
            assert counts[i] == 0 or (selected[i] == (some & full[i])).all()
        assert not selected[0].any()
    assert not selected[~full].any()
    wrong = labels != clean
    assert not wrong[~selected].any()
    shares = np.array([w[p].mean() if p.any() else 0 for w, p in zip(wrong, full, strict=True)], np.float32)
    np.testing.assert_array_equal(noisy.wrong_share, shares)
    np.testing.assert_array_equal(partners != np.arange(n), selected & (kind == "pair-mismatch"))
    np.testing.assert_array_equal(np.sort(partners), rows_of(clean))
    if kind in ("symmetric-wrong", "cyclic", *FEATURE_KINDS):  # every selected label is wrong
        assert kind in FEATURE_KINDS or (wrong == selected).all()
        for w, s, y, p in zip(wrong, selected, clean, full, strict=True):
            assert len(set(y[p])) < 2 or scope == "instance" or (w == s).all()
    return draw, noisy


def some_missing(m, n, seed):
    """A mask [M, N] whose counts depend only on N, which limits compilations; some instances are missing in all."""
    mask = np.ones((m, n), bool)
    for i in range(m):
        mask[i, np.arange(n // 4) + i * n // 8] = False
    mask[:, n - n // 8 :] = False
    return mask[:, np.random.default_rng(seed).permutation(n)]


@given(
    kind=st.sampled_from(NOISE_KINDS),
    scope=st.sampled_from(NOISE_SCOPES),
    rate=st.sampled_from(RATES),
    m=st.sampled_from((1, 2, 4)),  # few shapes: each is compiled
    n=st.sampled_from((2, 200)),
    k=st.sampled_from((2, 3, 300)),
    masked=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40, derandomize=True, database=None)
def test_every_kind_selects_exactly_the_share_asked_for(kind, scope, rate, m, n, k, masked, seed):
    clean = clean_labels(m, n, k, seed)
    clean[0, :2] = 0, k - 1
    mask = some_missing(m, n, seed) if masked else None
    full = np.ones((m, n), bool) if mask is None else mask
    pool = [full.any(0)] * m if scope == "instance" else full
    features = [np.where(p[:, None], x, np.nan) for p, x in zip(full, features_of(clean, (4, 6, 3, 5)), strict=True)]
    args = (kind, scope, rate, mask, clean, k, jax.random.key(seed), features)
    if kind == "pair-mismatch" and (m == 1 or any(round(rate * int(p.sum())) == 1 for p in pool[1:])):
        with pytest.raises(InputError, match="pair-mismatch"):
            checked_draw(*args)
    else:
        checked_draw(*args)


@pytest.mark.parametrize("scope", NOISE_SCOPES)
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_every_kind_draws_the_same_eager_and_compiled(kind, scope):
    masked = NOISE_KINDS.index(kind) % 2 == NOISE_SCOPES.index(scope)
    clean, mask = clean_labels(2, 23, K), some_missing(2, 23, 0) if masked else None
    key = jax.random.key(5)
    draw, noisy = checked_draw(kind, scope, 0.3, mask, clean, K, key, features_of(clean))
    assert_same(jax.jit(draw)(key), noisy)


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_vmap_over_keys_equals_single_draws_for_every_kind(kind):
    clean = clean_labels(2, 30, K)
    keys, features = jax.random.split(jax.random.key(3), 2), features_of(clean)
    together = jax.vmap(lambda key: run(kind, 0.5, "modality", K, key, features, clean))(keys)
    for r in range(2):
        assert_same([x[r] for x in together], run(kind, 0.5, "modality", K, keys[r], features, clean))


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_with_one_class_no_kind_makes_a_label_wrong(kind):
    clean = np.zeros((2, 20), int)
    spec = NoiseSpec(1.0, kind, matrix=[[1.0]] if kind == "matrix" else None)
    noisy = inject_noise(clean, spec, jax.random.key(0), 1, features=[np.eye(20)] * 2)
    np.testing.assert_array_equal(noisy.labels, 0)
    assert noisy.selected.all()


@pytest.mark.parametrize("kind", ["symmetric", "symmetric-wrong", "asymmetric", "cyclic", "matrix", "nearest-class"])
def test_label_frequencies_are_those_of_the_transition_matrix(kind):
    n = 40000
    clean = clean_labels(1, n, K)
    spec, key, features = spec_of(kind, 0.7), jax.random.key(5), features_of(clean)
    labels = np.asarray(inject_noise(clean, spec, key, K, features=features).labels)[0]
    q = transition_matrix(spec, K, key, labels=clean, features=features).reshape(K, K)
    np.testing.assert_allclose(q.sum(1), 1, rtol=1e-12)
    counts = np.bincount(clean[0] * K + labels, minlength=K * K).reshape(K, K)
    expected, total = q * counts.sum(1, keepdims=True), counts.sum(1, keepdims=True)
    assert (np.abs(counts - expected) <= SIGMAS * np.sqrt(total * q * (1 - q)) + 1e-9).all()
    assert (counts[q == 0] == 0).all()


@pytest.mark.parametrize(("protocol", "share"), [("mrl", 0.72), ("per-pair", 0.72), ("wrong-only", 0.80)])
def test_the_protocols_make_the_share_of_labels_wrong_that_their_papers_draw(protocol, share):
    n, clean = 20000, clean_labels(2, 20000, 10)
    noisy = inject_noise(clean, NoiseSpec(0.8, *NOISE_PROTOCOLS[protocol]), jax.random.key(0), 10)
    tolerance = 1e-6 if protocol == "wrong-only" else SIGMAS * np.sqrt(0.8 * 0.9 * 0.1 / n)
    np.testing.assert_allclose(noisy.wrong_share, [share] * 2, atol=tolerance)
    apart = (np.asarray(noisy.selected)[0] != np.asarray(noisy.selected)[1]).any()
    assert apart == (protocol == "mrl")


@pytest.mark.parametrize("kind", ["symmetric-wrong", "asymmetric", "cyclic", "matrix", "nearest-class"])
def test_scope_instance_gives_equal_labels_the_same_new_label(kind):
    clean = np.broadcast_to(clean_labels(1, 200, K), (2, 200))
    noisy = run(kind, 0.8, "instance", K, jax.random.key(0), features_of(clean), clean)
    np.testing.assert_array_equal(noisy.labels[0], noisy.labels[1])


@pytest.mark.parametrize("k", [2, 5, 10])
def test_the_asymmetric_map_is_one_to_one_between_halves_and_shared_by_modalities(k):
    clean = clean_labels(3, 400, k)
    maps = set()
    for seed in range(6):
        labels = np.asarray(inject_noise(clean, NoiseSpec(1.0, "asymmetric"), jax.random.key(seed), k).labels)
        image = {(int(y), int(z)) for y, z in zip(clean.ravel(), labels.ravel(), strict=True)}
        assert len(image) == k  # one image per class, in all modalities
        moved = {y: z for y, z in image if y != z}
        assert len(moved) == len(set(moved.values())) == k // 2
        assert set(moved).isdisjoint(moved.values())
        maps.add(frozenset(moved.items()))
    assert len(maps) > 1


def test_a_matrix_never_draws_a_class_with_probability_zero_even_at_the_end_of_the_unit_interval(monkeypatch):
    k = 7
    p = np.zeros((k, k))
    p[:, 2:5] = [1 / 3, 1 / 3, 1 / 3 - 5e-7]  # sums to a little less than 1
    clean, spec = clean_labels(1, 500, k), NoiseSpec(1.0, "matrix", matrix=p)
    for u in (0.0, float(np.nextafter(np.float32(1), np.float32(0)))):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype, u=u: jnp.full(shape, u, dtype))
        labels = inject_noise(clean, spec, jax.random.key(0), k).labels
        np.testing.assert_array_equal(labels, 2 if u == 0 else 4)
    assert hash(spec) == hash(NoiseSpec(1.0, "matrix", matrix=p.tolist()))


def reference_distances(x, y, k):
    """Distances [N, K] of standardised samples to class means, and [K, K] between the means, by loops."""
    z = (x - x.mean(0)) / x.std(0)
    means = np.stack([z[y == c].mean(0) if (y == c).any() else np.full(x.shape[1], np.inf) for c in range(k)])
    with np.errstate(invalid="ignore"):
        between = np.sqrt(((means[:, None] - means) ** 2).sum(2))
    return np.sqrt(((z[:, None] - means) ** 2).sum(2)), between


def test_nearest_class_flips_to_the_class_with_the_nearest_mean():
    clean = clean_labels(2, 300, K)
    features = features_of(clean, spread=2.0)
    between = [reference_distances(x, y, K)[1] for x, y in zip(features, clean, strict=True)]
    off = ~np.eye(K, dtype=bool)
    shared = sum(d / d[off].mean() for d in between)
    for scope in SCOPES:
        labels = run("nearest-class", 1.0, scope, K, jax.random.key(0), features, clean).labels
        for i in range(2):
            target = np.where(off, shared if scope == "instance" else between[i], np.inf).argmin(1)
            np.testing.assert_array_equal(labels[i], target[clean[i]])


def test_classes_without_samples_are_no_targets_and_constant_columns_do_not_matter():
    clean = clean_labels(2, 300, 4)
    features = features_of(clean)
    constant = [np.concatenate([x, np.full((300, 1), 0.1)], 1) for x in features]
    for kind in FEATURE_KINDS:
        labels = np.asarray(run(kind, 1.0, "modality", 9, jax.random.key(0), features, clean).labels)
        assert labels.max() < 4
        np.testing.assert_array_equal(run(kind, 1.0, "modality", 9, jax.random.key(0), constant, clean).labels, labels)


@pytest.mark.parametrize("scope", SCOPES)
def test_instance_dependent_noise_prefers_small_margins_and_flips_to_the_nearest_other_class(scope):
    n = 4000
    clean = clean_labels(2, n, K)
    features = features_of(clean, spread=3.0)
    distances, margins = np.empty((2, n, K)), np.empty((2, n))
    for i in range(2):
        d = reference_distances(features[i], clean[i], K)[0]
        own = np.arange(K) == clean[i][:, None]
        gap = np.where(own, np.inf, d).min(1) - d[own]
        distances[i], margins[i] = d / gap.std(), gap / gap.std()
    if scope == "instance":
        distances[:], margins[:] = distances.mean(0), margins.mean(0)
    noisy = run("instance-dependent", 0.3, scope, K, jax.random.key(0), features, clean)
    for i in range(2):
        target = np.where(np.arange(K) == clean[i][:, None], np.inf, distances[i]).argmin(1)
        chosen = np.asarray(noisy.selected[i])
        np.testing.assert_array_equal(noisy.labels[i], np.where(chosen, target, clean[i]))
        # Gumbel top-k is a draw without replacement with weights exp(-|margin|): compare the mean with NumPy's.
        weights = np.exp(-np.abs(margins[i]))
        rng = np.random.default_rng(0)
        near = np.abs(margins[i])
        means = [near[rng.choice(n, 1200, False, weights / weights.sum())].mean() for _ in range(40)]
        assert abs(near[chosen].mean() - np.mean(means)) < SIGMAS * np.std(means)
        assert near[chosen].mean() < near.mean() - 0.1


def test_a_label_is_the_less_likely_to_flip_the_farther_it_is_from_the_boundary_on_either_side():
    n = 20000
    clean = clean_labels(1, n, 2)
    features = [np.where(clean[0] == 1, 1.0, -1.0)[:, None] + 2 * np.random.default_rng(3).normal(size=(n, 3))]
    d = reference_distances(features[0], clean[0], 2)[0]
    gap = d[np.arange(n), 1 - clean[0]] - d[np.arange(n), clean[0]]
    chosen = np.asarray(run("instance-dependent", 0.2, "modality", 2, jax.random.key(0), features, clean).selected)[0]
    for side in (gap > 0, gap < 0):
        near = np.abs(gap[side])
        quarter = np.searchsorted(np.quantile(near, [0.25, 0.5, 0.75]), near)
        shares = np.array([chosen[side][quarter == q].mean() for q in range(4)])
        error = np.sqrt(0.25 / (side.sum() / 4))  # of a share, at most
        assert shares[0] - shares[3] > SIGMAS * error
        assert (np.diff(shares) < 2 * error).all()


def test_margins_by_the_means_of_other_samples_are_those_of_numpy():
    n, k = 3000, 4
    rng = np.random.default_rng(6)
    means = rng.normal(size=(2, k, 5))
    make = lambda y, shift: [means[i][y[i]] + shift + 2 * rng.normal(size=(y.shape[1], 5)) for i in range(2)]  # noqa: E731
    other, clean = clean_labels(2, 500, k, 1), clean_labels(2, n, k, 2)
    mask = rng.random(other.shape) > 0.2
    base, x = make(other, 0.0), make(clean, 0.3)
    like = NoiseSource(jax.random.key(1), other, base, mask)
    spec = NoiseSpec(0.3, "instance-dependent")
    noisy = inject_noise(clean, spec, jax.random.key(0), k, features=x, like=like)
    for i in range(2):
        b, y = base[i][mask[i]], other[i][mask[i]]
        z, zb = (x[i] - b.mean(0)) / b.std(0), (b - b.mean(0)) / b.std(0)
        centers = np.stack([zb[y == c].mean(0) for c in range(k)])
        d = np.sqrt(((z[:, None] - centers) ** 2).sum(2))
        own = np.arange(k) == clean[i][:, None]
        chosen = np.asarray(noisy.selected[i])
        target = np.where(own, np.inf, d).argmin(1)
        np.testing.assert_array_equal(noisy.labels[i], np.where(chosen, target, clean[i]))
        gap = np.where(own, np.inf, d).min(1) - d[own]
        near = np.abs(gap) / gap.std()
        weights, count = np.exp(-near), round(0.3 * n)
        drawn = [near[rng.choice(n, count, False, weights / weights.sum())].mean() for _ in range(40)]
        assert abs(near[chosen].mean() - np.mean(drawn)) < SIGMAS * np.std(drawn)
    one = NoiseSource(like.key, other[:1], base[:1], mask[:1])
    with pytest.raises(InputError, match="like has 1 modalities, but the labels have 2"):
        inject_noise(clean, spec, jax.random.key(0), k, features=x, like=one)


@pytest.mark.parametrize("scope", SCOPES)
def test_mismatched_pairs_are_a_derangement_of_the_selected_samples(scope):
    clean = clean_labels(3, 50, K)
    noisy = inject_noise(clean, NoiseSpec(0.4, "pair-mismatch", scope), jax.random.key(0), K)
    np.testing.assert_array_equal(noisy.labels, clean)
    np.testing.assert_array_equal(noisy.wrong_share, 0)
    partners, selected = np.asarray(noisy.partners), np.asarray(noisy.selected)
    np.testing.assert_array_equal(selected.sum(1), [0, 20, 20])
    for i in (1, 2):
        np.testing.assert_array_equal(partners[i] != np.arange(50), selected[i])
        assert set(partners[i][selected[i]]) == set(np.flatnonzero(selected[i]))
    assert (partners[1] != partners[2]).any()
    assert (selected[1] == selected[2]).all() == (scope == "instance")


def test_a_mask_of_ones_changes_no_draw():
    clean = clean_labels(2, 30, K)
    for kind in ("symmetric", "pair-mismatch"):
        plain = run(kind, 0.5, "modality", K, jax.random.key(0), None, clean)
        masked = inject_noise(clean, spec_of(kind, 0.5), jax.random.key(0), K, mask=np.ones((2, 30), bool))
        assert_same(masked, plain)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["asymmetric", "nearest-class", "instance-dependent"])
def test_noise_like_that_of_other_samples_confuses_the_same_classes(kind, scope):
    rng = np.random.default_rng(1)
    k, means = 6, rng.normal(size=(2, 6, 5)) * 2
    clean = {s: np.stack([np.arange(n) % k] * 2) for s, n in (("train", 900), ("valid", 60))}
    x = {s: [means[i][y[i]] + rng.normal(size=(y.shape[1], 5)) for i in range(2)] for s, y in clean.items()}
    spec, key = NoiseSpec(1.0, kind, scope), jax.random.key(4)
    train = np.asarray(inject_noise(clean["train"], spec, key, k, features=x["train"]).labels)
    like = NoiseSource(key, clean["train"], x["train"])
    actual = inject_noise(clean["valid"], spec, jax.random.key(9), k, features=x["valid"], like=like)
    if kind != "instance-dependent":
        for i in range(2):
            assert dict(zip(clean["valid"][i], np.asarray(actual.labels)[i], strict=True)) == dict(
                zip(clean["train"][i], train[i], strict=True)
            )
        return
    # The same samples among the training samples flip to the same classes: the means are those of training.
    both = [np.concatenate([x["train"][i], x["valid"][i]]) for i in range(2)]
    mask = np.arange(960) < 900
    y = np.concatenate([clean["train"], clean["valid"]], axis=1)
    source = NoiseSource(key, y, both, np.stack([mask] * 2))
    again = inject_noise(y, spec, key, k, features=both, like=source)
    np.testing.assert_array_equal(np.asarray(again.labels)[:, 900:], actual.labels)
