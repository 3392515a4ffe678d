"""The gradient of the weights: whether it reaches the gate, unselected logits, and its size.

Every gradient is compared with differences of what the code itself computes (projection on a random
direction). The choice of experts is held, because a small step does not change it.
"""

from typing import Any

import numpy as np

from moe_np.audit.findings import Finding, convention, fault, right, unknown
from moe_np.audit.identity import SAME, choices, identify
from moe_np.audit.subject import TINY, Subject
from moe_np.base.types import Array
from moe_np.routing import contract

STEP = 1e-3
CLOSE = 0.03  # relative; the code may compute in float32
ALWAYS_ONE = ("hashing", "kmeans", "gradient_estimators")  # routers whose weight is 1 by design


def problem(subject: Subject, role: str = "") -> tuple[Array, dict[str, Array]]:
    """Few tokens, so that the gradient at w gives that at the logits, and a cotangent."""
    x = subject.random(min(6, subject.D) if subject.takes == "x" else 6, seed=2)
    rng = np.random.default_rng(3)
    if role in ("loss", "load"):
        size = (1,) if role == "loss" else (subject.E,)
        return x, {role: np.ones(size) if role == "loss" else rng.normal(size=size)}
    if subject.is_layer:
        return x, {"out": rng.normal(size=(len(x), subject.D))}
    return x, {"gate": rng.normal(size=(len(x), subject.E))}


def differences(
    subject: Subject,
    x: Array,
    cotangent: dict[str, Array],
    name: str,
    directions: list[Array],
    training: bool = False,
) -> list[float | None]:
    """Slopes of Σ cotangent · result along directions of the input `name`, by central differences;
    None where two step lengths disagree, which is a place where the choice changes.
    """
    start = x if name == subject.takes else subject.params[name]
    slopes: list[float | None] = []
    for v in directions:
        estimates = []
        for step in (STEP, STEP / 2):
            values = []
            for moved in (start + step * v, start - step * v):
                at = (moved, {}) if name == subject.takes else (x, {name: moved})
                values.append(subject.number(at[0], cotangent, training, 7, **at[1]))
            estimates.append((values[0] - values[1]) / (2 * step))
        size = max(map(abs, estimates))
        agree = abs(estimates[0] - estimates[1]) <= CLOSE * size + 2e-4
        slopes.append(estimates[1] if agree else None)
    return slopes


def compare(
    subject: Subject, x: Array, cotangent: dict[str, Array], training: bool = False
) -> dict[str, tuple[list[float], list[float]]] | None:
    """{input: (slopes by the code's gradient, slopes by differences)}; None without gradients."""
    grads = subject.gradient(x, cotangent, training)
    if grads is None:
        return None
    rng = np.random.default_rng(4)
    slopes = {}
    for name, g in grads.items():
        start = x if name == subject.takes else subject.params.get(name)
        if name == "bias" or start is None or np.shape(g) != start.shape:
            continue
        directions = [rng.normal(size=start.shape) for _ in range(4)]
        numeric = differences(subject, x, cotangent, name, directions, training)
        pairs = [
            (float((g * v).sum()), s)
            for v, s in zip(directions, numeric, strict=True)
            if s is not None
        ]
        slopes[name] = [a for a, _ in pairs], [s for _, s in pairs]
    return slopes


def differs(analytic: list[float], numeric: list[float]) -> bool:
    """Whether slopes disagree by more than rounding."""
    a, n = np.array(analytic), np.array(numeric)
    size = max(np.abs(a).max(initial=0), np.abs(n).max(initial=0))
    return bool((np.abs(a - n) > CLOSE * size + 1e-4).any())


def common_ratio(analytic: list[float], numeric: list[float]) -> float | None:
    """c with analytic = c · numeric in all directions, None if there is none, or it is 0 or 1."""
    a, n = np.array(analytic), np.array(numeric)
    if len(n) < 2 or np.abs(n).max() < 1e-3:
        return None
    c = float((a * n).sum() / (n * n).sum())
    good = np.abs(a - c * n).max() <= CLOSE * np.abs(a).max(initial=0)
    return c if good and abs(c) > CLOSE and abs(c - 1) > CLOSE else None


# --- checks ---------------------------------------------------------------------------------------


