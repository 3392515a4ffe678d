"""A training pass over the models of Chen et al. 2022, partly compiled; the equations are in
`moe_np.models.patch_cnn`.

What makes it fast. All products are BLAS calls on blocks that stay in the near caches. What is left
are short loops that the compiler turns into vector instructions.

    router          a stack of products, one per block of samples: h is (blocks, E, samples)
    cubic experts   samples are read in order, and each goes into its expert's bin; a full bin goes
                    through product, cubes, loss and backward pass at once, because the loss of a
                    sample needs nothing from the other samples
    linear experts  a linear expert sees only the sum of the patches, and sums all filters of a
                    class, so it is one vector: the outputs of all experts for all samples cost as
                    little as the router

Training needs the two outputs of an expert only as f = f₁ − f₀. Gradients of a block are in the
dtype of x, their sum over blocks is float64: a sum of 64,000 float32 terms drifts visibly over 500
steps. The letters: N samples, P patches, D features, E experts, F = 2J filters.
"""

from typing import Annotated, NamedTuple, Protocol

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - np.dot in compiled code takes its BLAS from here

from moe_np.base import numerics
from moe_np.base.types import ArrayN, ArrayNE, ArrayNPD, Params
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import INNER, PART
from moe_np.kernels.machine.margin_loss import loss_of_samples

# Patches in a bin: 224 patches of 50 features and the products with 80 filters stay in the near
# caches, and are few enough for OpenBLAS not to copy them (`moe_np.kernels.machine.blas.SMALL`).
# Chosen by the time of a training step, without a record. To measure again, change it here and run
#   python -m moe_np.experiments.chen2022.bench
ROWS = 224

