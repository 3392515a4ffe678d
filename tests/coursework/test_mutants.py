"""No solution with one small change gets full marks, on any of five seeds of the hidden inputs."""

import ast

import pytest

from tests.support import answers, coursework, mutants

SEEDS = range(5)
SAMPLE = 12  # the quick tests try every twelfth mutant

# Mutants that are as right as the solution: (assignment, question, part of the line before, part of
# the line after, why)
EQUIVALENT = (
    ("", "", "with np.errstate(", "with np.errstate()", "a warning more"),
    ("", "", "np.argsort(-logits, axis=1", "np.argsort(-logits, kind", "axis −1 is the default"),
    ("", "", "np.argsort(-noisy, axis=1)", "np.argsort(-noisy)", "axis −1 is the default"),
    ("", "", "np.argsort(order, axis=1)", "np.argsort(order)", "axis −1 is the default"),
    ("", "", "np.sort(noisy, axis=1)", "np.sort(noisy)", "axis −1 is the default"),
    ("", "", "np.sort(logits, axis=1)", "np.sort(logits)", "axis −1 is the default"),
    ("", "", "reshape(-1, 2", "reshape(-2, 2", "NumPy takes any negative number"),
    ("1_mixture", "q7", "minlength=p.shape[1]", "counts = np.bincount(", "experts that never win"),
    ("1_mixture", "q7", ".sum(axis=1).mean()", ".mean(axis=1).mean()", "there is one output"),
    ("1_mixture", "q7", "((y > 0.5)", "((y >= 0.5)", "no blend is at ½"),
    ("1_mixture", "q7", "(d > 0.5)", "(d >= 0.5)", "d is 0 or 1"),
    ("1_mixture", "q7", "(d > 0.5)", "(d > 0.25)", "d is 0 or 1"),
    # where a sum of exponentials overflows, Q is "not higher": it is lower there in truth
    ("2_em", "q7", "s = s - s.max(axis=1", "", "a shift changes no softmax; overflow is refused"),
    ("2_em", "q8", "s = s - s.max(axis=1", "", "a shift changes no softmax; overflow is refused"),
    ("2_em", "", ".sum() > ", ".sum() >= ", "Q is never exactly as high"),
    ("2_em", "q8", "range(steps + 1)", "range(steps + 2)", "the loop is left before its end"),
    ("4_dispatch", "q1", "strict=True", "zip(", "the three are of the same length"),
    ("4_dispatch", "q2", "max(1, int(np.ceil", "max(0, int(np.ceil", "above 0 the ceiling is 1"),
    ("4_dispatch", "q2", "fits = np.zeros", "fits = np.ones", "all of it is written over"),
    ("4_dispatch", "q5", "np.argsort(expert, kind", "np.argsort(expert)", "any order in a block"),
    ("4_dispatch", "q6", "np.zeros_like", "np.ones_like", "all of it is written over"),
    ("5_clusters", "q1", "* y)", "/ y)", "y is −1 or +1"),
    ("5_clusters", "q1", "* draws['sign'])", "/ draws['sign'])", "the sign is −1 or +1"),
    ("5_clusters", "q2", "f = np.zeros", "f = np.ones", "all of it is written over"),
    ("5_clusters", "q3", "dw = np.zeros_like", "dw = np.ones_like", "all of it is written over"),
    ("5_clusters", "q6", "slope = 3 * z * z", "slope = 4 * z * z", "the step has a fixed length"),
    ("5_clusters", "q6", "slope = 3 * z * z", "slope = 2 * z * z", "the step has a fixed length"),
    ("5_clusters", "q7", "max(row.sum(), 1)", "max(row.sum(), 0)", "an empty row stays empty"),
    ("6_block", "", "keepdims=True), 1e-30)", "keepdims=True), 2e-30)", "a sum is 0 or at least 1"),
    ("6_block", "", "keepdims=True), 1e-30)", "keepdims=True), 5e-31)", "a sum is 0 or at least 1"),
    ("6_block", "", "np.isfinite(top), top, 0)", "np.isfinite(top), top, ", "exp(−∞) is 0"),
    ("6_block", "q4", ".reshape(-1, len(g))", ".reshape(-2, len(g))", "any negative number"),
    ("6_block", "q5", "choice, axis=1)", "choice)", "axis −1 is the default"),
    ("6_block", "q5", "np.zeros_like(w)", "np.ones_like(w)", "all of it is written over"),
    ("6_block", "q5", "np.zeros_like(weight)", "np.ones_like(weight)", "all of it is written over"),
    ("6_block", "q5", "mean(axis=-1", "mean(axis=+1", "the rows of a matrix"),
    # an audit is right with any inputs that tell, and with any tolerance above rounding
    ("6_block", "q8", "rng.normal(size=", "rng.normal(size=", "other inputs of its own"),
    ("6_block", "q8", "default_rng(0)", "default_rng(1)", "other inputs of its own"),
    ("6_block", "q8", "some = ", "some = ", "other inputs of its own"),
    ("6_block", "q8", "for logits, k, valid in", "for logits, k, valid in", "other inputs"),
    ("6_block", "q8", "assert np.allclose(", "assert np.allclose(", "another tolerance"),
    ("6_block", "q8", "assert np.isclose(", "assert np.isclose(", "another tolerance"),
    ("7_ranks", "q1", "sent = np.zeros", "sent = np.ones", "all of it is written over"),
    ("7_ranks", "q2", "[x[0][:0]]", "[x[-1][:0]]", "all ranks have rows of one width"),
    ("7_ranks", "q3", "y[0].shape[1]", "y[-1].shape[1]", "all ranks have rows of one width"),
    ("7_ranks", "q4", "np.argsort(expert, kind", "np.argsort(expert)", "once per token and expert"),
    ("7_ranks", "q5", "in shared[0]", "in shared[-1]", "all ranks have the same names"),
    ("7_ranks", "q5", "experts[0].shape", "experts[-1].shape", "all experts have one shape"),
    ("7_ranks", "", "strict=True", "zip(", "the lists are of the same length"),
    ("7_ranks", "q6", "max(1, int(np.ceil", "max(0, int(np.ceil", "above 0 the ceiling is 1"),
    ("7_ranks", "q6", "fits = np.zeros", "fits = np.ones", "all of it is written over"),
    ("7_ranks", "q6", "max(len(everything), 1)", "max(len(everything), 2)", "one always fits"),
)


