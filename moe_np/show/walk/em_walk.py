"""Step view of EM for a mixture of experts (`moe_np.mixtures.em`): E step, M step of the experts, M
step of the gating network.
"""

import itertools
from collections.abc import Iterator

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, Params, Rng
from moe_np.mixtures import em
from moe_np.mixtures.em_families import Family
from moe_np.mixtures.em_fit import gate_logits
from moe_np.show.steps import State, state

E_STEP = (
    r"h_i = \frac{g_i P_i}{\sum_j g_j P_j}, \quad g = \mathrm{softmax}(x U + c), "
    r"\quad P_i = P(y \mid x, W_i, b_i)"
)
M_GATE = r"U, c \text{ raise } \sum_n \sum_i h_{ni} \log g_i(x_n)"
M_EXPERTS = {
    em.Gaussian: (
        r"W_i, b_i: \; (X^\top H_i X)^{-1} X^\top H_i\, y, "
        r"\quad H_i = \mathrm{diag}(h_{1i} \ldots h_{Ni})"
    ),
    em.Categorical: (
        r"W_i, b_i \text{ raise } \sum_n h_{ni} \log \mathrm{softmax}(x_n W_i + b_i)_{y_n}"
    ),
}
AXES = {
    "gate_logits": "N E", "log_gate": "N E", "log_density": "N E", "resp": "N E", "share": "E",
    "W": "E D C", "b": "E C", "U": "D E", "c": "E",
}  # fmt: skip
VAR_AXES = {0: (), 1: ("E",), 3: ("E", "C", "C")}


def steps(
    x: ArrayND,
    y: ArrayNC | ArrayN,
    n_experts: int,
    *,
    family: Family,
    rng: Rng | None,
    gate_x: Array | None = None,
    tol: float = 1e-6,
    max_iter: int = 100,
    ridge: float = 0.0,
    irls_steps: int = 1,
    initial: Params | None = None,
) -> Iterator[State]:
    """One run of `em.fit`, a State at a time: "start", then "E step", "M step: experts", "M step:
    gate", and so on.

    Ends after the E step at which the run of `em.fit` ends; arguments as there.
    `moe_np.show.steps.Steps` around it can go back as well.
    """
    settings = {"family": family, "gate_x": gate_x, "ridge": ridge, "irls_steps": irls_steps}
    problem = em.prepare(x, y, n_experts, **settings)
    checks.integer("max_iter", max_iter, minimum=0)
    checks.number("tol", tol, minimum=0)
    if initial is None:
        params = em.initial_params(problem, checks.generator("rng", rng))
    else:
        params = em.check_params(problem, initial, "initial")
    axes = {**AXES, "var": VAR_AXES[params["var"].ndim]} if "var" in params else AXES
    note = "Initial parameters: the M step of a random partition of the cases."
    current = state("start", "", params, axes=axes, note=note)
    yield current
    history = []
    for number in itertools.count():
        # E step.
        expectation = em.e_step(problem, params)
        history.append(expectation.value)
        arrays = {**params, **_arrays_of(expectation, gate_logits(params, problem.gate_inputs))}
        note = f"E step {number}: the responsibility of each expert for each case."
        current = state("E step", E_STEP, arrays, axes=axes, note=note, before=current)
        yield current
        if number == max_iter or em.has_converged(history, tol * len(problem.y)):
            return
        # M step of the experts.
        experts = em.experts_m_step(problem, params, expectation.resp)
        equation = M_EXPERTS[type(problem.family)]
        note = "One regression per expert; its responsibilities are the weights of the cases."
        arrays = {**arrays, **experts}
        phase = "M step: experts"
        current = state(phase, equation, arrays, axes=axes, note=note, before=current)
        yield current
        # M step of the gate.
        params = {**experts, **em.gate_m_step(problem, params, expectation.resp)}
        note = "The gating network learns to predict the responsibilities from x alone."
        arrays = {**arrays, **params}
        current = state("M step: gate", M_GATE, arrays, axes=axes, note=note, before=current)
        yield current


def _arrays_of(expectation, logits):
    return {
        "gate_logits": logits,
        "log_gate": expectation.log_gate,
        "log_density": expectation.log_density,
        "resp": expectation.resp,
        "share": expectation.resp.mean(axis=0),
        "log_likelihood": expectation.log_likelihood,
    }
