"""The clusters: what a sample is made of; the notebooks' samples against a loop over draws."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import torch_random
from moe_np.data.clusters import SETTINGS, clusters, notebook_clusters


@pytest.fixture(scope="module")
def published():
    return notebook_clusters(1)


def one_by_one(setting, count):
    """The notebook's procedure: one call of NumPy's old generator per number of a sample."""
    gamma, sigma, seed = SETTINGS[setting]
    rs = np.random.RandomState(seed)
    order = torch_random.manual_seed(seed)
    basis = []
    for _ in range(8):
        v = rs.randn(50)
        v /= np.linalg.norm(v)
        for u in basis:
            v -= v.dot(u) * u
        basis.append(v / np.linalg.norm(v))
    v, c = np.float32(basis[:4]), np.float32(basis[4:])
    for _ in range(count):
        y = rs.choice([-1, 1])
        k = rs.choice([0, 1, 2, 3])
        xi = rs.normal(0, sigma / np.sqrt(50), size=50)
        sign = rs.choice([-1, 1])
        other = rs.choice([i for i in range(4) if i != k])
        ends = ((0.5, 2), (1, 2), (0.5, gamma))
        alpha, beta, g = (np.float32(rs.uniform(*pair)) for pair in ends)
        signal = np.float32(y) * v[k] * alpha
        x = np.float32([signal, c[k] * beta, xi, np.float32(sign) * v[other] * g])
        yield (x * np.float32(10))[torch_random.randperms(order, 1, 4)[0]], int(y == 1), k


@pytest.mark.parametrize("setting", SETTINGS)
def test_notebook_samples_are_those_of_the_loop(setting):
    train, test = notebook_clusters(setting, n_train=70, n_test=50)
    x, y, k = (np.array(column) for column in zip(*one_by_one(setting, 120), strict=True))
    assert np.array_equal(np.concatenate([train.x, test.x]), x)
    assert np.array_equal(np.concatenate([train.y, test.y]), y)
    assert np.array_equal(np.concatenate([train.cluster, test.cluster]), k)


def test_sizes_of_the_clusters_are_those_the_notebook_printed(published):
    train, test = published
    assert np.bincount(train.cluster).tolist() == [4035, 3999, 4006, 3960]
    assert train.x.shape == test.x.shape == (16000, 4, 50) and train.x.dtype == np.float32
    assert np.array_equal(train.features, test.features)


def test_a_smaller_draw_is_the_beginning_of_the_published_one(published):
    train, _ = notebook_clusters(1, n_train=30, n_test=0)
    assert np.array_equal(train.x, published[0].x[:30])


@pytest.fixture(params=["fresh", "notebook"])
def sample(request):
    if request.param == "fresh":
        train, _ = clusters(4, 6000, 10, np.random.default_rng(3))
    else:
        train, _ = notebook_clusters(4, n_train=6000, n_test=10)
    return train


def test_a_sample_has_the_four_patches_of_the_paper(sample):
    x = sample.x.astype(np.float64) / 10
    # coordinates (N, 4, K)
    v = x @ sample.features.T.astype(float)
    c = x @ sample.centers.T.astype(float)
    size = np.linalg.norm(x, axis=2)
    is_center = np.abs(c).max(axis=2) > 0.999 * size
    is_feature = np.abs(v).max(axis=2) > 0.999 * size
    assert (is_center.sum(axis=1) == 1).all() and (is_feature.sum(axis=1) == 2).all()
    beta = c[is_center][np.arange(6000), sample.cluster]
    assert beta.min() >= 1 - 1e-6 and beta.max() <= 2 + 1e-6 and abs(beta.mean() - 1.5) < 0.02

    feature = v[is_feature].reshape(6000, 2, 4)
    signal = feature.sum(axis=1)[np.arange(6000), sample.cluster]
    # the class is the sign along the feature of the cluster
    assert np.array_equal(np.sign(signal), 2 * sample.y - 1)
    assert abs(np.abs(signal).mean() - 1.25) < 0.02 and np.abs(signal).min() >= 0.5 - 1e-6
    other = feature.sum(axis=1)
    other[np.arange(6000), sample.cluster] = 0
    # the feature of one other cluster, of either sign
    assert (np.count_nonzero(np.abs(other) > 0.1, axis=1) == 1).all()
    assert abs(np.sign(other.sum(axis=1)).mean()) < 0.05
    gamma = np.abs(other).max(axis=1)
    assert gamma.max() <= 2 + 1e-6 and abs(gamma.mean() - 1.25) < 0.02

    noise = x[~is_center & ~is_feature]
    assert abs(noise.std() - 2 / np.sqrt(50)) < 0.002
    places = is_center.mean(axis=0)
    assert np.abs(places - 0.25).max() < 0.025  # every patch at every place


def test_directions_are_orthonormal(sample):
    basis = np.concatenate([sample.features, sample.centers]).astype(float)
    assert np.abs(basis @ basis.T - np.eye(8)).max() < 1e-6


def test_classes_and_clusters_are_balanced(sample):
    assert abs(sample.y.mean() - 0.5) < 0.025
    assert np.abs(np.bincount(sample.cluster) / 6000 - 0.25).max() < 0.025


def test_fresh_data_follow_the_generator_and_nothing_else():
    (train, test), (train_0, test_0), (train_1, _) = (
        clusters(2, 20, 5, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(train.x, train_0.x) and np.array_equal(test.y, test_0.y)
    assert not np.array_equal(train.x, train_1.x)
    assert train.x.shape == (20, 4, 50) and test.x.shape == (5, 4, 50)
    assert not np.array_equal(train.x[:5], test.x)


def test_other_numbers_of_clusters_and_lengths():
    train, test = clusters(1, 100, 0, np.random.default_rng(0), n_clusters=2, patch_len=4)
    assert train.x.shape == (100, 4, 4) and len(test.x) == 0
    assert set(train.cluster) == {0, 1} and train.features.shape == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 10, 10), "setting: wanted one of 1, 2, 3, 4; got 5"),
        ((1, -1, 10), "n_train: wanted"),
        ((1, 10, 1.5), "n_test: wanted"),
    ],
)
def test_bad_input_is_named(arguments, message):
    setting, n_train, n_test = arguments
    with pytest.raises(InputError, match=message):
        clusters(setting, n_train, n_test, np.random.default_rng(0))
    with pytest.raises(InputError, match=message):
        notebook_clusters(setting, n_train=n_train, n_test=n_test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_clusters": 1}, "n_clusters: wanted"),
        ({"patch_len": 7}, "patch_len: wanted at least 2 · n_clusters = 8"),
    ],
)
def test_bad_sizes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        clusters(1, 10, 10, np.random.default_rng(0), **options)
