"""Closed-form linear methods against scikit-learn, cca-zoo and definitions over samples in float64."""

import cca_zoo.linear
import jax
import numpy as np
import pytest
from sklearn.cross_decomposition import PLSSVD
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from toy import save_npz, toy_arrays, toy_config

from mrl_jax import InputError, evaluate, load_run, sweep, train
from mrl_jax.methods.linear import gss_sl
from mrl_jax.methods.linear import views as views_module
from mrl_jax.methods.linear.method import Hyperparameters
from mrl_jax.methods.linear.mvda import _consistency
from mrl_jax.methods.linear.views import principal_views
from mrl_jax.methods.registry import entry_of
from mrl_jax.methods.state import Shapes, TrainData

N, DIMS, CLASSES = 300, (7, 5, 6), 4
LINEAR = ("cca", "mcca", "pls", "gma", "mvda", "mvda-vc", "gss-sl")
SUPERVISED = ("gma", "mvda", "mvda-vc", "gss-sl")


def arrays(views=2, seed=0):
    """Views with three common directions and classes that move their means; given labels differ between views."""
    rng = np.random.default_rng(seed)
    clean = np.arange(N) % CLASSES
    common = rng.normal(size=(N, 3)) + rng.normal(size=(CLASSES, 3))[clean]
    features = [common @ rng.normal(size=(3, d)) + rng.normal(size=(N, d)) + 3.0 for d in DIMS[:views]]
    labels = np.where(rng.random((views, N)) < 0.3, rng.integers(0, CLASSES, (views, N)), clean)
    return features, labels


def fit(name, features, labels, mask=None, embed_dim=512, instances=N, **numbers):
    entry = entry_of(name)
    chosen = {n: number.default for n, number in entry.numbers.items()} | {"energy": 1.0, "ridge": 0.0} | numbers
    h = Hyperparameters(embed_dim, tuple((n, x) for n, x in chosen.items() if n in entry.numbers))
    shapes = Shapes(tuple(x.shape[1] for x in features), CLASSES, instances)
    method = entry.method(toy_config(method=name))
    return method.fit(h, TrainData(tuple(features), labels, mask), shapes, {})


def same_directions(ours, theirs, atol=1e-7):
    """Columns agree up to sign and length."""
    ours, theirs = (x / np.linalg.norm(x, axis=0) for x in (ours, theirs))
    np.testing.assert_allclose(np.abs((ours * theirs).sum(axis=0)), 1.0, atol=atol)


def stacked(features, labels, mask=None):
    """Every sample of every view as a row with zeros in the place of the other views, and its label."""
    rows, offset, width = [], 0, sum(x.shape[1] for x in features)
    for i, x in enumerate(features):
        on = np.ones(len(x), bool) if mask is None else mask[i]
        x = x - x[on].mean(axis=0)
        wide = np.zeros((on.sum(), width))
        wide[:, offset : offset + x.shape[1]] = x[on]
        rows.append((wide, labels[i][on]))
        offset += x.shape[1]
    return np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows])


def kernels(params):
    return np.concatenate([e.kernel for e in params.encoders])


def test_pls_equals_the_singular_value_decomposition_of_scikit_learn():
    features, labels = arrays()
    params = fit("pls", features, labels)
    theirs = PLSSVD(n_components=5, scale=False).fit(*features)
    same_directions(params.encoders[0].kernel, theirs.x_weights_)
    same_directions(params.encoders[1].kernel, theirs.y_weights_)
    np.testing.assert_allclose(params.encoders[0].kernel.T @ params.encoders[0].kernel, np.eye(5), atol=1e-12)
    x, y = (v - v.mean(axis=0) for v in features)
    a, b = (e.kernel for e in params.encoders)
    np.testing.assert_allclose((x @ a).T @ (y @ b) / N, np.diag(params.spectrum), atol=1e-12)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_mcca_equals_cca_zoo(share, views):
    features, labels = arrays(views)
    features = [(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=1).mean()) for x in features]  # mean variance 1
    params = fit("mcca", features, labels, ridge=share / (1 - share))
    theirs = cca_zoo.linear.MCCA(n_components=5, shrinkage=share, center=False).fit(features)
    same_directions(kernels(params), np.concatenate(theirs.weights_))  # of all views together, signs and lengths, too
    values = [(x @ e.kernel).var(axis=0) for x, e in zip(features, params.encoders, strict=True)]
    if share == 0.0:
        np.testing.assert_allclose(np.mean(values, axis=0), 1.0)


