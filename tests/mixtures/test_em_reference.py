"""Log likelihoods at least as high as R's flexmix and mixtools reach on the same data with the same
models.

The reference numbers are in tests/reference/em, with the R script that made them and the script
that prints the table.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent / "reference_em"


def module(name):
    spec = importlib.util.spec_from_file_location(f"em_reference_{name}", HERE / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


compare, make_data = module("compare"), module("make_data")
SLOW = ("rings", "coins", "four_vowels")
TASKS = [
    pytest.param(task, id=task["name"], marks=[pytest.mark.slow] if task["data"] in SLOW else [])
    for task in compare.tasks()
]


@pytest.mark.parametrize("task", TASKS)
def test_at_least_as_likely_as_r(task):
    values = [
        v for v in compare.reference()["tasks"][task["name"]]["log_likelihoods"] if v is not None
    ]
    fit, _ = compare.ours(task)
    assert fit.log_likelihood >= max(values) - 1e-6 * abs(max(values))


def test_models_have_as_many_parameters_as_theirs():
    """Counted by hand from flexmix's and mixtools' documentation."""
    wanted = {
        "pieces, flexmix": 8,
        "planes, flexmix": 32,
        "lines, flexmix": 11,
        "lines, regmixEM arbvar=FALSE": 9,
    }
    wanted |= {
        "clouds, flexmix FLXMCmvnorm": 19,
        "coins, logisregmixEM": 5,
        "rings, flexmix FLXMRmultinom": 24,
    }
    for task in compare.tasks():
        if task["name"] in wanted:
            fit, _ = compare.ours(task, restarts=1, tol=1.0)
            assert fit.n_parameters() == wanted[task["name"]], task["name"]


@pytest.mark.parametrize("number", range(len(make_data.SETS)))
def test_data_are_those_of_the_seeds(number):
    make = make_data.SETS[number]
    x, y = make(np.random.default_rng(number + 1))
    rows = np.loadtxt(HERE / "data" / f"{make.__name__}.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(rows, np.hstack([x, y]), rtol=1e-5, atol=1e-12)
