"""Training the models of Chen et al. 2022: gradients of a pass, and training loops as iterators.

`gradients` and `single_gradients` run in the compiled loops of `moe_np.kernels.patch_cnn` if Numba
is available, and otherwise in the pairs of `moe_np.models.patch_cnn`, with the same equations. A
pass takes the whole training set.
"""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np

from moe_np import kernels
from moe_np.base import checks, optim
from moe_np.base.types import ArrayN, ArrayND, ArrayNE, ArrayNPD, DType, Params, Rng
from moe_np.layers import diagnostics
from moe_np.models import patch_cnn
from moe_np.models.patch_cnn import ArrayN2

BLOCK = 128  # samples that the compiled loops route at a time
ClusterVectors: TypeAlias = Annotated[np.ndarray, "K, D"]


class Batch(NamedTuple):
    """Samples and the sums of their patches, which the router and the linear expert read."""

    x: ArrayNPD
    xsum: ArrayND
    # xsum in blocks, with zeros after the last sample
    rows: Annotated[np.ndarray, "blocks, BLOCK, D"]
    columns: Annotated[np.ndarray, "blocks, D, BLOCK"]
    y: ArrayN  # 0 or 1


def batch(x: ArrayNPD, y: ArrayN) -> Batch:
    """Check samples once and prepare them: x (N, P, D) floating point, y (N,) of 0 and 1.

    Raises InputError for other shapes and types, for x that is not finite or has cubes that would
    not be, and for other classes.
    """
    x = np.ascontiguousarray(checks.array("x", x, ("N", "P", "D")))
    largest = np.finfo(x.dtype).max ** 0.125  # the cube of a sum and its square are finite
    if np.abs(x).max(initial=0) > largest:
        raise checks.InputError(
            f"x: wanted numbers of at most {largest:.1e}, got {np.abs(x).max():g}: their cubes "
            "would overflow"
        )
    y = checks.array("y", y, (len(x),), kind="i")
    if len(y) and not (y.min() >= 0 and y.max() <= 1):
        raise checks.InputError(f"y: wanted classes 0 and 1, got {y.min()} to {y.max()}")
    N, _, D = x.shape
    rows = np.zeros((-(-N // BLOCK), BLOCK, D), x.dtype)
    xsum = rows.reshape(-1, D)[:N]
    xsum[:] = x.sum(axis=1)
    return Batch(x, xsum, rows, np.ascontiguousarray(rows.transpose(0, 2, 1)), y.astype(np.int64))


def accuracy(out: ArrayN2, y: ArrayN) -> float:
    """Percent of samples whose larger output is their class (class 0 wins a tie)."""
    return 100 * float((out.argmax(axis=1) == y).mean())


def _check_options(activation, gate="raw", loss="once"):
    checks.choice("activation", activation, patch_cnn.ACTIVATIONS)
    checks.choice("gate", gate, patch_cnn.GATES)
    checks.choice("loss", loss, patch_cnn.LOSSES)


PARAMS = {"w": ("E", "2J", "D"), "b": ("E", "2J"), "theta": ("E", "D")}


def _check_pass(params, batch, noise=None, names=("w", "b", "theta")):
    """params and noise as arrays, after checking them against each other and the samples: the
    compiled loops take for granted that they fit.
    """
    if not isinstance(batch, Batch):
        got = type(batch).__name__
        raise checks.InputError(f"batch: wanted a Batch, from batch(x, y), got {got}")
    arrays = checks.params("params", params, {name: PARAMS[name] for name in names})
    (E, F, D), dtype = arrays["w"].shape, arrays["w"].dtype
    if E == 0 or F == 0 or F % 2:
        raise checks.InputError(
            f"params['w']: wanted experts with as many filters of class 0 as of class 1, got {E} "
            f"experts of {F} filters"
        )
    if batch.x.shape[2] != D or batch.x.dtype != dtype:
        raise checks.InputError(
            f"params['w']: wanted filters of {batch.x.shape[2]} features in {batch.x.dtype}, as x "
            f"has, got {D} in {dtype}"
        )
    if noise is not None:
        noise = checks.array("noise", noise, (len(batch.y), E))
    return arrays, noise


def _check_loss(value):
    if not np.isfinite(value):
        raise checks.InputError(
            f"params: wanted numbers for which the loss is finite, got a loss of {value}"
        )


# --- a pass of the mixture ------------------------------------------------------------------------


def gradients(
    params: Params, batch: Batch, noise: ArrayNE | None, *, activation: str, gate: str, loss: str
) -> tuple[float, ArrayN, Params]:
    """One pass of the mixture and its gradients: -> (loss, expert (N,), {"w", "b", "theta"}).

    noise (N, E) as in `patch_cnn.gate_forward`; None: no noise. Raises InputError for an
    activation, gate or loss that does not exist, for parameters or noise that do not fit each other
    or the samples or are not finite, and where the loss is not finite.
    """
    _check_options(activation, gate, loss)
    options = {"activation": activation, "gate": gate, "loss": loss}
    params, noise = _check_pass(params, batch, noise)
    if kernels.compiled(batch.x.dtype):
        result = kernels.patch_cnn.gradients(params, batch, noise, **options)
    else:
        result = gradients_numpy(params, batch, noise, **options)
    _check_loss(result[0])
    return result


def gradients_numpy(
    params: Params, batch: Batch, noise: ArrayNE | None, *, activation: str, gate: str, loss: str
) -> tuple[float, ArrayN, Params]:
    """`gradients` in NumPy: forward and backward pass of the mixture and the loss."""
    out, cache = patch_cnn.mixture_forward(params, batch.x, noise, activation=activation, gate=gate)
    value, loss_cache = patch_cnn.loss_forward(out, batch.y, loss=loss)
    _, grads = patch_cnn.mixture_backward(patch_cnn.loss_backward(1.0, loss_cache), cache)
    return float(value), cache.expert, grads


def predict(
    params: Params, batch: Batch, noise: ArrayNE | None, *, activation: str, gate: str
) -> tuple[ArrayN2, ArrayN]:
    """One pass without gradients: -> (out (N, 2), expert (N,)).

    The predicted class is `out.argmax(1)`.
    """
    _check_options(activation, gate)
    params, noise = _check_pass(params, batch, noise)
    out, cache = patch_cnn.mixture_forward(params, batch.x, noise, activation=activation, gate=gate)
    return out, cache.expert


# --- training the mixture -------------------------------------------------------------------------


class TrainingPass(NamedTuple):
    """One pass over the training set, and the parameters after it."""

    epoch: int  # from 0
    loss: float  # of this pass, before the update
    entropy: float | None  # dispatch entropy of this pass, noise included; None: single network
    expert: ArrayN | None  # the expert of each sample in this pass; None: single network
    params: Params  # after the update; unchanged if stopped
    stopped: bool  # training ended in this pass, before its update


def uniform_noise(rng: Rng, dtype: DType = np.float32) -> Callable[[tuple[int, int]], ArrayNE]:
    """A function draw(shape) -> numbers on [0, 1) from a NumPy Generator, for `train_mixture`."""
    return lambda shape: rng.random(shape, dtype=dtype)


def train_mixture(
    params: Params,
    batch: Batch,
    cluster: ArrayN,
    draw: Callable[[tuple[int, int]], ArrayNE] | None,
    *,
    epochs: int,
    activation: str,
    gate: str,
    loss: str,
    lr: float,
    lr_router: float,
    norm: str | None = "sum",
    stop: bool = True,
) -> Iterator[TrainingPass]:
    """Train the sparse mixture (paper, Algorithm 1); yields one `TrainingPass` per epoch.

    w_m ← w_m − η ∇_m / ‖∇_m‖,  θ ← θ − η_r ∇θ, with the learning rates η = lr, η_r = lr_router.

    cluster   (N,) whole numbers from 0, for the dispatch entropy only
    draw      draw((N, E)) -> the noise of a pass; None: no noise
    norm      as in `optim.normalised_gradient_descent`; None: gradient descent, not normalised
    stop      end before the update of a pass whose loss is above the smallest one until then, if it
              is above by more than .02, or if it is .314 or less (authors' code)
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
        entropy = diagnostics.dispatch_entropy(expert, cluster, shape=(E, K))
        yield TrainingPass(epoch, value, entropy, expert, params, stopped)
        if stopped:
            return


def _update(params, grads, lr, lr_router, norm):
    experts, dexperts = ({name: d[name] for name in ("w", "b")} for d in (params, grads))
    if norm is None:
        experts = optim.gradient_descent(experts, dexperts, lr=lr)
    else:
        experts = optim.normalised_gradient_descent(experts, dexperts, lr=lr, norm=norm)
    return {**experts, "theta": params["theta"] - lr_router * grads["theta"]}


# --- a single network -----------------------------------------------------------------------------


def single_gradients(params: Params, batch: Batch, *, activation: str) -> tuple[float, Params]:
    """One pass of a single network (one expert, no router): -> (loss "once", {"w", "b"}).

    Raises InputError for an activation that does not exist.
    """
    _check_options(activation)
    params = _check_single(params, batch)
    if kernels.compiled(batch.x.dtype):
        result = kernels.patch_cnn.single_gradients(params, batch, activation=activation)
    else:
        result = single_gradients_numpy(params, batch, activation=activation)
    _check_loss(result[0])
    return result


def _check_single(params, batch):
    """The parameters of one expert."""
    params, _ = _check_pass(params, batch, names=("w", "b"))
    if len(params["w"]) != 1:
        got = len(params["w"])
        raise checks.InputError(f"params['w']: wanted one network, got {got}")
    return params


def single_gradients_numpy(
    params: Params, batch: Batch, *, activation: str
) -> tuple[float, Params]:
    """`single_gradients` in NumPy."""
    out, cache = _single_forward(params, batch, activation)
    value, loss_cache = patch_cnn.loss_forward(out, batch.y, loss="once")
    _, grads = patch_cnn.expert_backward(patch_cnn.loss_backward(1.0, loss_cache), cache)
    return float(value), grads


def single_predict(params: Params, batch: Batch, *, activation: str) -> ArrayN2:
    """Outputs (N, 2) of a single network."""
    _check_options(activation)
    return _single_forward(_check_single(params, batch), batch, activation)[0]


def _single_forward(params, batch, activation):
    expert = np.zeros(len(batch.y), int)
    return patch_cnn.expert_forward(params, batch.x, expert, activation=activation)


def train_single(
    params: Params,
    batch: Batch,
    *,
    epochs: int,
    activation: str,
    lr: float,
    weight_decay: float = 5e-4,
    stop_after: int = 500,
) -> Iterator[TrainingPass]:
    """Train a single network with Adam on all samples at once; yields a `TrainingPass` per epoch.

    Training ends before the update of a pass with a number above `stop_after` whose loss is above
    the smallest one until then by more than .02 (authors' code).
    """
    state = None
    smallest = np.inf
    for epoch in range(epochs):
        value, grads = single_gradients(params, batch, activation=activation)
        stopped = epoch > stop_after and value > smallest + 0.02
        smallest = min(smallest, value)
        if not stopped:
            params, state = optim.adam(params, grads, state, lr=lr, weight_decay=weight_decay)
        yield TrainingPass(epoch, value, None, None, params, stopped)
        if stopped:
            return


# --- what a mixture has learned -------------------------------------------------------------------


def alignment(
    params: Params, features: ClusterVectors, centers: ClusterVectors
) -> dict[str, Annotated[np.ndarray, "E, K"]]:
    """The products of experts and router with the vectors of each cluster (paper, appendix A).

    "expert_feature"  max_j |w_{m,j}·v_k|     "router_feature"  |θ_m·v_k|
    "expert_center"   max_j |w_{m,j}·c_k|     "router_center"   |θ_m·c_k|

    features (K, D) are v_k, centers (K, D) are c_k; each of the four is (E, K).
    """
    w, theta = params["w"], params["theta"]
    products = {}
    for name, vectors in (("feature", features), ("center", centers)):
        products[f"expert_{name}"] = np.abs(w @ vectors.T).max(axis=1)
        products[f"router_{name}"] = np.abs(theta @ vectors.T)
    return products


def expert_accuracy(
    params: Params, batch: Batch, cluster: ArrayN, *, activation: str
) -> Annotated[np.ndarray, "E, K"]:
    """Percent right of every expert on every cluster, whatever the router chooses: (E, K)."""
    E, K = len(params["w"]), int(cluster.max()) + 1
    percent = np.empty((E, K))
    for m in range(E):
        alone = {name: params[name][m : m + 1] for name in ("w", "b")}
        right = single_predict(alone, batch, activation=activation).argmax(axis=1) == batch.y
        percent[m] = [100 * right[cluster == k].mean() for k in range(K)]
    return percent
