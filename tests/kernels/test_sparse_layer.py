"""The compiled sparse layer: against its NumPy twin and a naive loop, and the same bits from any
number of threads.

With NUMBA_DISABLE_JIT=1 the loops run in the interpreter; the large shapes are left out then.
"""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

from moe_np.layers import sparse_layer as twin
from tests.support.kernels import JIT, bits, close, dtypes, numba, threads_only
from tests.support.layers import KINDS, random_routing

if numba:
    from moe_np.kernels import sparse_layer

kinds = pytest.mark.parametrize("kind", ["relu", "gelu", "swiglu"])

# tokens, experts, choices, width, hidden units
SMALL = [(13, 4, 2, 5, 6), (1, 3, 1, 5, 6), (0, 2, 1, 5, 6), (9, 1, 1, 4, 3)]
SMALL += [(8, 12, 2, 3, 4), (6, 3, 3, 4, 5)]
LARGE = [(700, 5, 2, 17, 33), (3000, 3, 2, 16, 32), (300, 64, 2, 16, 24)]  # the second: hot experts
SHARED = {"relu": ("w1", "b1"), "gelu": ("w2", "b2"), "swiglu": ("w1", "w3")}


def problem(kind, shape, dtype, share=(), seed=0):
    n_tokens, n_experts, k, d, hidden = shape
    rng = np.random.default_rng(seed)
    expert = KINDS[kind][0]
    params = expert.init(rng, d, n_experts, hidden, d + 1, share=share)
    params = {
        name: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()
    }
    x = rng.normal(size=(n_tokens, d)).astype(dtype)
    return expert, params, x, random_routing(rng, n_tokens, n_experts, k, 0.1, dtype)


def by_loops(expert, params, x, routing, dout, workspace=None):
    assignments = (routing.token, routing.expert, routing.weight)
    s = sparse_layer.sort(*assignments, *routing.demand.shape)
    workspace = {} if workspace is None else workspace
    out, kept = sparse_layer.forward(params, x, s, expert.kernel[0], workspace)
    return out, *sparse_layer.backward(dout, kept)


def by_twin(expert, params, x, routing, dout):
    out, cache = twin.forward_numpy(params, x, routing, expert, routing.demand.shape[1])
    return out, *twin.backward_numpy(dout, cache)


def arrays_of(result):
    """(out, dx, grads, dweight) as a list of arrays."""
    out, dx, grads, dweight = result
    return [out, dx, dweight, *(grads[name] for name in sorted(grads))]


@kinds
@dtypes
@pytest.mark.parametrize("shape", SMALL + (LARGE if JIT else []), ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_loops_and_twin(kind, dtype, shape, shared):
    problem_and_routing = problem(kind, shape, dtype, SHARED[kind] if shared else ())
    dout = np.random.default_rng(1).normal(size=(shape[0], shape[3] + 1)).astype(dtype)
    out, dx, grads, dweight = by_loops(*problem_and_routing, dout)
    out_numpy, dx_numpy, grads_numpy, dweight_numpy = by_twin(*problem_and_routing, dout)
    close(out, out_numpy, dtype, 10)
    close(dx, dx_numpy, dtype, 10)
    close(dweight, dweight_numpy, dtype, 10)
    assert set(grads) == set(grads_numpy)
    for name in grads:
        close(grads[name], grads_numpy[name], dtype, 30)


@kinds
def test_loops_and_a_naive_loop(kind):
    """One assignment after the other, forward and backward, with its expert alone."""
    expert, params, x, routing = problem(kind, SMALL[0], np.float64)
    dout = np.random.default_rng(1).normal(size=(13, 6))
    out, dx, grads, dweight = by_loops(expert, params, x, routing, dout)
    naive = {"out": np.zeros_like(out), "dx": np.zeros_like(dx)}
    naive |= {name: np.zeros_like(p) for name, p in params.items()}
    for a, (n, m, w) in enumerate(zip(routing.token, routing.expert, routing.weight, strict=True)):
        weights = {name: p[m : m + 1] for name, p in params.items()}
        y, cache = expert.forward(weights, x[n : n + 1], np.array([0, 1]))
        drow, dweights = expert.backward(w * dout[n : n + 1], cache)
        naive["out"][n] += w * y[0]
        naive["dx"][n] += drow[0]
        for name, g in dweights.items():
            naive[name][m] += g[0]
        assert dweight[a] == pytest.approx(dout[n] @ y[0], rel=1e-12)
    for name, array in {"out": out, "dx": dx, **grads}.items():
        close(array, naive[name], np.float64, 10)


@kinds
def test_the_caches_are_the_same(kind, monkeypatch):
    monkeypatch.setenv("MOE_NP_KERNELS", "numba")
    expert, params, x, routing = problem(kind, (13, 4, 2, 5, 6), np.float64)
    _, cache = twin.forward(params, x, routing, expert)
    _, cache_numpy = twin.forward_numpy(params, x, routing, expert, 4)
    assert cache.compiled is not None and cache_numpy.compiled is None
    for name, b in cache_numpy.experts._asdict().items():
        a = getattr(cache.experts, name)
        if name == "params":
            assert a.keys() == b.keys() and all(a[key] is b[key] for key in a)
        elif name == "z" and kind == "relu":
            assert np.array_equal(a > 0, b > 0)
        elif isinstance(b, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, err_msg=name)
    for name in ("order", "offsets", "token", "weight", "y"):
        a, b = getattr(cache, name), getattr(cache_numpy, name)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, err_msg=name)


