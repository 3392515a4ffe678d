"""The bits of routers, layers and their gradients do not depend on the number of BLAS threads."""

import os
import subprocess
import sys

import pytest

CODE = """
import hashlib
import numpy as np
from moe_np.layers import experts, soft_moe, sparse_layer
from moe_np.routing import kmeans, top_k

def show(name, *arrays):
    print(name, hashlib.sha256(b"".join(np.ascontiguousarray(a) for a in arrays)).hexdigest())

for dtype in (np.float32, np.float64):
    for N, D, H in ((3000, 128, 96), (64, 512, 1024)):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(N, D)).astype(dtype)
        router = top_k.init(rng, D, 8, dtype=dtype)
        routing, cache = top_k.route(router, x, k=2, renormalise=True)
        show("top_k", routing.weight, routing.expert)
        for name in ("RELU", "GELU", "SWIGLU", "LINEAR"):
            expert = getattr(experts, name)
            params = expert.init(rng, D, 8, D if name == "LINEAR" else H, dtype=dtype)
            out, layer = sparse_layer.forward(params, x, routing, expert)
            dx, grads, dweight = sparse_layer.backward(out, layer)
            show(name, out, dx, dweight, *grads.values())
        dx, grads = top_k.route_backward(dweight, None, cache)
        show("top_k backward", dx, grads["w"])
        clusters = {"centroids": rng.normal(size=(40, D)).astype(dtype)}
        routing, cache = kmeans.route(clusters, x, weights="softmax")
        dx, grads = kmeans.route_backward(routing.weight, None, cache)
        show("kmeans", routing.weight, dx, grads["centroids"])
    router = soft_moe.init(rng, 64, 8, 4, dtype=dtype)
    params = experts.RELU.init(rng, 64, 8, 128, dtype=dtype)
    tokens = rng.normal(size=(4, 256, 64)).astype(dtype)
    out, cache = soft_moe.forward(router, params, tokens, experts.RELU)
    dx, *grads = soft_moe.backward(out, cache)
    show("soft_moe", out, dx, *[g for tree in grads for g in tree.values()])
"""


def digests(kernels, threads):
    environment = {"MOE_NP_KERNELS": kernels, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["numba", "numpy"])
def test_the_same_bits_for_any_number_of_threads(kernels):
    alone = digests(kernels, 1)
    assert len(alone) == 30
    for threads in (2, 4):
        assert digests(kernels, threads) == alone
