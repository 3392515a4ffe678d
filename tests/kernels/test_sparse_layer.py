"""The compiled loops against their NumPy twins and against naive loops, and the same bits from any
number of threads.

With NUMBA_DISABLE_JIT=1 the loops run in the interpreter; the large shapes are left out then.
"""

import ctypes
import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base import numerics
from moe_np.layers import experts, sparse_layer
from moe_np.routing import top_k
from tests.support.layers import KINDS, random_routing

numba = pytest.importorskip("numba")
from moe_np.kernels import sparse_layer as dispatch  # noqa: E402 - needs Numba
from moe_np.kernels import top_k as gate  # noqa: E402
from moe_np.kernels.machine import activations, blas, thread_pool  # noqa: E402 - needs Numba

JIT = not numba.config.DISABLE_JIT
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
kinds = pytest.mark.parametrize("kind", ["relu", "gelu", "swiglu"])


def close(a, b, dtype, loose=1):
    tolerance = loose * (2e-6 if dtype == np.float32 else 2e-14)
    assert a.shape == b.shape and a.dtype == b.dtype == dtype
    assert np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0))


# --- sorting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k"), [(0, 3, 1), (1, 1, 1), (9, 4, 2), (20, 6, 6), (5, 40, 3)]
)
def test_sort(n_tokens, n_experts, k):
    rng = np.random.default_rng(n_tokens)
    routing = random_routing(rng, n_tokens, n_experts, k, drop=0.2)
    s = dispatch.sort(routing.token, routing.expert, routing.weight, n_tokens, n_experts)
    order, offsets = sparse_layer.by_expert(routing.expert, n_experts)
    assert np.array_equal(s.order, order) and np.array_equal(s.offsets, offsets)
    naive = [
        a for m in range(n_experts) for a in range(len(routing.token)) if routing.expert[a] == m
    ]
    assert s.order.tolist() == naive
    assert np.array_equal(s.token, routing.token[order]) and np.array_equal(
        s.weight, routing.weight[order]
    )
    for n in range(n_tokens):
        assert (
            s.places[s.start[n] : s.start[n + 1]].tolist() == np.flatnonzero(s.token == n).tolist()
        )


def test_sort_sees_what_is_wrong():
    token, expert = np.array([0, 1, 2, 1, 0]), np.array([3, 2, 3, 0, 1])
    assert dispatch.sort(token, expert, np.ones(5), 3, 4) is not None
    assert (
        dispatch.sort(token, np.array([3, 2, 3, 2, 1]), np.ones(5), 3, 4) is None
    )  # token 1 has expert 2 twice
    assert dispatch.sort(token[:3], np.array([3, 2, 3]), np.ones(3), 3, 4) is not None
    for i, wrong in ((0, -1), (4, 3), (2, 1 << 40)):
        assert (
            dispatch.sort(np.where(np.arange(5) == i, wrong, token), expert, np.ones(5), 3, 4)
            is None
        )
        assert (
            dispatch.sort(
                token, np.where(np.arange(5) == i, wrong + (wrong > 0), expert), np.ones(5), 3, 4
            )
            is None
        )
    for wrong in (np.nan, np.inf, -np.inf):
        assert dispatch.sort(token, expert, np.where(np.arange(5) == 3, wrong, 1.0), 3, 4) is None


@dtypes
def test_finite(dtype):
    x = np.random.default_rng(0).normal(size=(37, 5)).astype(dtype)
    x[0, :3] = np.finfo(dtype).max, -np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    assert blas.finite(blas.fixed(x.ravel())) and blas.finite(blas.fixed(x[0, :0]))
    for at in ((0, 0), (17, 3), (36, 4)):
        for wrong in (np.nan, np.inf, -np.inf):
            y = x.copy()
            y[at] = wrong
            assert not blas.finite(blas.fixed(y.ravel()))


