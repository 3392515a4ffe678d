"""Questions of assignment 3: a noisy top-k gate, its load estimator, and load-balancing losses."""

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import Question, close
from moe_np.layers import balance
from moe_np.routing import contract, noisy_top_k, top_k

TITLE = "Assignment 3: noisy top-k gates and balance"
AFTER = "lessons 07 and 09"
HOURS = "three to four"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck", "moe_np.data.regimes")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do
LARGE = close(1e-4, 1e-3)  # the same, of logits in the hundreds

MANY = 8000  # tokens, for which a gradient by differences of the loss would take minutes


def apart(logits):
    """Whether no two logits of a token are so near that rounding could change their order."""
    return np.diff(np.sort(logits, axis=1), axis=1).min() > 1e-3


def drawn_apart(draw):
    """The first result of `draw()` without two logits that are nearly equal."""
    while True:
        logits = draw()
        if apart(logits):
            return logits


def logits_on_a_grid(rng, N, E):
    """Logits of many tokens, apart in a single draw."""
    order = rng.permuted(np.tile(np.arange(E), (N, 1)), axis=1)
    return 0.7 * order + rng.uniform(0, 0.3, (N, E)) - 1


# --- The gate -------------------------------------------------------------------------------------


def gate_cases(rng):
    """Without ties, with ties at the border, all tied, and far from 0.

    Among 40 experts a sort that is not stable shows; within 16 NumPy's sort is stable by chance.
    """
    sizes = ((7, 5, 2), (6, 4, 1), (5, 6, 3), (4, 3, 3))
    untied = [(drawn_apart(lambda N=N, E=E: rng.normal(size=(N, E))), k) for N, E, k in sizes]
    tied = np.array([rng.permutation([0.5, 0.5, 0.5, 2.0, -1.0]) for _ in range(6)])
    far = drawn_apart(lambda: rng.normal(size=(4, 5))) + np.array([[900.0], [-900.0], [0.0], [0.0]])
    cases = [(logits, k, renormalise) for logits, k in untied for renormalise in (k > 1, False)]
    cases += [(tied, 2, True), (tied, 3, False), (np.zeros((3, 4)), 2, True)]
    few_values = rng.choice([1.0, 2.0, 3.0], size=(6, 40))
    many_tied = [(np.zeros((2, 40)), 5, True), (few_values, 7, True), (few_values, 18, False)]
    far_tied = tied + rng.permuted([[900.0], [-900.0], [900.0], [-900.0], [0.0], [0.0]], axis=0)
    far_apart = rng.permuted([[900.0, 10.0, -890.0, -900.0], [-900.0, -10.0, 890.0, 0.0]], axis=1)
    one_expert = rng.normal(size=(3, 1))
    cases += [*many_tied, (far_tied, 2, True), (far_tied, 3, False), (one_expert, 1, True)]
    cases += [(far_apart, 3, renormalise) for renormalise in (True, False)]
    return [*cases, (far, 2, True), (far, 2, False)]


def top_k_gate(logits, k, renormalise):
    choice = contract.top_k(logits, k)
    kept = contract.demand_of(choice, logits.shape[1])
    if renormalise:
        return numerics.softmax(np.where(kept, logits, -np.inf)), kept
    return numerics.softmax(logits) * kept, kept


def backward_cases(rng):
    cases = []
    settings = ((6, 5, 2, True), (6, 5, 2, False), (5, 4, 1, True), (5, 4, 1, False))
    more = ((4, 6, 3, True), (3, 4, 4, True), (3, 4, 4, False), (MANY, 6, 2, True))
    for N, E, k, renormalise in (*settings, *more):
        logits = rng.normal(size=(N, E))
        kept = contract.demand_of(contract.top_k(logits, k), E)
        cases.append((rng.normal(size=(N, E)), logits, kept, renormalise))
    shift = np.array([[900.0], [-900.0], [0.0], [2.0], [900.0]])
    for k, renormalise in ((2, True), (2, False)):
        logits = shift + rng.normal(size=(5, 4))
        logits[2, :2] = [700.0, -700.0]
        kept = contract.demand_of(contract.top_k(logits, k), 4)
        cases.insert(0, (rng.normal(size=(5, 4)), logits, kept, renormalise))
    for dG, _, kept, _ in cases[:4]:  # what is not kept has no meaning: whatever was in memory
        dG[~kept] = rng.choice([np.nan, np.inf, -np.inf, 1e300], size=(~kept).sum())
    return cases


