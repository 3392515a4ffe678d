"""Multi-head attention: causal, sliding-window, cross and grouped-query attention.

Vaswani et al. 2017 (arXiv 1706.03762), eq. 1 and section 3.2.2. For query head h, query position t
and key position s:

    q = x W^Q,   k = m W^K,   v = m W^V          m: x itself, or the memory in cross attention
    S_ts = scale q_t·k_s + bias_hts              for the keys s to which t may attend, else −∞
    P = softmax of the rows of S,   O = P v,   out = O W^O,  the heads side by side

    paper      here           shape             meaning
    W^Q, W^O   wq, wo         (D, Hq d), (Hq d, D)
    W^K, W^V   wk, wv         (D, Hk d)
    b          bq, bk, bv     (Hq d,), (Hk d,)  biases (Qwen2), not always there
               q_norm, k_norm {"g"}             RMSNorm of queries and keys: a gain (Hq d,) norms
                                                the whole projection (OLMoE, arXiv 2409.02060), a
                                                gain (d,) each head (Qwen3); not always there
    1/√d_k     scale          number            T5 has 1
               bias           (Hq, T, S)        of positions (`moe_np.layers.position_bias`)
    h          heads          Hq, Hk            query head h reads key head h // (Hq/Hk): grouped
                                                queries (Ainslie et al. 2023, arXiv 2305.13245)

Order: projection, bias, norm, clipping, rotation. A mask hides keys, never whole queries. A query
without any key has the output 0 and the gradient 0 (errata 24). No array (B, Hq, T, S) is stored:
the forward pass keeps O and the logarithm of each softmax's sum, L, and the backward pass
recomputes P = exp(S − L), one sequence at a time (Dao et al. 2022, arXiv 2205.14135, section 3.1).
"""

from typing import Annotated, NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBTD, ArrayBTHd
from moe_np.layers import projections, rotary
from moe_np.layers.key_values import KeyValues
from moe_np.layers.projections import Projection, Tree, init
from moe_np.layers.rotary import Rotary

__all__ = ["Cache", "Gradients", "KeyValues", "backward", "backward_all", "forward", "init"]

Bias = Annotated[np.ndarray, "Hq, T, S"]


class Pattern(NamedTuple):
    """Which keys a query may attend to, and what its scores are made of.

    The query of row t is at position offset + t; it attends to the keys from `before` positions
    before it to `after` positions behind it, as far as they are valid.
    """

    before: int
    after: int
    offset: int
    valid: Annotated[np.ndarray, "B, S"] | None
    scale: float
    bias: Bias | None
    rotary: Rotary | None  # of the queries
    key_rotary: Rotary | None


class Cache(NamedTuple):
    """What the backward pass needs. q and k are not rotated yet."""

    params: Tree
    projections: tuple[Projection, Projection, Projection]  # of queries, keys and values
    q: ArrayBTHd
    k: ArrayBTHd
    v: ArrayBTHd
    heads_out: ArrayBTHd  # O
    log_sum: Annotated[np.ndarray, "B, Hq, T"]  # L
    pattern: Pattern
    cross: bool


class Gradients(NamedTuple):
    """What `backward_all` returns; memory and bias are None where there was none."""

    x: ArrayBTD
    params: Tree
    memory: ArrayBTD | None
    bias: Bias | None


# --- the layer ------------------------------------------------------------------------------------