@pytest.mark.parametrize(
    "count",
    [
        [0],
        [5],
        [0, 0, 3],
        [4000],
        [100, 3000, 0, 900],
        [10] * 50,
        [600, 600],
        [520, 521, 522],
        [2047],
        [700, 0, 513],
    ],
    ids=str,
)
def test_plan_covers_every_row_once(count):
    offsets = np.concatenate([[0], np.cumsum(count)])
    p = dispatch.plan(offsets)
    assert p.longest == (p.tasks[:, 2] - p.tasks[:, 1]).max()
    assert (np.diff(p.tasks[:, 2] - p.tasks[:, 1]) <= 0).all()  # the longest first
    expert, lo, hi, place = p.tasks[np.argsort(p.tasks[:, 1], kind="stable")].T
    for m, n in enumerate(count):
        mine = expert == m
        assert lo[mine][0] == offsets[m] and hi[mine][-1] == offsets[m + 1]
        assert (lo[mine][1:] == hi[mine][:-1]).all()
        assert mine.sum() == 1 or n > max(512, sum(count) / 4)
    assert sorted(place.tolist()) == list(range(len(place)))
    assert np.array_equal(p.extra, expert[place >= len(count)])


# --- activations ----------------------------------------------------------------------------------


@dtypes
def test_exp(dtype):
    x = np.concatenate([np.linspace(-80, 80, 500), [0.0, -1e-9, -1e4]]).astype(dtype)
    e = np.array([activations.exp(v) for v in x]) if not JIT else _each(activations.exp, x)
    assert e.dtype == dtype
    np.testing.assert_allclose(
        e[:-1], np.exp(x[:-1].astype(np.float64)), rtol=5e-7 if dtype == np.float32 else 1e-15
    )
    assert 0 <= e[-1] < 1e-37


def _each(function, x):
    @numba.njit
    def loop(x, out):
        for i in range(len(x)):
            out[i] = function(x[i])
        return out

    return loop(x, np.empty_like(x))


def values(dtype, rows=7, columns=19):
    rng = np.random.default_rng(0)
    z = 3 * rng.normal(size=(rows, columns))
    z[0, :6] = [0, -0.0, 30, -30, 1e-8, -9]
    return (
        z.astype(dtype),
        rng.normal(size=z.shape).astype(dtype),
        rng.normal(size=columns).astype(dtype),
    )


def product(op_a, op_b, a, b, beta, c):
    blas.gemm(op_a, op_b, a, b, beta, c)


@pytest.fixture(params=["NumPy's BLAS", "in pieces", "np.dot"] if JIT else ["Python"])
def compiled_product(request):
    """`gemm` in a compiled loop, by the BLAS of NumPy's wheel (where it has one) or by what stands
    in for it.
    """
    if request.param != "Python":
        library, _ = blas.numpys_library()
        blas.connect(None if request.param == "np.dot" else library, request.param == "in pieces")
    yield numba.njit(product)  # compiled, and so connected, at its first call
    blas.connect(*blas.numpys_library())


@dtypes
@pytest.mark.parametrize(
    "size",
    [
        (1, 1, 1),
        (3, 4, 5),
        (70, 33, 129),
        (2, 3, 0),
        (0, 3, 2),
        (9, 300, 700),
        (70, 300, 150),
        (300, 600, 9),
    ],
    ids=str,
)
def test_product(compiled_product, size, dtype):
    (m, n, k), rng, T = size, np.random.default_rng(0), blas.TRANSPOSED
    for op_a, op_b in ((blas.PLAIN, blas.PLAIN), (T, blas.PLAIN), (blas.PLAIN, T)):
        a = rng.normal(size=(k, m) if op_a == T else (m, k)).astype(dtype)
        b = rng.normal(size=(n, k) if op_b == T else (k, n)).astype(dtype)
        expected = np.einsum(
            "km,kn->mn" if op_a == T else "mk,nk->mn" if op_b == T else "mk,kn->mn", a, b
        )
        c = np.full((m, n), np.nan, dtype)
        compiled_product(op_a, op_b, a, b, 0, c)
        close(c, expected, dtype, 10)
        compiled_product(op_a, op_b, a, b, 1, c)
        close(c, 2 * expected, dtype, 10)


