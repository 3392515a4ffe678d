"""Alternating training: some steps for the experts with the gate held, then some for the gate with
the experts held.

Block coordinate descent on the same likelihood as joint training. What a turn leaves alone is
looked at once: the gate's turn computes the experts' densities at its start only, so that a step of
either part costs half of a joint one.
"""

from moe_np.base import checks
from moe_np.training.methods import method
from moe_np.training.methods.method import Step


def train(problem, rng, *, start=None, lr=0.03, turn=10):
    """`turn` steps of Adam for the experts, `turn` for the gate, and so on. One pass a step, and
    half a pass a turn.

    Each part keeps its own running means of Adam from one of its turns to the next.
    """
    params, states = method.begin(problem, rng, start), {}
    lr = checks.number("lr", lr, above=0)
    turn = checks.integer("turn", turn)
    loss, cache = method.forward(problem, params)
    number, passes = (
        0,
        0.5,
    )  # the part whose turn it is looks anew at every step; the other has been looked at once
    yield Step(number, loss, (), params, cache, passes)
    while True:
        for part in method.PARTS:
            for _ in range(turn):
                grads = method.backward(problem, cache, (part,))
                params, states = method.descend(params, grads, states, lr)
                loss, cache = look_again(problem, params, cache, part)
                number, passes = number + 1, passes + 1
                yield Step(number, loss, (part,), params, cache, passes)
            passes += 0.5


def look_again(problem, params, cache, part):
    """The forward pass where only `part` has changed since `cache`: half a pass. Returns (loss,
    cache).
    """
    if part == "experts":
        log_f, experts_cache = method.experts_forward(problem, params["experts"])
        return method.mix(log_f, cache.logits, experts_cache, cache.gate)
    logits, gate_cache = problem.gate_forward(params["gate"], problem.x)
    return method.mix(cache.log_f, logits, cache.experts, gate_cache)