COMPILED = {"cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}  # options of `njit`


class Batch(Protocol):
    """`Batch` of `moe_np.models.patch_cnn_training`: samples, and sums of patches in blocks."""

    x: ArrayNPD
    y: ArrayN
    rows: Annotated[np.ndarray, "blocks, samples, D"]
    columns: Annotated[np.ndarray, "blocks, D, samples"]


# --- router ---------------------------------------------------------------------------------------


@njit(**COMPILED)
def _choose(h, noise, expert, weight):
    """The expert argmax_m h_m + r_m of each sample (the lowest index at a tie), and the maximum."""
    _, E, size = h.shape
    for start in range(0, len(expert), size):
        i = start // size
        for n in range(start, min(start + size, len(expert))):
            top = h[i, 0, n - start] + noise[n, 0]
            chosen = 0
            for m in range(1, E):
                v = h[i, m, n - start] + noise[n, m]
                chosen = m if v > top else chosen  # no branch: the largest is hard to predict
                top = v if v > top else top
            weight[n] = top
            expert[n] = chosen


@njit(**COMPILED)
def _pick(a, expert, out):
    """From a (blocks, E, samples) the entry of each sample's expert."""
    size = a.shape[2]
    for start in range(0, len(expert), size):
        for n in range(start, min(start + size, len(expert))):
            out[n] = a[start // size, expert[n], n - start]


@njit(**COMPILED)
def _pick_backward(dout, expert, probs, da):
    """da is dout for the sample's expert and 0 for the others; through a softmax (probs not empty)
    dout · probs is subtracted for all experts.
    """
    _, E, size = da.shape
    for start in range(0, len(expert), size):
        i = start // size
        count = min(size, len(expert) - start)
        for m in range(E):
            for n in range(count):
                da[i, m, n] = -dout[start + n] * probs[i, m, n] if len(probs) > 0 else 0
            for n in range(count, size):
                da[i, m, n] = 0
        for n in range(count):
            da[i, expert[start + n], n] += dout[start + n]


def _route(theta, batch, noise, gate):
    """-> (expert (N,), weight (N,), probs (blocks, E, samples), empty for a raw gate)."""
    E = len(theta)
    N = len(batch.y)
    expert = np.empty(N, np.int64)
    weight = np.empty(N, theta.dtype)
    h = theta @ batch.columns
    _choose(h, np.zeros((N, E), h.dtype) if noise is None else noise, expert, weight)
    if gate == "raw":
        return expert, weight, h[:0]
    probs = numerics.softmax(h, axis=1)
    _pick(probs, expert, weight)
    return expert, weight, probs


def _vectors_backward(dout, expert, probs, batch, n_experts):
    """Gradient (E, D) of vectors that all samples were multiplied with, from dout (N,), the
    gradient of the products that were picked.
    """
    blocks, size, _ = batch.rows.shape
    da = np.empty((blocks, n_experts, size), dout.dtype)
    _pick_backward(dout, expert, probs, da)
    return (da @ batch.rows).sum(axis=0, dtype=np.float64)


# --- cubic experts --------------------------------------------------------------------------------


class Samples(NamedTuple):
    x: Annotated[np.ndarray, "N, P · D"]
    y: ArrayN
    expert: ArrayN
    weight: ArrayN


class Filters(NamedTuple):
    """Filters of the cubic experts. Biases and signs are repeated for each patch: a loop over the F
    filters alone would be too short for vector instructions.
    """

    w: Annotated[np.ndarray, "E, D, F"]  # a filter per column
    b: Annotated[np.ndarray, "E, P · F"]
    sign: Annotated[np.ndarray, "P · F"]  # of each filter in f = f₁ − f₀


class Gradients(NamedTuple):
    weight: ArrayN
    w: Annotated[np.ndarray, "E, F, D"]
    b: Annotated[np.ndarray, "E, P · F"]


class Bins(NamedTuple):
    """One bin per expert, and room for the intermediate results of one bin."""

    x: Annotated[np.ndarray, "E, size, P · D"]
    patches: Annotated[np.ndarray, "E, size · P, D"]  # the same memory, one patch per row
    sample: Annotated[np.ndarray, "E, size"]  # the number of each sample
    fill: Annotated[np.ndarray, "E"]
    z: Annotated[np.ndarray, "size, P · F"]
    flat: Annotated[np.ndarray, "size · P, F"]  # the same memory as z, one patch per row
    f: Annotated[np.ndarray, "size"]
    margin: Annotated[np.ndarray, "size"]
    dmargin: Annotated[np.ndarray, "size"]
    dw: Annotated[np.ndarray, "F, D"]
    db: Annotated[np.ndarray, "P · F"]


@njit(**INNER, fastmath={"reassoc", "nsz", "contract"})
def _cubes(z, b, sign, f):
    """f = Σ ±(z + b)³ for z (samples, P · F). Leaves ±(z + b)² in z: the gradient is three times
    that.
    """
    for s in range(len(z)):
        total = b[0] - b[0]  # a zero in the dtype of x
        for i in range(z.shape[1]):
            v = z[s, i] + b[i]
            square = sign[i] * v * v
            total += square * v
            z[s, i] = square
        f[s] = total


@njit(**INNER)
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


@njit(**PART)
def _collect(n, x, expert, bins, sample, fill):
    """Put samples into the bins of their experts, from sample n on and until a bin is full: returns
    the next n.

    x is read in the order of the memory: to pick the rows of one expert from all of x takes as long
    as a product with them.
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


@njit(**COMPILED)
def _cubic(samples, filters, twice, gradients, bins):
    """Experts, loss and backward pass: returns the sum of the losses, adds to the gradients of w
    and b, and fills that of weight.
    """
    x, y, expert, weight = samples
    w, b, sign = filters
    dweight, dw, db = gradients
    x_bins, patches, sample, fill, z, flat, f, margin, dmargin, dw_bin, db_bin = bins
    size = x_bins.shape[1]
    P = x.shape[1] // w.shape[1]
    total = 0.0
    read = 0
    while read < len(x):
        read = _collect(read, x, expert, x_bins, sample, fill)
        for m in range(len(w)):
            n = fill[m]
            if n == 0 or (read < len(x) and 2 * n < size):  # half a bin is worth a product
                continue
            fill[m] = 0
            np.dot(patches[m, : n * P], w[m], flat[: n * P])
            _cubes(z[:n], b[m], sign, f)
            total += loss_of_samples(sample[m, :n], f, y, weight, twice, margin, dmargin, dweight)
            _cubes_backward(z[:n], f, db_bin)
            np.dot(flat[: n * P].T, patches[m, : n * P], dw_bin)
            for j in range(len(dw_bin)):
                for d in range(dw_bin.shape[1]):
                    dw[m, j, d] += dw_bin[j, d]
            for i in range(len(db_bin)):
                db[m, i] += db_bin[i]
    return total


def _empty_bins(E, F, x):
    _, P, D = x.shape
    dtype = x.dtype
    size = max(ROWS // P, 1)
    rows = np.empty((E, size, P * D), dtype)
    z = np.empty((size, P * F), dtype)
    return Bins(
        x=rows,
        patches=rows.reshape(E, size * P, D),
        sample=np.empty((E, size), np.int64),
        fill=np.zeros(E, np.int64),
        z=z,
        flat=z.reshape(size * P, F),
        f=np.empty(size, dtype),
        margin=np.empty(size),
        dmargin=np.empty(size),
        dw=np.empty((F, D), dtype),
        db=np.empty(P * F, dtype),
    )


def _cubic_experts(params, batch, expert, weight, twice):
    """-> (loss, dweight (N,), {"w", "b"})."""
    E, F = params["b"].shape
    N, P, D = batch.x.shape
    dtype = batch.x.dtype
    samples = Samples(batch.x.reshape(N, P * D), batch.y, expert, weight)
    filters = Filters(
        np.ascontiguousarray(params["w"].transpose(0, 2, 1)),
        np.tile(params["b"], (1, P)),
        np.tile(_sign(F, dtype), P),
    )
    gradients = Gradients(np.empty(N, dtype), np.zeros((E, F, D)), np.zeros((E, P * F)))
    bins = _empty_bins(E, F, batch.x)
    total = _cubic(samples, filters, twice, gradients, bins)
    dw = gradients.w.astype(dtype)
    db = gradients.b.reshape(E, P, F).sum(axis=1).astype(dtype)
    return total / N, gradients.weight, {"w": dw, "b": db}


# --- linear experts -------------------------------------------------------------------------------


def _linear_experts(params, batch, expert, weight, twice):
    """f_m = u_m · Σ_p x_p + c_m with u_m = Σ_j ±w_{m,j}: -> (loss, dweight (N,), {"w", "b"})."""
    E, F = params["b"].shape
    N, P, _ = batch.x.shape
    dtype = batch.x.dtype
    sign = _sign(F, dtype)
    u = sign @ params["w"]
    c = P * (params["b"] @ sign)
    answers = u @ batch.columns
    f = np.empty(N, dtype)
    _pick(answers, expert, f)
    f += c[expert]
    dweight = np.empty(N, dtype)
    margin = np.empty(N)
    dmargin = np.empty(N)
    total = loss_of_samples(
        np.arange(N), f, batch.y, weight, twice, margin, dmargin, dweight
    )  # f is now df
    du = _vectors_backward(f, expert, answers[:0], batch, E)
    dc = np.bincount(expert, f, minlength=E)
    # all filters of a class have the same gradient
    dw = sign[:, None] * du[:, None]
    db = P * sign * dc[:, None]
    return total / N, dweight, {"w": dw.astype(dtype), "b": db.astype(dtype)}


def _sign(filters, dtype):
    """f = f₁ − f₀: the last half of the filters counts plus, the first minus."""
    return np.repeat(np.array([-1, 1], dtype), filters // 2)


# --- a pass ---------------------------------------------------------------------------------------


def gradients(
    params: Params, batch: Batch, noise: ArrayNE | None, *, activation: str, gate: str, loss: str
) -> tuple[float, ArrayN, Params]:
    """`gradients_numpy` of `moe_np.models.patch_cnn_training`, equal to rounding."""
    experts = _cubic_experts if activation == "cubic" else _linear_experts
    expert, weight, probs = _route(params["theta"], batch, noise, gate)
    value, dweight, grads = experts(params, batch, expert, weight, loss == "twice")
    dh = dweight if gate == "raw" else dweight * weight  # through the softmax: of log π
    dtheta = _vectors_backward(dh, expert, probs, batch, len(params["theta"]))
    return value, expert, {**grads, "theta": dtheta.astype(params["theta"].dtype)}


def single_gradients(params: Params, batch: Batch, *, activation: str) -> tuple[float, Params]:
    """`single_gradients_numpy` of `moe_np.models.patch_cnn_training`, equal to rounding: one expert
    with all samples and weight 1.
    """
    expert = np.zeros(len(batch.y), np.int64)
    weight = np.ones(len(batch.y), batch.x.dtype)
    experts = _cubic_experts if activation == "cubic" else _linear_experts
    value, _, grads = experts(params, batch, expert, weight, False)
    return value, grads
