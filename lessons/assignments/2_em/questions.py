"""Questions of assignment 2: EM for a mixture of experts, from densities to the algorithm."""

import numpy as np

from moe_np.base import numerics
from moe_np.coursework import Question, close
from moe_np.data.inverse import inverse_problem
from moe_np.mixtures import irls
from moe_np.mixtures.em import e_step as expectation_step
from moe_np.mixtures.em import m_step as maximisation_step
from moe_np.mixtures.em import prepare
from moe_np.mixtures.em_families import Categorical, Gaussian
from moe_np.mixtures.least_squares import make_design, weighted_least_squares

TITLE = "Assignment 2: EM for a mixture of experts"
AFTER = "lesson 05"
HOURS = "three to four"
ALLOWED = ("moe_np.base.checks", "moe_np.base.gradcheck", "moe_np.data.inverse")
LIBRARIES = ("numpy", "matplotlib")

SINGLE = close(1e-4, 1e-6)  # float32 will do
LARGE = close(1e-4, 2e-3)  # the same, of totals in the thousands
FITTED = close(1e-3, 1e-5)  # after linear systems, or several steps


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
    cases = []
    for N, D, E, C, far in ((6, 3, 4, 2, 0), (5, 2, 3, 1, 0), (4, 2, 2, 3, 60)):
        y = rng.normal(size=(N, C)) + far
        cases.append((inputs(rng, N, D), y, rng.normal(size=(E, D, C)), rng.uniform(0.05, 3, E)))
    return cases


def gaussian_log_density(x, y, W, var):
    return Gaussian().log_density({**split(W), "var": var}, make_design(x[:, :-1]), y)


def class_cases(rng):
    cases = []
    for N, D, E, C, size in ((7, 3, 4, 2, 1), (8, 2, 2, 5, 1), (9, 2, 3, 3, 1), (5, 3, 2, 3, 900)):
        label = rng.permutation(np.resize(np.arange(C), N))
        cases.append((inputs(rng, N, D), label, size * rng.normal(size=(E, D, C))))
    return cases


def class_log_density(x, label, W):
    return Categorical(W.shape[2]).log_density(split(W), make_design(x[:, :-1]), label)


# --- E step ---------------------------------------------------------------------------------------


def e_step_cases(rng):
    cases = []
    for N, E, far in ((6, 4, 0), (3, 2, 0), (5, 3, -2000.0)):
        log_gate = numerics.log_softmax(1.5 * rng.normal(size=(N, E)))
        cases.append((log_gate, 2 * rng.normal(size=(N, E)) + far))
    shut = rng.normal(size=(5, 3))
    shut[np.arange(5), rng.integers(3, size=5)] = -np.inf
    return [*cases, (numerics.log_softmax(shut), rng.normal(size=(5, 3)))]


def e_step(log_gate, log_density):
    joint = log_gate + log_density
    total = numerics.logsumexp(joint, keepdims=True)
    return np.exp(joint - total), float(total.sum())


# --- M step of the experts ------------------------------------------------------------------------


def regression_cases(rng):
    cases = []
    for N, D, E, C in ((20, 3, 4, 2), (15, 2, 2, 1), (24, 4, 3, 3)):
        x = inputs(rng, N, D)
        y = 2 * rng.normal(size=(N, C))
        cases.append((x, y, random_responsibilities(rng, N, E)))
    cases[-1][2][:10, 0] = 0  # cases for which one expert is not responsible at all
    cases[-1][2][:] /= cases[-1][2].sum(axis=1, keepdims=True)
    return cases


def regressions(x, y, resp):
    return weighted_least_squares(x[:, :-1], y, resp)


def variance_cases(rng):
    """The last case has an expert that fits its cases exactly."""
    cases = []
    for x, y, resp in regression_cases(rng):
        W = regressions(x, y, resp) + 0.3 * rng.normal(size=(resp.shape[1], x.shape[1], y.shape[1]))
        cases.append((x, y, resp, W, 0.01))
    x, y, resp, W, _ = (np.copy(a) for a in cases[0])
    y[:] = np.einsum("nd,dc->nc", x, W[1])
    return [*cases, (x, y, resp, W, 0.02)]


def variances(x, y, resp, W, floor):
    far = ((y[:, None, :] - np.einsum("nd,edc->nec", x, W)) ** 2).sum(axis=2)
    return np.maximum((resp * far).sum(axis=0) / (y.shape[1] * resp.sum(axis=0)), floor)


# --- M step of the gate ---------------------------------------------------------------------------


def derivative_cases(rng):
    cases = []
    for N, D, E in ((9, 3, 4), (6, 2, 2), (8, 2, 3)):
        x = inputs(rng, N, D)
        resp = random_responsibilities(rng, N, E)
        cases.append((x, resp, with_last_0(rng.normal(size=(D, E)))))
    return cases


def gate_derivatives(x, resp, U):
    g = numerics.softmax(x @ U)[:, :-1]
    weight = g[:, :, None] * (np.eye(g.shape[1]) - g[:, None, :])
    return x.T @ (resp[:, :-1] - g), np.einsum("nd,nij,nf->difj", x, weight, x)


def objective(x, resp, U):
    return float((resp * numerics.log_softmax(x @ U)).sum())


