"""The encoder-decoder: gradients of whole models over all their leaves, and what the layout of T5
gets wrong most easily, one test each.
"""

import functools

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.layers import attention, balance, norms
from moe_np.models import encoder_decoder, encoder_decoder_config, encoder_decoder_stack
from tests.support.decoders import with_leaves
from tests.support.encoder_decoders import (
    ENCODERS,
    LAYOUTS,
    SMALL,
    pairs,
    params,
    with_encoder_router,
)

every_layout = pytest.mark.parametrize("layout", LAYOUTS)
LOSSES = ((0.1, balance.switch), (0.01, balance.z_loss), (0.05, balance.importance))


def errors(config, *, losses=LOSSES, whole=True, rng=None, **options):
    """The relative error of the gradients of task and load-balancing losses: of each leaf, or of
    all leaves as one vector.

    rng   a function that makes the generator of noise and dropout; None: none is drawn
    """
    p = params(config)
    every = nested.leaves(p)
    source, targets = pairs(config)
    options = {"losses": losses, **options}

    def measured(tree):
        if rng is None:
            return encoder_decoder.loss(tree, source, targets, config, **options)
        both = {**options, "rng": rng()}
        return encoder_decoder.loss_and_grads(tree, source, targets, config, **both)[0]

    def loss_of(tree):
        result = measured(tree)
        return result.task + sum(result.balance)

    generator = {} if rng is None else {"rng": rng()}
    _, tree = encoder_decoder.loss_and_grads(p, source, targets, config, **options, **generator)
    grads = nested.leaves(tree)
    assert {path: g.shape for path, g in grads.items()} == {
        path: a.shape for path, a in every.items()
    }
    grads = {path: grads[path] for path in every}  # in the order of the parameters
    check = functools.partial(gradcheck.gradient_error, rng=np.random.default_rng(3), step=3e-5)
    if not whole:
        return check(lambda q: loss_of(with_leaves(p, {**every, **q})), every, grads)
    # each leaf in units of its gradient, so that no large one hides a small one
    units = {path: 1 / max(np.linalg.norm(g), 0.1) for path, g in grads.items()}
    vector = nested.flatten({path.replace(".", "/"): units[path] * g for path, g in grads.items()})

    def loss_at(q):
        moves = nested.unflatten(q["all"], list(every.values()))
        moved = {
            path: a + units[path] * move
            for (path, a), move in zip(every.items(), moves, strict=True)
        }
        return loss_of(with_leaves(p, moved))

    return check(loss_at, {"all": 0 * vector}, {"all": vector})


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("backend")
@every_layout
def test_gradients_of_the_whole_model(layout):
    found = errors(LAYOUTS[layout])
    assert max(found.values()) < 1e-6, found


@pytest.mark.slow
@every_layout
def test_gradients_of_each_leaf(layout):
    found = errors(LAYOUTS[layout], whole=False)
    assert len(found) >= 40 or layout == "dense"
    assert max(found.values()) < 1e-6, found


def same_noise():
    return np.random.default_rng(7)


@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_with_other_routers_in_the_encoder(name):
    losses = LOSSES[1:2] if name == "expert_choice" else LOSSES
    found = errors(with_encoder_router(name), losses=losses, rng=same_noise)
    assert max(found.values()) < 1e-6, found


def test_gradients_with_dropout_and_jitter():
    config = SMALL._replace(dropout=0.2, expert_dropout=0.3, options={"jitter": 0.2})
    found = errors(config, rng=same_noise)
    assert max(found.values()) < 1e-6, found


def test_gradients_with_padding_and_smoothing():
    found = errors(SMALL, source_valid=padding(9, 6, 9), valid=padding(7, 5, 7), smoothing=0.1)
    assert max(found.values()) < 1e-6, found


def padding(length, *ends):
    return np.arange(length) < np.array(ends)[:, None]


# --- the layout of T5 -----------------------------------------------------------------------------


def logits_of(config, p, source, inputs, **options):
    return encoder_decoder.forward(p, source, inputs, config, **options)[0]


