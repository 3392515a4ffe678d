"""The questions: the contract, the pieces they are made of, and verdicts that change with the
numbers.
"""

import copy
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.base.machine import one_blas_thread
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.why_it_works import experiment as why
from moe_np.experiments.why_it_works import (
    gate_collapse,
    more_experts,
    when_it_helps,
    who_gets_what,
    why_experts_differ,
)
from moe_np.experiments.why_it_works import question as why_common
from moe_np.mixtures import jacobs1991 as model

CAPS = {
    "epochs": 60,
    "n": 160,
    "steps": 10,
    "runs": 2,
    "single_epochs": 3,
    "restarts": 1,
    "max_iter": 30,
}
CONFIG = why.Config(seeds=2, few=2, fits=2, experts=(1, 3), blocks=1, bases=2)


def short(spec):
    return {k: min(v, CAPS[k]) if k in CAPS else v for k, v in spec.items()}


@pytest.fixture
def quick_vowels(monkeypatch):
    """The vowels' runs to an error of .08 take a thousand epochs; here they end after fifty."""
    whole = model.train_to_stop

    def cut(*args, **options):
        return whole(*args, **{**options, "max_epochs": 50})

    monkeypatch.setattr(model, "train_to_stop", cut)


LONG = ("help", "learns", "more", "harder")  # fits by EM or L-BFGS


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name in why.QUESTIONS
    ],
)
def test_every_question_runs_and_says_something(name, quick_vowels):
    question = why.QUESTIONS[name]
    specs = [short(s) for s in question.specs(CONFIG, True) if s.get("seed", 0) < 2]
    with one_blas_thread():
        runs = [json.loads(to_json(why.run_one({"question": name, **s}))) for s in specs]
        assert json.loads(to_json(why.run_one({"question": name, **specs[-1]}))) == runs[-1]
    summary = json.loads(to_json(question.summarise(specs, runs)))
    holds, words = question.verdict(summary)
    assert holds in why.WORDS and words.endswith(".") and "nan" not in words
    rows = question.rows(summary)
    assert len({line.count("|") for line in rows.split("\n\n")[0].splitlines()}) == 1, rows


def test_a_result_has_what_the_contract_says(quick_vowels):
    with Sweep(jobs=1, progress=False) as sweep:
        result = why.run(CONFIG, sweep=sweep, quick=True, questions=("k", "time"))
        assert json.loads(to_json(result)) == json.loads(to_json(result))
        assert list(result["questions"]) == ["k", "time"] and result["seeds"] == [0, 1]
        table = why.table(result)
        assert "does **not** hold" in table or "holds" in table
        assert (
            all(why.QUESTIONS[name].title in table for name in ("k", "time"))
            and "Few seeds" in table
        )
        with pytest.raises(InputError, match="questions: wanted some of help"):
            why.run(sweep=sweep, questions=("why not",))
    full = why.plan()[1]
    assert len({json.dumps(s, sort_keys=True) for s in full}) == len(full)
    assert {s["question"] for s in full} == set(why.QUESTIONS) == set(why.PAPER)
    assert len(why.plan(seeds=1)[1]) < len(full) / 5


def test_identical_experts_stay_identical_to_the_last_bit():
    for error in gate_collapse.STEPS:
        cell = {"error": error, "seed": 3, "epochs": 60}
        equal = why_experts_differ.equal_run({**cell, "start": "equal", "gate learns": True})
        assert equal["apart"] == [0.0] * 4 and equal["rate"] is None
        apart = why_experts_differ.equal_run({**cell, "start": "1e-8 apart", "gate learns": True})
        assert 0 < apart["apart"][0] < 1e-7


def test_the_growth_rate_is_that_of_the_logarithm():
    epochs = why_experts_differ.EVERY * np.arange(100)
    assert why_experts_differ.rate(1e-9 * np.exp(0.01 * epochs)) == pytest.approx(0.01)
    assert why_experts_differ.rate(1e-8 * np.exp(-0.002 * epochs)) == pytest.approx(-0.002)
    assert why_experts_differ.rate(np.zeros(100)) is None


def test_cooperation_by_hand():
    d = np.zeros((2, 1))
    p = np.full((2, 2), 0.5)
    o = np.array([[[1.0], [-1.0]], [[2.0], [-2.0]]])  # each makes good what the other does
    found = why_experts_differ.together(o, p, d)
    assert found["blend"] == 0 and found["cancelled"] == 1 and found["correlation"] == -1
    assert found["alone"] == found["without"] == 2.5 and found["in use"] == 1
    alone = why_experts_differ.together(o, np.array([[1.0, 0.0], [0.0, 1.0]]), d)
    assert alone["cancelled"] == 0 and alone["blend"] == alone["alone"] == 2.5