def forward(
    params: Tree,
    x: ArrayBTD,
    *,
    heads: int,
    kv_heads: int,
    causal: bool,
    window: int | None = None,
    rotary: Rotary | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    memory: ArrayBTD | None = None,
    valid: Annotated[np.ndarray, "B, S"] | None = None,
    kv: KeyValues | None = None,
    eps: float = 1e-6,
    clip_qkv: float | None = None,
) -> tuple[ArrayBTD, Cache | None]:
    """Attention of x (B, T, D) to itself or to a memory: -> (out (B, T, D), cache).

    window    a token attends to itself and to window − 1 tokens before it (errata 25), without
              `causal` also to window − 1 after it. None: to all
    rotary    of the T positions of x; None: no rotation
    bias      added to the scores
    scale     None: 1/√d
    memory    (B, S, D) for cross attention: keys and values come from it
    valid     (B, S), False at padding: these keys are hidden. With kv, S counts its positions too
    kv        positions before x, for generation. The keys and values of x are appended IN PLACE,
              those of a memory in the first call. There is no cache for a backward pass, but None
    eps       of the norms of queries and keys
    clip_qkv  the largest absolute value in queries, keys and values, as OLMoE has it. None: any

    Raises InputError where arguments do not fit together, and where x or the output is not finite.
    """
    source = x if memory is None else memory
    params, x, source = projections.check(params, x, source, heads, kv_heads)
    _check_kinds(causal, window, rotary, memory, kv)
    earlier = kv.length if kv is not None and memory is None else 0
    T = x.shape[1]
    S = source.shape[1] + earlier
    d = params["wq"].shape[1] // heads
    pattern = _pattern(causal, window, scale, d, T + S)._replace(offset=earlier)
    pattern = _with_arrays(pattern, x, (T, S, heads, d), rotary, bias, valid)
    limits = (eps, clip_qkv)
    q, q_cache = projections.project(params, x, "q", heads, *limits)
    if kv is not None:
        k, v, pattern = _keep(params, source, kv_heads, limits, pattern, kv, memory is not None)
        heads_out, _ = _attend(q, k, v, pattern)
        return _output(heads_out, params["wo"], x), None
    k, k_cache = projections.project(params, source, "k", kv_heads, *limits)
    v, v_cache = projections.project(params, source, "v", kv_heads, *limits)
    heads_out, log_sum = _attend(q, k, v, pattern)
    out = _output(heads_out, params["wo"], x)
    inputs = (q_cache, k_cache, v_cache)
    return out, Cache(params, inputs, q, k, v, heads_out, log_sum, pattern, memory is not None)


def backward(dout: ArrayBTD, cache: Cache) -> tuple[ArrayBTD, Tree]:
    """dout (B, T, D) -> dx (B, T, D), grads of params, for attention of x to itself.

    Raises InputError with memory or bias, whose gradients `backward_all` returns too.
    """
    if cache is not None and (cache.cross or cache.pattern.bias is not None):
        raise InputError("cache: with memory or bias, wanted backward_all, got backward")
    gradients = backward_all(dout, cache)
    return gradients.x, gradients.params


def backward_all(dout: ArrayBTD, cache: Cache) -> Gradients:
    """dout (B, T, D) -> the gradients of x, of params, and of memory and bias as far as they exist.

    dO = dout W^Oᵀ, then dP = dO vᵀ, δ_t = Σ dO_t · O_t, dS = P (dP − δ) (the softmax), dbias = dS
    over all sequences, dq = scale dS k, dk = scale dSᵀ q and dv = Pᵀ dO, both summed over the
    queries of a group; then the rotations by the negative angles, the norms, the projections.
    """
    if cache is None:
        raise InputError("cache: wanted that of a forward pass without kv, got None")
    B, T, Hq, d = cache.q.shape
    dout = checks.array("dout", dout, (*cache.projections[0].x.shape[:2], "D"), finite=False)
    dout = dout.astype(cache.q.dtype, copy=False)
    heads_out = cache.heads_out.reshape(B, T, Hq * d)
    dheads, dwo = projections.rows_backward(dout, heads_out, cache.params["wo"])
    *dqkv, dbias = _attend_backward(dheads.reshape(B, T, Hq, d), cache)
    dx, grads = projections.project_backward(cache.params, dqkv[0], cache.projections[0])
    dkey, key_grads = projections.project_backward(cache.params, dqkv[1], cache.projections[1])
    dvalue, value_grads = projections.project_backward(cache.params, dqkv[2], cache.projections[2])
    dsource = dkey + dvalue
    grads |= key_grads | value_grads
    grads["wo"] = dwo
    grads = {name: grads[name] for name in cache.params}
    dx, dmemory = (dx, dsource) if cache.cross else (dx + dsource, None)
    return Gradients(dx, grads, dmemory, dbias)


