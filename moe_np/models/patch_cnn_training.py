"""Training the models of Chen et al. 2022: one pass, one step, and the loops as iterators.

`gradients` run in the compiled loops of `moe_np.kernels.patch_cnn` where Numba is there, and
otherwise in the pairs of `moe_np.models.patch_cnn`, which say the same in equations. A step always
takes the whole training set.
"""

from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base import checks, optim
from moe_np.models import patch_cnn

BLOCK = 128  # samples that the compiled loops route at a time


class Batch(NamedTuple):
    """Samples with the sum of their patches, which the router and the linear expert look at in
    every pass.
    """

    x: np.ndarray  # (N, P, D)
    xsum: np.ndarray  # (N, D)
    rows: np.ndarray  # (blocks, BLOCK, D)  xsum again, with zeros behind the last sample
    columns: np.ndarray  # (blocks, D, BLOCK)  the same, the samples of a block side by side
    y: np.ndarray  # (N,) 0 or 1


def batch(x, y):
    """Check samples once and prepare them. x (N, P, D) floating point, y (N,) of 0 and 1.
    InputError otherwise.
    """
    x = np.ascontiguousarray(checks.array("x", x, ("N", "P", "D")))
    y = checks.array("y", y, (len(x),), kind="i")
    if len(y) and not (y.min() >= 0 and y.max() <= 1):
        raise checks.InputError(f"y: wanted classes 0 and 1, got {y.min()} to {y.max()}")
    N, _, D = x.shape
    rows = np.zeros((-(-N // BLOCK), BLOCK, D), x.dtype)
    xsum = rows.reshape(-1, D)[:N]
    xsum[:] = x.sum(axis=1)
    return Batch(x, xsum, rows, np.ascontiguousarray(rows.transpose(0, 2, 1)), y.astype(np.int64))


def gradients(params, batch, noise, *, activation, gate, loss):
    """One pass of the mixture and its gradients: -> (loss, expert (N,), {"w", "b", "theta"}).

    noise (N, E) as in `patch_cnn.gate_forward`, or None for no noise.
    """
    _check(activation, gate, loss)
    if kernels.backend() == "numba":
        return kernels.patch_cnn.gradients(
            params, batch, noise, activation=activation, gate=gate, loss=loss
        )
    return gradients_numpy(params, batch, noise, activation=activation, gate=gate, loss=loss)


def gradients_numpy(params, batch, noise, *, activation, gate, loss):
    """`gradients` in NumPy: forward and backward of the mixture and the loss."""
    out, cache = patch_cnn.mixture_forward(params, batch.x, noise, activation=activation, gate=gate)
    value, loss_cache = patch_cnn.loss_forward(out, batch.y, loss=loss)
    _, grads = patch_cnn.mixture_backward(patch_cnn.loss_backward(1.0, loss_cache), cache)
    return float(value), cache.expert, grads


def predict(params, batch, noise, *, activation, gate):
    """One pass without gradients: -> (out (N, 2), expert (N,)). The predicted class is
    `out.argmax(1)`.
    """
    _check(activation, gate)
    out, cache = patch_cnn.mixture_forward(params, batch.x, noise, activation=activation, gate=gate)
    return out, cache.expert


def accuracy(out, y):
    """Percent of samples whose larger output is their class (class 0 wins a tie)."""
    return 100 * float((out.argmax(axis=1) == y).mean())


def _check(activation, gate="raw", loss="once"):
    checks.choice("activation", activation, patch_cnn.ACTIVATIONS)
    checks.choice("gate", gate, patch_cnn.GATES)
    checks.choice("loss", loss, patch_cnn.LOSSES)


# --- the mixture ----------------------------------------------------------------------------------


class Step(NamedTuple):
    epoch: int  # from 0
    loss: float  # of this pass, before the update
    entropy: float  # dispatch entropy of this pass, noise included
    expert: np.ndarray  # (N,) where this pass sent each sample
    params: dict  # after the update; unchanged if stopped
    stopped: bool  # the rule ended training in this pass, before its update


def uniform_noise(rng, dtype=np.float32):
    """Return draw(shape) -> numbers on [0, 1) from a NumPy Generator, as `train_mixture` wants
    them.
    """
    return lambda shape: rng.random(shape, dtype=dtype)


def train_mixture(
    params,
    batch,
    cluster,
    draw,
    *,
    epochs,
    activation,
    gate,
    loss,
    lr,
    lr_router,
    norm="sum",
    stop=True,
):
    """Train the sparse mixture (paper, Algorithm 1); yields a `Step` a pass.

    w_m ← w_m − η ∇_m / ‖∇_m‖ (`norm` as in `optim.normalised_step`, None for plain gradient
    descent), θ ← θ − η_r ∇θ.

    cluster   (N,) whole numbers from 0, for the entropy only
    draw      draw((N, E)) -> the noise of a pass, or None: no noise
    stop      end before the update of a pass whose loss is above the smallest so far, either by more than .02 or while
              it is .314 or less (authors' code)
    """
    N, E, K = len(batch.y), len(params["w"]), int(cluster.max()) + 1
    smallest = np.inf
    for epoch in range(epochs):
        noise = None if draw is None else draw((N, E))
        value, expert, grads = gradients(
            params, batch, noise, activation=activation, gate=gate, loss=loss
        )
        stopped = stop and value > smallest and (value > smallest + 0.02 or value <= 0.314)
        smallest = min(smallest, value)
        if not stopped:
            params = _update(params, grads, lr, lr_router, norm)
        yield Step(epoch, value, patch_cnn.entropy(expert, cluster, E, K), expert, params, stopped)
        if stopped:
            return


def _update(params, grads, lr, lr_router, norm):
    experts, dexperts = ({k: d[k] for k in ("w", "b")} for d in (params, grads))
    if norm is None:
        experts = optim.gradient_descent(experts, dexperts, lr=lr)
    else:
        experts = optim.normalised_step(experts, dexperts, lr=lr, norm=norm)
    return {**experts, "theta": params["theta"] - lr_router * grads["theta"]}


# --- a single model -------------------------------------------------------------------------------


def single_gradients(params, batch, *, activation):
    """One pass of a single network (one expert, no router) and its gradients: -> (loss, {"w",
    "b"}). One softmax.
    """
    _check(activation)
    if kernels.backend() == "numba":
        return kernels.patch_cnn.single_gradients(params, batch, activation=activation)
    return single_gradients_numpy(params, batch, activation=activation)


def single_gradients_numpy(params, batch, *, activation):
    """`single_gradients` in NumPy."""
    out, cache = patch_cnn.expert_forward(
        params, batch.x, np.zeros(len(batch.y), int), activation=activation
    )
    value, loss_cache = patch_cnn.loss_forward(out, batch.y, loss="once")
    _, grads = patch_cnn.expert_backward(patch_cnn.loss_backward(1.0, loss_cache), cache)
    return float(value), grads


def single_predict(params, batch, *, activation):
    """Outputs (N, 2) of a single network."""
    _check(activation)
    return patch_cnn.expert_forward(
        params, batch.x, np.zeros(len(batch.y), int), activation=activation
    )[0]


def train_single(params, batch, *, epochs, activation, lr, weight_decay=5e-4, stop_after=500):
    """Train a single network with Adam on all samples at once; yields a `Step` a pass (entropy and
    expert are None).

    Ends before the update of a pass after number `stop_after` whose loss is more than .02 above the
    smallest so far (authors' code).
    """
    state, smallest = None, np.inf
    for epoch in range(epochs):
        value, grads = single_gradients(params, batch, activation=activation)
        stopped = epoch > stop_after and value > smallest + 0.02
        smallest = min(smallest, value)
        if not stopped:
            params, state = optim.adam(params, grads, state, lr=lr, weight_decay=weight_decay)
        yield Step(epoch, value, None, None, params, stopped)
        if stopped:
            return


# --- what a mixture has learned -------------------------------------------------------------------


def alignment(params, features, centers):
    """How far experts and router point at each cluster (paper, appendix A): four arrays (E, K).

    "expert_feature"  max_j |w_{m,j}·v_k|     "router_feature"  |θ_m·v_k|
    "expert_center"   max_j |w_{m,j}·c_k|     "router_center"   |θ_m·c_k|
    """
    w, theta = params["w"], params["theta"]
    out = {}
    for name, vectors in (("feature", features), ("center", centers)):
        out[f"expert_{name}"] = np.abs(w @ vectors.T).max(axis=1)
        out[f"router_{name}"] = np.abs(theta @ vectors.T)
    return out


def expert_accuracy(params, batch, cluster, *, activation):
    """Percent right of every expert on every cluster, wherever the router would send its samples:
    (E, K).
    """
    E, K = len(params["w"]), int(cluster.max()) + 1
    out = np.empty((E, K))
    for m in range(E):
        alone = {k: params[k][m : m + 1] for k in ("w", "b")}
        right = single_predict(alone, batch, activation=activation).argmax(axis=1) == batch.y
        out[m] = [100 * right[cluster == k].mean() for k in range(K)]
    return out
