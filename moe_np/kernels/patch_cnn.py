"""A training pass over the models of Chen et al. 2022, partly compiled; equations and names as in
`models.patch_cnn`.

What makes it fast. All products are BLAS calls on blocks that stay in the near caches; what is left
are short loops that the compiler turns into vector instructions.

    router          a stack of products, one a block of samples: h is (blocks, E, samples)
    cubic experts   samples are read in order, each goes into its expert's bin, and a full bin goes through everything
                    at once, product, cubes, loss and back: the loss of a sample needs nothing from the others
    linear experts  such an expert sees only the sum of the patches and adds up all filters of a class. So it is one
                    vector, and to ask all experts about every sample costs as little as the router does

Training needs an expert's two outputs only as f = f₁ − f₀. Gradients of a block are in the dtype of
x, their sum over blocks is float64: a sum of 64,000 float32 terms drifts visibly over 500 steps.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - np.dot in compiled code takes its BLAS from here
from numba import njit

from moe_np.base import numerics

ROWS = 224  # patches in a bin: near caches hold it, and BLAS packs nothing (up to 10⁶ products: 224 · 50 · 80 filters)


# --- router ---------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy")
def _choose(h, noise, expert, weight):
    """The expert argmax_m h_m + r_m of every sample (the lowest index at a tie), and the maximum."""
    _, E, size = h.shape
    for start in range(0, len(expert), size):
        i = start // size
        for n in range(start, min(start + size, len(expert))):
            top, chosen = h[i, 0, n - start] + noise[n, 0], 0
            for m in range(1, E):
                v = h[i, m, n - start] + noise[n, m]
                chosen = m if v > top else chosen  # no branch: who wins is hard to predict
                top = v if v > top else top
            weight[n], expert[n] = top, chosen


@njit(cache=True, error_model="numpy")
def _pick(a, expert, out):
    """Out of a (blocks, E, samples), what belongs to each sample's expert."""
    size = a.shape[2]
    for start in range(0, len(expert), size):
        for n in range(start, min(start + size, len(expert))):
            out[n] = a[start // size, expert[n], n - start]


@njit(cache=True, error_model="numpy")
def _spread(dout, expert, probs, da):
    """Back: dout for its own expert, else 0; unless probs is empty, minus dout · probs for every
    expert (softmax).
    """
    _, E, size = da.shape
    for start in range(0, len(expert), size):
        i, count = start // size, min(size, len(expert) - start)
        for m in range(E):
            for n in range(count):
                da[i, m, n] = -dout[start + n] * probs[i, m, n] if len(probs) > 0 else 0
            for n in range(count, size):
                da[i, m, n] = 0
        for n in range(count):
            da[i, expert[start + n], n] += dout[start + n]


def _route(theta, batch, noise, gate):
    """-> (expert (N,), weight (N,), probs (blocks, E, samples), empty for a raw gate)."""
    (E, _), N = theta.shape, len(batch.y)
    expert, weight = np.empty(N, np.int64), np.empty(N, theta.dtype)
    h = theta @ batch.columns
    _choose(h, np.zeros((N, E), h.dtype) if noise is None else noise, expert, weight)
    if gate == "raw":
        return expert, weight, h[:0]
    probs = numerics.softmax(h, axis=1)
    _pick(probs, expert, weight)
    return expert, weight, probs


def _over_samples(dout, expert, probs, batch, n_experts):
    """Gradient (E, D) of vectors that every sample was multiplied with, from that of the products
    picked: dout (N,).
    """
    blocks, size, _ = batch.rows.shape
    da = np.empty((blocks, n_experts, size), dout.dtype)
    _spread(dout, expert, probs, da)
    return (da @ batch.rows).sum(axis=0, dtype=np.float64)


# --- loss -----------------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _exp(x):
    """exp(x) for x <= 0: 2ⁿ · (Taylor series of the rest), good to 1e-15. Numba's own exp does not
    vectorise.
    """
    x = max(x, -700.0)
    n = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10
    p = 1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800))
    p = 1 / 40320 + r * (1 / 362880 + r * (1 / 3628800 + r * p))
    p = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * p))
    p = 1.0 + r * (1.0 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * p))))
    return p * np.int64((np.int64(n) + 1023) << 52).view(np.float64)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _loss(margin, twice, dmargin):
    """Turn margins out_y − out_other into losses in place and fill their derivatives
    (`patch_cnn.loss_forward`).
    """
    for s in range(len(margin)):
        dmargin[s] = 1.0
    if twice:  # p_y − p_other of the first softmax is tanh(margin / 2)
        for s in range(len(margin)):
            q = margin[s]
            e = _exp(-abs(q))
            margin[s] = np.copysign((1 - e) / (1 + e), q)
            dmargin[s] = 2 * e / ((1 + e) * (1 + e))
    for s in range(len(margin)):
        q = margin[s]
        e = _exp(-abs(q))
        t = e / (2 + e)  # log(1 + e) = 2 artanh t, and t <= 1/3
        u = t * t
        a = 1 / 23.0 + u * (1 / 25.0 + u * (1 / 27.0 + u * (1 / 29.0 + u * (1 / 31.0))))
        a = 1 / 13.0 + u * (1 / 15.0 + u * (1 / 17.0 + u * (1 / 19.0 + u * (1 / 21.0 + u * a))))
        a = 1.0 + u * (
            1 / 3.0 + u * (1 / 5.0 + u * (1 / 7.0 + u * (1 / 9.0 + u * (1 / 11.0 + u * a))))
        )
        margin[s] = max(-q, 0.0) + 2 * t * a
        dmargin[s] *= -(e if q >= 0 else 1.0) / (1 + e)


