"""Walks through the mixture of 1991 (`moe_np.mixtures.jacobs1991`): every piece of an epoch, or
epoch after epoch.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import softmax_backward
from moe_np.base.optim import gradient_descent
from moe_np.mixtures import jacobs1991 as model
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
UNITS = {
    "logistic": r"o_i = \sigma(x W_i + b_i)",
    "linear": r"o_i = x W_i + b_i",
    "softmax": r"o_i = \mathrm{softmax}(x W_i + b_i)",
}
FIRST = {  # what an error looks at, before it is one number a case
    "cooperative": r"\mathrm{residual} = d - y",
    "competitive": r"\mathrm{distance}_i = \| d - o_i \|^2",
    "mixture": r"\mathrm{log\_gauss}_i = -\tfrac12 \| d - o_i \|^2",
}
ERROR = {
    "cooperative": r"\mathrm{loss} = \| d - y \|^2 \qquad (1)",
    "competitive": r"\mathrm{loss} = \sum_i p_i \, \| d - o_i \|^2 \qquad (2)",
    "mixture": r"\mathrm{loss} = -\log \sum_i p_i \, e^{-\frac12 \| d - o_i \|^2} \qquad (3)",
}
OUTPUTS = {
    "cooperative": r"do_i = -2 p_i (d - y), \quad dp_i = -2 (d - y) \cdot o_i",
    "competitive": r"do_i = -2 p_i (d - o_i), \quad dp_i = \| d - o_i \|^2",
    "mixture": r"do_i = -\mathrm{resp}_i (d - o_i), \quad dp_i = -\mathrm{resp}_i / p_i",
}
GATE_TOTALS = r"ds_i = p_i \Big( dp_i - \sum_j p_j \, dp_j \Big)"
UPDATE = r"W \leftarrow W - \mathrm{lr} \, dW, \text{ and so } b, U, c"


def vowels(params, x, d, *, lr, error="mixture", kind="logistic", every=None, stop=None):
    """Steps of descending the summed error of a mixture on x (N, D), d (N, C), as
    `jacobs1991.train` does.

    every   None: all pieces of every epoch, forward, backward and update. n: one state for every n epochs
    stop    end when the mean squared error of y is at most this; None: never

    Raises InputError where `train` does.
    """
    if every is not None:
        checks.integer("every", every)
    if "U" not in params:
        raise checks.InputError(
            "params: wanted those of a mixture, with the gate's U and c; got a net's"
        )
    next(
        model.train(params, x, d, lr=lr, error=error, kind=kind)
    )  # the same checks, before the first step
    if every is None:
        return Steps(_pieces(params, x, d, lr, error, kind, stop))
    return Steps(_epochs(params, x, d, lr, error, kind, stop, every))


def _pieces(params, x, d, lr, error, kind, stop):
    trail = Trail(AXES)
    for epoch in itertools.count():
        trail.forget()
        name = f"epoch {epoch}: "
        yield trail.see(
            name + "start",
            "",
            {"x": x, "d": d, **params},
            "Inputs, wanted outputs and the parameters.",
        )
        loss, cache = model.system_forward(params, x, d, error, kind)
        yield from _forward(trail, name, cache, loss, error, kind)
        if stop is not None and float(((d - cache.y) ** 2).sum(axis=1).mean()) <= stop:
            return
        grads = yield from _backward(trail, name, cache, loss, error, kind)
        params = gradient_descent(params, grads, lr=lr)
        yield trail.see(
            name + "update", UPDATE, params, f"A step against the gradient, lr = {lr:g}."
        )


def _forward(trail, name, cache, loss, error, kind):
    scores = cache.scores._asdict()
    see = trail.see
    yield see(name + "experts", UNITS[kind], {"o": cache.o}, "Every expert answers every case.")
    gate = {"s": cache.gate.s, "p": cache.p}
    yield see(
        name + "gate",
        r"s = x U + c, \quad p = \mathrm{softmax}(s)",
        gate,
        "The gate has not seen the answers.",
    )
    yield see(name + "blend", r"y = \sum_i p_i o_i", {"y": cache.y}, "The answer of the whole.")
    pieces = {k: scores[k] for k in ("residual", "distance", "log_gauss") if k in scores}
    yield see(
        name + "misfit", FIRST[error], pieces, "How far the answers are from what was wanted."
    )
    if error == "mixture":
        equation = r"\mathrm{resp}_i = \frac{p_i \, e^{-\frac12\|d - o_i\|^2}}{\sum_j p_j \, e^{-\frac12\|d - o_j\|^2}}"
        note = "The gate's opinion before the answer was known, times how well each expert did."
        yield see(name + "responsibilities", equation, {"resp": scores["resp"]}, note)
    yield see(name + "error", ERROR[error], {"loss": loss}, f"Sum over cases {loss.sum():.4f}.")


def _backward(trail, name, cache, loss, error, kind):
    """The states of the backward pass; returns the gradients."""
    ones = np.ones_like(loss)
    do, dp = model.ERRORS[error][1](ones, cache.scores)
    yield trail.see(name + "backward, outputs", OUTPUTS[error], {"do": do, "dp": dp})
    dtotals = model.squash_backward(do, cache.o, kind)
    if error == "mixture":
        ds, equation = cache.p - cache.scores.resp, r"ds_i = p_i - \mathrm{resp}_i"
    else:
        ds, equation = softmax_backward(dp, cache.p), GATE_TOTALS
    yield trail.see(name + "backward, totals", equation, {"dtotals": dtotals, "ds": ds})
    grads = model.system_backward(ones, cache)[1]
    equation = r"dW_i = \sum_n x_n^\top d\mathrm{totals}_{ni}, \quad dU = x^\top ds"
    yield trail.see(
        name + "gradient",
        equation,
        {f"d{k}": grads[k] for k in ("W", "b", "U", "c")},
        "Summed over cases.",
    )
    return grads


def _epochs(params, x, d, lr, error, kind, stop, every):
    trail = Trail(AXES)
    for step in model.train(params, x, d, lr=lr, error=error, kind=kind):
        done = stop is not None and step.squared_error <= stop
        if done or step.number % every == 0:
            trail.forget()
            own = {
                "x": x,
                "d": d,
                "squared_error": step.squared_error,
                "total": step.loss,
                **step.params,
            }
            if (
                d.shape[1] == 1
                and kind == "logistic"
                and (step.params["W"] != 0).any(axis=(1, 2)).all()
            ):
                own["foot"] = model.decision_foot(
                    step.params["W"][..., 0], step.params["b"][..., 0]
                )
            own["p"] = step.cache.p
            if error == "mixture":
                own["resp"] = step.cache.scores.resp
            yield trail.see(
                f"epoch {step.number}", UPDATE, own, f"Mean squared error {step.squared_error:.4f}."
            )
        if done:
            return
