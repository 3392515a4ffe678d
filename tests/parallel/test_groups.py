"""Groups of tokens: what routers need of other ranks, routing and balance losses in groups, and
what a capacity drops on more ranks.
"""

import numpy as np
import pytest

from moe_np.layers import balance
from moe_np.layers.mixture_layer import router_of
from moe_np.parallel import balance_in_groups, groups, in_process
from moe_np.parallel.exchanges import RankError, shares
from moe_np.routing import noisy_top_k, switch, top_k
from tests.support.routers import CASES, setup

PIECES = 8
N, D, E = 48, 6, 8


def pieces_of(array, rank, ranks):
    bounds = shares(len(array), PIECES)
    first, last = shares(PIECES, ranks)[rank : rank + 2]
    return [array[bounds[p] : bounds[p + 1]] for p in range(first, last)]


def on_a_rank(case, x, dweight_of, rank, ranks, group, losses=(), balance_group=None, seed=None):
    """Routing, losses and gradients of a rank: token numbers are those of the batch."""
    router, params, options = case
    facts = [{} for _ in pieces_of(x, rank, ranks)]
    rng = None
    if seed is not None and group == "piece":
        first = int(shares(PIECES, ranks)[rank])
        facts = [{"rng": np.random.default_rng([seed, first + n])} for n in range(len(facts))]
    elif seed is not None:
        rng = np.random.default_rng([seed, 0 if group == "batch" else rank])
    routed = yield from groups.route(
        *(router, params, pieces_of(x, rank, ranks)),
        **{"group": group, "options": options, "rank": rank, "facts": facts, "rng": rng},
    )
    first = int(routed.n_tokens[:rank].sum())
    routing = routed.routing
    added = yield from balance_in_groups.balance_loss(losses, routed, group=balance_group or group)
    dweight = dweight_of[routing.token + first, routing.expert]
    dx, grads = yield from groups.route_backward(dweight, added, routed)
    return routing._replace(token=routing.token + first), added.value, dx, grads


def over_ranks(case, x, dweight_of, ranks, group, **options):
    results = in_process.run(
        [on_a_rank(case, x, dweight_of, r, ranks, group, **options) for r in range(ranks)]
    )
    routings, values, dx, grads = zip(*results, strict=True)
    assert len(set(values)) == 1
    for of_rank in grads[1:]:
        assert all(of_rank[name].tobytes() == g.tobytes() for name, g in grads[0].items())
    columns = [
        None
        if getattr(routings[0], name) is None
        else np.concatenate([getattr(r, name) for r in routings])
        for name in routings[0]._fields
    ]
    return [*columns, np.array(values[0]), np.concatenate(dx), *grads[0].values()]


