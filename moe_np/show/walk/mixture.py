"""Walks through the mixture of 1991 (`moe_np.mixtures.jacobs1991`): each operation of an epoch, or
one state per epoch.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import softmax_backward
from moe_np.base.optim import gradient_descent
from moe_np.base.types import ArrayNC, ArrayND, Params
from moe_np.mixtures import jacobs1991
from moe_np.show.steps import Steps, Trail

AXES = {
    "x": "N D",
    "d": "N C",
    "o": "N E C",
    "s": "N E",
    "p": "N E",
    "y": "N C",
    "residual": ("N E C", "N C"),
    "distance": "N E",
    "log_gauss": "N E",
    "resp": "N E",
    "loss": "N",
    "totals": "N E C",
    "W": "E D C",
    "b": "E C",
    "U": "D E",
    "c": "E",
    "foot": "E D",
}
OUTPUTS = {
    "logistic": r"o_i = \sigma(x W_i + b_i)",
    "linear": r"o_i = x W_i + b_i",
    "softmax": r"o_i = \mathrm{softmax}(x W_i + b_i)",
}
GATE = r"s = x U + c, \quad p = \mathrm{softmax}(s)"
BLEND = r"y = \sum_i p_i o_i"
MISFIT = {  # the terms of an error
    "cooperative": r"\mathrm{residual} = d - y",
    "competitive": r"\mathrm{distance}_i = \| d - o_i \|^2",
    "mixture": r"\mathrm{log\_gauss}_i = -\tfrac12 \| d - o_i \|^2",
}
RESPONSIBILITIES = (
    r"\mathrm{resp}_i = \frac{p_i \, e^{-\frac12\|d - o_i\|^2}}"
    r"{\sum_j p_j \, e^{-\frac12\|d - o_j\|^2}}"
)
ERROR = {
    "cooperative": r"\mathrm{loss} = \| d - y \|^2 \qquad (1)",
    "competitive": r"\mathrm{loss} = \sum_i p_i \, \| d - o_i \|^2 \qquad (2)",
    "mixture": r"\mathrm{loss} = -\log \sum_i p_i \, e^{-\frac12 \| d - o_i \|^2} \qquad (3)",
}
OUTPUT_GRADIENTS = {
    "cooperative": r"do_i = -2 p_i (d - y), \quad dp_i = -2 (d - y) \cdot o_i",
    "competitive": r"do_i = -2 p_i (d - o_i), \quad dp_i = \| d - o_i \|^2",
    "mixture": r"do_i = -\mathrm{resp}_i (d - o_i), \quad dp_i = -\mathrm{resp}_i / p_i",
}
LOGIT_GRADIENT = r"ds_i = p_i \Big( dp_i - \sum_j p_j \, dp_j \Big)"
LOGIT_GRADIENT_OF_MIXTURE = r"ds_i = p_i - \mathrm{resp}_i"
GRADIENT = r"dW_i = \sum_n x_n^\top d\mathrm{totals}_{ni}, \quad dU = x^\top ds"
UPDATE = r"W \leftarrow W - \mathrm{lr} \, dW, \text{ and so } b, U, c"


def vowels(
    params: Params,
    x: ArrayND,
    d: ArrayNC,
    *,
    lr: float,
    error: str = "mixture",
    kind: str = "logistic",
    every: int | None = None,
    stop: float | None = None,
) -> Steps:
    """Steps of gradient descent on the summed error of a mixture, as `jacobs1991.train` does it.

    lr, error, kind    the learning rate and the other arguments of `jacobs1991.train`
    every              None: each operation of every epoch; n: one state per n epochs
    stop               end when the mean squared error of y is at most this; None: without end

    Raises InputError where `train` does, and for the parameters of a net.
    """
    if every is not None:
        checks.integer("every", every)
    if "U" not in params:
        wanted = "those of a mixture, with U and c of the gating network"
        raise checks.InputError(f"params: wanted {wanted}; got those of a net")
    next(jacobs1991.train(params, x, d, lr=lr, error=error, kind=kind))  # checks the arguments
    if every is None:
        return Steps(_operations(params, x, d, lr, error, kind, stop))
    training = jacobs1991.train(params, x, d, lr=lr, error=error, kind=kind)
    return Steps(_epochs(training, x, d, stop, every))


# --- each operation -------------------------------------------------------------------------------


def _operations(params, x, d, lr, error, kind, stop):
    trail = Trail(AXES)
    for epoch in itertools.count():
        trail.forget()
        prefix = f"epoch {epoch}: "
        note = "Inputs, targets and the parameters."
        yield trail.see(prefix + "start", "", {"x": x, "d": d, **params}, note)
        loss, cache = jacobs1991.system_forward(params, x, d, error, kind)
        yield from _forward(trail, prefix, cache, loss, kind)
        if stop is not None and float(((d - cache.y) ** 2).sum(axis=1).mean()) <= stop:
            return
        grads = yield from _backward(trail, prefix, cache, loss, kind)
        params = gradient_descent(params, grads, lr=lr)
        note = f"A step against the gradient with learning rate lr = {lr:g}."
        yield trail.see(prefix + "update", UPDATE, params, note)


def _forward(trail, prefix, cache, loss, kind):
    error = cache.error
    terms = cache.scores._asdict()
    note = "The outputs of all experts for all cases."
    yield trail.see(prefix + "experts", OUTPUTS[kind], {"o": cache.o}, note)
    note = "The gating network reads x only; it does not know the outputs."
    yield trail.see(prefix + "gate", GATE, {"s": cache.gate.s, "p": cache.p}, note)
    yield trail.see(prefix + "blend", BLEND, {"y": cache.y}, "The output of the mixture.")
    misfit = {name: terms[name] for name in ("residual", "distance", "log_gauss") if name in terms}
    note = "How far the outputs are from the targets."
    yield trail.see(prefix + "misfit", MISFIT[error], misfit, note)
    if error == "mixture":
        note = "The mixture weight p, times how well each expert fits the target, normalised."
        resp = {"resp": terms["resp"]}
        yield trail.see(prefix + "responsibilities", RESPONSIBILITIES, resp, note)
    note = f"Sum over cases {loss.sum():.4f}."
    yield trail.see(prefix + "error", ERROR[error], {"loss": loss}, note)


def _backward(trail, prefix, cache, loss, kind):
    """The states of the backward pass; returns the gradients."""
    error = cache.error
    ones = np.ones_like(loss)
    _, error_backward = jacobs1991.ERRORS[error]
    do, dp = error_backward(ones, cache.scores)
    given = {"do": do, "dp": dp}
    yield trail.see(prefix + "backward, outputs", OUTPUT_GRADIENTS[error], given)
    dtotals = jacobs1991.squash_backward(do, cache.o, kind)
    if error == "mixture":
        ds = cache.p - cache.scores.resp
        equation = LOGIT_GRADIENT_OF_MIXTURE
    else:
        ds = softmax_backward(dp, cache.p)
        equation = LOGIT_GRADIENT
    yield trail.see(prefix + "backward, totals", equation, {"dtotals": dtotals, "ds": ds})
    _, grads = jacobs1991.system_backward(ones, cache)
    given = {f"d{name}": grads[name] for name in ("W", "b", "U", "c")}
    yield trail.see(prefix + "gradient", GRADIENT, given, "Summed over cases.")
    return grads


# --- whole epochs ---------------------------------------------------------------------------------


def _epochs(training, x, d, stop, every):
    trail = Trail(AXES)
    for epoch in training:
        done = stop is not None and epoch.squared_error <= stop
        if done or epoch.number % every == 0:
            trail.forget()
            note = f"Mean squared error {epoch.squared_error:.4f}."
            yield trail.see(f"epoch {epoch.number}", UPDATE, _arrays(epoch, x, d), note)
        if done:
            return


def _arrays(epoch, x, d):
    """The arrays of an epoch; "foot" for a mixture whose experts each have one decision line."""
    arrays = {"x": x, "d": d, "squared_error": epoch.squared_error, "total": epoch.loss}
    arrays |= epoch.params
    W, b = epoch.params["W"], epoch.params["b"]
    is_logistic = epoch.cache.experts.kind == "logistic"
    if d.shape[1] == 1 and is_logistic and (W != 0).any(axis=(1, 2)).all():
        arrays["foot"] = jacobs1991.decision_foot(W[..., 0], b[..., 0])
    arrays["p"] = epoch.cache.p
    if epoch.cache.error == "mixture":
        arrays["resp"] = epoch.cache.scores.resp
    return arrays