@dtypes
@given(
    op=st.sampled_from(["ab", "a'b", "ab'"]),
    m=st.integers(0, 3000),
    n=st.integers(0, 3000),
    k=st.integers(0, 3000),
)
def test_pieces_are_what_openblas_does_not_copy(op, m, n, k, dtype):
    op_a, op_b = (blas.TRANSPOSED if x in op else blas.PLAIN for x in ("a'", "b'"))
    rows, columns, terms = blas.pieces(op_a, op_b, m, n, k, np.dtype(dtype).itemsize)
    assert min(rows, columns, terms) > 0
    rows, columns, terms = min(rows, m), min(columns, n), min(terms, k)
    if (rows, columns, terms) != (m, n, k):
        assert rows * columns * terms <= blas.SMALL
        if op_b == blas.TRANSPOSED:
            assert rows * columns <= blas.SMALL_RESULT and terms >= blas.LEAST_SUM


@pytest.fixture
def calls(monkeypatch):
    """What compiled products hand over to the library, in whose place nothing is done."""
    calls, whole, address, real = [], ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
    takes = (
        *[ctypes.c_int] * 3,
        *[whole] * 3,
        real,
        address,
        whole,
        address,
        whole,
        real,
        address,
        whole,
    )
    routine = ctypes.CFUNCTYPE(None, *takes)(lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(
        blas, "by_dot", lambda real: SimpleNamespace(address=ctypes.cast(routine, address).value)
    )
    yield calls
    blas.connect(*blas.numpys_library())


@pytest.mark.skipif(not JIT, reason="compiled code")
def test_compiled_products_call_what_they_are_connected_to(calls):
    a, b, c = np.ones((2, 3)), np.ones((3, 4)), np.zeros((2, 4))
    blas.connect(None)
    numba.njit(product)(blas.PLAIN, blas.PLAIN, a, b, 1, c)
    plain = (101, 111, 111, 2, 4, 3, 1.0)  # as cblas.h has them: rows first, no transpose
    assert calls == [(*plain, a.ctypes.data, 3, b.ctypes.data, 4, 1.0, c.ctypes.data, 4)]


@pytest.mark.skipif(not JIT, reason="compiled code")
def test_few_rows_are_multiplied_in_pieces(calls):
    blas.connect(None, small=True)
    compiled = numba.njit(product)
    x, w, h = np.ones((8, 256)), np.ones((256, 1024)), np.ones((8, 1024))
    for op_a, op_b, a, b, c in (
        (blas.PLAIN, blas.PLAIN, x, w, h),
        (blas.TRANSPOSED, blas.PLAIN, x, h, w),
        (blas.PLAIN, blas.TRANSPOSED, h, w, x),
    ):
        calls.clear()
        compiled(op_a, op_b, a, b, 0, c)
        sizes = np.array([call[3:6] for call in calls])
        assert len(sizes) > 1 and (sizes.prod(axis=1) <= blas.SMALL).all()
        assert sizes.prod(axis=1).sum() == 8 * 256 * 1024
        places = [call[-2] for call in calls]
        assert [call[-3] for call in calls] == [
            place in places[:i] for i, place in enumerate(places)
        ]  # β
    calls.clear()
    x, w, h = np.ones((1024, 512)), np.ones((512, 2048)), np.ones((1024, 2048))
    compiled(blas.PLAIN, blas.PLAIN, x, w, 0, h)
    assert len(calls) == 1  # all sides are long: copied once, and used a thousand times


def test_a_numpy_with_another_blas(monkeypatch):
    other = {"internal_api": "mkl", "filepath": "libmkl_rt.so"}
    monkeypatch.setattr(blas.threadpoolctl, "threadpool_info", lambda: [other])
    assert blas.numpys_library() == (None, False)


@dtypes
@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_activation(kind, dtype):
    z, dh, b = values(dtype)
    act, act_backward = experts.feed_forward.ACTIVATIONS[kind]
    z2, own, again, db, dz = (
        z.copy(),
        np.full_like(z, 7),
        np.full_like(z, 7),
        np.empty_like(b),
        dh.copy(),
    )
    if kind == "relu":
        activations.relu_forward(2, 6, z2, b)
        h = z2[2:6]
        activations.relu_backward(2, 6, dz, z2, db)
    else:
        activations.gelu_forward(2, 6, z2, b, own)
        h = own[:4]
        activations.gelu_backward(2, 6, dz, z2, again, db)
        close(again[:4], h, dtype)
        assert (own[4:] == 7).all() and (again[4:] == 7).all()
    close(h, act(z[2:6] + b), dtype)
    assert np.array_equal(z2[:2], z[:2]) and np.array_equal(z2[6:], z[6:])
    close(h[1], np.array([act(v) for v in z[3] + b]), dtype)  # one by one
    expected = act_backward(dh[:4], z[2:6] + b)
    close(dz[:4], expected, dtype)
    close(db, expected.sum(axis=0), dtype)
    assert np.array_equal(dz[4:], dh[4:])


@dtypes
def test_swiglu(dtype):
    a, dh, _ = values(dtype)
    b = np.roll(dh, 1, axis=0)
    h, again, da, db = np.empty_like(a), np.empty_like(a), dh.copy(), np.empty_like(a)
    activations.swiglu_forward(0, 7, a, b, h)
    activations.swiglu_backward(0, 7, da, a, b, again, db)
    close(again, h, dtype)
    wide = a.astype(np.float64)
    s = 1 / (1 + np.exp(-wide))
    close(h, (wide * s * b).astype(dtype), dtype)
    close(da, (dh * b * s * (1 + wide * (1 - s))).astype(dtype), dtype)
    close(db, (dh * wide * s).astype(dtype), dtype)


# --- the gate -------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(
    ("N", "E", "k"),
    [(0, 3, 2), (1, 1, 1), (9, 4, 2), (5, 6, 6), (30, 40, 3)] + [(5000, 8, 2)] * JIT,
)
def test_top_k_gate(N, E, k, renormalise, dtype):
    rng = np.random.default_rng(N)
    x = rng.integers(-4, 5, (N, E)) if N == 30 else 3 * rng.normal(size=(N, E))  # N = 30: ties
    x, w = x.astype(dtype), np.eye(E, dtype=dtype)
    logits, probs, choice, weight, demand = gate.forward(x, w, k, renormalise)
    logits2, probs2, choice2, weight2, demand2 = top_k.forward_numpy(x, w, k, renormalise)
    assert np.array_equal(logits, x) and np.array_equal(logits2, x)
    assert np.array_equal(choice, choice2) and np.array_equal(demand, demand2)
    assert choice[:50].tolist() == [
        sorted(range(E), key=lambda e: (-row[e], e))[:k] for row in x[:50]
    ]
    close(probs, probs2, dtype)
    close(weight, weight2, dtype)


