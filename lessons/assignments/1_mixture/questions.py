"""Questions of assignment 1: the parts of a mixture of local experts, one function at a time."""

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import Question, close
from moe_np.data.speech.vowels import vowel_task
from moe_np.mixtures import jacobs1991

TITLE = "Assignment 1: a mixture of local experts"
AFTER = "lesson 04"
HOURS = "two to three"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck", "moe_np.data.speech.vowels")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do
FAR = close(3e-3, 1e-5)  # the same where exponents are in the thousands
TRAINED = close(1e-3, 1e-5)  # after a few dozen updates


def summed(wanted, got, inputs):
    """Also right within 1e-5 of the largest value, since much cancels in a sum over cases."""
    return close(1e-4, 1e-5 * max(1, *(np.abs(w).max() for w in wanted)))(wanted, got)


def softmax_cases(rng):
    masked = rng.normal(size=(4, 5))
    masked[np.arange(4), rng.integers(5, size=4)] = -np.inf
    # one row of very large totals, one of very small ones, one of ordinary ones
    far = rng.normal(size=(3, 4)) + np.array([[900.0], [-900.0], [0.0]])
    return [(rng.normal(size=(6, 3)),), (rng.normal(size=(2, 7)) * 5,), (far,), (masked,)]


def gate_cases(rng):
    """In the last case a gradient by differences of the loss would take minutes."""
    cases = []
    for N, D, E in ((7, 2, 3), (4, 5, 2), (1, 3, 4), (6000, 10, 4)):
        p = numerics.softmax(rng.normal(size=(N, E)))
        dp, x, U = (rng.normal(size=shape) for shape in ((N, E), (N, D), (D, E)))
        cases.append((dp, x, U, p))
    return cases


def gate_backward(dp, x, U, p):
    dx, grads = jacobs1991.gate_backward(dp, jacobs1991.GateCache(x, U, None, p))
    return dx, grads["U"], grads["c"]


def outputs_and_targets(rng, N, E, C, far=0.0):
    """Outputs, gate and targets for equation 3; the targets are moved outwards by `far`."""
    o = rng.normal(size=(N, E, C))
    d = rng.normal(size=(N, C))
    d = d * (1 + far / np.linalg.norm(d, axis=1, keepdims=True))
    return o, numerics.softmax(rng.normal(size=(N, E))), d


def mixture_cases(rng):
    closed = outputs_and_targets(rng, 5, 3, 2)
    closed[1][:, 0] = 0  # a gate that has shut one expert out
    closed[1][:] /= closed[1].sum(axis=1, keepdims=True)
    return [
        outputs_and_targets(rng, 6, 4, 2),
        outputs_and_targets(rng, 3, 2, 1),
        outputs_and_targets(rng, 4, 3, 2, far=45.0),
        closed,
    ]


def backward_cases(rng):
    return [*mixture_cases(rng), outputs_and_targets(rng, 6000, 4, 2)]


def mixture_loss(o, p, d):
    return jacobs1991.mixture_forward(o, p, d)[0]


def responsibilities(o, p, d):
    return jacobs1991.mixture_forward(o, p, d)[1].resp


def mixture_backward(o, p, d):
    loss, cache = jacobs1991.mixture_forward(o, p, d)
    do, _ = jacobs1991.mixture_backward(np.ones_like(loss), cache)
    return do, p - cache.resp


def train_cases(rng):
    task = vowel_task()
    cases = []
    for E, N, epochs in ((3, 40, 1), (4, 60, 12), (2, 30, 25)):
        subset = rng.choice(len(task.x_train), N, replace=False)
        params = jacobs1991.init_mixture(rng, E, init_range=0.5)
        params["U"] = rng.normal(size=(2, E)) * 0.3
        params["c"] = rng.normal(size=E) * 0.3
        cases.append((params, task.x_train[subset], task.d_train[subset], 0.05, epochs))
    return cases


def train(params, x, d, lr, epochs):
    return next(
        step for step in jacobs1991.train(params, x, d, lr=lr) if step.number == epochs
    ).params


def report_cases(rng):
    """Cases away from every border: no blend near ½, no two gates alike.

    One expert is rarely the largest.
    """
    cases = []
    while len(cases) < 3:
        E = int(rng.integers(2, 6))
        N = 50
        params = jacobs1991.init_mixture(rng, E, init_range=2.0)
        params["U"] = rng.normal(size=(2, E))
        params["c"] = rng.normal(size=E)
        x = rng.uniform(0.2, 3.0, (N, 2))
        y = jacobs1991.predict(params, x)
        p = jacobs1991.gate_forward(params, x)[0]
        top = np.sort(p, axis=1)
        share = np.bincount(p.argmax(axis=1), minlength=E) / N
        clear = abs(y - 0.5).min() > 1e-4 and (top[:, -1] - top[:, -2]).min() > 1e-4
        if clear and ((share > 0) & (share < 0.045)).any() and (share > 0.055).sum() > 1:
            cases.append((params, x, (rng.random((N, 1)) < 0.5).astype(float)))
    return cases


def report(params, x, d):
    y = jacobs1991.predict(params, x)
    p = jacobs1991.gate_forward(params, x)[0]
    correct = 100 * float(((y > 0.5) == (d > 0.5)).mean())
    return (
        float(((d - y) ** 2).sum(axis=1).mean()),
        correct,
        int(jacobs1991.active_experts(p).sum()),
    )


QUESTIONS = (
    Question("q1_softmax", "softmax", 2, softmax_cases, numerics.softmax, SINGLE),
    Question("q2_gate_backward", "gate_backward", 3, gate_cases, gate_backward, summed),
    Question("q3_mixture_loss", "mixture_loss", 3, mixture_cases, mixture_loss, SINGLE),
    Question("q4_responsibilities", "responsibilities", 2, mixture_cases, responsibilities, FAR),
    Question("q5_mixture_backward", "mixture_backward", 3, backward_cases, mixture_backward, FAR),
    Question("q6_train", "train", 4, train_cases, train, TRAINED),
    Question("q7_report", "report", 3, report_cases, report, SINGLE),
)
