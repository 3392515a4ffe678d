"""The load-balancing loss: which it is, its scale, replication, gradient."""

import numpy as np

from moe_np.audit import gradient_flow
from moe_np.audit.findings import Finding, convention, fault, right, show, unknown
from moe_np.audit.identity import choices
from moe_np.audit.loss_rules import RIGHT, SAMPLE, WRONG, Rule
from moe_np.audit.subject import Subject
from moe_np.base import numerics

BATCHES = 8
COUNT = 24
FIT = 2e-4  # relative misfit of a rule that is accepted


def _values(subject, rules):
    """Losses of some batches (M,), and the values of each rule (M, rules); None without logits."""
    losses, table = [], []
    k = choices(subject)
    for batch in range(BATCHES):
        count = COUNT * (1 + batch % 2)  # so that a loss that grows with the batch is seen
        x = subject.random(count, seed=20 + batch, scale=0.5 + 0.4 * batch)
        answer = subject.answer(x)
        logits = subject.logits_of(x)
        if logits is None or answer.loss is None:
            return None
        gate = answer.gate
        if gate is None:
            gate = numerics.softmax(logits)
        losses.append(answer.loss)
        with np.errstate(all="ignore"):
            table.append([rule.value(logits, gate, k) for rule in rules])
    return np.array(losses), np.array(table)


def fit(subject: Subject) -> tuple[list[tuple[Rule, float]], float] | None:
    """[(rule, coefficient)] of one or two rules that give the loss, and the relative misfit."""
    rules = [*RIGHT, *WRONG]
    values = _values(subject, rules)
    if values is None:
        return None
    losses, table = values
    size = max(float(np.abs(losses).max()), 1e-300)
    best: tuple[list[tuple[Rule, float]], float] = ([], np.inf)
    sets = [(i,) for i in range(len(rules))]
    sets += [(i, j) for i in range(len(rules)) for j in range(len(RIGHT)) if j < i]
    for columns in sets:
        if len(columns) == 2 and best[1] < FIT:
            break
        matrix = table[:, columns]
        if not np.isfinite(matrix).all():
            continue
        coefficients = np.linalg.lstsq(matrix, losses, rcond=None)[0]
        error = float(np.abs(matrix @ coefficients - losses).max()) / size
        if error < best[1] - 1e-9:
            pairs = zip(columns, coefficients, strict=True)
            best = [(rules[i], float(c)) for i, c in pairs], error
    return best


def _is_round(c, digits=(1, 2, 5)):
    """1, 2 or 5 times a power of ten."""
    if c <= 0:
        return False
    digit = c / 10.0 ** np.floor(np.log10(c) + 1e-6)
    return min(abs(digit - d) for d in digits) < 1e-3


# --- checks ---------------------------------------------------------------------------------------


def which(subject: Subject) -> list[Finding]:
    """Which loss it is, with which coefficient."""
    check = "balance loss"
    if subject.stores:
        names = ", ".join(subject.stores)
        text = (
            "a loss is stored in the module and not returned: who does not fetch it trains without"
        )
        return [fault(check, text, 17, input="one call", wanted="a result", got=names)]
    if subject.answer(subject.random(COUNT)).loss is None:
        return [unknown(check, "the result has no loss")]
    fitted = fit(subject)
    if fitted is None:
        return [unknown(check, "the logits are not known")]
    rules, error = fitted
    if error > FIT:
        names = " + ".join(rule.name for rule, _ in rules)
        return [unknown(check, f"no loss that is known; closest: {names}, off by {error:.2g}")]
    text = " + ".join(f"{c:.5g} · {rule.name}" for rule, c in rules)
    notes = "; ".join(rule.note for rule, _ in rules if rule.note)
    evidence = {"input": f"{BATCHES} batches of {COUNT} tokens", "got": text}
    errors = [rule for rule, _ in rules if rule.erratum is not None]
    if errors:
        return [fault(check, f"{errors[0].name}: {errors[0].note}", errors[0].erratum, **evidence)]
    for rule, c in rules:
        E = subject.E
        sample = c * (E - 1) / E
        is_cv = rule.name in ("importance", "CV² of the counts")
        if is_cv and E > 1 and not _is_round(c) and _is_round(sample):
            return [fault(check, SAMPLE, 5, wanted=f"{sample:.5g} · {rule.name}", **evidence)]
        k = choices(subject)
        if rule.name == "switch" and k > 1 and not _is_round(c, (1,)) and _is_round(c / k, (1,)):
            text = f"not divided by k: {k} times as large, {k} at balance"
            return [convention(check, text, 6, **evidence)]
    return [right(check, f"{text}; {notes}" if notes else text, **evidence)]


