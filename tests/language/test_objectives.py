"""What is asked of a window: the same targets from the same tokens, whichever the model."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.language import objectives
from moe_np.models import decoder, encoder_decoder

DECODER = decoder.Config(20, 8, 2, 2, 1, 4, experts=3, hidden=8)
SWITCH = encoder_decoder.Config(20, 8, 2, 2, 2, 4, experts=3, hidden=8)
IDS = np.random.default_rng(0).integers(0, 20, (2, 9))
IDS, TARGETS = IDS[:, :-1], IDS[:, 1:]


def params_of(module, config):
    return module.init(np.random.default_rng(1), config, dtype=np.float64)


def loss_of(logits, targets):
    highest = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(axis=-1)) + highest[..., 0]
    return (log_sum - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]).mean()


@pytest.mark.parametrize(("module", "config"), [(decoder, DECODER), (encoder_decoder, SWITCH)])
def test_training_and_evaluation_have_the_same_loss(module, config):
    params = params_of(module, config)
    rng = np.random.default_rng(2)
    losses, _ = objectives.loss_and_grads(module, params, IDS, TARGETS, config, rng)
    logits, targets = objectives.logits_and_targets(module, params, IDS, TARGETS, config)
    assert losses.task == pytest.approx(loss_of(logits, targets), rel=1e-10)
    assert losses.tokens == targets.size


def test_the_encoder_reads_the_first_half_and_the_decoder_writes_the_rest():
    params = params_of(encoder_decoder, SWITCH)
    logits, targets = objectives.logits_and_targets(encoder_decoder, params, IDS, TARGETS, SWITCH)
    np.testing.assert_array_equal(targets, TARGETS[:, 3:])
    inputs = np.concatenate([[[SWITCH.start]] * 2, IDS[:, 4:]], axis=1)
    wanted, _ = encoder_decoder.forward(params, IDS[:, :4], inputs, SWITCH)
    np.testing.assert_array_equal(logits, wanted)
    assert objectives.predicts_all(decoder)
    assert not objectives.predicts_all(encoder_decoder)


def test_a_target_that_is_not_counted_is_read_all_the_same():
    params = params_of(encoder_decoder, SWITCH)
    hidden = TARGETS.copy()
    hidden[:, :4] = -1
    shown = objectives.logits_and_targets(encoder_decoder, params, IDS, TARGETS, SWITCH)[0]
    np.testing.assert_array_equal(
        objectives.logits_and_targets(encoder_decoder, params, IDS, hidden, SWITCH)[0], shown
    )


def test_numbers_that_are_too_large_outside_of_the_layers_are_named():
    params = params_of(encoder_decoder, SWITCH)
    params["decoder"]["layers"][-1]["experts"]["w2"] *= 1e200
    with pytest.raises(InputError, match=r"^embedding, last norm or head: x: wanted .* finite"):
        objectives.loss_and_grads(encoder_decoder, params, IDS, TARGETS, SWITCH, None)
