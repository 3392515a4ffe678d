"""The language model of Shazeer et al. 2017: the gradient of the whole, a naive statement of its
equations, text in stretches, and what is reported.
"""

import numpy as np
import pytest

from moe_np.base import gradcheck, numerics, optim
from moe_np.base.checks import InputError
from moe_np.base.params import flatten, leaves, map_leaves, unflatten
from moe_np.layers import balance, cross_entropy, lstm
from moe_np.layers.experts import RELU
from moe_np.models import lstm_moe

FLAT = lstm_moe.Config(vocabulary=7, d_model=6, experts=4, expert_hidden=5, options={"k": 2})
CONFIGS = {
    "flat": FLAT,
    "dropout": FLAT._replace(dropout=0.3),
    "projection": FLAT._replace(hidden=8),
    "hierarchical": FLAT._replace(
        router="hierarchical",
        options=lstm_moe.HIERARCHICAL_GATE,
        init_options={"groups": 2},
    ),
    "dense": FLAT._replace(experts=1),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def problem(config, seed=0, B=3, T=4, dtype=np.float64):
    rng = np.random.default_rng(seed)
    params = lstm_moe.init(rng, config, dtype=dtype)
    params = map_leaves(lambda p: (p + 0.4 * rng.normal(size=p.shape)).astype(dtype), params)
    ids = rng.integers(0, config.vocabulary, (B, T))
    targets = rng.integers(0, config.vocabulary, (B, T))
    targets[0, 1] = -1
    for array in (*leaves(params).values(), ids, targets):
        array.flags.writeable = False
    return params, ids, targets


@every_config
def test_gradient_of_the_whole(backend, config):
    """Over all leaves, noise and dropout frozen: task and load-balancing losses together."""
    params, ids, targets = problem(config)
    losses = tuple((3.0, loss) for _, loss in lstm_moe.default_losses(config))
    state = tuple(
        lstm.State(*(np.random.default_rng(5).normal(size=a.shape) for a in s))
        for s in lstm_moe.forward(params, ids, config)[1].state
    )
    valid = np.ones(ids.shape, bool)
    valid[2, 3] = False

    def run(params):
        rng = np.random.default_rng(2)
        options = {"losses": losses, "state": state, "valid": valid, "rng": rng}
        return lstm_moe.loss_and_grads(params, ids, targets, config, **options)

    def loss(arrays):
        vector = np.concatenate([arrays[path].ravel() for path in arrays])
        measured, _ = run(unflatten(vector, params))
        return measured.task + sum(measured.balance)

    measured, grads = run(params)
    assert leaves(grads).keys() == leaves(params).keys()
    assert np.array_equal(flatten(grads), flatten(run(params)[1]))
    if config.experts > 1:
        assert measured.balance[0] > 0.1
    errors = gradcheck.gradient_error(
        loss, leaves(params), leaves(grads), np.random.default_rng(3), step=1e-4
    )
    assert max(errors.values()) < 1e-7


def test_it_equals_the_equations_position_by_position():
    """One sequence at a time and one position at a time, in evaluation."""
    params, ids, _ = problem(FLAT)
    logits, _ = lstm_moe.forward(params, ids, FLAT)
    for b, sequence in enumerate(ids):
        state1 = state2 = None
        for t, token in enumerate(sequence):
            x = params["embed"]["w"][token][None, None]
            h, state1, _ = lstm.forward(params["lstm1"], x, state1)
            x = x + h
            router = params["mixture"]["router"]
            scores = x[0] @ router["w"]
            best = np.argsort(-scores[0], kind="stable")[:2]
            weights = numerics.softmax(scores[0, best])
            m = 0
            for e, weight in zip(best, weights, strict=True):
                w1, b1, w2, b2 = (params["mixture"]["experts"][n][e] for n in RELU.axes if n != "x")
                m = m + weight * (np.maximum(x[0] @ w1 + b1, 0) @ w2 + b2)
            x = x + 1 / (1 + np.exp(-m))
            h, state2, _ = lstm.forward(params["lstm2"], x, state2)
            x = x + h
            np.testing.assert_allclose(logits[b, t], (x @ params["head"]["w"])[0, 0], rtol=1e-10)


@every_config
def test_no_position_sees_a_later_one(config):
    params, ids, _ = problem(config)
    logits, _ = lstm_moe.forward(params, ids, config)
    changed = ids.copy()
    changed[:, 2] = (ids[:, 2] + 1) % 7
    other, _ = lstm_moe.forward(params, changed, config)
    np.testing.assert_allclose(other[:, :2], logits[:, :2], rtol=1e-13)
    assert np.abs(other[:, 2:] - logits[:, 2:]).max() > 1e-3


@every_config
def test_a_text_in_stretches_is_the_same_text(config):
    """Pitfall 29: the state is carried on; without it another text begins."""
    params, ids, _ = problem(config)
    logits, cache = lstm_moe.forward(params, ids, config)
    first, middle = lstm_moe.forward(params, ids[:, :3], config)
    second, end = lstm_moe.forward(params, ids[:, 3:], config, state=middle.state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), logits, rtol=1e-12)
    np.testing.assert_allclose(end.state[1].c, cache.state[1].c, rtol=1e-12)
    fresh, _ = lstm_moe.forward(params, ids[:, 3:], config)
    assert np.abs(fresh - second).max() > 1e-3


