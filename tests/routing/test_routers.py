"""What holds for every router alike: gradients, padding, the two modes, conservation, causality,
the ends of the range, and what a router states as data.
"""

import inspect

import numpy as np
import pytest

from moe_np import routing as package
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.routing import hashing
from tests.support.routers import CASES, options, route, setup

ROUTERS = package.routers()


def over(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


every_router = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())
every = over(CASES)
learned = over({name: case for name, case in CASES.items() if case.learned})
linear = over({name: case for name, case in CASES.items() if case.linear})


# --- gradients ------------------------------------------------------------------------------------


@learned
@pytest.mark.parametrize("seed", range(5))
def test_gradient(case, seed):
    params, x = setup(case, seed)
    rng = np.random.default_rng(seed + 100)
    routing, cache = route(case, params, x, seed)
    dweight = rng.normal(size=routing.weight.shape)
    dlogits = rng.normal(size=routing.logits.shape)

    def loss(p):
        moved, _ = route(case, {k: v for k, v in p.items() if k != "x"}, p["x"], seed)
        assert np.array_equal(moved.expert, routing.expert), "a tie"
        assert np.array_equal(moved.token, routing.token), "a tie"
        return (moved.weight * dweight).sum() + (moved.logits * dlogits).sum()

    dx, grads = case.router.route_backward(dweight, dlogits, cache)
    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors


@learned
def test_without_a_balance_loss_dlogits_is_none(case):
    params, x = setup(case)
    routing, cache = route(case, params, x, 1)
    dweight = np.random.default_rng(3).normal(size=routing.weight.shape)
    dx, grads = case.router.route_backward(dweight, None, cache)
    dx0, grads0 = case.router.route_backward(dweight, np.zeros_like(routing.logits), cache)
    np.testing.assert_allclose(dx, dx0, rtol=1e-12, atol=1e-15)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads0[name], rtol=1e-12, atol=1e-15)


@linear
def test_the_gradient_at_the_logits_is_what_the_parameters_get(case):
    """logits_backward, then xᵀ for the matrices: the same as route_backward."""
    params, x = setup(case)
    routing, cache = route(case, params, x, 1)
    rng = np.random.default_rng(3)
    dweight = rng.normal(size=routing.weight.shape)
    dlogits = rng.normal(size=(12, 4))
    at_logits = case.router.logits_backward(dweight, dlogits, cache)
    _, grads = case.router.route_backward(dweight, dlogits, cache)
    products = at_logits if isinstance(at_logits, tuple) else (at_logits,)
    expected = [getattr(cache, "seen", x).T @ d for d in products]
    matrices = [grads[name] for name, p in params.items() if p.ndim == 2]
    for dw, wanted in zip(matrices, expected, strict=True):
        np.testing.assert_allclose(dw, wanted, rtol=1e-10, atol=1e-13)


# --- what comes out -------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_types_and_read_only_input(case, dtype):
    params, x = setup(case, dtype=dtype)
    for a in (x, *params.values()):
        a.flags.writeable = False
    routing, cache = route(case, params, x, 0)
    A = len(routing.token)
    assert routing.expert.shape == routing.weight.shape == (A,)
    assert routing.probs.shape == routing.demand.shape == (12, 4)
    assert routing.token.dtype.kind == routing.expert.dtype.kind == "i"
    assert routing.weight.dtype == routing.probs.dtype == dtype and routing.demand.dtype == bool
    assert routing.weight.min(initial=0) >= 0
    dx, grads = case.router.route_backward(np.ones(A, dtype), None, cache)
    assert dx.dtype == dtype and dx.shape == x.shape
    expected = {k: (p.shape, dtype) for k, p in params.items() if p.dtype.kind == "f"}
    assert {k: (g.shape, g.dtype) for k, g in grads.items()} == expected


@every
def test_conservation(case):
    params, x = setup(case)
    routing, _ = route(case, params, x, 0)
    pairs = set(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))
    assert len(pairs) == len(routing.token), "a token visits an expert once"
    assert all(routing.demand[n, m] for n, m in pairs), "nothing is assigned that was not asked for"
    if case.full:
        assert len(pairs) == routing.demand.sum()


@every
def test_rows_are_listed_token_by_token(case):
    routing, _ = route(case, *setup(case), 0)
    assert (np.diff(routing.token) >= 0).all()


@every
def test_errata_13_causality(case):
    """Other later tokens change nothing for the earlier ones, unless the case states that the
    router is not causal.
    """

    def early(routing):
        rows = routing.token < 6
        weight = routing.weight[rows].round(12)
        return sorted(zip(routing.token[rows], routing.expert[rows], weight, strict=True))

    same = True
    for seed in range(10):
        params, x = setup(case, seed)
        later = np.concatenate([x[:6], np.random.default_rng(seed + 50).normal(size=x[6:].shape)])
        same &= early(route(case, params, x, seed)[0]) == early(route(case, params, later, seed)[0])
    assert same == case.causal