@pytest.mark.parametrize("choice", gate_collapse.CHOICES)
def test_gradients_of_the_sparse_regression(choice):
    k, renormalise = gate_collapse.CHOICES[choice]
    rng = np.random.default_rng(5)
    x, d = rng.normal(size=(9, 3)), rng.normal(size=(9, 1))
    router, experts = (
        {"w": rng.normal(size=(3, 4))},
        {"w": rng.normal(size=(4, 3, 1)), "b": rng.normal(size=(4, 1))},
    )
    _, drouter, dexperts = gate_collapse.k_gradients(router, experts, x, d, k, renormalise)
    if (k, renormalise) == (1, True):
        assert not drouter["w"].any()

    def loss(p):
        return gate_collapse.k_gradients(
            {"w": p["router"]}, {k: p[k] for k in "wb"}, x, d, k, renormalise
        )[0]

    grads = {"router": drouter["w"], **dexperts}
    errors = gradient_error(loss, {"router": router["w"], **experts}, grads, rng, step=1e-5)
    assert max(errors.values()) < 1e-6, errors


def test_an_untold_sample_keeps_everything_but_its_centre():
    from moe_np.data.clusters import clusters

    part, _ = clusters(1, 200, 0, np.random.default_rng(0))
    swapped = when_it_helps.untold(part, np.random.default_rng(1))
    changed = (swapped.x != part.x).any(axis=2).sum(axis=1)
    assert set(changed.tolist()) <= {0, 1} and changed.mean() > 0.95
    named = (swapped.x @ part.centers.T).max(axis=1).argmax(axis=1)
    assert (named == part.cluster).mean() < 0.45 and (
        (part.x @ part.centers.T).max(axis=1).argmax(axis=1) == part.cluster
    ).all()


def test_information_by_hand():
    label = np.repeat([0, 1, 2, 3], 5)
    assert who_gets_what.information(label[::-1].copy(), label) == pytest.approx(2)
    assert who_gets_what.information(label // 2, label) == pytest.approx(1)
    assert who_gets_what.information(np.zeros(20, int), label) == 0


def test_differ_is_the_paired_t_test():
    assert (
        why_common.differ([1.0, 2.0, -1.5, 1.2]) == 0
        and why_common.differ([1.0, 1.1, 0.9, 1.0, 1.05]) == 1
    )
    assert why_common.differ(np.full(8, -2.0)) == -1 and why_common.differ(np.full(7, -2.0)) == 0
    assert why_common.differ([3.0]) == 0 and why_common.differ(np.arange(5.0), np.arange(5.0)) == 0


def test_verdicts_change_with_the_numbers():
    cell = {"log ratio": [-1.0, 0.1], "wins": 9, "better": 1, "n": 9, "mixture": 0.1, "net": 0.2}
    patches = [
        {"told": t, "mixture": [90.0, 1.0], "net": [80.0, 1.0], "wins": 9, "better": 1, "n": 9}
        for t in (True, False)
    ]

    def of(ratios):
        cells = zip(when_it_helps.CELLS, ratios, strict=True)
        regimes = [
            {**cell, "clouds": c, "rules": r, "log ratio": [v, 0.1], "better": -np.sign(v)}
            for (c, r), v in cells
        ]
        return when_it_helps.help_verdict({"regimes": regimes, "patches": patches})[0]

    assert of([-1, -1, 1, 1]) == "yes" and of([-1, 1, -1, 1]) == "no"

    k = [
        {
            "choice": c,
            "zero": 5,
            "n": 5,
            "better": 1,
            "error": 0.1,
            "gradient": [0, 0],
            "largest": [0, 0],
            "bits": [1, 0],
        }
        for c in gate_collapse.CHOICES
    ]
    assert gate_collapse.k_verdict(k)[0] == "partly"
    stuck = copy.deepcopy(k)
    stuck[1]["better"] = 0
    assert gate_collapse.k_verdict(stuck)[0] == "yes"
    leaks = copy.deepcopy(k)
    leaks[0]["zero"] = 4
    assert gate_collapse.k_verdict(leaks)[0] == "no"

    more = [
        {"experts": E, **{key: [v, 0.1] for key in ("train", "test", "error")}, "median test": t}
        for E, v, t in ((1, 0.0, 0.0), (4, 1.0, 1.0), (8, 2.0, -1.0))
    ]
    assert more_experts.more_verdict(more)[0] == "yes"
    more[2]["median test"] = 2.0
    assert more_experts.more_verdict(more)[0] == "no"


@pytest.mark.slow
def test_what_is_said_of_symmetry_and_of_the_gate():
    """A tiny difference grows while the gate learns and shrinks while it is held; a small bias is
    left.
    """
    cell = {"start": "1e-8 apart", "seed": 0, "epochs": 1200}
    for error in ("competitive", "mixture"):
        assert (
            why_experts_differ.equal_run({**cell, "error": error, "gate learns": True})["rate"]
            > 0.005
        )
        assert (
            why_experts_differ.equal_run({**cell, "error": error, "gate learns": False})["rate"]
            < -0.001
        )
    dense = {"gate": "dense", "kind": "mixture", "seed": 0, "epochs": 300}
    small, large = (gate_collapse.collapse_run({**dense, "bias": bias}) for bias in (5, 20))
    assert small["escaped"] < 50 and large["escaped"] is None
    assert large["gate gradient"] < 1e-5 * small["gate gradient"]


def test_for_good_means_never_below_again():
    curve = np.array([0.0, 0.9, 0.2, 0.6, 0.8, 1.0])
    assert who_gets_what.for_good(curve, 0.5) == 3 and who_gets_what.for_good(curve, 0.1) == 1
    assert who_gets_what.for_good(curve + 1, 0.5) == 0