def test_the_losses_are_reported_apart():
    """Pitfalls 11 and 12: task alone, and per layer importance and load without coefficients."""
    params, ids, targets = problem(FLAT)
    measured, _ = lstm_moe.loss_and_grads(params, ids, targets, FLAT, rng=np.random.default_rng(1))
    alone, grads = lstm_moe.loss_and_grads(
        params, ids, targets, FLAT, losses=(), rng=np.random.default_rng(1)
    )
    assert alone.task == measured.task and alone.balance == (0.0,) and alone.terms == ({},)
    assert measured.tokens == 11
    (terms,) = measured.terms
    assert terms["importance"] == balance.importance(measured.routings[0]).value
    assert measured.balance[0] == pytest.approx(0.1 * (terms["importance"] + terms["load"]))
    assert set(terms) == {"importance", "load"} and min(terms.values()) > 0
    assert np.abs(grads["mixture"]["router"]["w_noise"]).max() > 0


def test_padding_is_not_routed_and_not_balanced():
    """Pitfalls 11 and 30."""
    params, ids, targets = problem(FLAT)
    valid = np.ones(ids.shape, bool)
    valid[1, 2:] = False
    targets = np.where(valid, targets, -1)
    measured, _ = lstm_moe.loss_and_grads(
        params, ids, targets, FLAT, valid=valid, rng=np.random.default_rng(1)
    )
    routing = measured.routings[0]
    assert sorted(set(routing.token)) == np.flatnonzero(valid).tolist()
    importance = np.bincount(routing.expert, routing.weight, minlength=4)
    cv_squared = importance.var() / importance.mean() ** 2
    assert measured.terms[0]["importance"] == pytest.approx(cv_squared)


def test_forward_and_backward_are_the_pair_that_the_loss_uses(backend):
    params, ids, targets = problem(FLAT)
    measured, grads = lstm_moe.loss_and_grads(
        params, ids, targets, FLAT, losses=(), rng=np.random.default_rng(1)
    )
    logits, cache = lstm_moe.forward(params, ids, FLAT, rng=np.random.default_rng(1))
    task, entropy = cross_entropy.forward(logits.reshape(-1, 7), targets.ravel())
    dlogits = cross_entropy.backward(1.0, entropy).reshape(logits.shape)
    assert task == pytest.approx(measured.task, rel=1e-13)
    same = leaves(lstm_moe.backward(dlogits, cache))
    for path, g in leaves(grads).items():
        np.testing.assert_allclose(same[path], g, rtol=1e-10, atol=1e-15)