def gate_backward(dG, logits, kept, renormalise):
    G = numerics.softmax(np.where(kept, logits, -np.inf))
    if renormalise:
        return numerics.softmax_backward(np.where(kept, dG, 0), G)
    return numerics.softmax_backward(np.where(kept, dG, 0), numerics.softmax(logits))


def compare_backward(wanted, got, inputs):
    """A gradient that is 0 has to be exactly 0, which it is not with a small denominator."""
    message = SINGLE(wanted, got)
    if message or not inputs[3]:
        return message
    got = np.asarray(got)
    kept = inputs[2]
    if np.any(got[~kept] != 0):
        largest = np.abs(got[~kept]).max()
        return f"a logit that is not kept, renormalised: wanted exactly 0, got {largest:.2g}"
    if kept.sum(axis=1).max() == 1 and np.abs(got).max() > 1e-7:
        return f"k = 1, renormalised: wanted 0, got {np.abs(got).max():.2g}"
    return ""


# --- Noise and load -------------------------------------------------------------------------------


def noise_cases(rng):
    cases = []
    for N, D, E, size in ((6, 3, 4, 1), (5, 2, 3, 1), (4, 2, 5, 2000)):
        x, w, w_noise = (rng.normal(size=shape) for shape in ((N, D), (D, E), (D, E)))
        w_noise = size * w_noise
        cases.append((x, w, w_noise, rng.normal(size=(N, E))))
    both = w_noise * rng.permutation([1, 1, 1 / 2000, 1 / 2000, 1 / 200])  # small and large
    cases += [(x, w, both, rng.normal(size=(N, E))), (x, w, w_noise, np.zeros((N, E)))]
    return [*cases, (x, w, w_noise / 2000, None), (x, w, both, None)]


def noisy_logits(x, w, w_noise, noise):
    clean = x @ w
    sigma = numerics.softplus(x @ w_noise)
    return clean, sigma, clean if noise is None else clean + sigma * noise


def load_cache(clean, sigma, noise, k, valid):
    """The cache of the router's forward pass."""
    noisy = clean + sigma * noise
    ranked = contract.top_k(noisy, min(k + 1, noisy.shape[1]))
    runner_up = ranked[:, k] if k < noisy.shape[1] else None
    gate = {"choice": ranked[:, :k], "runner_up": runner_up, "weight": np.zeros((len(noisy), k))}
    logits = {"clean": clean, "raw": None, "sigma": sigma, "noise": noise, "noisy": noisy}
    return noisy_top_k.Cache(x=None, w=None, w_noise=None, **logits, **gate, valid=valid)


def drawn_gate(rng, N, E):
    """clean, sigma, noise."""
    while True:
        clean = 1.5 * rng.normal(size=(N, E))
        sigma = rng.uniform(0.3, 2, (N, E))
        noise = rng.normal(size=(N, E))
        if apart(clean + sigma * noise):
            return clean, sigma, noise


def load_cases(rng):
    """Every k, each with all kinds of padding: numbers, not a number, infinite, and all 0."""
    cases = []
    settings = ((12, 5, 2, 0), (9, 4, 1, 3), (8, 6, 3, 2), (7, 4, 4, 2), (9, 5, 4, 4), (8, 2, 1, 5))
    for N, E, k, padded in settings:
        clean, sigma, noise = drawn_gate(rng, N, E)
        valid = rng.permutation(np.arange(N) >= padded)
        cases.append((clean, sigma, clean + sigma * noise, k, valid))
    for clean, sigma, noisy, _, valid in cases[2:]:
        arbitrary = rng.permutation([np.nan, np.inf, 0.0, -1e300, -np.inf])
        for row, number in zip(np.flatnonzero(~valid), arbitrary, strict=False):
            for array in (clean, sigma, noisy):
                array[row] = number
    far = rng.normal(size=(6, 1)) * 900
    clean, sigma, noise = drawn_gate(rng, 6, 4)
    return [*cases, (clean + far, sigma, clean + far + sigma * noise, 2, np.ones(6, bool))]


def load(clean, sigma, noisy, k, valid):
    clean = clean[valid]
    sigma = sigma[valid]
    noise = (noisy[valid] - clean) / sigma
    everything = np.ones(len(clean), bool)
    return noisy_top_k.load_forward(load_cache(clean, sigma, noise, k, everything))[0]


