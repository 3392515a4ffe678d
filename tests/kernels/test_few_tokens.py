"""The compiled loop for few tokens against its NumPy twin."""

import numpy as np
import pytest

pytest.importorskip("numba")

from moe_np.kernels import few_tokens
from moe_np.layers import sparse_layer
from tests.support.layers import setup


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["relu", "gelu", "swiglu"])
def test_it_equals_its_twin(kind, dtype):
    expert, params, x, routing = setup(kind, 5)
    params = {name: p.astype(dtype) for name, p in params.items()}
    x = x.astype(dtype)
    routing = routing._replace(weight=routing.weight.astype(dtype))
    E = routing.demand.shape[1]
    out = few_tokens.forward(params, x, routing[:3], E, kind)
    expected, _ = sparse_layer.forward_numpy(params, x, routing, expert, E)
    assert out.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
