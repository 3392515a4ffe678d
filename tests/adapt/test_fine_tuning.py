"""Fine-tuning: frozen leaves keep their bits, masked tokens, minibatches, early stopping."""

import numpy as np
import pytest

from moe_np.adapt import fine_tuning
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.layers import balance
from moe_np.models import decoder
from moe_np.training import loop
from tests.support.adapted import DENSE, SPARSE, ids_of, params_of

MIXED = SPARSE._replace(dense_layers=(1,), shared=1, shared_gate=True)


def test_every_leaf_has_its_group():
    groups = {path: fine_tuning.group_of(path, MIXED) for path in leaves(params_of(MIXED))}
    assert groups["embed.w"] == groups["head.w"] == "embeddings"
    assert groups["layers.0.norm1.g"] == groups["norm.g"] == "norms"
    assert groups["layers.1.attention.wq"] == "attention"
    assert groups["layers.0.experts.w1"] == "experts"
    assert groups["layers.1.experts.w1"] == groups["layers.0.shared.w2"] == "feed_forward"
    assert groups["layers.0.router.w"] == groups["layers.0.shared_gate.w"] == "router"
    assert set(groups.values()) == set(fine_tuning.GROUPS)


@pytest.mark.parametrize("name", fine_tuning.SUBSETS)
def test_frozen_leaves_keep_their_bits(name):
    params = params_of(MIXED)
    trained = fine_tuning.trained_leaves(MIXED, params, fine_tuning.SUBSETS[name])

    def gradients_of(params, minibatch, rng):
        losses, grads = decoder.loss_and_grads(params, *minibatch, MIXED, rng=rng)
        return losses, fine_tuning.frozen(grads, trained)

    options = loop.Options(updates=3, warmup=0, weight_decay=0.5)
    *_, last = loop.train(
        loop.initial_state(params),
        gradients_of,
        fine_tuning.minibatches(ids_of(), ids_of(2), batch=2),
        options,
        decays=fine_tuning.decays(trained),
    )
    before = leaves(params)
    for path, p in leaves(last.state.params).items():
        assert np.array_equal(p, before[path]) == (path not in trained), path


def test_all_but_some_groups():
    assert fine_tuning.all_but("experts", "router") == fine_tuning.SUBSETS["all but experts"]
    whole = fine_tuning.trained_leaves(SPARSE, params_of(SPARSE), fine_tuning.all_but())
    assert whole == set(leaves(params_of(SPARSE)))


def test_minibatches_are_different_examples_drawn_by_the_generator():
    ids, targets = np.arange(20).reshape(10, 2), 100 + np.arange(20).reshape(10, 2)
    draw = fine_tuning.minibatches(ids, targets, batch=4)
    chosen, wanted = draw(np.random.default_rng(0))
    assert len(set(chosen[:, 0])) == 4
    np.testing.assert_array_equal(wanted, chosen + 100)
    np.testing.assert_array_equal(draw(np.random.default_rng(0))[0], chosen)
    assert len(fine_tuning.minibatches(ids, targets, batch=64)(np.random.default_rng(0))[0]) == 10


def test_masked_tokens():
    ids = ids_of(batch=100, length=50)
    rng = np.random.default_rng(0)
    changed = fine_tuning.masked(ids, 0.3, rng, vocabulary=30, token=99)
    assert (changed == 99).mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(changed[changed != 99], ids[changed != 99])
    drawn = fine_tuning.masked(ids, 1.0, rng, vocabulary=30)
    assert drawn.max() == 29 and (drawn != ids).mean() == pytest.approx(29 / 30, abs=0.02)
    np.testing.assert_array_equal(fine_tuning.masked(ids, 0.0, rng, vocabulary=30), ids)


def test_an_example_is_replaced_by_its_own_paraphrase():
    ids = np.arange(400).reshape(200, 2)
    examples, others = (ids, ids + 1000), (ids + 2000, ids + 3000)
    draw = fine_tuning.paraphrased(examples, others, 0.25, batch=200)
    chosen, targets = draw(np.random.default_rng(0))
    np.testing.assert_array_equal(targets, chosen + 1000)
    replaced = chosen[:, 0] >= 2000
    assert sorted(chosen[:, 0] % 2000) == list(range(0, 400, 2)), "every row once, at its place"
    assert replaced.mean() == pytest.approx(0.25, abs=0.08)
    np.testing.assert_array_equal(draw(np.random.default_rng(0))[0], chosen)
    never = fine_tuning.paraphrased(examples, others, 0.0, batch=3)(np.random.default_rng(1))
    assert len(never[0]) == 3 and never[0].max() < 400
    with pytest.raises(InputError, match=r"paraphrases: wanted"):
        fine_tuning.paraphrased(examples, (ids[:5], ids[:5]), 0.5, batch=2)
    with pytest.raises(InputError, match=r"p: wanted"):
        fine_tuning.paraphrased(examples, others, 1.5, batch=2)


def test_early_stopping():
    losses = [5.0, 4.0, 3.0, 3.5, 3.0, 3.2]
    ends = [n for n in range(len(losses) + 1) if fine_tuning.stops(losses[:n], 2)]
    assert ends == [5, 6], "two in a row that are no better than 3"
    assert not fine_tuning.stops(losses, 4)
    assert not fine_tuning.stops(losses, None)


def test_the_loss_of_examples_is_that_of_all_their_targets():
    params = params_of(SPARSE)
    targets = ids_of(2, batch=5)
    targets[0, 3:] = -1
    found = fine_tuning.held_out_loss(SPARSE, params, ids_of(batch=5), targets, batch=2)
    assert found == pytest.approx(decoder.loss(params, ids_of(batch=5), targets, SPARSE).task)


def test_dropout_and_expert_dropout_are_in_training_alone():
    config = SPARSE._replace(dropout=0.1, expert_dropout=0.4)
    params = params_of(SPARSE)
    ids, targets = ids_of(), ids_of(2)
    quiet = decoder.loss(params, ids, targets, config).task
    assert quiet == decoder.loss(params, ids, targets, SPARSE).task
    options = {"losses": ((0.01, balance.switch),), "rng": np.random.default_rng(0)}
    assert decoder.loss_and_grads(params, ids, targets, config, **options)[0].task != quiet


def test_bad_input_is_one_clear_error():
    empty = np.zeros((0, 5), int)
    with pytest.raises(InputError, match="at least one example to train on, got an empty set"):
        fine_tuning.minibatches(empty, empty, batch=4)
    with pytest.raises(InputError, match="groups: wanted one of"):
        fine_tuning.trained_leaves(SPARSE, params_of(SPARSE), ["heads"])
    with pytest.raises(InputError, match="a group that this model has, got"):
        fine_tuning.trained_leaves(DENSE, params_of(DENSE), ["experts", "router"])
    with pytest.raises(InputError, match="groups"):
        fine_tuning.all_but("heads")
    with pytest.raises(InputError, match="patience"):
        fine_tuning.stops([1.0], 0)
    with pytest.raises(InputError, match="p: wanted"):
        fine_tuning.masked(ids_of(), 1.1, np.random.default_rng(0), vocabulary=30)