def load_backward_cases(rng):
    cases = []
    for N, E, k in ((6, 5, 2), (5, 4, 1), (8, 6, 3), (4, 3, 2), (3, 2, 1), (1, 4, 3)):
        clean, sigma, noise = drawn_gate(rng, N, E)
        cases.append((rng.normal(size=E), clean, sigma, noise, k))
    sigma = rng.uniform(0.3, 2, (MANY, 5))
    noise = rng.normal(size=(MANY, 5))
    dload = rng.normal(size=5)
    clean = logits_on_a_grid(rng, MANY, 5) - sigma * noise
    return [*cases, (dload, clean, sigma, noise, 2)]


def load_backward(dload, clean, sigma, noise, k):
    return noisy_top_k.load_logits_backward(
        dload, load_cache(clean, sigma, noise, k, np.ones(len(clean), bool))
    )


# --- Balance --------------------------------------------------------------------------------------


def cv_cases(rng):
    """At the end: one expert gets all, perfect balance, one expert, no assignments."""
    cases = [(rng.uniform(0.2, 5, E),) for E in (2, 5, 8)]
    limits = (np.array([7.0, 0, 0, 0]), np.full(4, 3.0), np.array([2.5]), np.zeros(3))
    sizes = (1e-3 * rng.random(4), 1e5 * rng.random(3), rng.integers(70_000, size=5), np.zeros(1))
    return [*cases, *((v,) for v in (*limits, *sizes))]


def switch_cases(rng):
    cases = []
    settings = ((8, 4, 1, 0), (7, 5, 2, 3), (10, 3, 1, 4), (6, 6, 3, 1), (6, 4, 4, 2), (5, 4, 2, 4))
    for N, E, k, padded in settings:
        logits = drawn_apart(lambda N=N, E=E: rng.normal(size=(N, E)) + rng.normal(size=E))
        valid = rng.permutation(np.arange(N) >= padded)
        cases.append((logits + np.where(valid, 0, 900)[:, None], k, valid))
    shift = np.array([[900.0], [-900.0], [0.0], [0.0]])
    far = drawn_apart(lambda: shift + rng.normal(size=(4, 3)))
    one_idle = drawn_apart(lambda: rng.normal(size=(7, 4)) - [9, 0, 0, 9])
    within = rng.permuted([[800.0, 0.0, -800.0], [0.0, 1.0, -900.0]], axis=1)
    cases += [(far, 1, np.ones(4, bool)), (within, 2, np.ones(2, bool))]
    cases += [(one_idle, 1, np.arange(7) > 0)]
    return [*cases, (logits_on_a_grid(rng, MANY, 6), 2, rng.random(MANY) < 0.9)]


def switch_loss(logits, k, valid):
    routing = top_k.route({"w": np.eye(logits.shape[1])}, logits, k=k, renormalise=False)[0]
    loss = balance.switch(routing, valid=valid)
    return loss.value, loss.dlogits


def z_cases(rng):
    cases = []
    settings = ((6, 4, 0, 0), (7, 3, 3, 0), (5, 8, 1, -5), (4, 3, 2, 800), (MANY, 6, 99, 0))
    for N, E, padded, shift in settings:
        cases.append((rng.normal(size=(N, E)) + shift, rng.permutation(np.arange(N) >= padded)))
    both = rng.normal(size=(6, 3)) + np.array([[800.0], [-900.0], [0.0], [2.0], [-5.0], [900.0]])
    within = rng.permuted([[800.0, 0.0, -800.0], [0.0, 1.0, -900.0]], axis=1)
    everything = np.ones(6, bool)
    return [
        (both, everything),
        (both, np.array([False, False, True, True, True, False])),
        (within, everything[:2]),
        (rng.normal(size=(3, 1)), everything[:3]),
        *cases,
    ]


def z_loss(logits, valid):
    routing = top_k.route({"w": np.eye(logits.shape[1])}, logits, k=1, renormalise=False)[0]
    loss = balance.z_loss(routing, valid=valid)
    return loss.value, loss.dlogits


QUESTIONS = (
    Question("q1_top_k", "top_k_gate", 3, gate_cases, top_k_gate, SINGLE),
    Question("q2_backward", "gate_backward", 3, backward_cases, gate_backward, compare_backward),
    Question("q3_noise", "noisy_logits", 2, noise_cases, noisy_logits, LARGE),
    Question("q4_load", "load", 3, load_cases, load, SINGLE),
    Question("q5_load_backward", "load_backward", 4, load_backward_cases, load_backward, SINGLE),
    Question("q6_cv", "cv_squared", 3, cv_cases, balance.cv_squared, SINGLE),
    Question("q7_switch", "switch_loss", 3, switch_cases, switch_loss, SINGLE),
    Question("q8_z_loss", "z_loss", 2, z_cases, z_loss, LARGE),
)
