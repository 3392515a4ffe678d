"""Generation: step by step is the whole pass, sampling cuts where it says, and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.layers import key_values, projections
from moe_np.models import decoder, generation
from tests.support.decoders import GENERATING, LAYOUTS, SMALL, params, text
from tests.support.draws import Constant

every_model = pytest.mark.parametrize("name", GENERATING)


# --- the pass in pieces ---------------------------------------------------------------------------


@every_model
def test_step_by_step_is_the_whole_pass(name):
    config = GENERATING[name]
    p = params(config)
    ids, _ = text(config, B=3, T=15)
    whole, cache = decoder.forward(p, ids, config, training=False)
    logits, state = generation.prefill(p, ids[:, :6], config)
    np.testing.assert_allclose(logits, whole[:, 5], rtol=1e-9, atol=1e-10)
    for t in range(6, 15):
        logits, state = generation.step(p, ids[:, t], state, config)
        np.testing.assert_allclose(logits, whole[:, t], rtol=1e-9, atol=1e-10)
        for routing, block in zip(state.routings, cache.blocks, strict=True):
            demand = block.mixture.routing.demand.reshape(3, 15, -1)[:, t]
            np.testing.assert_array_equal(routing.demand, demand)


@pytest.mark.parametrize("name", ["mixtral", "qwen2", "deepseek"])
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_a_prompt_in_chunks_is_the_prompt(name, chunk):
    config = GENERATING[name]
    p = params(config)
    ids, _ = text(config, B=2, T=15)
    logits, state = generation.prefill(p, ids, config)
    same, chunked = generation.prefill(p, ids, config, chunk=chunk)
    np.testing.assert_allclose(same, logits, rtol=1e-9, atol=1e-10)
    assert chunked.kv[0].length == state.kv[0].length == 15
    for a, b in zip(state.kv, chunked.kv, strict=True):
        np.testing.assert_allclose(a.keys, b.keys, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(a.values, b.values, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("backend")
def test_float32():
    config = LAYOUTS["mixtral"]
    p = params(config, dtype=np.float32)
    ids, _ = text(config, T=12)
    whole, _ = decoder.forward(p, ids, config)
    _, state = generation.prefill(p, ids[:, :5], config)
    for t in range(5, 12):
        logits, state = generation.step(p, ids[:, t], state, config)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, whole[:, t], atol=2e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", ["mixtral", "qwen2", "hashing"])
@pytest.mark.parametrize("chunk", [None, 2])
def test_prompts_of_different_lengths(name, chunk):
    """A shorter prompt with padding before it is what it is alone."""
    config = GENERATING[name]
    p = params(config)
    ids, _ = text(config, B=2, T=9)
    alone, _ = decoder.forward(p, ids[1:, 3:], config)
    valid = np.ones((2, 6), bool)
    valid[1, :3] = False
    logits, state = generation.prefill(p, ids[:, :6], config, valid=valid, chunk=chunk)
    np.testing.assert_allclose(logits[1], alone[0, 2], rtol=1e-9, atol=1e-10)
    for t in range(6, 9):
        logits, state = generation.step(p, ids[:, t], state, config)
        np.testing.assert_allclose(logits[1], alone[0, t - 3], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("prompt", "chunk"), [(1, None), (3, None), (13, None), (13, 5)])
@pytest.mark.parametrize("layout", ["mixtral", "switch"])
def test_a_window_bounds_the_memory_and_changes_no_bit(backend, layout, prompt, chunk, dtype):
    """Beside a cache that keeps all positions; the second layer of "switch" reads all of them."""
    config = GENERATING[layout]
    p = params(config, dtype=dtype)
    ids, _ = text(config, B=2, T=32)
    valid = np.ones((2, prompt), bool)
    valid[1, : prompt // 2] = False
    logits, state = generation.prefill(p, ids[:, :prompt], config, valid=valid, chunk=chunk)
    every = [key_values.empty(2, 3, 32, 4, dtype=dtype) for _ in range(2)]
    for lo in range(0, prompt, chunk or prompt):
        hi = min(prompt, lo + (chunk or prompt))
        facts = {"valid": valid[:, :hi], "training": False, "kv": every}
        x, cache = decoder.hidden(p, ids[:, lo:hi], config, **facts)
    np.testing.assert_array_equal(logits, projections.rows(x[:, -1], cache.head))
    whole = generation.State(every, valid, ())
    for t in range(prompt, 32):
        logits, state = generation.step(p, ids[:, t], state, config)
        expected, whole = generation.step(p, ids[:, t], whole, config)
        np.testing.assert_array_equal(logits, expected)
        rows = [kv.keys.shape[2] for kv in state.kv]
        assert rows == [2 * config.window, 32 if config.full_layers else 2 * config.window]
    with pytest.raises(InputError, match="wanted room for 33 positions, got 32"):
        generation.step(p, ids[:, 0], state, config)


# --- sampling -------------------------------------------------------------------------------------

LOGITS = np.log(np.array([[0.1, 0.4, 0.2, 0.3]]))


def test_errata_34_the_cuts():
    def p(**options):
        return generation.probabilities(LOGITS, **options)[0]

    np.testing.assert_allclose(p(), [0.1, 0.4, 0.2, 0.3])
    np.testing.assert_allclose(p(temperature=0.5), np.array([1, 16, 4, 9]) / 30)
    np.testing.assert_array_equal(p(temperature=0), [0, 1, 0, 0])
    np.testing.assert_allclose(p(top_k=2), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(p(top_k=9), p())
    # the token that crosses is kept
    np.testing.assert_allclose(p(top_p=0.39), [0, 1, 0, 0])
    np.testing.assert_allclose(p(top_p=0.41), [0, 4 / 7, 0, 3 / 7])
    np.testing.assert_allclose(p(top_p=0.71), [0, 4 / 9, 2 / 9, 3 / 9])
    np.testing.assert_allclose(p(top_p=1), p())
    half = np.log(np.array([[0.25, 0.5, 0.25]]))  # exactly reached, nothing has to cross
    np.testing.assert_array_equal(generation.probabilities(half, top_p=0.5)[0], [0, 1, 0])
    # the temperature comes before top-p: 16/30 alone is over .5
    np.testing.assert_allclose(p(temperature=0.5, top_p=0.5), [0, 1, 0, 0])
    np.testing.assert_allclose(p(top_p=0.5), [0, 4 / 7, 0, 3 / 7])
    # and top-k before top-p: 4/7 of the two that are left
    np.testing.assert_allclose(p(top_k=2, top_p=0.5), [0, 1, 0, 0])


def test_errata_34_ties_at_the_cut():
    logits = np.array([[1.0, 3.0, 3.0, 3.0]])
    p = generation.probabilities(logits, top_k=2)[0]
    np.testing.assert_allclose(p, [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(generation.probabilities(logits, temperature=0)[0], [0, 1, 0, 0])
    assert generation.sample(logits, temperature=0)[0] == 1


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=30),
    st.sampled_from([0, 1e-300, 1e-3, 0.7, 1, 50]),
    st.one_of(st.none(), st.integers(1, 40)),
    st.one_of(st.none(), st.floats(1e-6, 1)),
)
def test_probabilities_are_probabilities(logits, temperature, top_k, top_p):
    logits = np.array([logits])
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    p = generation.probabilities(logits, **options)
    assert np.isfinite(p).all() and (p >= 0).all() and p.sum() == pytest.approx(1, abs=1e-12)
    assert np.count_nonzero(p) <= (logits.shape[1] if top_k is None else top_k)
    assert p[0, logits.argmax()] == p.max() > 0
    drawn = generation.sample(logits, np.random.default_rng(0), **options)
    assert p[0, drawn[0]] > 0


def test_what_is_drawn_has_its_frequency():
    rng = np.random.default_rng(0)
    drawn = generation.sample(np.repeat(LOGITS, 20_000, axis=0), rng)
    count = np.bincount(drawn, minlength=4) / 20_000
    np.testing.assert_allclose(count, [0.1, 0.4, 0.2, 0.3], atol=0.012)


@pytest.mark.parametrize("u", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_draw(u):
    p = np.array([[0, 0.3, 0, 0.1 + 0.6, 0]])
    assert generation.draw(p, Constant(u))[0] in (1, 3)


# --- generate -------------------------------------------------------------------------------------


def tokens(**options):
    p = params(SMALL)
    ids, _ = text(SMALL, B=2, T=4)
    return p, ids, generation.generate(p, ids, SMALL, **{"tokens": 8, **options})


def test_greedy_is_the_arg_max_of_the_whole_pass():
    p, ids, iterator = tokens(temperature=0)
    for token in iterator:
        logits, _ = decoder.forward(p, ids, SMALL)
        np.testing.assert_array_equal(token.ids, logits[:, -1].argmax(axis=1))
        np.testing.assert_array_equal(token.probability, 1)
        assert token.routings is None
        ids = np.concatenate([ids, token.ids[:, None]], axis=1)
    assert ids.shape == (2, 12)


def test_the_same_seed_gives_the_same_text():
    texts = []
    for seed in (0, 0, 1):
        _, _, iterator = tokens(rng=np.random.default_rng(seed), top_k=9, top_p=0.9)
        texts.append([token.ids.tolist() for token in iterator])
    assert texts[0] == texts[1] != texts[2] and len(texts[0]) == 8


def test_a_draw_has_the_probabilities_of_the_model_unless_told_otherwise():
    _, _, usual = tokens(rng=np.random.default_rng(0))
    _, _, told = tokens(rng=np.random.default_rng(0), temperature=1.0, top_k=None, top_p=None)
    for token, same in zip(usual, told, strict=True):
        np.testing.assert_array_equal(token.probability, same.probability)


def test_the_probability_of_a_token():
    p, ids, iterator = tokens(rng=np.random.default_rng(0), temperature=0.7, top_k=5)
    for token in iterator:
        logits, _ = decoder.forward(p, ids, SMALL)
        q = generation.probabilities(logits[:, -1], temperature=0.7, top_k=5)
        np.testing.assert_allclose(token.probability, q[[0, 1], token.ids], rtol=1e-8)
        ids = np.concatenate([ids, token.ids[:, None]], axis=1)


def test_the_routing_of_a_token_is_its_own():
    p, ids, iterator = tokens(temperature=0, routing=True)
    every = list(iterator)
    ids = np.concatenate([ids, *(token.ids[:, None] for token in every)], axis=1)
    _, cache = decoder.forward(p, ids, SMALL)
    for i, block in enumerate(cache.blocks):
        whole = block.mixture.routing
        chosen = whole.expert.reshape(2, 12, 2)
        for t, token in enumerate(every):
            np.testing.assert_array_equal(token.routings[i].expert.reshape(2, 2), chosen[:, 4 + t])
    assert len(every) == 8


def test_no_step_is_wasted(monkeypatch):
    """Without routings, the last token is yielded without a step of its own."""
    counts = []
    step = generation.step
    monkeypatch.setattr(generation, "step", lambda *a, **o: counts.append(1) or step(*a, **o))
    assert len(list(tokens(temperature=0)[2])) == 8 and len(counts) == 7
    assert len(list(tokens(temperature=0, routing=True)[2])) == 8 and len(counts) == 15
    assert not list(tokens(temperature=0, tokens=0)[2]) and len(counts) == 15


def test_the_largest_logit_has_all_the_probability():
    """Temperature 0 has a path of its own; a repeated token has the probability that is left."""
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    later = np.array([[5.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    state = generation.State([], None, ())
    options = {"tokens": 2, "temperature": 0, "stop": [1]}
    drawn = list(generation.continuation(lambda *a: (later, state), logits, state, **options))
    np.testing.assert_array_equal([token.ids for token in drawn], [[1, 0], [1, 2]])
    np.testing.assert_array_equal([token.probability for token in drawn], [[1, 1], [0, 1]])
    assert drawn[0].probability.dtype == np.float64
    later[1, 0] = np.nan
    with pytest.raises(InputError, match=r"logits: wanted finite .* nan at index \(1, 0\)"):
        list(generation.continuation(lambda *a: (later, state), logits, state, **options))


def test_stop():
    def drawn(**options):
        every = tokens(rng=np.random.default_rng(5), **options)[2]
        return np.array([token.ids for token in every]).T

    free = drawn()
    stop = free[0, 2]
    n = int((free[0] == stop).argmax())
    assert (free[0, n + 1 :] != stop).any() and stop not in free[1]
    stopped = drawn(stop=[stop])
    np.testing.assert_array_equal(stopped[1], free[1], "the other sequence goes on")
    np.testing.assert_array_equal(stopped[0, : n + 1], free[0, : n + 1])
    assert (stopped[0, n:] == stop).all(), "its last token is repeated"
    both = drawn(stop=[stop, free[1, 3]])
    last = max(n, int((free[1] == free[1, 3]).argmax()))
    assert both.shape[1] == last + 1 < 8


def test_it_is_an_iterator():
    _, _, iterator = tokens(temperature=0)
    assert next(iterator).ids.shape == (2,)
    assert len(list(itertools.islice(iterator, 3))) == 3


def test_the_prompt_has_routings_too():
    p, ids, _ = tokens(temperature=0)
    _, state = generation.prefill(p, ids, SMALL)
    assert len(state.routings) == 2
    assert all(set(routing.token) == set(range(ids.size)) for routing in state.routings)


# --- what is refused ------------------------------------------------------------------------------


def test_prompts_that_do_not_fit():
    p = params(SMALL)
    ids, _ = text(SMALL, B=1, T=8)
    for options, message in [
        (
            {"ids": ids[:, :0]},
            "ids: wanted a prompt of 1 to 32 tokens, for which there is room, got 0",
        ),
        ({"ids": ids[:0]}, "got no sequence"),
        ({"ids": ids[0]}, r"ids: wanted shape \(B, T\)"),
        ({"ids": ids + 0.5}, "ids: wanted integer"),
        ({"ids": np.zeros((1, 33), int)}, "wanted a prompt of 1 to 32 tokens"),
        ({"room": 7}, "wanted a prompt of 1 to 7 tokens"),
        ({"room": 33}, "room: wanted a whole number of at least 1 and at most 32"),
        ({"chunk": 0}, "chunk"),
        ({"ids": ids + 19}, "ids: wanted token numbers"),
        ({"valid": np.arange(8)[None] < 5}, "got padding at its end"),
        ({"valid": np.ones((1, 3), bool)}, "valid"),
    ]:
        arguments = {"ids": ids, **options}
        with pytest.raises(InputError, match=message):
            generation.prefill(p, arguments.pop("ids"), SMALL, **arguments)
    _, state = generation.prefill(p, ids, SMALL, room=9)
    for bad, words in (
        (ids, r"ids: wanted shape \(B,\)"),
        (ids[:, 0] + 0.5, "ids: wanted integer"),
    ):
        with pytest.raises(InputError, match=words):
            generation.step(p, bad, state, SMALL)
    _, state = generation.step(p, ids[:, 0], state, SMALL)
    with pytest.raises(InputError, match="wanted room for 10 positions, got 9"):
        generation.step(p, ids[:, 0], state, SMALL)


def test_generation_that_does_not_fit():
    for options, message in [
        ({"tokens": 29}, "tokens: wanted at most the 28 that the context leaves"),
        ({"tokens": -1}, "tokens"),
        ({"rng": None}, r"rng: wanted a numpy\.random\.Generator"),
        ({"temperature": -1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
    ]:
        with pytest.raises(InputError, match=message):
            tokens(**{"rng": np.random.default_rng(0), **options})


def test_bad_logits():
    with pytest.raises(InputError, match="logits"):
        generation.sample(np.array([[0.0, np.nan]]), np.random.default_rng(0))
    with pytest.raises(InputError, match="rng"):
        generation.sample(LOGITS)


@pytest.mark.parametrize("name", ["expert_choice", "gshard", "strictly_balanced"])
def test_routers_that_see_the_future(name):
    with pytest.raises(InputError, match="would see its future"):
        generation.prefill(params(SMALL), text(SMALL)[0], SMALL._replace(router=name, options={}))


def test_a_capacity_is_refused():
    """With it a step would drop other tokens than the whole pass: here, none."""
    config = LAYOUTS["switch"]
    p = params(config)
    ids, _ = text(config)
    with pytest.raises(InputError, match="wanted no capacity_factor in generation"):
        generation.prefill(p, ids, config)
    _, cache = decoder.forward(p, ids, config)
    assert any(len(block.mixture.routing.token) < ids.size for block in cache.blocks)
    generation.check_router(config._replace(experts=1))  # has no router that would read it
