"""The soft mixture of experts: gradients, worked example, limits, padding."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.layers import experts, soft_moe


def problem(seed=0, B=2, N=5, D=4, E=3, S=2, F=3, normalise=True):
    rng = np.random.default_rng(seed)
    params = soft_moe.init(rng, D, E, S, normalise=normalise)
    if normalise:
        params["scale"] = params["scale"] * 1.7
    nets = experts.GELU.init(rng, D, E, 6, F)
    nets = {k: p + 0.1 * rng.normal(size=p.shape) for k, p in nets.items()}
    return params, nets, rng.normal(size=(B, N, D))


def naive(params, nets, x, valid):
    """Equations 1 and 2, token by token and slot by slot."""
    D, E, S = params["phi"].shape
    phi = params["phi"].reshape(D, E * S)
    y = []
    for tokens, keep in zip(x, valid, strict=True):
        logits = np.empty((len(tokens), E * S))
        for i, token in enumerate(tokens):
            for j, column in enumerate(phi.T):
                logits[i, j] = token @ column
                if "scale" in params:
                    squares = ((token**2).sum() + 1e-6) * ((column**2).sum() + 1e-6)
                    logits[i, j] *= params["scale"] / np.sqrt(squares)
        slots = np.zeros((E * S, D))
        for j in range(E * S):
            share = np.exp(logits[:, j]) * keep
            slots[j] = (share / share.sum()) @ tokens if keep.any() else 0
        offsets = np.arange(E + 1) * S
        out, _ = experts.GELU.forward(nets, slots, offsets)
        rows = [numerics.softmax(logits[i]) @ out * keep[i] for i in range(len(tokens))]
        y.append(rows)
    return np.array(y)


@pytest.mark.parametrize("normalise", [True, False])
def test_equals_naive_loops(normalise):
    params, nets, x = problem(normalise=normalise)
    valid = np.random.default_rng(1).random((2, 5)) < 0.7
    for mask in (np.ones((2, 5), bool), valid):
        y, cache = soft_moe.forward(params, nets, x, experts.GELU, valid=mask)
        np.testing.assert_allclose(y, naive(params, nets, x, mask), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(cache.dispatch.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(cache.combine.sum(axis=2), mask, rtol=1e-12)
        assert (cache.dispatch[~mask] == 0).all()


def test_the_initialisation():
    params = soft_moe.init(np.random.default_rng(0), 4, 3, 2)
    assert set(params) == {"phi", "scale"} and params["scale"] == 1
    drawn = np.random.default_rng(0).normal(size=(4, 3, 2))
    np.testing.assert_allclose(params["phi"], drawn / 2, rtol=1e-14)
    assert set(soft_moe.init(np.random.default_rng(0), 4, 3, 2, normalise=False)) == {"phi"}


def gradients_hold(params, nets, x, valid, seed):
    rng = np.random.default_rng(seed)
    y, cache = soft_moe.forward(params, nets, x, experts.GELU, valid=valid)
    dy = rng.normal(size=y.shape)
    dx, grads, net_grads = soft_moe.backward(dy, cache)

    def loss(p):
        slot_params = {name: p[name] for name in params}
        net_params = {name: p[name] for name in nets}
        moved, _ = soft_moe.forward(slot_params, net_params, p["x"], experts.GELU, valid=valid)
        return (moved * dy).sum()

    point = {**params, **nets, "x": x}
    errors = gradient_error(loss, point, {**grads, **net_grads, "x": dx}, rng, step=1e-4)
    assert max(errors.values()) < 1e-7, errors
    return dx


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
def test_gradient_over_shapes(seed, B, N, D, E, S, normalise):
    assume(N > 1 or E > 1)  # otherwise phi has no effect, and its gradient is rounding
    params, nets, x = problem(seed, B, N, D + 1, E, S, normalise=normalise)
    gradients_hold(params, nets, x, None, seed)


@pytest.mark.parametrize("normalise", [True, False])
def test_gradient_with_padding(normalise):
    params, nets, x = problem(normalise=normalise)
    valid = np.array([[True, True, False, True, False], [False] * 4 + [True]])
    dx = gradients_hold(params, nets, x, valid, 0)
    assert (dx[~valid] == 0).all() and (dx[valid] != 0).all()


def test_padding_changes_no_other_token():
    params, nets, x = problem()
    y, _ = soft_moe.forward(params, nets, x[:, :3], experts.GELU)
    valid = np.tile(np.arange(5) < 3, (2, 1))
    padded, _ = soft_moe.forward(params, nets, x, experts.GELU, valid=valid)
    np.testing.assert_allclose(padded[:, :3], y, rtol=1e-12)
    assert (padded[:, 3:] == 0).all()


def test_sequences_do_not_mix():
    params, nets, x = problem(B=3)
    y, _ = soft_moe.forward(params, nets, x, experts.GELU)
    for b in range(3):
        alone, _ = soft_moe.forward(params, nets, x[b : b + 1], experts.GELU)
        np.testing.assert_allclose(y[b], alone[0], rtol=1e-12)


def test_worked_by_hand():
    """Two tokens, one slot for each of two experts that multiply by 1 and by 10."""
    x = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    phi = np.log(np.array([[3.0, 1.0], [1.0, 1.0]]))[:, :, None]  # logits: log 3, 0; 0, 0
    nets = {"w": np.array([1.0, 10.0])[:, None, None] * np.eye(2), "b": np.zeros((2, 2))}
    y, cache = soft_moe.forward({"phi": phi}, nets, x, experts.LINEAR)
    np.testing.assert_allclose(cache.dispatch[0], [[0.75, 0.5], [0.25, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(cache.combine[0], [[0.75, 0.25], [0.5, 0.5]], rtol=1e-12)
    expected = [[0.5625 + 1.25, 0.1875 + 1.25], [0.375 + 2.5, 0.125 + 2.5]]
    np.testing.assert_allclose(y[0], expected, rtol=1e-12)


def test_permuting_tokens_slots_and_experts():
    params, nets, x = problem()
    y, _ = soft_moe.forward(params, nets, x, experts.GELU)
    order = np.random.default_rng(0).permutation(5)
    moved, _ = soft_moe.forward(params, nets, x[:, order], experts.GELU)
    np.testing.assert_allclose(moved, y[:, order], rtol=1e-10)
    swapped = {**params, "phi": params["phi"][:, [2, 0, 1]][:, :, ::-1]}
    swapped_nets = {name: p[[2, 0, 1]] for name, p in nets.items()}
    moved, _ = soft_moe.forward(swapped, swapped_nets, x, experts.GELU)
    np.testing.assert_allclose(moved, y, rtol=1e-10)


def test_one_token_goes_to_every_slot_whole():
    params, nets, x = problem(N=1, E=1)
    y, cache = soft_moe.forward(params, nets, x, experts.GELU)
    assert (cache.dispatch == 1).all()
    alone, _ = experts.GELU.forward(nets, x[:, 0], np.array([0, 2]))
    np.testing.assert_allclose(y[:, 0], alone, rtol=1e-12)


def test_errata_13_it_looks_ahead():
    params, nets, x = problem()
    y, _ = soft_moe.forward(params, nets, x, experts.GELU)
    later = x.copy()
    later[:, -1] += 1
    moved, _ = soft_moe.forward(params, nets, later, experts.GELU)
    assert np.abs(moved[:, 0] - y[:, 0]).max() > 1e-3


def test_normalised_logits_do_not_grow_with_the_tokens():
    params, nets, x = problem()
    _, small = soft_moe.forward(params, nets, x, experts.GELU)
    _, large = soft_moe.forward(params, nets, 1000 * x, experts.GELU)
    assert np.abs(large.logits).max() <= 1.7
    assert np.abs(small.logits - large.logits).max() < 1e-4


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4)])
def test_no_sequences_or_no_tokens(shape, normalise):
    params, nets, _ = problem(normalise=normalise)
    y, cache = soft_moe.forward(params, nets, np.zeros(shape), experts.GELU)
    assert y.shape == (*shape[:2], 3)
    dx, grads, net_grads = soft_moe.backward(np.zeros_like(y), cache)
    assert dx.shape == shape and all((g == 0).all() for g in (*grads.values(), *net_grads.values()))


def test_only_padding_zero_tokens_and_huge_logits():
    params, nets, x = problem(normalise=False)
    y, _ = soft_moe.forward(params, nets, x, experts.GELU, valid=np.zeros((2, 5), bool))
    assert (y == 0).all()
    y, cache = soft_moe.forward({"phi": 1e4 * params["phi"]}, nets, x, experts.GELU)
    dx, _, _ = soft_moe.backward(np.ones_like(y), cache)
    assert np.isfinite(y).all() and np.isfinite(dx).all()
    params, nets, x = problem()
    y, cache = soft_moe.forward(params, nets, 0 * x, experts.GELU)
    assert np.isfinite(soft_moe.backward(np.ones_like(y), cache)[0]).all()


def test_float32_and_read_only():
    params, nets, x = problem()
    params, nets = ({k: np.array(p, np.float32) for k, p in d.items()} for d in (params, nets))
    x = x.astype(np.float32)
    for a in (*params.values(), *nets.values(), x):
        a.flags.writeable = False
    y, cache = soft_moe.forward(params, nets, x, experts.GELU)
    dx, grads, net_grads = soft_moe.backward(np.ones_like(y), cache)
    types = {a.dtype for a in (y, dx, *grads.values(), *net_grads.values())}
    assert types == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], r"x: wanted shape \(B, N, D\), got \(5, 4\)"),
        (lambda x: x[:, :, :2], "x: wanted 4 features per token in float64, got 2"),
        (lambda x: x.astype(np.float32), "got 4 in float32"),
        (lambda x: x * np.nan, "x: wanted finite numbers"),
    ],
)
def test_bad_tokens(change, words):
    params, nets, x = problem()
    with pytest.raises(InputError, match=words):
        soft_moe.forward(params, nets, change(x), experts.GELU)
    with pytest.raises(InputError, match=r"valid: wanted bool of shape \(2, 5\)"):
        soft_moe.forward(params, nets, x, experts.GELU, valid=np.ones(5, bool))


@pytest.mark.parametrize("kind", [experts.GELU, experts.CUBIC], ids=["features", "patches"])
def test_experts_that_read_other_rows_are_refused(kind):
    params, _, x = problem()
    nets = kind.init(np.random.default_rng(0), 4 + (kind is experts.GELU), 3, 6)
    with pytest.raises(InputError, match="expert_params: wanted experts that read 4 features"):
        soft_moe.forward(params, nets, x, kind)
