"""The decoder over ranks: the bits of one process that works in the same pieces, and to rounding
the decoder itself.
"""

import numpy as np
import pytest

from moe_np.base.params import leaves
from moe_np.layers import balance
from moe_np.models import decoder
from moe_np.models.decoder_config import Config
from moe_np.parallel import decoder_parallel, in_process, placement
from moe_np.parallel.decoder_mixture import Setting
from moe_np.parallel.exchanges import RankError

PIECES = 7
SMALL = Config(
    vocabulary=11, d_model=8, layers=2, heads=2, kv_heads=1, d_head=4, experts=8, hidden=6,
    options={"k": 3, "renormalise": True}, context=16,
)  # fmt: skip
SHARED = {"tied": True, "dense_layers": (0,), "dense_hidden": 12, "shared": 2, "shared_gate": True}
NOISY = {"router": "noisy_top_k", "options": {"k": 3}, "init_options": {"scale": 1.0}}
MODELS = {
    "mixtral": {},
    "tied, dense first layer, shared experts": SHARED,
    "noisy, dropout": {**NOISY, "dropout": 0.2},
    "capacity": {"router": "switch", "options": {"capacity_factor": 0.8}},
    "by tokens": {"router": "hashing", "options": {}},
    "sums": {"router": "bias_balanced", "options": {"k": 3, "renormalise": True}},
    "dense": {"experts": 1},
}


def problem(name, dtype=np.float64, sequences=9):
    config = SMALL._replace(**MODELS[name])
    rng = np.random.default_rng(3)
    params = decoder.init(rng, config, dtype=dtype)
    ids = rng.integers(0, config.vocabulary, (sequences, 6))
    targets = rng.integers(-1, config.vocabulary, (sequences, 6))
    return config, params, ids, targets


def on_a_rank(args, rank, ranks, placed=None, seed=(1, 2), **options):
    config, params, ids, targets = args
    if placed is None:  # of a dense model nothing is divided
        placed = placement.contiguous(config.experts, min(ranks, config.experts))
    setting = Setting(config, rank, placed, **options)
    pieces = decoder_parallel.pieces_of(ids, targets, PIECES, rank, ranks, seed=seed)
    here = decoder_parallel.of_rank(params, config, rank, placed)
    loss, grads = yield from decoder_parallel.loss_and_grads(here, pieces, setting)
    return loss, (yield from decoder_parallel.whole(grads, config, rank, placed))


def over_ranks(args, ranks, placed=None, **options):
    results = in_process.run([on_a_rank(args, r, ranks, placed, **options) for r in range(ranks)])
    first = results[0]
    for result in results[1:]:
        check_equal_bits(first, result)
    return first


def check_equal_bits(wanted, got):
    for name in ("task", "balance", "tokens", "dropped"):
        assert getattr(wanted[0], name) == getattr(got[0], name)
    assert [load.tolist() for load in wanted[0].load] == [load.tolist() for load in got[0].load]
    a, b = leaves(wanted[1]), leaves(got[1])
    assert list(a) == list(b)
    for path in a:
        assert a[path].dtype == b[path].dtype
        assert a[path].tobytes() == b[path].tobytes(), path


def options_of(name):
    """A capacity needs a group; hashing learns nothing, and no loss balances it."""
    losses = {"losses": ()} if name == "by tokens" else {}
    return {"group": "piece" if name == "capacity" else None, **losses}


@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_ranks_has_the_bits_of_one_process(name, ranks):
    args = problem(name, np.float32 if ranks % 2 else np.float64)
    options = {**options_of(name), "balance_group": "piece" if ranks == 3 else "batch"}
    check_equal_bits(over_ranks(args, 1, **options), over_ranks(args, ranks, **options))


@pytest.mark.parametrize("name", ["mixtral", "tied, dense first layer, shared experts", "sums"])
def test_it_is_the_decoder_to_rounding(name, backend):
    args = problem(name)
    config, params, ids, targets = args
    losses = ((0.1, balance.switch), (0.01, balance.z_loss))
    wanted, grads = decoder.loss_and_grads(params, ids, targets, config, losses=losses)
    loss, got = over_ranks(args, 3, losses=losses)
    assert loss.tokens == wanted.tokens
    np.testing.assert_allclose(loss.task, wanted.task, rtol=1e-12)
    np.testing.assert_allclose(loss.balance, wanted.balance, rtol=1e-12)
    got = leaves(got)
    for path, g in leaves(grads).items():
        np.testing.assert_allclose(got[path], g, rtol=1e-9, atol=1e-12, err_msg=path)