def problem(case=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    dweight_of = rng.normal(size=(N, E))
    if case is None:
        return x, dweight_of
    router, init, options = case
    return (router, router.init(rng, D, E, **init), options), x, dweight_of


def equal(a, b):
    return all(
        (u is None and v is None) or (u.shape == v.shape and u.tobytes() == v.tobytes())
        for u, v in zip(a, b, strict=True)
    )


ROUTERS = {
    "top_k": (top_k, {}, {"k": 3, "renormalise": True}),
    "switch": (switch, {}, {"capacity_factor": 1.0}),
    "capacity_top_k": (
        router_of("capacity_top_k"),
        {},
        {"k": 3, "renormalise": True, "capacity_factor": 0.8},
    ),
    "noisy_top_k": (noisy_top_k, {"scale": 1.0}, {"k": 3}),
    "expert_choice": (router_of("expert_choice"), {}, {"capacity_factor": 2.0}),
    "gshard": (router_of("gshard"), {}, {"capacity_factor": 0.5}),
    "st_moe": (router_of("st_moe"), {}, {"capacity_factor": 0.5, "second": "random"}),
}


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("group", ["piece", "batch"])
@pytest.mark.parametrize("name", ROUTERS)
def test_groups_of_pieces_and_of_the_batch_do_not_depend_on_the_ranks(name, group, ranks):
    args = problem(ROUTERS[name])
    seed = 5 if name in ("noisy_top_k", "st_moe") else None
    losses = [(0.1, balance.switch), (0.01, balance.z_loss), (0.2, balance.importance)]
    if name == "noisy_top_k":
        losses.append((0.1, balance.load))
    options = {"losses": losses, "seed": seed}
    wanted = over_ranks(*args, 1, group, **options)
    got = over_ranks(*args, ranks, group, **options)
    if group == "batch" and not name.startswith(("top", "noisy")):
        # a whole batch may list its assignments expert by expert, a rank only its own
        order = [np.lexsort((r[1], r[0])) for r in (wanted, got)]
        wanted = [*(column[order[0]] for column in wanted[:3]), *wanted[3:]]
        got = [*(column[order[1]] for column in got[:3]), *got[3:]]
    assert equal(wanted, got)


@pytest.mark.parametrize("name", ROUTERS)
def test_the_group_of_the_batch_is_the_router_itself(name):
    case, x, dweight_of = problem(ROUTERS[name])
    router, params, options = case
    seed = 5 if name in ("noisy_top_k", "st_moe") else None
    rng = None if seed is None else np.random.default_rng([seed, 0])
    routing, cache = router.route(params, x, rng=rng, **options)
    loss = balance.total([(0.1, balance.switch(routing))])
    dweight = dweight_of[routing.token, routing.expert]
    dx, grads = router.route_backward(dweight, loss.dlogits, cache)
    got = over_ranks(case, x, dweight_of, 3, "batch", losses=[(0.1, balance.switch)], seed=seed)
    assert got[6] == loss.value
    assert got[7].tobytes() == dx.tobytes()
    assert equal(got[8:], grads.values())


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("name", ["top_k", "switch"])
def test_a_loss_over_the_batch_beside_routing_in_pieces(name, ranks):
    """The value is that of one routing of all tokens; it does not depend on the ranks."""
    args = problem(ROUTERS["top_k"])
    options = {
        "losses": [(0.1, balance.switch), (0.2, balance.importance)],
        "balance_group": "batch",
    }
    wanted = over_ranks(*args, 1, "piece", **options)
    assert equal(wanted, over_ranks(*args, ranks, "piece", **options))
    (router, params, route), x, _ = args
    routing, _ = router.route(params, x, **route)
    value = 0.1 * balance.switch(routing).value + 0.2 * balance.importance(routing).value
    np.testing.assert_allclose(wanted[6], value, rtol=1e-12)


def test_a_group_of_the_rank_is_that_of_the_papers():
    """It drops what each rank's own tokens overfill, and depends on the ranks."""
    args = problem(ROUTERS["switch"])
    (router, params, options), x, _ = args
    for ranks in (2, 4):
        got = over_ranks(*args, ranks, "rank", losses=[(1.0, balance.switch)])
        bounds = shares(PIECES, ranks) * (N // PIECES)
        routed = [router.route(params, part, **options)[0] for part in np.split(x, bounds[1:-1])]
        token = [r.token + start for r, start in zip(routed, bounds[:-1], strict=True)]
        assert got[0].tolist() == np.concatenate(token).tolist()
        mean = np.mean([balance.switch(r).value for r in routed])
        np.testing.assert_allclose(got[6], mean, rtol=1e-12)
    one = over_ranks(*args, 1, "rank")
    assert one[0].tolist() != over_ranks(*args, 4, "rank")[0].tolist()


def test_padding_is_left_out_of_a_loss():
    case, x, _ = problem(ROUTERS["top_k"])
    valid = np.arange(N) % 5 != 0

    def rank(r, ranks, group):
        facts = [{"valid": mask} for mask in pieces_of(valid, r, ranks)]
        routed = yield from groups.route(
            *(case[0], case[1], pieces_of(x, r, ranks)),
            **{"group": "piece", "options": case[2], "rank": r, "facts": facts},
        )
        losses = [(1.0, balance.switch), (1.0, balance.z_loss)]
        masks = pieces_of(valid, r, ranks)
        added = yield from balance_in_groups.balance_loss(losses, routed, group=group, valid=masks)
        return added

    routing, _ = case[0].route(case[1], x, valid=valid, **case[2])
    wanted = balance.switch(routing, valid=valid).value + balance.z_loss(routing, valid=valid).value
    for group in ("piece", "rank", "batch"):
        terms = in_process.run([rank(r, 3, group) for r in range(3)])
        dlogits = np.concatenate([term.dlogits for term in terms])
        assert not dlogits[~valid].any()
        assert dlogits[valid].any()
        if group == "batch":
            np.testing.assert_allclose(terms[0].value, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_what_every_router_needs_is_what_it_does(name):
    """Halves routed by themselves are the halves of the routing of all, unless it needs all."""
    case = CASES[name]
    params, x = setup(case, n_tokens=32)
    options = case.options
    if any(callable(value) for value in options.values()):
        pytest.skip("its options are made of the tokens")
    options = {"training": None if case.noisy else True, **options}
    routings = [case.router.route(params, part, **options)[0] for part in (x[:16], x[16:], x)]
    halves, whole = groups.join(routings[:2]), routings[2]
    same = len(halves.token) == len(whole.token) and (halves.demand == whole.demand).all()
    same = same and sorted(zip(halves.token, halves.expert, strict=True)) == sorted(
        zip(whole.token, whole.expert, strict=True)
    )
    needed = groups.need(case.router.__name__.rpartition(".")[2], options)
    assert same or needed.of == groups.WHOLE
    assert needed.reason


def test_the_table_of_needs():
    def of(name, **options):
        return groups.need(name, options).of

    assert of("top_k", k=2) == of("switch") == of("hashing") == of("top_p") == groups.LOCAL
    assert of("bias_balanced") == of("kmeans") == groups.SUMS
    assert of("switch", capacity_factor=1.25) == of("gshard", capacity_factor=2.0) == groups.WHOLE
    assert of("gshard") == of("st_moe") == of("capacity_top_k") == groups.LOCAL
    assert of("expert_choice") == of("base_assignment") == of("strictly_balanced") == groups.WHOLE


def test_a_router_that_needs_the_batch_wants_its_group_said():
    assert groups.check_group("top_k", {}, None) == "piece"
    assert groups.check_group("switch", {"capacity_factor": 1.0}, "rank") == "rank"
    with pytest.raises(ValueError, match="group: wanted one of piece, rank, batch for the router"):
        groups.check_group("switch", {"capacity_factor": 1.0}, None)
    with pytest.raises(ValueError, match="the routing of a token depends on the other tokens"):
        groups.check_group("expert_choice", {}, None)
    with pytest.raises(ValueError, match="group: wanted one of piece, rank, batch; got 'node'"):
        groups.check_group("top_k", {}, "node")


@pytest.mark.parametrize(
    ("group", "of_loss", "losses", "message"),
    [
        ("batch", "rank", [(1.0, balance.switch)], "wanted batch, as the router routed, or more"),
        ("rank", "piece", [(1.0, balance.switch)], "wanted rank, as the router routed, or more"),
        ("piece", "batch", [(1.0, balance.load)], "wanted piece, .* for the load loss"),
    ],
)
def test_losses_over_groups_that_do_not_fit_are_refused(group, of_loss, losses, message):
    args = problem(ROUTERS["noisy_top_k"])
    with pytest.raises(RankError, match=message):
        over_ranks(*args, 2, group, losses=losses, balance_group=of_loss, seed=1)