def reaches_the_gate(subject: Subject) -> list[Finding]:
    """The gradient of a task at the gate: 0 where k = 1 is renormalised."""
    check = "gradient to the gate"
    if subject.E == 1:
        return [unknown(check, "one expert only")]
    x, cotangent = problem(subject)
    answer = subject.answer(x)
    if answer.gate is None and not subject.is_layer:
        return [unknown(check, "the weights cannot be seen")]
    name = subject.takes if subject.takes == "logits" or "w" not in subject.params else "w"
    if subject.is_layer and name != "w":
        return [unknown(check, "the router's matrix is not known")]
    grads = subject.gradient(x, cotangent)
    start = x if name == subject.takes else subject.params[name]
    if grads is not None and (name in grads or "logits" in grads):
        size = float(np.abs(grads[name] if name in grads else grads["logits"]).max(initial=0))
    else:
        rng = np.random.default_rng(4)
        directions = [rng.normal(size=start.shape) for _ in range(4)]
        slopes = differences(subject, x, cotangent, name, directions)
        size = max((abs(s) for s in slopes if s is not None), default=0.0)
    is_one = answer.gate is not None and np.abs(answer.gate.max(axis=1) - 1).max() < 1e-2
    evidence: dict[str, Any] = {
        "input": f"{len(x)} random tokens, a random gradient at the weights",
        "wanted": "above 1e-3",
        "got": f"{size:.2g}, the largest entry of the gradient at {name}",
    }
    if not np.isfinite(size):
        return [fault(check, "the gradient is not finite", **evidence)]
    if size > 1e-3:
        return [right(check, "it arrives", **evidence)]
    if subject.like in ALWAYS_ONE:
        return [right(check, f"it is 0 by design in {subject.like}", **evidence)]
    if is_one and choices(subject) == 1:
        text = "k = 1 renormalised: the weight is always 1 and the router learns nothing"
        if size > 0:
            text += "; a small number in the denominator hides it"
        return [fault(check, text, 4, **evidence)]
    text = "no gradient reaches the gate"
    return [fault(check, text, **evidence)]


def projection(subject: Subject) -> list[Finding]:
    """The code's gradient against differences of its own forward pass."""
    check = "gradient by projection"
    x, cotangent = problem(subject)
    if subject.answer(x).gate is None and not subject.is_layer:
        return [unknown(check, "the weights cannot be seen")]
    slopes = compare(subject, x, cotangent)
    if slopes is None:
        return [unknown(check, "the code brings no gradient (result `backward`)")]
    for name, (analytic, numeric) in slopes.items():
        if not differs(analytic, numeric):
            continue
        evidence: dict[str, Any] = {
            "input": f"{len(x)} random tokens, directions of {name}",
            "wanted": np.array(numeric),
            "got": np.array(analytic),
        }
        if np.abs(numeric).max(initial=0) < 1e-6:
            text = "a gradient where the weights do not change: an estimator (straight-through)"
            return [convention(check, text, **evidence)]
        ratio = common_ratio(analytic, numeric)
        if ratio is not None:
            text = f"the gradient is {ratio:.4g} times that of the value ({len(x)} tokens)"
            return [fault(check, text, 16, **evidence)]
        text = "the gradient is not that of the weights"
        return [fault(check, text, _of_selection(subject, x, cotangent), **evidence)]
    names = ", ".join(slopes)
    return [right(check, f"that of the value, for {names}" if names else "nothing to compare")]


def _of_selection(subject, x, cotangent):
    """3 where the gradient at unselected logits is what is off, else None."""
    finding = unselected(subject)[0]
    return 3 if finding.verdict == "wrong" else None


def unselected(subject: Subject) -> list[Finding]:
    """Unselected logits: exactly 0 where the weights are renormalised, else not 0."""
    check = "gradient to unselected logits"
    candidate, _, error, *_ = identify(subject)
    x, cotangent = problem(subject)
    answer = subject.answer(x)
    if answer.gate is None or candidate is None or error > SAME:
        return [unknown(check, "the rule of the weights is not known")]
    grads = subject.gradient(x, cotangent)
    dlogits = None if grads is None else subject.dlogits(grads, x)
    if dlogits is None:
        return [unknown(check, "the gradient at the logits is not known")]
    logits = subject.logits_of(x)
    if logits is None:
        return [unknown(check, "the logits are not known")]
    # a choice that was dropped is selected all the same
    rest = ~contract.demand_of(contract.top_k(logits, choices(subject)), subject.E)
    rest &= np.abs(answer.gate) <= TINY
    if not rest.any():
        return [unknown(check, "every expert is selected")]
    size = float(np.abs(dlogits[rest]).max())
    largest = float(np.abs(dlogits).max())
    evidence = {"input": f"{len(x)} random tokens", "got": f"{size:.2g} of {largest:.2g}"}
    if largest < 1e-4 or choices(subject) == subject.E or not _is_plain(candidate.name):
        return [unknown(check, "no rule for this router", **evidence)]
    if "renormalise=True" in candidate.name or "bias_balanced" in candidate.name:
        if size < 1e-6 * largest:
            return [right(check, "0: only the selected logits enter", wanted="0", **evidence)]
        text = "not 0, although the weights are renormalised"
        return [fault(check, text, 3, wanted="0", **evidence)]
    if size > 1e-6 * largest:
        return [right(check, "not 0: the softmax has all logits", wanted="not 0", **evidence)]
    text = "0, although the weights are probabilities of a softmax over all logits"
    return [fault(check, text, 3, wanted="not 0", **evidence)]


def _is_plain(name):
    """Rules in which the gradient at unselected logits is known."""
    return name.startswith(("top_k", "bias_balanced", "switch"))