def inputs_of(config, targets):
    return encoder_decoder.shift_right(targets, config.start)


def test_the_head_is_scaled_where_it_is_tied_and_only_there():
    source, targets = pairs(SMALL)
    inputs = inputs_of(SMALL, targets)
    p = params(SMALL)
    untied = {**p, "head": {"w": p["embed"]["w"].T}}
    tied = logits_of(SMALL, p, source, inputs)
    own = logits_of(SMALL._replace(tied=False), untied, source, inputs)
    np.testing.assert_allclose(tied * 12**0.5, own, rtol=1e-12)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_all_layers_share_one_position_bias_and_its_gradient_is_their_sum(stack, monkeypatch):
    config = SMALL._replace(encoder_layers=3, decoder_layers=3)
    p = params(config)
    source, targets = pairs(config)
    logits, cache = encoder_decoder.forward(p, source, inputs_of(config, targets), config)
    blocks = getattr(cache, stack).blocks
    first = blocks[0].attention.attention.pattern.bias
    assert np.abs(first).min() > 0 and first.shape == (3, len(first[0]), len(first[0]))
    assert all(block.attention.attention.pattern.bias is first for block in blocks)

    def gradient():
        return encoder_decoder.backward(logits, cache)[stack]["position"]["w"]

    whole = gradient()
    original = encoder_decoder_stack.block_backward
    parts = []
    for kept in blocks:

        def of_one(dx, block, added=None, kept=kept):
            gradients = original(dx, block, added)
            return gradients._replace(bias=gradients.bias * (block is kept))

        monkeypatch.setattr(encoder_decoder_stack, "block_backward", of_one)
        parts.append(gradient())
    assert min(np.abs(part).max() for part in parts) > 1e-3
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-10, atol=1e-12)


def test_the_encoder_has_buckets_for_both_directions_and_the_decoder_for_one():
    """Eight buckets by hand: two exact distances each way, or four distances to the past."""
    p = params(SMALL)
    source, targets = pairs(SMALL)
    _, cache = encoder_decoder.forward(p, source, inputs_of(SMALL, targets), SMALL)
    biases = {}
    for stack in ("encoder", "decoder"):
        biases[stack] = getattr(cache, stack).blocks[0].attention.attention.pattern.bias
    w = p["encoder"]["position"]["w"]
    for distance, bucket in ((-6, 3), (-1, 1), (0, 0), (1, 5), (2, 6), (6, 7)):
        t = max(-distance, 0)
        np.testing.assert_array_equal(biases["encoder"][:, t, t + distance], w[bucket])
    w = p["decoder"]["position"]["w"]
    for distance, bucket in ((-6, 7), (-4, 4), (-3, 3), (-1, 1), (0, 0), (1, 0)):
        t = max(-distance, 0)
        np.testing.assert_array_equal(biases["decoder"][:, t, t + distance], w[bucket])


def test_scores_have_no_factor_and_cross_attention_no_position_bias():
    """A block of the decoder, step by step."""
    config = SMALL._replace(experts=1)
    p = params(config)
    source, targets = pairs(config)
    inputs = inputs_of(config, targets)
    memory, _ = encoder_decoder.encode(p, source, config)
    _, cache = encoder_decoder.decode(p, inputs, config, memory)
    layer = p["decoder"]["layers"][0]
    x = p["embed"]["w"][inputs]
    bias = cache.blocks[0].attention.attention.pattern.bias
    for norm, part, options in (
        ("norm1", "attention", {"causal": True, "bias": bias}),
        ("norm_cross", "cross", {"causal": False, "memory": memory.x}),
    ):
        h, _ = norms.rms_forward(layer[norm], x, eps=1e-6)
        heads = {"heads": 3, "kv_heads": 3, "scale": 1.0}
        x = x + attention.forward(layer[part], h, **heads, **options)[0]
    np.testing.assert_allclose(cache.blocks[0].mixture.norm.x, x, rtol=1e-12)