def _output(heads_out, wo, x):
    out = projections.rows(heads_out.reshape(*heads_out.shape[:2], len(wo)), wo)
    if not np.isfinite(out).all():
        raise InputError("x: wanted numbers for which the output is finite, got larger ones")
    return out


def _keep(params, source, kv_heads, limits, pattern, kv, cross):
    """Append those of `source` to kv, a memory's only once: -> keys, values, the pattern of kv."""
    if cross and kv.length not in (0, source.shape[1]):
        raise InputError(f"kv: wanted {source.shape[1]} positions of memory, got {kv.length}")
    if not (cross and kv.length):
        k, _ = projections.project(params, source, "k", kv_heads, *limits)
        v, _ = projections.project(params, source, "v", kv_heads, *limits)
        if pattern.key_rotary is not None:
            k = rotary.turn(k, *pattern.key_rotary)
        kv.append(k, v, before=pattern.before)
    by_key = {name: getattr(pattern, name) for name in ("valid", "bias")}
    by_key = {name: a if a is None else a[..., kv.first :] for name, a in by_key.items()}
    offset = pattern.offset - kv.first
    return *kv.filled(), pattern._replace(offset=offset, key_rotary=None, **by_key)


# --- scores, softmax, sums ------------------------------------------------------------------------


def _attend(q, k, v, pattern):
    compiled = kernels.compiled(q.dtype) and q.size and k.size
    return (kernels.attention.forward if compiled else attend_numpy)(q, k, v, pattern)


def attend_numpy(
    q: ArrayBTHd, k: ArrayBTHd, v: ArrayBTHd, pattern: Pattern
) -> tuple[ArrayBTHd, Annotated[np.ndarray, "B, Hq, T"]]:
    """Queries (B, T, Hq, d), keys and values (B, S, Hk, d) -> O (B, T, Hq, d), L (B, Hq, T).

    In NumPy, one sequence at a time, without checks. L is −∞ where there is nothing to attend to.
    """
    q, k = _turn_both(q, k, pattern)
    B, T, Hq, _ = q.shape
    out = np.empty_like(q)
    log_sum = np.empty((B, Hq, T), q.dtype)
    visible = _visible(pattern, T, k.shape[1])
    for b in range(B):
        scores = _scores(q[b], k[b], pattern, visible, b)
        top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        top[top == -np.inf] = 0
        p = np.exp(scores - top)
        total = p.sum(axis=-1, keepdims=True)
        with np.errstate(divide="ignore"):  # log 0 = −∞ is meant
            log_sum[b] = (top + np.log(total))[..., 0]
        p /= np.where(total == 0, 1, total)
        out[b] = _ungrouped(_grouped_rows(p, v.shape[2]) @ v[b].transpose(1, 0, 2), q[b].shape)
    return out, log_sum


def _attend_backward(dheads, cache):
    compiled = kernels.compiled(cache.q.dtype) and cache.q.size and cache.k.size
    return (kernels.attention.backward if compiled else attend_backward_numpy)(dheads, cache)


def attend_backward_numpy(
    dheads: ArrayBTHd, cache: Cache
) -> tuple[ArrayBTHd, ArrayBTHd, ArrayBTHd, Bias | None]:
    """dO (B, T, Hq, d) -> dq, dk, dv in the shapes of q, k, v, and dbias (Hq, T, S) or None."""
    pattern = cache.pattern
    q, k = _turn_both(cache.q, cache.k, pattern)
    v = cache.v
    B, T, Hq, _ = q.shape
    S, Hk = k.shape[1:3]
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    dbias = None if pattern.bias is None else np.zeros((Hq, T, S), q.dtype)
    visible = _visible(pattern, T, S)
    scale = q.dtype.type(pattern.scale)
    for b in range(B):
        scores = _scores(q[b], k[b], pattern, visible, b)
        log_sum = cache.log_sum[b, :, :, None]
        p = np.exp(scores - np.where(log_sum == -np.inf, 0, log_sum))
        do = _grouped(dheads[b], Hk)
        dp = (do @ v[b].transpose(1, 2, 0)).reshape(p.shape)
        delta = (dheads[b] * cache.heads_out[b]).sum(axis=-1).T  # (Hq, T)
        ds = p * (dp - delta[:, :, None])
        if dbias is not None:
            dbias += ds
        ds = _grouped_rows(ds, Hk)
        dq[b] = scale * _ungrouped(ds @ k[b].transpose(1, 0, 2), q[b].shape)
        dk[b] = scale * (ds.transpose(0, 2, 1) @ _grouped(q[b], Hk)).transpose(1, 0, 2)
        dv[b] = (_grouped_rows(p, Hk).transpose(0, 2, 1) @ do).transpose(1, 0, 2)
    if pattern.rotary is not None:
        dq = rotary.turn(dq, *rotary.inverse(pattern.rotary))
    if pattern.key_rotary is not None:
        dk = rotary.turn(dk, *rotary.inverse(pattern.key_rotary))
    return dq, dk, dv, dbias


