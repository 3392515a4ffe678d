"""The soft mixture of the router zoo: its sequences, its gradient, its step."""

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.experiments.router_zoo import soft_mixture
from moe_np.experiments.router_zoo.systems import SETUPS
from moe_np.models import associative_memory
from tests.support.memory import small_memory

SETUP = SETUPS["soft mixture"]
N = 2 * soft_mixture.SEQUENCE


def loss(params, x, y, ids):
    h, _ = soft_mixture.predict(SETUP, params, x, ids)
    token_loss, _ = associative_memory.values_forward(params["values"], h, y)
    return token_loss.mean()


def test_it_has_as_many_slots_as_a_top_2_router_has_assignments():
    phi = soft_mixture.init_from_keys(np.random.default_rng(0), np.ones((9, 6)), 16)["phi"]
    assert phi.shape == (6, 16, 2 * soft_mixture.SEQUENCE // 16)


def test_sequences_do_not_mix():
    params, x, _, ids = small_memory(SETUP, n=N)
    h, routing = soft_mixture.predict(SETUP, params, x, ids)
    moved = x.copy()
    moved[0] += 1  # in the first sequence
    changed = (soft_mixture.predict(SETUP, params, moved, ids)[0] != h).any(axis=1)
    assert routing is None
    assert changed[: N // 2].all() and not changed[N // 2 :].any()


def test_the_gradient_of_a_step(monkeypatch):
    params, x, y, ids = small_memory(SETUP, n=N)
    seen = {}

    def update(params, grads, state, lr):
        seen.update(grads)
        return params, {}

    monkeypatch.setattr(associative_memory, "update", update)
    step = soft_mixture.train_step(SETUP, params, None, x, y, ids, lr=0.1, rng=None)
    assert step.loss == pytest.approx(loss(params, x, y, ids), rel=1e-12)
    assert set(seen) == set(params)
    for part, grads in seen.items():

        def moved_loss(p, part=part):
            return loss({**params, part: p}, x, y, ids)

        rng = np.random.default_rng(2)
        errors = gradient_error(moved_loss, params[part], grads, rng, step=1e-5)
        assert max(errors.values()) < 1e-6, (part, errors)


def test_steps_lower_the_loss():
    params, x, y, ids = small_memory(SETUP, n=N)
    state = None
    losses = []
    for _ in range(20):
        step = soft_mixture.train_step(SETUP, params, state, x, y, ids, lr=0.01, rng=None)
        params, state = step.params, step.state
        losses.append(step.loss)
    assert losses[-1] < 0.9 * losses[0]
