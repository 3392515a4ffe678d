"""Cross-entropy loss of a softmax over V classes, with an ignored index, label smoothing and soft
targets.

    loss_n = logsumexp(logits_n) − Σ_v q_nv logits_nv,     loss = (1/n_valid) Σ_{n valid} loss_n

    here      shape    meaning
    logits    (N, V)   one row per token
    targets   (N,)     the class of each token; `ignore` marks a token without one (padding)
    q         (N, V)   what the softmax shall be: 1 at the target, or soft targets, and smoothed
    lse       (N,)     logsumexp of each valid row

Label smoothing ε (Szegedy et al. 2016, arXiv 1512.00567, section 7) mixes q with the uniform
distribution: (1 − ε) q + ε/V. The loss is never the logarithm of a softmax, which would be −∞ where
the softmax underflows. Perplexity is exp(Σ loss_n / Σ n_valid) over all batches, and not a mean of
the batches' perplexities (errata 26): `total` and `n_valid` of the cache are for that sum.

`head_forward` is the head of a language model and the loss in one, for training: the logits, its
largest array, are computed a block of rows at a time and not kept.

With Numba it runs in `moe_np.kernels.cross_entropy`, but for soft targets.
"""

from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, Params


class Cache(NamedTuple):
    """What the backward pass needs, and the sum from which perplexity is computed."""

    logits: ArrayNC
    targets: ArrayN | None
    soft: ArrayNC | None
    smoothing: float
    valid: ArrayN  # bool
    lse: ArrayN  # 0 for a row that is not valid
    total: float  # Σ loss_n over the valid rows, in nats
    n_valid: int


def forward(
    logits: ArrayNC,
    targets: ArrayN | None,
    *,
    ignore: int = -1,
    smoothing: float = 0.0,
    soft: ArrayNC | None = None,
) -> tuple[float, Cache]:
    """logits (N, V), targets (N,) -> (mean of loss_n over the valid targets in nats, cache).

    ignore      a target of this value is not valid: its row is not read, and its gradient is 0
    smoothing   ε of label smoothing, 0 ≤ ε < 1
    soft        (N, V) probabilities q in place of the targets, for distillation; then `targets` is
                None, or says by `ignore` which rows are not valid

    The mean is summed in float64. Without a valid target the loss is 0. Raises InputError for
    targets outside of 0 to V − 1, for q that are not probabilities and for logits whose loss is not
    finite; −∞ is allowed at a class that q leaves out.
    """
    logits = checks.array("logits", logits, ("N", "V"), finite=False)
    smoothing = checks.number("smoothing", smoothing, minimum=0, less_than=1)
    if targets is None and soft is None:
        raise InputError("targets: wanted an array of classes, got None, and soft is None too")
    valid = np.ones(len(logits), bool)
    if targets is not None:
        targets, valid = _check_targets(targets, ignore, *logits.shape)
    soft = None if soft is None else _check_soft(soft, logits, valid)
    if soft is None and targets is not None and kernels.compiled(logits.dtype):
        losses, lse = kernels.cross_entropy.forward(logits, targets, smoothing, valid)
    else:
        losses, lse = forward_numpy(logits, targets, soft, smoothing, valid)
    total = float(losses.sum(dtype=np.float64))
    n_valid = int(np.count_nonzero(valid))
    if not np.isfinite(total):
        _refuse(logits, losses)
    cache = Cache(logits, targets, soft, smoothing, valid, lse, total, n_valid)
    return total / max(n_valid, 1), cache


