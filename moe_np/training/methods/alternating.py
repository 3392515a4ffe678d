"""Alternating training: steps of the experts with the gate held, then steps of the gate with the
experts held.

Block coordinate descent on the likelihood of joint training. The part that is held is computed once
per turn, so that one step of either part costs half of a joint one.
"""

from collections.abc import Iterator

from moe_np.base import checks
from moe_np.base.types import Rng
from moe_np.training.methods import method
from moe_np.training.methods.method import MixtureParams, Problem, Step


def train(
    problem: Problem,
    rng: Rng | None,
    *,
    initial: MixtureParams | None = None,
    lr: float = 0.03,
    turn: int = 10,
) -> Iterator[Step]:
    """`turn` steps of Adam for the experts, `turn` for the gate, and so on.

    One pass per step, and half a pass per turn. Each part keeps its running means of Adam from one
    of its turns to the next. lr is the learning rate.
    """
    params = method.initial_params(problem, rng, initial)
    lr = checks.number("lr", lr, greater_than=0)
    turn = checks.integer("turn", turn)
    states = {}
    loss, cache = method.forward(problem, params)
    number = 0
    passes = 0.5  # of the part that is held; the other part is computed again at every step
    yield Step(number, loss, (), params, cache, passes)
    while True:
        for part in method.PARTS:
            for _ in range(turn):
                grads = method.backward(problem, cache, (part,))
                params, states = method.adam_step(params, grads, states, lr)
                loss, cache = method.forward_part(problem, params, cache, part)
                number += 1
                passes += 1
                yield Step(number, loss, (part,), params, cache, passes)
            passes += 0.5