def test_norms_subtract_no_mean():
    p = params(SMALL)
    source, _ = pairs(SMALL)
    memory, cache = encoder_decoder.encode(p, source, SMALL)
    x = cache.norm.x
    expected = p["encoder"]["norm"]["g"] * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(memory.x, expected, rtol=1e-12)
    assert np.abs(x.mean(axis=-1)).min() > 1e-4


@pytest.mark.parametrize("name", ["switch", "expert_choice"])
def test_the_encoder_sees_all_of_the_source_and_the_decoder_no_future(name):
    config = SMALL if name == "switch" else with_encoder_router(name)
    p = params(config)
    source, targets = pairs(config, B=1)
    inputs = inputs_of(config, targets)
    logits = logits_of(config, p, source, inputs)
    for t in (1, 4, 6):
        later = inputs.copy()
        later[0, t:] = (later[0, t:] + 5) % 17
        changed = logits_of(config, p, source, later)
        np.testing.assert_allclose(changed[0, :t], logits[0, :t], rtol=1e-10, atol=1e-12)
        assert np.abs(changed[0, t:] - logits[0, t:]).max() > 1e-3
    for s in (0, 8):
        other = source.copy()
        other[0, s] = (other[0, s] + 1) % 17
        assert np.abs(logits_of(config, p, other, inputs) - logits).max(axis=(0, 2)).min() > 1e-6
        both = [encoder_decoder.encode(p, ids, config)[0].x for ids in (source, other)]
        assert np.abs(both[0] - both[1]).max(axis=(0, 2)).min() > 1e-6, "in both directions"


def test_keys_further_away_than_the_largest_distance_share_a_bucket():
    """The source may be longer than any distance: the bias has only its buckets."""
    p = params(SMALL)
    source = np.zeros((1, 30), int)
    _, cache = encoder_decoder.encode(p, source, SMALL)
    bias = cache.blocks[0].attention.attention.pattern.bias
    np.testing.assert_array_equal(bias[:, 0, 6:], np.repeat(bias[:, 0, 6:7], 24, axis=1))
    assert (bias[:, 0, 6] != bias[:, 6, 0]).all(), "before and after have buckets of their own"


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "capacity" not in name])
def test_padding_changes_nothing(layout):
    config = LAYOUTS[layout]
    p = params(config)
    source, targets = pairs(config, B=1)
    targets[targets < 0] = 3
    loss, grads = encoder_decoder.loss_and_grads(p, source, targets, config)
    wide_source = np.pad(source, ((0, 0), (0, 3)), constant_values=5)
    wide_targets = np.pad(targets, ((0, 0), (0, 2)), constant_values=-1)
    options = {"source_valid": padding(12, 9)}
    padded, padded_grads = encoder_decoder.loss_and_grads(
        p, wide_source, wide_targets, config, **options
    )
    assert padded.tokens == loss.tokens == 7
    assert padded.task == pytest.approx(loss.task, rel=1e-10)
    assert padded.balance == pytest.approx(loss.balance, rel=1e-10)
    for path, g in nested.leaves(grads).items():
        other = nested.leaves(padded_grads)[path]
        np.testing.assert_allclose(other, g, atol=1e-9 * np.abs(g).max(), err_msg=path)
    for routing, stack_length in zip(padded.routings, (12, 12, 9, 9), strict=False):
        if len(routing.demand) == stack_length and routing.logits is not None:
            assert routing.token.max() < (9 if stack_length == 12 else 7), "padding is not routed"


