"""Joint training: experts and gate go down the gradient of one likelihood together (Jacobs et al.
1991, eq. 3).

∂loss/∂log f_i = −resp_i / N and ∂loss/∂logits = (p − resp) / N: each expert learns the cases it
explains better than the others, and the gate learns to foresee which one that will be.
"""

import itertools

from moe_np.base import checks
from moe_np.training.methods import method
from moe_np.training.methods.method import Step


def train(problem, rng, *, start=None, lr=0.03):
    """All parameters at once, by Adam with step size `lr`. Two passes a step: one forward, one
    back.
    """
    params, states = method.begin(problem, rng, start), {}
    lr = checks.number("lr", lr, above=0)
    changed = ()
    for number in itertools.count():
        loss, cache = method.forward(problem, params)
        yield Step(number, loss, changed, params, cache, 2.0 * number)
        params, states = method.descend(params, method.backward(problem, cache), states, lr)
        changed = method.PARTS