def forward_numpy(
    logits: ArrayNC,
    targets: ArrayN | None,
    soft: ArrayNC | None,
    smoothing: float,
    valid: ArrayN,
) -> tuple[ArrayN, ArrayN]:
    """The losses (N,) and logsumexps (N,) of all rows, 0 where they are not valid."""
    losses = np.zeros(len(logits), np.result_type(logits, np.float32))
    lse = np.zeros_like(losses)
    rows = np.flatnonzero(valid)
    z = logits[rows].astype(losses.dtype, copy=False)
    lse[rows] = numerics.logsumexp(z)
    with np.errstate(invalid="ignore"):  # −∞ − (−∞), which is refused later
        if soft is not None:
            expected = np.where(soft[rows] > 0, soft[rows] * z, 0).sum(axis=1)
        elif targets is not None:
            expected = z[np.arange(len(rows)), targets[rows]]
        if smoothing:
            expected = (1 - smoothing) * expected + smoothing * z.mean(axis=1)
        losses[rows] = lse[rows] - expected
    return losses, lse


def backward(dloss: float, cache: Cache, out: ArrayNC | None = None) -> ArrayNC:
    """dloss -> dlogits_n = dloss (softmax(logits_n) − q_n) / n_valid; 0 where not valid.

    out     an array for the result, which may be the logits themselves: they are overwritten, and
            no second array of their size is needed. None: a new array

    Targets and soft targets are not differentiated.
    """
    dloss = checks.number("dloss", dloss)
    if out is None:
        out = np.empty_like(cache.logits)
    elif out.shape != cache.logits.shape or out.dtype != cache.logits.dtype:
        wanted = f"{cache.logits.dtype} of shape {cache.logits.shape}"
        raise InputError(f"out: wanted {wanted}, got {out.dtype} of shape {out.shape}")
    scale = dloss / max(cache.n_valid, 1)
    logits, targets, soft, smoothing, valid, lse, _, _ = cache
    # compiled loops write into memory as it lies; a transposed array is left to NumPy
    compiled = soft is None and kernels.compiled(logits.dtype) and out.flags.c_contiguous
    if targets is not None and compiled:
        return kernels.cross_entropy.backward(scale, logits, targets, smoothing, valid, lse, out)
    return backward_numpy(scale, cache, out)


def backward_numpy(scale: float, cache: Cache, out: ArrayNC) -> ArrayNC:
    """scale · (softmax(logits) − q) into `out`."""
    rows = np.flatnonzero(cache.valid)
    smoothing = cache.smoothing
    z = cache.logits[rows].astype(cache.lse.dtype, copy=False)
    d = np.exp(z - cache.lse[rows, None])
    if cache.soft is not None:
        d -= (1 - smoothing) * cache.soft[rows]
    elif cache.targets is not None:
        d[np.arange(len(rows)), cache.targets[rows]] -= 1 - smoothing
    if smoothing:
        d -= smoothing / z.shape[1]
    out[~cache.valid] = 0
    out[rows] = scale * d
    return out


# --- head and loss in one -------------------------------------------------------------------------

HEAD_ROWS = 128  # rows whose logits are in memory at a time


class HeadCache(NamedTuple):
    """The gradients of the loss, which the forward pass has computed already, and its sum."""

    dx: ArrayND
    dw: Array
    total: float  # as in Cache
    n_valid: int


