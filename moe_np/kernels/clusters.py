"""The passes of Chen et al. 2022 as compiled loops; equations and names are those of `moe_np.models.patch_cnn`.

What makes it fast. Samples are sorted by expert once. Then an expert takes 32 of its samples at a time through everything,
forward, loss, backward and weight gradients, while they lie in the nearest cache: the loss of a sample needs nothing from
the others. The products are BLAS calls on 128 rows, which is as fast as they get; what is left are short loops over
filters. A linear expert sees only the sum of the patches and needs one weight vector per class. Gradients of a block are
in the dtype of x, their sum over blocks is float64: a sum of 64,000 float32 terms drifts visibly over 500 steps.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - np.dot in compiled code takes its BLAS from here
from numba import njit

ROWS = 128  # patches in a block: small enough for the nearest cache and for BLAS's kernels without packing


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
def _loss(margin, twice, loss, dmargin):
    """Loss of samples with margin out_y − out_other, and its derivative. See `patch_cnn.loss_forward`."""
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
        loss[s] = max(-q, 0.0) + 2 * t * a
        dmargin[s] = -dq * (e if q >= 0 else 1.0) / (1 + e)


@njit(cache=True, error_model="numpy")
def _route(xsum, noise, theta):
    """Logits, the expert of each sample, and the samples sorted by it (counting sort): order[start[m]:start[m + 1]]."""
    N, E = len(xsum), len(theta)
    h = np.dot(xsum, theta.T)
    expert, start = np.empty(N, np.int64), np.zeros(E + 1, np.int64)
    for n in range(N):
        best, chosen = h[n, 0] + noise[n, 0], 0
        for m in range(1, E):
            v = h[n, m] + noise[n, m]
            chosen = m if v > best else chosen  # no branch: which expert wins cannot be predicted
            best = v if v > best else best
        expert[n] = chosen
        start[chosen + 1] += 1
    for m in range(E):
        start[m + 1] += start[m]
    order, place = np.empty(N, np.int64), start.copy()
    for n in range(N):
        order[place[expert[n]]] = n
        place[expert[n]] += 1
    return h, expert, order, start


@njit(cache=True, error_model="numpy")
def _softmax(h, rows, probs):
    """softmax(h) of some rows."""
    n, E = len(rows), h.shape[1]
    for s in range(n):
        top = h[rows[s], 0]
        for m in range(1, E):
            top = max(top, h[rows[s], m])
        for m in range(E):
            probs[s * E + m] = h[rows[s], m] - top
    for i in range(n * E):
        probs[i] = _exp(probs[i])
    for s in range(n):
        total = 0.0
        for m in range(E):
            total += probs[s * E + m]
        for m in range(E):
            probs[s * E + m] /= total


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _cubic_out(z, b, of_class, f):
    """z += b, f_c = Σ z³ over the entries of class c. z (samples, P · 2J), the others tiled alike: a loop over J alone
    would be too short to vectorise."""
    f[:] = 0
    for s in range(len(f)):
        f0, f1 = f[s, 0], f[s, 1]  # not a literal 0: sums stay in the dtype of x
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
    for s in range(len(df)):
        g0, g1 = df[s, 0] + df[s, 0] + df[s, 0], df[s, 1] + df[s, 1] + df[s, 1]  # 3 df, in the dtype of x
        for i in range(z.shape[1]):
            v = z[s, i]
            v = (g0 * of_class[0, i] + g1 * of_class[1, i]) * v * v
            z[s, i] = v
            db[i] += v


@njit(cache=True, error_model="numpy")
def _gather(x, rows, out):
    for s in range(len(rows)):
        r = rows[s]
        for d in range(x.shape[1]):
            out[s, d] = x[r, d]


@njit(cache=True, error_model="numpy")
def _add(total, block):
    for i in range(total.shape[0]):
        for d in range(total.shape[1]):
            total[i, d] += block[i, d]


@njit(cache=True, error_model="numpy")
def _gate(h, noise, rows, m, raw, f, weight, probs, out):
    """π of samples that all go to expert m, and their outputs π f."""
    n, E = len(rows), h.shape[1]
    if not raw:
        _softmax(h, rows, probs)
    for s in range(n):
        r = rows[s]
        weight[s] = h[r, m] + noise[r, m] if raw else probs[s * E + m]
        out[r, 0], out[r, 1] = weight[s] * f[s, 0], weight[s] * f[s, 1]


@njit(cache=True, error_model="numpy")
def _gate_backward(dmargin, rows, y, m, raw, f, weight, probs, df, dh):
    """From the gradient of the margins: df = π dout and dh, of samples that all go to expert m."""
    E = dh.shape[1]
    for s in range(len(rows)):
        g = dmargin[s] * (2 * y[rows[s]] - 1) / len(y)  # gradient of out₁; that of out₀ is its opposite
        df[s, 0], df[s, 1] = -g * weight[s], g * weight[s]
        dweight = g * (f[s, 1] - f[s, 0])
        for e in range(E):
            if raw:
                dh[s, e] = dweight if e == m else 0.0
            else:
                dh[s, e] = dweight * weight[s] * ((1.0 if e == m else 0.0) - probs[s * E + e])


@njit(cache=True, error_model="numpy")
def _cubic_expert(w, b, P):
    """Filters as columns, and the biases and classes of the filters repeated for every patch."""
    F = len(w)
    tile, of_class = np.empty(P * F, w.dtype), np.zeros((2, P * F), w.dtype)
    for i in range(P * F):
        tile[i] = b[i % F]
        of_class[2 * (i % F) // F, i] = 1
    return np.ascontiguousarray(w.T), tile, of_class


@njit(cache=True, error_model="numpy")
def _linear_expert(w, b, P):
    """Σ_j w_j of each class as columns (D, 2), and the class's share of all biases."""
    F, D = w.shape
    wt, bias = np.zeros((D, 2), w.dtype), np.zeros(2, w.dtype)
    for j in range(F):
        c = 2 * j // F
        bias[c] += P * b[j]
        for d in range(D):
            wt[d, c] += w[j, d]
    return wt, bias


