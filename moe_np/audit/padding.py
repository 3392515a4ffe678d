"""Padding: it has no weight, it moves no other token's routing, and it is left out of the loss."""

import numpy as np

from moe_np.audit import causality
from moe_np.audit.balance_value import fit
from moe_np.audit.findings import Finding, convention, fault, right, unknown
from moe_np.audit.noise import same, values
from moe_np.audit.subject import Answer, Subject

COUNT = 24
PADDED = 8
INPUT = f"{PADDED} of {COUNT} tokens are padding"
TRIES = 6  # an exchange of places between tokens does not happen in every batch


def padding(subject: Subject) -> list[Finding]:
    """Padding has no weight, moves no other token's routing, and does not change the loss."""
    check = "padding"
    if "valid" not in subject.accepts:
        return [_without_mask(check, subject)]
    x = subject.random(COUNT, seed=1)
    valid = np.arange(COUNT) < COUNT - PADDED
    padded = subject.answer(x, valid=valid, seed=8)
    alone = subject.answer(x[valid], valid=valid[valid], seed=8)
    if padded.gate is not None and np.abs(padded.gate[~valid]).max() > 1e-9:
        return [fault(check, "padding has weights", 7, input=INPUT, got=padded.gate[-1])]
    moves = _contents(check, subject) or _number(check, subject, valid, padded, alone)
    if moves is not None and moves.verdict == "wrong":
        return [moves]
    findings = [] if moves is None else [moves]
    if padded.loss is not None and alone.loss is not None:
        return [*findings, _in_the_loss(check, subject, padded.loss, alone.loss)]
    text = "padding has no weight and moves no other token"
    return findings or [right(check, text, input=f"{INPUT}; other numbers in them")]


def _contents(check, subject):
    """Other numbers in the padding must not change the weights of the tokens."""
    valid = np.arange(COUNT) % 3 != 0  # some of it before each token: places are given in order
    kept = np.flatnonzero(valid)
    for training in (False, True):
        for seed in range(TRIES):
            x = subject.random(COUNT, seed=seed)
            numbers = subject.random(COUNT, seed=100 + seed, scale=3.0)
            other = np.where(valid[:, None], x, numbers)
            first, second, after = (
                subject.answer(tokens, training=training, valid=valid, seed=8)
                for tokens in (x, x, other)
            )
            if not _has_rows(first) or not same(first, second):
                break
            difference = causality.moved(values(first)[kept], values(after)[kept], kept)
            if difference is not None:
                _, evidence = difference
                where = " in training" if training else ""
                evidence["input"] += f"; {INPUT}, and other numbers in them"
                text = f"the numbers in the padding change the routing of other tokens{where}"
                return fault(check, text, 13, **evidence)
    return None


def _number(check, subject, valid, padded, alone):
    """Without the padding the tokens must have the same weights."""
    second = subject.answer(subject.random(COUNT, seed=1), valid=valid, seed=8)
    if not _has_rows(padded) or not same(padded, second):
        return None
    kept = np.flatnonzero(valid)
    difference = causality.moved(values(alone), values(padded)[kept], kept)
    if difference is None:
        return None
    drops, evidence = difference
    evidence["input"] += f"; {INPUT}, or are left out"
    if drops:
        text = "the capacity counts padding, whatever is in it: other tokens are dropped without it"
        return convention(check, text, 9, **evidence)
    return fault(check, "padding changes the routing of other tokens", 13, **evidence)


def _has_rows(answer: Answer) -> bool:
    """Whether the weights or outputs of the tokens are seen."""
    return answer.gate is not None or answer.out is not None


def _in_the_loss(check, subject, padded, alone):
    """The loss must be that of the tokens without padding."""
    evidence = {"input": INPUT, "wanted": alone, "got": padded}
    if abs(padded - alone) <= 1e-4 * abs(alone) + 1e-9:
        return right(check, "padding is left out of the loss", **evidence)
    fitted = fit(subject)
    is_z = fitted is not None and any(rule.name == "z_loss" for rule, _ in fitted[0])
    return fault(check, "padding counts in the loss", 7 if is_z else 17, **evidence)


def _without_mask(check, subject):
    """Code that takes no mask: its padding may still move other tokens, in evaluation."""
    text = "the code takes no mask of padding"
    if not _has_rows(subject.answer(subject.random(4))):
        return unknown(check, text)
    sides = causality.dependences(subject, (False,))
    if not sides:
        return unknown(check, f"{text}; no other token would be moved by it")
    evidence = next(iter(sides.values())).evidence
    reason = causality.reason_for(subject, sides)
    if reason:
        return convention(check, f"{text}, and padding takes part: {reason}", 13, **evidence)
    return fault(check, f"{text}, and padding changes the routing of other tokens", 13, **evidence)
