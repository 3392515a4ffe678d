"""Experts on disk behind a cache: the same outputs and texts, hits and misses, memory, errors."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.models import checkpoints, decoder, generation, safetensors
from moe_np.models.stored_experts import StoredExperts
from moe_np.serving import offload
from moe_np.serving.cache_policies import Counts, simulate
from tests.support.decoders import LAYOUTS

WITH_EXPERTS = ("mixtral", "glam", "deepseek", "olmoe", "qwen2", "qwen3")


def saved(folder, layout="mixtral", dtype=np.float64):
    config = LAYOUTS[layout]
    params = decoder.init(np.random.default_rng(0), config, dtype=dtype)
    checkpoints.save(folder, config, params)
    return config, params


def cached(folder, places, dtype=np.float64, **options):
    """The parameters with so many places in each layer."""
    config, lazy = checkpoints.load(folder, dtype=dtype, lazy=True)
    layers = [
        layer["experts"] for layer in lazy["layers"] if not isinstance(layer["experts"], dict)
    ]
    memory = places * sum(map(offload.expert_bytes, layers))
    return config, *offload.attach(lazy, memory, **options)


@pytest.fixture
def ids():
    return np.random.default_rng(1).integers(0, 19, (2, 9))


@pytest.mark.parametrize("layout", WITH_EXPERTS)
@pytest.mark.parametrize("places", [1, 3, 5])
def test_outputs_are_those_of_all_experts_in_memory(tmp_path, ids, layout, places, backend):
    """Also where the tokens chose more experts than there are places."""
    config, params = saved(tmp_path, layout)
    _, offloaded, caches = cached(tmp_path, places)
    for _ in range(2):
        logits, _ = decoder.forward(offloaded, ids, config)
        np.testing.assert_allclose(logits, decoder.forward(params, ids, config)[0], rtol=1e-9)
    assert all(cache.n_places == places for cache in caches)


@pytest.mark.parametrize("places", [1, 2, 5])
@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_generated_tokens_are_the_same(tmp_path, ids, places, policy, backend):
    config, params = saved(tmp_path, dtype=np.float32)
    _, offloaded, _ = cached(tmp_path, places, np.float32, policy=policy)
    texts = [
        [token.ids.tolist() for token in generation.generate(p, ids, config, tokens=12, rng=rng)]
        for p, rng in ((params, np.random.default_rng(3)), (offloaded, np.random.default_rng(3)))
    ]
    assert texts[0] == texts[1]


def test_bits_are_those_of_experts_that_are_read_each_time(tmp_path, ids):
    config, _ = saved(tmp_path)
    _, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    _, offloaded, _ = cached(tmp_path, 5)
    np.testing.assert_array_equal(
        decoder.forward(offloaded, ids, config)[0], decoder.forward(lazy, ids, config)[0]
    )


def test_hits_and_misses_are_those_of_the_trace(tmp_path, ids):
    config, _ = saved(tmp_path)
    _, offloaded, caches = cached(tmp_path, 3, record=True)
    for _ in generation.generate(offloaded, ids[:1, :1], config, tokens=20, temperature=0):
        pass
    for cache in caches:
        assert len(cache.trace) == 20 and all(len(step) == 2 for step in cache.trace)
        assert cache.places.counts == simulate(cache.trace, 3, "lru")
        assert cache.places.hits > 0
    counts = offload.totals(caches).counts
    assert counts.hits + counts.misses == 2 * 2 * 20


def test_an_expert_in_memory_is_not_read_again(tmp_path, monkeypatch):
    saved(tmp_path)
    _, _, caches = cached(tmp_path, 2)
    cache = caches[0]
    places = cache.lend(np.array([1, 4]))[1]
    size = cache._reader.bytes_read
    assert size == 2 * offload.expert_bytes(cache.stored)
    np.testing.assert_array_equal(cache.lend(np.array([1, 4]))[1], places)
    assert cache._reader.bytes_read == size
    assert cache.places.counts == Counts(2, 2)


def test_the_parameters_are_those_of_the_files(tmp_path):
    _, params = saved(tmp_path, "glam")
    _, _, caches = cached(tmp_path, 2)
    read = caches[1].read(np.array([3, 0]))
    assert set(read) == {"w1", "b1", "w2", "b2"}
    for leaf, array in read.items():
        np.testing.assert_array_equal(array, params["layers"][3]["experts"][leaf][[3, 0]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types_become_that_of_the_parameters(tmp_path, dtype):
    config, params = saved(tmp_path)
    checkpoints.save(tmp_path, config, params, dtype=dtype)
    _, whole = checkpoints.load(tmp_path, dtype=np.float32)
    _, _, caches = cached(tmp_path, 2, np.float32)
    read = caches[1].read(np.array([2]))["w1"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, whole["layers"][1]["experts"]["w1"][[2]])


def test_memory_is_divided_among_the_layers(tmp_path):
    saved(tmp_path)
    size = 3 * 12 * 7 * 8
    _, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    _, caches = offload.attach(lazy, 5 * size)
    assert [cache.n_places for cache in caches] == [3, 2]
    assert offload.totals(caches)[1:] == (5, 10, 5 * size)
    _, caches = offload.attach(lazy, 100 * size)
    assert offload.totals(caches).nbytes == 10 * size, "no more than there are experts"
    with pytest.raises(InputError, match=f"memory: wanted at least {2 * size} bytes, one expert"):
        offload.attach(lazy, 2 * size - 1)


def test_a_model_without_experts_on_disk_is_refused(tmp_path):
    saved(tmp_path, "dense")
    _, lazy = checkpoints.load(tmp_path, lazy=True)
    with pytest.raises(InputError, match="wanted a model with experts on disk, got none"):
        offload.attach(lazy, 1_000_000)


def test_after_a_failed_read_the_expert_is_not_taken_for_read(tmp_path, monkeypatch):
    _, params = saved(tmp_path)
    _, _, caches = cached(tmp_path, 2)
    read = caches[0]._reader.read

    def fail(*place):
        raise InputError("path: it is cut")

    monkeypatch.setattr(caches[0]._reader, "read", fail)
    with pytest.raises(InputError, match="it is cut"):
        caches[0].read(np.array([0, 1]))
    monkeypatch.setattr(caches[0]._reader, "read", read)
    w1 = caches[0].read(np.array([0, 1]))["w1"]
    np.testing.assert_array_equal(w1, params["layers"][0]["experts"]["w1"][:2])


def test_lazy_experts_with_our_names_are_read_one_by_one(tmp_path, ids, monkeypatch):
    config, params = saved(tmp_path, "glam")
    _, lazy = checkpoints.load(tmp_path, dtype=np.float64, lazy=True)
    assert isinstance(lazy["layers"][0]["experts"], dict), "a dense layer"
    assert isinstance(lazy["layers"][1]["experts"], StoredExperts)
    indices = []
    read = safetensors.Reader.read
    monkeypatch.setattr(
        safetensors.Reader,
        "read",
        lambda self, name, index=None: indices.append(index) or read(self, name, index),
    )
    logits, _ = decoder.forward(lazy, ids, config)
    np.testing.assert_allclose(logits, decoder.forward(params, ids, config)[0], rtol=1e-9)
    assert indices and None not in indices
