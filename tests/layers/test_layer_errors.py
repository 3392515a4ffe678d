"""Bad input to every router and to the layer after it: one line that states what came and what was
wanted.
"""

import inspect

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.layers import experts, sparse_layer
from moe_np.routing import (
    capacity_top_k,
    contract,
    expert_choice,
    gshard,
    hashing,
    st_moe,
    switch,
    top_k,
)
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
LIMITED["capacity_top_k"] = capacity_top_k


@pytest.mark.parametrize("router", LIMITED.values(), ids=LIMITED.keys())
@pytest.mark.parametrize("factor", [0, -0.5, np.nan, np.inf, "2", True])
def test_errors_of_the_capacity_factor(router, factor):
    case = Case(router, {**router.EXAMPLE, "capacity_factor": 1.0})
    words = "capacity_factor: wanted a finite number above 0"
    refused(case, *setup(case), words, capacity_factor=factor)


def test_every_router_with_a_capacity_is_among_them():
    routers = {c.router for c in CASES.values() if c.router is not hashing}
    options = {router: inspect.signature(router.route).parameters for router in routers}
    assert {r for r in routers if "capacity_factor" in options[r]} == set(LIMITED.values())
    assert contract.capacity(10, 4, 1, np.float32(1.5)) == 4, "any real number will do"


BACKENDS = pytest.mark.parametrize("backend", ["", "numpy"])
CHANGES = {
    "b1": lambda p: p[:, :1],
    "b2": lambda p: p[:, :2],
    "w2": lambda p: p[:, :-1],
    "w1": lambda p: p[:, :, None],
    "w3": lambda p: p[:, :, :1],
}


@BACKENDS
@pytest.mark.parametrize("kind", ["relu", "gelu", "swiglu"])
@pytest.mark.parametrize("name", CHANGES)
def test_parameters_that_do_not_fit_together_are_refused(monkeypatch, backend, kind, name):
    """The compiled loops read outside of the arrays: results of 1e306, or a crash."""
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    expert = {"relu": experts.RELU, "gelu": experts.GELU, "swiglu": experts.SWIGLU}[kind]
    rng = np.random.default_rng(0)
    params = expert.init(rng, 6, 4, 8)
    if name not in params:
        pytest.skip(f"{kind} has no {name}")
    params[name] = np.ascontiguousarray(CHANGES[name](params[name]))
    x, w = rng.normal(size=(20, 6)), rng.normal(size=(6, 4))
    routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
    with pytest.raises(InputError, match=r"^params\['\w+'\]: wanted"):
        sparse_layer.forward(params, x, routing, expert)


@BACKENDS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["w1", "b1", "w2", "b2"])
def test_parameters_that_are_not_finite_are_refused(monkeypatch, backend, name, bad):
    """ReLU makes 0 of −inf, so that the output does not show it."""
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = experts.RELU.init(rng, 6, 4, 8)
    x, w = rng.normal(size=(20, 6)), rng.normal(size=(6, 4))
    routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
    params[name][2, ..., 1] = bad
    with pytest.raises(InputError, match=rf"^params\['{name}'\]: wanted finite numbers, got"):
        sparse_layer.forward(params, x, routing, experts.RELU)


@BACKENDS
def test_an_output_that_overflows_is_refused(monkeypatch, backend):
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = {k: (p + 1).astype("f4") for k, p in experts.RELU.init(rng, 6, 4, 8).items()}
    x = np.full((20, 6), 1e30, np.float32)
    routing, _ = top_k.route({"w": np.zeros((6, 4), "f4")}, x, k=2, renormalise=True)
    params["w1"] *= np.float32(1e20)
    with pytest.raises(InputError, match="x: wanted numbers for which the layer's output is below"):
        sparse_layer.forward(params, x, routing, experts.RELU)


@BACKENDS
@pytest.mark.parametrize("dtype", [np.float16, ">f8", ">f4"])
def test_types_without_a_compiled_loop_run_in_numpy(monkeypatch, backend, dtype):
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = {k: p.astype(dtype) for k, p in experts.GELU.init(rng, 6, 4, 8).items()}
    x, w = rng.normal(size=(20, 6)).astype(dtype), rng.normal(size=(6, 4)).astype(dtype)
    routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
    out, cache = sparse_layer.forward(params, x, routing, experts.GELU)
    exact = {name: p.astype(float) for name, p in params.items()}
    routing = routing._replace(weight=routing.weight.astype(float))
    wanted, _ = sparse_layer.forward(exact, x.astype(float), routing, experts.GELU)
    np.testing.assert_allclose(out.astype(float), wanted, atol=64 * float(np.finfo(out.dtype).eps))
    assert out.dtype == np.dtype(dtype).newbyteorder("=")
    assert all(np.isfinite(a).all() for a in sparse_layer.backward(out, cache)[1].values())


def test_long_double_is_refused_in_one_line():
    """SciPy has no erf of long doubles."""
    rng = np.random.default_rng(0)
    params = experts.GELU.init(rng, 6, 4, 8, dtype=np.longdouble)
    x, w = rng.normal(size=(20, 6)), rng.normal(size=(6, 4))
    routing, _ = top_k.route({"w": w}, x, k=2, renormalise=True)
    routing = routing._replace(weight=routing.weight.astype(np.longdouble))
    with pytest.raises(InputError, match=r"^x: wanted float64 or a shorter type here"):
        sparse_layer.forward(params, x.astype(np.longdouble), routing, experts.GELU)


def test_a_routing_is_taken_as_lists_and_refused_as_anything_else():
    rng = np.random.default_rng(0)
    params, x = experts.GELU.init(rng, 6, 4, 8), rng.normal(size=(20, 6))
    routing, _ = top_k.route({"w": rng.normal(size=(6, 4))}, x, k=2, renormalise=True)
    out, _ = sparse_layer.forward(params, x, routing, experts.GELU)
    lists = contract.Routing(*(a.tolist() for a in routing))
    np.testing.assert_array_equal(sparse_layer.forward(params, x, lists, experts.GELU)[0], out)
    for bad in (None, tuple(routing), routing.token, routing._replace(demand=None)):
        with pytest.raises(InputError, match="routing"):
            sparse_layer.forward(params, x, bad, experts.GELU)
    for bad in (None, [params], {}, {"w1": params["w1"]}, dict.fromkeys(params, 1)):
        with pytest.raises(InputError, match="params"):
            sparse_layer.forward(bad, x, routing, experts.GELU)
