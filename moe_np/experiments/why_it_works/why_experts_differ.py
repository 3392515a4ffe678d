"""What keeps experts from becoming equal, and which error makes them help each other or compete?

Equal experts under an undecided gate get equal gradients, so only a difference that is there
already can grow; how fast says the rate of ‖W_i − mean‖ while it is small. The errors of Jacobs et
al. (1991) are compared from the same starts.
"""

import numpy as np

from moe_np.base.optim import gradient_descent
from moe_np.data import regimes
from moe_np.experiments.common.minimise import minimise
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.experiments.why_it_works.gate_collapse import EQUATIONS, STEPS
from moe_np.experiments.why_it_works.question import (
    Question,
    differ,
    grouped,
    listed,
    markdown,
    mean_sd,
    over,
    pm,
)
from moe_np.mixtures import jacobs1991 as model

# --- What stops experts from becoming equal? ------------------------------------------------------

STARTS = {"equal": 0.0, "1e-8 apart": 1e-8, "as usual": None}
EVERY = 20  # epochs between recorded differences


def equal_specs(config, quick):
    seeds, epochs = (2, 400) if quick else (min(config.few, 5), 3000)
    cells = [("equal", True), ("1e-8 apart", True), ("1e-8 apart", False), ("as usual", False)]
    return [
        {"error": error, "start": start, "gate learns": learns, "seed": seed, "epochs": epochs}
        for error in STEPS
        for start, learns in cells
        for seed in range(seeds)
    ]


def equal_run(spec):
    """Four experts on the four vowels. How far apart they are every EVERY epochs: max |W_i − mean|,
    biases too.
    """
    rng, data = np.random.default_rng(spec["seed"]), vowel_runs.task("IY+AH", 1, "file order", 0)
    params = model.init_mixture(rng, 4)
    apart = STARTS[spec["start"]]
    if apart is not None:
        params |= {k: np.repeat(params[k][:1], 4, axis=0) for k in ("W", "b")}
        params |= {k: params[k] + apart * rng.normal(size=params[k].shape) for k in ("W", "b")}
    x, d, error, curve = data.x_train, data.d_train, spec["error"], []
    for number in range(spec["epochs"] + 1):
        loss, cache = model.system_forward(params, x, d, error)
        if number % EVERY == 0:
            curve.append(
                max(float(np.abs(params[k] - params[k].mean(axis=0)).max()) for k in ("W", "b"))
            )
        grads = model.system_backward(np.ones_like(loss), cache)[1]
        if not spec["gate learns"]:
            grads |= {k: np.zeros_like(grads[k]) for k in ("U", "c")}
        params = gradient_descent(params, grads, lr=STEPS[error])
    error = float(((d - cache.y) ** 2).mean())
    return {
        "apart": curve,
        "in use": int(model.active_experts(cache.p).sum()),
        "rate": rate(curve),
        "squared": error,
    }


def rate(curve, low=1e-7, high=1e-3):
    """Growth of log difference an epoch: while it is between low and high; if it never gets there,
    in its last half.

    None where the experts are exactly equal.
    """
    curve = np.asarray(curve)
    if not curve.all():
        return None
    epochs = EVERY * np.arange(len(curve))
    inside = (curve > low) & (curve < high)
    if inside.sum() < 4 or curve[-1] < low:
        inside = epochs >= epochs[-1] / 2
    return float(np.polyfit(epochs[inside], np.log(curve[inside]), 1)[0])


def equal_summary(specs, runs):
    out = []
    for (error, start, learns), own in grouped(
        specs, runs, "error", "start", "gate learns"
    ).items():
        one = {
            "error": error,
            "start": start,
            "gate learns": learns,
            "n": len(own),
            **over(own, "in use", "squared"),
        }
        one["never apart"] = sum(not any(r["apart"]) for r in own)
        one["first"], one["last"] = (
            float(np.median([r["apart"][i] for r in own])) for i in (0, -1)
        )
        rates = [r["rate"] for r in own if r["rate"] is not None]
        one["rate"] = mean_sd(rates) if rates else None
        one["curve"] = np.median([r["apart"] for r in own], axis=0).tolist()
        out.append(one)
    return out


