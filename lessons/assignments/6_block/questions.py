"""Questions of assignment 6: a transformer block with experts, its loss, a step, an audit."""

import re

import numpy as np

from moe_np.base import optim
from moe_np.coursework import Question, close
from moe_np.layers import attention as package_attention
from moe_np.layers import norms, rotary
from moe_np.layers.rotary import Rotary

TITLE = "Assignment 6: a transformer block with experts, by hand"
AFTER = "lessons 17, 18 and 25"
HOURS = "five to six"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-5)  # float32 will do
EPS = 1e-5  # of the norms in a block


def near(wanted, got, inputs):
    """Right within 1e-3, or within 1e-5 of the largest value of the same array."""
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    arrays = [a for part in parts for a in (part.values() if isinstance(part, dict) else (part,))]
    return close(1e-3, 1e-5 * max(1e-3, *(np.abs(a).max(initial=0) for a in arrays)))(wanted, got)


# --- Rotary positions and attention ---------------------------------------------------------------


def rotate_cases(rng):
    """Positions in order, from elsewhere, negative, and so large that float32 angles are wrong."""
    cases = []
    settings = (
        (np.arange(5), 2, 6, 10000.0),
        (np.arange(7, 10), 3, 2, 10000.0),
        (-np.arange(4), 1, 8, 500.0),
        (rng.permutation(np.arange(-3, 4)), 2, 4, 10.0),
        (rng.integers(30_000, 40_000, size=6), 2, 8, 500_000.0),
        (np.zeros(3, np.int64), 2, 4, 10000.0),
    )
    for positions, heads, d, theta in settings:
        cases.append((rng.normal(size=(len(positions), heads, d)), positions, theta))
    cases.append((rng.normal(size=(1, 1, 4)).astype(np.float32), np.array([32_767]), 2.0))
    return cases


def rotate(x, positions, theta):
    turned = rotary.angles(positions, x.shape[-1], theta=theta)
    return rotary.turn(x[None].astype(np.float64), *turned)[0]


