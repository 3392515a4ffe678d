"""The experiment of Chen et al. 2022: specs, results, tables, ablations, and that jobs do not
change bits.
"""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022 import ablation, runs
from moe_np.experiments.common.sweep import Sweep, to_json

SMALL = chen2022.Config(
    n_train=400,
    n_test=300,
    epochs=12,
    single_epochs=6,
    seeds=2,
    experts=3,
    filters=2,
    single_filters=3,
)


@pytest.fixture(scope="module")
def result():
    return chen2022.run(SMALL, sweep=Sweep(progress=False))


def test_result_has_what_the_file_promises(result):
    assert set(result) == {
        "name",
        "config",
        "seeds",
        "setting",
        "variant",
        "models",
        "summary",
        "paper",
        "versions",
    }
    assert set(result["models"]) == set(chen2022.SYSTEMS)
    assert result["seeds"] == [0, 1]
    for model, of in result["models"].items():
        assert len(of["accuracy"]) == len(of["epochs"]) == 2
        assert all(0 <= a <= 100 for a in of["accuracy"])
        assert ("entropy" in of) == model.startswith("moe")
        assert result["summary"][model]["accuracy"][0] == pytest.approx(np.mean(of["accuracy"]))
    mixture = result["models"]["moe_linear"]
    assert [len(e) for e in mixture["entropy_per_epoch"]] == mixture["epochs"]
    assert mixture["entropy"] == [e[-1] for e in mixture["entropy_per_epoch"]]
    json.loads(to_json(result))


def test_seeds_and_variants_differ(result):
    runs = result["models"]["moe_nonlinear"]["entropy_per_epoch"]
    assert runs[0] != runs[1]
    paper = chen2022.run(
        SMALL, variant="paper", only=("moe_nonlinear",), sweep=Sweep(progress=False)
    )
    assert paper["models"]["moe_nonlinear"]["entropy_per_epoch"] != runs
    assert paper["config"]["gate"] == "softmax"


def test_same_bits_with_two_jobs(result, tmp_path):
    with Sweep(tmp_path, jobs=2, progress=False) as sweep:
        again = chen2022.run(SMALL, only=("moe_nonlinear", "single_linear"), sweep=sweep)
    for model, of in again["models"].items():
        assert of == result["models"][model]


def test_settings_three_and_four_have_no_single_models():
    found = chen2022.run(SMALL, setting=3, seeds=1, sweep=Sweep(progress=False))
    assert set(found["models"]) == {"moe_linear", "moe_nonlinear"}


def test_table_puts_published_numbers_beside_ours(result):
    text = chen2022.report(result)
    assert "| mixture, cubic experts | 2 |" in text
    assert "| 99.46 ± 0.55 |" in text
    assert "| 0.098 ± 0.087 |" in text
    assert chen2022.report(result | {"variant": "paper"}).endswith("not the paper's algorithm.\n")


def test_what_a_spec_says_is_what_is_run():
    spec = runs.spec_of(SMALL, "moe_nonlinear", 2, "paper", 7)
    assert (spec["gate"], spec["loss"], spec["norm"], spec["stop"]) == (
        "softmax",
        "once",
        "joint",
        False,
    )
    assert runs.spec_of(SMALL, "moe_nonlinear", 2, "code", 7, **runs.VARIANTS["paper"]) == spec
    assert json.loads(json.dumps(spec)) == spec
    single = [runs.spec_of(SMALL, "single_linear", 1, variant, 0) for variant in runs.VARIANTS]
    assert (
        single[0] == single[1]
    )  # a run of a single network is the same in both variants, and is run once


def test_record():
    spec = runs.spec_of(SMALL, "moe_linear", 1, "code", 0, record=5)
    record = chen2022.run_one(spec)["record"]
    assert [r["epoch"] for r in record] == [0, 5, 10]
    assert np.shape(record[0]["accuracy"]) == (3, 4)
    assert sum(record[1]["load"]) == pytest.approx(1, abs=1e-5)
    assert np.abs(record[0]["router_center"]).max() == 0 < np.abs(record[1]["router_center"]).max()


def test_ablation_rows():
    rows = ablation.run_cases(
        ablation.ablation_cases(), SMALL, seeds=1, sweep=Sweep(progress=False)
    )
    assert [row["row"] for row in rows] == [name for name, _ in ablation.ABLATION]
    usual, plain = rows[0], rows[1]
    assert usual["entropy"] != plain["entropy"]
    still = next(row for row in rows if row["row"] == "router: never moves")
    assert still["entropy"][0] > 1.3
    gates = ablation.run_cases(
        ablation.gate_and_loss_cases(), SMALL, seeds=1, sweep=Sweep(progress=False)
    )
    assert len(gates) == 16
    assert gates[0]["accuracy"] == usual["accuracy"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: chen2022.run(SMALL, setting=5), "setting: wanted one of 1, 2, 3, 4; got 5"),
        (
            lambda: chen2022.run(SMALL, variant="both"),
            "variant: wanted one of code, paper; got 'both'",
        ),
        (lambda: chen2022.run(SMALL, seeds=0), "seeds: wanted a whole number of at least 1, got 0"),
        (lambda: chen2022.run(SMALL, seeds=[]), "seeds: wanted at least one, got none"),
        (
            lambda: runs.spec_of(SMALL, "moe", 1, "code", 0),
            "model: wanted one of single_linear",
        ),
        (
            lambda: runs.spec_of(SMALL, "moe_linear", 1, "code", 0, size=3),
            "changes: wanted names out of .* got size",
        ),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call()


@pytest.mark.slow
def test_published_numbers():
    """Three seeds of setting 1 as published: far apart in entropy, within three standard deviations
    in accuracy.
    """
    found = chen2022.run(seeds=3, only=chen2022.SYSTEMS[2:], sweep=Sweep(progress=False))["summary"]
    for model in chen2022.SYSTEMS[2:]:
        for what in ("accuracy", "entropy"):
            mean, sd = chen2022.PAPER[1][model][what]
            assert abs(found[model][what][0] - mean) < 3 * sd, (model, what, found)
