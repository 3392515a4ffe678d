"""Is a hand-written gradient right? Ask along one random direction.

A gradient g of a scalar loss promises that for every direction v

    (d/dt) loss(p + t·v) at t = 0   equals   Σ g·v.

The left side needs only the loss: four evaluations of it, whatever the size of p. One random v
checks all of g at once, because an error in any component shows in Σ g·v with probability one. A
function that returns an array becomes a scalar by the inner product with a fixed random array
`dout`, which is then the gradient to hand to its backward pass.

    >>> rng = np.random.default_rng(0)
    >>> p = {"w": rng.normal(size=3)}
    >>> print(gradient_error(lambda p: (p["w"] ** 2).sum(), p, {"w": 2 * p["w"]}, rng)["w"] < 1e-9)
    True
    >>> mean = lambda p: (p["w"] ** 2).mean()
    >>> print(round(gradient_error(mean, p, {"w": 2 * p["w"]}, rng)["w"], 3))  # N = 3 times too large
    0.667
"""

import numpy as np

from moe_np.base.checks import InputError


def slope(loss, x, v, step=1e-3):
    """(d/dt) loss(x + t·v) at 0 by the five-point central difference; its error is O(step⁴)."""
    near = loss(x + step * v) - loss(x - step * v)
    far = loss(x + 2 * step * v) - loss(x - 2 * step * v)
    return (8 * near - far) / (12 * step)


def direction(g, rng):
    """A random unit vector, drawn again while it is so nearly orthogonal to g that rounding would
    be all one sees.
    """
    while True:
        v = rng.normal(size=g.shape)
        v /= np.linalg.norm(v)
        if abs((g * v).sum()) >= 0.3 * np.linalg.norm(g) / np.sqrt(g.size):
            return v


def gradient_error(loss, params, grads, rng, *, step=1e-3):
    """Relative error of each gradient in `grads` along one random direction of its own.

    loss     a function of `params` that returns a number; noise inside it must be frozen
    params   dict of float64 arrays (float32 cannot carry the check: convert first)
    grads    dict with the same keys and shapes
    step     length of the difference; keep arg-max, clipping and ties further away than twice this

    Returns {name: error} with error = |numeric − analytic| / max(|numeric|, |analytic|): below 1e-7
    for a right gradient of a smooth loss, near 1 for an unrelated one, 1 − 1/N for one that is N
    times too large. Slopes under 4e-5 of the loss itself (at the default step) are measured against
    that instead, since rounding of the loss is all that can be seen of a much smaller one.
    """
    if set(params) != set(grads):
        raise InputError(f"grads: wanted the keys of params, {sorted(params)}, got {sorted(grads)}")
    errors = {}
    for name, x in params.items():
        g = np.asarray(grads[name])
        if x.dtype != np.float64:
            raise InputError(f"params[{name!r}]: wanted float64, got {x.dtype}")
        if g.shape != x.shape:
            raise InputError(f"grads[{name!r}]: wanted shape {x.shape}, got {g.shape}")
        if x.size == 0:
            errors[name] = 0.0
            continue
        v = direction(g, rng)
        numeric = slope(lambda moved, name=name: float(loss({**params, name: moved})), x, v, step)
        analytic = float((g * v).sum())
        # a difference shows no less
        rounding = 16 * np.finfo(np.float64).eps * abs(float(loss(params))) / step
        scale = max(abs(numeric), abs(analytic), 1e7 * rounding)
        errors[name] = abs(numeric - analytic) / scale if scale > 0 else 0.0
    return errors


def pair_error(forward, backward, params, x, rng, *, step=1e-3):
    """Check a pair `forward(params, x) -> (out, cache)`, `backward(dout, cache) -> (dx, grads)`.

    The output is projected on a random `dout`. Returns {"x": error, **{name: error}}; a backward
    pass that returns None for dx (an input that is data) is checked for its parameters only.
    """
    out, cache = forward(params, x)
    dout = rng.normal(size=np.shape(out))
    dx, grads = backward(dout, cache)
    errors = gradient_error(
        lambda p: (forward(p, x)[0] * dout).sum(), params, grads, rng, step=step
    )
    if dx is not None:
        moved = gradient_error(
            lambda p: (forward(params, p["x"])[0] * dout).sum(), {"x": x}, {"x": dx}, rng, step=step
        )
        errors = {**moved, **errors}
    return errors