@njit(cache=True, error_model="numpy")
def _through_loss(sample, f, y, weight, twice, margin, dmargin, dweight):
    """From f of the samples `sample` to the sum of their losses; fills dweight and turns f into df."""
    n, total = len(sample), 0.0
    for s in range(n):
        r = sample[s]
        margin[s] = weight[r] * f[s] * (2 * y[r] - 1)
    _loss(margin[:n], twice, dmargin)
    for s in range(n):
        r = sample[s]
        total += margin[s]
        slope = dmargin[s] * (2 * y[r] - 1) / len(y)  # gradient of out₁ − out₀
        dweight[r] = slope * f[s]
        f[s] = slope * weight[r]
    return total


# --- cubic experts --------------------------------------------------------------------------------


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _cubes(z, b, sign, f):
    """f = Σ ±(z + b)³, plus for filters of class 1. Leaves ±(z + b)² in z: the gradient is three
    times that.

    z (samples, P · 2J), the others repeated for every patch: a loop over 2J alone would be too
    short to vectorise.
    """
    for s in range(len(z)):
        total = b[0] - b[0]  # a zero in the dtype of x
        for i in range(z.shape[1]):
            v = z[s, i] + b[i]
            square = sign[i] * v * v
            total += square * v
            z[s, i] = square
        f[s] = total


@njit(cache=True, error_model="numpy")
def _cubes_backward(z, df, db):
    """dz = df · ±3(z + b)², in place, and db, its sum over samples."""
    for i in range(len(db)):
        db[i] = 0
    for s in range(len(z)):
        slope = df[s] + df[s] + df[s]  # 3 df, in the dtype of x
        for i in range(z.shape[1]):
            v = slope * z[s, i]
            z[s, i] = v
            db[i] += v


@njit(cache=True, error_model="numpy")
def _collect(n, x, expert, bins, sample, fill):
    """Put samples into their experts' bins, from sample n on and until one is full: -> the next n.

    x is read as it lies in memory: to pick an expert's rows from all over it takes as long as a
    product with them.
    """
    size, width = bins.shape[1:]
    full = False
    while n < len(x) and not full:
        m = expert[n]
        s = fill[m]
        for d in range(width):
            bins[m, s, d] = x[n, d]
        sample[m, s] = n
        fill[m] = s + 1
        full = s + 1 == size
        n += 1
    return n


@njit(cache=True, error_model="numpy")
def _cubic(x, y, expert, weight, wt, bias, sign, twice, dweight, dw, db, work):
    """Experts, loss and back: -> the sum of the losses; adds to dw (E, 2J, D) and db (E, P · 2J),
    fills dweight.

    x (N, P · D), wt (E, D, 2J) filters as columns, bias (E, P · 2J) and sign (P · 2J,) repeated for
    every patch.
    """
    bins, patches, sample, fill, z, flat, f, margin, dmargin, dw_bin, db_bin = work
    N, size, P = len(x), bins.shape[1], x.shape[1] // wt.shape[1]
    total, read = 0.0, 0
    while read < N:
        read = _collect(read, x, expert, bins, sample, fill)
        for m in range(len(wt)):
            n = fill[m]
            if n == 0 or (read < N and 2 * n < size):  # half a bin is worth a product
                continue
            fill[m] = 0
            np.dot(patches[m, : n * P], wt[m], flat[: n * P])
            _cubes(z[:n], bias[m], sign, f)
            total += _through_loss(sample[m, :n], f, y, weight, twice, margin, dmargin, dweight)
            _cubes_backward(z[:n], f, db_bin)
            np.dot(flat[: n * P].T, patches[m, : n * P], dw_bin)
            for j in range(len(dw_bin)):
                for d in range(dw_bin.shape[1]):
                    dw[m, j, d] += dw_bin[j, d]
            for i in range(len(db_bin)):
                db[m, i] += db_bin[i]
    return total