def equal_rows(summary):
    rows = [
        [
            EQUATIONS[c["error"]],
            c["start"],
            "learns" if c["gate learns"] else "held at ¼",
            f"{c['first']:.1e}" if c["first"] else "0",
            f"{c['last']:.1e}" if c["last"] else "0",
            "–" if c["rate"] is None else pm(c["rate"], 2, 100),
            pm(c["in use"], 1),
            f"{c['squared'][0]:.3f}",
        ]
        for c in summary
    ]
    heads = [
        "error",
        "experts start",
        "gate",
        "apart at first",
        "at last",
        "growth, % an epoch",
        "experts in use",
    ]
    return markdown([*heads, "squared error"], rows)


def equal_verdict(summary):
    equal = [c for c in summary if c["start"] == "equal"]
    tiny = {(c["error"], c["gate learns"]): c for c in summary if c["start"] == "1e-8 apart"}
    usual = [c for c in summary if c["start"] == "as usual"]
    never, runs = sum(c["never apart"] for c in equal), sum(c["n"] for c in equal)
    grows = [error for error in STEPS if tiny[error, True]["rate"][0] > 0]
    doubling = {EQUATIONS[error]: np.log(2) / tiny[error, True]["rate"][0] for error in grows}
    shrinks = [EQUATIONS[error] for error in STEPS if tiny[error, False]["rate"][0] < 0]
    together = [EQUATIONS[c["error"]] for c in usual if c["last"] < 0.1 * c["first"]]
    holds = "no" if never == runs else "partly"
    bad, good = (
        np.mean([c["squared"][0] for c in some])
        for some in (equal, [tiny[error, True] for error in STEPS])
    )
    speeds = ", ".join(f"{v:.0f} ({name})" for name, v in doubling.items())
    return holds, (
        f"Nothing does, if they are equal: their difference is exactly 0 to the last epoch in {never} of {runs} runs "
        f"under all three errors, at a squared error of {bad:.2f} where parted experts have {good:.2f}. A difference "
        f"of 1e-8 grows while the gate learns, doubling every {speeds} epochs. With the gate held undecided it shrinks "
        f"under {listed(shrinks) if shrinks else 'none of them'}"
        + (
            f", and experts that start as usual come ten times closer or more under {listed(together)}"
            if together
            else ""
        )
        + ". So experts part because chance made them differ and the gate follows that difference; bad performance "
        "alone parts nobody."
    )


EQUAL = Question(
    "What stops experts from becoming equal?",
    "if they were, they would perform badly and large gradients would part them",
    equal_specs,
    equal_run,
    equal_summary,
    equal_rows,
    equal_verdict,
)

# --- Cooperation and competition ------------------------------------------------------------------

# the width of eq. 3 on the regression, whose targets have variance 1; the vowels have σ = 1
SIGMA = 1 / 3


def errors_specs(config, quick):
    seeds, epochs, fits = (2, 300, 2) if quick else (config.few, 2500, config.fits)
    return [
        {"task": task, "error": error, "seed": seed, "epochs": epochs}
        for task, n in (("vowels", seeds), ("regression", fits))
        for error in STEPS
        for seed in range(n)
    ]


def errors_run(spec):
    return together(*(on_vowels(spec) if spec["task"] == "vowels" else on_regression(spec)))


def on_vowels(spec):
    data = vowel_runs.task("IY+AH", 1, "file order", 0)
    params = model.init_mixture(np.random.default_rng(spec["seed"]), 4)
    for step in model.train(
        params, data.x_train, data.d_train, lr=STEPS[spec["error"]], error=spec["error"]
    ):
        if step.number == spec["epochs"]:
            return step.cache.o, step.cache.p, data.d_train


