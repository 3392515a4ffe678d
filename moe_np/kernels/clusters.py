"""The experts and the loss of Chen et al. 2022 as compiled loops; equations and names are those of `models.patch_cnn`.

What makes it fast. Samples are sorted by expert once. Then an expert takes 32 of its samples at a time through it all,
forward, loss, backward and weight gradients, while they lie in the nearest cache: the loss of a sample needs nothing
from the others. The products are BLAS calls on 128 rows, as fast as they get; what is left are short loops over
filters. A linear expert sees only the sum of the patches and needs one weight vector a class. Gradients of a block
are in the dtype of x, their sum over blocks is float64: a sum of 64,000 float32 terms drifts visibly over 500 steps.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - np.dot in compiled code takes its BLAS from here
from numba import njit

from moe_np.models import patch_cnn

ROWS = 128  # patches in a block: small enough for the nearest cache and for BLAS's kernels without packing
CHUNK = 4096  # samples sorted at a time: picking rows from all over 13 MB costs as much as a product with them


@njit(cache=True, error_model="numpy")
def _exp(x):
    """exp(x) for x <= 0: 2ⁿ · (Taylor series of the rest), good to 1e-15. Numba's own exp does not vectorise."""
    x = max(x, -700.0)
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1.0 + r * (1 / 12.0) * (1.0 + r * (1 / 13.0))
    p = 1.0 + r * (1 / 10.0) * (1.0 + r * (1 / 11.0) * p)
    p = 1.0 + r * (1 / 8.0) * (1.0 + r * (1 / 9.0) * p)
    p = 1.0 + r * (1 / 6.0) * (1.0 + r * (1 / 7.0) * p)
    p = 1.0 + r * (1 / 4.0) * (1.0 + r * (1 / 5.0) * p)
    p = 1.0 + r * (1 / 2.0) * (1.0 + r * (1 / 3.0) * p)
    p = 1.0 + r * p
    return p * np.int64((np.int64(n) + 1023) << 52).view(np.float64)


@njit(cache=True, error_model="numpy")
def _loss(margin, twice, dmargin):
    """Turn margins out_y − out_other into losses in place and fill their derivatives (`patch_cnn.loss_forward`)."""
    for s in range(len(margin)):
        q, dq = margin[s], 1.0
        if twice:  # p_y − p_other of the first softmax is tanh(margin / 2)
            e = _exp(-abs(q))
            q = np.copysign((1 - e) / (1 + e), q)
            dq = 2 * e / ((1 + e) * (1 + e))
        e = _exp(-abs(q))
        t = e / (2 + e)  # log(1 + e) = 2 artanh t, and t <= 1/3
        u = t * t
        a = 1 / 23.0 + u * (1 / 25.0 + u * (1 / 27.0 + u * (1 / 29.0 + u * (1 / 31.0))))
        a = 1 / 13.0 + u * (1 / 15.0 + u * (1 / 17.0 + u * (1 / 19.0 + u * (1 / 21.0 + u * a))))
        a = 1.0 + u * (1 / 3.0 + u * (1 / 5.0 + u * (1 / 7.0 + u * (1 / 9.0 + u * (1 / 11.0 + u * a)))))
        margin[s] = max(-q, 0.0) + 2 * t * a
        dmargin[s] = -dq * (e if q >= 0 else 1.0) / (1 + e)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _cubic_out(z, b, of_class, f):
    """z += b, f_c = Σ z³ over the entries of class c. z (samples, P · 2J), the others tiled alike: a loop over J alone
    would be too short to vectorise."""
    for s in range(len(z)):
        f0 = f1 = b[0] - b[0]  # a zero in the dtype of x
        for i in range(z.shape[1]):
            v = z[s, i] + b[i]
            z[s, i] = v
            v = v * v * v
            f0 += v * of_class[0, i]
            f1 += v * of_class[1, i]
        f[s, 0], f[s, 1] = f0, f1


@njit(cache=True, error_model="numpy")
def _cubic_dz(z, df, of_class, db):
    """Turn z into dz = df_class · 3z², in place, and add its sum over samples to db."""
    for s in range(len(z)):
        g0, g1 = df[s, 0] + df[s, 0] + df[s, 0], df[s, 1] + df[s, 1] + df[s, 1]  # 3 df, in the dtype of x
        for i in range(z.shape[1]):
            v = z[s, i]
            v = (g0 * of_class[0, i] + g1 * of_class[1, i]) * v * v
            z[s, i] = v
            db[i] += v