@every
def test_no_tokens(case):
    params, x = setup(case, n_tokens=0)
    routing, cache = route(case, params, x, 0)
    assert len(routing.token) == 0 and routing.probs.shape == (0, 4)
    dx, grads = case.router.route_backward(np.zeros(0), None, cache)
    assert dx.shape == (0, 5) and all((g == 0).all() for g in grads.values())


@every
def test_huge_logits_stay_finite(case):
    params, x = setup(case)
    huge = {k: 1e4 * p if p.dtype.kind == "f" else p for k, p in params.items()}
    routing, cache = route(case, huge, x, 0)
    assert np.isfinite(routing.weight).all() and np.isfinite(routing.probs).all()
    dx, grads = case.router.route_backward(np.ones(len(routing.weight)), None, cache)
    assert np.isfinite(dx).all() and all(np.isfinite(g).all() for g in grads.values())


# --- training and evaluation ----------------------------------------------------------------------


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True) if a is not None)


@every
def test_evaluation_is_deterministic(case):
    params, x = setup(case)
    assert equal(route(case, params, x)[0], route(case, params, x)[0])


@every
def test_training_is_the_only_switch_of_mode(case):
    """None is training if there is a generator; evaluation draws nothing, whatever rng is."""
    params, x = setup(case)
    chosen = {name: v for name, v in options(case, x).items() if name != "training"}

    def routed(**mode):
        rng = np.random.default_rng(1)
        mode = {name: rng if value == "rng" else value for name, value in mode.items()}
        routing, _ = case.router.route(params, x, **chosen, **mode)
        return routing, rng.random()

    evaluation = routed(training=False)
    training = routed(training=True, rng="rng")
    assert equal(routed()[0], evaluation[0])
    assert equal(routed(rng="rng")[0], training[0]) and routed(rng="rng")[1] == training[1]
    ignored = routed(training=False, rng="rng")
    assert equal(ignored[0], evaluation[0]) and ignored[1] == evaluation[1]
    if case.noisy:
        assert training[1] != evaluation[1] and not equal(training[0], evaluation[0])
        with pytest.raises(InputError, match=r"rng: wanted a numpy.random.Generator with training"):
            routed(training=True)
    else:
        assert training[1] == evaluation[1]
        assert equal(routed(training=True)[0], training[0])


@every_router
def test_what_is_no_mode_and_no_generator_is_refused(router):
    case = next(c for c in CASES.values() if c.router is router)
    params, x = setup(case)
    chosen = {name: v for name, v in options(case, x).items() if name != "training"}
    with pytest.raises(InputError, match="training: wanted True, False or None, got 'train'"):
        router.route(params, x, **chosen, training="train")
    with pytest.raises(InputError, match=r"rng: wanted a numpy.random.Generator, got 3"):
        router.route(params, x, **chosen, rng=3)
    with pytest.raises(InputError, match=r"rng: wanted a numpy.random.Generator, got None"):
        router.init(None, 5, 4, **case.init)


# --- padding --------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("seed", range(6))
def test_padding_takes_no_place_and_changes_nothing(case, seed, backend):
    params, x = setup(case, seed, n_tokens=20)
    rng = np.random.default_rng(seed)
    valid = rng.random(20) < 0.6
    chosen = options(case, x)
    short = {k: v[valid] if isinstance(v, np.ndarray) else v for k, v in chosen.items()}
    routing, cache = case.router.route(params, x, **chosen, valid=valid, **noise(case, seed))
    alone, alone_cache = case.router.route(params, x[valid], **short, **noise(case, seed))
    assert np.array_equal(routing.token, np.flatnonzero(valid)[alone.token])
    assert np.array_equal(routing.expert, alone.expert)
    np.testing.assert_allclose(routing.weight, alone.weight, rtol=1e-12)
    assert not routing.demand[~valid].any() and np.array_equal(routing.demand[valid], alone.demand)
    dweight = rng.normal(size=len(routing.token))
    for dlogits in (None, rng.normal(size=(20, 4))):
        if routing.logits is None and dlogits is not None:
            continue
        dx, grads = case.router.route_backward(dweight, dlogits, cache)
        of_valid = None if dlogits is None else dlogits[valid]
        dx0, grads0 = case.router.route_backward(dweight, of_valid, alone_cache)
        assert (dx[~valid] == 0).all(), "also where a gradient arrives at the logits of padding"
        np.testing.assert_allclose(dx[valid], dx0, atol=1e-13)
        for name in grads:
            np.testing.assert_allclose(grads[name], grads0[name], atol=1e-12)


def noise(case, seed):
    return {"rng": np.random.default_rng(seed)} if case.noisy else {}


@every
def test_no_padding_is_all_tokens_valid(case, backend):
    params, x = setup(case)
    first, cache = route(case, params, x, 1)
    second, cache_of_mask = route(case, params, x, 1, valid=np.ones(12, bool))
    assert equal(first, second)
    dweight = np.random.default_rng(3).normal(size=first.weight.shape)
    dx, grads = case.router.route_backward(dweight, None, cache)
    dx0, grads0 = case.router.route_backward(dweight, None, cache_of_mask)
    assert np.array_equal(dx, dx0) and equal(grads.values(), grads0.values())


