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
    masked_far = rng.permuted([[-np.inf, -np.inf, 900.0, 899.0, 3.0]] * 3, axis=1)
    masked_far[1] -= 1800
    one_row = rng.normal(size=5) - 900
    three_axes = 3 * rng.normal(size=(2, 3, 4))
    three_axes[0, 1] += 900
    cases = (rng.normal(size=(6, 3)), rng.normal(size=(2, 7)) * 5, far, masked, masked_far)
    return [(s,) for s in (*cases, one_row, three_axes, rng.normal(size=(4, 1)))]


def gate_cases(rng):
    """In the last case a gradient by differences of the loss would take minutes."""
    cases = []
    for N, D, E in ((7, 2, 3), (4, 5, 2), (1, 3, 4), (6000, 10, 4)):
        p = numerics.softmax(rng.normal(size=(N, E)))
        dp, x, U = (rng.normal(size=shape) for shape in ((N, E), (N, D), (D, E)))
        cases.append((dp, x, U, p))
    shut = rng.permuted([[0.0, 0.0, 0.3, 0.7], [0.0, 0.0, 0.0, 1.0]] * 2, axis=1)
    sizes = ((4, 4), (4, 3), (3, 4))
    return [(*(rng.normal(size=shape) for shape in sizes), shut), *cases]


def gate_backward(dp, x, U, p):
    dx, grads = jacobs1991.gate_backward(dp, jacobs1991.GateCache(x, U, None, p))
    return dx, grads["U"], grads["c"]


def outputs_and_targets(rng, N, E, C, far=0.0):
    """Outputs, gate and targets for equation 3; the targets are moved outwards by `far`."""
    o = rng.normal(size=(N, E, C))
    d = rng.normal(size=(N, C))
    d = d * (1 + far / np.linalg.norm(d, axis=1, keepdims=True))
    return o, numerics.softmax(rng.normal(size=(N, E))), d


def shut_gates(rng, far):
    """Gates that have shut out one expert in each case, which is the one nearest to the target.

    far   how far the other experts are, per case: a p of 0 that was replaced by any number, however
          small, would leave the shut expert a part of the responsibility
    """
    N, E, C = len(far), 3, 2
    o, p, d = outputs_and_targets(rng, N, E, C)
    rows = np.arange(N)
    shut = rng.integers(E, size=N)
    p[rows, shut] = 0
    p /= p.sum(axis=1, keepdims=True)
    towards = rng.normal(size=(N, 1, C))
    towards /= np.linalg.norm(towards, axis=2, keepdims=True)
    o = o * 0.3 + d[:, None, :] + np.reshape(far, (N, 1, 1)) * towards
    o[rows, shut] = d + 0.1 * rng.normal(size=(N, C))
    return o, p, d


def mixture_cases(rng):
    """Near and far targets, open and shut gates, in one batch and in batches of their own."""
    closed = outputs_and_targets(rng, 5, 3, 2)
    closed[1][:, 0] = 0
    closed[1][:] /= closed[1].sum(axis=1, keepdims=True)
    distances = np.array([[0.0], [45.0], [1.0], [60.0], [8.0]])
    single = rng.normal(size=(3, 2, 1)) * 0.3
    one_open = rng.permuted([[0.0, 1.0]] * 3, axis=1)
    return [
        outputs_and_targets(rng, 6, 4, 2),
        outputs_and_targets(rng, 3, 2, 1),
        outputs_and_targets(rng, 4, 3, 2, far=45.0),
        closed,
        outputs_and_targets(rng, 5, 3, 3, far=distances),
        shut_gates(rng, (0.5, 9.0, 15.0, 45.0, 60.0)),
        shut_gates(rng, (50.0, 45.0)),
        (single, one_open, single[:, 0] + rng.normal(size=(3, 1)) * [[1.0], [9.0], [45.0]]),
        outputs_and_targets(rng, 4, 1, 2, far=distances[:4]),
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
    # other numbers of outputs; in the last, very large totals of the gate
    for N, D, E, C, epochs, size in ((12, 3, 4, 2, 5, 1), (1, 4, 2, 3, 3, 1), (9, 2, 3, 2, 3, 900)):
        params = jacobs1991.init_mixture(rng, E, D, C, init_range=1.0)
        params["U"] = size * rng.normal(size=(D, E))
        params["c"] = rng.normal(size=E)
        d = rng.integers(2, size=(N, C)).astype(float)
        cases.append((params, rng.normal(size=(N, D)), d, 0.1, epochs))
    return cases


def train(params, x, d, lr, epochs):
    return next(
        step for step in jacobs1991.train(params, x, d, lr=lr) if step.number == epochs
    ).params


def report_cases(rng):
    """Cases away from every border: no blend near ½, no two gates alike.

    Each has an expert that wins a number of cases that decides what "at least a twentieth" means:
    exactly a twentieth, a little less, and a little more.
    """
    settings = ((4, 40, 2), (3, 20, 1), (5, 50, 2), (3, 50, 3), (2, 10, 0), (4, 30, 1))
    return [report_case(rng, *setting) for setting in (*settings, (3, 40, 2, 900))]


def report_case(rng, E, N, rare, size=1):
    """A mixture of E experts and N cases, `rare` of which go to one of its experts.

    size   of the gate's parameters
    """
    while True:
        D = int(rng.integers(1, 4))
        params = jacobs1991.init_mixture(rng, E, D, init_range=2.0)
        params["U"] = size * rng.normal(size=(D, E))
        params["c"] = size * rng.normal(size=E)
        x = rng.uniform(-3, 3.0, (40 * N, D))
        p = jacobs1991.gate_forward(params, x)[0]
        top = np.sort(p, axis=1)
        away_from_half = abs(jacobs1991.predict(params, x)[:, 0] - 0.5) > 1e-3
        x = x[away_from_half & (top[:, -1] - top[:, -2] > 1e-3)]
        winner = jacobs1991.gate_forward(params, x)[0].argmax(axis=1)
        seldom = rng.integers(E)
        few = np.flatnonzero(winner == seldom)[:rare]
        rest = np.flatnonzero(winner != seldom)[: N - rare]
        count = np.bincount(winner[rest], minlength=E)
        if len(few) == rare and len(rest) == N - rare and (count > 0.1 * N).any():
            rows = rng.permutation(np.concatenate([few, rest]))
            return params, x[rows], (rng.random((N, 1)) < 0.5).astype(float)


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
