"""Whether the routing of a token depends on other tokens of the batch, earlier or later ones."""

from typing import Any, NamedTuple

import numpy as np

from moe_np.audit.calling import reference
from moe_np.audit.capacity_rule import LIMITED
from moe_np.audit.findings import Finding, convention, fault, right
from moe_np.audit.identity import SAME, identify
from moe_np.audit.noise import values
from moe_np.audit.subject import TINY, Subject
from moe_np.base.types import Array, ArrayN

COUNT = 24
TRIES = 6  # an exchange of places between tokens does not happen in every batch


def other_tokens(subject: Subject) -> list[Finding]:
    """Change half of the tokens and look at the other half."""
    check = "other tokens of the batch"
    if subject.answer(subject.random(4)).gate is None and not subject.is_layer:
        return [_not_there(check)]
    sides = dependences(subject)
    if not sides:
        text = "none: a token's routing depends on that token alone"
        return [right(check, text, input=f"{COUNT} tokens, {COUNT // 2} of them changed")]
    first = sides.get("later") or sides["earlier"]
    where = " in training" if first.training else ""
    text = f"the routing depends on {' and '.join(sides)} tokens{where}"
    if "later" not in sides and _is_limited(subject, sides):
        return [right(check, f"{text}: places are given in order", **first.evidence)]
    reason = reason_for(subject, sides)
    if reason:
        text = f"{text}: {reason}; not for a causal language model"
        return [convention(check, text, 13, **first.evidence)]
    return [fault(check, text, 13, **first.evidence)]


def _not_there(check):
    return Finding(check, "unknown", "the weights cannot be seen")


class Dependence(NamedTuple):
    """A token whose weights changed with other tokens."""

    training: bool
    drops: bool  # the weights are the same but for those of dropped tokens
    evidence: dict[str, Any]


def dependences(subject: Subject, modes: tuple[bool, ...] = (False, True)) -> dict[str, Dependence]:
    """{"later", "earlier": a Dependence on such tokens}, in evaluation and in training."""
    sides: dict[str, Dependence] = {}
    for training in modes:
        for side in ("later", "earlier"):
            dependence = _dependence(subject, side, training)
            if dependence is not None:
                sides.setdefault(side, dependence)
    return sides


def _is_limited(subject, sides):
    """Whether the tokens compete for places."""
    limits = subject.factor is not None or subject.like in LIMITED
    return limits or all(dependence.drops for dependence in sides.values())


def reason_for(subject: Subject, sides: dict[str, Dependence]) -> str:
    """Why a router that is right depends on other tokens; "" if there is no reason."""
    if all(dependence.drops for dependence in sides.values()):
        return _reason(subject) or "experts have a capacity"
    return _reason(subject)


def _reason(subject):
    if subject.like is not None:
        causal = reference(subject.like).CAUSAL
        return "" if causal else f"{subject.like} looks at the whole batch"
    candidate, _, error, *_ = identify(subject)
    if candidate is not None and error < SAME:
        if candidate.name.startswith("expert_choice"):
            return "the experts choose their tokens"
        if candidate.verdict == "wrong":
            return ""
    return "experts have a capacity" if subject.factor is not None else ""


def _dependence(subject, side, training):
    """A Dependence of a half of the tokens on the `side` half; None if there is none."""
    half = COUNT // 2
    first, last = np.arange(half), np.arange(half, COUNT)
    changed, kept = (last, first) if side == "later" else (first, last)
    for seed in range(TRIES):
        x = subject.random(COUNT, seed=seed)
        other = x.copy()
        other[changed] = subject.random(COUNT, seed=100 + seed, scale=3.0)[changed]
        before, after = (
            values(subject.answer(tokens, training=training, seed=8))[kept] for tokens in (x, other)
        )
        difference = moved(before, after, kept)
        if difference is not None:
            drops, evidence = difference
            rows = f"tokens {changed[0]} to {changed[-1]} changed"
            evidence["input"] = f"{evidence['input']}; {rows}"
            return Dependence(training, drops, evidence)
    return None


def moved(before: Array, after: Array, names: ArrayN) -> tuple[bool, dict[str, Any]] | None:
    """(only drops differ, evidence) where weights of tokens differ, None where they do not.

    before, after   weights or outputs of the same tokens, one row per token
    names           the numbers of these tokens
    """
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    error = np.abs(after - before).reshape(len(before), -1).max(axis=1)
    if error.max() <= SAME:
        return None
    n = int(error.argmax())
    both = (np.abs(before) > TINY) & (np.abs(after) > TINY)
    drops = bool(np.abs(after - before)[both].max(initial=0) < SAME)
    return drops, {"input": f"token {names[n]}", "wanted": before[n], "got": after[n]}
