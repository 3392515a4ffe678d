"""Quantised experts: what is rounded, its memory, and words that follow the numbers."""

import json

import numpy as np
import pytest

from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.quantised import experiment, runs
from moe_np.experiments.quantised.report import report
from moe_np.models import decoder
from tests.support.decoders import LAYOUTS


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("quantised") as sweep:
        return json.loads(to_json(experiment.run(**experiment.SMOKE, sweep=sweep)))


def test_a_row_per_part_bits_and_group(result):
    rows = [(row["part"], row["bits"], row["group"]) for row in result["summary"]]
    assert rows == [(part, bits, 16) for part in runs.PARTS for bits in (8, 2)]
    shares = {row["share"] for row in result["summary"] if row["part"] == runs.EXPERTS}
    assert shares == {(8 + 2) / 32, (2 + 2) / 32}, "16 weights of 32 bits share 32 bits"


def test_the_added_loss_is_that_of_the_seeds(result):
    row = result["summary"][1]
    added = [r["rows"][1]["loss"] - r["loss"] for r in result["runs"]]
    assert row["added"]["mean"] == pytest.approx(np.mean(added))
    coarse, fine = (max(abs(a) for a in added_of(result, bits)) for bits in (2, 8))
    assert coarse > 5 * fine > 0


def added_of(result, bits):
    for run in result["runs"]:
        for row in run["rows"]:
            if row["bits"] == bits and row["part"] == runs.EXPERTS:
                yield row["loss"] - run["loss"]


def test_what_is_rounded():
    params = decoder.init(np.random.default_rng(0), LAYOUTS["mixtral"])
    for part, experts, routers in (
        (runs.EXPERTS, True, False),
        (runs.BOTH, True, True),
        (runs.ROUTERS, False, True),
    ):
        rounded, share = runs.rounded_model(params, part, 4, 4)
        layer, before = rounded["layers"][0], params["layers"][0]
        assert (layer["experts"] is not before["experts"]) == experts == (share < 1)
        assert np.array_equal(layer["router"]["w"], before["router"]["w"]) != routers


def test_the_reading_names_the_least_memory(result):
    for row in result["summary"]:
        row["added"]["mean"] = 0.001 if row["bits"] == 8 else 0.5
    assert "adds under 1 % to the loss: 8 bits in groups of 16, 0.312 of" in report(result)
    for row in result["summary"]:
        row["added"]["mean"] = 0.5
    assert "Every way to round the experts adds more than 1 % to the loss." in report(result)
