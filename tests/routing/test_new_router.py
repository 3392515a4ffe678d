"""A new router is one file and its test: in a copy of the package they are added, and everything
that works for all routers works for it.
"""

import json

import numpy as np
import pytest

from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance, diagnostics, sparse_layer
from moe_np.layers.experts import GELU
from tests.support import cosine
from tests.support.checkout import Checkout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the checkout, to which the router and its test are added."""
    checkout = Checkout(tmp_path_factory.mktemp("copy"))
    checkout.add_router()
    return checkout


@pytest.mark.slow
def test_the_tests_of_all_routers_run_on_it(copy):
    """Among them those of the walk: with equations, and all axes named."""
    files = ["routing/test_routers.py", "routing/test_stages.py", "routing/test_cosine.py"]
    files += ["routing/test_invariances.py", "show/walk/test_routers.py"]
    report = copy.test("-k", "cosine", *(f"tests/{file}" for file in files))
    for name in ("test_gradient[0-cosine]", "test_errata_13_causality[cosine]"):
        assert f"{name} PASSED" in report
    assert "test_every_router_walks_there_and_back[cosine-noise] PASSED" in report
    assert "test_every_router_shows_equations_and_names_all_axes[cosine] PASSED" in report
    assert "test_padding_takes_no_place_and_changes_nothing[numpy-0-cosine] PASSED" in report


@pytest.mark.slow
def test_a_router_without_cases_is_noticed(copy):
    """Without its test file the tests of all routers cannot be collected."""
    file = copy.folder / "tests" / "routing" / "test_cosine.py"
    file.rename(file.with_suffix(".away"))
    try:
        with pytest.raises(AssertionError, match="No module named"):
            copy.test("tests/routing/test_stages.py")
    finally:
        file.with_suffix(".away").rename(file)


@pytest.mark.seconds
def test_the_zoo_trains_it(copy):
    words = "-m moe_np run router_zoo --quick --only cosine --jobs 1 --json --out results"
    result = json.loads(copy.run(*words.split()))
    assert list(result["systems"]) == ["cosine"]
    assert result["summary"]["cosine"]["perplexity"]["mean"] < 64, "better than chance"
    assert result["summary"]["cosine"]["experts"]["mean"] == 1


def test_the_layer_takes_it_and_so_does_a_balance_loss():
    """Layer and balance loss together, forward and backward, against finite differences."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 5))
    experts = GELU.init(rng, 5, 4, 6)
    experts = {k: p + 0.1 * rng.normal(size=p.shape) for k, p in experts.items()}
    router = cosine.init(rng, 5, 4)
    dout = rng.normal(size=(30, 5))

    def forward(router, experts, x):
        routing, router_cache = cosine.route(router, x)
        out, layer_cache = sparse_layer.forward(experts, x, routing, GELU)
        loss = balance.switch(routing)
        caches = router_cache, layer_cache, loss.dlogits
        return (out * dout).sum() + 0.3 * loss.value, routing, caches

    _, routing, (router_cache, layer_cache, dlogits) = forward(router, experts, x)
    dx, grads, dweight = sparse_layer.backward(dout, layer_cache)
    dx_router, router_grads = cosine.route_backward(dweight, 0.3 * dlogits, router_cache)

    def loss(p):
        value, moved, _ = forward({"w": p["w"]}, {k: p[k] for k in experts}, p["x"])
        assert np.array_equal(moved.expert, routing.expert), "a tie"
        return value

    everything = {**router, **experts, "x": x}
    gradients = {**router_grads, **grads, "x": dx + dx_router}
    errors = gradient_error(loss, everything, gradients, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors
    assert diagnostics.load(routing).sum() == 30 and diagnostics.dropped_share(routing) == 0