@pytest.mark.parametrize("missing", [False, True])
def test_mvda_is_the_discriminant_analysis_of_scikit_learn_on_stacked_samples(missing):
    features, labels = arrays(3)
    mask = None
    if missing:
        mask = np.random.default_rng(1).random((3, N)) < 0.8
        features = [np.where(m[:, None], x, np.nan) for x, m in zip(features, mask, strict=True)]
        labels = np.where(mask, labels, 99)
    params = fit("mvda", features, labels, mask)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(*stacked(features, labels, mask))
    same_directions(kernels(params), theirs.scalings_[:, : CLASSES - 1])
    np.testing.assert_allclose(params.spectrum / params.spectrum.sum(), theirs.explained_variance_ratio_, atol=1e-9)


def test_gma_without_alignment_is_a_discriminant_analysis_of_every_view():
    features, labels = arrays()
    params = fit("gma", features, labels, alignment=0.0)
    blocks = [e.kernel for e in params.encoders]
    owners = np.argmax([np.linalg.norm(block, axis=0) for block in blocks], axis=0)
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        own = blocks[i][:, owners == i]
        assert np.abs(blocks[i][:, owners != i]).max() < 1e-9
        theirs = LinearDiscriminantAnalysis(solver="eigen").fit(x, y).scalings_
        same_directions(own, theirs[:, : own.shape[1]])


def test_gma_solves_its_eigenvalue_problem_from_sums_over_samples():
    features, labels = arrays()
    params = fit("gma", features, labels, alignment=10.0, ridge=0.01)
    means, between, within = [], [], []
    for x, y in zip(features, labels, strict=True):
        x = x - x.mean(axis=0)
        mean = np.stack([x[y == k].mean(axis=0) for k in range(CLASSES)])
        between.append(sum(np.outer(mean[k], mean[k]) for k in y))
        spread = sum(np.outer(a - mean[k], a - mean[k]) for a, k in zip(x, y, strict=True))
        within.append(spread + 0.01 * np.trace(spread) / len(spread) * np.eye(len(spread)))
        means.append(np.sqrt(np.bincount(y))[:, None] * mean)
    balance = np.trace(within[0]) / np.trace(within[1])
    cross = 10.0 * means[0].T @ means[1]
    left = np.block([[between[0], cross], [cross.T, between[1]]])
    right = np.block([[within[0], np.zeros((7, 5))], [np.zeros((5, 7)), balance * within[1]]])
    values, vectors = np.linalg.eig(np.linalg.solve(right, left))
    order = np.argsort(-values.real)[: CLASSES - 1]
    np.testing.assert_allclose(params.spectrum, values.real[order], rtol=1e-9)
    same_directions(kernels(params), vectors.real[:, order])


def test_the_consistency_of_mvda_vc_is_the_distance_of_combinations_of_instances():
    features, labels = arrays(3)
    views = principal_views(TrainData(tuple(features), labels), Shapes(DIMS, CLASSES, N), {}, energy=0.95, paired=True)
    penalty = _consistency(Hyperparameters(512, (("ridge", 0.05),)), views)
    rng, w, beta = np.random.default_rng(0), [], []
    for x, basis in zip(features, views.bases, strict=True):
        x = (x - x.mean(axis=0)) @ basis
        gram = x.T @ x
        w.append(rng.normal(size=len(gram)))
        beta.append(x @ np.linalg.solve(gram + 0.05 * np.trace(gram) / len(gram) * np.eye(len(gram)), w[-1]))
    whole = np.concatenate(w)
    assert whole @ penalty @ whole == pytest.approx(sum(((a - b) ** 2).sum() for a in beta for b in beta), rel=1e-9)


def test_mvda_vc_solves_its_eigenvalue_problem_from_sums_over_samples():
    features, labels = arrays(3)
    params = fit("mvda-vc", features, labels, ridge=0.05, consistency=2.0)
    assert np.abs(kernels(params) - kernels(fit("mvda", features, labels, ridge=0.05))).max() > 1e-3
    rows, given = stacked(features, labels)
    combinations = []  # of instances, as a linear function of the directions of all views
    offset, ridges = 0, []
    for x in features:
        x = x - x.mean(axis=0)
        gram, width = x.T @ x, x.shape[1]
        ridges += [0.05 * np.trace(gram) / width] * width
        wide = np.zeros((N, rows.shape[1]))
        wide[:, offset : offset + width] = x @ np.linalg.inv(gram + ridges[-1] * np.eye(width))
        combinations.append(wide)
        offset += width
    penalty = sum((a - b).T @ (a - b) for a in combinations for b in combinations)
    means = np.stack([rows[given == k].mean(axis=0) for k in range(CLASSES)])
    between = sum(np.outer(means[k], means[k]) for k in given)  # the mean of all samples is 0
    within = sum(np.outer(z - means[k], z - means[k]) for z, k in zip(rows, given, strict=True)) + np.diag(ridges)
    right = within + 2.0 * np.trace(within) / np.trace(penalty) * penalty
    values, vectors = np.linalg.eig(np.linalg.solve(right, between))
    order = np.argsort(-values.real)[: CLASSES - 1]
    np.testing.assert_allclose(params.spectrum, values.real[order], rtol=1e-9)
    same_directions(kernels(params), vectors.real[:, order])


