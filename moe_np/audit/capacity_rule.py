"""Capacity: its rounding, few tokens, the order of the places, and what a dropped token gives."""

import math

import numpy as np

from moe_np.audit.findings import Finding, convention, fault, right, unknown
from moe_np.audit.identity import choices, identify
from moe_np.audit.subject import TINY, Subject
from moe_np.base.types import Array

LIMITED = ("switch", "gshard", "st_moe", "capacity_top_k")
LARGE = 24  # tokens
CROWDED = 2  # the expert to which all tokens of the checks go


def crowded(subject: Subject, N: int, rising: bool = False) -> Array | None:
    """N tokens whose first choice is one expert, more surely for later ones if `rising`."""
    rng = np.random.default_rng(9)
    logits = 0.3 * rng.normal(size=(N, subject.E))
    logits[:, min(CROWDED, subject.E - 1)] = 3.0 + (2.0 * np.arange(N) / N if rising else 0.0)
    return subject.tokens(logits)


def kept(subject: Subject, N: int, rising: bool = False) -> Array | None:
    """(N,) bool: which of N tokens the crowded expert takes; None where it cannot be seen."""
    x = crowded(subject, N, rising)
    if x is None:
        return None
    answer = subject.answer(x)
    if answer.gate is None:
        return None
    taken = np.abs(answer.gate[:, min(CROWDED, subject.E - 1)]) > TINY
    if answer.residual is not None:  # a dropped token that gives something is no sum of experts
        taken &= answer.residual < 1e-3
    return taken


def _applies(subject):
    """Whether the code is meant to have a capacity, and no choice by the experts."""
    candidate = identify(subject)[0]
    by_experts = candidate is not None and candidate.name.startswith("expert_choice")
    if subject.like is not None:
        return subject.like in LIMITED
    return not (by_experts and identify(subject)[2] < 1e-4)


def _factor(subject):
    """The capacity factor, as far as it is known."""
    if subject.factor is not None:
        return subject.factor
    return subject.options.get("capacity_factor") if subject.like in LIMITED else None


def rounding(subject: Subject) -> list[Finding]:
    """C = ceil(factor · N · k / E), at least 1."""
    check = "capacity"
    if not _applies(subject):
        return [unknown(check, "this router has none")]
    taken = kept(subject, LARGE)
    if taken is None:
        return [unknown(check, "the weights cannot be seen, or the logits cannot be set")]
    factor = _factor(subject)
    if taken.all() and factor is None:
        return [right(check, "none: nothing is dropped", input=f"{LARGE} tokens for one expert")]
    if factor is None and not _alone(subject, taken):
        return [unknown(check, "what is dropped does not depend on the number of tokens")]
    k = min(2, choices(subject)) if subject.like in ("gshard", "st_moe") else choices(subject)
    if factor is None:  # what the large batch says
        factor = taken.sum() * subject.E / (LARGE * k)
    sizes = (1, 2, 3, 7, LARGE)
    counts = {N: int(kept(subject, N).sum()) for N in sizes}  # type: ignore[union-attr]
    expected = {N: min(N, max(1, math.ceil(factor * N * k / subject.E - 1e-9))) for N in sizes}
    evidence = {
        "input": f"{', '.join(map(str, sizes))} tokens for one expert, factor {factor:g}",
        "wanted": f"places {list(expected.values())}",
        "got": f"places {list(counts.values())}",
    }
    if counts == expected:
        text = "rounded up and at least 1"
        return [right(check, text, **evidence), *_order(subject)]
    if all(counts[N] == N for N in sizes) and expected[LARGE] < LARGE:
        text = "nothing is ever dropped: the capacity is not counted along the tokens"
        return [fault(check, text, 32, **evidence)]
    if 0 in counts.values():
        text = "rounded down to 0 for few tokens: every token is dropped"
        return [fault(check, text, 9, **evidence), *_order(subject)]
    if counts == {N: min(N, counts[LARGE]) for N in sizes}:
        if subject.places == counts[LARGE]:
            evidence["wanted"] = evidence["got"]
            text = f"{subject.places} places per expert, as stated"
            return [right(check, text, **evidence), *_order(subject)]
        text = f"{counts[LARGE]} places, whatever the number of tokens"
        return [convention(check, text, 9, **evidence), *_order(subject)]
    floors = {N: min(N, max(1, math.floor(factor * N * k / subject.E + 1e-9))) for N in sizes}
    text = "rounded down, at least 1" if counts == floors else "another number of places"
    return [convention(check, text, 9, **evidence), *_order(subject)]


def _alone(subject, taken):
    """Whether a dropped token is kept in a batch of its own."""
    n = int(np.flatnonzero(~taken)[0])
    x = crowded(subject, len(taken))
    gate = None if x is None else subject.answer(x[n : n + 1]).gate
    return gate is not None and abs(gate[0, min(CROWDED, subject.E - 1)]) > TINY


def _order(subject):
    """Who gets the places."""
    check = "order of the places"
    taken = kept(subject, LARGE, rising=True)
    if taken is None or taken.all() or not taken.any():
        return []
    C = int(taken.sum())
    evidence = {"input": f"{LARGE} tokens, later ones more probable", "got": np.flatnonzero(taken)}
    if taken[:C].all():
        return [right(check, "in the order of the tokens", **evidence)]
    text = "by score" if taken[-C:].all() else "in another order"
    return [convention(check, f"{text}: depends on later tokens", 13, **evidence)]


def dropped(subject: Subject) -> list[Finding]:
    """A dropped token has no weight anywhere, and a layer gives exactly 0 for it."""
    check = "a dropped token"
    if not _applies(subject):
        return [unknown(check, "this router has no capacity")]
    N = LARGE
    x = crowded(subject, N)
    taken = kept(subject, N)
    if x is None or taken is None or taken.all() or _factor(subject) is None:
        return [unknown(check, "nothing is dropped")]
    answer = subject.answer(x)
    assert answer.gate is not None
    n = int(np.flatnonzero(~taken)[-1])
    if subject.is_layer and answer.out is not None and choices(subject) == 1:
        rest = answer.out[n] if subject.shared is None else answer.out[n] - subject.shared(x)[n]
        return [_of_layer(check, x[n], rest)]
    row = answer.gate[n]
    first = min(CROWDED, subject.E - 1)
    evidence = {"input": f"token {n} of {N}, all for expert {first}", "got": row}
    if choices(subject) == 1 and np.abs(row).max() > TINY:
        expert = int(np.abs(row).argmax())
        text = f"a dropped token is sent to expert {expert}, for which it did not ask"
        return [fault(check, text, 8, wanted="weights of 0", **evidence)]
    if answer.gate is not None and np.abs(row[first]) > TINY:
        return [fault(check, "a dropped token has a weight", 8, **evidence)]
    return [right(check, "has no weight", wanted="weights of 0", **evidence)]


def _of_layer(check, x, y):
    """What a layer gives for a dropped token: 0, a multiple of x, or something else."""
    evidence = {"input": x, "wanted": "0", "got": y}
    if np.abs(y).max() < 1e-9:
        return right(check, "gives exactly 0", **evidence)
    c = float((x * y).sum() / (x * x).sum())
    if np.abs(y - c * x).max() < 1e-5 * np.abs(y).max():
        text = f"gives {c:.3g} times x: a copy of the token and not 0"
        return fault(check, text, 8, **evidence)
    return fault(check, "gives something that is not 0", 8, **evidence)
