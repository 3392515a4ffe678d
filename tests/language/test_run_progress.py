"""The record of an update."""

from types import SimpleNamespace

import numpy as np

from moe_np.language import run_progress
from moe_np.routing import top_k
from moe_np.training import loop


def test_the_record_has_loads_of_layers_with_a_router_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    routing, _ = top_k.route(top_k.init(rng, 4, 3), x, k=2, renormalise=True)
    dense, _ = top_k.route(top_k.init(rng, 4, 1), x, k=1, renormalise=False)
    losses = SimpleNamespace(task=np.float32(2), balance=(0.5, 0.0), routings=(routing, dense))
    step = loop.Step(7, losses, 6, 1.5, 1e-3, None)
    record = run_progress.of_step(step, np.array([0.25, 0.5]))
    assert record[:5] == (7, 2.0, (0.5, 0.0), 1.5, 1e-3)
    assert (record.tokens, record.seconds, record.processor_seconds) == (6, 0.25, 0.5)
    assert [sum(load) for load in record.load] == [12]
    assert record.dropped == [0.0]


def test_the_clocks_go_forward():
    before = run_progress.clocks()
    np.linalg.inv(np.eye(200))
    assert (run_progress.clocks() >= before).all()
