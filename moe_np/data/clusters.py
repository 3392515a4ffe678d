"""The synthetic clusters of Chen, Deng, Wu, Gu and Li 2022 (arXiv 2208.02813), section 3 and
appendix A.

A sample is four patches of D = 50 numbers in random order. With y = ±1 and cluster k drawn at
random, they are

    paper       here       patch                                                        drawn
    α y v_k     features   the class signal of the cluster: its sign is the class       α ~ U(.5, 2)
    β c_k       centers    the centre of the cluster: tells the router, not the class   β ~ U(1, 2)
    γ ε v_k'    features   the signal of another cluster k' ≠ k with a random sign ε    γ ~ U(.5, 3) or U(.5, 2)
    ξ           –          Gaussian noise, N(0, σ² / D) in every coordinate             σ = 1 or 2

v_1..v_K and c_1..c_K are orthonormal. No linear function of the patches tells the classes apart:
the sign of v_k counts in one cluster and misleads in the others. All inputs are multiplied by 10,
as in the authors' notebooks.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer
from moe_np.data import torch_random


class Setting(NamedTuple):
    gamma: float  # γ ~ U(.5, gamma)
    sigma: float  # size of the Gaussian noise
    seed: int  # of the data in the authors' notebook


SETTINGS = {1: Setting(3, 1, 12), 2: Setting(3, 2, 11), 3: Setting(2, 1, 11), 4: Setting(2, 2, 11)}
SCALE = 10
PATCHES = 4


class Clusters(NamedTuple):
    x: np.ndarray  # (N, 4, D) float32, the patches in random order
    y: np.ndarray  # (N,) class 0 or 1 (the paper's −1 and +1)
    cluster: np.ndarray  # (N,) whole numbers below K
    features: np.ndarray  # (K, D) float32, v_k, of length 1
    centers: np.ndarray  # (K, D) float32, c_k, of length 1


class _Draws(NamedTuple):
    y: np.ndarray  # (N,) 0 or 1
    k: np.ndarray  # (N,)
    sign: np.ndarray  # (N,) 0 or 1 for ε = −1 or +1
    other: np.ndarray  # (N,) k'
    factors: np.ndarray  # (N, 3) α, β, γ
    noise: np.ndarray  # (N, D) ξ
    order: np.ndarray  # (N, 4) which patch stands first, second, ...


def clusters(setting, n_train, n_test, rng, *, n_clusters=4, patch_len=50):
    """Fresh training and test samples of setting 1 to 4: (Clusters, Clusters), with the same v and
    c.

    `rng` is a numpy Generator. Raises InputError for an unknown setting, and where D numbers have
    no room for 2K orthonormal vectors.
    """
    choice("setting", setting, tuple(SETTINGS))
    n_train, n_test = integer("n_train", n_train, minimum=0), integer("n_test", n_test, minimum=0)
    K = integer("n_clusters", n_clusters, minimum=2)
    D = integer("patch_len", patch_len, minimum=1)
    if 2 * K > D:
        raise InputError(
            f"patch_len: wanted at least 2 · n_clusters = {2 * K} for orthonormal features, got {D}"
        )
    N = n_train + n_test
    gamma, sigma, _ = SETTINGS[setting]
    basis = np.linalg.qr(rng.normal(size=(D, 2 * K)))[0].T
    k = rng.integers(K, size=N)
    draws = _Draws(
        y=rng.integers(2, size=N),
        k=k,
        sign=rng.integers(2, size=N),
        other=(k + rng.integers(1, K, size=N)) % K,
        factors=rng.uniform([0.5, 1, 0.5], [2, 2, gamma], (N, 3)),
        noise=sigma / np.sqrt(D) * rng.normal(size=(N, D)),
        order=rng.permuted(np.tile(np.arange(PATCHES), (N, 1)), axis=1),
    )
    return _split(_assemble(draws, basis[:K], basis[K:]), n_train)


def _assemble(draws, features, centers):
    """The four patches, in float32 as the notebooks compute them, in their random order and times
    10.
    """
    features, centers = features.astype(np.float32), centers.astype(np.float32)
    alpha, beta, gamma = draws.factors.astype(np.float32).T[:, :, None]
    y, sign = (
        np.where(s == 1, np.float32(1), np.float32(-1))[:, None] for s in (draws.y, draws.sign)
    )
    x = np.empty((len(draws.k), PATCHES, features.shape[1]), np.float32)
    x[:, 0] = features[draws.k] * y * alpha
    x[:, 1] = centers[draws.k] * beta
    x[:, 2] = draws.noise
    x[:, 3] = sign * features[draws.other] * gamma
    x *= np.float32(SCALE)
    x = np.take_along_axis(x, draws.order[:, :, None], axis=1)
    return Clusters(x, draws.y, draws.k, features, centers)


def _split(data, n_train):
    train, test = slice(None, n_train), slice(n_train, None)
    return tuple(
        data._replace(x=data.x[s], y=data.y[s], cluster=data.cluster[s]) for s in (train, test)
    )


# --- the notebooks' own data ----------------------------------------------------------------------


def notebook_clusters(setting, *, n_train=16000, n_test=16000):
    """The very samples of the authors' notebook, from its seed: (training, test), 16,000 each as
    published.

    Two streams start from the same seed: NumPy's old global generator for everything but the order
    of the patches, which is PyTorch's. The draws of a sample follow those of the one before, and
    how many there are depends on what was drawn, so this is a loop over samples; smaller sizes give
    the first of the published samples.
    """
    gamma, sigma, seed = SETTINGS[choice("setting", setting, tuple(SETTINGS))]
    n_train, n_test = integer("n_train", n_train, minimum=0), integer("n_test", n_test, minimum=0)
    N, K, D = n_train + n_test, 4, 50
    source, stream = _word_source(seed)
    basis = _gram_schmidt(stream.standard_normal((2 * K, D)))
    first, noise, after = _sample_draws(source, stream, N, D)
    k = first[:, 1] & 3
    other = after[:, 1] & 3
    draws = _Draws(
        y=first[:, 0] & 1,
        k=k,
        sign=after[:, 0] & 1,
        other=other + (other >= k),  # k' counts the clusters that are not k
        factors=np.array([0.5, 1, 0.5]) + np.array([1.5, 1, gamma - 0.5]) * _doubles(after[:, 2:8]),
        noise=sigma / np.sqrt(D) * noise,
        order=torch_random.randperms(torch_random.manual_seed(seed), N, PATCHES),
    )
    return _split(_assemble(draws, basis[:K], basis[K:]), n_train)


def _word_source(seed):
    """MT19937 seeded as `numpy.random.seed` does, as raw words and as normal numbers from one
    shared state.
    """
    source = np.random.MT19937()
    source.state = np.random.RandomState(seed).get_state(legacy=False)
    return source, np.random.RandomState(source)


def _gram_schmidt(rows):
    """Orthonormal rows, one after the other: each gives up its share of every earlier one in turn."""
    for i, row in enumerate(rows):
        row /= np.linalg.norm(row)
        for earlier in rows[:i]:
            row -= row.dot(earlier) * earlier
        row /= np.linalg.norm(row)
    return rows


def _sample_draws(source, stream, N, D):
    """The raw words around each sample's D normal numbers: first (N, 2), noise (N, D), after (N, 8)
    int64.

    first   y, k
    after   sign, k', and two words each for α, β, γ. k' is one of three, from two bits: a 3 is drawn again.
    """
    noise = np.empty((N, D))
    taken = np.empty((N + 1, 10), np.int64)
    taken[0, 8:] = source.random_raw(2) if N else 0
    raw, normal = source.random_raw, stream.standard_normal
    for i in range(N):
        noise[i] = normal(D)
        word = raw(10)
        while word[1] & 3 == 3:
            word[1:9] = word[2:]
            word[9] = raw()
        taken[i + 1] = word
    return taken[:-1, 8:], noise, taken[1:, :8]


def _doubles(word):
    """NumPy's 53-bit numbers on [0, 1) from pairs of 32-bit words (N, 2n) -> (N, n)."""
    return ((word[:, ::2] >> 5) * 2**26 + (word[:, 1::2] >> 6)) / 2**53