def head_forward(
    params: Params,
    x: ArrayND,
    targets: ArrayN,
    *,
    tied: bool = False,
    ignore: int = -1,
    smoothing: float = 0.0,
) -> tuple[float, HeadCache]:
    """`forward` of the logits x w: {"w": (D, V)}, x (N, D), targets (N,) -> (loss, cache).

    tied    w is the embedding, (V, D), and the logits are x wᵀ

    The gradients are computed at once, while a block of logits is there. The other arguments and
    the errors are those of `forward`.
    """
    axes = ("V", "D") if tied else ("D", "V")
    w = checks.params("params", params, {"w": axes}, finite=False)["w"]
    V, D = w.shape if tied else w.shape[::-1]
    x = checks.array("x", x, ("N", D), finite=False)
    if x.dtype != w.dtype:
        raise InputError(f"x: wanted {w.dtype}, the type of params['w'], got {x.dtype}")
    smoothing = checks.number("smoothing", smoothing, minimum=0, less_than=1)
    targets, valid = _check_targets(targets, ignore, len(x), V)
    compiled = kernels.compiled(x.dtype)
    fused = kernels.cross_entropy.head_forward if compiled else head_forward_numpy
    with np.errstate(over="ignore", invalid="ignore"):
        losses, dx, dw = fused(x, w, tied, targets, smoothing, valid)
    total = float(losses.sum(dtype=np.float64))
    n_valid = int(np.count_nonzero(valid))
    if not np.isfinite(total):
        checks.array("x", x, x.shape)
        checks.array("params['w']", w, w.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            logits = x @ (w.T if tied else w)
        _refuse(logits, losses)
    return total / max(n_valid, 1), HeadCache(dx, dw, total, n_valid)


@one_blas_thread()
def head_forward_numpy(
    x: ArrayND, w: Array, tied: bool, targets: ArrayN, smoothing: float, valid: ArrayN
) -> tuple[ArrayN, ArrayND, Array]:
    """Losses (N,), and the gradients of their mean over the valid rows: dx (N, D) and dw."""
    losses = np.zeros(len(x), np.result_type(x, np.float32))
    dx = np.empty_like(x)
    dw = np.zeros_like(w)
    matrix = w.T if tied else w
    scale = 1 / max(np.count_nonzero(valid), 1)
    for low in range(0, len(x), HEAD_ROWS):
        rows = slice(low, low + HEAD_ROWS)
        logits = x[rows] @ matrix
        parts = (targets[rows], None, smoothing, valid[rows])
        losses[rows], lse = forward_numpy(logits, *parts)
        block = Cache(logits, *parts, lse, 0.0, 0)
        dlogits = backward_numpy(scale, block, logits)
        dx[rows] = dlogits @ matrix.T
        dw += dlogits.T @ x[rows] if tied else x[rows].T @ dlogits
    return losses, dx, dw


def head_backward(dloss: float, cache: HeadCache) -> tuple[ArrayND, Params]:
    """dloss -> dx (N, D), {"w"}."""
    dloss = checks.number("dloss", dloss)
    if dloss == 1:
        return cache.dx, {"w": cache.dw}
    return cache.dx * cache.dx.dtype.type(dloss), {"w": cache.dw * cache.dw.dtype.type(dloss)}


# --- the checks of what comes in ------------------------------------------------------------------


def _check_targets(targets, ignore, N, V) -> tuple[ArrayN, ArrayN]:
    """The targets as an array, and which of them are valid."""
    if isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer)):
        raise InputError(f"ignore: wanted a whole number, got {checks.text(ignore)}")
    targets = checks.array("targets", targets, (N,), kind="i")
    valid = targets != ignore
    outside = valid & ((targets < 0) | (targets >= V))
    if outside.any():
        n = int(outside.argmax())
        wanted = f"classes from 0 to {V - 1}, or {ignore} for none"
        raise InputError(f"targets: wanted {wanted}, got {targets[n]} at index {n}")
    return targets, valid


def _check_soft(soft: Array, logits: Array, valid: Array) -> Array:
    soft = checks.array("soft", soft, logits.shape).astype(logits.dtype, copy=False)
    away = np.abs(soft.sum(axis=1, dtype=np.float64) - 1)
    unfit = valid & ((soft < 0).any(axis=1) | (away > 1e-3))
    if unfit.any():
        n = int(unfit.argmax())
        wanted = "probabilities, rows of which the sum is 1"
        row = f"a row with the sum {soft[n].sum():.6g} and the least number {soft[n].min():.6g}"
        raise InputError(f"soft: wanted {wanted}, got {row} at index {n}")
    return soft


def _refuse(logits, losses):
    """Raise for the first row whose loss is not finite."""
    suspect = ~np.isfinite(losses)
    if not suspect.any():
        raise InputError("logits: wanted numbers with a finite loss, got an infinite sum of losses")
    n = int(suspect.argmax())
    checks.array(f"logits[{n}]", logits[n], ("V",))
    raise InputError(f"logits: wanted numbers with a finite loss, got {losses[n]} at row {n}")