@pytest.mark.parametrize("E", [4, 20])
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_top_k_gate_where_the_product_overflows(E):
    """Logits of −inf, or NaN: still k different experts, of −inf the same as the twin's."""
    x, w = np.full((3, 1), 1e30, np.float32), np.full((1, E), -1e30, np.float32)
    w[0, 0] = 1
    choice = gate.forward(x, w, 3, True)[2]
    assert choice.tolist() == top_k.forward_numpy(x, w, 3, True)[2].tolist() == [[0, 1, 2]] * 3
    nan = gate.forward(
        np.full((3, 2), 1e30, np.float32),
        np.array([[1e30], [-1e30]], np.float32).repeat(E, 1),
        3,
        True,
    )
    assert all(len(set(row)) == 3 for row in nan[2].tolist())


@dtypes
@pytest.mark.parametrize(
    ("N", "E", "k", "D"), [(0, 3, 2, 4), (1, 1, 1, 1), (9, 4, 2, 3)] + [(9000, 8, 2, 5)] * JIT
)
def test_top_k_gate_backward(N, E, k, D, dtype):
    rng = np.random.default_rng(N)
    x, w, dweight, weight = (
        rng.normal(size=s).astype(dtype) for s in ((N, D), (D, E), (N, k), (N, k))
    )
    choice, dkept = (
        np.argsort(rng.random((N, E)), axis=1)[:, :k],
        numerics.softmax_backward(dweight, weight),
    )
    spread = np.zeros((N, E), dtype)
    np.put_along_axis(spread, choice, dkept, axis=1)
    dx2, dw2 = spread @ w.T, x.T @ spread
    for dx, dw in (
        gate.backward(dweight, weight, choice, x, w),
        gate.linear_backward(spread, x, w),
    ):
        close(dx, dx2, dtype)
        close(dw, dw2, dtype, 30)
    if N == 9:
        naive = np.zeros((D, E))
        for n in range(N):
            for j in range(k):
                naive[:, choice[n, j]] += dkept[n, j] * x[n]
        close(dw, naive.astype(dtype), dtype)