def _cubic_experts(params, batch, expert, weight, twice):
    """-> (loss, dweight (N,), {"w", "b"})."""
    w, (E, F), (N, P, D), dtype = params["w"], params["b"].shape, batch.x.shape, batch.x.dtype
    size, sign = max(ROWS // P, 1), np.tile(_sign(F, dtype), P)
    wt, bias = np.ascontiguousarray(w.transpose(0, 2, 1)), np.tile(params["b"], (1, P))
    bins, z, f = (
        np.empty((E, size, P * D), dtype),
        np.empty((size, P * F), dtype),
        np.empty(size, dtype),
    )
    patches, flat = (
        bins.reshape(E, size * P, D),
        z.reshape(size * P, F),
    )  # the same memory, a patch a row
    sample, fill = np.empty((E, size), np.int64), np.zeros(E, np.int64)
    of_bin = np.empty((F, D), dtype), np.empty(P * F, dtype)
    work = bins, patches, sample, fill, z, flat, f, np.empty(size), np.empty(size), *of_bin
    dweight, dw, db = np.empty(N, dtype), np.zeros((E, F, D)), np.zeros((E, P * F))
    x = batch.x.reshape(N, P * D)
    total = _cubic(x, batch.y, expert, weight, wt, bias, sign, twice, dweight, dw, db, work)
    return (
        total / N,
        dweight,
        {"w": dw.astype(dtype), "b": db.reshape(E, P, F).sum(axis=1).astype(dtype)},
    )


# --- linear experts -------------------------------------------------------------------------------


def _linear_experts(params, batch, expert, weight, twice):
    """f_m = u_m · Σ_p x_p + c_m with u_m = Σ_j ±w_{m,j}: -> (loss, dweight (N,), {"w", "b"})."""
    (E, F), (N, P, _), dtype = params["b"].shape, batch.x.shape, batch.x.dtype
    sign = _sign(F, dtype)
    u, c = sign @ params["w"], P * (params["b"] @ sign)
    every, f, dweight = u @ batch.columns, np.empty(N, dtype), np.empty(N, dtype)
    _pick(every, expert, f)
    f += c[expert]
    total = _through_loss(
        np.arange(N), f, batch.y, weight, twice, np.empty(N), np.empty(N), dweight
    )
    du, dc = (
        _over_samples(f, expert, every[:0], batch, E),
        np.bincount(expert, f, minlength=E),
    )  # f is now df
    dw, db = (
        sign[:, None] * du[:, None],
        P * sign * dc[:, None],
    )  # all filters of a class have the same gradient
    return total / N, dweight, {"w": dw.astype(dtype), "b": db.astype(dtype)}


def _sign(filters, dtype):
    """f = f₁ − f₀: the last half of the filters counts plus, the first minus."""
    return np.repeat(np.array([-1, 1], dtype), filters // 2)


# --- a pass ---------------------------------------------------------------------------------------


def gradients(params, batch, noise, *, activation, gate, loss):
    """The same as `models.chen2022.gradients_numpy`, to rounding."""
    experts = _cubic_experts if activation == "cubic" else _linear_experts
    expert, weight, probs = _route(params["theta"], batch, noise, gate)
    value, dweight, grads = experts(params, batch, expert, weight, loss == "twice")
    dh = dweight if gate == "raw" else dweight * weight  # softmax: of log π
    dtheta = _over_samples(dh, expert, probs, batch, len(params["theta"]))
    return value, expert, {**grads, "theta": dtheta.astype(params["theta"].dtype)}


def single_gradients(params, batch, *, activation):
    """The same as `models.chen2022.single_gradients_numpy`: an expert with every sample and weight
    1.
    """
    expert, weight = np.zeros(len(batch.y), np.int64), np.ones(len(batch.y), batch.x.dtype)
    experts = _cubic_experts if activation == "cubic" else _linear_experts
    value, _, grads = experts(params, batch, expert, weight, False)
    return value, grads
