"""Joint training: gradient descent of experts and gate on one likelihood.

Jacobs et al. 1991, eq. 3. ∂loss/∂log f_i = −resp_i / N and ∂loss/∂logits = (p − resp) / N: each
expert learns the cases that it explains better than the others, and the gate learns to predict
which expert that is.
"""

import itertools
from collections.abc import Iterator

from moe_np.base import checks
from moe_np.base.types import Rng
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step


def train(
    problem: Problem, rng: Rng | None, *, initial: MixtureParams | None = None, lr: float = 0.03
) -> Iterator[Step]:
    """Adam with learning rate `lr` on all parameters. Two passes per step: forward and backward."""
    params = method.initial_params(problem, rng, initial)
    lr = checks.number("lr", lr, greater_than=0)
    states = {}
    updated = ()
    for number in itertools.count():
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, updated, params, cache, 2.0 * number)
        grads = method.backward(problem, cache)
        params, states = method.adam_step(params, grads, states, lr)
        updated = method.PARTS
