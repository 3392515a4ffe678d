"""What all training methods promise: reproducible steps, correct losses, and what they update."""

import functools
import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.training.methods import (
    alternating,
    cma_es,
    em,
    evolutionary,
    hard,
    joint,
    method,
    separate,
)
from tests.support.training import (
    METHODS,
    WITHOUT_GRADIENT,
    first_steps,
    least_squares,
    linear_problem,
    same_params,
)

each_method = pytest.mark.parametrize("name", METHODS)


@each_method
def test_steps_are_reproducible_and_report_what_they_are(name):
    problem = linear_problem(1)
    initial = problem.init(np.random.default_rng(9))
    for arrays in initial.values():
        for a in arrays.values():
            a.flags.writeable = False
    steps = first_steps(METHODS[name], problem, 12, seed=3, initial=initial)
    repeated = first_steps(METHODS[name], problem, 12, seed=3, initial=initial)
    for number, (a, b) in enumerate(zip(steps, repeated, strict=True)):
        assert a.number == number and a.loss == b.loss and a.passes == b.passes
        assert same_params(a.params, b.params)
        assert a.loss == pytest.approx(method.loss_of(problem, a.params), rel=1e-12)
        assert {k: v.shape for k, v in a.params["gate"].items()} == {"U": (2, 3), "c": (3,)}
        assert set(a.updated) <= {*method.PARTS, "clusters"}
        assert (number == 0) == (a.updated == ())
    assert all(a.passes < b.passes for a, b in itertools.pairwise(steps[1:]))
    assert steps[-1].loss < steps[0].loss
    if name not in WITHOUT_GRADIENT:
        assert same_params(steps[0].params, initial)
    of_seed_4 = first_steps(METHODS[name], problem, 12, seed=4)
    assert not same_params(steps[-1].params, of_seed_4[-1].params)


@each_method
def test_the_order_of_the_parts_does_not_matter(name):
    problem = linear_problem(1)
    initial = problem.init(np.random.default_rng(9))
    turned = {part: initial[part] for part in reversed(method.PARTS)}
    for a, b in zip(
        first_steps(METHODS[name], problem, 4, initial=initial),
        first_steps(METHODS[name], problem, 4, initial=turned),
        strict=True,
    ):
        assert a.loss == b.loss and same_params(a.params, b.params)


@each_method
def test_a_part_that_is_not_reported_as_updated_stays(name):
    for before, after in itertools.pairwise(first_steps(METHODS[name], linear_problem(2), 14)):
        for part in method.PARTS:
            a, b = before.params[part], after.params[part]
            equal = all(np.array_equal(a[array], b[array]) for array in a)
            assert equal or part in after.updated
            if name in ("alternating", "separate", "joint", "em"):
                assert equal == (part not in after.updated)


@each_method
def test_one_expert_is_least_squares_with_every_method(name):
    """With one expert there is nothing to divide, so all methods agree."""
    problem = linear_problem(5, E=1, D=1, C=1)
    exact, _ = least_squares(None, problem.x, problem.y, np.ones((40, 1)))
    numbers = {"em": 200, "alternating": 3000, **dict.fromkeys(WITHOUT_GRADIENT, 150)}
    train = METHODS[name]
    if name == "separate":
        train = functools.partial(separate.train, expert_steps=1400)
    experts = first_steps(train, problem, numbers.get(name, 1500))[-1].params["experts"]
    assert abs(experts["W"].ravel() - exact["W"].ravel()) < 1e-3
    assert abs(experts["b"].ravel() - exact["b"].ravel()) < 1e-3


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_the_best_mixture_never_gets_worse(name):
    steps = first_steps(METHODS[name], linear_problem(1, E=2, C=1), 30)
    losses = [step.loss for step in steps]
    assert all(b <= a for a, b in itertools.pairwise(losses)) and losses[-1] < losses[0] - 0.1
    for before, after in itertools.pairwise(steps):
        assert after.loss == min(before.loss, after.cache.losses.min())


# --- Input validation -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "options", "words"),
    [
        (joint.train, {"lr": 0}, "lr: wanted a finite number above 0, got 0"),
        (joint.train, {"lr": float("nan")}, "lr: wanted a finite number above 0"),
        (
            joint.train,
            {"initial": {"experts": {}}},
            "initial: wanted the keys experts, gate; got experts",
        ),
        (alternating.train, {"turn": 0}, "turn: wanted a whole number of at least 1, got 0"),
        (separate.train, {"expert_steps": -1}, "expert_steps: wanted a whole number of at least 0"),
        (
            separate.train,
            {"labels": np.zeros(39, int)},
            r"labels: wanted shape \(40,\), got \(39,\)",
        ),
        (
            separate.train,
            {"labels": np.full(40, 3)},
            "labels: wanted whole numbers from 0 to 2, got 3 to 3",
        ),
        (em.train, {"rounds": 0}, "rounds: wanted a whole number of at least 1"),
        (
            hard.train,
            {"estimator": "hope"},
            "estimator: wanted one of reinforce, straight_through; got 'hope'",
        ),
        (evolutionary.train, {"parents": 1}, "parents: wanted a whole number of at least 2, got 1"),
        (
            evolutionary.train,
            {"children": 5},
            "children: wanted more than the 5 parents, or there is no selection",
        ),
        (cma_es.train, {"sigma": -1}, "sigma: wanted a finite number above 0, got -1"),
        (cma_es.train, {"children": 3}, "children: wanted a whole number of at least 4, got 3"),
    ],
)
def test_bad_options_are_named(train, options, words):
    with pytest.raises(InputError, match=words):
        first_steps(train, linear_problem(), 3, **options)


def test_a_bad_problem_is_named():
    problem = linear_problem()
    words = (
        "problem: wanted x, y and features of the same number of cases, at least one; got 40, 39"
    )
    with pytest.raises(InputError, match=words):
        next(joint.train(problem._replace(y=problem.y[1:]), np.random.default_rng(0)))


def test_bad_initial_parameters_and_generators_are_named():
    problem = linear_problem()
    initial = problem.init(np.random.default_rng(0))
    initial["gate"]["c"] = np.array([0, np.nan, 0])
    with pytest.raises(InputError, match=r"initial\['gate'\]\['c'\]: wanted finite numbers"):
        next(joint.train(problem, np.random.default_rng(0), initial=initial))
    for train in (joint.train, separate.train, hard.train, evolutionary.train, cma_es.train):
        with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator, got 0"):
            next(train(problem, 0))
