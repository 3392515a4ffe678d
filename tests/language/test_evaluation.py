"""Perplexity and bits per byte against what they are by hand."""

import math

import numpy as np
import pytest

from moe_np.data.text import tokenisers
from moe_np.language import evaluation

BYTES = tokenisers.train("bytes", "", 256)
TOKENS = BYTES.encode("In principio era el Verbo, ¡y el Verbo era con Dios!")


def uniform(ids, targets):
    return np.zeros((*ids.shape, 256)), targets


def test_a_uniform_model_needs_eight_bits_per_byte():
    found = evaluation.evaluate(uniform, TOKENS, BYTES, length=8, batch=3)
    assert found.tokens == len(TOKENS) - 1
    assert found.bytes == len(TOKENS) - 1
    assert found.perplexity == pytest.approx(256)
    assert found.bits_per_byte == pytest.approx(8)


@pytest.mark.parametrize("length", [4, 7, 64])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_of_pairs_loses_the_same_in_every_division_into_windows(length, batch):
    table = np.random.default_rng(0).normal(size=(256, 256))
    found = evaluation.evaluate(
        lambda ids, targets: (table[ids], targets), TOKENS, BYTES, length=length, batch=batch
    )
    logits = table[TOKENS[:-1]]
    right = np.take_along_axis(logits, TOKENS[1:, None], axis=1)[:, 0]
    nats = (np.log(np.exp(logits).sum(axis=1)) - right).sum()
    assert found.nats == pytest.approx(nats, rel=1e-12)
    assert found.perplexity == pytest.approx(math.exp(nats / (len(TOKENS) - 1)))
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / (len(TOKENS) - 1))


def test_bits_per_byte_do_not_depend_on_the_vocabulary():
    """The same uniform loss per byte through tokens of several bytes."""
    text = "abababababababab"
    pairs = tokenisers.train("byte_pairs", text, 257)
    tokens = pairs.encode(text)
    found = evaluation.evaluate(
        lambda ids, targets: (np.zeros((*ids.shape, pairs.size)), targets), tokens, pairs, length=4
    )
    assert found.bytes == 2 * found.tokens == len(text) - 2
    assert found.bits_per_byte == pytest.approx(math.log2(257) / 2)


def test_a_loss_that_is_too_large_for_exp_is_an_infinite_perplexity():
    assert evaluation.Evaluation(1e4, 1, 1).perplexity == math.inf


def test_a_model_that_predicts_from_the_first_half_leaves_out_the_first_half_of_the_text():
    found = evaluation.evaluate(uniform, TOKENS, BYTES, length=8, first_whole=False)
    assert found.tokens == found.bytes == len(TOKENS) - 5
    assert found.bits_per_byte == pytest.approx(8)
    with pytest.raises(ValueError, match="tokens: wanted more than half a window of 8, got 5"):
        evaluation.evaluate(uniform, TOKENS[:5], BYTES, length=8, first_whole=False)
