"""The contestants of the bench of whole models compute the same: loss, logits, first tokens."""

import numpy as np
import pytest

from moe_np.experiments.model_speed import (
    decoder_contestants,
    torch_decoder,
    transformers_decoder,
)
from moe_np.experiments.model_speed.workload import Workload

pytest.importorskip("torch")
pytest.importorskip("transformers", "5.0")

pytestmark = pytest.mark.parity
PEERS = {
    "torch": torch_decoder.eager,
    "transformers eager": transformers_decoder.eager,
    "transformers grouped_mm": transformers_decoder.grouped,
    "transformers batched_mm": transformers_decoder.batched,
}


@pytest.mark.parametrize("what", ["train", "prefill", "generate"])
@pytest.mark.parametrize("peer", PEERS)
def test_it_is_our_model(peer, what):
    w = Workload(what, 128, 2, 9, 2, 4, 60)
    call, result = PEERS[peer](w)
    ours, expected = decoder_contestants.mixture(w)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    if what == "generate":
        np.testing.assert_array_equal(call(), ours())
    if what == "train" and peer == "torch":  # the same loss, clipping and update
        for _ in range(4):
            np.testing.assert_allclose(call(), ours(), rtol=1e-4)
