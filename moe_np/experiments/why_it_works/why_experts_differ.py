"""What keeps experts from becoming equal, and which error makes them cooperate or compete?

Equal experts under an undecided gate get equal gradients, so only a difference that is there
already can grow; how fast it grows is the slope of log max |W_i − mean| while it is small. The
errors of Jacobs et al. (1991) are compared from the same initial parameters.
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.optim import gradient_descent
from moe_np.base.types import ArrayNC, ArrayNE, ArrayNEC
from moe_np.data import regimes
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    grouped,
    mean_and_sd,
    means,
    sign_of_difference,
)
from moe_np.experiments.why_it_works.tasks import EQUATIONS, LEARNING_RATES, vowels
from moe_np.mixtures import jacobs1991

# --- What stops experts from becoming equal? ------------------------------------------------------

DISTANCES = {"equal": 0.0, "1e-8 apart": 1e-8, "as usual": None}  # of experts, at first
EVERY = 20  # epochs between recorded differences


def equal_specs(config: Config, quick: bool) -> list[Spec]:
    """Errors × initial experts, with the gate learning or held, × seeds."""
    epochs = 400 if quick else 3000
    cells = [("equal", True), ("1e-8 apart", True), ("1e-8 apart", False), ("as usual", False)]
    return [
        {"error": error, "start": start, "gate learns": learns, "seed": seed, "epochs": epochs}
        for error in LEARNING_RATES
        for start, learns in cells
        for seed in range(2 if quick else min(config.few, 5))
    ]


def equal_run(spec: Spec) -> Result:
    """Four experts on the four vowels.

    -> {"apart": max |W_i − mean| (biases too) every EVERY epochs, "rate" of its growth, experts "in
    use" at the end, "squared" error at the end}.
    """
    rng = np.random.default_rng(spec["seed"])
    params = _initial(rng, DISTANCES[spec["start"]])
    data = vowels()
    curve = []
    for epoch in range(spec["epochs"] + 1):
        loss, cache = jacobs1991.system_forward(params, data.x_train, data.d_train, spec["error"])
        if epoch % EVERY == 0:
            spans = (np.abs(params[k] - params[k].mean(axis=0)).max() for k in ("W", "b"))
            curve.append(max(float(span) for span in spans))
        grads = jacobs1991.system_backward(np.ones_like(loss), cache)[1]
        if not spec["gate learns"]:
            grads |= {k: np.zeros_like(grads[k]) for k in ("U", "c")}
        params = gradient_descent(params, grads, lr=LEARNING_RATES[spec["error"]])
    return {
        "apart": curve,
        "in use": int(jacobs1991.active_experts(cache.p).sum()),
        "rate": growth_rate(curve),
        "squared": float(((data.d_train - cache.y) ** 2).mean()),
    }


def _initial(rng, distance):
    """Four experts: as usual where distance is None, otherwise that far from the first."""
    params = jacobs1991.init_mixture(rng, 4)
    if distance is not None:
        params |= {k: np.repeat(params[k][:1], 4, axis=0) for k in ("W", "b")}
        params |= {k: params[k] + distance * rng.normal(size=params[k].shape) for k in ("W", "b")}
    return params


def growth_rate(curve: Sequence[float], low: float = 1e-7, high: float = 1e-3) -> float | None:
    """Growth of the log difference per epoch, while the difference is between low and high.

    If it never is, in the last half of the epochs. None where the experts are exactly equal.
    """
    curve = np.asarray(curve)
    if not curve.all():
        return None
    epochs = EVERY * np.arange(len(curve))
    inside = (curve > low) & (curve < high)
    if inside.sum() < 4 or curve[-1] < low:
        inside = epochs >= epochs[-1] / 2
    return float(np.polyfit(epochs[inside], np.log(curve[inside]), 1)[0])


def equal_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per error, initial experts and gate; "curve" is the median over the runs."""
    cells = []
    keys = ("error", "start", "gate learns")
    for values, runs in grouped(specs, results, *keys).items():
        cell = dict(zip(keys, values, strict=True))
        cell |= {"n": len(runs), **means(runs, "in use", "squared")}
        cell["never apart"] = sum(not any(run["apart"]) for run in runs)
        for name, i in (("first", 0), ("last", -1)):
            cell[name] = float(np.median([run["apart"][i] for run in runs]))
        rates = [run["rate"] for run in runs if run["rate"] is not None]
        cell["rate"] = mean_and_sd(rates) if rates else None
        cell["curve"] = np.median([run["apart"] for run in runs], axis=0).tolist()
        cells.append(cell)
    return cells


def equal_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim fails where equal experts stay equal in all runs."""
    equal = [cell for cell in summary if cell["start"] == "equal"]
    tiny = {
        (cell["error"], cell["gate learns"]): cell
        for cell in summary
        if cell["start"] == "1e-8 apart"
    }
    usual = [cell for cell in summary if cell["start"] == "as usual"]
    never = sum(cell["never apart"] for cell in equal)
    n = sum(cell["n"] for cell in equal)
    rates = {error: tiny[error, True]["rate"][0] for error in LEARNING_RATES}
    epochs = ", ".join(
        f"{np.log(2) / rate:.0f} ({EQUATIONS[error]})" for error, rate in rates.items() if rate > 0
    )
    shrinks = [EQUATIONS[e] for e in LEARNING_RATES if tiny[e, False]["rate"][0] < 0]
    closer = [EQUATIONS[c["error"]] for c in usual if c["last"] < 0.1 * c["first"]]
    error_equal = np.mean([cell["squared"][0] for cell in equal])
    error_parted = np.mean([tiny[error, True]["squared"][0] for error in LEARNING_RATES])
    text = (
        "Nothing does, if they are equal: their difference is exactly 0 to the last epoch in "
        f"{never} of {n} runs under all three errors, at a squared error of {error_equal:.2f} "
        f"where parted experts have {error_parted:.2f}. A difference of 1e-8 grows while the gate "
        f"learns, doubling every {epochs} epochs. With the gate held undecided it shrinks under "
        f"{join(shrinks, empty='none of them')}"
    )
    if closer:
        text += (
            f", and experts that start as usual come ten times closer or more under {join(closer)}"
        )
    return "no" if never == n else "partly", (
        f"{text}. So experts part because chance made them differ and the gate follows that "
        "difference; bad performance alone parts nobody."
    )


EQUAL = Question(
    "What stops experts from becoming equal?",
    "if they were, they would perform badly and large gradients would part them",
    equal_specs,
    equal_run,
    equal_summary,
    equal_verdict,
)

# --- Cooperation and competition ------------------------------------------------------------------

# the width of eq. 3 on the regression, whose targets have variance 1; the vowels have σ = 1
SIGMA = 1 / 3


def errors_specs(config: Config, quick: bool) -> list[Spec]:
    """Tasks × errors × seeds."""
    epochs = 300 if quick else 2500
    seeds = {"vowels": 2 if quick else config.few, "regression": 2 if quick else config.fits}
    return [
        {"task": task, "error": error, "seed": seed, "epochs": epochs}
        for task, n in seeds.items()
        for error in LEARNING_RATES
        for seed in range(n)
    ]


def errors_run(spec: Spec) -> Result:
    """`dependence` of four experts that were trained under one of the errors."""
    train = _train_on_vowels if spec["task"] == "vowels" else _train_on_regression
    return dependence(*train(spec))


def _train_on_vowels(spec):
    data = vowels()
    params = jacobs1991.init_mixture(np.random.default_rng(spec["seed"]), 4)
    options = {"lr": LEARNING_RATES[spec["error"]], "error": spec["error"]}
    for epoch in jacobs1991.train(params, data.x_train, data.d_train, **options):
        if epoch.number == spec["epochs"]:
            return epoch.cache.o, epoch.cache.p, data.d_train


def _train_on_regression(spec):
    """Four linear experts on four regions, to the minimum of each error (L-BFGS) from the same
    initial parameters.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    x, d, _ = regimes.draw(task, 400, rng)
    unit = SIGMA if spec["error"] == "mixture" else 1.0  # eq. 3 of width σ is eq. 3 of d / σ

    def loss_and_grads(params):
        loss, cache = jacobs1991.system_forward(params, x, d / unit, spec["error"], "linear")
        dloss = np.full(len(x), 1 / len(x))
        return float(loss.mean()), jacobs1991.system_backward(dloss, cache)[1]

    initial = jacobs1991.init_mixture(rng, 4, init_range=0.5)
    params = minimise(loss_and_grads, initial, max_iter=spec["epochs"]).params
    o = jacobs1991.experts_forward(params, x, "linear")[0]
    p = jacobs1991.gate_forward(params, x)[0]
    return o * unit, p, d


def dependence(o: ArrayNEC, p: ArrayNE, d: ArrayNC) -> Result:
    """How much experts with outputs o and mixture weights p depend on each other.

    blend, alone    squared error of Σ p_i o_i, and of the expert with the largest p
    cancelled       1 − error of the blend / Σ p_i ‖d − o_i‖²: the share of the experts' errors that
                    averaging takes away
    correlation     of the residuals, see `correlation`
    without         squared error, weighted by use, when an expert is missing and the others share
                    its part
    in use          the number of experts in use
    """
    residual = d[:, None, :] - o
    squared = (residual**2).sum(axis=2)
    blend = _blend_error(p, residual)
    use = p.mean(axis=0)
    without = []
    for e in range(p.shape[1]):
        share = p.copy()
        share[:, e] = 0
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
        without.append(_blend_error(share, residual))
    return {
        "blend": float(blend),
        "alone": float(squared[np.arange(len(o)), p.argmax(axis=1)].mean()),
        "cancelled": float(1 - blend / (p * squared).sum(axis=1).mean()),
        "correlation": correlation(residual[:, :, 0], p),
        "without": float(use @ np.array(without)),
        "in use": int(jacobs1991.active_experts(p).sum()),
    }


def _blend_error(share, residual):
    """The mean squared error of the blend with these shares (N, E)."""
    return ((share[:, :, None] * residual).sum(axis=1) ** 2).sum(axis=1).mean()


def correlation(residual: ArrayNE, p: ArrayNE) -> float:
    """The correlation of two experts' residuals about 0, pairs and cases weighted by p_i p_j.

    It is below 0 where one expert corrects the other.
    """
    product = scale = 0.0
    for i in range(p.shape[1]):
        for j in range(i):
            weight = p[:, i] * p[:, j]
            product += (weight * residual[:, i] * residual[:, j]).sum()
            scale += 0.5 * (weight * (residual[:, i] ** 2 + residual[:, j] ** 2)).sum()
    return float(product / scale) if scale > 0 else 0.0


def errors_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per task and error; "dependent" runs have twice the error with one expert alone."""
    cells = []
    for (task, error), runs in grouped(specs, results, "task", "error").items():
        cell = {"task": task, "error": error, "n": len(runs)}
        cell |= means(runs, "cancelled", "correlation", "in use")
        for name in ("blend", "alone", "without"):
            cell[name] = float(np.median([run[name] for run in runs]))
        cell["cancels"] = [run["cancelled"] for run in runs]
        cell["dependent"] = sum(run["alone"] > 2 * run["blend"] for run in runs)
        cells.append(cell)
    return cells


def errors_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where averaging cancels more under eq. 1 than under eq. 3, on both tasks."""
    cells = {(cell["task"], cell["error"]): cell for cell in summary}
    sentences = []
    shown = []
    for task in ("vowels", "regression"):
        first, second, third = (cells[task, error] for error in LEARNING_RATES)
        shown.append(sign_of_difference(first["cancels"], third["cancels"]) > 0)
        percent = [f"{100 * cell['cancelled'][0]:.1f} %" for cell in (first, second, third)]
        sentences.append(
            f"On the {task} averaging cancels {percent[0]} of the experts' own errors under eq. 1, "
            f"{percent[1]} under eq. 2 and {percent[2]} under eq. 3; the gate's first choice alone "
            f"has more than twice the blend's error in {first['dependent']}, "
            f"{second['dependent']} and {third['dependent']} of {first['n']} runs"
        )
    blend = {error: cells["regression", error]["blend"] for error in LEARNING_RATES}
    best = min(blend, key=blend.get)
    holds = "yes" if all(shown) else "partly" if any(shown) else "no"
    conclusion = "The difference does not show on both tasks."
    if holds == "yes":
        conclusion = (
            "Eq. 1 makes experts that need each other, eq. 2 and 3 make experts that can answer "
            "alone."
        )
    return holds, (
        f"{'. '.join(sentences)}. The lowest median error of the blend on the regression is that "
        f"of {EQUATIONS[best]} ({blend[best]:.3f}). {conclusion}"
    )


ERRORS = Question(
    "Which error makes experts cooperate, which compete?",
    "eq. 1 couples the experts, eq. 2 and eq. 3 make each answer alone (Jacobs et al. 1991)",
    errors_specs,
    errors_run,
    errors_summary,
    errors_verdict,
)
