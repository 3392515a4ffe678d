"""Bad input to every router and to the layer after it: one line that states what came and what was
wanted.
"""

import inspect

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import contract, expert_choice, gshard, hashing, st_moe, switch
from tests.support.chain import every, make_experts, over, refused
from tests.support.routers import CASES, Case, route, setup


@over({n: c for n, c in CASES.items() if {"k", "k_primary"} & set(c.options)})
@pytest.mark.parametrize(
    ("k", "words"), [(5, "at most .*got 5"), (0, "at least 1, got 0"), (1.5, "got 1.5")]
)
def test_errors_of_k(case, k, words):
    name = "k" if "k" in case.options else "k_primary"
    refused(case, *setup(case), rf"{name}.*: wanted .*({words})", **{name: k})


@pytest.mark.parametrize(
    ("case", "options"),
    [
        (CASES["top_k renormalised"], {"k": 1}),
        (CASES["bias_balanced"], {"k": 1}),
        (CASES["kmeans renormalised"], {"k": 1}),
        (CASES["noisy_top_k"], {"k": 1}),
        (CASES["hierarchical"], {"k_primary": 1, "k_secondary": 1}),
    ],
    ids=lambda v: "" if isinstance(v, dict) else v.router.__name__.rpartition(".")[2],
)
def test_errata_04_k_1_renormalised(case, options):
    refused(case, *setup(case), "learns nothing|gradient", **options)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_errors_of_non_finite_tokens(case, bad):
    params, x = setup(case)
    x[7, 2] = bad
    refused(case, params, x, rf"x: wanted finite numbers, got {bad} at index \(7, 2\)")


@over({n: c for n, c in CASES.items() if c.router is not hashing})
def test_errors_of_the_type(case):
    params, x = setup(case)
    refused(case, params, x.astype(np.float32), "x: wanted float64, the type of params")
    refused(case, params, x.astype(str), "x: wanted floating point numbers")
    expert_params = make_experts()
    routing, _ = route(case, params, x)
    with pytest.raises(InputError, match="x: wanted float64, the type of params"):
        sparse_layer.forward(expert_params, x.astype(np.float32), routing, experts.GELU)


LIMITED = {"switch": switch, "gshard": gshard, "st_moe": st_moe, "expert_choice": expert_choice}


@pytest.mark.parametrize("router", LIMITED.values(), ids=LIMITED.keys())
@pytest.mark.parametrize("factor", [0, -0.5, np.nan, np.inf, "2", True])
def test_errors_of_the_capacity_factor(router, factor):
    case = Case(router, {"capacity_factor": 1.0})
    words = "capacity_factor: wanted a finite number above 0"
    refused(case, *setup(case), words, capacity_factor=factor)


def test_every_router_with_a_capacity_is_among_them():
    routers = {c.router for c in CASES.values() if c.router is not hashing}
    options = {router: inspect.signature(router.route).parameters for router in routers}
    assert {r for r in routers if "capacity_factor" in options[r]} == set(LIMITED.values())
    assert contract.capacity(10, 4, 1, np.float32(1.5)) == 4, "any real number will do"