@every
def test_only_padding(case, backend):
    params, x = setup(case)
    routing, cache = route(case, params, x, 0, valid=np.zeros(12, bool))
    assert len(routing.token) == 0 and not routing.demand.any()
    dx, grads = case.router.route_backward(np.zeros(0), None, cache)
    assert (dx == 0).all() and all((g == 0).all() for g in grads.values())


@every
@pytest.mark.parametrize("valid", [np.ones(12), np.ones(11, bool), np.ones((12, 1), bool)])
def test_a_bad_mask_is_refused(case, valid):
    with pytest.raises(InputError, match=r"valid: wanted bool of shape \(12,\), got"):
        route(case, *setup(case), 0, valid=valid)


# --- bad input ------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :3], "x: wanted 5 features per token"),
        (lambda x: x[0], r"x: wanted shape \(N, D\), got \(5,\)"),
        (
            lambda x: np.where(x == x[0, 0], np.nan, x),
            r"x: wanted finite numbers, got nan at index \(0, 0\)",
        ),
        (lambda x: x.astype(np.float32), "x: wanted float64, the type of params"),
    ],
)
def test_bad_tokens(case, change, words):
    params, x = setup(case)
    if case.router is hashing and ("per token" in words or "type" in words):
        pytest.skip("a hash has no matrix that x has to fit to")
    with pytest.raises(InputError, match=words):
        route(case, params, change(x), 0)


# --- what a router states as data -----------------------------------------------------------------


@every_router
def test_it_has_cases_of_its_own(router):
    assert any(case.router is router for case in CASES.values())


@every_router
def test_causal_is_what_the_cases_show(router):
    causal = [case.causal for case in CASES.values() if case.router is router]
    assert all(causal) == router.CAUSAL


@every_router
@pytest.mark.parametrize("rng", [None, 3], ids=["evaluation", "training"])
def test_the_example_runs(router, rng):
    params = router.init(np.random.default_rng(0), 6, 4, **getattr(router, "EXAMPLE_INIT", {}))
    x = np.random.default_rng(1).normal(size=(8, 6))
    rng = None if rng is None else np.random.default_rng(rng)
    routing, cache = router.route(params, x, **router.EXAMPLE, rng=rng)
    dx, _ = router.route_backward(np.ones(len(routing.token)), None, cache)
    assert len(routing.token) and dx.shape == x.shape


@every_router
def test_the_signatures_are_those_of_the_contract(router):
    parameters = inspect.signature(router.route).parameters
    assert list(parameters)[:2] == ["params", "x"]
    assert list(parameters)[-3:] == ["valid", "training", "rng"]
    assert all(p.kind == p.KEYWORD_ONLY for p in list(parameters.values())[2:])
    assert all(parameters[name].default is None for name in ("valid", "training", "rng"))
    of_init = inspect.signature(router.init).parameters
    assert list(of_init)[:3] == ["rng", "d_model", "n_experts"]
    assert all(p.kind == p.KEYWORD_ONLY for p in list(of_init.values())[3:])
    for backward in (router.logits_backward, router.route_backward):
        assert list(inspect.signature(backward).parameters)[:3] == ["dweight", "dlogits", "cache"]


@every
def test_arguments_of_the_wrong_kind_are_input_errors(case):
    """Parameters, options, generators and gradients are checked in every router."""
    params, x = setup(case)
    chosen = options(case, x)
    for bad in (None, [1], {}, 3, dict.fromkeys(params, 1), dict.fromkeys(params)):
        with pytest.raises(InputError):
            case.router.route(bad, x, **chosen)
    for option, value in (("rng", 0), ("rng", np.random.RandomState(0)), ("training", "no")):
        with pytest.raises(InputError, match=f"{option}: wanted"):
            case.router.route(params, x, **chosen | {option: value})
    if "renormalise" in chosen:
        with pytest.raises(InputError, match="renormalise: wanted True or False, got 'no'"):
            case.router.route(params, x, **chosen | {"renormalise": "no"})
    for value in (0, None, np.random.RandomState(0)):
        with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator"):
            case.router.init(value, 5, 4, **case.init)


@learned
def test_parameters_and_gradients_are_checked(case):
    params, x = setup(case)
    chosen = options(case, x)
    for name, p in params.items():
        for bad in (p * np.nan, p.astype(np.float32), p[None], p[..., :0], p + 0j):
            with pytest.raises(InputError, match=r"(params\[|x: wanted)"):
                case.router.route({**params, name: bad}, x, **chosen)
    routing, cache = route(case, params, x)
    for dlogits in (np.ones((3, 2)), np.ones(4), "no"):
        with pytest.raises(InputError, match="dlogits: wanted"):
            case.router.route_backward(np.ones(len(routing.weight)), dlogits, cache)


@learned
@pytest.mark.parametrize("option", [{"scale": np.nan}, {"scale": "2"}, {"dtype": int}])
def test_options_of_init_are_checked(case, option):
    with pytest.raises(InputError, match=next(iter(option)) + ": wanted"):
        case.router.init(np.random.default_rng(0), 5, 4, **case.init | option)
