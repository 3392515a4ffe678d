"""Noise: none in evaluation, the same for the same seed, none outside the router, x unchanged."""

import numpy as np

from moe_np.audit.findings import Finding, fault, right, unknown
from moe_np.audit.subject import Answer, Subject
from moe_np.base import numerics
from moe_np.base.types import Array

COUNT = 24


def values(answer: Answer) -> Array:
    """What is compared: weights, or the output, or the loss."""
    for value in (answer.gate, answer.out):
        if value is not None:
            return value
    return np.array([np.nan if answer.loss is None else answer.loss])


def same(a: Answer, b: Answer) -> bool:
    """Whether two answers are equal, NaN included."""
    return bool(np.allclose(values(a), values(b), rtol=0, atol=1e-7, equal_nan=True))


def evaluation(subject: Subject) -> list[Finding]:
    """Two calls in evaluation give the same."""
    check = "evaluation is deterministic"
    x = subject.random(COUNT)
    first, second = subject.answer(x, seed=1), subject.answer(x, seed=2)
    if same(first, second):
        return [right(check, "two calls are equal", input=f"{COUNT} random tokens")]
    n = int(np.abs(values(first) - values(second)).reshape(len(values(first)), -1).max(1).argmax())
    evidence = {"input": x[n], "wanted": values(first)[n], "got": values(second)[n]}
    return [fault(check, "two calls in evaluation differ: there is noise", 10, **evidence)]


def seed(subject: Subject) -> list[Finding]:
    """In training the same seed gives the same."""
    check = "the seed decides"
    if not {"training", "rng", "seed", "evaluation"} & subject.accepts:
        return [unknown(check, "the code has no training mode")]
    x = subject.random(COUNT)
    first = subject.answer(x, training=True, seed=3)
    second = subject.answer(x, training=True, seed=3)
    if not same(first, second):
        text = "two calls in training with the same seed differ"
        evidence = {"wanted": values(first)[0], "got": values(second)[0]}
        return [fault(check, text, 10, input="seed 3 twice", **evidence)]
    noisy = not same(first, subject.answer(x, training=True, seed=4))
    text = "noise in training, from the seed" if noisy else "no noise in training"
    return [right(check, text, input="seed 3 twice")]


def tokens_unchanged(subject: Subject) -> list[Finding]:
    """The array of tokens is the same after the call."""
    check = "tokens are not changed"
    if subject.framework.name == "jax":
        return [right(check, "arrays of JAX cannot change")]
    x = subject.random(COUNT)
    for training in (False, True):
        subject_x = subject.cast(x)
        after = subject.answer(x, training=training, seed=5).x_after
        assert after is not None
        if not np.array_equal(after, subject_x):
            n = int(np.abs(after - subject_x).max(axis=1).argmax())
            mode = "training" if training else "evaluation"
            text = f"x is changed in place in {mode}: the experts and the caller see it"
            evidence = {"input": subject_x[n], "wanted": subject_x[n], "got": after[n]}
            return [fault(check, text, 32 if training else 10, **evidence)]
    return [right(check, "x is equal before and after", input=f"{COUNT} random tokens")]


def reaches_the_experts(subject: Subject) -> list[Finding]:
    """The output of a layer in training is a weighted sum of its experts at x itself."""
    check = "noise and the experts"
    if subject.experts is None:
        return [unknown(check, "the experts cannot be called by themselves")]
    if subject.D < subject.E:
        return [unknown(check, "fewer features than experts: the weights do not follow from y")]
    x = subject.random(COUNT)
    sizes = {}
    for training in (False, True):
        residual = subject.answer(x, training=training, seed=5).residual
        assert residual is not None
        sizes[training] = float(residual.max())
    evidence = {
        "input": f"{COUNT} random tokens",
        "wanted": "y − Σ weight · expert(x) = 0",
        "got": f"{sizes[True]:.2g} of |y| in training, {sizes[False]:.2g} in evaluation",
    }
    if not max(sizes.values()) < 1e-3:
        if sizes[False] < 1e-3:
            text = "in training the experts do not see x: noise of the router reaches them"
            return [fault(check, text, 32, **evidence)]
        return [unknown(check, "the output is no weighted sum of the experts", **evidence)]
    return [right(check, "the output is a weighted sum of the experts at x", **evidence)]


def scale(subject: Subject) -> list[Finding]:
    """The standard deviation of noise on the logits comes from weights of its own."""
    check = "scale of the noise"
    if subject.takes == "logits" or subject.answer(subject.random(COUNT)).logits is None:
        return [unknown(check, "the noisy logits cannot be seen")]
    rows = 400
    x = np.repeat(subject.random(4), rows, axis=0)
    answer = subject.answer(x, training=True, seed=6)
    clean = subject.logits_of(x)
    if answer.logits is None or clean is None:
        return [unknown(check, "the noisy logits cannot be seen")]
    noise = (answer.logits - clean).reshape(4, rows, subject.E)
    deviation = noise.std(axis=1)
    if deviation.max() < 1e-9:
        return [unknown(check, "no noise on the logits")]
    sigma = numerics.softplus(clean.reshape(4, rows, subject.E)[:, 0])
    evidence = {"input": "one token 400 times", "got": deviation[0]}
    if np.abs(deviation / sigma - 1).max() < 0.2:
        text = "the scale is softplus(x·w): the matrix of the gate is that of the noise too"
        return [fault(check, text, 10, wanted="a matrix of its own", **evidence)]
    return [right(check, "not tied to the gate's matrix", **evidence)]
