"""Which reference router the code equals, its conventions, ties, permutations, the indices."""

import inspect
from typing import Any

import numpy as np

from moe_np.audit import references
from moe_np.audit.calling import reference
from moe_np.audit.findings import Finding, convention, fault, right, unknown
from moe_np.audit.references import Candidate
from moe_np.audit.subject import TINY, Answer, Subject
from moe_np.base.types import Array, ArrayNE

SAME = 3e-5  # weights that are closer are equal; some code computes a softmax in float32
N = 24


def choices(subject: Subject) -> int:
    """k: as stated, or the largest number of experts per token in evaluation."""
    if subject.k is None:
        answer = subject.answer(subject.random(N))
        gate = np.zeros((1, subject.E)) if answer.gate is None else answer.gate
        if answer.residual is not None:  # only where the output is a sum of experts
            gate = gate[answer.residual < 1e-3]
        count = int((np.abs(gate) > TINY).sum(axis=1).max(initial=1))
        subject.k = min(max(count, 1), subject.E)
    return min(subject.k, subject.E)


def like_gate(subject: Subject, x: Array, training: bool = False) -> ArrayNE | None:
    """Dense weights of the router that the subject should equal; None where it draws numbers or
    where the parameters do not fit.
    """
    assert subject.like is not None
    module = reference(subject.like)
    options = {**module.EXAMPLE, **subject.options}
    options = {
        name: np.resize(a, len(x)) if isinstance(a, np.ndarray) else a
        for name, a in options.items()
    }
    known = inspect.signature(module.route).parameters
    if subject.k is not None and "k" in known:
        options["k"] = subject.k
    if subject.factor is not None and "capacity_factor" in known:
        options["capacity_factor"] = subject.factor
    if options.get("k") == 1 and options.get("renormalise"):
        options["renormalise"] = False
    initial = _reference_params(subject)
    logits = subject.logits_of(x)
    if subject.takes == "logits" or (set(initial) <= {"w", "bias"} and logits is not None):
        assert logits is not None
        rest = {name: a for name, a in initial.items() if name != "w"}
        params, tokens = {"w": np.eye(subject.E), **rest}, logits
    else:
        params, tokens = initial, x
    results = []
    for seed in (0, 1) if training else (0,):
        rng = np.random.default_rng(seed) if training else None
        try:
            results.append(references.matrix(module.route(params, tokens, **options, rng=rng)[0]))
        except ValueError:
            return None
    return results[0] if np.array_equal(results[0], results[-1]) else None


def _reference_params(subject):
    """The reference's parameters, with the subject's values where the names are the same."""
    module = reference(subject.like)
    options = getattr(module, "EXAMPLE_INIT", {})
    initial = module.init(np.random.default_rng(1), subject.D, subject.E, **options)
    return {name: subject.params.get(name, a) for name, a in initial.items()}


def closest(subject: Subject, x: Array, gate: ArrayNE) -> tuple[Candidate | None, float, float]:
    """The candidate that the weights equal up to one factor, its factor, and the difference."""
    logits = subject.logits_of(x)
    if logits is None:
        return None, 1.0, np.inf
    k = choices(subject)
    bias = subject.params.get("bias")
    candidates = [
        *references.right_ones(k, subject.E, subject.factor, bias, subject.places),
        *references.known_errors(k, subject.E, bias),
    ]
    best: tuple[Candidate | None, float, float] = (None, 1.0, np.inf)
    for factor_is_free in (False, True):
        for candidate in candidates:
            try:
                expected = candidate.gate(logits)
            except ValueError:
                continue
            factor = 1.0
            if factor_is_free and gate.sum() > 0:
                factor = float((gate * expected).sum() / (expected**2).sum())
            error = float(np.abs(gate - factor * expected).max(initial=0))
            if error < best[2]:
                best = candidate, factor, error
            if error < SAME:  # the first that is equal: they stand in the order of the papers
                return best
    return best


def identify(subject: Subject) -> tuple[Candidate | None, float, float, Answer, Array]:
    """`closest` for random tokens in evaluation, computed once."""
    if not hasattr(subject, "identity"):
        x = subject.random(N)
        answer = subject.answer(x)
        if answer.gate is None:
            known = None, 1.0, np.inf
        else:
            known = closest(subject, x, answer.gate)
        subject.identity = (*known, answer, x)  # type: ignore[attr-defined]
    return subject.identity  # type: ignore[attr-defined]


def is_deterministic(subject: Subject) -> bool:
    """Whether two calls in evaluation are equal."""
    answer, x = identify(subject)[3:]
    second = subject.answer(x)
    pairs = ((answer.gate, second.gate), (answer.out, second.out))
    a, b = next((pair for pair in pairs if pair[0] is not None), (None, None))
    return a is None or b is None or bool(np.allclose(a, b, atol=1e-7, equal_nan=True))


