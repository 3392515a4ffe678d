"""The expected load of noisy top-k gating: against counts of many draws, and its gradient."""

import numpy as np

from moe_np.audit import gradient_flow
from moe_np.audit.findings import Finding, fault, right, unknown
from moe_np.audit.identity import choices
from moe_np.audit.noise import COUNT
from moe_np.audit.subject import TINY, Subject

TOKENS = 6
DRAWS = 3000


def monte_carlo(subject: Subject) -> list[Finding]:
    """The load averaged over the noise is how often an expert is selected."""
    check = "expected load"
    small = subject.answer(subject.random(COUNT), training=True, seed=1)
    if small.load is None or small.gate is None:
        return [unknown(check, "the result has no load")]
    x = np.repeat(subject.random(TOKENS, seed=2), DRAWS, axis=0)
    answer = subject.answer(x, training=True, seed=1)
    assert answer.gate is not None and answer.load is not None
    counts = (np.abs(answer.gate) > TINY).sum(axis=0) / DRAWS
    load = answer.load / DRAWS
    k = choices(subject)
    evidence = {
        "input": f"{TOKENS} tokens, {DRAWS} draws of the noise; counts, sum {counts.sum():.3f}",
        "wanted": counts,
        "got": f"{load.round(3)}, sum {load.sum():.3f}",
    }
    if not np.isfinite(load).all():
        return [fault(check, "the load is not finite", 1, **evidence)]
    error = float(np.abs(load - counts).max())
    if error < 0.05 + 0.01 * k:
        return [right(check, "unbiased", **evidence)]
    total = f"a row sums to {load.sum() / TOKENS:.3g} and not to {k}"
    text = f"biased: single experts are off by up to {error / max(counts.max(), 1e-9):.0%}; {total}"
    return [fault(check, text, 1, **evidence)]


def gradient(subject: Subject) -> list[Finding]:
    """The gradient of the load goes through thresholds and their scales too."""
    check = "gradient of the load"
    x, cotangent = gradient_flow.problem(subject, "load")
    answer = subject.answer(x, training=True, seed=7)
    if answer.load is None:
        return [unknown(check, "the result has no load")]
    slopes = gradient_flow.compare(subject, x, cotangent, training=True)
    slopes = {n: s for n, s in (slopes or {}).items() if n in ("w", "w_noise", "logits")}
    if not slopes:
        return [unknown(check, "the code brings no gradient of the load")]
    for name, (analytic, numeric) in slopes.items():
        if gradient_flow.differs(analytic, numeric):
            size = np.abs(np.array(analytic) - numeric).max() / max(np.abs(numeric).max(), 1e-9)
            text = f"off by {size:.0%} in {name}: the threshold is held constant, or more"
            evidence = {"wanted": np.array(numeric), "got": np.array(analytic)}
            return [fault(check, text, 2, input=f"directions of {name}", **evidence)]
    return [right(check, "that of the value, through thresholds and scales")]


def evaluation(subject: Subject) -> list[Finding]:
    """Without noise the load is finite: nothing is divided by a standard deviation."""
    check = "load in evaluation"
    answer = subject.answer(subject.random(COUNT))
    if answer.load is None or answer.gate is None:
        return [unknown(check, "the result has no load")]
    counts = (np.abs(answer.gate) > TINY).sum(axis=0)
    evidence = {"input": f"{COUNT} tokens", "wanted": counts, "got": answer.load}
    if not np.isfinite(answer.load).all():
        text = "not finite in evaluation: it divides by a standard deviation of 0"
        return [fault(check, text, 10, **evidence)]
    return [right(check, "finite", **evidence)]