def test_capacity_counts_the_tokens_that_are_no_padding_and_the_dropped_pass_by():
    config = SMALL._replace(options={"capacity_factor": 0.5})
    p = params(config)
    source, _ = pairs(config)
    valid = padding(9, 9, 4)
    _, cache = encoder_decoder.encode(p, source, config, source_valid=valid)
    mixture = cache.blocks[1].mixture.mixture
    C = int(np.ceil(0.5 * 13 / 4))
    assert mixture.gate.C == C
    wanted = mixture.routing.demand.argmax(axis=1)
    for expert in range(4):
        tokens = [n for n in np.flatnonzero(valid.ravel()) if wanted[n] == expert]
        taken = mixture.routing.token[mixture.routing.expert == expert].tolist()
        assert taken == tokens[:C], "the first in their order"
    dropped = np.setdiff1d(np.flatnonzero(valid.ravel()), mixture.routing.token)
    assert len(dropped)
    before = cache.blocks[1].mixture.norm.x.reshape(-1, 12)
    np.testing.assert_array_equal(cache.norm.x.reshape(-1, 12)[dropped], before[dropped])


def test_shifting_right():
    targets = np.array([[5, 6, 1, -1, -1], [7, -1, 8, 1, -1]])
    expected = [[2, 5, 6, 1, 2], [2, 7, 2, 8, 1]]
    np.testing.assert_array_equal(encoder_decoder.shift_right(targets, 2), expected)


def test_padding_of_targets_is_what_comes_after_the_last_of_them():
    p = params(SMALL)
    source, _ = pairs(SMALL)
    targets = np.array([[7, -1, 8, 1, -1], [5, 6, 1, -1, -1]])
    implied, grads = encoder_decoder.loss_and_grads(p, source, targets, SMALL)
    options = {"valid": padding(5, 4, 3)}
    told, same = encoder_decoder.loss_and_grads(p, source, targets, SMALL, **options)
    assert implied.tokens == 6 and implied.task == told.task
    assert implied.balance == told.balance
    assert implied.routings[3].demand.sum() == 7
    for path, g in nested.leaves(grads).items():
        np.testing.assert_array_equal(g, nested.leaves(same)[path])


def test_an_unknown_router_is_refused():
    with pytest.raises(InputError, match="router: wanted"):
        encoder_decoder_config.check(SMALL._replace(router="none"))
    with pytest.raises(InputError, match="router: wanted"):  # of the encoder alone
        encoder_decoder_config.check(SMALL._replace(router="none", decoder_router="top_k"))


def test_feed_forward_layers_have_no_biases_unless_wanted():
    for stack in ("encoder", "decoder"):
        for with_biases in (False, True):
            config = SMALL._replace(biases=with_biases)
            for layer in params(config)[stack]["layers"]:
                assert {"w1", "w2"} == set(layer["experts"]) - {"b1", "b2"}
                assert ("b1" in layer["experts"]) == with_biases
    p = params(SMALL)
    zeros = {
        stack: {**p[stack], "layers": [_zero_biases(layer) for layer in p[stack]["layers"]]}
        for stack in ("encoder", "decoder")
    }
    source, targets = pairs(SMALL)
    inputs = inputs_of(SMALL, targets)
    np.testing.assert_array_equal(
        logits_of(SMALL, p, source, inputs),
        logits_of(SMALL._replace(biases=True), {**p, **zeros}, source, inputs),
    )


def _zero_biases(layer):
    E, _, H = layer["experts"]["w1"].shape
    biases = {"b1": np.zeros((E, H)), "b2": np.zeros((E, 12))}
    return {**layer, "experts": {**layer["experts"], **biases}}


# --- the loss -------------------------------------------------------------------------------------


