"""The experiment of Chen et al. 2022: specs, results, report, ablation, and the same bits from any
number of jobs.
"""

import json

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import chen2022
from moe_np.experiments.chen2022 import ablation, published_numbers, runs
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


def test_the_result_has_what_the_docstring_says(result):
    names = ("name", "config", "seeds", "setting", "variant", "models", "summary", "paper")
    assert set(result) == {*names, "versions"}
    assert set(result["models"]) == set(chen2022.SYSTEMS)
    assert result["seeds"] == [0, 1]
    for model, lists in result["models"].items():
        assert len(lists["accuracy"]) == len(lists["epochs"]) == 2
        assert all(0 <= accuracy <= 100 for accuracy in lists["accuracy"])
        assert ("entropy" in lists) == model.startswith("moe")
        mean, _ = result["summary"][model]["accuracy"]
        assert mean == pytest.approx(np.mean(lists["accuracy"]))
    mixture = result["models"]["moe_linear"]
    assert [len(e) for e in mixture["entropy_per_epoch"]] == mixture["epochs"]
    assert mixture["entropy"] == [e[-1] for e in mixture["entropy_per_epoch"]]
    json.loads(to_json(result))


def test_seeds_and_variants_differ(result):
    entropies = result["models"]["moe_nonlinear"]["entropy_per_epoch"]
    assert entropies[0] != entropies[1]
    only = ("moe_nonlinear",)
    paper = chen2022.run(SMALL, variant="paper", only=only, sweep=Sweep(progress=False))
    assert paper["models"]["moe_nonlinear"]["entropy_per_epoch"] != entropies
    assert paper["config"]["gate"] == "softmax"


@pytest.mark.slow
def test_same_bits_with_two_jobs(result, tmp_path):
    with Sweep(tmp_path, jobs=2, progress=False) as sweep:
        parallel = chen2022.run(SMALL, only=("moe_nonlinear", "single_linear"), sweep=sweep)
    for model, lists in parallel["models"].items():
        assert lists == result["models"][model]


def test_settings_three_and_four_have_no_single_models():
    result = chen2022.run(SMALL, setting=3, seeds=1, sweep=Sweep(progress=False))
    assert set(result["models"]) == {"moe_linear", "moe_nonlinear"}


def test_table_puts_published_numbers_beside_ours(result):
    text = chen2022.report(result)
    assert "| mixture, cubic experts | 2 |" in text
    assert "| 99.46 ± 0.55 |" in text
    assert "| 0.098 ± 0.087 |" in text
    assert chen2022.report(result | {"variant": "paper"}).endswith("not the paper's algorithm.\n")


def test_a_spec_holds_the_options_of_its_variant():
    spec = runs.spec_of(SMALL, "moe_nonlinear", 2, "paper", 7)
    options = [spec[name] for name in ("gate", "loss", "norm", "stop")]
    assert options == ["softmax", "once", "joint", False]
    assert runs.spec_of(SMALL, "moe_nonlinear", 2, "code", 7, **runs.VARIANTS["paper"]) == spec
    assert json.loads(json.dumps(spec)) == spec
    single = [runs.spec_of(SMALL, "single_linear", 1, variant, 0) for variant in runs.VARIANTS]
    # a run of a single network is the same in both variants, and is run once
    assert single[0] == single[1]


def test_record():
    spec = runs.spec_of(SMALL, "moe_linear", 1, "code", 0, record=5)
    record = chen2022.run_one(spec)["record"]
    assert [r["epoch"] for r in record] == [0, 5, 10]
    assert np.shape(record[0]["accuracy"]) == (3, 4)
    assert sum(record[1]["load"]) == pytest.approx(1, abs=1e-5)
    assert np.abs(record[0]["router_center"]).max() == 0 < np.abs(record[1]["router_center"]).max()


def test_ablation_rows():
    options = {"config": SMALL, "seeds": 1, "sweep": Sweep(progress=False)}
    results = ablation.run_cases(ablation.ablation_cases(), **options)
    rows = {result["row"]: result for result in results}
    assert list(rows) == [name for name, _ in ablation.ABLATION]
    published = rows["as published"]
    gradient_descent = rows["experts: plain gradient descent, same learning rate"]
    assert published["entropy"] != gradient_descent["entropy"]
    assert rows["router: never moves"]["entropy"][0] > 1.3
    gates = ablation.run_cases(ablation.gate_and_loss_cases(), **options)
    assert len(gates) == 16
    assert gates[0]["accuracy"] == published["accuracy"]


@pytest.mark.parametrize(
    ("call", "words"),
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
def test_bad_input(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.slow
def test_published_numbers():
    """Three seeds of setting 1 as published: far apart in entropy, within three standard deviations
    in accuracy.
    """
    result = chen2022.run(seeds=3, only=chen2022.SYSTEMS[2:], sweep=Sweep(progress=False))
    for model in chen2022.SYSTEMS[2:]:
        for measure in ("accuracy", "entropy"):
            mean, sd = chen2022.PAPER[1][model][measure]
            ours, _ = result["summary"][model][measure]
            assert abs(ours - mean) < 3 * sd, (model, measure, result["summary"])


# --- the marks of published numbers ---------------------------------------------------------------


def test_second_hand_numbers_are_marked_and_stand_beside_the_notebooks(result):
    text = chen2022.report(result)
    assert (
        f"| 68.71{published_numbers.MARK} |" in text
        and f"| 79.48{published_numbers.MARK} |" in text
    )
    assert "| 92.99 ± 2.11 |" in text, "the notebook of setting 1 has it"
    assert "68.22 and 77.38 (setting 2)" in text and "**not** come out" in text
    for setting, models in published_numbers.PAPER.items():
        for model in models:
            is_single = model.startswith("single")
            assert bool(published_numbers.mark(setting, model)) == is_single


def test_the_papers_other_evidence_is_quoted():
    text = published_numbers.other_evidence()
    assert text.count("second-hand") == 1 and "number is not known" in text
    for number in ("93.81 ± 1.10", "99.39 ± 0.33", "CNN 76.78 and 79.60", "74.13 and 76.22"):
        assert number in text