def _turn_both(q, k, pattern):
    q = q if pattern.rotary is None else rotary.turn(q, *pattern.rotary)
    return q, k if pattern.key_rotary is None else rotary.turn(k, *pattern.key_rotary)


def _visible(pattern, T, S):
    """(T, S): whether a query may attend to a key, padding apart."""
    distance = np.arange(S) - (pattern.offset + np.arange(T))[:, None]
    return (distance >= -pattern.before) & (distance <= pattern.after)


def _scores(q, k, pattern, visible, b):
    """S of one sequence, (Hq, T, S), −∞ where a key is hidden."""
    T, Hq, _ = q.shape
    Hk = k.shape[1]
    scores = (_grouped(q, Hk) @ k.transpose(1, 2, 0)).reshape(Hq, T, len(k))
    scores *= q.dtype.type(pattern.scale)
    if pattern.bias is not None:
        scores += pattern.bias
    if pattern.valid is not None:
        visible = visible & pattern.valid[b]
    scores[:, ~visible] = -np.inf
    return scores


def _grouped(a, kv_heads):
    """(T, Hq, d) -> (Hk, G T, d): head h = group · G + place, the rows of a group below another."""
    T, Hq, d = a.shape
    return a.transpose(1, 0, 2).reshape(kv_heads, Hq // kv_heads * T, d)


def _grouped_rows(a, kv_heads):
    """(Hq, T, S) -> (Hk, G T, S)."""
    Hq, T, S = a.shape
    return a.reshape(kv_heads, Hq // kv_heads * T, S)


def _ungrouped(a, shape):
    """(Hk, G T, d) -> (T, Hq, d), which is `shape`."""
    T, Hq, d = shape
    return a.reshape(Hq, T, d).transpose(1, 0, 2)


# --- checks ---------------------------------------------------------------------------------------


def _check_kinds(causal, window, rotary, memory, kv):
    checks.boolean("causal", causal)
    if window is not None:
        checks.size("window", window)
    if memory is not None and (causal or window is not None or rotary is not None):
        raise InputError("memory: cross attention is not causal and has no window and no rotary")
    if kv is not None and memory is None and not causal:
        raise InputError("kv: wanted causal=True, because later positions are not known yet")
    if kv is not None and not isinstance(kv, KeyValues):
        raise InputError(f"kv: wanted KeyValues, got {checks.text(kv)}")


def _pattern(causal, window, scale, d, far):
    """The pattern without its arrays; `far` is more than any distance."""
    near = far if window is None else window - 1
    scale = d**-0.5 if scale is None else checks.number("scale", scale)
    return Pattern(near, 0 if causal else near, 0, None, scale, None, None, None)


def _with_arrays(pattern, x, sizes, rotary, bias, valid):
    T, S, heads, d = sizes
    if bias is not None:
        bias = checks.array("bias", bias, (heads, T, S)).astype(x.dtype, copy=False)
    if valid is not None:
        valid = checks.mask("valid", valid, (len(x), S))
    for name, a in () if rotary is None else rotary._asdict().items():
        checks.array(f"rotary.{name}", a, (T, d // 2))
    return pattern._replace(valid=valid, bias=bias, rotary=rotary, key_rotary=rotary)