def test_gss_sl_without_graph_and_sparsity_is_a_least_squares_problem(monkeypatch):
    """F then solves ((M + m) I - sum of hat matrices) F = m Y."""
    monkeypatch.setattr(gss_sl, "_STEPS", 10_000)
    monkeypatch.setattr(gss_sl, "_CHANGE", 1e-12)
    features, labels = arrays()
    params = fit("gss-sl", features, labels, graph=0.0, sparsity=0.0, label=0.5)
    centred = [x - x.mean(axis=0) for x in features]
    hats = [x @ np.linalg.pinv(x) for x in centred]
    targets = sum(np.eye(CLASSES)[y] for y in labels) / 2
    common = np.linalg.solve(2.5 * np.eye(N) - sum(hats), 0.5 * targets)
    for x, encoder in zip(centred, params.encoders, strict=True):
        np.testing.assert_allclose(encoder.kernel, np.linalg.pinv(x) @ common, atol=1e-6)


def test_gss_sl_ends_where_no_small_change_lowers_its_objective(monkeypatch):
    monkeypatch.setattr(gss_sl, "_STEPS", 3000)
    monkeypatch.setattr(gss_sl, "_CHANGE", 1e-10)
    features, labels = arrays()
    data, shapes = TrainData(tuple(features), labels), Shapes(DIMS[:2], CLASSES, N)
    views = principal_views(data, shapes, {}, energy=None, paired=False, cross=False)
    h = Hyperparameters(512, (("graph", 0.3), ("label", 0.7), ("neighbours", 5), ("sparsity", 0.2)))
    graph, targets = gss_sl._laplacian(views, 5), sum(np.eye(CLASSES)[y] for y in labels) / 2
    maps, common = gss_sl.alternate(h, views, targets, graph)
    centred = [x - x.mean(axis=0) for x in features]

    def objective(maps, common):
        total = 0.3 * np.trace(common.T @ (graph @ common)) + 0.7 * ((common - targets) ** 2).sum()
        for x, v in zip(centred, maps, strict=True):
            rows = np.sqrt((v**2).sum(axis=1) + gss_sl._SMALL).sum()
            total += ((x @ v - common) ** 2).sum() + 0.2 * np.sqrt(np.trace(x.T @ x) / x.shape[1] * N) * rows
        return total

    rng, least = np.random.default_rng(0), objective(maps, common)
    for size in (1e-2, 1e-3, 1e-4):
        for _ in range(50):
            moved = [v + size * rng.normal(size=v.shape) for v in maps]
            assert objective(moved, common + size * rng.normal(size=common.shape)) > least
    assert objective([0 * v for v in maps], targets) > least


def test_the_graph_joins_neighbours_of_every_view():
    x = np.array([[0.0], [1.0], [3.0], [10.0]])  # neighbours: 0 - 1, 1 - 0, 2 - 1, 3 - 2
    y = np.array([[0.0], [5.0], [1.0], [np.nan]])  # the last is missing; neighbours: 0 - 2, 2 - 0, 1 - 2
    mask = np.array([[True] * 4, [True, True, True, False]])
    data = TrainData((x, y), np.zeros((2, 4), int), mask)
    views = principal_views(data, Shapes((1, 1), 2, 4), {}, energy=None, paired=False, cross=False)
    joined = {(0, 1): 1, (1, 2): 2, (2, 3): 1, (0, 2): 1}
    expected = np.zeros((4, 4))
    for (i, j), weight in joined.items():
        expected[i, j] = expected[j, i] = -weight
    np.fill_diagonal(expected, -expected.sum(axis=1))
    np.testing.assert_array_equal(gss_sl._laplacian(views, 1).toarray(), expected)


def test_principal_components_keep_the_share_that_is_asked_for():
    features, labels = arrays()
    data, shapes = TrainData(tuple(features), labels), Shapes(DIMS[:2], CLASSES, N)
    for energy in (0.5, 0.9, 0.98, 1.0):
        views = principal_views(data, shapes, {}, energy=energy, paired=True)
        for x, basis in zip(features, views.bases, strict=True):
            theirs = PCA(n_components=energy if energy < 1 else None, svd_solver="full").fit(x)
            assert basis.shape[1] == theirs.n_components_
            same_directions(basis, theirs.components_.T)


