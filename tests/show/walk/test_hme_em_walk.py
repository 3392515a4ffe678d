"""The step view of EM for a tree shows the E steps of `hme_em.train`, level by level."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.mixtures import hme_em
from moe_np.show.steps import Steps
from moe_np.show.walk import hme_em_walk
from tests.support.mixtures import BAD_EM_OPTIONS, random_tree


@pytest.mark.parametrize("gates", hme_em.GATES)
def test_the_view_shows_training(gates):
    params, x, y = random_tree((2, 3), N=40)
    states = list(Steps(hme_em_walk.steps(params, x, y, max_iter=2, gates=gates)))
    e_step = ["E step: experts", "E step: level 2", "E step: level 1", "E step: leaves"]
    m_step = ["M step: experts", "M step: level 1", "M step: level 2"]
    wanted = ["start", *e_step, *m_step, *e_step, *m_step, *e_step]
    assert [s.phase for s in states] == wanted
    ends = [s for s in states if s.phase == "E step: leaves"]
    iterations = itertools.islice(hme_em.train(params, x, y, gates=gates), 3)
    for iteration, seen in zip(iterations, ends, strict=True):
        assert float(seen["log_likelihood"]) == pytest.approx(-iteration.loss, rel=1e-12)
        np.testing.assert_array_equal(seen["resp"], iteration.cache.post.resp)
        np.testing.assert_array_equal(seen["U2"], iteration.params["U2"])
    experts = next(s for s in states if s.phase == "M step: experts")
    assert set(experts.changed) == {"W", "b", "var"}
    likelihood = np.exp(ends[0]["evidence1"][:, 0]).prod()
    np.testing.assert_allclose(likelihood, np.exp(float(ends[0]["log_likelihood"])))


def test_held_parameters_stay():
    params, x, y = random_tree((2, 2), N=40)
    *_, last = hme_em_walk.steps(params, x, y, max_iter=2, hold=("var", "U1"))
    assert last["var"] == params["var"] and np.array_equal(last["U1"], params["U1"])
    assert (last["W"] != params["W"]).all()


def test_lists_are_inputs_too():
    params, x, y = random_tree((2, 2))
    assert len(list(hme_em_walk.steps(params, x.tolist(), y.tolist(), max_iter=1))) > 3


def test_bad_options_are_named():
    params, x, y = random_tree((2, 2))
    for option, words in (*BAD_EM_OPTIONS, ({"max_iter": -1}, "max_iter: wanted a whole number")):
        with pytest.raises(InputError, match=words):
            next(hme_em_walk.steps(params, x, y, **option))
