"""Continuous batching: each request has the tokens that it has alone, and times that add up."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import decoder, generation
from moe_np.serving.batching import Batch, serve
from moe_np.serving.requests import Request
from tests.support.decoders import LAYOUTS


def model(layout="mixtral", **changes):
    config = LAYOUTS[layout]._replace(**changes)
    params = decoder.init(np.random.default_rng(0), config)
    for leaf in params["head"].values() if "head" in params else [params["embed"]["w"]]:
        leaf *= 30  # confident enough for rounding not to decide
    return params, config


def requests_of(n=12, vocabulary=19, context=32, apart=1.5):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, context // 2, n)
    return [
        Request(apart * i, rng.integers(0, vocabulary, T), int(rng.integers(1, context - T)), i)
        for i, T in enumerate(lengths.tolist())
    ]


def alone(params, config, request, temperature):
    rng = np.random.default_rng(request.seed)
    drawn = generation.generate(
        params,
        request.prompt[None],
        config,
        tokens=request.tokens,
        rng=rng,
        temperature=temperature,
    )
    return [int(token.ids[0]) for token in drawn]


class Ticks:
    """A clock on which every computation takes a second."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return float(self.calls // 2)


@pytest.mark.parametrize("layout", ["mixtral", "glam", "deepseek", "qwen2", "qwen3", "dense"])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_tokens_are_those_of_each_request_alone(layout, temperature, backend):
    params, config = model(layout)
    requests = requests_of()
    served, log = serve(params, config, requests, most=4, temperature=temperature, clock=Ticks())
    for request, result in zip(requests, served, strict=True):
        assert result.ids == alone(params, config, request, temperature)
    assert log.mean_batch > 2, "they were computed together"
    assert log.tokens == sum(request.tokens for request in requests)


def test_logits_are_those_of_the_whole_pass_wherever_a_sequence_lies():
    """Joins, moves in both directions, and removals; in float64."""
    config = LAYOUTS["mixtral"]
    params = decoder.init(np.random.default_rng(0), config, dtype=np.float64)
    rng = np.random.default_rng(2)
    batch = Batch(params, config, 3)
    texts = []

    def join(T):
        texts.append(rng.integers(0, 19, T))
        compare(batch.add(texts[-1]), texts[-1])

    def compare(logits, text):
        wanted, _ = decoder.forward(params, text[None], config)
        np.testing.assert_allclose(logits, wanted[0, -1], rtol=1e-8, atol=1e-10)

    def step(times):
        for _ in range(times):
            ids = rng.integers(0, 19, len(texts))
            texts[:] = [np.append(text, i) for text, i in zip(texts, ids, strict=True)]
            for logits, text in zip(batch.step(ids), texts, strict=True):
                compare(logits, text)

    join(5)
    step(2)
    join(12)  # longer than the frame: the first one moves to the right
    step(4)
    join(3)
    step(6)
    batch.remove(1)
    texts[1] = texts[-1]
    texts.pop()
    step(12)  # beyond the context: all move to the left
    assert len(batch) == 2 and len(texts[0]) == 29


def test_times_add_up():
    """One second per prompt and per step; the second request waits for the first one's place."""
    params, config = model()
    prompt = np.array([1, 2])
    requests = [Request(10.0, prompt, 3), Request(10.5, prompt, 1), Request(40.0, prompt, 2)]
    served, log = serve(params, config, requests, most=1, temperature=0, clock=Ticks())
    assert [(s.first, s.finished) for s in served] == [(11.0, 13.0), (14.0, 14.0), (41.0, 42.0)]
    assert [s.wait for s in served] == [1.0, 3.5, 1.0]
    assert served[0].latency == 3.0
    assert log == (3, 1.0, 32.0, 6)


def test_the_order_given_is_the_order_returned():
    params, config = model()
    requests = requests_of()
    backwards, _ = serve(params, config, requests[::-1], clock=Ticks())
    forwards, _ = serve(params, config, requests, clock=Ticks())
    assert backwards[::-1] == forwards


def test_a_place_is_free_after_the_last_token():
    params, config = model()
    together = [Request(0.0, np.array([3]), 4, n) for n in range(6)]
    _, log = serve(params, config, together, most=2, clock=Ticks())
    assert log.steps == 9 and log.mean_batch == 2


def test_refusals():
    params, config = model()
    with pytest.raises(InputError, match="requests: wanted at least one, got none"):
        serve(params, config, [])
    with pytest.raises(InputError, match=r"requests\[0\]: wanted a prompt of 1 to 12 tokens"):
        serve(params, config, [Request(0.0, np.arange(13), 20)])
    with pytest.raises(InputError, match="the tokens of a request: "):
        serve(params, config, [Request(0.0, np.arange(3), 0)])
    params, config = model("switch")
    with pytest.raises(InputError, match="wanted no capacity_factor in generation"):
        serve(params, config, [Request(0.0, np.arange(3), 2)])
