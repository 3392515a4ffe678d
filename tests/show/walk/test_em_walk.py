"""The step view of EM shows the states of `em.fit`, and ends where it ends."""

import re

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import em
from moe_np.show.steps import Steps
from moe_np.show.walk import em_walk
from tests.support.mixtures import FAMILIES, each_family, random_data, random_params


@each_family
def test_steps_are_those_of_fit(name):
    x, y = random_data(name, 20)
    options = {"family": FAMILIES[name], "tol": 1e-4}
    fit = em.fit(x, y, 2, rng=np.random.default_rng(3), restarts=1, **options)
    states = list(em_walk.steps(x, y, 2, rng=np.random.default_rng(3), max_iter=1000, **options))
    phases = ["start", "E step", "M step: experts", "M step: gate", "E step"]
    assert [s.phase for s in states[:5]] == phases
    e_steps = [s for s in states if s.phase == "E step"]
    assert [float(s["log_likelihood"]) for s in e_steps] == fit.history.tolist()
    assert np.array_equal(e_steps[-1]["resp"], fit.resp)
    assert all(np.array_equal(e_steps[-1][k], fit.params[k]) for k in fit.params)
    assert all(len(s.axes[k]) == v.ndim for s in states for k, v in s.arrays.items())
    assert "W" in states[2].changed and "U" not in states[2].changed and "U" in states[3].changed


def test_steps_can_be_walked_back_and_end_at_max_iter():
    x, y = random_data("expert", 21)
    rng = np.random.default_rng(0)
    steps = Steps(em_walk.steps(x, y, 2, family=em.Gaussian(), rng=rng, max_iter=2))
    assert steps.until("E step")["resp"].shape == (60, 2)
    assert steps.until("M step").phase == "M step: experts"
    assert steps.back().phase == "E step"
    assert [s.phase for s in steps][-1] == "E step"
    assert sum(s.phase == "E step" for s in steps.seen) == 3


def test_initial_parameters_can_be_given_and_are_checked():
    x, y = random_data("expert")
    params = random_params(np.random.default_rng(0), "expert", 2)
    options = {"family": em.Gaussian(), "rng": None, "max_iter": 1}
    first = next(em_walk.steps(x, y, 2, initial=params, **options))
    assert all(np.array_equal(first[k], params[k]) for k in params)
    for change, message in (
        ({"initial": {"W": 3}}, "initial: wanted the keys W, b, U, c, var; got W"),
        ({"max_iter": -1}, "max_iter: wanted a whole number of at least 0, got -1"),
        ({"tol": -1.0}, "tol: wanted a finite number of at least 0, got -1.0"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            next(em_walk.steps(x, y, 2, **{"initial": params, **options, **change}))
