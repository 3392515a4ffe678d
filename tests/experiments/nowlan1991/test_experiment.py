import dataclasses
import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.base.machine import one_blas_thread
from moe_np.data.speech import ten_vowels as data
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.nowlan1991 import experiment as vowels
from moe_np.experiments.nowlan1991 import report
from moe_np.mixtures import jacobs1991 as model

SHORT = vowels.Config(steps=20, experts=4, hidden=4)


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
        return vowels.run(SHORT, seeds=2, sweep=sweep, quick=True)


def test_a_result_has_what_the_contract_says(result):
    assert json.loads(to_json(result)) == json.loads(to_json(result))
    assert result["name"] == "nowlan1991" and result["seeds"] == [0, 1]
    assert len(result["cells"]) == 6
    for cell in result["cells"]:
        assert len(cell["runs"]) == 2 and cell["lr"] == 0.1
        assert all(0 <= r[k] <= 100 for r in cell["runs"] for k in ("train", "test"))
        assert ("of vowel" in cell["runs"][0]) == (cell["system"] == "mixture")
    table = vowels.table(result)
    for words in (
        "(13.9)",
        "(23.3)",
        "(6.4)",
        "(15.4)",
        "front vowels share an expert",
        "Chosen, because we do not know",
    ):
        assert words in table
    assert "| F1, F2 + speaker |" in table


def test_a_run_is_its_spec(result):
    cell = result["cells"][2]
    config = vowels.quick_config(SHORT)
    with one_blas_thread():
        again = vowels.run_one(vowels.spec_of(config, cell["row"], cell["system"], 1, cell["lr"]))
    assert again == cell["runs"][1] != cell["runs"][0]


def test_every_row_trains():
    for row in vowels.ROWS:
        for system in row.systems:
            spec = vowels.spec_of(dataclasses.replace(SHORT, steps=3), row.name, system, 0, 0.1)
            found = vowels.run_one(spec)
            assert 0 < found["train"] < 100
            assert ("sigma" in spec) == (system == "mixture")
    assert len(vowels.BY_NAME) == len(vowels.ROWS)
    assert all(row.like is None or row.like in vowels.BY_NAME for row in vowels.ROWS)


def test_sigma_narrows_to_its_value():
    spec = vowels.spec_of(vowels.Config(), "F1, F2; σ narrows", "mixture", 0, 0.1)
    widths = vowels.widths(spec)
    assert len(widths) == 600 and widths[0] == 2.0 and widths[-1] == widths[361] == 0.25
    assert np.all(np.diff(widths) <= 0) and len(set(widths)) <= 31
    assert set(vowels.widths(vowels.spec_of(vowels.Config(), "F1, F2", "mixture", 0, 0.1))) == {
        0.25
    }


def test_the_step_size_is_the_one_with_the_lowest_training_error(monkeypatch):
    def fake(spec):
        return {
            "train": {"mixture": abs(spec["lr"] - 0.03), "backprop": spec["lr"]}[spec["system"]],
            "test": 0,
        }

    monkeypatch.setattr(vowels, "run_one", fake)
    with Sweep(jobs=1, progress=False) as sweep:
        lr = vowels.explore(SHORT, vowels.ROWS, sweep)
    assert lr["F1, F2", "mixture"] == 0.03 and lr["F1, F2", "backprop"] == 0.01
    assert lr["F1, F2; σ narrows", "mixture"] == 0.03 and len(lr) == sum(
        len(r.systems) for r in vowels.ROWS
    )


def test_gradient_of_the_net():
    rng = np.random.default_rng(0)
    params, z, d = (
        model.init_net(rng, 4, 3, 5, init_range=0.8),
        rng.normal(size=(6, 3)),
        np.eye(5)[rng.integers(5, size=6)],
    )
    errors = gradient_error(
        lambda p: vowels.net_loss(p, z, d)[0], params, vowels.net_loss(params, z, d)[1], rng
    )
    assert max(errors.values()) < 1e-7, errors


def test_allocation_by_hand():
    vowel = np.repeat(np.arange(10), 4)
    expert = np.where(vowel < 4, 1, 0)
    expert[0] = 2  # one token of the first vowel elsewhere
    found = vowels.allocation(expert, vowel)
    assert found["of vowel"] == [1] * 4 + [0] * 6 and found["in use"] == 2
    assert found["front"] == pytest.approx((6 * 0.75 + 6) / 12) and found["front and back"] == 0
    assert data.NAMES[:4] == data.FRONT


def test_the_reference_separates_what_it_can():
    train, test = vowels.reference("F1 F2")
    assert 20 < train < 28 and 20 < test < 28
    assert vowels.reference("F1 F2 F3")[0] < train - 5


def test_verdicts_come_from_the_numbers(result):
    ours = json.loads(to_json(result))
    for cell in ours["cells"]:
        published = vowels.BY_NAME[cell["row"]].published
        i = vowels.SYSTEMS.index(cell["system"])
        for r, shift in zip(cell["runs"], (-0.1, 0.1), strict=True):
            r["train"] = vowels.PAPER["training"][published][i] + shift
            r["test"] = (vowels.PAPER["generalisation"][published][i] or 9.0) + shift
            if i == 0:
                r["of vowel"] = [3] * 4 + list(range(6))
    table = vowels.table(ours)
    assert all("does **not** come out" not in report.nearest(ours, i) for i in (0, 1))
    assert "does **not** come out" in report.nearest(result, 0) and "not see how two" in table
    assert "comes out in every row" in table and "share an expert**: in 6 of 6 runs" in table


@pytest.mark.parametrize("bad", [{"system": "linear"}, {"row": "F9"}])
def test_an_unknown_choice_is_refused(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        vowels.run_one({**vowels.spec_of(SHORT, "F1, F2", "mixture", 0, 0.1), **bad})


@pytest.mark.slow
def test_the_gate_does_the_work_and_is_told_who_speaks():
    """With the speaker's identity the error falls by half; at σ = .25 about one expert for each
    vowel is in use.
    """
    config = vowels.Config(steps=250)
    with one_blas_thread():
        plain, told = (
            vowels.run_one(vowels.spec_of(config, row, "mixture", 0, 0.1))
            for row in ("F1, F2", "F1, F2 + speaker")
        )
    assert 21 < plain["test"] < 27 and told["test"] < 0.6 * plain["test"]
    assert plain["in use"] > 7 and told["in use"] > 7
