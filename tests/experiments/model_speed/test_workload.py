"""What is timed in the bench of whole models: counts, floors, and this package as a contestant."""

import numpy as np
import pytest

from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.experiments.model_speed import decoder_contestants, workload
from moe_np.experiments.model_speed.workload import Workload
from moe_np.models import decoder

TINY = {what: Workload(what, 64, 2, 6, 2, 4, 50) for what in ("train", "prefill", "generate")}


def test_the_dense_model_has_as_many_operations():
    for w in TINY.values():
        mixture, dense = workload.operations(w), workload.operations(w, dense=True)
        router = 2 * w.d * w.experts * w.layers * (mixture / mixture)
        tokens = w.tokens + (w.batch * workload.PROMPT if w.what == "generate" else 0)
        assert mixture - dense == router * tokens * (3 if w.what == "train" else 1)


def test_operations_of_a_step():
    """3 · 2 · N · (projections, router, two experts, head) and attention, counted by hand."""
    w = Workload("train", 128, 16, 128)
    per_layer = 128 * (128 + 64 + 64 + 128) + 128 * 8 + 2 * 3 * 128 * 256
    attention = 2 * 4 * 32 * (128 + 1) / 2
    per_token = 4 * (per_layer + attention) + 128 * 4096
    assert workload.operations(w) == 6 * 2048 * per_token


def test_the_floor_is_operations_or_bytes():
    w = TINY["generate"]
    assert workload.floor(w, Peaks(1e3, 1e12)) == workload.operations(w) / 1e3
    assert workload.floor(w, Peaks(1e12, 1e3)) == workload.bytes_read(w) / 1e3
    leaves = workload.params_of(w)
    experts = sum(p.size for layer in leaves["layers"] for p in layer["experts"].values())
    every = 4 * (workload.bytes_read(TINY["train"]) / 4)
    one = workload.bytes_read(w._replace(batch=1)) / w.length
    assert one == pytest.approx(every - 4 * experts * (1 - 2 / 4))


@pytest.mark.seconds
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("contestant", ["mixture", "dense"])
def test_this_package_computes_what_it_says(contestant):
    prepare = getattr(decoder_contestants, contestant)
    dense = contestant == "dense"
    call, loss = prepare(TINY["train"])
    assert loss == pytest.approx(np.log(50), abs=0.5)
    for _ in range(20):
        last = call()
    assert last < loss, "it learns"
    call, logits = prepare(TINY["prefill"])
    w = TINY["prefill"]
    ids, _ = workload.text_of(w)
    params = workload.params_of(w, dense)
    expected, _ = decoder.forward(params, ids, workload.config_of(w, dense))
    np.testing.assert_array_equal(call(), expected)
    np.testing.assert_array_equal(logits, expected[0, -1])
    call, first = prepare(TINY["generate"])
    assert call().shape == (2, 6)
    np.testing.assert_array_equal(call()[:, 0], first)
