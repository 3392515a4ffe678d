"""Log likelihoods at least as high as those of R's flexmix and mixtools, on the same data with the
same models.

The reference numbers are in reference_em/, with the R script that made them and the script that
prints the table.
"""

import importlib.util
import pathlib

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent / "reference_em"


def load_script(name):
    spec = importlib.util.spec_from_file_location(f"em_reference_{name}", HERE / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


compare = load_script("compare")
make_data = load_script("make_data")
SLOW = ("rings", "coins", "four_vowels")
TASKS = [
    pytest.param(task, id=task["name"], marks=[pytest.mark.slow] if task["data"] in SLOW else [])
    for task in compare.tasks()
]


@pytest.mark.parametrize("task", TASKS)
def test_at_least_as_likely_as_r(task):
    values = compare.reference()["tasks"][task["name"]]["log_likelihoods"]
    best = max(v for v in values if v is not None)
    fit, _ = compare.ours(task)
    assert fit.log_likelihood >= best - 1e-6 * abs(best)


def test_models_have_as_many_parameters_as_those_of_r():
    """Counted by hand from flexmix's and mixtools' documentation."""
    wanted = {
        "pieces, flexmix": 8,
        "planes, flexmix": 32,
        "lines, flexmix": 11,
        "lines, regmixEM arbvar=FALSE": 9,
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
