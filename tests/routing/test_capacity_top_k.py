"""Top-k gating with a capacity in the order of the tokens: against a loop, causal, and a decoder
that is trained with it and evaluated without.
"""

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.layers import balance, diagnostics
from moe_np.models import decoder, generation
from moe_np.routing import capacity_top_k, gshard, switch, top_k
from moe_np.training import loop
from tests.support.decoders import SMALL, params, text
from tests.support.routers import Case

LIMITED = {"k": 2, "renormalise": True, "capacity_factor": 0.75}
AS_THEY_ARE = {**LIMITED, "renormalise": False}
CASES = {
    "capacity_top_k": Case(capacity_top_k, LIMITED, full=False, fewest=2),
    "capacity_top_k as they are": Case(capacity_top_k, AS_THEY_ARE, full=False, fewest=2),
}


def problem(seed=0, N=20, D=4, E=5):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(D, E))}, rng.normal(size=(N, D))


def pairs(routing):
    return list(zip(routing.token.tolist(), routing.expert.tolist(), strict=True))


# --- the places -----------------------------------------------------------------------------------


@pytest.mark.parametrize("renormalise", [True, False])
def test_errata_32_it_equals_a_naive_loop(renormalise):
    dropped = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        k, factor = int(rng.integers(2, 5)), float(rng.choice([0.3, 0.8, 1.0, 1.25]))
        weights, x = problem(seed, N=int(rng.integers(1, 30)))
        valid = rng.random(len(x)) < 0.8
        options = {"k": k, "renormalise": renormalise}
        routing, cache = capacity_top_k.route(
            weights, x, **options, capacity_factor=factor, valid=valid
        )
        C = max(1, int(np.ceil(factor * k * valid.sum() / 5)))
        taken, rows = [0] * 5, []
        whole, _ = top_k.route(weights, x, **options, valid=valid)
        for n, m, weight in zip(whole.token, whole.expert, whole.weight, strict=True):
            if taken[m] < C:
                rows.append((n, m, weight))
                taken[m] += 1
        assert cache.C == C and cache.kept.sum() == len(rows)
        found = zip(routing.token, routing.expert, routing.weight, strict=True)
        assert list(found) == rows, "and the weights are those of top_k, to the bit"
        np.testing.assert_array_equal(routing.demand, whole.demand)
        dropped += len(whole.token) - len(rows)
        share = diagnostics.dropped_share(routing, valid=valid)
        assert share == pytest.approx(1 - len(rows) / max(len(whole.token), 1), abs=1e-12)
    assert dropped > 100


def test_errata_13_a_later_first_choice_does_not_take_the_place_of_an_earlier_second():
    """Three tokens, C = 2. All have expert 0 among their two: the first as its second choice."""
    x = np.log([[0.3, 0.6, 0.1], [0.6, 0.1, 0.3], [0.5, 0.1, 0.4]])
    options = {"k": 2, "renormalise": True, "capacity_factor": 1.0}
    routing, _ = capacity_top_k.route({"w": np.eye(3)}, x, **options)
    assert pairs(routing) == [(0, 1), (0, 0), (1, 0), (1, 2), (2, 2)]
    by_rank, _ = gshard.route({"w": np.eye(3)}, x, capacity_factor=1.0)
    assert pairs(by_rank) == [(0, 1), (1, 0), (1, 2), (2, 0), (2, 2)]


def test_errata_13_the_capacity_depends_on_the_number_of_tokens_and_not_on_what_they_are():
    """With twice the tokens the first ones have more room, the same whatever follows them."""
    weights, x = problem(N=12)
    short, of_short = capacity_top_k.route(weights, x, **LIMITED)
    early = []
    for seed in range(3):
        later = np.random.default_rng(seed).normal(size=x.shape)
        whole, of_whole = capacity_top_k.route(weights, np.concatenate([x, later]), **LIMITED)
        assert (of_short.C, of_whole.C) == (4, 8)
        early.append([pair for pair in pairs(whole) if pair[0] < 12])
    assert early[0] == early[1] == early[2]
    assert set(early[0]) > set(pairs(short))