@pytest.mark.skipif(not JIT, reason="threads of compiled code")
def test_the_gate_has_the_same_bits_from_any_number_of_threads(monkeypatch):
    rng = np.random.default_rng(0)
    x, w, dkept, dlogits = (
        rng.normal(size=s).astype(np.float32) for s in ((9001, 8), (8, 16), (9001, 2), (9001, 16))
    )
    seen = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(gate, "blas_threads", lambda n=threads: n)
        logits, probs, choice, weight, _ = gate.forward(x, w, 2, True)
        found = (logits, probs, choice, weight, *gate.backward(dkept, weight, choice, x, w))
        seen.add(b"".join(a.tobytes() for a in (*found, *gate.linear_backward(dlogits, x, w))))
    assert len(seen) == 1


# --- threads --------------------------------------------------------------------------------------


def test_every_piece_is_taken_once_whoever_takes_it():
    made, by = [], set()

    def work(counter, pieces, mine):
        while (i := thread_pool.add(counter, 0, 1)) < pieces:
            made.append(i)
            by.add(mine)
        return True

    for own in (["a"], ["a", "b"], ["a", "b", "c"]):
        made.clear()
        thread_pool.share(work, (100,), [(name,) for name in own])
        assert sorted(made) == list(range(100)) and by <= set(own)
    made.clear()
    thread_pool.share(work, (0,), [("a",), ("b",)])
    assert not made


def count_to(counter, n, seen):
    i = thread_pool.add(counter, 0, 1)
    while i < n:
        seen[i] += 1
        i = thread_pool.add(counter, 0, 1)
    return True


@pytest.mark.skipif(not JIT, reason="threads of compiled code")
def test_no_count_is_lost_between_threads():
    seen = np.zeros(1 << 20, np.int64)
    thread_pool.share(numba.njit(nogil=True)(count_to), (len(seen), seen), [()] * 2)
    assert (seen == 1).all()


@pytest.mark.parametrize("who", ["a", "b"])
def test_an_error_in_a_thread_arrives_and_the_others_do_not_wait_for_it(who):
    begun = threading.Barrier(2)

    def work(counter, mine):
        if thread_pool.add(counter, 0, 1) < 2:
            begun.wait(60)
        if mine == who:
            raise ZeroDivisionError
        return thread_pool.add(counter, 1, 0) >= 2  # the other's piece, which is never done

    with pytest.raises(ZeroDivisionError):
        thread_pool.share(work, (), [("a",), ("b",)])


