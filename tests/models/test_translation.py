"""The translation model: the gradient of the whole, padding, teacher forcing, what is reported."""

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.base.params import flatten, leaves, map_leaves, unflatten
from moe_np.layers import cross_entropy
from moe_np.models import translation, translation_config, translation_decoder, translation_encoder
from tests.support import decoders

NOISY = translation.Config(
    source_vocabulary=6,
    target_vocabulary=7,
    d_model=4,
    experts=3,
    expert_hidden=5,
    hidden=5,
    options={"k": 2},
    decoder_options={"k": 2},
)
CONFIGS = {
    "noisy": NOISY,
    "dropout": NOISY._replace(dropout=0.3),
    "dense": NOISY._replace(experts=1),
    "not causal in the encoder": NOISY._replace(
        router="expert_choice", options={"capacity_factor": 2.0}
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def problem(config, B=3, S=4, T=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    params = translation.init(rng, config, dtype=dtype)
    params = map_leaves(lambda p: (p + 0.4 * rng.normal(size=p.shape)).astype(dtype), params)
    source = rng.integers(0, config.source_vocabulary, (B, S))
    targets = rng.integers(0, config.target_vocabulary, (B, T))
    source_valid = np.ones((B, S), bool)
    source_valid[1, 2:] = False
    targets[2, 1:] = -1
    for array in (*leaves(params).values(), source, targets, source_valid):
        array.flags.writeable = False
    return params, source, targets, source_valid


@pytest.mark.seconds
@pytest.mark.parametrize(
    "config",
    [
        NOISY,
        pytest.param(CONFIGS["dropout"], marks=pytest.mark.slow),
        pytest.param(CONFIGS["dense"], marks=pytest.mark.slow),
        CONFIGS["not causal in the encoder"],
    ],
    ids=CONFIGS,
)
def test_gradient_of_the_whole(config):
    """Over all leaves of encoder and decoder, noise and dropout frozen."""
    params, source, targets, source_valid = problem(config)
    defaults = [translation.PAPER_LOSSES, translation.PAPER_LOSSES]
    if config.router != "noisy_top_k":
        defaults[0] = defaults[0][:1]
    losses = tuple(tuple((2.0, loss) for _, loss in part) for part in defaults)

    def run(params):
        return translation.loss_and_grads(
            params,
            source,
            targets,
            config,
            start=0,
            losses=losses,
            source_valid=source_valid,
            smoothing=0.1,
            rng=np.random.default_rng(4),
        )

    def loss(arrays):
        vector = np.concatenate([arrays[path].ravel() for path in arrays])
        measured, _ = run(unflatten(vector, params))
        return measured.task + sum(measured.balance)

    measured, grads = run(params)
    assert leaves(grads).keys() == leaves(params).keys()
    assert measured.tokens == 7 and len(measured.balance) == len(measured.terms) == 2
    errors = gradcheck.gradient_error(
        loss, leaves(params), leaves(grads), np.random.default_rng(3), step=1e-4
    )
    assert max(errors.values()) < 1e-7


def test_forward_and_backward_are_the_pair_that_the_loss_uses():
    params, source, targets, source_valid = problem(NOISY)
    options = {"source_valid": source_valid}
    measured, grads = translation.loss_and_grads(
        params,
        source,
        targets,
        NOISY,
        start=0,
        losses=((), ()),
        rng=np.random.default_rng(1),
        **options,
    )
    inputs = translation.shift_right(targets, 0)
    rng = np.random.default_rng(1)
    logits, cache = translation.forward(
        params, source, inputs, NOISY, valid=targets >= 0, rng=rng, **options
    )
    task, entropy = cross_entropy.forward(logits.reshape(-1, 7), targets.ravel())
    assert task == pytest.approx(measured.task, rel=1e-13)
    dlogits = cross_entropy.backward(1.0, entropy).reshape(logits.shape)
    same = leaves(translation.backward(dlogits, cache))
    for path, g in leaves(grads).items():
        np.testing.assert_allclose(same[path], g, rtol=1e-10, atol=1e-15)


def test_teacher_forcing_shifts_the_targets():
    """Pitfall 30: the start token first, the last target is not an input, padding is no −1."""
    targets = np.array([[5, 6, 2], [4, 2, -1]])
    assert translation.shift_right(targets, 1).tolist() == [[1, 5, 6], [1, 4, 2]]
    assert translation.shift_right(np.array([[3, -1, -1]]), 1).tolist() == [[1, 3, 1]]
    assert translation.shift_right(np.zeros((2, 0), int), 1).shape == (2, 0)


@every_config
def test_no_position_sees_a_later_target(config):
    params, source, _, _ = problem(config)
    inputs = np.array([[1, 2, 3]] * 3)
    logits, _ = translation.forward(params, source, inputs, config)
    changed = inputs.copy()
    changed[:, 1] = 5
    other, _ = translation.forward(params, source, changed, config)
    np.testing.assert_allclose(other[:, 0], logits[:, 0], rtol=1e-13)
    assert np.abs(other[:, 1:] - logits[:, 1:]).max() > 1e-4


def test_padding_of_the_source_changes_nothing():
    """Pitfall 30: a padded source gives the logits of the short one, whatever stands in it."""
    params, source, _, source_valid = problem(NOISY)
    inputs = np.array([[1, 2, 3]] * 3)
    logits, cache = translation.forward(params, source, inputs, NOISY, source_valid=source_valid)
    short, _ = translation.forward(params, source[1:2, :2], inputs[:1], NOISY)
    np.testing.assert_allclose(logits[1:2], short, rtol=1e-12)
    changed = source.copy()
    changed[1, 2:] = (source[1, 2:] + 1) % 6
    other, _ = translation.forward(params, changed, inputs, NOISY, source_valid=source_valid)
    assert np.array_equal(other, logits)
    tokens = cache.encoder.mixture.mixture.routing.token
    assert set(tokens) == set(np.flatnonzero(source_valid))


def test_padding_of_the_targets_is_not_routed_and_not_in_the_loss():
    params, source, targets, _ = problem(NOISY)
    rng = np.random.default_rng(0)
    measured, _ = translation.loss_and_grads(params, source, targets, NOISY, start=0, rng=rng)
    assert set(measured.routings[1].token) == set(np.flatnonzero(targets >= 0))
    assert measured.tokens == 7


def test_the_first_layer_reads_in_both_directions():
    """The first position of the memory depends on the last token of the source."""
    params, source, _, source_valid = problem(NOISY)
    changed = source.copy()
    changed[0, 3] = (source[0, 3] + 1) % 6
    memories = [
        translation_encoder.forward(params["encoder"], ids, NOISY, valid=source_valid)[0]
        for ids in (source, changed)
    ]
    assert np.abs(memories[0][0, 0] - memories[1][0, 0]).max() > 1e-4
    np.testing.assert_array_equal(memories[0][1:], memories[1][1:])


def test_float32_stays_float32():
    params, source, targets, source_valid = problem(NOISY, dtype=np.float32)
    rng = np.random.default_rng(0)
    measured, grads = translation.loss_and_grads(
        params, source, targets, NOISY, start=0, source_valid=source_valid, rng=rng
    )
    assert {g.dtype for g in leaves(grads).values()} == {np.dtype("float32")}
    assert np.isfinite(flatten(grads)).all() and np.isfinite(measured.task)
    assert set(measured.terms[0]) == {"importance", "load"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder_router": "expert_choice"}, "later tokens do not decide on earlier ones"),
        ({"router": "best"}, "router: wanted one of"),
        ({"d_model": 5}, "config.d_model: wanted an even number, got 5"),
        ({"experts": 0}, "config.experts: wanted a whole number of at least 1"),
        ({"dropout": -1}, "config.dropout: wanted a finite number"),
    ],
)
def test_bad_configs(change, message):
    params, source, _, _ = problem(NOISY)
    config = NOISY._replace(**change)
    with pytest.raises(InputError, match=message):
        translation_config.init(np.random.default_rng(0), config)
    with pytest.raises(InputError, match=message):
        translation.forward(params, source, source, config)


def test_a_config_of_another_model_is_refused():
    with pytest.raises(InputError, match=r"config: wanted a translation\.Config, got"):
        translation_config.init(np.random.default_rng(0), decoders.SMALL)


def test_bad_input():
    params, source, targets, _ = problem(NOISY)
    with pytest.raises(InputError, match="ids: wanted token numbers from 0 to 5, got 6"):
        translation.forward(params, source * 0 + 6, source, NOISY)
    with pytest.raises(InputError, match="targets: wanted shape"):
        translation.loss_and_grads(params, source, targets[:1], NOISY, start=0)
    late = np.array([[True] * 4, [True, False, True, True], [True] * 4])
    with pytest.raises(InputError, match=r"source_valid: .* a token behind it in row 1"):
        translation.forward(params, source, source, NOISY, source_valid=late)
    with pytest.raises(InputError, match="valid: wanted padding at the end, got a token behind"):
        translation.forward(params, source, source, NOISY, valid=late)
    with pytest.raises(InputError, match="start: wanted a whole number of at least 0"):
        translation.shift_right(targets, -1)
    logits, cache = translation.forward(params, source, source, NOISY)
    with pytest.raises(InputError, match=r"dlogits: wanted shape \(3, 4, 7\), got \(4, 3, 7\)"):
        translation.backward(logits.swapaxes(0, 1), cache)
    memory, _ = translation_encoder.forward(params["encoder"], source, NOISY)
    assert memory.shape == (3, 4, 4) and translation_decoder.State._fields == ("attentive", "lstm2")
