"""Questions of assignment 2: EM for a mixture of experts, from densities to the algorithm."""

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import Question, close
from moe_np.data.inverse import inverse_problem
from moe_np.mixtures.em_families import Categorical, Gaussian
from moe_np.mixtures.least_squares import make_design, weighted_least_squares

TITLE = "Assignment 2: EM for a mixture of experts"
AFTER = "lesson 05"
HOURS = "three to four"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck", "moe_np.data.inverse")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do
LARGE = close(1e-4, 2e-3)  # the same, of totals in the thousands
FITTED = close(1e-3, 1e-5)  # after linear systems, several steps, or far away in float32


SIZES = 10  # of Newton's step: 1, ½, ¼, ... 1/512


# --- Drawing --------------------------------------------------------------------------------------


def inputs(rng, N, D):
    """x (N, D), its last column 1."""
    x = rng.normal(size=(N, D))
    x[:, -1] = 1
    return x


def random_responsibilities(rng, N, E, sure=1.5):
    return numerics.softmax(sure * rng.normal(size=(N, E)))


def with_last_0(U):
    """U (D, E), with the same vector subtracted from all columns so that the last one is 0."""
    return U - U[:, -1:]


def split(W):
    """W (E, D, C), the last input being 1, as the package has it."""
    return {"W": W[:, :-1], "b": W[:, -1]}


# --- Densities ------------------------------------------------------------------------------------


def density_cases(rng):
    """Near, far, and both in one batch; variances of very different size; one of each axis."""
    cases = []
    both = np.array([[0.0], [60.0], [-90.0], [3.0]])
    settings = ((6, 3, 4, 2, 0), (5, 2, 3, 1, 0), (4, 2, 2, 3, 60), (4, 3, 2, 3, both))
    for N, D, E, C, far in (*settings, (1, 2, 3, 2, 1), (3, 1, 1, 2, 1)):
        y = rng.normal(size=(N, C)) + far
        cases.append((inputs(rng, N, D), y, rng.normal(size=(E, D, C)), rng.uniform(0.05, 3, E)))
    x, y, W, _ = cases[0]
    return [*cases, (x, y, W, rng.permutation([1e-6, 1e-3, 1.0, 1e4]))]


def gaussian_log_density(x, y, W, var):
    return Gaussian().log_density({**split(W), "var": var}, make_design(x[:, :-1]), y)


def class_cases(rng):
    """All classes, and one that is absent: the first, one in the middle, the last.

    With small and large totals, and with both in one batch.
    """
    cases = []
    settings = ((7, 3, 4, 2, 1), (8, 2, 2, 5, 1), (9, 2, 3, 3, 1), (5, 3, 2, 3, 900))
    for N, D, E, C, size in settings:
        label = rng.permutation(np.resize(np.arange(C), N))
        cases.append((inputs(rng, N, D), label, size * rng.normal(size=(E, D, C))))
    for absent in ({0}, {2}, {3}, {0, 1, 3}, {1, 2, 3}):
        size = rng.permuted([[1.0], [900.0], [1.0]], axis=0)[:, :, None]
        label = rng.permutation(np.resize([c for c in range(4) if c not in absent], 6))
        cases.append((inputs(rng, 6, 2), label, size * rng.normal(size=(3, 2, 4))))
    one_class = (inputs(rng, 3, 2), np.zeros(3, np.int64), rng.normal(size=(2, 2, 1)))
    large_input = inputs(rng, 4, 2)
    large_input[1:3, 0] = [2000.0, -1500.0]
    return [*cases, one_class, (large_input, np.array([1, 0, 2, 2]), rng.normal(size=(2, 2, 3)))]


def class_log_density(x, label, W):
    return Categorical(W.shape[2]).log_density(split(W), make_design(x[:, :-1]), label)


# --- E step ---------------------------------------------------------------------------------------