@njit(cache=True, error_model="numpy")
def _route(xsum, columns, noise, h, expert):
    """h = xsum · columns and argmax_m h + r, the lowest index at a tie (no branch: who wins is hard to predict)."""
    for i in range(0, len(h), ROWS):
        np.dot(xsum[i : i + ROWS], columns, h[i : i + ROWS])
    for n in range(len(h)):
        best, chosen = h[n, 0] + noise[n, 0], 0
        for m in range(1, h.shape[1]):
            v = h[n, m] + noise[n, m]
            chosen = m if v > best else chosen
            best = v if v > best else best
        expert[n] = chosen


@njit(cache=True, error_model="numpy")
def _route_backward(dh, xsum, block, dtheta):
    """dtheta += dhᵀ xsum."""
    for i in range(0, len(dh), ROWS):
        np.dot(dh[i : i + ROWS].T, xsum[i : i + ROWS], block)
        for m in range(dtheta.shape[0]):
            for d in range(dtheta.shape[1]):
                dtheta[m, d] += block[m, d]


@njit(cache=True, error_model="numpy")
def _gather(x, rows, out):
    for s in range(len(rows)):
        r = rows[s]
        for d in range(x.shape[1]):
            out[s, d] = x[r, d]


@njit(cache=True, error_model="numpy")
def _experts(x, y, weight, order, start, wt, bias, of_class, cubic, twice, out, dweight, loss, dw, db, work):
    """The chosen expert of every sample, the loss, and back: fills out, and unless dw is empty dweight, loss, dw, db.

    x       (N, P · D), or the sums of the patches (N, D) for linear experts
    order   samples sorted by expert within each chunk: order[start[g] : start[g + 1]] are those of expert g mod E
    wt      (E, D, 2J) filters as columns; linear: (E, D, 2), their sums over each class
    bias    (E, P · 2J) repeated for every patch, as is of_class (2, P · 2J); linear: (E, 2), summed like wt, times P
    """
    xb, z, f, df, margin, dmargin, dw_block, db_block = work
    size, D, F = len(xb), wt.shape[1], wt.shape[2]
    P = x.shape[1] // D
    for g in range(len(start) - 1):
        m = g % len(wt)
        for i in range(start[g], start[g + 1], size):
            rows = order[i : min(i + size, start[g + 1])]
            n = len(rows)
            _gather(x, rows, xb)
            patches, zn = xb[:n].reshape(n * P, D), z[: n * P]
            np.dot(patches, wt[m], zn)
            if cubic:
                _cubic_out(zn.reshape(n, P * F), bias[m], of_class, f)
            for s in range(n):
                r = rows[s]
                if not cubic:
                    f[s, 0], f[s, 1] = z[s, 0] + bias[m, 0], z[s, 1] + bias[m, 1]
                out[r, 0], out[r, 1] = weight[r] * f[s, 0], weight[r] * f[s, 1]
                margin[s] = (out[r, 1] - out[r, 0]) * (2 * y[r] - 1)
            if len(dw) == 0:
                continue

            _loss(margin[:n], twice, dmargin)
            for s in range(n):
                r = rows[s]
                loss[r] = margin[s]
                slope = dmargin[s] * (2 * y[r] - 1) / len(y)  # gradient of out₁; that of out₀ is its opposite
                dweight[r] = slope * (f[s, 1] - f[s, 0])
                df[s, 0], df[s, 1] = -slope * weight[r], slope * weight[r]
                if not cubic:
                    z[s, 0], z[s, 1] = df[s, 0], df[s, 1]
                    db[m, 0] += df[s, 0]
                    db[m, 1] += df[s, 1]
            if cubic:
                db_block[:] = 0
                _cubic_dz(zn.reshape(n, P * F), df, of_class, db_block)
                for j in range(P * F):
                    db[m, j % F] += db_block[j]
            np.dot(zn.T, patches, dw_block)
            for j in range(F):
                for d in range(D):
                    dw[m, j, d] += dw_block[j, d]


