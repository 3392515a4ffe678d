"""Whether the routing of a token depends on other tokens of the batch, earlier or later ones."""

import numpy as np

from moe_np.audit.calling import reference
from moe_np.audit.findings import Finding, convention, fault, right
from moe_np.audit.identity import SAME, identify
from moe_np.audit.noise import values
from moe_np.audit.subject import TINY, Subject

COUNT = 24
TRIES = 6  # an exchange of places between tokens does not happen in every batch


def other_tokens(subject: Subject) -> list[Finding]:
    """Change half of the tokens and look at the other half."""
    check = "other tokens of the batch"
    if subject.answer(subject.random(4)).gate is None and not subject.is_layer:
        return [_not_there(check)]
    findings = {}
    for training in (False, True):
        for side in ("later", "earlier"):
            evidence = _dependence(subject, side, training)
            if evidence is not None:
                findings.setdefault(side, (training, evidence))
    if not findings:
        text = "none: a token's routing depends on that token alone"
        return [right(check, text, input=f"{COUNT} tokens, {COUNT // 2} of them changed")]
    side = "later" if "later" in findings else "earlier"
    training, evidence = findings[side]
    where = " in training" if training else ""
    text = f"the routing depends on {' and '.join(findings)} tokens{where}"
    drops = all(evidence.pop("drops") for _, evidence in findings.values())
    limited = subject.factor is not None or _limits(subject) or drops
    if side == "earlier" and limited:
        return [right(check, f"{text}: places are given in order", **evidence)]
    reason = _reason(subject) or ("experts have a capacity" if drops else "")
    if reason:
        text = f"{text}: {reason}; not for a causal language model"
        return [convention(check, text, 13, **evidence)]
    return [fault(check, text, 13, **evidence)]


def _not_there(check):
    return Finding(check, "unknown", "the weights cannot be seen")


def _limits(subject):
    return subject.like in ("switch", "gshard", "st_moe")


def _reason(subject):
    """Why a router that is right depends on other tokens; "" if there is no reason."""
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
    """Evidence that a half of the tokens changes with the `side` half; None if it does not."""
    half = COUNT // 2
    for seed in range(TRIES):
        x = subject.random(COUNT, seed=seed)
        changed = x.copy()
        rows = slice(half, None) if side == "later" else slice(0, half)
        kept = slice(0, half) if side == "later" else slice(half, None)
        changed[rows] = subject.random(COUNT, seed=100 + seed, scale=3.0)[rows]
        before = values(subject.answer(x, training=training, seed=8))[kept]
        after = values(subject.answer(changed, training=training, seed=8))[kept]
        if not (np.isfinite(before).all() and np.isfinite(after).all()):
            continue
        error = np.abs(after - before).reshape(half, -1).max(axis=1)
        if error.max() > SAME:
            n = int(error.argmax())
            name = n if side == "later" else n + half
            changed_rows = f"tokens {rows.start or 0} to {rows.stop or COUNT} changed"
            both = (np.abs(before) > TINY) & (np.abs(after) > TINY)
            return {
                # the weights are the same but for those of dropped tokens
                "drops": bool(np.abs(after - before)[both].max(initial=0) < SAME),
                "input": f"token {name}; {changed_rows}",
                "wanted": before[n],
                "got": after[n],
            }
    return None
