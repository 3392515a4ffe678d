"""References of assignments 6 and 7 that are written in their questions: against the package."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.coursework import assignments
from moe_np.layers import cross_entropy, experts
from moe_np.parallel import expert_parallel, in_process
from moe_np.parallel.placement import Placement
from moe_np.routing import contract
from tests.support import coursework

BLOCK = assignments.load_module(coursework.FOLDER / "6_block" / "questions.py", "6_block")
RANKS = assignments.load_module(coursework.FOLDER / "7_ranks" / "questions.py", "7_ranks")


def loss_of_block(params, mix, choice, dout):
    """Σ dout · out of the block of assignment 6, token by token."""

    def norm(x, g):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + BLOCK.EPS) * g

    x = params["x"]
    a = x + mix @ (norm(x, params["g1"]) @ params["wv"])
    u = norm(a, params["g2"])
    total = (dout * a).sum()
    for t, chosen in enumerate(choice):
        e = u[t] @ params["router"][:, chosen]
        weight = np.exp(e - e.max()) / np.exp(e - e.max()).sum()
        for share, m in zip(weight, chosen, strict=True):
            y = np.maximum(u[t] @ params["w1"][m], 0) @ params["w2"][m]
            total += share * (dout[t] @ y)
    return total


@pytest.mark.parametrize("case", range(4))
def test_the_gradient_of_the_block(case):
    rng = np.random.default_rng(case)
    params, x, mix, choice, dout = BLOCK.block_cases(rng)[case]
    dx, grads = BLOCK.block_backward(params, x, mix, choice, dout)
    errors = gradcheck.gradient_error(
        lambda p: loss_of_block(p, mix, choice, dout), {**params, "x": x}, {**grads, "x": dx}, rng
    )
    assert max(errors.values()) < 1e-5, errors


def test_the_loss_is_the_package_s():
    for logits, targets in BLOCK.loss_cases(np.random.default_rng(0)):
        loss, dlogits = BLOCK.loss_and_gradient(logits, targets)
        rows = logits.reshape(-1, logits.shape[-1])
        wanted, cache = cross_entropy.forward(rows, targets.ravel())
        assert np.isclose(loss, wanted)
        assert np.allclose(dlogits.reshape(rows.shape), cross_entropy.backward(1.0, cache))


def recording(seen):
    """Linear experts that keep the rows that they get, rank by rank."""

    def forward(params, rows, offsets):
        seen.append(rows)
        return experts.LINEAR.forward(params, rows, offsets)

    return experts.LINEAR._replace(forward=forward)


def test_rows_on_ranks_stand_in_the_order_of_the_package_and_come_home():
    tried = 0
    for x, token, expert, owner in RANKS.dispatch_cases(np.random.default_rng(0)):
        if len(set(owner)) < len(x):
            continue  # a rank without experts has no parameters to give
        tried += 1
        rng = np.random.default_rng(tried)
        E, D = len(owner), x[0].shape[1]
        params = {"w": rng.normal(size=(E, D, 2)), "b": rng.normal(size=(E, 2))}
        weight = [rng.uniform(0.1, 1, len(t)) for t in token]
        placement = Placement(np.arange(E), owner, len(x))
        seen = []
        ranks = []
        for r, (part, t, m, w) in enumerate(zip(x, token, expert, weight, strict=True)):
            zeros = np.zeros((len(part), E))
            routing = contract.Routing(t, m, w, zeros, zeros, zeros > 0)
            here = {name: p[owner == r] for name, p in params.items()}
            ranks.append(
                expert_parallel.forward(here, part, routing, recording(seen), r, placement)
            )
        results = in_process.run(ranks)
        rows, numbers = RANKS.dispatch(x, token, expert, owner)
        assert all(map(np.array_equal, rows, seen))
        y = [
            np.einsum("bd,bdp->bp", r, params["w"][m]) + params["b"][m]
            for r, m in zip(rows, numbers, strict=True)
        ]
        out = RANKS.combine(y, token, expert, weight, owner, [len(part) for part in x])
        assert all(np.allclose(a, b[0]) for a, b in zip(out, results, strict=True))
    assert tried >= 4