def test_noise_and_dropout_are_of_training_alone():
    params, ids, _ = problem(CONFIGS["dropout"])
    same = [lstm_moe.forward(params, ids, CONFIGS["dropout"])[0] for _ in range(2)]
    assert np.array_equal(*same)
    noisy, cache = lstm_moe.forward(params, ids, CONFIGS["dropout"], rng=np.random.default_rng(0))
    assert np.abs(noisy - same[0]).max() > 1e-3
    masks = [cache.mask, cache.lstm1.mask, cache.mixture.mask, cache.lstm2.mask]
    assert [mask.shape for mask in masks] == [(3, 4, 6)] * 4


def test_the_numbers_of_parameters_are_those_of_the_paper():
    """Appendix C.1: 8.4 million in MoE-4 outside of embedding and softmax, with the noise."""
    config = lstm_moe.Config(vocabulary=2, d_model=512, experts=4, expert_hidden=1024)
    params = lstm_moe.init(np.random.default_rng(0), config)
    inner = {name: params[name] for name in ("lstm1", "mixture", "lstm2")}
    biases = sum(
        p.size for name, p in leaves(inner["mixture"]["experts"]).items() if name[0] == "b"
    )
    total = sum(p.size for p in leaves(inner).values()) - biases
    assert round(total / 1e6, 1) == 8.4


def test_float32_stays_float32(backend):
    params, ids, targets = problem(FLAT, dtype=np.float32)
    rng = np.random.default_rng(0)
    measured, grads = lstm_moe.loss_and_grads(params, ids, targets, FLAT, rng=rng, workspace={})
    assert {g.dtype for g in leaves(grads).values()} == {np.dtype("float32")}
    assert np.isfinite(measured.task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"router": "expert_choice"}, "later tokens do not decide on earlier ones"),
        ({"router": "best"}, "router: wanted one of"),
        ({"experts": 0}, "config.experts: wanted a whole number of at least 1"),
        ({"dropout": 1}, "config.dropout: wanted a finite number"),
        ({"hidden": 0}, "config.hidden: wanted a whole number"),
    ],
)
def test_bad_configs(change, message):
    params, ids, _ = problem(FLAT)
    with pytest.raises(InputError, match=message):
        lstm_moe.init(np.random.default_rng(0), FLAT._replace(**change))
    with pytest.raises(InputError, match=message):
        lstm_moe.forward(params, ids, FLAT._replace(**change))


def test_bad_input():
    params, ids, targets = problem(FLAT)
    with pytest.raises(InputError, match="ids: wanted token numbers from 0 to 6, got 7"):
        lstm_moe.forward(params, np.full((1, 2), 7), FLAT)
    with pytest.raises(InputError, match=r"targets: wanted shape \(3, 4\)"):
        lstm_moe.loss_and_grads(params, ids, targets[:, 1:], FLAT, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match=r"valid: wanted bool of shape \(3, 4\)"):
        lstm_moe.forward(params, ids, FLAT, valid=np.ones((3, 3), bool))


@pytest.mark.slow
def test_it_learns_what_it_has_to_remember():
    """The next token is the one four positions before: the entropy of a single token is ln 8."""
    config = lstm_moe.Config(
        vocabulary=8, d_model=32, experts=4, expert_hidden=32, options={"k": 2}
    )
    rng = np.random.default_rng(0)
    params = lstm_moe.init(rng, config)
    state, losses = None, []
    for _ in range(300):
        ids = np.tile(rng.integers(0, 8, (32, 4)), 4)
        measured, grads = lstm_moe.loss_and_grads(params, ids[:, 4:-1], ids[:, 5:], config, rng=rng)
        params, state = optim.adamw(params, grads, state, lr=0.01, in_place=True)
        losses.append(measured.task)
    # of 11 targets, the first three cannot be known, and the fourth is the first of the four
    assert np.mean(losses[-20:]) < 0.35 * np.log(8) + 0.1
    assert losses[0] > 0.9 * np.log(8)


@pytest.mark.parametrize("config", [None, {"vocabulary": 7}, "flat"])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(InputError, match=r"config: wanted a lstm_moe\.Config, got"):
        lstm_moe.init(np.random.default_rng(0), config)