def test_a_group_of_the_batch_drops_what_one_process_drops():
    args = problem("capacity")
    config, params, ids, targets = args
    wanted, grads = decoder.loss_and_grads(params, ids, targets, config)
    loss, got = over_ranks(args, 4, group="batch")
    np.testing.assert_allclose(loss.task, wanted.task, rtol=1e-12)
    assert loss.dropped[0] > 0.05
    got = leaves(got)
    for path, g in leaves(grads).items():
        np.testing.assert_allclose(got[path], g, rtol=1e-9, atol=1e-12, err_msg=path)
    check_equal_bits(
        (loss, over_ranks(args, 4, group="batch")[1]), over_ranks(args, 2, group="batch")
    )


def test_a_group_of_the_rank_depends_on_the_ranks():
    args = problem("capacity")
    two, four = (over_ranks(args, ranks, group="rank")[0] for ranks in (1, 4))
    assert two.dropped != four.dropped


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_placement_has_the_bits_of_one_process(ranks):
    args = problem("mixtral")
    rank = np.random.default_rng(0).permutation(np.arange(8) % ranks)
    placed = placement.Placement(np.arange(8), rank, ranks)
    check_equal_bits(over_ranks(args, 1), over_ranks(args, ranks, placed))
    load = np.array([9.0, 1, 5, 1, 1, 1, 1, 1])
    one = placement.replicated(load, ranks, 8 + ranks)._replace(ranks=1)
    one = one._replace(rank=np.zeros_like(one.rank))
    replicas = placement.replicated(load, ranks, 8 + ranks)
    check_equal_bits(over_ranks(args, 1, one), over_ranks(args, ranks, replicas))


def test_padding_is_left_out():
    config, params, ids, targets = problem("mixtral")
    valid = np.arange(6) < np.arange(9)[:, None] % 6 + 1
    targets = np.where(valid, targets, -1)
    wanted, grads = decoder.loss_and_grads(params, ids, targets, config, valid=valid)

    def rank(r, ranks):
        placed = placement.contiguous(8, ranks)
        pieces = decoder_parallel.pieces_of(ids, targets, PIECES, r, ranks)
        masks = decoder_parallel.pieces_of(valid, targets, PIECES, r, ranks)
        pieces = [p._replace(valid=m.ids) for p, m in zip(pieces, masks, strict=True)]
        here = decoder_parallel.of_rank(params, config, r, placed)
        setting = Setting(config, r, placed)
        loss, g = yield from decoder_parallel.loss_and_grads(here, pieces, setting)
        return loss, (yield from decoder_parallel.whole(g, config, r, placed))

    one, three = (in_process.run([rank(r, n) for r in range(n)])[0] for n in (1, 3))
    check_equal_bits(one, three)
    np.testing.assert_allclose(three[0].task, wanted.task, rtol=1e-12)
    np.testing.assert_allclose(three[0].balance, wanted.balance, rtol=1e-12)
    got = leaves(three[1])
    for path, g in leaves(grads).items():
        np.testing.assert_allclose(got[path], g, rtol=1e-9, atol=1e-12, err_msg=path)


def test_what_cannot_be_equal_is_refused():
    args = problem("capacity")
    with pytest.raises(RankError, match="group: wanted one of piece, rank, batch for the"):
        over_ranks(args, 2)
    config, *rest = problem("mixtral")
    with pytest.raises(RankError, match="expert_dropout: wanted 0 over ranks"):
        over_ranks((config._replace(expert_dropout=0.1), *rest), 2)
    ids = np.zeros((5, 3), int)
    with pytest.raises(ValueError, match="pieces: wanted at least 2, the ranks, and at most 5"):
        decoder_parallel.pieces_of(ids, ids, 6, 0, 2)
    with pytest.raises(ValueError, match="pieces: wanted at least 4, the ranks"):
        decoder_parallel.pieces_of(ids, ids, 3, 0, 4)
