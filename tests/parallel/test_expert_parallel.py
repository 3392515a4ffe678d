"""The sparse layer over ranks: the same bits as in one process, for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.layers import experts, sparse_layer
from moe_np.parallel import expert_parallel, in_process
from moe_np.parallel.exchanges import Gather, RankError, Send, shares
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

PIECES = 12  # of the tokens, in one process and over ranks


def problem(N, D, E, dtype, seed=0, skew=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(dtype)
    router = top_k.init(rng, D, E, dtype=dtype)
    if skew:
        x[:, 0] = 1
        router["w"][0] += (skew * np.linspace(1, 0, E)).astype(dtype)
    params = experts.SWIGLU.init(rng, D, E, 2 * D, dtype=dtype)
    return router, params, x, rng.normal(size=(N, D)).astype(dtype)


def routed(router, x, k):
    """The tokens routed in pieces, as one routing, with the cache of each piece."""
    pieces = [top_k.route(router, part, k=k, renormalise=k > 1) for part in x]
    starts = np.cumsum([0] + [len(part) for part in x])
    routings = [routing for routing, _ in pieces]
    joined = Routing(
        np.concatenate([r.token + start for r, start in zip(routings, starts[:-1], strict=True)]),
        *(np.concatenate([getattr(r, name) for r in routings]) for name in Routing._fields[1:]),
    )
    return joined, [cache for _, cache in pieces], np.cumsum([len(r.token) for r in routings])[:-1]


def router_backward(dweight, ends, caches):
    parts = np.split(dweight, ends)
    pairs = [
        top_k.route_backward(part, None, cache) for part, cache in zip(parts, caches, strict=True)
    ]
    return np.concatenate([dx for dx, _ in pairs]), [grads for _, grads in pairs]


def in_one_process(router, params, x, dout, k):
    """Forward and backward of the layer and its router, with the tokens in PIECES."""
    pieces = np.split(x, shares(len(x), PIECES)[1:-1])
    routing, caches, ends = routed(router, pieces, k)
    out, cache = sparse_layer.forward(params, x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(dout, cache)
    dx_router, parts = router_backward(dweight, ends, caches)
    drouter = parts[0]["w"].copy()
    for part in parts[1:]:
        drouter += part["w"]
    return out, dx + dx_router, grads, drouter


def on_a_rank(router, params, x, dout, k, rank, ranks):
    """The same on one rank, as a generator."""
    n_experts = router["w"].shape[1]
    bounds = expert_parallel.expert_bounds(n_experts, ranks)
    of_pieces = shares(len(x), PIECES)
    mine = shares(PIECES, ranks)[rank : rank + 2]
    first, last = of_pieces[mine]
    pieces = [x[of_pieces[p] : of_pieces[p + 1]] for p in range(*mine)]
    routing, caches, ends = routed(router, pieces, k)
    here = expert_parallel.experts_of_rank(params, rank, bounds)
    out, cache = yield from expert_parallel.forward(
        here, x[first:last], routing, experts.SWIGLU, rank, bounds
    )
    dx, grads, dweight = yield from expert_parallel.backward(dout[first:last], cache)
    dx_router, parts = router_backward(dweight, ends, caches)
    drouter = yield from expert_parallel.summed_by_pieces(parts, "router")
    return out, dx + dx_router, grads, drouter["w"]


def over_ranks(router, params, x, dout, k, ranks):
    results = in_process.run(
        [on_a_rank(router, params, x, dout, k, rank, ranks) for rank in range(ranks)]
    )
    out, dx, grads, drouter = zip(*results, strict=True)
    for of_rank in drouter[1:]:
        assert of_rank.tobytes() == drouter[0].tobytes()  # the router stays the same everywhere
    joined = {name: np.concatenate([g[name] for g in grads]) for name in params}
    return np.concatenate(out), np.concatenate(dx), joined, drouter[0]


def check_equal_bits(wanted, got):
    for name, a, b in zip(("out", "dx", "experts", "router"), wanted, got, strict=True):
        pairs = [(a[key], b[key]) for key in a] if isinstance(a, dict) else [(a, b)]
        for one, other in pairs:
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("N", "E", "k"), [(101, 8, 3), (24, 7, 2), (5, 8, 3), (2, 9, 4)])
def test_any_number_of_ranks_has_the_bits_of_one_process(ranks, dtype, N, E, k, monkeypatch):
    """k of 3 and more: the sum of two outputs does not depend on their order."""
    monkeypatch.setenv("MOE_NP_KERNELS", "numpy")
    args = problem(N, 16, E, dtype)
    check_equal_bits(in_one_process(*args, k), over_ranks(*args, k, ranks))


@settings(max_examples=25)
@given(
    N=st.integers(0, 40),
    E=st.integers(1, 9),
    ranks=st.integers(1, 7),
    k=st.integers(1, 4),
    skew=st.sampled_from([0.0, 50.0]),
    seed=st.integers(0, 99),
)
def test_all_sizes_have_the_bits_of_one_process(N, E, ranks, k, skew, seed):
    """No token at all, ranks without tokens, all tokens to the first experts."""
    ranks = min(ranks, E)
    k = min(k, E)
    args = problem(N, 8, E, np.float64, seed, skew)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOE_NP_KERNELS", "numpy")
        check_equal_bits(in_one_process(*args, k), over_ranks(*args, k, ranks))


def test_compiled_kernels_agree_to_rounding():
    pytest.importorskip("numba")
    args = problem(200, 16, 8, np.float64)
    for wanted, got in zip(in_one_process(*args, 2), over_ranks(*args, 2, 3), strict=True):
        if isinstance(wanted, dict):
            for name in wanted:
                np.testing.assert_allclose(got[name], wanted[name], rtol=1e-9, atol=1e-12)
        else:
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_a_step_has_five_exchanges_and_one_of_the_router():
    args = problem(20, 8, 6, np.float64)
    results = [None] * 3
    seen = [
        (type(asked[0]), asked[0].name)
        for asked in in_process.exchanges(
            [on_a_rank(*args, 2, rank, 3) for rank in range(3)], results
        )
    ]
    assert seen == [
        *((Send, "counts"), (Send, "dispatch"), (Send, "combine")),
        *((Send, "dispatch back"), (Send, "combine back"), (Gather, "router w")),
    ]


@pytest.mark.parametrize("left_out", ["counts", "dispatch", "combine", "combine back", "router w"])
def test_a_rank_that_leaves_out_an_exchange_is_named(left_out):
    args = problem(20, 8, 6, np.float64)

    def forgetful(generator):
        answer = None
        while True:
            try:
                exchange = generator.send(answer)
            except StopIteration as stop:
                return stop.value
            if exchange.name == left_out:
                rows = exchange.rows if isinstance(exchange, Send) else exchange.array
                n = int(exchange.expected.sum()) if isinstance(exchange, Send) else 1
                answer = np.zeros((n, *rows.shape[1:]), rows.dtype)
                answer = [rows] * 3 if isinstance(exchange, Gather) else answer
                continue
            answer = yield exchange

    ranks = [on_a_rank(*args, 2, rank, 3) for rank in range(3)]
    ranks[1] = forgetful(ranks[1])
    with pytest.raises(RankError, match="rank 1: wanted to take part in the exchange"):
        in_process.run(ranks)


def test_an_error_on_a_rank_is_told_with_the_rank():
    router, params, x, dout = problem(20, 8, 6, np.float64)
    ranks = [on_a_rank(router, params, x, dout, 2, rank, 3) for rank in range(3)]
    narrow = {**params, "w1": params["w1"][:, :5]}
    ranks[2] = on_a_rank(router, narrow, x, dout, 2, 2, 3)
    with pytest.raises(RankError, match=r"rank 2: .*wanted"):
        in_process.run(ranks)


def test_more_ranks_than_experts_and_other_misfits_are_refused():
    router, params, x, _ = problem(20, 8, 4, np.float64)
    with pytest.raises(ValueError, match="ranks: wanted at most one per expert, 4, got 5"):
        expert_parallel.expert_bounds(4, 5)
    routing, _ = top_k.route(router, x, k=2, renormalise=True)
    bounds = expert_parallel.expert_bounds(5, 2)
    with pytest.raises(ValueError, match="bounds: wanted the 4 experts of the routing, got 5"):
        next(expert_parallel.forward(params, x, routing, experts.SWIGLU, 0, bounds))
    bounds = expert_parallel.expert_bounds(4, 2)
    with pytest.raises(ValueError, match=r"params\['w1'\]: wanted the 2 experts of rank 0, got 4"):
        next(expert_parallel.forward(params, x, routing, experts.SWIGLU, 0, bounds))
    shared = {**params, "w1": params["w1"][:1]}
    with pytest.raises(ValueError, match="a shared parameter cannot be divided"):
        expert_parallel.experts_of_rank(shared, 0, bounds)