def halvings(x, resp, U):
    """How often Newton's step is halved until the objective rises; None where rounding decides."""
    gradient, curvature = gate_derivatives(x, resp, U)
    matrix = curvature.reshape(gradient.size, -1)
    if np.linalg.cond(matrix) > 1e7:
        return None
    delta = np.zeros(U.shape)
    delta[:, :-1] = np.linalg.solve(matrix, gradient.ravel()).reshape(gradient.shape)
    if np.abs(x @ delta).max() > 0.9 * irls.MAX_LOGIT_CHANGE:
        return None
    before = objective(x, resp, U)
    for number in range(irls.HALVINGS - 2):
        rise = objective(x, resp, U + 0.5**number * delta) - before
        if abs(rise) < 1e-8 * abs(before):
            return None
        if rise > 0:
            return number
    return None


def gate_step_cases(rng):
    """From 0, from small gates, and from large ones, where the whole step lowers the objective."""
    groups = {0: [], 1: [], 2: []}  # by the number of halvings; 2 means two or more
    while min(map(len, groups.values())) < 2:
        D = int(rng.integers(2, 4))
        E = int(rng.integers(2, 5))
        x = inputs(rng, 30, D)
        resp = random_responsibilities(rng, 30, E)
        U = with_last_0(rng.uniform(0, 3) * rng.normal(size=(D, E)))
        times = halvings(x, resp, U)
        if times is not None:
            groups[min(times, 2)].append((x, resp, U))
    x = inputs(rng, 25, 3)
    resp = random_responsibilities(rng, 25, 4)
    from_zero = (x, resp, np.zeros((3, 4)))
    return [from_zero, *(case for group in groups.values() for case in group[:2])]


def gate_step(x, resp, U):
    return irls.multinomial_irls(x[:, :-1], resp, initial=U, max_steps=1)[0]


def compare_gates(wanted, got, inputs=None):
    """Only differences between columns count: the last column of a gate need not be 0."""
    message = FITTED(wanted, got)
    if np.shape(got) != np.shape(wanted) or np.asarray(got).dtype.kind not in "fiu":
        return message
    return FITTED(wanted, with_last_0(np.asarray(got, float)))


# --- The algorithm --------------------------------------------------------------------------------


def em_problem(rng, kind):
    """Initial parameters, x and y.

    kind   "branches" (a curve with three), "crossing" (two lines) or "outputs" (lines with two)
    """
    if kind == "branches":
        x, y = inverse_problem(60, rng)
        x, E = np.hstack([x, np.ones((60, 1))]), 3
    elif kind == "crossing":  # two lines without noise, so that variances fall to the floor
        x, E = inputs(rng, 40, 2), 2
        y = x[:, :1] * rng.choice([-1.0, 1.0], size=(40, 1))
    else:
        x, E = inputs(rng, 50, 3), 4
        y = np.einsum("nd,ndc->nc", x, rng.normal(size=(2, 3, 2))[(x[:, 0] > 0).astype(int)])
        y = y + 0.3 * rng.normal(size=y.shape)
    D, C = x.shape[1], y.shape[1]
    W = 0.5 * rng.normal(size=(E, D, C))
    W[:, -1] += y[rng.choice(len(y), E, replace=False)]
    U = with_last_0(rng.uniform(0.5, 5) * rng.normal(size=(D, E)))
    return {"W": W, "var": np.full(E, 0.5), "U": U}, x, y


def em_cases(rng):
    """In the second case the floor holds a variance; in the last the gate's step is halved."""
    cases = []
    settings = (("branches", 1, 1e-4), ("crossing", 8, 0.02), ("outputs", 6, 1e-4))
    for kind, steps, floor in (*settings, ("halved", 4, 1e-4)):
        while True:
            params, x, y = em_problem(rng, "branches" if kind == "halved" else kind)
            times, last = count_halvings(params, x, y, steps, floor)
            wanted = kind == "halved" and max(times, default=0) > 0
            wanted = wanted or (kind == "crossing" and np.isclose(last["var"], floor).any())
            if len(times) == steps and (wanted or kind in ("branches", "outputs")):
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
    E = len(params["W"])
    problem = prepare(x[:, :-1], y, E, family=Gaussian(floor=floor))
    U = params["U"]
    model = {**split(params["W"]), "var": params["var"], "U": U[:-1], "c": U[-1]}
    history = []
    for _ in range(steps):
        expectation = expectation_step(problem, model)
        history.append(expectation.log_likelihood)
        model = maximisation_step(problem, model, expectation.resp)
    history.append(expectation_step(problem, model).log_likelihood)
    W = np.concatenate([model["W"], model["b"][:, None]], axis=1)
    U = np.vstack([model["U"], model["c"]])
    return {"W": W, "var": model["var"], "U": U}, np.array(history)


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
    Question("q3_e_step", "e_step", 3, e_step_cases, e_step, SINGLE),
    Question("q4_regressions", "regressions", 3, regression_cases, regressions, FITTED),
    Question("q5_variances", "variances", 2, variance_cases, variances, SINGLE),
    Question(
        *("q6_gate_derivatives", "gate_derivatives", 3),
        *(derivative_cases, gate_derivatives, SINGLE),
    ),
    Question("q7_gate_step", "gate_step", 3, gate_step_cases, gate_step, compare_gates),
    Question("q8_em", "em", 4, em_cases, em, compare_em),
)
