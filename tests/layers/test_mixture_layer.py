"""The mixture-of-experts layer of a whole model: the sum of its parts, and its gradients."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.layers import balance, experts, mixture_layer
from moe_np.routing import top_k
from tests.support.decoders import with_leaves

N, D, E, H = 9, 6, 5, 4
OPTIONS = {"k": 2, "renormalise": False}


def layer(**kinds):
    rng = np.random.default_rng(0)
    return mixture_layer.init(rng, D, E, H, shared=2, shared_hidden=3, shared_gate=True, **kinds)


def tokens():
    return np.random.default_rng(1).normal(size=(N, D))


def forward(params, h, **options):
    return mixture_layer.forward(
        params, h, expert=experts.SWIGLU, router=top_k, options=OPTIONS, **options
    )


def swiglu(params, i, x):
    a = x @ params["w1"][i]
    return (a / (1 + np.exp(-a)) * (x @ params["w3"][i])) @ params["w2"][i]


@pytest.mark.usefixtures("backend")
def test_the_sum_of_its_parts_token_by_token():
    params, h = layer(), tokens()
    out, cache = forward(params, h)
    for n in range(N):
        logits = h[n] @ params["router"]["w"]
        p = np.exp(logits) / np.exp(logits).sum()
        chosen = np.argsort(-p)[:2]
        expected = sum(p[i] * swiglu(params["experts"], i, h[n]) for i in chosen)
        share = 1 / (1 + np.exp(-h[n] @ params["shared_gate"]["w"][:, 0]))
        expected = expected + share * sum(swiglu(params["shared"], j, h[n]) for j in range(2))
        np.testing.assert_allclose(out[n], expected, rtol=1e-10)
    assert cache.routing.demand.sum() == 2 * N


@pytest.mark.parametrize("parts", [(), ("shared_gate",), ("shared", "shared_gate")])
def test_gradients(parts):
    params = {name: part for name, part in layer().items() if name not in parts}
    found = gradcheck.pair_error(
        lambda p, h: forward(with_leaves(params, p), h),
        lambda dout, cache: flat(*mixture_layer.backward(dout, cache)),
        nested.leaves(params),
        tokens(),
        np.random.default_rng(2),
        step=1e-4,
    )
    assert max(found.values()) < 1e-7, found


def flat(dh, grads):
    return dh, nested.leaves(grads)


def test_the_gradients_of_the_load_balancing_losses_are_added():
    params, h = layer(), tokens()
    losses = ((0.3, balance.switch), (0.2, balance.importance))
    _, cache = forward(params, h)
    added = mixture_layer.balance_loss(losses, cache)
    expected = 0.3 * balance.switch(cache.routing).value
    expected += 0.2 * balance.importance(cache.routing).value
    assert added.value == pytest.approx(expected)
    dh, grads = mixture_layer.backward(np.zeros((N, D)), cache, added)
    assert np.abs(dh).max() > 0 and np.abs(grads["router"]["w"]).max() > 0

    def value(p):
        moved = {**params, "router": {"w": p["w"]}}
        return mixture_layer.balance_loss(losses, forward(moved, p["h"])[1]).value

    found = gradcheck.gradient_error(
        value,
        {"h": h, "w": params["router"]["w"]},
        {"h": dh, "w": grads["router"]["w"]},
        np.random.default_rng(2),
        step=1e-4,
    )
    assert max(found.values()) < 1e-7, found


def test_padding_gets_no_routed_expert():
    params = {name: part for name, part in layer().items() if name in ("router", "experts")}
    valid = np.arange(N) % 3 > 0
    out, cache = forward(params, tokens(), valid=valid)
    assert (out[~valid] == 0).all() and (out[valid] != 0).all()
    everything = mixture_layer.balance_loss(((1.0, balance.switch),), cache, valid)
    _, alone = forward(params, tokens()[valid])
    assert everything.value == pytest.approx(
        mixture_layer.balance_loss(((1.0, balance.switch),), alone).value
    )


def test_dense_is_one_expert():
    params = mixture_layer.init(np.random.default_rng(0), D, 1, H, router=None)
    assert set(params) == {"experts"}
    out, cache = forward(params, tokens())
    np.testing.assert_allclose(out, swiglu(params["experts"], 0, tokens()), rtol=1e-10)
    assert mixture_layer.balance_loss(((1.0, balance.switch),), cache).value == 0
    assert set(mixture_layer.backward(out, cache)[1]) == {"experts"}


def test_a_table_has_the_gradient_0():
    rng = np.random.default_rng(0)
    params = mixture_layer.init(rng, D, E, H, router="hashing", vocabulary=11)
    ids = rng.integers(11, size=N)
    _, cache = mixture_layer.forward(
        params,
        tokens(),
        expert=experts.SWIGLU,
        router=mixture_layer.causal_router("hashing"),
        options={},
        ids=ids,
    )
    np.testing.assert_array_equal(cache.routing.expert, params["router"]["table"][ids])
    _, grads = mixture_layer.backward(tokens(), cache)
    assert not grads["router"]["table"].any() and len(grads["router"]["table"]) == 11


def test_experts_that_are_read_when_chosen():
    """An object with `read` is asked for the experts that tokens chose, and for no others."""
    params, h = layer(), tokens()[:1]
    expected, cache = forward(params, h)

    class Stored:
        numbers = None

        def __len__(self):
            return E

        def read(self, numbers):
            self.numbers = list(numbers)
            return {name: a[numbers] for name, a in params["experts"].items()}

    stored = Stored()
    out, _ = forward({**params, "experts": stored}, h)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    assert stored.numbers == sorted(cache.routing.expert) and len(stored.numbers) == 2
    out, _ = forward({**params, "experts": stored}, h, valid=np.zeros(1, bool))
    assert len(stored.numbers) == 1, "without a token, one expert has the shapes"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_experts_that_are_lent_in_groups(size):
    """An object with `lend` has places for some experts, which a next group takes over."""
    params, h = layer(), tokens()
    expected, _ = forward(params, h)
    places_for = {name: np.zeros((size, *a.shape[1:])) for name, a in params["experts"].items()}

    class Lent:
        def __len__(self):
            return E

        def groups(self, numbers):
            return [numbers[i : i + size] for i in range(0, len(numbers), size)]

        def lend(self, numbers):
            places = np.arange(size)[::-1][: len(numbers)]
            for name, array in places_for.items():
                array[...] = np.nan
                array[places] = params["experts"][name][numbers]
            return places_for, places

    out, _ = forward({**params, "experts": Lent()}, h)
    np.testing.assert_allclose(out, expected, rtol=1e-12)


def test_what_is_refused():
    rng = np.random.default_rng(0)
    for options, message in [
        ({"router": None}, "n_experts: wanted 1 without a router"),
        ({"kind": "linear"}, "kind: wanted one of"),
        ({"router": "none"}, "router: wanted one of"),
        ({"shared_gate": True}, "shared_gate: wanted shared experts"),
        ({"router": "hashing"}, "vocabulary"),
    ]:
        with pytest.raises(InputError, match=message):
            mixture_layer.init(rng, D, E, H, **options)
    assert mixture_layer.router_of("expert_choice").CAUSAL is False
    with pytest.raises(InputError, match="got expert_choice: in a decoder"):
        mixture_layer.causal_router("expert_choice")
