"""Edge cases: one token, none, one expert, all experts, extreme logits, precisions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moe_np.audit.calling import reference
from moe_np.audit.findings import Finding, convention, fault, right, unknown
from moe_np.audit.identity import SAME, choices, identify, is_deterministic
from moe_np.audit.noise import COUNT, values
from moe_np.audit.subject import TINY, Answer, Subject
from moe_np.base import numerics


def attempt(function: Callable[[], Any]) -> tuple[Any, str]:
    """(result, "") or (None, what was raised)."""
    try:
        return function(), ""
    except Exception as error:
        text = " ".join(str(error).split())[:120]
        return None, f"{type(error).__name__}: {text}"


def _refused(check, what, error):
    return [convention(check, f"{what} is refused with an error", input=what, got=error)]


def _depends_on_the_batch(subject):
    name = getattr(identify(subject)[0], "name", "")
    is_causal = subject.like is None or reference(subject.like).CAUSAL
    return subject.factor is not None or not is_causal or name.startswith("expert_choice")


def one_token(subject: Subject) -> list[Finding]:
    """A batch of one token."""
    check = "one token"
    x = subject.random(COUNT)
    answer, error = attempt(lambda: subject.answer(x[:1]))
    if error:
        return [fault(check, "raises", input="one token", got=error)]
    alone = values(answer)
    if not np.isfinite(alone).all() or (answer.loss is not None and not np.isfinite(answer.loss)):
        text = "not finite"
        return [
            fault(check, text, input=x[0], got=alone[0] if answer.loss is None else answer.loss)
        ]
    if _depends_on_the_batch(subject) or answer.gate is None or not is_deterministic(subject):
        return [right(check, "finite", input=x[0], got=alone[0])]
    batch = values(subject.answer(x))
    if np.abs(batch[0] - alone[0]).max() < SAME:
        return [right(check, "as in a batch", input=x[0], got=alone[0])]
    return [fault(check, "not as in a batch", 13, input=x[0], wanted=batch[0], got=alone[0])]


def no_tokens(subject: Subject) -> list[Finding]:
    """A batch without tokens."""
    check = "no tokens"
    x = subject.random(1)[:0]
    answer, error = attempt(lambda: subject.answer(x))
    if error:
        return _refused(check, "an empty batch", error)
    if answer.loss is not None and not np.isfinite(answer.loss):
        evidence = {"input": "0 tokens", "wanted": "0", "got": answer.loss}
        return [convention(check, "the loss is no number", **evidence)]
    return [right(check, "gives no rows", input="0 tokens")]


def one_expert(subject: Subject) -> list[Finding]:
    """E = 1: the weight is 1, or a sigmoid."""
    check = "one expert"
    if subject.remake is None:
        return [unknown(check, "it cannot be made with other sizes")]
    small, error = attempt(lambda: subject.remake(subject.D, 1, 1))  # type: ignore[misc]
    if not error:
        answer, error = attempt(lambda: small.answer(small.random(6)))
    if error:
        return _refused(check, "E = 1", error)
    if not np.isfinite(values(answer)).all():
        return [fault(check, "not finite", input="E = 1", wanted="1", got=values(answer)[0])]
    if answer.loss is not None and not np.isfinite(answer.loss):
        text = "the loss is not finite"
        return [fault(check, text, 5, input="E = 1", wanted="0", got=answer.loss)]
    return [right(check, "finite", input="E = 1, k = 1", got=values(answer)[0])]


def all_experts(subject: Subject) -> list[Finding]:
    """k = E is the dense softmax."""
    check = "k = E"
    if subject.remake is None or "k" not in subject.accepts | {"k"} or choices(subject) < 2:
        return [unknown(check, "it cannot be made with other sizes")]
    full, error = attempt(
        lambda: subject.remake(subject.D, subject.E, subject.E)  # type: ignore[misc]
    )
    if not error:
        x = full.random(6)
        answer, error = attempt(lambda: full.answer(x))
    if error:
        return _refused(check, "k = E", error)
    logits = full.logits_of(x)
    if answer.gate is None or logits is None:
        return [unknown(check, "the weights cannot be seen")]
    if (np.abs(answer.gate) > TINY).sum(axis=1).max() < subject.E:
        return [unknown(check, "k cannot be set")]
    expected = numerics.softmax(logits)
    evidence = {"input": f"k = {subject.E}", "wanted": expected[0], "got": answer.gate[0]}
    if np.abs(answer.gate - expected).max() < SAME:
        return [right(check, "the dense softmax", **evidence)]
    known = identify(subject)
    if known[2] < SAME and known[0] is not None and known[0].verdict == "right":
        return [right(check, "every expert has a weight", **evidence)]
    return [unknown(check, "not the dense softmax", **evidence)]


def huge_logits(subject: Subject) -> list[Finding]:
    """Logits of 1e4: an exponential without the row's maximum subtracted overflows."""
    check = "huge logits"
    logits = np.random.default_rng(6).normal(size=(COUNT, subject.E)) * 1e4
    logits[-1] = -np.abs(logits[-1])
    x = subject.tokens(logits)
    x = subject.random(COUNT) * 1e4 if x is None else x
    answer, error = attempt(lambda: subject.answer(x))
    evidence: dict[str, Any] = {"input": logits[0], "wanted": "finite numbers"}
    if error:
        return _refused(check, "logits of 1e4", error)
    gate = values(answer)
    bad = ~np.isfinite(gate).reshape(len(gate), -1).all(axis=1)
    if bad.any():
        n = int(bad.argmax())
        evidence["input"] = logits[n]
        if (logits[bad].max(axis=1) < 0).all() and subject.tokens(logits) is not None:
            text = "not finite where all logits are far below 0: the sum of the scores is 0"
            return [convention(check, text, got=gate[n], **evidence)]
        text = "not finite: the softmax does not subtract the maximum"
        return [fault(check, text, got=gate[n], **evidence)]
    if answer.loss is not None and not np.isfinite(answer.loss):
        return [fault(check, "the loss is not finite", got=answer.loss, **evidence)]
    return [right(check, "finite", got=gate[0], **evidence)]