@pytest.mark.parametrize("name", [n for n in LINEAR if n != "gss-sl"])
def test_repeated_instances_change_no_direction(name):
    """The weights of an objective have no unit: neither the number of instances nor that of classes is one."""
    features, labels = arrays()
    once = fit(name, features, labels, ridge=0.01)
    thrice = fit(name, [np.tile(x, (3, 1)) for x in features], np.tile(labels, (1, 3)), ridge=0.01, instances=3 * N)
    same_directions(kernels(thrice), kernels(once))


@pytest.mark.parametrize("name", LINEAR)
def test_larger_features_change_no_direction(name):
    features, labels = arrays()
    once, larger = (fit(name, [size * x for x in features], labels, ridge=0.01) for size in (1.0, 10.0))
    same_directions(kernels(larger), kernels(once), atol=1e-4 if name == "gss-sl" else 1e-7)


def test_blocks_and_shared_sums_change_nothing(monkeypatch):
    features, labels = arrays()
    entry, shapes, shared = entry_of("mvda-vc"), Shapes(DIMS[:2], CLASSES, N), {}
    method, data = entry.method(toy_config(method="mvda-vc")), TrainData(tuple(features), labels)
    h = Hyperparameters(512, (("energy", 0.9), ("ridge", 1e-3), ("consistency", 1.0)))
    whole = method.fit(h, data, shapes, shared)
    assert len(shared) == 1
    monkeypatch.setattr(views_module, "_BLOCK", 37)
    blocks = method.fit(h, data, shapes, {})
    same_directions(kernels(blocks), kernels(whole))
    np.testing.assert_allclose(blocks.spectrum, whole.spectrum)
    moved = data._replace(partners=np.tile(np.arange(N), (2, 1)))
    method.fit(h, moved, shapes, fresh := {})
    assert fresh == {}


@pytest.mark.parametrize("name", LINEAR)
def test_features_that_do_not_vary_are_named(name):
    features, labels = arrays()
    with pytest.raises(InputError, match=r"modality 2 of 2: features do not vary over .*leave the modality out"):
        fit(name, [features[0], np.ones_like(features[1])], labels, ridge=0.1)
    apart = np.stack([np.arange(N) % 2 == 0, np.arange(N) % 2 == 1])
    if name in ("cca", "mcca", "pls", "mvda-vc"):
        with pytest.raises(InputError, match=r"modality 1 of 2: .* instances without a missing sample, which are 0"):
            fit(name, features, labels, apart, ridge=0.1)


def test_a_number_of_neighbours_is_whole():
    with pytest.raises(InputError, match=r"neighbours=2\.5': must be a whole number, such as neighbours=2"):
        toy_config(method="gss-sl", method_options="neighbours=2.5")


def test_more_features_than_instances_and_a_singular_scatter():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(N, 400)) for _ in range(2)]
    labels = rng.integers(0, CLASSES, (2, N))
    for name in LINEAR:
        params = fit(name, features, labels, ridge=1e-3)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    with pytest.raises(InputError, match=r"no solution .*; try a larger ridge, --method-options ridge=R"):
        fit("mvda", features, labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_linear_methods_train_sweep_and_are_evaluated_on_as_many_modalities_as_they_take(name, tmp_path):
    modalities = ("sound", "touch") if name in ("cca", "pls") else ("sound", "touch", "smell")
    data = save_npz(tmp_path / "toy.npz", toy_arrays(modalities))
    config = toy_config(method=name, data_path=str(data), noise_rate=0.2)
    result = train(config, tmp_path / "run")
    assert result.scores["test"]["best"]["average"] > (0.9 if name in SUPERVISED else 0.6)
    assert evaluate(tmp_path / "run")["map"] == result.scores["test"]["best"]["map"]
    assert load_run(tmp_path / "run").config.method == name
    noisier = sweep([config, toy_config(method=name, data_path=str(data), noise_rate=0.8)], tmp_path / "sweep")
    scores = [run.scores["test"]["best"]["map"] for run in noisier.runs.values()]
    assert (scores[0] == scores[1]) == (name not in SUPERVISED)
    if name in ("cca", "pls"):
        with pytest.raises(InputError, match=f"method {name} takes two modalities; the data have 3"):
            train(toy_config(method=name), data=toy_arrays(("sound", "touch", "smell")))
