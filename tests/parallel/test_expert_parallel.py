"""The sparse layer over ranks: the same bits as in one process, for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.layers import experts, sparse_layer
from moe_np.parallel import expert_parallel, in_process, layer_step, placement
from moe_np.parallel.exchanges import Gather, RankError, Send
from moe_np.parallel.layer_step import Sizes
from moe_np.routing import top_k

PIECES = 12  # of the tokens, in one process and over ranks


def problem(N, D, E, dtype, k=2, seed=0, skew=0.0):
    sizes = Sizes(tokens=N, d_model=D, experts=E, hidden=2 * D, k=k, pieces=PIECES, skew=skew)
    return layer_step.problem(sizes, dtype=dtype, seed=seed)


def over_ranks(given, ranks, placed=None):
    """The step on all ranks, put together."""
    results = in_process.run(
        [layer_step.whole(given, rank, ranks, placed) for rank in range(ranks)]
    )
    for result in results[1:]:  # what is gathered is the same everywhere, and so is the router
        check_equal_bits(results[0], result)
    return results[0]


def check_equal_bits(wanted, got):
    differ = layer_step.differences(wanted, got)
    assert all(value is None for value in differ.values()), differ


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("N", "E", "k"), [(101, 8, 3), (24, 7, 2), (5, 8, 3), (2, 9, 4)])
def test_any_number_of_ranks_has_the_bits_of_one_process(ranks, dtype, N, E, k, backend):
    """k of 3 and more: the sum of two outputs does not depend on their order."""
    given = problem(N, 16, E, dtype, k)
    check_equal_bits(layer_step.in_one_process(given), over_ranks(given, ranks))


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
    args = problem(N, 8, E, np.float64, min(k, E), seed, skew)
    check_equal_bits(layer_step.in_one_process(args), over_ranks(args, ranks))


def test_one_process_is_the_sparse_layer(backend):
    """Out, dx and the experts' gradients do not depend on the pieces; the router's to rounding."""
    args = problem(200, 16, 8, np.float64)
    result = layer_step.in_one_process(args)
    routing, gate = top_k.route(args.router, args.x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(args.params, args.x, routing, experts.SWIGLU)
    dx, grads, dweight = sparse_layer.backward(args.dout, cache)
    dx_router, router = top_k.route_backward(dweight, None, gate)
    whole = layer_step.Result(out, dx + dx_router, grads, router)
    for name, value in layer_step.differences(whole, result).items():
        assert value is None or value < 1e-12, name


def test_a_step_has_five_exchanges_and_one_of_the_router():
    args = problem(20, 8, 6, np.float64)
    ranks = [layer_step.on_a_rank(args, rank, 3) for rank in range(3)]
    seen = [(type(asked[0]), asked[0].name) for asked in in_process.exchanges(ranks, [None] * 3)]
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

    ranks = [layer_step.on_a_rank(args, rank, 3) for rank in range(3)]
    ranks[1] = forgetful(ranks[1])
    with pytest.raises(RankError, match="rank 1: wanted to take part in the exchange"):
        in_process.run(ranks)


def test_an_error_on_a_rank_is_told_with_the_rank():
    args = problem(20, 8, 6, np.float64)
    ranks = [layer_step.on_a_rank(args, rank, 3) for rank in range(3)]
    narrow = {**args.params, "w1": args.params["w1"][:, :5]}
    ranks[2] = layer_step.on_a_rank(args._replace(params=narrow), 2, 3)
    with pytest.raises(RankError, match=r"rank 2: .*wanted"):
        in_process.run(ranks)


def test_a_batch_of_another_width_is_told_with_the_rank():
    """By the experts of the rank; where it has such experts too, before the rows are sent."""
    args = problem(20, 8, 6, np.float64)
    narrow = problem(20, 7, 6, np.float64)
    ranks = [layer_step.on_a_rank(args, rank, 3) for rank in range(3)]
    ranks[2] = layer_step.on_a_rank(args._replace(x=narrow.x, router=narrow.router), 2, 3)
    with pytest.raises(RankError, match="rank 2: x: wanted 8 features, as the experts read, got 7"):
        in_process.run(ranks)
    ranks = [layer_step.on_a_rank(narrow if rank == 1 else args, rank, 3) for rank in range(3)]
    with pytest.raises(RankError, match=r"rank 1: .*rows of 8, .*, got .*rows of 7, float64"):
        in_process.run(ranks)


def test_misfits_are_refused():
    _, router, params, x, _ = problem(20, 8, 4, np.float64)
    routing, _ = top_k.route(router, x, k=2, renormalise=True)
    placed = placement.contiguous(5, 2)
    with pytest.raises(ValueError, match="placement: wanted the 4 experts of the routing, got 5"):
        next(expert_parallel.forward(params, x, routing, experts.SWIGLU, 0, placed))
    placed = placement.contiguous(4, 2)
    with pytest.raises(ValueError, match=r"params\['w1'\]: wanted the 2 experts of rank 0, got 4"):
        next(expert_parallel.forward(params, x, routing, experts.SWIGLU, 0, placed))
    with pytest.raises(ValueError, match="rank: wanted a whole number of at least 0 and at most 1"):
        next(expert_parallel.forward(params, x, routing, experts.SWIGLU, 2, placed))
