"""The synthetic clusters of Chen, Deng, Wu, Gu and Li 2022 (arXiv 2208.02813), sec. 3 and app. A.

A sample is four patches of D = 50 numbers in random order. With y = ±1 and cluster k drawn at
random, they are

    paper      here       patch                                                  drawn
    α y v_k    features   the class signal of the cluster: its sign is the       α ~ U(.5, 2)
                          class
    β c_k      centers    the centre of the cluster: tells the router, not the   β ~ U(1, 2)
                          class
    γ ε v_k'   features   the signal of another cluster k' ≠ k with a random     γ ~ U(.5, 3) or
                          sign ε                                                 U(.5, 2)
    ξ          –          Gaussian noise, N(0, σ² / D) in every coordinate       σ = 1 or 2

v_1..v_K and c_1..c_K are orthonormal. No linear function of the patches separates the classes: the
sign of v_k is the class in one cluster and random in the others. All inputs are multiplied by 10,
as in the authors' notebooks.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer
from moe_np.base.types import ArrayN, ArrayND, ArrayNPD, Rng
from moe_np.data import torch_random


class Setting(NamedTuple):
    """One of the four settings of the paper."""

    gamma: float  # γ ~ U(.5, gamma)
    sigma: float  # standard deviation of the noise, times √D
    seed: int  # of the data in the authors' notebook


SETTINGS = {1: Setting(3, 1, 12), 2: Setting(3, 2, 11), 3: Setting(2, 1, 11), 4: Setting(2, 2, 11)}
SCALE = 10
PATCHES = 4


class Clusters(NamedTuple):
    """Samples of one training or test set."""

    x: ArrayNPD  # (N, 4, D) float32, the patches in random order
    y: ArrayN  # class 0 or 1 (the paper's −1 and +1)
    cluster: ArrayN  # whole numbers below K
    features: Annotated[np.ndarray, "K, D"]  # float32, v_k, of length 1
    centers: Annotated[np.ndarray, "K, D"]  # float32, c_k, of length 1


class _Draws(NamedTuple):
    y: ArrayN  # 0 or 1
    k: ArrayN
    sign: ArrayN  # 0 or 1 for ε = −1 or +1
    other: ArrayN  # k'
    factors: Annotated[np.ndarray, "N, 3"]  # α, β, γ
    noise: ArrayND  # ξ
    order: Annotated[np.ndarray, "N, P"]  # which patch stands first, second, ...


def clusters(
    setting: int,
    n_train: int,
    n_test: int,
    rng: Rng,
    *,
    n_clusters: int = 4,
    patch_len: int = 50,
) -> tuple[Clusters, Clusters]:
    """Fresh samples of setting 1 to 4: (training set, test set), with the same v and c.

    Raises InputError for an unknown setting, and where D numbers are too few for 2K orthonormal
    vectors.
    """
    choice("setting", setting, tuple(SETTINGS))
    n_train = integer("n_train", n_train, minimum=0)
    n_test = integer("n_test", n_test, minimum=0)
    K = integer("n_clusters", n_clusters, minimum=2)
    D = integer("patch_len", patch_len, minimum=1)
    if 2 * K > D:
        wanted = f"at least 2 · n_clusters = {2 * K} for orthonormal features"
        raise InputError(f"patch_len: wanted {wanted}, got {D}")
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
    """The four patches in their random order, times 10; in float32, as the notebooks compute."""
    features = features.astype(np.float32)
    centers = centers.astype(np.float32)
    alpha, beta, gamma = draws.factors.astype(np.float32).T[:, :, None]
    y = _plus_minus_one(draws.y)
    sign = _plus_minus_one(draws.sign)
    x = np.empty((len(draws.k), PATCHES, features.shape[1]), np.float32)
    x[:, 0] = features[draws.k] * y * alpha
    x[:, 1] = centers[draws.k] * beta
    x[:, 2] = draws.noise
    x[:, 3] = sign * features[draws.other] * gamma
    x *= np.float32(SCALE)
    x = np.take_along_axis(x, draws.order[:, :, None], axis=1)
    return Clusters(x, draws.y, draws.k, features, centers)


def _plus_minus_one(bits):
    """0 -> −1 and 1 -> +1, (N,) -> (N, 1) float32."""
    return np.where(bits == 1, np.float32(1), np.float32(-1))[:, None]


def _split(data, n_train):
    """The first n_train samples, and the rest."""
    parts = (slice(None, n_train), slice(n_train, None))
    train, test = (data._replace(x=data.x[s], y=data.y[s], cluster=data.cluster[s]) for s in parts)
    return train, test


# --- the data of the authors' notebooks -----------------------------------------------------------


def notebook_clusters(
    setting: int, *, n_train: int = 16000, n_test: int = 16000
) -> tuple[Clusters, Clusters]:
    """The very samples of the authors' notebook, from its seed: (training set, test set).

    Two streams start from the same seed: NumPy's old global generator for everything but the order
    of the patches, which is PyTorch's. The draws of a sample follow those of the one before, and
    their number depends on what was drawn, so this is a loop over samples. Smaller sizes give the
    first of the published samples. Raises InputError for an unknown setting.
    """
    gamma, sigma, seed = SETTINGS[choice("setting", setting, tuple(SETTINGS))]
    n_train = integer("n_train", n_train, minimum=0)
    n_test = integer("n_test", n_test, minimum=0)
    N = n_train + n_test
    K = 4
    D = 50
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
    """MT19937 seeded as `numpy.random.seed` does: its raw words, and normal numbers from the same
    state.
    """
    source = np.random.MT19937()
    state: Any = np.random.RandomState(seed).get_state(legacy=False)
    source.state = state
    return source, np.random.RandomState(source)


def _gram_schmidt(rows):
    """Orthonormal rows: from each row the parts along all earlier rows are subtracted in turn."""
    for i, row in enumerate(rows):
        row /= np.linalg.norm(row)
        for earlier in rows[:i]:
            row -= row.dot(earlier) * earlier
        row /= np.linalg.norm(row)
    return rows


def _sample_draws(source, stream, N, D):
    """The raw words around each sample's D normal numbers, int64: first (N, 2), noise (N, D), after
    (N, 8).

    first   y, k
    after   sign, k', and two words each for α, β, γ. k' is one of three, from two bits: a 3 is
            drawn again.
    """
    noise = np.empty((N, D))
    taken = np.empty((N + 1, 10), np.int64)
    taken[0, 8:] = source.random_raw(2) if N else 0
    raw = source.random_raw
    normal = stream.standard_normal
    for i in range(N):
        noise[i] = normal(D)
        word = raw(10).astype(np.int64)
        while word[1] & 3 == 3:
            word[1:9] = word[2:]
            word[9] = raw()
        taken[i + 1] = word
    return taken[:-1, 8:], noise, taken[1:, :8]


def _doubles(word):
    """NumPy's 53-bit numbers on [0, 1) from pairs of 32-bit words, (N, 2n) -> (N, n)."""
    return ((word[:, ::2] >> 5) * 2**26 + (word[:, 1::2] >> 6)) / 2**53