def test_work_that_is_interrupted_is_not_done_later():
    """Ctrl-C when the workers have been asked, and before this thread begins."""
    made, begin = [], threading.Event()

    def work(counter, mine):
        begin.wait(60)
        while thread_pool.add(counter, 0, 1) < 3:
            made.append(mine)
        return True

    class Interrupted(list):
        def __getitem__(self, i):
            if i == 0:
                threading.Timer(0.1, begin.set).start()
                raise KeyboardInterrupt
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt):
        thread_pool.share(work, (), Interrupted([("a",), ("b",), ("c",)]))
    assert not made
    thread_pool.share(work, (), [("d",)])
    assert made == ["d"] * 3


# --- the layer ------------------------------------------------------------------------------------


def problem(kind, n_tokens, n_experts, k, d, hidden, dtype, share=(), seed=0, weights=None):
    rng = np.random.default_rng(seed)
    expert = KINDS[kind][0]
    params = expert.init(rng, d, n_experts, hidden, d + 1, share=share)
    params = {
        name: (p + 0.1 * rng.normal(size=p.shape)).astype(dtype) for name, p in params.items()
    }
    x = rng.normal(size=(n_tokens, d)).astype(dtype)
    return expert, params, x, random_routing(rng, n_tokens, n_experts, k, 0.1, dtype)


def compiled(expert, params, x, routing, dout, workspace=None):
    s = dispatch.sort(routing.token, routing.expert, routing.weight, *routing.demand.shape)
    out, kept = dispatch.forward(
        params, x, s, expert.kernel[0], {} if workspace is None else workspace
    )
    return out, *dispatch.backward(dout, kept)


def in_numpy(expert, params, x, routing, dout):
    out, cache = sparse_layer.forward_numpy(params, x, routing, expert, routing.demand.shape[1])
    return out, *sparse_layer.backward_numpy(dout, cache)


SMALL = [
    (13, 4, 2, 5, 6),
    (1, 3, 1, 5, 6),
    (0, 2, 1, 5, 6),
    (9, 1, 1, 4, 3),
    (8, 12, 2, 3, 4),
    (6, 3, 3, 4, 5),
]
LARGE = [
    (700, 5, 2, 17, 33),
    (3000, 3, 2, 16, 32),
    (300, 64, 2, 16, 24),
]  # the second with experts cut into pieces


@kinds
@dtypes
@pytest.mark.parametrize("shape", SMALL + (LARGE if JIT else []), ids=str)
@pytest.mark.parametrize("share", [False, True])
def test_loops_and_twin(kind, dtype, shape, share):
    share = (
        ()
        if not share
        else {"relu": ("w1", "b1"), "gelu": ("w2", "b2"), "swiglu": ("w1", "w3")}[kind]
    )
    expert, params, x, routing = problem(kind, *shape, dtype, share)
    dout = np.random.default_rng(1).normal(size=(len(x), shape[3] + 1)).astype(dtype)
    out, dx, grads, dweight = compiled(expert, params, x, routing, dout)
    out2, dx2, grads2, dweight2 = in_numpy(expert, params, x, routing, dout)
    close(out, out2, dtype, 10)
    close(dx, dx2, dtype, 10)
    close(dweight, dweight2, dtype, 10)
    assert set(grads) == set(grads2)
    for name in grads:
        close(grads[name], grads2[name], dtype, 30)


@kinds
def test_the_caches_are_the_same(kind):
    expert, params, x, routing = problem(kind, 13, 4, 2, 5, 6, np.float64)
    s = dispatch.sort(routing.token, routing.expert, routing.weight, *routing.demand.shape)
    _, kept = dispatch.forward(params, x, s, kind, {})
    ours = expert.kernel[1](params, kept.rows, s.offsets, kept.z, kept.g)
    _, theirs = sparse_layer.forward_numpy(params, x, routing, expert, 4)
    for name, a in ours._asdict().items():
        b = getattr(theirs.experts, name)
        if name == "z" and kind == "relu":
            assert np.array_equal(a > 0, b > 0)
        elif isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(kept.y, theirs.y, rtol=1e-12, atol=1e-14)


