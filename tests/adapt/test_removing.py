"""Removing experts: which ones, that it is exact where nothing chose them, and refusals."""

import itertools

import numpy as np
import pytest

from moe_np.adapt import layer_parts, removing
from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.models import decoder
from tests.support.adapted import DENSE, SHARES, SPARSE, difference, ids_of, params_of


def test_what_no_token_chose_can_go():
    ids = ids_of(batch=1, length=6)
    params = params_of(SPARSE)
    for number, unused in ((0, 2), (1, 0)):  # fewer tokens than features: any logits can be had
        h = layer_parts.on_text(SPARSE, params, ids)[number].h
        column = np.linalg.lstsq(h, np.full(len(h), -50.0), rcond=None)[0]
        params["layers"][number]["router"]["w"][:, unused] = column
    seen = layer_parts.on_text(SPARSE, params, ids)
    assert layer_parts.use(seen[0])[2] == layer_parts.use(seen[1])[0] == 0
    for by in ("use", "loss"):
        new = removing.prune(SPARSE, params, keep=3, by=by, ids=ids)
        assert difference((SPARSE, params), new, ids) < 1e-12
        assert new[0].experts == 3
    removed = removing.remove(SPARSE, params, [[0, 1, 2], [0, 1, 2]])
    assert difference((SPARSE, params), removed, ids) > 1e-3


def test_the_use_is_the_sum_of_the_weights():
    params = params_of(SPARSE)
    (first, _) = layer_parts.on_text(SPARSE, params, ids_of(), batch=2)
    use = layer_parts.use(first)
    assert use.sum() == pytest.approx(21)  # one per token, renormalised
    _, cache = decoder.forward(params, ids_of(), SPARSE)
    routing = cache.blocks[0].mixture.routing
    naive = [routing.weight[routing.expert == m].sum() for m in range(4)]
    np.testing.assert_allclose(use, naive, rtol=1e-12)
    kept = removing.chosen_sets(SPARSE, params, keep=2, by="use", ids=ids_of())
    assert kept[0] == sorted(np.argsort(use)[-2:])


@pytest.mark.parametrize("options", [{"k": 2, "renormalise": True}, SHARES])
@pytest.mark.parametrize("limit", [1000, 1])
def test_the_reconstruction_loss_is_that_of_the_layer(options, limit, monkeypatch):
    config = SPARSE._replace(options=options, experts=5)
    params = params_of(config)
    monkeypatch.setattr(removing, "MOST_SETS", limit)
    seen = layer_parts.on_text(config, params, ids_of())
    losses = {}
    for kept in itertools.combinations(range(5), 3):
        lists = [list(kept), list(range(3))]
        new_config, new = removing.remove(config, params, lists)
        _, cache = decoder.forward(new, ids_of(), new_config)
        _, whole = decoder.forward(params, ids_of(), config)
        losses[kept] = output_loss(cache, whole)
    kept, loss = removing.least_loss(config, params["layers"][0], seen[0], 3)
    assert losses[tuple(kept)] == pytest.approx(loss, rel=1e-9)
    if limit > 1:
        assert loss == pytest.approx(min(losses.values()), rel=1e-9)
    else:  # each time the least: not better than all sets
        assert loss >= min(losses.values()) - 1e-12


def output_loss(cache, whole):
    """Of the first layer, whose input is the same: from the residual stream."""
    out = [c.blocks[1].norm1.x for c in (cache, whole)]
    return np.square(out[0] - out[1]).sum() / 21


def test_removal_keeps_the_columns_of_the_router():
    params = params_of(SPARSE)
    config, new = removing.remove(SPARSE, params, [[0, 3], [1, 2]])
    _, cache = decoder.forward(new, ids_of(), config)
    gate = cache.blocks[0].mixture
    h = gate.gate.x
    logits = h @ params["layers"][0]["router"]["w"][:, [0, 3]]
    np.testing.assert_allclose(gate.routing.probs, numerics.softmax(logits), rtol=1e-9)
    np.testing.assert_array_equal(
        new["layers"][1]["experts"]["w2"], params["layers"][1]["experts"]["w2"][[1, 2]]
    )


def test_at_random_it_is_the_generator_that_decides():
    params = params_of(SPARSE)
    sets = [
        removing.chosen_sets(SPARSE, params, keep=2, by="random", rng=np.random.default_rng(seed))
        for seed in range(20)
    ]
    assert sets[0] == removing.chosen_sets(
        SPARSE, params, keep=2, by="random", rng=np.random.default_rng(0)
    )
    assert len({tuple(kept[0]) for kept in sets}) == 6
    assert any(kept[0] != kept[1] for kept in sets)


def test_bad_input_is_one_clear_error():
    params = params_of(SPARSE)
    wanted = "keep: wanted from k = 2 to 4 experts, because a token chooses k; got {}"
    for keep in (0, 1, 5, 2.5):
        with pytest.raises(InputError, match=wanted.format(keep)):
            removing.prune(SPARSE, params, keep=keep, by="random", rng=np.random.default_rng(0))
    with pytest.raises(InputError, match=r"keep: .*got 0"):
        removing.remove(SPARSE, params, [[], []])
    with pytest.raises(InputError, match="equally many experts per layer"):
        removing.remove(SPARSE, params, [[0, 1], [0, 1, 2]])
    with pytest.raises(InputError, match="every expert once"):
        removing.remove(SPARSE, params, [[0, 0], [0, 1]])
    with pytest.raises(InputError, match="one list for 2 layers, got 1"):
        removing.remove(SPARSE, params, [[0, 1]])
    with pytest.raises(InputError, match=r"kept: wanted .*got 7"):
        removing.remove(SPARSE, params, [[0, 7], [0, 1]])
    with pytest.raises(InputError, match="wanted the tokens of a text to remove by use"):
        removing.prune(SPARSE, params, keep=2, by="use")
    with pytest.raises(InputError, match="got a dense one"):
        removing.prune(DENSE, params_of(DENSE), keep=1, by="use", ids=ids_of())
    hashing = SPARSE._replace(router="hashing", options={})
    with pytest.raises(InputError, match=r"config\.router: wanted one of top_k"):
        removing.prune(hashing, params, keep=2, by="use", ids=ids_of())