def on_regression(spec):
    """Four linear experts on four regions, to the minimum of each error (L-BFGS) from the same
    start.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    x, d, _ = regimes.draw(task, 400, rng)
    unit = SIGMA if spec["error"] == "mixture" else 1.0  # eq. 3 of width σ is eq. 3 of d / σ

    def loss_and_grads(params):
        loss, cache = model.system_forward(params, x, d / unit, spec["error"], "linear")
        return float(loss.mean()), model.system_backward(np.full(len(x), 1 / len(x)), cache)[1]

    params = minimise(
        loss_and_grads, model.init_mixture(rng, 4, init_range=0.5), max_iter=spec["epochs"]
    ).params
    o, p = model.experts_forward(params, x, "linear")[0], model.gate_forward(params, x)[0]
    return o * unit, p, d


def together(o, p, d):
    """How much the experts depend on each other.

    blend, alone    squared error of Σ p_i o_i, and of the expert with the largest p
    cancelled       1 − blend's error / Σ p_i ‖d − o_i‖²: the share of the experts' own errors that averaging takes away
    without         squared error, weighted by use, when an expert is missing and the others share its part
    """
    residual = d[:, None, :] - o
    own = (residual**2).sum(axis=2)
    blend = ((p[:, :, None] * residual).sum(axis=1) ** 2).sum(axis=1).mean()
    use, without = p.mean(axis=0), []
    for e in range(p.shape[1]):
        rest = p.copy()
        rest[:, e] = 0
        rest /= np.maximum(rest.sum(axis=1, keepdims=True), 1e-300)
        without.append(((rest[:, :, None] * residual).sum(axis=1) ** 2).sum(axis=1).mean())
    return {
        "blend": float(blend),
        "alone": float(own[np.arange(len(o)), p.argmax(axis=1)].mean()),
        "cancelled": float(1 - blend / (p * own).sum(axis=1).mean()),
        "correlation": correlation(residual[:, :, 0], p),
        "without": float(use @ np.array(without)),
        "in use": int(model.active_experts(p).sum()),
    }


def correlation(residual, p):
    """Of two experts' residuals about 0, pairs and cases weighted by p_i p_j: below 0 where one
    corrects the other.
    """
    both = scale = 0.0
    for i in range(p.shape[1]):
        for j in range(i):
            weight = p[:, i] * p[:, j]
            both += (weight * residual[:, i] * residual[:, j]).sum()
            scale += 0.5 * (weight * (residual[:, i] ** 2 + residual[:, j] ** 2)).sum()
    return float(both / scale) if scale > 0 else 0.0


def errors_summary(specs, runs):
    out = []
    for (task, error), own in grouped(specs, runs, "task", "error").items():
        one = {
            "task": task,
            "error": error,
            "n": len(own),
            **over(own, "cancelled", "correlation", "in use"),
        }
        one |= {k: float(np.median([r[k] for r in own])) for k in ("blend", "alone", "without")}
        one["cancels"] = [r["cancelled"] for r in own]
        one["dependent"] = sum(r["alone"] > 2 * r["blend"] for r in own)
        out.append(one)
    return out


def errors_rows(summary):
    rows = [
        [
            c["task"],
            EQUATIONS[c["error"]],
            f"{c['blend']:.3f}",
            f"{c['alone']:.3f}",
            f"{c['dependent']} of {c['n']}",
            pm(c["cancelled"], 1, 100),
            pm(c["correlation"]),
            f"{c['without']:.3g}",
            pm(c["in use"], 1),
        ]
        for c in summary
    ]
    heads = [
        "task",
        "error",
        "blend's (median)",
        "one expert's",
        "that more than twice it",
        "% cancelled",
        "correlation",
    ]
    return markdown([*heads, "one missing", "experts in use"], rows)


def errors_verdict(summary):
    at = {(c["task"], c["error"]): c for c in summary}
    texts, shows = [], {}
    for task in ("vowels", "regression"):
        first, second, third = (at[task, error] for error in STEPS)
        shows[task] = differ(first["cancels"], np.array(third["cancels"])) > 0
        texts.append(
            f"On the {task} averaging cancels {100 * first['cancelled'][0]:.1f} % of the experts' own errors under "
            f"eq. 1, {100 * second['cancelled'][0]:.1f} % under eq. 2 and {100 * third['cancelled'][0]:.1f} % under "
            f"eq. 3; the gate's first choice alone has more than twice the blend's error in {first['dependent']}, "
            f"{second['dependent']} and {third['dependent']} of {first['n']} runs"
        )
    best = min(STEPS, key=lambda error: at["regression", error]["blend"])
    holds = "yes" if all(shows.values()) else "partly" if any(shows.values()) else "no"
    return holds, (
        ". ".join(texts)
        + f". The lowest median error of the blend on the regression is that of {EQUATIONS[best]} "
        f"({at['regression', best]['blend']:.3f}). "
        + (
            "Eq. 1 makes experts that need each other, eq. 2 and 3 make experts that can answer alone."
            if holds == "yes"
            else "The difference does not show on both tasks."
        )
    )


ERRORS = Question(
    "Which error makes experts cooperate, which compete?",
    "eq. 1 couples the experts, eq. 2 and eq. 3 make each answer alone (Jacobs et al. 1991)",
    errors_specs,
    errors_run,
    errors_summary,
    errors_rows,
    errors_verdict,
)