@njit(cache=True, error_model="numpy")
def _pass(x, xsum, y, noise, w, b, theta, cubic, raw, twice, backward):
    """One pass of the mixture: -> loss, expert, out, dw, db, dtheta (zeros unless `backward`). x is (N, P·D)."""
    N, D = xsum.shape
    E, F = b.shape
    P = x.shape[1] // D
    h, expert, order, start = _route(xsum, noise, theta)
    out = np.empty((N, 2), x.dtype)
    dw, db, dtheta, total = np.zeros((E, F, D)), np.zeros((E, F)), np.zeros((E, D)), 0.0

    size = max(ROWS // P, 1) if cubic else ROWS
    width = F if cubic else 2
    xb, xs, z = np.empty((size, P * D), x.dtype), np.empty((size, D), x.dtype), np.empty((size * P, width), x.dtype)
    f, df, dh = np.empty((size, 2), x.dtype), np.empty((size, 2), x.dtype), np.empty((size, E), x.dtype)
    weight, probs = np.empty(size), np.empty(size * E)
    margin, dmargin, loss = np.empty(size), np.empty(size), np.empty(size)
    dw_block, dtheta_block = np.empty((width, D), x.dtype), np.empty((E, D), x.dtype)
    for m in range(E):
        wt, tile, of_class = _cubic_expert(w[m], b[m], P)
        if not cubic:
            wt, tile = _linear_expert(w[m], b[m], P)
        db_tile = np.empty(P * F, x.dtype)
        for i in range(start[m], start[m + 1], size):
            rows = order[i : min(i + size, start[m + 1])]
            n = len(rows)
            _gather(xsum, rows, xs)
            if cubic:
                source = xb
                if E == 1:  # a single model: its samples lie in order already
                    source = x[i:]
                else:
                    _gather(x, rows, xb)
                patches, zn = source[:n].reshape(n * P, D), z[: n * P]
                np.dot(patches, wt, zn)
                _cubic_out(zn.reshape(n, P * F), tile, of_class, f[:n])
            else:
                np.dot(xs[:n], wt, f[:n])
                for s in range(n):
                    f[s, 0] += tile[0]
                    f[s, 1] += tile[1]
            _gate(h, noise, rows, m, raw, f, weight, probs, out)
            if not backward:
                continue

            for s in range(n):
                margin[s] = (out[rows[s], 1] - out[rows[s], 0]) * (2 * y[rows[s]] - 1)
            _loss(margin[:n], twice, loss, dmargin)
            for s in range(n):
                total += loss[s]
            _gate_backward(dmargin, rows, y, m, raw, f, weight, probs, df, dh)
            np.dot(dh[:n].T, xs[:n], dtheta_block)
            _add(dtheta, dtheta_block)
            if cubic:
                db_tile[:] = 0
                _cubic_dz(zn.reshape(n, P * F), df[:n], of_class, db_tile)
                np.dot(zn.T, patches, dw_block)
                _add(dw[m], dw_block)
                for j in range(P * F):
                    db[m, j % F] += db_tile[j]
            else:
                np.dot(df[:n].T, xs[:n], dw_block)
                for j in range(F):
                    _add(dw[m, j : j + 1], dw_block[2 * j // F : 2 * j // F + 1])
                    for s in range(n):
                        db[m, j] += P * df[s, 2 * j // F]
    return total / max(N, 1), expert, out, dw, db, dtheta


def _run(params, batch, noise, activation, gate, twice, backward):
    w, b, theta = params["w"], params["b"], params["theta"]
    noise = np.zeros((len(batch.x), len(w)), batch.x.dtype) if noise is None else noise
    x = batch.x.reshape(len(batch.x), -1)
    return _pass(x, batch.xsum, batch.y, noise, w, b, theta, activation == "cubic", gate == "raw", twice, backward)


def gradients(params, batch, noise, *, activation, gate, loss):
    """The same as `chen2022.gradients_numpy`, to rounding."""
    value, expert, _, *grads = _run(params, batch, noise, activation, gate, loss == "twice", True)
    return value, expert, {k: g.astype(batch.x.dtype) for k, g in zip(("w", "b", "theta"), grads, strict=True)}


def predict(params, batch, noise, *, activation, gate):
    """The same as `patch_cnn.mixture_forward`, to rounding: -> (out, expert)."""
    _, expert, out, *_ = _run(params, batch, noise, activation, gate, False, False)
    return out, expert


def single_gradients(params, batch, *, activation):
    """The same as `chen2022.single_gradients_numpy`: a mixture of one expert, whose "noise" of 1 is π."""
    params = {**params, "theta": np.zeros((1, batch.x.shape[2]), batch.x.dtype)}
    one = np.ones((len(batch.x), 1), batch.x.dtype)
    value, _, _, dw, db, _ = _run(params, batch, one, activation, "raw", False, True)
    return value, {"w": dw.astype(batch.x.dtype), "b": db.astype(batch.x.dtype)}
