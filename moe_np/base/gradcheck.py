"""Projection gradient check: a hand-written gradient against differences of the loss.

A gradient g of a scalar loss promises that for every direction v

    (d/dt) loss(p + t·v) at t = 0   equals   Σ g·v.

The left side needs only the loss: four evaluations of it, whatever the size of p. One random v
checks all of g at once, because an error in any component shows in Σ g·v with probability one. A
function that returns an array becomes a scalar by the inner product with a fixed random array
`dout`; that is the gradient from which backpropagation then starts.

    >>> rng = np.random.default_rng(0)
    >>> p = {"w": rng.normal(size=3)}
    >>> print(gradient_error(lambda p: (p["w"] ** 2).sum(), p, {"w": 2 * p["w"]}, rng)["w"] < 1e-9)
    True
    >>> mean = lambda p: (p["w"] ** 2).mean()
    >>> error = gradient_error(mean, p, {"w": 2 * p["w"]}, rng)["w"]  # N = 3 times too large
    >>> print(round(error, 3))
    0.667
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, Loss, Params, Rng


def slope(loss: Callable[[Array], float], x: Array, v: Array, step: float = 1e-3) -> float:
    """The directional derivative (d/dt) loss(x + t·v) at t = 0, by differences.

    The five-point central difference of length `step`; its error is O(step⁴).
    """
    near = loss(x + step * v) - loss(x - step * v)
    far = loss(x + 2 * step * v) - loss(x - 2 * step * v)
    return (8 * near - far) / (12 * step)


def random_direction(g: Array, rng: Rng) -> Array:
    """A random unit vector of g's shape, not nearly orthogonal to g.

    It is drawn again as long as Σ g·v is so small that rounding would hide it.
    """
    largest = np.abs(g).max(initial=0)
    g = g / largest if largest > 0 else g  # so that no square overflows or becomes 0
    while True:
        v = rng.normal(size=g.shape)
        v /= np.linalg.norm(v)
        if abs((g * v).sum()) >= 0.3 * np.linalg.norm(g) / np.sqrt(g.size):
            return v


def gradient_error(
    loss: Loss, params: Params, grads: Params, rng: Rng, *, step: float = 1e-3
) -> dict[str, float]:
    """Relative error of each gradient in `grads`, each along one random direction.

    loss     a function of `params` that returns a number; noise inside it must be frozen
    params   dict of float64 arrays (float32 is not exact enough: convert first)
    grads    dict with the same keys and shapes
    step     length of the difference; keep arg-max, clipping and ties further away than twice this

    Returns {name: error} with error = |numeric − analytic| / max(|numeric|, |analytic|). It is
    below 1e-7 for a right gradient of a smooth loss, near 1 for an unrelated one, and 1 − 1/N for
    one that is N times too large. Slopes under 4e-5 of the loss itself (at the default step) are
    divided by that instead, because rounding of the loss hides a smaller slope.
    Raises InputError for other keys or shapes, for parameters that are not float64, and for NaN or
    infinity in parameters, gradients or the loss.
    """
    checks.mapping("params", params)
    checks.mapping("grads", grads)
    checks.generator("rng", rng)
    step = checks.number("step", step, greater_than=0)
    if set(params) != set(grads):
        raise InputError(f"grads: wanted the keys of params, {sorted(params)}, got {sorted(grads)}")
    params = {name: checks.array(f"params[{name!r}]", p, None) for name, p in params.items()}
    errors = {}
    for name, x in params.items():
        g = checks.array(f"grads[{name!r}]", grads[name], None)
        if x.dtype != np.float64:
            raise InputError(f"params[{name!r}]: wanted float64, got {x.dtype}")
        if g.shape != x.shape:
            raise InputError(f"grads[{name!r}]: wanted shape {x.shape}, got {g.shape}")
        g = g.astype(np.float64, copy=False)
        if x.size == 0:
            errors[name] = 0.0
            continue
        v = random_direction(g, rng)
        at = checks.number("loss(params)", float(loss(params)))
        numeric = slope(lambda moved, name=name: float(loss({**params, name: moved})), x, v, step)
        checks.number(f"the slope of the loss along params[{name!r}]", numeric)
        analytic = checks.number(f"Σ grads[{name!r}]·v", float((g * v).sum()))
        # a difference cannot show less than the rounding of the loss
        rounding = 16 * np.finfo(np.float64).eps * abs(at) / step
        size = max(abs(numeric), abs(analytic), 1e7 * rounding)
        errors[name] = abs(numeric - analytic) / size if size > 0 else 0.0
    return errors


def pair_error(
    forward: Callable[[Params, Array], tuple[Array, Any]],
    backward: Callable[[Array, Any], tuple[Array | None, Params]],
    params: Params,
    x: Array,
    rng: Rng,
    *,
    step: float = 1e-3,
) -> dict[str, float]:
    """Check a pair `forward(params, x) -> (out, cache)`, `backward(dout, cache) -> (dx, grads)`.

    The output is projected on a random `dout`. Returns {"x": error, **{name: error}}. Where the
    backward pass returns None for dx (an input that is data), only the parameters are checked.
    """
    out, cache = forward(params, x)
    dout = rng.normal(size=np.shape(out))
    dx, grads = backward(dout, cache)

    def loss_of_params(p):
        return (forward(p, x)[0] * dout).sum()

    def loss_of_input(p):
        return (forward(params, p["x"])[0] * dout).sum()

    errors = gradient_error(loss_of_params, params, grads, rng, step=step)
    if dx is None:
        return errors
    return {**gradient_error(loss_of_input, {"x": x}, {"x": dx}, rng, step=step), **errors}