def test_the_losses_are_reported_apart():
    config = LAYOUTS["switch, untied, capacity"]
    p = params(config)
    source, targets = pairs(config)
    coefficients = ((0.1, balance.switch), (0.01, balance.z_loss))
    loss, _ = encoder_decoder.loss_and_grads(p, source, targets, config, losses=coefficients)
    logits, cache = encoder_decoder.forward(
        p, source, inputs_of(config, targets), config, valid=padding(7, 6, 7)
    )
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    valid = targets >= 0
    expected = -np.take_along_axis(log_p, targets[..., None], axis=-1)[valid].mean()
    assert loss.task == pytest.approx(expected, rel=1e-12) and loss.tokens == valid.sum() == 12
    assert loss.encoder_layers == 3 and len(loss.balance) == len(loss.terms) == 5
    assert [value == 0 for value in loss.balance] == [False, False, True, True, False]
    flat = padding(7, 6, 7).ravel()
    routing = cache.decoder.blocks[1].mixture.mixture.routing
    switch, z = balance.switch(routing, valid=flat).value, balance.z_loss(routing, valid=flat).value
    assert loss.terms[4] == pytest.approx({"switch": switch, "z_loss": z}, rel=1e-12)
    assert loss.balance[4] == pytest.approx(0.1 * switch + 0.01 * z, rel=1e-12)
    without, _ = encoder_decoder.loss_and_grads(p, source, targets, config, losses=())
    assert without.task == loss.task and sum(without.balance) == 0
    evaluated = encoder_decoder.loss(p, source, targets, config, losses=coefficients)
    assert evaluated.task == pytest.approx(loss.task, rel=1e-12)
    assert evaluated.balance == loss.balance


@every_layout
def test_float32(layout):
    config = LAYOUTS[layout]
    p = params(config)
    source, targets = pairs(config)
    wide, wide_grads = encoder_decoder.loss_and_grads(p, source, targets, config)
    narrow = nested.map_leaves(lambda a: a.astype(np.float32), p)
    loss, grads = encoder_decoder.loss_and_grads(narrow, source, targets, config)
    assert loss.task == pytest.approx(wide.task, rel=1e-5)
    for path, g in nested.leaves(grads).items():
        expected = nested.leaves(wide_grads)[path]
        assert g.dtype == np.float32, path
        assert np.abs(g - expected).max() <= 2e-4 * np.abs(expected).max(), path


@every_layout
def test_nothing_is_changed_in_place(layout):
    config = LAYOUTS[layout]
    p = nested.map_leaves(lambda a: a.copy(), params(config))
    source, targets = pairs(config)
    for a in (*nested.leaves(p).values(), source, targets):
        a.flags.writeable = False
    logits, cache = encoder_decoder.forward(p, source, inputs_of(config, targets), config)
    logits.flags.writeable = False
    first = nested.leaves(encoder_decoder.backward(logits, cache))
    second = nested.leaves(encoder_decoder.backward(logits, cache))
    assert set(first) == set(nested.leaves(p))
    for path, g in first.items():
        np.testing.assert_array_equal(g, second[path])
    encoder_decoder.loss_and_grads(p, source, targets, config)


def test_a_workspace_gives_the_same():
    p = params(SMALL)
    workspace = {}
    for seed in (1, 2):
        source, targets = pairs(SMALL, seed=seed)
        loss, grads = encoder_decoder.loss_and_grads(p, source, targets, SMALL)
        second, same = encoder_decoder.loss_and_grads(
            p, source, targets, SMALL, workspace=workspace
        )
        assert second.task == loss.task
        for path, g in nested.leaves(grads).items():
            np.testing.assert_array_equal(g, nested.leaves(same)[path])