def e_step_cases(rng):
    cases = []
    for N, E, far in ((6, 4, 0), (3, 2, 0), (5, 3, -2000.0)):
        log_gate = numerics.log_softmax(1.5 * rng.normal(size=(N, E)))
        cases.append((log_gate, 2 * rng.normal(size=(N, E)) + far))
    shut = rng.normal(size=(5, 3))
    closed = rng.integers(3, size=5)
    shut[np.arange(5), closed] = -np.inf
    cases.append((numerics.log_softmax(shut), rng.normal(size=(5, 3))))
    # shut gates x far cases: the expert that is shut out is the only one that is near
    far = rng.normal(size=(5, 3)) + np.array([[-2.0], [-40.0], [-100.0], [-800.0], [-2000.0]])
    far[np.arange(5), closed] = -rng.random(5)
    cases.append((numerics.log_softmax(shut), far))
    one_open = rng.permuted([[0.0, -np.inf, -np.inf]] * 3, axis=1)
    both = np.array([[0.0], [-900.0], [3.0]])
    cases.append((one_open, both + rng.normal(size=(3, 3))))
    return [*cases, (np.zeros((2, 1)), rng.normal(size=(2, 1)))]


def e_step(log_gate, log_density):
    joint = log_gate + log_density
    total = numerics.logsumexp(joint, keepdims=True)
    return np.exp(joint - total), float(total.sum())


# --- M step of the experts ------------------------------------------------------------------------


def regression_cases(rng):
    cases = []
    for N, D, E, C in ((20, 3, 4, 2), (15, 2, 2, 1), (9, 1, 1, 2), (24, 4, 3, 3)):
        x = inputs(rng, N, D)
        y = 2 * rng.normal(size=(N, C))
        cases.append((x, y, random_responsibilities(rng, N, E)))
    cases[-1][2][:10, 0] = 0  # cases for which one expert is not responsible at all
    cases[-1][2][:] /= cases[-1][2].sum(axis=1, keepdims=True)
    alone = np.eye(3)[rng.permutation(np.resize(np.arange(3), 21))]  # one expert for each case
    return [*cases, (inputs(rng, 21, 3), 2 * rng.normal(size=(21, 2)), alone)]


def regressions(x, y, resp):
    return weighted_least_squares(x[:, :-1], y, resp)


def variance_cases(rng):
    """At the end: an expert that fits its cases exactly, and one that fits one output only."""
    cases = []
    for x, y, resp in regression_cases(rng):
        W = regressions(x, y, resp) + 0.3 * rng.normal(size=(resp.shape[1], x.shape[1], y.shape[1]))
        cases.append((x, y, resp, W, 0.01))
    x, y, resp, W, _ = (np.copy(a) for a in cases[0])
    noise = 0.5 * rng.normal(size=y.shape)
    y[:] = np.einsum("nd,dc->nc", x, W[1])
    one_exact = y + noise * [[0, 1]]
    return [*cases, (x, y, resp, W, 0.02), (x, one_exact, resp, W, 0.05), (x, y, resp, W, 100.0)]


def variances(x, y, resp, W, floor):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0)), floor)


# --- M step of the gate ---------------------------------------------------------------------------


def derivative_cases(rng):
    cases = []
    for N, D, E, size in ((9, 3, 4, 1), (6, 2, 2, 1), (8, 2, 3, 1), (7, 2, 5, 6), (1, 1, 2, 1)):
        x = inputs(rng, N, D)
        resp = random_responsibilities(rng, N, E)
        cases.append((x, resp, with_last_0(size * rng.normal(size=(D, E)))))
    alone = np.eye(3)[rng.integers(3, size=6)]
    cases.append((inputs(rng, 6, 3), alone, with_last_0(rng.normal(size=(3, 3)))))
    x, resp, U = cases[0]
    sure = inputs(rng, 9, 3)
    sure[::2, 0] *= 2000  # the gate is much too sure of some cases
    return [*cases, (sure, resp, U), (x, resp, 2000 * U)]


def gate_derivatives(x, resp, U):
    g = numerics.softmax(x @ U)[:, :-1]
    weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
    return x.T @ (resp[:, :-1] - g), np.einsum("nd,nij,nf->difj", x, weight, x)


