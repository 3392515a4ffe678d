"""Beam search: greedy against a naive loop, a wide beam against all sentences, bad input."""

import itertools

import numpy as np
import pytest

from moe_np.base import numerics, optim
from moe_np.base.checks import InputError
from moe_np.base.params import map_leaves
from moe_np.models import beam_search, translation

CONFIG = translation.Config(
    source_vocabulary=6,
    target_vocabulary=4,
    d_model=4,
    experts=3,
    expert_hidden=5,
    hidden=5,
    options={"k": 2},
    decoder_options={"k": 2},
)
START, END = 0, 1


def problem(seed=0, B=5, S=4, config=CONFIG):
    rng = np.random.default_rng(seed)
    params = translation.init(rng, config, dtype=np.float64)
    params = map_leaves(lambda p: p + 0.5 * rng.normal(size=p.shape), params)
    source = rng.integers(0, config.source_vocabulary, (B, S))
    source_valid = np.ones((B, S), bool)
    source_valid[1, 2:] = False
    return params, source, source_valid


def log_probabilities(params, source, valid, tokens):
    """log p of each token of a sentence, from the whole model with teacher forcing."""
    inputs = np.array([[START, *tokens[:-1]]])
    logits, _ = translation.forward(params, source[None], inputs, CONFIG, source_valid=valid[None])
    log_p = numerics.log_softmax(logits[0])
    return log_p[np.arange(len(tokens)), list(tokens)], log_p


@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_is_the_best_token_at_every_position(seed):
    params, source, valid = problem(seed)
    found = beam_search.translate(
        params, source, CONFIG, start=START, end=END, longest=6, source_valid=valid
    )
    for b, result in enumerate(found):
        tokens = []
        while len(tokens) < 6:
            _, log_p = log_probabilities(params, source[b], valid[b], [*tokens, START])
            tokens.append(int(log_p[-1].argmax()))
            if tokens[-1] == END:
                break
        each, _ = log_probabilities(params, source[b], valid[b], tokens)
        assert result.ended == (tokens[-1] == END)
        assert result.tokens == (tokens[:-1] if result.ended else tokens)
        assert result.log_probability == pytest.approx(each.sum(), rel=1e-9)
    assert len({len(result.tokens) for result in found}) > 1


@pytest.mark.parametrize(("alpha", "lengths"), [(0.0, [1, 2]), (1.0, [3, 2])])
def test_a_wide_beam_meets_the_best_of_all_sentences(alpha, lengths):
    params, source, valid = problem(seed=26, B=2)
    longest = 4
    found = beam_search.translate(
        params,
        source,
        CONFIG,
        start=START,
        end=END,
        longest=longest,
        beam=200,
        length_penalty=alpha,
        source_valid=valid,
    )
    assert [len(result.tokens) for result in found] == lengths
    for b, result in enumerate(found):
        best = (-np.inf, None)
        for length in range(longest):
            for words in itertools.product([0, 2, 3], repeat=length):
                each, _ = log_probabilities(params, source[b], valid[b], [*words, END])
                best = max(best, (each.sum() / ((6 + length) / 6) ** alpha, list(words)))
        assert result.tokens == best[1] and result.ended
        assert result.score == pytest.approx(best[0], rel=1e-9)


def test_a_beam_is_not_worse_than_greedy_here():
    """Of sentences that end; a search that is cut has another measure."""
    params, source, valid = problem(seed=1)
    options = {"start": START, "end": END, "longest": 8, "source_valid": valid}
    greedy, wide = (
        beam_search.translate(params, source, CONFIG, beam=beam, length_penalty=0, **options)
        for beam in (1, 4)
    )
    ended = [b for b in range(len(source)) if greedy[b].ended]
    assert len(ended) >= 3 and all(result.ended for result in wide)
    assert all(wide[b].score >= greedy[b].score - 1e-12 for b in ended)
    assert any(wide[b].score > greedy[b].score + 1e-3 for b in ended)