def test_dropout_only_in_training():
    config = SMALL._replace(dropout=0.3, expert_dropout=0.3)
    p = params(config)
    source, targets = pairs(config)
    inputs = inputs_of(config, targets)
    expected = logits_of(SMALL, p, source, inputs)
    rng = np.random.default_rng(0)
    evaluated = logits_of(config, p, source, inputs, training=False, rng=rng)
    np.testing.assert_array_equal(expected, evaluated)
    trained = [
        logits_of(config, p, source, inputs, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.abs(trained[0] - expected).max() > 0.01 < np.abs(trained[0] - trained[2]).max()


def test_what_dropout_drops():
    """Embeddings, what sublayers add, the last norm; the hidden units of experts by themselves."""
    config = SMALL._replace(dropout=0.4, encoder_layers=1, decoder_layers=1, experts=1)
    p = params(config)
    source, targets = pairs(config)
    rng = np.random.default_rng(0)
    memory, cache = encoder_decoder.encode(p, source, config, rng=rng)
    kept = cache.embedding_mask
    first = cache.blocks[0].attention
    np.testing.assert_allclose(first.norm.x, p["embed"]["w"][source] * kept / 0.6)
    expected = norms.rms_forward(p["encoder"]["norm"], cache.norm.x, eps=1e-6)[0]
    np.testing.assert_allclose(memory.x, expected * cache.norm_mask / 0.6)
    for mask in (kept, first.mask, cache.blocks[0].mixture.mask, cache.norm_mask):
        assert mask.shape == (2, 9, 12) and 0.4 < mask.mean() < 0.8
    inputs = inputs_of(config, targets)
    hidden_units = SMALL._replace(expert_dropout=0.4)
    p = params(SMALL)
    dropped = logits_of(hidden_units, p, source, inputs, rng=rng)
    assert np.abs(dropped - logits_of(SMALL, p, source, inputs)).max() > 0.01


def test_routers_behave_as_in_training_while_training():
    """Strictly balanced gating has another mask then, also without a generator."""
    config = with_encoder_router("strictly_balanced")
    p = params(config)
    source, targets = pairs(config)
    inputs = inputs_of(config, targets)
    loss, _ = encoder_decoder.loss_and_grads(p, source, targets, config)
    demand = {}
    for training in (True, False):
        _, cache = encoder_decoder.forward(p, source, inputs, config, training=training)
        demand[training] = cache.encoder.blocks[1].mixture.mixture.routing.demand
    np.testing.assert_array_equal(loss.routings[1].demand, demand[True])
    assert (demand[True] != demand[False]).any()


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["expert_choice", "base_assignment", "strictly_balanced"])
def test_routers_that_see_the_future_are_refused_in_the_decoder_alone(name):
    config = SMALL._replace(decoder_router=name, decoder_options={})
    p = params(SMALL)
    source, targets = pairs(SMALL)
    for function in (
        lambda: encoder_decoder.init(np.random.default_rng(0), config),
        lambda: encoder_decoder.forward(p, source, targets, config),
        lambda: encoder_decoder.loss_and_grads(p, source, targets, config),
        lambda: encoder_decoder.encode(p, source, SMALL._replace(router=name)),
    ):
        with pytest.raises(InputError, match=f"router: .*got {name}: .* would see its future"):
            function()


def test_bad_ids():
    p = params(SMALL)
    good = np.zeros((1, 3), int)
    for source, inputs, message in [
        ([[0, 17]], good, "ids: wanted token numbers from 0 to 16, got 17"),
        (good, [[-1, 0]], "ids: wanted token numbers from 0 to 16, got -1"),
        ([0, 1], good, r"source: wanted shape \(B, S\)"),
        (good, [[0.5]], "inputs: wanted integer"),
        (good, np.zeros((2, 3), int), r"inputs: wanted shape \(1, T\)"),
        (np.zeros((1, 33), int), good, "source: wanted 1 to 32 positions, the model's context"),
        (good, np.zeros((1, 0), int), "inputs: wanted 1 to 32 positions, the model's context"),
    ]:
        with pytest.raises(InputError, match=message):
            encoder_decoder.forward(p, source, inputs, SMALL)
    with pytest.raises(InputError, match="source_valid"):
        encoder_decoder.forward(p, good, good, SMALL, source_valid=np.ones((1, 4), bool))
    with pytest.raises(InputError, match="valid"):
        encoder_decoder.forward(p, good, good, SMALL, valid=np.ones((1, 4), bool))
    with pytest.raises(InputError, match="targets: wanted classes from 0 to 16"):
        encoder_decoder.loss_and_grads(p, good, np.array([[1, 2, 17]]), SMALL)


def test_an_error_names_stack_and_layer():
    p = params(SMALL)
    p["decoder"]["layers"][1]["experts"]["w1"][:] = np.nan
    source, targets = pairs(SMALL)
    with pytest.raises(InputError, match=r"decoder, layer 1: params\['w1'\]"):
        encoder_decoder.forward(p, source, inputs_of(SMALL, targets), SMALL)