# --- the weights ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("padding", [False, True])
def test_without_a_capacity_it_is_top_k_to_the_bit(renormalise, padding):
    weights, x = problem()
    valid = np.arange(20) % 3 > 0 if padding else None
    options = {"k": 3, "renormalise": renormalise, "valid": valid}
    ours, cache = capacity_top_k.route(weights, x, **options)
    other, other_cache = top_k.route(weights, x, **options)
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("x", "w", "probs", "choice", "weight"):  # the names of the stages
        np.testing.assert_array_equal(getattr(cache, name), getattr(other_cache, name))
    rng = np.random.default_rng(1)
    dweight = rng.normal(size=ours.weight.shape)
    for dlogits in (None, rng.normal(size=(20, 5))):
        dx, grads = capacity_top_k.route_backward(dweight, dlogits, cache)
        wanted, wanted_grads = top_k.route_backward(dweight, dlogits, other_cache)
        np.testing.assert_array_equal(dx, wanted)
        np.testing.assert_array_equal(grads["w"], wanted_grads["w"])


def test_one_choice_as_it_is_is_switch():
    weights, x = problem()
    options = {"k": 1, "renormalise": False, "capacity_factor": 0.8}
    ours, cache = capacity_top_k.route(weights, x, **options)
    other, other_cache = switch.route(weights, x, capacity_factor=0.8)
    assert pairs(ours) == pairs(other) and len(ours.token) < 20
    np.testing.assert_allclose(ours.weight, other.weight, rtol=1e-12)
    dweight = np.random.default_rng(1).normal(size=ours.weight.shape)
    dx, _ = capacity_top_k.route_backward(dweight, None, cache)
    wanted, _ = switch.route_backward(dweight, None, other_cache)
    np.testing.assert_allclose(dx, wanted, rtol=1e-12, atol=1e-15)


