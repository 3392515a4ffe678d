"""Matrix products in compiled loops: by each BLAS that may compute them, and in which pieces."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from tests.support.kernels import JIT, close, dtypes, jit_only, numba

if numba:
    from moe_np.kernels.machine import blas
    from moe_np.kernels.machine.blas import NO_TRANS, TRANS

OPS = [(111, 111), (112, 111), (111, 112)]  # ab, aᵀb, abᵀ


@jit_only
def test_read_only_means_the_same_type_in_python_and_in_a_compiled_loop():
    a = np.arange(6.0).reshape(2, 3)
    inner = numba.njit(lambda a: a[1, 2])
    outer = numba.njit(lambda a: inner(blas.read_only(a)))
    assert inner(blas.read_only(a)) == outer(a) == 5
    assert len(inner.signatures) == 1


@dtypes
def test_all_finite(dtype):
    x = np.random.default_rng(0).normal(size=(37, 5)).astype(dtype)
    x[0, :3] = np.finfo(dtype).max, -np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    assert blas.all_finite(blas.read_only(x.ravel()))
    assert blas.all_finite(blas.read_only(x[0, :0]))
    for place in ((0, 0), (17, 3), (36, 4)):
        for value in (np.nan, np.inf, -np.inf):
            y = x.copy()
            y[place] = value
            assert not blas.all_finite(blas.read_only(y.ravel()))


# --- products -------------------------------------------------------------------------------------


def product(op_a, op_b, a, b, beta, c):
    blas.gemm(op_a, op_b, a, b, beta, c)


@pytest.fixture(params=["whole", "pieces", "dot"] if JIT else ["Python"])
def compiled_product(request):
    """`gemm` in a compiled loop: by NumPy's BLAS, by the same in pieces, or by what takes its
    place.
    """
    if request.param != "Python":
        library = None if request.param == "dot" else blas.numpy_openblas()
        if library is None and request.param == "pieces":
            pytest.skip("`np.dot` in pieces: never connected")
        blas.connect(library, in_pieces=request.param == "pieces")
    yield numba.njit(product)  # compiled, and so connected, at its first call
    blas.connect_by_environment()


CUT = [(9, 300, 700), (70, 300, 150), (300, 600, 9)]  # sizes that are cut into pieces


@dtypes
@pytest.mark.parametrize(
    "size",
    [(1, 1, 1), (3, 4, 5), (70, 33, 129), (2, 3, 0), (0, 3, 2), *CUT],
    ids=str,
)
def test_product(compiled_product, size, dtype):
    m, n, k = size
    rng = np.random.default_rng(0)
    for op_a, op_b in OPS:
        a = rng.normal(size=(k, m) if op_a == TRANS else (m, k)).astype(dtype)
        b = rng.normal(size=(n, k) if op_b == TRANS else (k, n)).astype(dtype)
        axes = "km,kn->mn" if op_a == TRANS else "mk,nk->mn" if op_b == TRANS else "mk,kn->mn"
        expected = np.einsum(axes, a, b)
        c = np.full((m, n), np.nan, dtype)
        compiled_product(op_a, op_b, a, b, 0, c)
        close(c, expected, dtype, 10)
        compiled_product(op_a, op_b, a, b, 1, c)
        close(c, 2 * expected, dtype, 10)


# --- pieces ---------------------------------------------------------------------------------------


@dtypes
@given(
    op=st.sampled_from(OPS),
    m=st.integers(0, 3000),
    n=st.integers(0, 3000),
    k=st.integers(0, 3000),
)
def test_pieces_are_what_openblas_does_not_copy(op, m, n, k, dtype):
    rows, columns, terms = blas.pieces(*op, m, n, k, np.dtype(dtype).itemsize)
    assert min(rows, columns, terms) > 0
    piece = (min(rows, m), min(columns, n), min(terms, k))
    if piece != (m, n, k):
        assert np.prod(piece) <= blas.SMALL
        if op[1] == TRANS:
            assert piece[0] * piece[1] <= blas.SMALL_RESULT and piece[2] >= blas.LEAST_SUM


@pytest.fixture
def calls(monkeypatch):
    """The calls that compiled products make to the library; in its place nothing is computed."""
    calls = []
    size = ctypes.c_int64
    address = ctypes.c_void_p
    real = ctypes.c_double
    order_and_sizes = (*[ctypes.c_int] * 3, *[size] * 3)
    matrices = (real, address, size, address, size, real, address, size)
    signature = ctypes.CFUNCTYPE(None, *order_and_sizes, *matrices)
    routine = signature(lambda *arguments: calls.append(arguments))
    stand_in = SimpleNamespace(address=ctypes.cast(routine, address).value)
    monkeypatch.setattr(blas, "dot_routine", lambda real: stand_in)
    yield calls
    blas.connect_by_environment()


@jit_only
def test_compiled_products_call_what_they_are_connected_to(calls):
    a, b, c = np.ones((2, 3)), np.ones((3, 4)), np.zeros((2, 4))
    blas.connect(None)
    numba.njit(product)(NO_TRANS, NO_TRANS, a, b, 1, c)
    head = (101, 111, 111, 2, 4, 3, 1.0)  # as cblas.h has them: row-major, no transpose
    assert calls == [(*head, a.ctypes.data, 3, b.ctypes.data, 4, 1.0, c.ctypes.data, 4)]


@jit_only
def test_few_rows_are_multiplied_in_pieces(calls):
    blas.connect(None, in_pieces=True)
    compiled = numba.njit(product)
    x, w, h = np.ones((8, 256)), np.ones((256, 1024)), np.ones((8, 1024))
    for op_a, op_b, a, b, c in (
        (NO_TRANS, NO_TRANS, x, w, h),
        (TRANS, NO_TRANS, x, h, w),
        (NO_TRANS, TRANS, h, w, x),
    ):
        calls.clear()
        compiled(op_a, op_b, a, b, 0, c)
        sizes = np.array([call[3:6] for call in calls])
        assert len(sizes) > 1 and (sizes.prod(axis=1) <= blas.SMALL).all()
        assert sizes.prod(axis=1).sum() == 8 * 256 * 1024
        places = [call[-2] for call in calls]
        betas = [place in places[:i] for i, place in enumerate(places)]
        assert [call[-3] for call in calls] == betas
    calls.clear()
    x, w, h = np.ones((1024, 512)), np.ones((512, 2048)), np.ones((1024, 2048))
    compiled(NO_TRANS, NO_TRANS, x, w, 0, h)
    assert len(calls) == 1  # all sides are long: copied once, and used a thousand times


# --- which BLAS -----------------------------------------------------------------------------------


def test_a_numpy_with_another_blas(monkeypatch):
    pool = {"internal_api": "mkl", "filepath": "libmkl_rt.so"}
    monkeypatch.setattr(blas.threadpoolctl, "threadpool_info", lambda: [pool])
    assert blas.numpy_openblas() is None


def test_the_environment_chooses(monkeypatch):
    """Unset: in pieces where the library has routines without copies; whole: never; dot: without
    the library.
    """
    connected = []
    library = blas.Library(None, blas.PREFIXES[0], avx512=True)
    monkeypatch.setattr(blas, "numpy_openblas", lambda: library)
    monkeypatch.setattr(
        blas, "connect", lambda library, in_pieces: connected.append((library, in_pieces))
    )
    for value in ("", "whole", "dot"):
        monkeypatch.setenv("MOE_NP_BLAS", value)
        blas.connect_by_environment()
    assert connected == [(library, True), (library, False), (None, False)]
    monkeypatch.setattr(blas, "numpy_openblas", lambda: library._replace(avx512=False))
    monkeypatch.setenv("MOE_NP_BLAS", "")
    blas.connect_by_environment()
    assert connected[-1] == (library._replace(avx512=False), False)
    monkeypatch.setenv("MOE_NP_BLAS", "fast")
    with pytest.raises(InputError, match="MOE_NP_BLAS: wanted whole or dot, got 'fast'"):
        blas.connect_by_environment()


# a layer of few tokens, whose products are cut, and a router with its linear backward pass
RESULTS = """
import sys
import numpy as np
from moe_np import kernels
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k

