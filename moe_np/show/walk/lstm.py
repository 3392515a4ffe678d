"""A walk through an LSTM layer (`moe_np.layers.lstm`): every step with its four gates by name, then
backpropagation through time, from the last step to the first.

The arrays are those of one step; `c_before` and `h_before` are what the step before it has left.
The gradient of an array `c` is `dc`. In the equations ⊙ multiplies number by number.
"""

from collections.abc import Iterator

from moe_np.base import checks
from moe_np.base.types import Array, ArrayBTD, Params
from moe_np.layers import lstm as layer
from moe_np.show.steps import State, Steps, Trail

AXES = {
    **dict.fromkeys(("i", "f", "g", "o", "c_before", "c", "tanh_c", "m"), "B H"),
    **dict.fromkeys(("h_before", "h_after", "h"), ("B P", "B T P")),
    "c_after": "B H",
    "x": "B T D",
    "x_t": "B D",
    "z": "B 4H",
    "wx": "D 4H",
    "wh": "P 4H",
    "b": "4H",
    "wp": "H P",
}
TOTALS = r"z = x_t \, w_x + \mathrm{h\_before} \; w_h + b"
GATES = {
    "i": ("input gate", r"i = \sigma(z_i)", "How much of the new content comes in."),
    "f": ("forget gate", r"f = \sigma(z_f)", "How much of the cells stays: 1 keeps all, 0 none."),
    "g": ("new content", r"g = \tanh(z_g)", "What may be written into the cells."),
    "o": ("output gate", r"o = \sigma(z_o)", "How much of the cells is shown."),
}
CELLS = r"c = f \odot \mathrm{c\_before} + i \odot g"
DC = r"dc = d\mathrm{c\_after} + dm \odot o \odot (1 - \tanh^2 c)"
DZ = (
    r"dz_i = di \odot i (1 - i), \; dz_f = df \odot f (1 - f), \; "
    r"dz_g = dg \odot (1 - g^2), \; dz_o = do \odot o (1 - o)"
)
DPARAMS = (
    r"dw_x = \sum_t x_t^\top dz_t, \quad dw_h = \sum_t h_{t-1}^\top dz_t, "
    r"\quad db = \sum_{b,t} dz_{bt}"
)
DWP = r", \quad dw_p = \sum_t m_t^\top dh_t"


def lstm(
    params: Params,
    x: ArrayBTD,
    state: layer.State | None = None,
    dh: Array | None = None,
    dstate: layer.State | None = None,
) -> Steps:
    """Steps of `lstm.forward` and, with dh (B, T, P), of `lstm.backward`, one gate after the other.

    state    before the first step; None: zeros
    dstate   the gradient of the state after the last step; None: zeros

    Raises InputError where the layer does.
    """
    out, _, cache = layer.forward(params, x, state)
    if dh is not None:
        dh = checks.array("dh", dh, out.shape, finite=False)
    return Steps(_states(cache, out, dh, dstate))


def _states(cache, out, dh, dstate) -> Iterator[State]:
    trail = Trail(AXES)
    given = {"x": cache.x, **cache.params, "h_before": cache.h[0], "c_before": cache.c[0]}
    note = "The sequences, the parameters (i, f, g, o side by side), and the state at the start."
    yield trail.see("input", "", given, note)
    T = len(cache.gates)
    for t in range(T):
        trail.forget()
        yield from _step(trail, cache, t)
    trail.forget()
    yield trail.see("outputs", "", {"h": out}, "The outputs of all steps.")
    if dh is None:
        return
    dx, before, grads = layer.backward(dh, cache, dstate)
    dstate = layer.zero_state(cache.params, len(dh)) if dstate is None else layer.State(*dstate)
    dh_after, dc_after = dstate
    for t in reversed(range(T)):
        trail.forget()
        arriving = {"dh_after": dh_after, "dc_after": dc_after, "dh": dh[:, t] + dh_after}
        note = "What the output of this step gets, and what the steps after it give back."
        yield trail.see(f"backward, step {t}: what arrives", "", arriving, note)
        dh_after, dc_after = yield from _step_backward(trail, f"backward, step {t}: ", cache, t)
    trail.forget()
    note = "Summed over all steps: they share their parameters."
    arrays = {f"d{name}": grad for name, grad in grads.items()}
    equation = DPARAMS + (DWP if "wp" in cache.params else "")
    yield trail.see("backward, parameters", equation, arrays, note)
    note = "To the state before the first step; truncated backpropagation through time drops it."
    arrays = {"dh_before": before.h, "dc_before": before.c}
    yield trail.see("backward, first state", "", arrays, note)
    yield trail.see(
        "backward, inputs", r"dx_t = dz_t \, w_x^\top", {"dx": dx}, "For the layer below."
    )