@kinds
def test_a_workspace_is_reused_and_changes_no_result(kind):
    workspace = {}
    shapes = [(13, 4, 2, 5, 6), (30, 4, 2, 5, 6), (7, 3, 2, 5, 6), (13, 4, 2, 5, 6)]
    for i, shape in enumerate(shapes):
        problem_and_routing = problem(kind, shape, np.float64, seed=i)
        dout = np.ones((shape[0], 6))
        before = dict(workspace) if i == 3 else {}
        a = arrays_of(by_loops(*problem_and_routing, dout, workspace))
        b = arrays_of(by_loops(*problem_and_routing, dout))
        assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True))
        assert all(workspace[name] is array for name, array in before.items())


def test_without_a_workspace_results_stay():
    expert, params, x, routing = problem("gelu", (13, 4, 2, 5, 6), np.float64)
    result = arrays_of(by_loops(expert, params, x, routing, np.ones((13, 6))))
    copies = [a.copy() for a in result]
    by_loops(expert, params, x[::-1], routing, np.ones((13, 6)))
    assert all(np.array_equal(a, b) for a, b in zip(result, copies, strict=True))


# --- threads --------------------------------------------------------------------------------------


@threads_only
@kinds
@pytest.mark.parametrize("shape", [(3000, 3, 2, 16, 32), (400, 8, 2, 16, 32)], ids=str)
def test_the_same_bits_from_any_number_of_threads(kind, shape, monkeypatch):
    expert, params, x, routing = problem(kind, shape, np.float32)
    dout = x @ np.ones((16, 17), np.float32)
    monkeypatch.setattr(sparse_layer, "FEW", 0)  # all work is shared
    results = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(sparse_layer, "blas_threads", lambda n=threads: n)
        results.add(bits(arrays_of(by_loops(expert, params, x, routing, dout))))
    assert len(results) == 1


@threads_only
def test_the_limit_of_blas_limits_the_loops():
    before = sparse_layer.blas_threads()
    with threadpoolctl.threadpool_limits(1, "blas"):
        assert sparse_layer.blas_threads() == 1
    assert sparse_layer.blas_threads() == before


@pytest.mark.skipif(not JIT or not hasattr(os, "fork"), reason="threads of compiled code, and fork")
def test_a_forked_process_gets_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(sparse_layer, "blas_threads", lambda: 2)
    monkeypatch.setattr(sparse_layer, "FEW", 0)
    expected = _dx_of_a_problem()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(_dx_of_a_problem).get(timeout=60)
    assert np.array_equal(result, expected)


def _dx_of_a_problem():
    expert, params, x, routing = problem("relu", (30, 4, 2, 5, 6), np.float64)
    return by_loops(expert, params, x, routing, np.ones((30, 6)))[1]


@threads_only
def test_from_several_threads_at_once_and_the_blas_threads_come_back():
    def pools():
        pools = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    expert, params, x, routing = problem("swiglu", (300, 8, 2, 16, 24), np.float64)
    dout = np.ones((300, 17))
    out_alone, dx_alone, _, _ = by_loops(expert, params, x, routing, dout)
    before = pools()
    with ThreadPoolExecutor(4) as executor:
        runs = executor.map(lambda _: by_loops(expert, params, x, routing, dout), range(12))
        for out, dx, _, _ in runs:
            assert np.array_equal(out, out_alone) and np.array_equal(dx, dx_alone)
    assert pools() == before