def heads(rng, T, Hq, Hk, d, *, hidden=(), size=1.0):
    """q, k, v, valid, cos, sin. hidden: positions that are padding."""
    q, k, v = (rng.normal(size=(T, H, d)) for H in (Hq, Hk, Hk))
    valid = ~np.isin(np.arange(T), hidden)
    start = int(rng.integers(5))
    angle = np.arange(start, start + T)[:, None] * 100.0 ** (-2 * np.arange(d // 2) / d)
    return size * q, size * k, v, valid, np.cos(angle), np.sin(angle)


def attention_cases(rng):
    """Grouped queries, padding at the start, in the middle and everywhere, huge scores, T = 1."""
    return [
        heads(rng, 5, 2, 2, 4),
        heads(rng, 6, 6, 3, 4),
        heads(rng, 7, 4, 1, 2, hidden=(2, 3)),
        heads(rng, 6, 6, 3, 2, hidden=(0, 1, 4)),
        heads(rng, 4, 2, 1, 4, hidden=range(4)),
        heads(rng, 5, 4, 2, 6, size=1e5, hidden=(0, 3)),
        heads(rng, 1, 3, 3, 2),
        _all_negative(rng),
    ]


def _all_negative(rng):
    """All scores are about −10¹⁰: a mask that is a large negative number is not −∞."""
    q, k, v, valid, cos, sin = heads(rng, 6, 2, 2, 2, hidden=(1, 5))
    direction = np.array([1.0, 0.0])
    none = np.zeros_like(sin)
    q = 1e5 * (direction + 0.1 * rng.normal(size=q.shape))
    k = -1e5 * (direction + 0.1 * rng.normal(size=k.shape))
    return q, k, v, valid, np.ones_like(cos), none


def _pattern(q, valid, cos, sin):
    T, _, d = q.shape
    turned = Rotary(cos, sin)
    return package_attention.Pattern(
        *(T, 0, 0, valid[None], d**-0.5, None),
        rotary=turned,
        key_rotary=turned,
    )


def attention(q, k, v, valid, cos, sin):
    pattern = _pattern(q, valid, cos, sin)
    return package_attention.attend_numpy(q[None], k[None], v[None], pattern)[0][0]


def attention_backward_cases(rng):
    """In the last case a gradient by differences of the loss would take minutes."""
    cases = attention_cases(rng)[:5]
    cases += [heads(rng, 4, 2, 2, 4, size=30.0), heads(rng, 120, 6, 3, 16, hidden=(0, 5, 6))]
    return [(rng.normal(size=case[0].shape), *case) for case in cases]


def attention_backward(dout, q, k, v, valid, cos, sin):
    q, k, v = q[None], k[None], v[None]
    pattern = _pattern(q[0], valid, cos, sin)
    out, log_sum = package_attention.attend_numpy(q, k, v, pattern)
    cache = package_attention.Cache({}, (), q, k, v, out, log_sum, pattern, False)
    dq, dk, dv, _ = package_attention.attend_backward_numpy(dout[None], cache)
    return dq[0], dk[0], dv[0]


# --- Norm and block -------------------------------------------------------------------------------


def norm_cases(rng):
    """One, two and three axes; rows of very different size and of 0; an eps that matters."""
    cases = []
    for shape, eps in (((6, 4), 1e-5), ((2, 3, 5), 0.3), ((7,), 1e-5), ((4, 1), 0.5)):
        cases.append((rng.normal(size=shape), eps))
    sizes = rng.permutation([1e3, 1.0, 1e-3, 0.0])[:, None]
    cases += [(sizes * rng.normal(size=(4, 6)), 1e-4), (np.zeros((2, 3)), 0.25)]
    return [(rng.normal(size=x.shape), x, rng.normal(size=x.shape[-1]), eps) for x, eps in cases]


def norm(x, g, eps):
    """The package's norm in NumPy, so that nothing is compiled for a grading: -> y, cache."""
    y, r = norms.rms_forward_numpy(g, x, eps)
    return y, norms.RmsCache(x, g, r)


def norm_backward(dy, x, g, eps):
    return norms.rms_backward_numpy(dy, norm(x, g, eps)[1])


def block(rng, T, D, E, H, k, *, idle=()):
    """The inputs of a block's backward pass. idle: experts that nobody chooses."""
    shapes = {"g1": (D,), "wv": (D, D), "g2": (D,), "router": (D, E), "w1": (E, D, H)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    params["w2"] = rng.normal(size=(E, H, D)) / np.sqrt(H)
    able = np.array([m for m in range(E) if m not in idle])
    choice = able[np.argsort(rng.random((T, len(able))), axis=1)[:, :k]]
    mix = np.tril(rng.random((T, T)))
    mix /= mix.sum(axis=1, keepdims=True)
    return params, rng.normal(size=(T, D)), mix, choice, rng.normal(size=(T, D))


def block_cases(rng):
    """k from 1 to E, idle experts, a sharp router; last, too large for differences of the loss."""
    return [
        block(rng, 6, 4, 5, 3, 2),
        block(rng, 5, 3, 4, 6, 2, idle=(0, 3)),
        block(rng, 4, 5, 3, 4, 3),
        block(rng, 5, 4, 3, 2, 1),
        _sharp(rng),
        block(rng, 1, 4, 3, 2, 2),
        _small_numbers(rng),
        block(rng, 80, 24, 12, 32, 2, idle=(7,)),
    ]


def _sharp(rng):
    """A block whose logits, and their differences within and between rows, are in the thousands."""
    params, x, mix, choice, dout = block(rng, 6, 3, 4, 5, 3)
    h, _ = norm(x, params["g1"], EPS)
    u, _ = norm(x + mix @ h @ params["wv"], params["g2"], EPS)
    chosen = np.take_along_axis(u @ params["router"], choice, axis=1)
    if chosen.max() < -chosen.min():
        params["router"] *= -1
        chosen = -chosen
    largest = chosen.max(axis=1)
    apart = np.abs(largest - chosen.sum(axis=1)).max()
    least = min(largest.max(), np.ptp(largest), np.ptp(chosen, axis=1).max(), apart)
    params["router"] *= 2000 / least
    return params, x, mix, choice, dout


def _small_numbers(rng):
    """A block in which the squares are about as large as eps."""
    params, x, mix, choice, dout = block(rng, 5, 4, 3, 2, 2)
    params["wv"] *= 3e-3
    return params, 3e-3 * x, mix, choice, dout


def block_backward(params, x, mix, choice, dout):
    """With all experts on all tokens, and a weight of 0 where a token has not chosen one."""
    h, norm1 = norm(x, params["g1"], EPS)
    a = x + mix @ h @ params["wv"]
    u, norm2 = norm(a, params["g2"], EPS)
    logits = u @ params["router"]
    kept = (choice[:, :, None] == np.arange(logits.shape[1])).any(axis=1)
    logits = np.where(kept, logits, -np.inf)
    G = np.exp(logits - logits.max(axis=1, keepdims=True))
    G /= G.sum(axis=1, keepdims=True)

    z = np.maximum(np.einsum("td,edh->teh", u, params["w1"]), 0)
    dG = np.einsum("td,teh,ehd->te", dout, z, params["w2"])
    dz = np.einsum("te,td,ehd->teh", G, dout, params["w2"]) * (z > 0)
    dlogits = G * (dG - (G * dG).sum(axis=1, keepdims=True))
    du = np.einsum("teh,edh->td", dz, params["w1"]) + dlogits @ params["router"].T
    da, dg2 = norms.rms_backward_numpy(du, norm2)
    da = da + dout
    dx, dg1 = norms.rms_backward_numpy(mix.T @ da @ params["wv"].T, norm1)
    grads = {"g1": dg1, "wv": (mix @ h).T @ da, "g2": dg2, "router": u.T @ dlogits}
    grads["w1"] = np.einsum("td,teh->edh", u, dz)
    grads["w2"] = np.einsum("te,teh,td->ehd", G, z, dout)
    return da + dx, grads


def near_block(wanted, got, inputs):
    """Each gradient within 1e-3, or 1e-5 of the largest; of weights that are 1, exactly nothing."""
    message = near(wanted, got, inputs)
    if not message and inputs[3].shape[1] == 1 and np.abs(got[1]["router"]).max() > 1e-5:
        return "the result[1]['router']: with k = 1 the weight is always 1; wanted 0"
    return message


# --- Loss and step --------------------------------------------------------------------------------


def loss_cases(rng):
    """Padding whose logits are anything, none valid, all valid, and logits in the thousands."""
    cases = []
    for B, T, V, padded in ((2, 4, 5, 0), (3, 5, 4, 7), (1, 1, 3, 0), (2, 3, 6, 6), (2, 4, 3, 5)):
        logits = 2 * rng.normal(size=(B, T, V))
        targets = rng.integers(V, size=(B, T))
        hidden = rng.permutation(B * T)[:padded]
        targets.flat[hidden] = -1
        cases.append((logits, targets))
    anything = rng.permutation([np.nan, np.inf, -np.inf, 1e300, 0.0])
    logits, targets = cases[-1]
    logits[targets < 0] = anything[:, None]
    cases[3][0][0, 0] = np.nan
    far = np.array([900.0, -900.0, 0.0, 4000.0])[:, None] + rng.normal(size=(2, 4, 3))
    far[0, 1] = rng.permutation([1500.0, -1500.0, 0.0])
    far_targets = rng.integers(3, size=(2, 4))
    far_targets[0, 1] = far[0, 1].argmin()
    far_targets[1, 0] = -1
    return [
        *cases,
        (far, far_targets),
        (rng.normal(size=(1, 70, 300)), rng.integers(300, size=(1, 70))),
    ]


def loss_and_gradient(logits, targets):
    rows = logits.reshape(-1, logits.shape[-1])
    valid = targets.ravel() >= 0
    rows = np.where(valid[:, None], rows, 0.0)
    n = max(valid.sum(), 1)
    top = rows.max(axis=1, keepdims=True)
    log_p = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    hot = np.arange(rows.shape[1]) == targets.ravel()[:, None]
    dlogits = (np.exp(log_p) - hot) * valid[:, None] / n
    return 0.0 - log_p[hot].sum() / n, dlogits.reshape(logits.shape)


STEP_SHAPES = {"router": (3, 4), "w1": (4, 3, 2), "b1": (4, 2), "g": (3,), "bias": (2,)}


def step_inputs(rng, counts, t, *, max_norm=1.0, size=1.0, idle=None):
    """params, parts, m, v, t, lr, weight decay, max_norm. idle: an expert without tokens."""
    draw = {name: rng.normal(size=shape) for name, shape in STEP_SHAPES.items()}
    parts = []
    for n in counts:
        grads = {name: size * rng.normal(size=shape) for name, shape in STEP_SHAPES.items()}
        if idle is not None:
            grads["w1"][idle] = grads["b1"][idle] = 0
        if n == 0:
            grads = {name: np.full(shape, np.nan) for name, shape in STEP_SHAPES.items()}
        parts.append((grads, n))
    m = {name: 0.1 * rng.normal(size=s) * (t > 1) for name, s in STEP_SHAPES.items()}
    v = {name: rng.uniform(0.01, 0.1, s) * (t > 1) for name, s in STEP_SHAPES.items()}
    return draw, parts, m, v, t, 0.1, 0.3, max_norm


def step_cases(rng):
    """One part and several, of different and of no tokens; clipped or not; first and later."""
    cases = [
        step_inputs(rng, (4,), 1, max_norm=100.0),
        step_inputs(rng, (7, 2), 3, max_norm=100.0),
        step_inputs(rng, (3, 0, 8), 2),
        step_inputs(rng, (5, 1), 400, size=1e3, idle=2),
        step_inputs(rng, (0, 6), 2, max_norm=50.0, idle=0),
        step_inputs(rng, (3,), 1, size=1e-8),  # ε counts
    ]
    params, parts, *rest = step_inputs(rng, (2, 2), 5)
    nothing = {name: np.zeros(shape) for name, shape in STEP_SHAPES.items()}
    return [*cases, (params, [(nothing, n) for _, n in parts], *rest)]


def training_step(params, parts, m, v, t, lr, weight_decay, max_norm):
    grads, _ = optim.accumulate((g, n) for g, n in parts if n > 0)
    scale = optim.clip_scale(optim.global_norm(grads), max_norm)
    state = optim.AdamState(t - 1, m, v)
    options = {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.95), "scale": scale}
    new, state = optim.adamw(params, grads, state, **options)
    return new, state.m, state.v


def close_step(wanted, got, inputs):
    """The means of squares may be small: within 1e-3 of each value, or 1e-7."""
    return close(1e-3, 1e-7)(wanted, got)


# --- The audit: right routers, and faults that public code has ------------------------------------

ROUTER = """
import numpy as np

{before}

def route(logits, k, valid):
    N, E = logits.shape
    {start}
    choice = {choice}
    kept = np.take_along_axis(logits, choice, axis=1)
    weight = {weight}
    weight = {weights_of}
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    {counted}
    n = {n}
    f = {f}
    loss = {loss}
    return {result}
"""
PARTS = {
    "before": "calls = []",
    "start": "pass",
    "choice": 'np.argsort(-logits, axis=1, kind="stable")[:, :k]',
    "weight": "np.exp(kept - kept.max(axis=1, keepdims=True))",
    "weights_of": "weight / weight.sum(axis=1, keepdims=True) * valid[:, None]",
    "counted": "counted = valid",
    "n": "max(counted.sum(), 1)",
    "f": "np.bincount(choice[counted].ravel(), minlength=E) / (n * k)",
    "loss": "E * (f * p[counted].sum(axis=0) / n).sum()",
    "result": "choice, weight, loss",
}


def router(**parts):
    """The source of a router in which these parts are others."""
    return ROUTER.format(**{**PARTS, **parts})


LOOP = """
import math

def route(logits, k, valid):
    N, E = logits.shape
    choice, weight, count, P, n = [], [], [0] * E, [0.0] * E, 0
    for row, is_valid in zip(logits.tolist(), valid.tolist()):
        best = sorted(range(E), key=lambda m: (-row[m], m))[:k]
        e = [math.exp(row[m] - row[best[0]]) for m in best]
        choice.append(best)
        weight.append([x / sum(e) * is_valid for x in e])
        if is_valid:
            n += 1
            total = sum(math.exp(a - row[best[0]]) for a in row)
            for m in range(E):
                count[m] += m in best
                P[m] += math.exp(row[m] - row[best[0]]) / total
    return choice, weight, sum(c * q for c, q in zip(count, P)) * E / max(k * n * n, 1)
"""
RIGHT = (
    router(),
    LOOP,
    router(
        start="logits = logits.astype(np.float32)",
        result="choice.astype(np.int32), weight.astype(np.float32), np.float32(loss)",
    ),
    router(result="np.where(valid[:, None], choice, 0), weight, loss"),
)
FIRST_CALL = "calls.append(1)"
BROKEN = {
    "weights that are not renormalised": router(
        weight="np.exp(kept - logits.max(axis=1, keepdims=True))",
        weights_of="weight / np.exp(logits - logits.max(axis=1, keepdims=True))"
        ".sum(axis=1, keepdims=True) * valid[:, None]",
    ),
    "of equal logits the highest number": router(
        choice='E - 1 - np.argsort(-logits[:, ::-1], axis=1, kind="stable")[:, :k]'
    ),
    "the best last": router(choice='np.argsort(-logits, axis=1, kind="stable")[:, :k][:, ::-1]'),
    "overflow": router(weight="np.exp(kept)"),
    "the loss k times too large": router(f="np.bincount(choice[counted].ravel(), minlength=E) / n"),
    "padding in the loss": router(counted="counted = np.ones(N, bool)"),
    "padding in the shares f": router(f="np.bincount(choice.ravel(), minlength=E) / (N * k)"),
    "padding has weights": router(weights_of="weight / weight.sum(axis=1, keepdims=True)"),
    "the logits are changed": router(start="logits -= logits.max(axis=1, keepdims=True)"),
    "padding is set to 0 in place": router(start="logits[~valid] = 0"),
    "the loss has the probabilities of the kept": router(
        counted="counted = valid\n    p = np.zeros((N, E))\n"
        "    np.put_along_axis(p, choice, weight, axis=1)"
    ),
    "noise in evaluation": router(
        start="logits = logits + 1e-2 * np.random.default_rng().normal(size=logits.shape)"
    ),
    "noise from the second call on": router(
        start=f"{FIRST_CALL}\n    logits = logits + 0.5 * (len(calls) > 1) * np.arange(E)"
    ),
    "looks at other tokens": router(start="logits = logits - 0.5 * logits.mean(axis=0)"),
    "a capacity that was not asked for": router(
        weights_of="weight / weight.sum(axis=1, keepdims=True) * valid[:, None] * "
        "((choice[:, :, None] == np.arange(E)).cumsum(axis=0).max(axis=1) <= max(1, N * k // E))"
        "[np.arange(N)[:, None], choice]"
    ),
    "a small number in the denominator": router(
        weights_of="weight / (weight.sum(axis=1, keepdims=True) + 1e-2) * valid[:, None]"
    ),
    "0/0 without valid tokens": router(n="counted.sum() * np.float64(1)"),
    "one token has lost an axis": router(result="choice, weight[0] if N == 1 else weight, loss"),
    "fails for k = E": router(
        choice='np.argsort(-logits, axis=1, kind="stable")[:, :k] if k < E else logits[:, E]'
    ),
    "k = 1 has lost an axis": router(result="choice, weight[:, 0] if k == 1 else weight, loss"),
    "experts counted from 1": router(result="choice + 1, weight, loss"),
    "choice and weight in different orders": router(result="choice[:, ::-1], weight, loss"),
    "a sum in place of the mean": router(loss="E * (f * p[counted].sum(axis=0)).sum()"),
    "sigmoid": router(weight="1 / (1 + np.exp(-kept))"),
    "the loss without E": router(loss="(f * p[counted].sum(axis=0) / n).sum()"),
}


def audit_cases(rng):
    """A right router and two broken ones, in any order; each broken one at least once."""
    broken = rng.permutation(list(BROKEN)).tolist()
    broken += broken[: len(broken) % 2]
    cases = []
    for number, (one, other) in enumerate(zip(broken[::2], broken[1::2], strict=True)):
        sources = (RIGHT[number % len(RIGHT)], BROKEN[one], BROKEN[other])
        cases.append(tuple(sources[i] for i in rng.permutation(3)))
    return cases


def run_audit(*sources):
    """An audit passes what is right."""
    return tuple(source in RIGHT for source in sources)


def told_apart(wanted, got, inputs):
    """Was the right router passed, and were the broken ones found?"""
    message = close(0, 0)(wanted, got)
    match = re.match(r"the result\[(\d)\]: wanted (\d), got [01] ", message)
    if match is None:
        return message
    if match[2] == "1":
        return "a right router was called broken"
    source = inputs[int(match[1])]
    name = next((name for name, text in BROKEN.items() if text == source), "")
    return f"a broken router was not found: {name}"


QUESTIONS = (
    Question("q1_rotate", "rotate", 2, rotate_cases, rotate, SINGLE),
    Question("q2_attention", "attention", 3, attention_cases, attention, SINGLE),
    Question(
        *("q3_attention_backward", "attention_backward", 5),
        *(attention_backward_cases, attention_backward, near),
        seconds=5,
    ),
    Question("q4_norm", "norm_backward", 2, norm_cases, norm_backward, near),
    Question("q5_block", "block_backward", 5, block_cases, block_backward, near_block, seconds=5),
    Question("q6_loss", "loss_and_gradient", 3, loss_cases, loss_and_gradient, SINGLE),
    Question("q7_step", "training_step", 3, step_cases, training_step, close_step),
    Question("q8_audit", "run_audit", 2, audit_cases, run_audit, told_apart, searched=True),
)