def _run(params, batch, expert, weight, cubic, twice, backward):
    """Lay out the arguments of `_experts`: -> loss (N,), out (N, 2), dweight (N,), {"w", "b"}."""
    w, b = params["w"], params["b"]
    (N, P, D), (E, F), dtype = batch.x.shape, b.shape, batch.x.dtype
    group = (expert + np.arange(N) // CHUNK * E).astype(np.uint16 if N * E < 2**16 * CHUNK else np.int64)
    order = np.argsort(group, kind="stable")  # of 16-bit numbers: a radix sort
    start = np.concatenate([[0], np.bincount(group, minlength=-(-N // CHUNK) * E).cumsum()])
    if cubic:
        x, wt, bias = batch.x.reshape(N, P * D), w.transpose(0, 2, 1), np.tile(b, (1, P))
        size, rows = max(ROWS // P, 1), P
    else:
        x, wt, bias = (
            batch.xsum,
            w.reshape(E, 2, -1, D).sum(axis=2).transpose(0, 2, 1),
            P * b.reshape(E, 2, -1).sum(axis=2),
        )
        size, rows = ROWS, 1
    wt = np.ascontiguousarray(wt)
    width = wt.shape[2]
    of_class = np.tile(np.repeat(np.eye(2, dtype=dtype), width // 2, axis=1), (1, rows))
    out, dweight, loss = np.empty((N, 2), dtype), np.empty(N, dtype), np.empty(N)
    dw, db = np.zeros((E if backward else 0, width, D)), np.zeros((E, width))
    shapes = (size, rows * D), (size * rows, width), (size, 2), (size, 2), (width, D)
    xb, z, f, df, dw_block = (np.empty(shape, dtype) for shape in shapes)
    work = xb, z, f, df, np.empty(size), np.empty(size), dw_block, np.empty(rows * width, dtype)
    _experts(x, batch.y, weight, order, start, wt, bias, of_class, cubic, twice, out, dweight, loss, dw, db, work)
    if backward and not cubic:  # every filter of a class has the same gradient
        dw, db = np.repeat(dw, F // 2, axis=1), np.repeat(P * db, F // 2, axis=1)
    return loss, out, dweight, {"w": dw.astype(dtype), "b": db.astype(dtype)}


def _gate(params, batch, noise, gate):
    theta = params["theta"]
    h, expert = np.empty((len(batch.y), len(theta)), theta.dtype), np.empty(len(batch.y), np.int64)
    _route(batch.xsum, np.ascontiguousarray(theta.T), np.zeros_like(h) if noise is None else noise, h, expert)
    if gate == "softmax":
        h = np.asfortranarray(h)  # NumPy reduces over short rows eight times faster if they are columns
    return patch_cnn.gate_weight(h, noise, expert, gate=gate)


def gradients(params, batch, noise, *, activation, gate, loss):
    """The same as `chen2022.gradients_numpy`, to rounding."""
    (expert, weight), cache = _gate(params, batch, noise, gate)
    each, _, dweight, grads = _run(params, batch, expert, weight, activation == "cubic", loss == "twice", True)
    dtheta = np.zeros(params["theta"].shape)
    dh = np.ascontiguousarray(patch_cnn.gate_backward(dweight, cache))
    _route_backward(dh, batch.xsum, np.empty_like(params["theta"]), dtheta)
    return float(each.mean()), expert, {**grads, "theta": dtheta.astype(params["theta"].dtype)}


def predict(params, batch, noise, *, activation, gate):
    """The same as `patch_cnn.mixture_forward`, to rounding: -> (out, expert)."""
    (expert, weight), _ = _gate(params, batch, noise, gate)
    return _run(params, batch, expert, weight, activation == "cubic", False, False)[1], expert


def single(params, batch, *, activation, backward=True):
    """A single network, which is an expert with every sample and weight 1: -> (loss, out, {"w", "b"})."""
    expert, weight = np.zeros(len(batch.y), np.int64), np.ones(len(batch.y), batch.x.dtype)
    each, out, _, grads = _run(params, batch, expert, weight, activation == "cubic", False, backward)
    return float(each.mean()) if backward else None, out, grads