def test_errata_03_a_weight_is_not_renormalised_after_the_drop():
    """Both tokens choose experts 0 and 1, or 0 and 2. C = 1: the second token keeps 2 alone, with
    its weight 4/9, whose gradient reaches the logit of the dropped choice too.
    """
    x = np.log([[0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    options = {"k": 2, "renormalise": True, "capacity_factor": 0.5}
    routing, cache = capacity_top_k.route({"w": np.eye(3)}, x, **options)
    assert pairs(routing) == [(0, 0), (0, 1), (1, 2)]
    np.testing.assert_allclose(routing.weight, [2 / 3, 1 / 3, 4 / 9], rtol=1e-12)
    dlogits = capacity_top_k.logits_backward(np.array([0.0, 0.0, 1.0]), None, cache)
    np.testing.assert_allclose(dlogits, [[0, 0, 0], [-20 / 81, 0, 20 / 81]], atol=1e-12)


def test_errata_08_a_token_without_any_place_sends_no_gradient():
    weights, x = problem()
    routing, cache = capacity_top_k.route(weights, x, k=2, renormalise=True, capacity_factor=0.3)
    dropped = np.setdiff1d(np.arange(20), routing.token)
    assert 0 < len(dropped) < 20
    dx, _ = capacity_top_k.route_backward(np.arange(1.0, len(routing.token) + 1), None, cache)
    assert (dx[dropped] == 0).all() and (dx[routing.token] != 0).all()


def test_bad_arguments():
    weights, x = problem()
    for change, words in [
        ({"capacity_factor": 0}, "capacity_factor: wanted a finite number above 0, got 0"),
        ({"k": 6}, "k: wanted at most the 5 experts there are, got 6"),
        ({"k": 1}, "with k = 1 the renormalised weight is always 1"),
    ]:
        with pytest.raises(InputError, match=words):
            capacity_top_k.route(weights, x, **{**LIMITED, **change})
    _, cache = capacity_top_k.route(weights, x, **LIMITED)
    with pytest.raises(InputError, match="dweight: wanted shape"):
        capacity_top_k.route_backward(np.ones(40), None, cache)


# --- in a decoder ---------------------------------------------------------------------------------

WITH_CAPACITY = SMALL._replace(router="capacity_top_k", options={**LIMITED, "capacity_factor": 1.0})


def shares(routings):
    return [diagnostics.dropped_share(routing) for routing in routings]


def trained(config, p, updates, seed):
    """The losses of updates on one batch of four sequences, and the parameters after them."""
    ids, _ = text(config, B=4, T=10)

    def gradients_of(p, batch, rng):
        ids, targets = batch
        losses = ((0.01, balance.switch),)
        return decoder.loss_and_grads(p, ids, targets, config, losses=losses, rng=rng)

    options = loop.Options(updates=updates, warmup=0, learning_rate=5e-3, seed=seed)
    batch = (ids[:, :-1], ids[:, 1:])
    steps = list(loop.train(loop.initial_state(p), gradients_of, lambda _: batch, options))
    return [step.losses for step in steps], steps[-1].state.params


def test_a_model_of_top_k_is_fine_tuned_with_a_capacity_and_evaluated_without():
    first, pretrained = trained(SMALL, params(SMALL), 10, seed=0)
    assert max(shares(first[-1].routings)) == 0
    losses, tuned = trained(WITH_CAPACITY, pretrained, 20, seed=1)
    assert all(max(shares(loss.routings)) > 0 for loss in losses), "dropped in every update"
    assert losses[-1].task < 0.9 * losses[0].task
    assert nested.leaves(tuned).keys() == nested.leaves(pretrained).keys()

    ids, targets = text(SMALL, B=4, T=10)
    everything = WITH_CAPACITY._replace(options={**LIMITED, "capacity_factor": None})
    limited, cache = decoder.forward(tuned, ids, WITH_CAPACITY)
    whole, _ = decoder.forward(tuned, ids, SMALL)
    np.testing.assert_array_equal(decoder.forward(tuned, ids, everything)[0], whole)
    assert max(shares([block.mixture.routing for block in cache.blocks])) > 0
    assert np.abs(limited - whole).max() > 0.01, "a capacity holds in evaluation as well"
    evaluated = decoder.loss(tuned, ids, targets, SMALL)
    assert evaluated.task == decoder.loss(tuned, ids, targets, everything).task
    assert shares(evaluated.routings) == [0, 0]


@pytest.mark.parametrize("t", [1, 4, 9])
@pytest.mark.parametrize("row", [0, 2])
def test_errata_13_later_tokens_change_no_earlier_output(row, t):
    """Later are the tokens from t on of this sequence, and all sequences after it in the batch."""
    p = params(WITH_CAPACITY)
    ids, _ = text(WITH_CAPACITY, B=4, T=10)
    other = ids.copy()
    other[row, t:] = (other[row, t:] + 5) % WITH_CAPACITY.vocabulary
    logits, cache = decoder.forward(p, ids, WITH_CAPACITY)
    changed, cache_of_changed = decoder.forward(p, other, WITH_CAPACITY)
    logits, changed = logits.reshape(40, -1), changed.reshape(40, -1)
    later = row * 10 + t
    np.testing.assert_allclose(changed[:later], logits[:later], rtol=1e-10, atol=1e-12)
    assert np.abs(changed[later:] - logits[later:]).max() > 1e-3
    for blocks in (cache.blocks, cache_of_changed.blocks):
        assert max(shares([block.mixture.routing for block in blocks])) > 0.05


def test_the_sequences_of_a_batch_share_the_places():
    """The last sequence loses more beside others than the first, and depends on what they are."""
    p = params(WITH_CAPACITY)
    ids, _ = text(WITH_CAPACITY, B=4, T=10)
    logits, cache = decoder.forward(p, ids, WITH_CAPACITY)
    other = ids.copy()
    other[0] = (other[0] + 5) % WITH_CAPACITY.vocabulary
    changed, _ = decoder.forward(p, other, WITH_CAPACITY)
    assert np.abs(changed[3] - logits[3]).max() > 1e-3
    token = np.concatenate([block.mixture.routing.token for block in cache.blocks])
    assert (token < 10).sum() > (token >= 30).sum()


def test_generation_refuses_the_capacity_and_goes_on_without():
    p = params(SMALL)
    ids, _ = text(SMALL)
    with pytest.raises(InputError, match="wanted no capacity_factor in generation, got 1"):
        generation.prefill(p, ids, WITH_CAPACITY)
    everything = WITH_CAPACITY._replace(options={"k": 2, "renormalise": True})
    logits, _ = generation.prefill(p, ids, everything)
    np.testing.assert_array_equal(logits, generation.prefill(p, ids, SMALL)[0])