@kinds
def test_a_workspace_is_used_again_and_changes_nothing(kind):
    workspace = {}
    shapes = [(13, 4, 2, 5, 6), (30, 4, 2, 5, 6), (7, 3, 2, 5, 6), (13, 4, 2, 5, 6)]
    for i, shape in enumerate(shapes):
        expert, params, x, routing = problem(kind, *shape, np.float64, seed=i)
        dout = np.ones((len(x), 6))
        before = {k: v for k, v in workspace.items() if i == 3}
        a = compiled(expert, params, x, routing, dout, workspace)
        b = compiled(expert, params, x, routing, dout)
        assert (
            np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) and np.array_equal(a[3], b[3])
        )
        assert all(np.array_equal(a[2][k], b[2][k]) for k in b[2])
        assert all(workspace[k] is v for k, v in before.items())


def test_without_a_workspace_results_stay():
    expert, params, x, routing = problem("gelu", 13, 4, 2, 5, 6, np.float64)
    first = compiled(expert, params, x, routing, np.ones((13, 6)))
    kept = [a.copy() for a in (first[0], first[1], first[3], *first[2].values())]
    compiled(expert, params, x[::-1], routing, np.ones((13, 6)))
    assert all(
        np.array_equal(a, b)
        for a, b in zip((first[0], first[1], first[3], *first[2].values()), kept, strict=True)
    )


@pytest.mark.skipif(not JIT, reason="threads of compiled code")
@kinds
@pytest.mark.parametrize("shape", [(3000, 3, 2, 16, 32), (400, 8, 2, 16, 32)], ids=str)
def test_the_same_bits_from_any_number_of_threads(kind, shape, monkeypatch):
    expert, params, x, routing = problem(kind, *shape, np.float32)
    dout = x @ np.ones((16, 17), np.float32)
    monkeypatch.setattr(dispatch, "FEW", 0)  # whatever there is, is shared out
    seen = set()
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(dispatch, "blas_threads", lambda n=threads: n)
        out, dx, grads, dweight = compiled(expert, params, x, routing, dout)
        seen.add(
            b"".join(a.tobytes() for a in (out, dx, dweight, *(grads[k] for k in sorted(grads))))
        )
    assert len(seen) == 1


@pytest.mark.skipif(not JIT, reason="threads of compiled code")
def test_who_limits_blas_limits_the_loops():
    before = dispatch.blas_threads()
    with threadpoolctl.threadpool_limits(1, "blas"):
        assert dispatch.blas_threads() == 1
    assert dispatch.blas_threads() == before


@pytest.mark.skipif(not JIT or not hasattr(os, "fork"), reason="threads of compiled code, and fork")
def test_a_forked_process_gets_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(dispatch, "blas_threads", lambda: 2)
    monkeypatch.setattr(dispatch, "FEW", 0)
    expert, params, x, routing = problem("relu", 30, 4, 2, 5, 6, np.float64)
    alone = compiled(expert, params, x, routing, np.ones((30, 6)))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(_in_another_process).get(timeout=60)
    assert np.array_equal(result, alone[1])


def _in_another_process():
    expert, params, x, routing = problem("relu", 30, 4, 2, 5, 6, np.float64)
    return compiled(expert, params, x, routing, np.ones((30, 6)))[1]


@pytest.mark.skipif(not JIT, reason="threads of compiled code")
def test_from_several_threads_at_once_and_the_blas_threads_come_back():
    def pools():
        return [
            p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"
        ]

    expert, params, x, routing = problem("swiglu", 300, 8, 2, 16, 24, np.float64)
    dout = np.ones((300, 17))
    alone, before = compiled(expert, params, x, routing, dout), pools()
    with ThreadPoolExecutor(4) as pool:
        for out, dx, _, _ in pool.map(
            lambda _: compiled(expert, params, x, routing, dout), range(12)
        ):
            assert np.array_equal(out, alone[0]) and np.array_equal(dx, alone[1])
    assert pools() == before