def replication(subject: Subject) -> list[Finding]:
    """The batch given twice has the same loss."""
    check = "the batch given twice"
    x = subject.random(COUNT, seed=1)
    loss = subject.answer(x).loss
    if loss is None or subject.factor is not None:
        return [unknown(check, "the result has no loss, or experts have a capacity")]
    twice = subject.answer(np.concatenate([x, x])).loss
    assert twice is not None
    evidence = {"input": f"{COUNT} tokens, and each of them twice", "wanted": loss, "got": twice}
    if abs(twice - loss) <= 1e-4 * abs(loss) + 1e-9:
        return [right(check, "the loss is the same: a mean over tokens", **evidence)]
    text = (
        f"the loss is {twice / loss:.3g} times as large: its coefficient depends on the batch size"
    )
    return [convention(check, text, **evidence)]


def layers(subject: Subject) -> list[Finding]:
    """Two layers with opposite imbalances: a term per layer sees them, a pooled loss does not."""
    check = "loss of several layers"
    if "layers" not in subject.accepts:
        return [unknown(check, "it takes no list of layers")]
    z = subject.random(COUNT, seed=1)
    z[:, 0] += 3.0
    opposite = z[:, ::-1].copy()
    single = [subject.answer(logits).loss or 0.0 for logits in (z, opposite)]
    both = [subject.framework.put(logits) for logits in (z, opposite)]
    loss = subject.answer(z, layers=both).loss or 0.0
    evidence = {
        "input": "two layers that prefer the first and the last expert",
        "wanted": f"sum {sum(single):.4g} or mean {np.mean(single):.4g} of {show(single)}",
        "got": loss,
    }
    if min(abs(loss - np.sum(single)), abs(loss - np.mean(single))) < 1e-3 * abs(loss):
        return [right(check, "a term per layer", **evidence)]
    text = "the layers are pooled into one product: opposite imbalances cancel"
    return [fault(check, text, 27, **evidence)]


def gradient(subject: Subject) -> list[Finding]:
    """The gradient of the loss at the router."""
    check = "gradient of the balance loss"
    x, cotangent = gradient_flow.problem(subject, "loss")
    if subject.answer(x).loss is None:
        return [unknown(check, "the result has no loss")]
    slopes = gradient_flow.compare(subject, x, cotangent)
    name = subject.takes if subject.takes == "logits" else "w"
    if not slopes or name not in slopes:
        return [unknown(check, "the code brings no gradient of the loss")]
    analytic, numeric = slopes[name]
    largest = max(map(abs, numeric), default=0.0)
    evidence = {"input": name, "wanted": np.array(numeric), "got": np.array(analytic)}
    if not np.isfinite(analytic).all():
        return [fault(check, "not finite", 5, **evidence)]
    if max(map(abs, analytic), default=0.0) < 1e-9:
        why = "only counts enter" if largest < 1e-9 else "its probabilities are detached"
        return [fault(check, f"0: {why}, and nothing is balanced", 6, **evidence)]
    if gradient_flow.differs(analytic, numeric):
        ratio = gradient_flow.common_ratio(analytic, numeric)
        if ratio is not None:
            text = f"{ratio:.4g} times that of the value, for {len(x)} tokens"
            return [fault(check, text, 16, **evidence)]
        return [fault(check, "not that of the value", 6, **evidence)]
    return [right(check, "that of the value", **evidence), *_at_balance(subject)]


def _at_balance(subject):
    """The gradient where every expert has the same importance: finite."""
    logits = np.tile(2.0 * np.eye(subject.E), (2, 1))
    x = subject.tokens(logits)
    if x is None:
        return []
    grads = subject.gradient(x, {"loss": np.ones(1)})
    if grads is None or all(np.isfinite(g).all() for g in grads.values()):
        return []
    text = "not finite at perfect balance: the standard deviation is differentiated"
    bad = next(g for g in grads.values() if not np.isfinite(g).all())
    return [fault("gradient at balance", text, 5, input=logits[0], wanted="finite", got=bad)]