def newton_step(x, resp, U):
    """(D, E), its last column 0."""
    gradient, curvature = gate_derivatives(x, resp, U)
    delta = np.zeros(U.shape)
    matrix = curvature.reshape(gradient.size, -1)
    delta[:, :-1] = np.linalg.solve(matrix, gradient.ravel()).reshape(gradient.shape)
    return delta


def objective(x, resp, U):
    return float((resp * numerics.log_softmax(x @ U)).sum())


def halvings(x, resp, U):
    """How often Newton's step is halved until the objective rises; None where rounding decides.

    SIZES, where one halving more than is asked for would raise it.
    """
    gradient, curvature = gate_derivatives(x, resp, U)
    if np.linalg.cond(curvature.reshape(gradient.size, -1)) > 1e7:
        return None
    delta = newton_step(x, resp, U)
    before = objective(x, resp, U)
    for number in range(SIZES + 1):
        rise = objective(x, resp, U + 0.5**number * delta) - before
        if abs(rise) < 1e-8 * abs(before):
            return None
        if rise > 0:
            return number
    return None


def gate_step_cases(rng):
    """From 0, from small gates, and from large ones, where the whole step lowers the objective.

    There is a case for each number of halvings, one in which no size helps, and one in which
    nothing is to be gained: no seed is easier than another.
    """
    by_number = {}
    while len(by_number) <= SIZES:
        D = int(rng.integers(1, 4))
        E = int(rng.integers(2, 5))
        x = inputs(rng, 30, D)
        resp = random_responsibilities(rng, 30, E)
        U = with_last_0(rng.uniform(0, 12) * rng.normal(size=(D, E)))
        times = halvings(x, resp, U)
        # with probabilities of 0 it would depend on the way to the right answer
        if times is not None and numerics.softmax(x @ U).min() > 1e-7:
            by_number.setdefault(times, (x, resp, U))
    x = inputs(rng, 25, 3)
    resp = random_responsibilities(rng, 25, 4)
    from_zero = (x, resp, np.zeros((3, 4)))
    at_the_top = (inputs(rng, 5, 2), np.full((5, 2), 0.5), np.zeros((2, 2)))
    return [from_zero, at_the_top, *(by_number[number] for number in sorted(by_number))]


def gate_step(x, resp, U):
    delta = newton_step(x, resp, U)
    before = objective(x, resp, U)
    sizes = 0.5 ** np.arange(SIZES)
    return next((U + s * delta for s in sizes if objective(x, resp, U + s * delta) > before), U)


def compare_gates(wanted, got, inputs=None):
    """Only differences between columns count: the last column of a gate need not be 0."""
    message = FITTED(wanted, got)
    if np.shape(got) != np.shape(wanted) or np.asarray(got).dtype.kind not in "fiu":
        return message
    return FITTED(wanted, with_last_0(np.asarray(got, float)))


# --- The algorithm --------------------------------------------------------------------------------


def em_problem(rng, kind):
    """Initial parameters, x and y.

    kind   "branches" or "halved" (a curve with three), "crossing" (two lines), "outputs", "halved
           often" or "far" (lines with two outputs; two cases are far away from all of them),
           "halved most" or "not moved" (two constants; the gate is very sure of the first)
    """
    if kind in ("branches", "halved"):
        x, y = inverse_problem(60, rng)
        x, E = np.hstack([x, np.ones((60, 1))]), 3
    elif kind == "crossing":  # two lines without noise, so that variances fall to the floor
        x, E = inputs(rng, 40, 2), 2
        y = x[:, :1] * rng.choice([-1.0, 1.0], size=(40, 1))
    elif kind in ("halved most", "not moved"):
        x, E = np.ones((20, 1)), 2
        y = rng.normal(size=(20, 1))
    else:
        x, E = inputs(rng, 50, 3), 4
        y = np.einsum("nd,ndc->nc", x, rng.normal(size=(2, 3, 2))[(x[:, 0] > 0).astype(int)])
        y = y + 0.3 * rng.normal(size=y.shape)
        y[:2] += 60 if kind == "far" else 0
    D, C = x.shape[1], y.shape[1]
    W = 0.5 * rng.normal(size=(E, D, C))
    W[:, -1] += y[2 + rng.choice(len(y) - 2, E, replace=False)]
    U = with_last_0(rng.uniform(0.5, 5) * rng.normal(size=(D, E)))
    if kind in ("halved most", "not moved"):
        U = np.array([[rng.uniform(6, 12), 0]])
    return {"W": W, "var": np.full(E, 0.5), "U": U}, x, y


