"""The sparse layer for few tokens, both kernels: it is the sparse layer, for any kind of expert."""

import numpy as np
import pytest

from moe_np.layers import few_tokens, sparse_layer
from tests.support.layers import KINDS, setup


@pytest.mark.parametrize("large", [few_tokens.LARGE, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_sparse_layer(backend, kind, large, monkeypatch):
    monkeypatch.setattr(few_tokens, "LARGE", large)
    expert, params, x, routing = setup(kind, 3)
    out = few_tokens.forward(params, x, routing, expert)
    expected, _ = sparse_layer.forward(params, x, routing, expert)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_tokens_without_an_expert_get_exactly_0(backend, kept):
    expert, params, x, routing = setup("swiglu", 4)
    token, chosen, weight = (a[:kept] for a in routing[:3])
    dropped = routing._replace(token=token, expert=chosen, weight=weight)
    out = few_tokens.forward(params, x, dropped, expert)
    expected, _ = sparse_layer.forward(params, x, dropped, expert)
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-13)
    absent = np.setdiff1d(np.arange(len(x)), token)
    assert len(absent) and not out[absent].any()