# --- one step -------------------------------------------------------------------------------------


def _step(trail, cache, t):
    phase = f"step {t}: "
    params = cache.params
    x_t = cache.x[:, t]
    h_before = cache.h[t]
    before = {"x_t": x_t, "h_before": h_before, "c_before": cache.c[t]}
    note = "A new token; h and c are what the step before has left."
    yield trail.see(phase + "input", "", before, note)
    z = x_t @ params["wx"] + h_before @ params["wh"] + params["b"]
    note = "Four numbers per cell, in four parts: of i, f, g and o."
    yield trail.see(phase + "totals", TOTALS, {"z": z}, note)
    gates = dict(zip(GATES, layer.parts(cache.gates[t]), strict=True))
    for letter, (name, equation, note) in GATES.items():
        yield trail.see(phase + name, equation, {letter: gates[letter]}, note)
    note = "What is kept of the old, and what comes in of the new."
    yield trail.see(phase + "cells", CELLS, {"c": cache.c[t + 1]}, note)
    tanh_c = cache.tanh_c[t]
    yield trail.see(phase + "tanh of the cells", r"\tanh c", {"tanh_c": tanh_c})
    m = {"m": cache.m[t]}
    projected = "wp" in params
    equation = r"m = o \odot \tanh c" if projected else r"h = o \odot \tanh c"
    yield trail.see(phase + "output", equation, m if projected else {"h": cache.h[t + 1]})
    if projected:
        note = "Fewer numbers go on to the next step and to the layer above."
        yield trail.see(phase + "projection", r"h = m \, w_p", {"h": cache.h[t + 1]}, note)


def _step_backward(trail, phase, cache, t):
    """The states back through step t, from the dh and dc_after of the trail; returns the gradients
    of the state before it.
    """
    params = cache.params
    dh = trail.arrays["dh"]
    i, f, g, o = layer.parts(cache.gates[t])
    c_before = cache.c[t]
    tanh_c = cache.tanh_c[t]
    dm = dh @ params["wp"].T if "wp" in params else dh
    equation = r"dm = dh \, w_p^\top" if "wp" in params else "dm = dh"
    yield trail.see(phase + "output", equation, {"dm": dm})
    yield trail.see(phase + "output gate", r"do = dm \odot \tanh c", {"o": o, "do": dm * tanh_c})
    dc = trail.arrays["dc_after"] + dm * o * (1 - tanh_c * tanh_c)
    note = "From the step after it, and from the output of this one."
    yield trail.see(phase + "cells", DC, {"tanh_c": tanh_c, "dc": dc}, note)
    yield trail.see(phase + "input gate", r"di = dc \odot g", {"i": i, "di": dc * g})
    yield trail.see(phase + "new content", r"dg = dc \odot i", {"g": g, "dg": dc * i})
    equation = r"df = dc \odot \mathrm{c\_before}"
    arrays = {"c_before": c_before, "f": f, "df": dc * c_before}
    yield trail.see(phase + "forget gate", equation, arrays)
    dz, dc_before = layer.cell_backward(
        dm, trail.arrays["dc_after"], c_before, cache.gates[t], tanh_c
    )
    note = "Through the sigmoids and the tanh, the four parts side by side."
    yield trail.see(phase + "totals", DZ, {"dz": dz}, note)
    dh_before = dz @ params["wh"].T
    equation = r"d\mathrm{h\_before} = dz \, w_h^\top, \quad d\mathrm{c\_before} = dc \odot f"
    note = "For the step before. Where f is near 1, the gradient of the cells stays as it is."
    arrays = {"dh_before": dh_before, "dc_before": dc_before}
    yield trail.see(phase + "state before", equation, arrays, note)
    return dh_before, dc_before
