"""Published systems: the rows, the differences that are printed, and what the report says."""

import json

import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import published_systems
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.published_systems.measurements import Config, deep_ep, row_bytes


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
        return published_systems.run(sweep=sweep)


def test_the_bandwidth_terms_are_those_of_the_printed_sizes():
    """128 tokens of 8 rows of 7168 numbers: 7.57 MB in 8 bits with scales, 14.68 MB in 16."""
    dispatch, combine = (128 * 8 * width for width in row_bytes(Config()))
    assert (round(dispatch / 1e6, 2), round(combine / 1e6, 2)) == (7.57, 14.68)
    wire = (1 - 8 / 64) * dispatch / 50e9 * 1e6
    assert round(wire) == 132


def test_deep_ep_is_one_latency_and_the_wire(result):
    rows = result["systems"]["DeepEP"]["rows"]
    fitted = result["systems"]["DeepEP"]["fitted"]
    assert fitted["α of dispatch, µs"] == pytest.approx(44, abs=3)
    assert fitted["α of combine, µs"] == pytest.approx(65, abs=6)
    worst = {
        name: max(abs(r["model"] / r["published"] - 1) for r in rows if r["what"].startswith(name))
        for name in ("dispatch", "combine")
    }
    assert worst["dispatch"] < 0.035
    assert worst["combine"] < 0.095
    assert len(rows) == 10


def test_the_other_systems(result):
    (row,) = result["systems"]["DeepSpeed-MoE"]["rows"]
    assert row["published"] == pytest.approx(5.31, abs=0.01)
    assert row["model"] == pytest.approx(5.15, abs=0.01)
    first = result["systems"]["Switch"]["rows"][0]
    assert first["published"] == 1000
    assert first["model"] == pytest.approx(954, abs=2)
    step = result["systems"]["DeepSeek service"]["rows"][0]
    assert 0.4 < step["model"] / step["published"] < 1


def test_a_fit_finds_its_own_latency(monkeypatch):
    machine = {n: (30 + (1 - 8 / n) * 151.4, 90 + (1 - 8 / n) * 293.6) for n in (16, 64, 256)}
    monkeypatch.setitem(published_systems.PAPER, "DeepEP", machine)
    dispatch, combine = deep_ep(Config())["fitted"].values()
    assert (dispatch, combine) == (pytest.approx(30, abs=0.2), pytest.approx(90, abs=0.2))


def test_the_report_has_every_number_with_its_difference(result):
    text = published_systems.report(result)
    rows = [row for run in result["systems"].values() for row in run["rows"]]
    assert text.count("\n|") >= len(rows) + 1
    assert "+" in text and "| 173 |" in text
    assert "one-hot products" in text
    assert json.loads(to_json(result))["paper"]["DeepEP"]["64"] == [173, 314]


def test_one_system_can_be_chosen_and_unknown_ones_are_refused():
    with Sweep(jobs=1, progress=False) as sweep:
        result = published_systems.run(sweep=sweep, only=("Switch",))
    assert list(result["systems"]) == ["Switch"]
    assert "DeepEP" not in published_systems.report(result)
    with pytest.raises(InputError, match="only: wanted one of DeepEP"):
        published_systems.specs(only=("GShard",))