def rule_of(name, question, mutant):
    """The number of the rule by which a mutant is equivalent, or None."""
    for number, (assignment, start, before, after, _) in enumerate(EQUIVALENT):
        here = assignment in ("", name) and question.startswith(start)
        if here and before in mutant.before and after in mutant.after:
            return number
    return None


def graded_questions(name):
    return [
        question.name for question in coursework.assignment(name).questions if question.function
    ]


def alive(name, seeds, sample=slice(None)):
    """[(question, mutant, seed)] of those that are alive and not equivalent; rules that applied."""
    rest = []
    applied = set()
    for question in graded_questions(name):
        for mutant, seed in mutants.survivors(coursework.assignment(name), question, seeds, sample):
            rule = rule_of(name, question, mutant)
            if rule is None:
                rest.append((question, mutant.name, seed))
            applied.add(rule)
    return rest, applied - {None}


@pytest.mark.seconds
@coursework.every_assignment
def test_a_sample_of_mutants_is_wrong_or_equivalent(name):
    assert alive(name, [0], slice(None, None, SAMPLE))[0] == []


@pytest.mark.slow
@coursework.every_assignment
def test_every_mutant_is_wrong_or_equivalent(name):
    rest, applied = alive(name, SEEDS)
    assert rest == []
    unused = {n for n, rule in enumerate(EQUIVALENT) if rule[0] == name} - applied
    assert not unused, f"mutants that are not alive any more: {[EQUIVALENT[n] for n in unused]}"


def test_mutants_of_a_function():
    source = "def f(x):\n    return x.max(axis=1, keepdims=True) + 2 * x[0]\n"
    names = [mutant.after.removeprefix("return ") for mutant in mutants.mutants(source)]
    wanted = [
        "x.max(axis=1, keepdims=True) - 2 * x[0]",
        "x.max(keepdims=True) + 2 * x[0]",
        "x.max(axis=1) + 2 * x[0]",
        "x.max(axis=1, keepdims=True) + 2 / x[0]",
        "x.max(axis=1, keepdims=True) + (2 + x[0])",
        "x.min(axis=1, keepdims=True) + 2 * x[0]",
        "x.sum(axis=1, keepdims=True) + 2 * x[0]",
        "x.max(axis=2, keepdims=True) + 2 * x[0]",
        "x.max(axis=0, keepdims=True) + 2 * x[0]",
        "x.max(axis=1, keepdims=False) + 2 * x[0]",
        "x.max(axis=1, keepdims=True) + 3 * x[0]",
        "x.max(axis=1, keepdims=True) + 1 * x[0]",
        "x.max(axis=1, keepdims=True) + 2 * x[1]",
        "x.max(axis=1, keepdims=True) + 2 * x[-1]",
    ]
    assert sorted(names) == sorted(wanted)
    for mutant in mutants.mutants(answers.solution(coursework.assignment(), "q7_report")):
        ast.parse(mutant.source)
        assert mutant.before != mutant.after


def test_a_missing_case_lets_a_mutant_live():
    """Without large totals, a softmax that subtracts nothing is right."""
    assignment = coursework.assignment()
    small = coursework.drawn_one(coursework.NAME, "q1_softmax", 0)[:1]
    source = answers.solution(assignment, "q1_softmax")
    right = [
        mutant.name
        for mutant in mutants.mutants(source)
        if answers.grade(assignment, "q1_softmax", mutant.source, small).passed
    ]
    assert any("s + s.max" in name for name in right)
    assert not list(mutants.survivors(assignment, "q1_softmax", SEEDS))