def em_cases(rng):
    """In the second case the floor holds a variance; "far" has cases far away from all experts.

    In the others after the third the gate's step is halved: once or more, four times or more, nine
    times, and so often that the gate stays.
    """
    cases = []
    settings = (("branches", 1, 1e-4), ("crossing", 8, 0.02), ("outputs", 6, 1e-4))
    settings += (("halved", 4, 1e-4), ("halved often", 2, 1e-4), ("far", 1, 1e-4))
    settings += (("halved most", 1, 1e-4), ("not moved", 1, 1e-4))
    number = {"halved most": [SIZES - 1], "not moved": [SIZES]}
    for kind, steps, floor in settings:
        while True:
            params, x, y = em_problem(rng, kind)
            times, last = count_halvings(params, x, y, steps, floor)
            wanted = kind == "halved" and max(times, default=0) > 0
            wanted = wanted or (kind == "halved often" and max(times, default=0) > 3)
            wanted = wanted or (kind == "crossing" and np.isclose(last["var"], floor).any())
            wanted = wanted or times == number.get(kind)
            clear = len(times) == steps and (SIZES not in times or kind == "not moved")
            if clear and (wanted or kind in ("branches", "outputs", "far")):
                break
        cases.append((params, x, y, steps, floor))
    return cases


def count_halvings(params, x, y, steps, floor):
    """(halvings of the gate's step in each step of EM, until one is unclear; last parameters)."""
    times = []
    for _ in range(steps):
        log_density = gaussian_log_density(x, y, params["W"], params["var"])
        resp, _ = e_step(numerics.log_softmax(x @ params["U"]), log_density)
        number = halvings(x, resp, params["U"])
        if number is None or resp.sum(axis=0).min() < 3:
            break
        times.append(number)
        params = em(params, x, y, 1, floor)[0]
    return times, params


def em(params, x, y, steps, floor):
    W = params["W"]
    var = params["var"]
    U = params["U"]
    history = []
    for number in range(steps + 1):
        log_density = gaussian_log_density(x, y, W, var)
        resp, log_likelihood = e_step(numerics.log_softmax(x @ U), log_density)
        history.append(log_likelihood)
        if number < steps:
            W = regressions(x, y, resp)
            var = variances(x, y, resp, W, floor)
            U = gate_step(x, resp, U)
    return {"W": W, "var": var, "U": U}, np.array(history)


def compare_em(wanted, got, inputs=None):
    try:
        params, history = got
        if np.asarray(params["U"]).dtype.kind in "fiu":
            got = {**params, "U": with_last_0(np.asarray(params["U"], float))}, history
    except (TypeError, ValueError, KeyError, IndexError):
        pass  # the comparison says what is different
    return FITTED(wanted, got)


QUESTIONS = (
    Question("q1_gaussian", "gaussian_log_density", 2, density_cases, gaussian_log_density, SINGLE),
    Question("q2_classes", "class_log_density", 2, class_cases, class_log_density, LARGE),
    Question("q3_e_step", "e_step", 3, e_step_cases, e_step, FITTED),
    Question("q4_regressions", "regressions", 3, regression_cases, regressions, FITTED),
    Question("q5_variances", "variances", 2, variance_cases, variances, SINGLE),
    Question(
        *("q6_gate_derivatives", "gate_derivatives", 3),
        *(derivative_cases, gate_derivatives, SINGLE),
    ),
    Question("q7_gate_step", "gate_step", 3, gate_step_cases, gate_step, compare_gates),
    Question("q8_em", "em", 4, em_cases, em, compare_em),
)
