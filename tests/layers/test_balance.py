"""Load-balancing losses: gradients, the value at balance, padding, and what public code gets wrong
about them.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import balance
from moe_np.routing import contract, noisy_top_k, strictly_balanced, top_k
from moe_np.routing.contract import Routing
from tests.support.routers import CASES, route, setup

E = 4
DEVICE = np.array([2, 0, 2, 1])
SEQUENCE = np.array([5, 5, 2, 2, 5, 2, 2, 2, 5, 5, 9, 9])

LOSSES = {
    "switch": balance.switch,
    "switch not divided by k": lambda r, **o: balance.switch(r, divide_by_k=False, **o),
    "gshard": balance.gshard,
    "z_loss": balance.z_loss,
    "token_entropy": balance.token_entropy,
    "mean_entropy": balance.mean_entropy,
    "expert_level": balance.expert_level,
    "device_level": lambda r, **o: balance.device_level(r, DEVICE, **o),
    "sequence_wise": lambda r, **o: balance.sequence_wise(r, SEQUENCE[: len(r.logits)], k=2, **o),
}
all_losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def routed(logits, k=2):
    """The Routing of a top-k softmax gate with these logits."""
    params = {"w": np.eye(logits.shape[1], dtype=logits.dtype)}
    return top_k.route(params, logits, k=k, renormalise=False)[0]


def of_order(loss, routing, order):
    """The loss of a routing whose tokens are those of `order`, which SEQUENCE has to follow."""
    if loss is LOSSES["sequence_wise"]:
        return balance.sequence_wise(routing, SEQUENCE[order], k=2)
    return loss(routing)


def tokens(seed=0, N=12, dtype=np.float64):
    """Logits that prefer the last experts: at exact balance a loss has a gradient of 0, which shows
    nothing.
    """
    return (2 * np.random.default_rng(seed).normal(size=(N, E)) + 0.7 * np.arange(E)).astype(dtype)


@all_losses
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("padded", [False, True])
def test_gradient_with_the_choice_held(loss, seed, padded):
    rng = np.random.default_rng(seed)
    logits = tokens(seed)
    valid = rng.random(12) < 0.6 if padded else None
    demand = routed(logits).demand

    def value(p):
        moved = routed(p["logits"])
        assert (moved.demand == demand).all(), "a tie"
        assert (p["logits"].argmax(1) == logits.argmax(1)).all(), "a tie"
        return loss(moved, valid=valid).value

    grads = {"logits": loss(routed(logits), valid=valid).dlogits}
    errors = gradient_error(value, {"logits": logits}, grads, rng, step=1e-4)
    assert errors["logits"] < 1e-7


@all_losses
def test_padding_changes_nothing_and_gets_no_gradient(loss):
    logits, valid = tokens(), np.arange(12) % 3 != 1
    logits[~valid] = 300.0  # a value that would be seen
    padded = loss(routed(logits), valid=valid)
    kept = of_order(loss, routed(logits[valid]), valid)
    assert padded.value == pytest.approx(kept.value, rel=1e-12)
    np.testing.assert_allclose(padded.dlogits[valid], kept.dlogits, rtol=1e-12, atol=1e-16)
    assert (padded.dlogits[~valid] == 0).all()
    assert padded.value != pytest.approx(loss(routed(logits)).value, rel=1e-3)


@all_losses
def test_no_token_is_a_loss_of_zero(loss):
    for logits, valid in ((tokens(N=0), None), (tokens(), np.zeros(12, bool))):
        empty = loss(routed(logits), valid=valid)
        assert empty.value == 0
        assert empty.dlogits.shape == logits.shape and (empty.dlogits == 0).all()


@all_losses
def test_float32_follows_the_input_and_agrees(loss):
    single = loss(routed(tokens(dtype=np.float32)))
    double = loss(routed(tokens(dtype=np.float32).astype(np.float64)))
    assert isinstance(single.value, float) and single.dlogits.dtype == np.float32
    assert single.value == pytest.approx(double.value, rel=1e-6)
    np.testing.assert_allclose(single.dlogits, double.dlogits, rtol=1e-4, atol=1e-7)


@all_losses
def test_huge_logits_stay_finite(loss):
    for scale in (1e4, -1e4):
        huge = loss(routed(scale * tokens()))
        assert np.isfinite(huge.value) and np.isfinite(huge.dlogits).all()


@all_losses
def test_permuting_the_tokens_permutes_the_gradient(loss):
    order = np.random.default_rng(1).permutation(12)
    before = loss(routed(tokens()))
    permuted = of_order(loss, routed(tokens()[order]), order)
    assert before.value == pytest.approx(permuted.value, rel=1e-12)
    np.testing.assert_allclose(before.dlogits[order], permuted.dlogits, rtol=1e-12, atol=1e-16)


@given(st.integers(1, 9), st.integers(1, 7), st.data())
@settings(max_examples=60, deadline=None)
def test_switch_against_a_naive_loop(N, n_experts, data):
    k = data.draw(st.integers(1, n_experts))
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(N, n_experts))
    r = routed(logits, k)
    value = 0.0
    for i in range(n_experts):
        f = sum(bool(r.demand[n, i]) for n in range(N)) / (N * k)
        P = sum(np.exp(logits[n, i]) / np.exp(logits[n]).sum() for n in range(N)) / N
        value += n_experts * f * P
    assert balance.switch(r).value == pytest.approx(value, rel=1e-12)


def at_balance(k):
    """Four tokens that use four experts alike, k each: each row is shifted by one."""
    return routed(np.array([np.roll([4.0, 2, 1, 0], n) for n in range(E)]), k)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_values_at_balance(k):
    r = at_balance(k)
    assert balance.switch(r).value == pytest.approx(1)
    assert balance.switch(r, divide_by_k=False).value == pytest.approx(k)
    assert balance.expert_level(r).value == pytest.approx(1)
    assert balance.device_level(r, np.array([0, 1, 0, 1])).value == pytest.approx(1)
    assert balance.sequence_wise(r, np.zeros(4, int), k=k).value == pytest.approx(1)
    assert balance.gshard(r).value == pytest.approx(1 / E**2)
    assert balance.mean_entropy(r).value == pytest.approx(np.log(E))
    importance = balance.importance(r)
    assert importance.value == pytest.approx(0, abs=1e-30)
    assert np.abs(importance.dweight).max() < 1e-15


def test_switch_of_one_token():
    """f_i P_i of its choices, with f = 1/k or 1."""
    r = routed(tokens()[:1], 2)
    P = r.probs[0, r.expert].sum()
    assert balance.switch(r).value == pytest.approx(E * P / 2)
    assert balance.switch(r, divide_by_k=False).value == pytest.approx(E * P)


def test_gshard_is_switch_of_the_first_choice_over_E_squared():
    gshard, switch = balance.gshard(routed(tokens())), balance.switch(routed(tokens(), 1))
    assert gshard.value == pytest.approx(switch.value / E**2)
    np.testing.assert_allclose(gshard.dlogits, switch.dlogits / E**2)


def test_device_level_by_hand():
    """Experts 0, 1 on one device, 2, 3 on the other; f = (2, 2, 0, 0), so f' = (2, 0), P' = (.7,
    .3): 1.4.
    """
    r = routed(np.log(np.array([[0.5, 0.2, 0.1, 0.2], [0.2, 0.5, 0.2, 0.1]])), 1)

    def value(*device):
        return balance.device_level(r, np.array(device)).value

    assert value(0, 0, 1, 1) == pytest.approx(1.4)
    assert value(3, 3, 1, 1) == pytest.approx(1.4), "a device without experts does not count"
    assert value(0, 1, 2, 3) == pytest.approx(balance.expert_level(r).value)
    assert value(0, 0, 0, 0) == pytest.approx(1), "a single device is always balanced"


def test_sequence_wise_by_hand():
    """Sigmoid scores (.6, .2) and (.1, .3) normalise to (.75, .25) for both orders; k = 1."""
    s = np.array([[0.6, 0.2], [0.1, 0.3]])
    r = routed(np.log(s / (1 - s)), 1)
    together = balance.sequence_wise(r, np.array([0, 0]), k=1).value
    assert together == pytest.approx(1)  # one sequence: f = (1, 1), P = (.5, .5)
    apart = balance.sequence_wise(r, np.array([0, 1]), k=1).value
    assert apart == pytest.approx(1.5)  # two sequences of one token: 2 · .75


def test_sequence_wise_leaves_the_selection_bias_out():
    logits = tokens()
    r = routed(logits)
    biased = r._replace(demand=contract.demand_of(contract.top_k(logits + 9 * np.arange(E), 2), E))
    with_bias = balance.sequence_wise(biased, SEQUENCE, k=2).value
    assert with_bias == balance.sequence_wise(r, SEQUENCE, k=2).value


def test_entropies_by_hand():
    r = routed(np.log(np.array([[0.5, 0.5, 1e-30, 1e-30], [0.25, 0.25, 0.25, 0.25]])))
    assert balance.token_entropy(r).value == pytest.approx((np.log(2) + np.log(4)) / 2)
    P = np.array([3, 3, 1, 1]) / 8
    assert balance.mean_entropy(r).value == pytest.approx(-(P * np.log(P)).sum())


# --- Shazeer's two --------------------------------------------------------------------------------


def test_errata_05_cv_squared_is_the_population_form():
    """(3, 1): variance 1, mean 2, CV² = 1/4; ddof = 1, or division by the mean alone, would give
    1/2.
    """
    value, dx = balance.cv_squared(np.array([3.0, 1.0]))
    assert value == 0.25
    np.testing.assert_allclose(dx, [0.125, -0.375])  # of ((x − 1) / (x + 1))² at 3
    assert value == pytest.approx(np.var([3, 1], ddof=1) / 2**2 / 2)


def test_errata_05_one_expert_and_perfect_balance_are_defined():
    assert balance.cv_squared(np.array([7.0])) == (0.0, np.array([0.0]))
    for x in (np.full(5, 2.0), np.zeros(3)):
        value, dx = balance.cv_squared(x)
        assert value == 0 and (dx == 0).all()


@pytest.mark.parametrize("n", [2, 3, 16])
def test_errata_05_gradient(n):
    rng = np.random.default_rng(n)
    x = rng.random(n) + 0.5
    grads = {"x": balance.cv_squared(x)[1]}
    errors = gradient_error(
        lambda p: balance.cv_squared(p["x"])[0], {"x": x}, grads, rng, step=1e-4
    )
    assert errors["x"] < 1e-7


@pytest.mark.parametrize("renormalise", [True, False])
def test_importance_reaches_the_router_through_the_weights(renormalise):
    rng = np.random.default_rng(3)
    params, x, valid = {"w": rng.normal(size=(5, E))}, rng.normal(size=(12, 5)), np.arange(12) != 7
    options = {"k": 2, "renormalise": renormalise}
    routing, cache = top_k.route(params, x, **options)
    importance = balance.importance(routing, valid=valid)
    dweight = importance.dweight
    dx, grads = top_k.route_backward(dweight, None, cache)

    def loss(p):
        moved, _ = top_k.route({"w": p["w"]}, p["x"], **options)
        return balance.importance(moved, valid=valid).value

    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors
    assert (dweight[routing.token == 7] == 0).all() and dweight.shape == routing.weight.shape
    kept = np.bincount(routing.expert[routing.token != 7], routing.weight[routing.token != 7])
    assert importance.value == pytest.approx(np.var(kept) / np.mean(kept) ** 2)


def test_the_load_loss_trains_both_matrices_of_the_noisy_gate():
    rng = np.random.default_rng(8)
    params = {name: rng.normal(size=(5, E)) for name in ("w", "w_noise")}
    x = rng.normal(size=(12, 5))

    def forward(p):
        inner, noise = {n: p[n] for n in params}, np.random.default_rng(0)
        cache = noisy_top_k.route(inner, p["x"], k=2, rng=noise)[1]
        return balance.load(cache), cache

    loss, cache = forward({**params, "x": x})
    dx, grads = noisy_top_k.load_backward(loss.dload, cache)
    everything, gradients = {**params, "x": x}, {**grads, "x": dx}
    errors = gradient_error(lambda p: forward(p)[0].value, everything, gradients, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors
    expected_load = noisy_top_k.load_forward(cache)[0]
    assert loss.value == pytest.approx(np.var(expected_load) / np.mean(expected_load) ** 2)


def test_an_expert_without_a_token_counts_in_the_importance():
    r = routed(np.array([[5.0, 1, 0, -1]]), 1)
    assert balance.importance(r).value == pytest.approx(3)  # CV² of (w, 0, 0, 0) is E − 1


@pytest.mark.parametrize(
    "case", [c for c in CASES.values() if c.learned], ids=[n for n, c in CASES.items() if c.learned]
)
def test_a_loss_of_the_logits_trains_every_learned_router(case):
    """Through route_backward, with the choice held: at an uneven demand, as at an even one the
    gradient is 0.
    """
    rng, (params, x) = np.random.default_rng(4), setup(case)
    routing, cache = route(case, params, x, 0)
    demand = rng.random(routing.demand.shape) < [0.2, 0.4, 0.6, 0.8]
    dlogits = balance.switch(routing._replace(demand=demand)).dlogits
    dx, grads = case.router.route_backward(np.zeros_like(routing.weight), dlogits, cache)

    def loss(p):
        moved = route(case, {k: v for k, v in p.items() if k != "x"}, p["x"], 0)[0]
        return balance.switch(moved._replace(demand=demand)).value

    errors = gradient_error(loss, {**params, "x": x}, {**grads, "x": dx}, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors


# --- adding up ------------------------------------------------------------------------------------


def test_losses_are_added_with_their_coefficients():
    r = routed(tokens(dtype=np.float32))
    switch, z, importance = balance.switch(r), balance.z_loss(r), balance.importance(r)
    added = balance.total([(0.01, switch), (1e-3, z), (0.1, importance)])
    wanted = 0.01 * switch.value + 1e-3 * z.value + 0.1 * importance.value
    assert added.value == pytest.approx(wanted, rel=1e-12)
    dlogits = 0.01 * switch.dlogits + 1e-3 * z.dlogits
    np.testing.assert_allclose(added.dlogits, dlogits, rtol=1e-5)
    np.testing.assert_allclose(added.dweight, 0.1 * importance.dweight, rtol=1e-6)
    assert added.dlogits.dtype == added.dweight.dtype == np.float32
    assert added.dload is None and added.dthreshold is None
    assert balance.total([(np.float64(0.5), switch)]).dlogits.dtype == np.float32
    assert balance.total([]) == balance.BalanceLoss(0.0)


def test_every_loss_says_what_its_gradient_is_of():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5))
    noisy = noisy_top_k.route(noisy_top_k.init(rng, 5, E, scale=1.0), x, k=2, rng=rng)[1]
    strict = strictly_balanced.route(strictly_balanced.init(rng, 5, E), x, k=2, training=True)[1]
    r = routed(tokens())

    def gradients(loss):
        return {field for field, part in loss._asdict().items() if part is not None} - {"value"}

    assert all(gradients(loss(r)) == {"dlogits"} for loss in LOSSES.values())
    assert gradients(balance.importance(r)) == {"dweight"}
    assert gradients(balance.load(noisy)) == {"dload"}
    assert gradients(strictly_balanced.threshold_loss(strict)) == {"dlogits", "dthreshold"}


# --- errata ---------------------------------------------------------------------------------------


def of_probs(probs, k=1):
    with np.errstate(divide="ignore"):
        return routed(np.maximum(np.log(np.array(probs, np.float64)), -800), k)


def test_errata_06_the_minimum_of_switch_is_not_at_balance():
    r = of_probs([[0.51, 0.49]] * 9 + [[0, 1]])
    assert balance.switch(r).value == pytest.approx(0.9344, abs=1e-12)
    assert (r.demand.mean(axis=0) == [0.9, 0.1]).all()
    # with eight experts: nine tokens barely prefer expert 0, each of the other seven is certain of
    # another expert
    barely = [0.125 + 7e-6] + [0.125 - 1e-6] * 7
    r = of_probs([barely] * 9 + [list(row) for row in np.eye(8)[1:]])
    assert balance.switch(r).value == pytest.approx(0.78125, abs=1e-4)
    assert r.demand.mean(axis=0)[0] == 0.5625


def test_errata_06_f_is_counted_before_capacity():
    """Capacity removes rows of the routing; the demand, and with it the loss, stays."""
    r = routed(np.tile([[2.0, 1, 0, -1]], (6, 1)), 1)
    dropped = Routing(r.token[:2], r.expert[:2], r.weight[:2], r.logits, r.probs, r.demand)
    value = balance.switch(r).value
    assert balance.switch(dropped).value == value == pytest.approx(4 * r.probs[0, 0])


def test_errata_06_gradient_as_written():
    logits = tokens()
    p, f = numerics.softmax(logits), routed(logits).demand.mean(axis=0) / 2
    wanted = E * p * (f - (f * p).sum(axis=1, keepdims=True)) / len(p)
    np.testing.assert_allclose(balance.switch(routed(logits)).dlogits, wanted, rtol=1e-12)


def test_errata_07_z_loss_is_not_zero_at_zero_logits():
    loss = balance.z_loss(routed(np.zeros((3, 8)), 1))
    assert loss.value == pytest.approx(np.log(8) ** 2)
    np.testing.assert_allclose(loss.dlogits, 2 * np.log(8) / 8 / 3)
    centred = routed(np.full((3, 8), -np.log(8.0)), 1)  # log Z = 0
    assert balance.z_loss(centred).value == pytest.approx(0, abs=1e-30)


def test_errata_07_a_padded_token_set_to_zero_is_not_left_out():
    logits = np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]])
    valid = np.array([True, False])
    alone = balance.z_loss(routed(logits[:1])).value
    assert balance.z_loss(routed(logits), valid=valid).value == alone
    assert balance.z_loss(routed(logits)).value == pytest.approx((alone + np.log(4) ** 2) / 2)


@all_losses
def test_errata_17_losses_are_returned_and_leave_nothing_behind(loss):
    r = routed(tokens())
    for array in r:
        array.flags.writeable = False
    first, second = loss(r), loss(r)
    assert first.value == second.value and (first.dlogits == second.dlogits).all()
    assert first.dlogits is not second.dlogits
    public = {name: value for name, value in vars(balance).items() if name[:2] != "__"}
    assert not any(isinstance(value, (list, dict, np.ndarray)) for value in public.values())


def test_errata_17_two_layers_are_two_losses_that_add_up():
    layers = [balance.switch(routed(tokens(seed))) for seed in (1, 2)]
    assert layers[0].value != layers[1].value
    added = balance.total([(1.0, loss) for loss in layers])
    assert added.value == pytest.approx(layers[0].value + layers[1].value)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda r: balance.switch(r._replace(logits=None)),
            "routing: wanted one with logits, got None",
        ),
        (
            lambda r: balance.switch(r, valid=np.ones(3, bool)),
            r"valid: wanted bool of shape \(12,\)",
        ),
        (
            lambda r: balance.z_loss(r._replace(logits=np.full((12, 4), np.nan))),
            "routing.logits: wanted finite",
        ),
        (lambda r: balance.device_level(r, [0, 1]), r"device: wanted shape \(4,\), got \(2,\)"),
        (lambda r: balance.device_level(r, [0, 1, -1, 0]), "device: wanted numbers from 0, got -1"),
        (
            lambda r: balance.sequence_wise(r, np.zeros(3, int), k=1),
            r"sequence: wanted shape \(12,\), got \(3,\)",
        ),
        (
            lambda r: balance.sequence_wise(r, SEQUENCE, k=5),
            "k: wanted at most the 4 experts there are, got 5",
        ),
        (lambda r: balance.cv_squared(np.ones((2, 2))), r"x: wanted shape \(E,\), got \(2, 2\)"),
        (lambda r: balance.load(r), "cache: wanted that of noisy_top_k.route, got Routing"),
        (
            lambda r: balance.total([("1", balance.switch(r))]),
            "coefficient: wanted a finite number, got '1'",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call(routed(tokens()))


def test_half_precision_is_refused_where_its_gradient_would_be_0():
    """A mean over 70,000 tokens: the gradient was exactly 0."""
    logits = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float16)
    routing, _ = top_k.route({"w": np.eye(4, dtype=np.float16)}, logits, k=1, renormalise=False)
    with pytest.raises(
        InputError, match=r"routing\.logits: wanted float32 or float64, got float16"
    ):
        balance.switch(routing)


def test_the_square_of_a_load_that_overflows_is_refused():
    with pytest.raises(InputError, match="x: wanted numbers whose squares are finite"):
        balance.cv_squared(np.array([1e200, 1.0]))


def test_cv_squared_up_to_the_largest_numbers():
    largest = np.sqrt(np.finfo(float).max) / 16
    value, dx = balance.cv_squared(np.array([largest, largest]))
    assert value == 0 and not dx.any()
    with pytest.raises(InputError, match="x: wanted numbers whose squares are finite"):
        balance.cv_squared(np.array([1, np.nextafter(largest, np.inf)]))