def test_a_sentence_does_not_depend_on_the_rest_of_the_batch():
    params, source, valid = problem()
    options = {"start": START, "end": END, "longest": 5, "beam": 3}
    together = beam_search.translate(params, source, CONFIG, source_valid=valid, **options)
    for b in range(len(source)):
        (alone,) = beam_search.translate(
            params, source[b : b + 1, : valid[b].sum()], CONFIG, **options
        )
        assert alone.tokens == together[b].tokens
        assert alone.score == pytest.approx(together[b].score, rel=1e-9)


def test_a_sentence_without_an_end_is_cut():
    params, source, valid = problem()
    head = params["decoder"]["head"]["w"].copy()
    head[:, END] = 0
    head[:, 2] = 0
    embed = np.abs(params["decoder"]["embed"]["w"])
    params["decoder"] |= {"head": {"w": head * 0}, "embed": {"w": embed}}
    found = beam_search.translate(
        params, source, CONFIG, start=START, end=END, longest=3, source_valid=valid
    )
    assert all(result.tokens == [0, 0, 0] and not result.ended for result in found)
    assert found[0].log_probability == pytest.approx(3 * np.log(1 / 4))


def test_a_router_with_a_capacity_is_refused():
    """The order among other sentences would decide."""
    options = {"capacity_factor": 1.25}
    config = CONFIG._replace(decoder_router="switch", decoder_options=options)
    params, source, _ = problem(config=config)
    with pytest.raises(InputError, match=r"config\.decoder_options: wanted a router without a cap"):
        beam_search.translate(params, source, config, start=START, end=END, longest=3)
    config = config._replace(decoder_options={})
    assert len(beam_search.translate(params, source, config, start=0, end=1, longest=3)) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 4}, "start: wanted a whole number of at least 0 and at most 3, got 4"),
        ({"end": -1}, "end: wanted a whole number"),
        ({"longest": 0}, "longest: wanted a whole number of at least 1"),
        ({"beam": 0}, "beam: wanted a whole number of at least 1"),
        ({"length_penalty": -1}, "length_penalty: wanted a finite number of at least 0"),
    ],
)
def test_bad_input(change, message):
    params, source, _ = problem()
    options = {"start": START, "end": END, "longest": 3} | change
    with pytest.raises(InputError, match=message):
        beam_search.translate(params, source, CONFIG, **options)


# --- a whole run ----------------------------------------------------------------------------------


def sentences(rng, n, longest=6, vocabulary=10):
    """Random sentences and the same turned round: source, its mask, targets with an end token."""
    length = rng.integers(2, longest + 1, n)
    valid = np.arange(longest) < length[:, None]
    source = np.where(valid, rng.integers(2, vocabulary, (n, longest)), 0)
    targets = np.full((n, longest + 1), -1)
    for b, size in enumerate(length):
        targets[b, :size] = source[b, :size][::-1]
        targets[b, size] = END
    return source, valid, targets


@pytest.mark.slow
def test_it_learns_to_turn_sentences_round():
    """Encoder, experts, attention, decoder, loss, optimiser and search together."""
    config = translation.Config(
        source_vocabulary=10,
        target_vocabulary=10,
        d_model=32,
        experts=4,
        expert_hidden=32,
        hidden=32,
        options={"k": 2},
        decoder_options={"k": 2},
    )
    rng = np.random.default_rng(0)
    params = translation.init(rng, config)
    state = None
    updates = 400
    for number in range(updates):
        source, valid, targets = sentences(rng, 32)
        _, grads = translation.loss_and_grads(
            params, source, targets, config, start=START, source_valid=valid, rng=rng
        )
        scale = optim.clip_scale(optim.global_norm(grads), 1.0)
        lr = optim.warmup_cosine(number, peak=1e-2, warmup=20, total=updates, final=1e-3)
        params, state = optim.adamw(params, grads, state, lr=lr, scale=scale, in_place=True)
    source, valid, targets = sentences(np.random.default_rng(9), 100)
    found = beam_search.translate(
        params, source, config, start=START, end=END, longest=8, source_valid=valid
    )
    right = [
        result.tokens == [token for token in row if token > END]
        for result, row in zip(found, targets.tolist(), strict=True)
    ]
    assert np.mean(right) > 0.9