def infinite_logits(subject: Subject) -> list[Finding]:
    """An expert masked with −∞ has weight 0, and nothing becomes NaN."""
    check = "logits of −∞"
    if subject.takes != "logits":
        return [unknown(check, "it takes tokens, whose logits are finite")]
    logits = subject.random(COUNT)
    logits[:, 0] = -np.inf
    answer, error = attempt(lambda: subject.answer(logits))
    if error:
        return _refused(check, "a logit of −∞", error)
    gate = values(answer)
    evidence = {"input": logits[0], "wanted": "weight 0 for expert 0", "got": gate[0]}
    if not np.isfinite(gate).all():
        return [fault(check, "weights become NaN", 20, **evidence)]
    if answer.gate is not None and np.abs(answer.gate[:, 0]).max() > TINY:
        if choices(subject) == subject.E:
            return [convention(check, "a masked expert is weighted", 20, **evidence)]
        return [fault(check, "a masked expert has a weight", 20, **evidence)]
    text = "finite" if answer.gate is None else "a masked expert has weight 0"
    return [right(check, text, **evidence)]


def _in_precision(subject: Subject, name: str) -> tuple[Answer | None, str]:
    before = subject.dtype
    try:
        subject.dtype = np.dtype(name)
        if subject.precision is not None:
            subject.precision(name)
        return attempt(lambda: subject.answer(subject.random(COUNT)))
    finally:
        subject.dtype = before
        if subject.precision is not None:
            subject.precision("float64")


def single_precision(subject: Subject) -> list[Finding]:
    """float32 in, float32 out."""
    check = "dtype"
    answer, error = _in_precision(subject, "float32")
    if error or answer is None:
        return _refused(check, "float32", error)
    if not np.isfinite(values(answer)).all():
        return [fault(check, "not finite in float32", got=values(answer)[0])]
    if not answer.dtype:
        return [right(check, "finite", input="float32")]
    if answer.dtype == "float32":
        return [right(check, "float32 gives float32", input="float32", got=answer.dtype)]
    text = "the result has another type than the tokens"
    return [convention(check, text, input="float32", wanted="float32", got=answer.dtype)]


def half_precision(subject: Subject) -> list[Finding]:
    """float16: finite weights."""
    check = "half precision"
    answer, error = _in_precision(subject, "float16")
    if error or answer is None:
        return _refused(check, "float16", error)
    if not np.isfinite(values(answer)).all():
        return [fault(check, "not finite in float16", input="float16", got=values(answer)[0])]
    return [right(check, "finite", input="float16", got=values(answer)[0])]