# --- checks ---------------------------------------------------------------------------------------


def reference_router(subject: Subject) -> list[Finding]:
    """Equal to which router, and in which convention."""
    check = "reference router"
    candidate, factor, error, answer, x = identify(subject)
    gate = answer.gate
    if gate is None:
        return [unknown(check, "the weights cannot be seen", input=f"{N} random tokens")]
    if not np.isfinite(gate).all():
        return [fault(check, "weights are not finite", input=f"{N} random tokens", got=gate)]
    stored = _as_it_should(subject, x, gate, candidate if error < SAME else None)
    if stored is not None:
        return stored
    if error < SAME and candidate is not None:
        return _named(check, candidate, factor, subject, x, gate)
    logits = subject.logits_of(x)
    if logits is None:
        return [unknown(check, "the logits are not known", wanted="w, or logits in the result")]
    if np.abs(gate - references.one_hot(logits)).max() < 1e-4:
        text = "one expert per token with weight 1"
        return [convention(check, text, input=logits[0], got=gate[0])]
    nearest_name = "none" if candidate is None else candidate.name
    n = int(np.abs(gate - factor * candidate.gate(logits)).max(axis=1).argmax()) if candidate else 0
    wanted = "nothing" if candidate is None else factor * candidate.gate(logits)[n]
    text = f"equal to no router that is known; closest: {nearest_name}, off by {error:.2g}"
    return [unknown(check, text, input=logits[n], wanted=wanted, got=gate[n])]


def _named(check, candidate, factor, subject, x, gate):
    logits = subject.logits_of(x)
    evidence = {"input": f"logits {logits[0].round(4)}", "got": gate[0]}
    if candidate.verdict == "wrong":
        wanted = references.matrix(
            reference("top_k").route(
                {"w": np.eye(subject.E)},
                logits,
                k=choices(subject),
                renormalise=choices(subject) > 1,
            )[0]
        )[0]
        text = f"{candidate.name}: {candidate.note}"
        return [fault(check, text, candidate.erratum, wanted=wanted, **evidence)]
    evidence["wanted"] = factor * candidate.gate(logits)[0]
    scaled = "" if abs(factor - 1) < SAME else f", times {factor:.6g}"
    note = f"; {candidate.note}" if candidate.note else ""
    text = f"equal to {candidate.name}{scaled}{note}"
    if candidate.verdict == "convention" or scaled:
        return [convention(check, text, candidate.erratum, **evidence)]
    return [right(check, text, **evidence)]


def _as_it_should(subject, x, gate, candidate):
    """Compared with the router that was asked for; None where there is none, or it cannot be."""
    if subject.like is None:
        return None
    check = "reference router"
    for training in (False, True):
        expected = like_gate(subject, x, training)
        if expected is None:
            continue
        result = gate if not training else subject.answer(x, training=True).gate
        error = np.abs(result - expected).max(axis=1)
        if not error.max() < SAME:
            if candidate is not None and candidate.verdict == "wrong":
                return None
            n = int(error.argmax())
            named = "" if candidate is None else f"; it equals {candidate.name}"
            text = f"differs from {subject.like} in {_mode(training)}{named}"
            logits = subject.logits_of(x)
            evidence = x[n] if logits is None else logits[n]
            return [fault(check, text, input=evidence, wanted=expected[n], got=result[n])]
    evidence = {"input": f"{N} random tokens", "got": gate[0]}
    unset = {"bias", "threshold"} & set(_reference_params(subject)) - set(subject.params)
    if unset:
        text = f"equal to {subject.like} as `init` makes it; the audit cannot set its {unset.pop()}"
        return [unknown(check, text, **evidence)]
    return [right(check, f"equal to {subject.like}", **evidence)]


def _mode(training):
    return "training" if training else "evaluation"


def shift(subject: Subject) -> list[Finding]:
    """Softmax weights do not see a constant that is added to all logits."""
    check = "constant added to all logits"
    candidate, _, error, answer, x = identify(subject)
    logits = subject.logits_of(x)
    moved = None if logits is None else subject.tokens(logits + 3.0)
    same = None if logits is None else subject.tokens(logits)
    if moved is None or same is None or answer.gate is None:
        return [unknown(check, "the audit cannot set the logits")]
    if subject.like is not None and not _tells_logits(subject):
        return [unknown(check, "its logits could not be told to be x·w")]
    is_right = candidate is not None and candidate.verdict == "right" and error < SAME
    is_softmax = candidate is not None and is_right and "bias_balanced" not in candidate.name
    if subject.like in ("bias_balanced", "base_assignment") or not (is_softmax or subject.like):
        return [unknown(check, "holds for softmax weights only")]
    before, after = subject.answer(same).gate, subject.answer(moved).gate
    assert before is not None and after is not None
    if np.abs(before - after).max() < SAME:
        return [right(check, "changes nothing", input="logits, and logits + 3")]
    n = int(np.abs(before - after).max(axis=1).argmax())
    text = "changes the weights"
    erratum = None if subject.factor is None else 9
    return [fault(check, text, erratum, input="logits + 3", wanted=before[n], got=after[n])]