rng = np.random.default_rng(0)
arrays = []
for name in ("RELU", "GELU", "SWIGLU"):
    expert = getattr(experts, name)
    for dtype in (np.float32, np.float64):
        x = rng.normal(size=(48, 192)).astype(dtype)
        params = expert.init(rng, 192, 3, 300, dtype=dtype)
        router = top_k.init(rng, 192, 3, dtype=dtype)
        routing, gate = top_k.route(router, x, k=2, renormalise=True)
        out, cache = sparse_layer.forward(params, x, routing, expert)
        dx, grads, dweight = sparse_layer.backward(out, cache)
        dx_gate, drouter = top_k.route_backward(dweight, None, gate)
        linear = kernels.top_k.linear_backward(routing.logits, x, router["w"])
        arrays += [out, dx, dweight, *grads.values(), dx_gate, drouter["w"], *linear]
np.savez(sys.argv[1], *arrays)
"""


def results(switch, path):
    """The arrays that a process with that switch computes."""
    kept = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    environment = {**kept, "MOE_NP_BLAS": switch, "MOE_NP_KERNELS": "numba"}
    subprocess.run([sys.executable, "-c", RESULTS, str(path)], check=True, env=environment)
    with np.load(path) as arrays:
        return [arrays[name] for name in arrays]


@pytest.fixture(scope="module")
def without_switch(tmp_path_factory):
    return results("", tmp_path_factory.mktemp("results") / "default.npz")


@jit_only
@pytest.mark.slow
@pytest.mark.parametrize("switch", ["whole", "dot"])
def test_all_results_are_the_same_without_the_pieces(switch, without_switch, tmp_path):
    """The switch changes the rounding and nothing else."""
    switched = results(switch, tmp_path / f"{switch}.npz")
    assert len(without_switch) == len(switched) > 50
    for a, b in zip(without_switch, switched, strict=True):
        close(a, b, a.dtype, 30)
