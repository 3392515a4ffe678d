"""Walks through EM of a mixture of experts (`moe_np.mixtures.em`): E step, M step of the experts, of the gate."""

from moe_np.base import checks
from moe_np.mixtures import em
from moe_np.mixtures.em_fit import gate_logits
from moe_np.show.steps import state

E_STEP = r"h_i = \frac{g_i P_i}{\sum_j g_j P_j}, \quad g = \mathrm{softmax}(x U + c), \quad P_i = P(y \mid x, W_i, b_i)"
M_GATE = r"U, c \text{ raise } \sum_n \sum_i h_{ni} \log g_i(x_n)"
M_EXPERTS = {
    em.Gaussian: r"W_i, b_i: \; (X^\top H_i X)^{-1} X^\top H_i\, y, \quad H_i = \mathrm{diag}(h_{1i} \ldots h_{Ni})",
    em.Categorical: r"W_i, b_i \text{ raise } \sum_n h_{ni} \log \mathrm{softmax}(x_n W_i + b_i)_{y_n}",
}
AXES = {
    "gate_logits": "N E", "log_gate": "N E", "log_density": "N E", "resp": "N E", "share": "E",
    "W": "E D C", "b": "E C", "U": "D E", "c": "E",
}  # fmt: skip
VAR_AXES = ((), ("E",), ("E", "C", "C"))


def steps(
    x,
    y,
    n_experts,
    *,
    family,
    rng,
    gate_x=None,
    tol=1e-6,
    max_iter=100,
    ridge=0.0,
    irls_steps=1,
    start=None,
):
    """One climb of `fit`, a State at a time: "start", then "E step", "M step: experts", "M step:
    gate", and so on.

    Ends after the E step at which `fit` would have ended. Arguments as in `fit`; wrap it in
    `moe_np.show.steps.Steps` to walk back as well.
    """
    problem = em._problem(x, y, n_experts, family, gate_x, ridge, irls_steps)
    checks.integer("max_iter", max_iter, minimum=0)
    checks.number("tol", tol, minimum=0)
    params = em.start_params(problem, rng) if start is None else em._check_start(problem, start)
    axes = (
        {**AXES, "var": VAR_AXES[params["var"].ndim - (params["var"].ndim == 3)]}
        if "var" in params
        else AXES
    )
    now = state(
        "start",
        "",
        params,
        axes=axes,
        note="Parameters to begin with: a random partition, softened, fitted.",
    )
    yield now
    history = []
    for number in range(max_iter + 1):
        found = em.e_step(problem, params)
        history.append(found.value)
        arrays = {
            **params,
            "gate_logits": gate_logits(params, problem.gate),
            "log_gate": found.log_gate,
            "log_density": found.log_density,
            "resp": found.resp,
            "share": found.resp.mean(axis=0),
            "log_likelihood": found.log_likelihood,
        }
        note = f"E step {number}: who is responsible for each case, given the parameters."
        now = state("E step", E_STEP, arrays, axes=axes, note=note, before=now)
        yield now
        if em._settled(history, tol * len(problem.y)) or number == max_iter:
            return
        experts = problem.family.m_step(
            params, problem.inputs, problem.y, found.resp, ridge, irls_steps
        )
        note = "Each expert by itself, every case counting as much as the expert is responsible for it."
        now = state(
            "M step: experts",
            M_EXPERTS[type(problem.family)],
            {**arrays, **experts},
            axes=axes,
            note=note,
            before=now,
        )
        yield now
        params = {**experts, **em.gate_m_step(problem, params, found.resp)}
        note = "The gate learns to predict the responsibilities from x alone."
        now = state("M step: gate", M_GATE, {**arrays, **params}, axes=axes, note=note, before=now)
        yield now
