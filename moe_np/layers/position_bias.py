"""Relative position bias of T5: a number per head and distance that is added to the scores.

Raffel et al. 2020 (arXiv 1910.10683), section 2.1. The bias of head h for a query at position t and
a key at position s is bias_hts = w_{bucket(s − t), h}.

    paper                    here            shape      meaning
    embedding                w               (n, Hq)    n buckets, 32 in T5
                             bucket          (T, S)
    offset up to 128         max_distance    number     all keys further away share a bucket

With n buckets for keys that are not after the query (a causal decoder), half of them hold one
distance each, 0 to n/2 − 1. The others grow: bucket n/2 + ⌊n/2 · log(distance / (n/2)) /
log(max_distance / (n/2))⌋, at most n − 1. With `bidirectional` (an encoder), n/2 buckets do this
for keys before the query and for itself, and the other n/2 for keys after it. Without it, a key
after the query has bucket 0, and the causal mask hides it.

All layers of T5 share one w: its gradient is the sum over the layers.
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import DType, Params, Rng

Buckets = Annotated[np.ndarray, "T, S"]
Bias = Annotated[np.ndarray, "Hq, T, S"]


class Cache(NamedTuple):
    """What the backward pass needs."""

    bucket: Buckets
    n_buckets: int


def init(
    rng: Rng, n_buckets: int, heads: int, *, scale: float = 1.0, dtype: DType = np.float64
) -> Params:
    """{"w": (n, Hq)}, normal with standard deviation `scale`."""
    checks.generator("rng", rng)
    shape = (checks.size("n_buckets", n_buckets), checks.size("heads", heads))
    scale = checks.number("scale", scale, minimum=0)
    return {"w": (scale * rng.normal(size=shape)).astype(checks.float_type("dtype", dtype))}


def buckets(
    distance: Annotated[np.ndarray, "..."],
    n_buckets: int,
    *,
    bidirectional: bool,
    max_distance: int = 128,
) -> Annotated[np.ndarray, "..."]:
    """The bucket of each distance, key position − query position.

    Raises InputError for a number of buckets that cannot be halved, and for a max_distance that
    leaves nothing to the buckets that grow.
    """
    distance = checks.array("distance", distance, None, kind="i")
    parts = 4 if checks.boolean("bidirectional", bidirectional) else 2
    if checks.size("n_buckets", n_buckets) % parts:
        raise InputError(f"n_buckets: wanted a multiple of {parts}, got {n_buckets}")
    n = n_buckets // 2 if bidirectional else n_buckets
    exact = n // 2
    checks.integer("max_distance", max_distance, minimum=exact + 1)
    after = n * (distance > 0) if bidirectional else 0
    distance = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    ratio = np.log(np.maximum(distance, exact) / exact) / np.log(max_distance / exact)
    # a hair more, because the logarithm of a power may lie a hair below the whole number
    grown = exact + np.floor(ratio * (n - exact) + 1e-9).astype(np.int64)
    return after + np.where(distance < exact, distance, np.minimum(grown, n - 1))


def forward(
    params: Params,
    n_queries: int,
    n_keys: int,
    *,
    bidirectional: bool,
    max_distance: int = 128,
    offset: int = 0,
) -> tuple[Bias, Cache]:
    """-> (bias (Hq, T, S), cache) for T queries and S keys.

    offset    position of the first query: the number of earlier positions in a key-value cache
    """
    w = checks.params("params", params, {"w": ("n", "Hq")})["w"]
    query = checks.integer("offset", offset, minimum=0) + np.arange(
        checks.integer("n_queries", n_queries, minimum=0)
    )
    key = np.arange(checks.integer("n_keys", n_keys, minimum=0))
    distance = key - query[:, None]
    bucket = buckets(distance, len(w), bidirectional=bidirectional, max_distance=max_distance)
    return np.ascontiguousarray(w[bucket].transpose(2, 0, 1)), Cache(bucket, len(w))


def backward(dbias: Bias, cache: Cache) -> Params:
    """dbias (Hq, T, S) -> {"w": (n, Hq)}: dw_nh = Σ of dbias_h where the bucket is n."""
    dbias = checks.array("dbias", dbias, ("Hq", *cache.bucket.shape), finite=False)
    place = cache.bucket.ravel()
    columns = [np.bincount(place, head.ravel(), cache.n_buckets) for head in dbias]
    return {"w": np.stack(columns, axis=1).astype(dbias.dtype, copy=False)}