def _tells_logits(subject):
    """Whether its logits are seen to be x·w: in the input, in the result, or by the weights."""
    candidate, _, error, answer, x = identify(subject)
    if subject.takes == "logits" or (candidate is not None and error < SAME):
        return True
    if answer.logits is not None:
        return bool(np.allclose(answer.logits, subject.logits_of(x), atol=SAME))
    expected = like_gate(subject, x)
    return expected is not None and bool(np.abs(answer.gate - expected).max() < SAME)


def ties(subject: Subject) -> list[Finding]:
    """All logits 0: which experts are chosen, and how many."""
    check = "ties"
    x = subject.tokens(np.zeros((N, subject.E)))
    if x is None:
        return [unknown(check, "the audit cannot set the logits")]
    x = np.zeros_like(x) if subject.linear_bias is None else x
    changes: dict[str, Any] = {"bias": np.zeros(subject.E)} if "bias" in subject.params else {}
    if subject.is_layer:  # at x = 0 the experts may all be 0
        x = subject.random(N)
        changes["w"] = np.zeros((subject.D, subject.E))
    gate = subject.answer(x, **changes).gate
    if gate is None:
        return [unknown(check, "the weights cannot be seen")]
    k = choices(subject)
    chosen = np.abs(gate) > TINY
    evidence = {"input": "all logits 0", "got": gate[0], "wanted": f"experts 0 to {k - 1}"}
    count = chosen.sum(axis=1)
    candidate, _, error, *_ = identify(subject)
    is_top_k = subject.like in (None, "top_k", "noisy_top_k", "switch", "bias_balanced")
    name = "" if candidate is None else candidate.name
    is_right = candidate is not None and error < SAME and candidate.verdict == "right"
    usual = is_top_k and is_right and not name.startswith(("expert_choice", "st_moe"))
    if usual and k < subject.E and count.max() > k and name != "dense":
        text = f"{count.max()} experts instead of {k}: a threshold takes all that tie"
        return [fault(check, text, 11, **evidence)]
    if not np.isfinite(gate).all():
        return [fault(check, "weights are not finite", **evidence)]
    lowest = chosen[count > 0, :k].all() and count.max() <= k
    if lowest or name == "dense" or subject.like is not None:
        return [right(check, "the lowest index wins", **evidence)]
    return [convention(check, "another expert than the lowest index wins", 11, **evidence)]


def expert_order(subject: Subject) -> list[Finding]:
    """Another order of the experts gives the same weights in that order."""
    check = "order of the experts"
    if (subject.takes == "x" and "w" not in subject.params) or subject.is_layer:
        return [unknown(check, "the audit cannot set the router's matrix")]
    if subject.like == "hierarchical":
        return [unknown(check, "experts lie in groups")]
    if not is_deterministic(subject):
        return [unknown(check, "two calls differ")]
    order = np.random.default_rng(5).permutation(subject.E)
    x = subject.random(N)
    if subject.takes == "logits":
        before, after = subject.answer(x).gate, subject.answer(x[:, order]).gate
    else:
        names = {"w", "w_noise", "bias", "threshold"} & set(subject.params)
        changed: dict[str, Any] = {name: subject.params[name][..., order] for name in names}
        before, after = subject.answer(x).gate, subject.answer(x, **changed).gate
        if subject.linear_bias is not None:
            return [unknown(check, "its logits have a bias")]
    if before is None or after is None:
        return [unknown(check, "the weights cannot be seen")]
    error = np.abs(after - before[:, order]).max(axis=1)
    if error.max() < SAME:
        return [right(check, "weights follow the experts", input=f"order {order}")]
    n = int(error.argmax())
    text = "weights do not follow the experts"
    return [fault(check, text, input=f"order {order}", wanted=before[n, order], got=after[n])]


def indices(subject: Subject) -> list[Finding]:
    """The k experts of a token exist and are different; their number is k."""
    check = "indices"
    answer = subject.answer(subject.random(N))
    index = answer.indices
    if index is None:
        return [unknown(check, "the result has no indices")]
    ordered = np.sort(index, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if twice.any():
        n = int(twice.argmax())
        return [fault(check, "an expert twice for one token", input=f"token {n}", got=index[n])]
    text = f"{index.shape[1]} different experts per token, all of them exist"
    return [right(check, text, got=index[0])]
