"""What holds for every kind of expert: gradients, one row at a time, experts without rows, shared
parameters, what is refused.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import experts
from tests.support.experts import cases, setup, step_without_kink

every_case = pytest.mark.parametrize("case", cases().values(), ids=cases())


def errors(case, seed=0, **options):
    """The relative error of each gradient."""
    params, rows, offsets = setup(case, seed, **options)
    if case.kinks:
        params = {**params, "b1": params["b1"] + 0.05}
    step = step_without_kink(case, params, rows, offsets)

    def forward(p, x):
        return case.expert.forward(p, x, offsets)

    rng = np.random.default_rng(seed + 1)
    return pair_error(forward, case.expert.backward, params, rows, rng, step=step)


@every_case
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_gradient(case, seed, count):
    relative = errors(case, seed, count=tuple(count))
    assert max(relative.values()) < 1e-7, relative


@every_case
def test_gradient_of_shared_parameters(case):
    relative = errors(case, share=case.share)
    assert max(relative.values()) < 1e-7, relative


@every_case
def test_shared_parameters_are_the_repeated_ones(case):
    """Repeat a shared parameter for every expert: the outputs stay, the gradients add up to the
    shared one.
    """
    params, rows, offsets = setup(case)
    name = min(params)
    shared = {**params, name: params[name][:1]}
    repeated = {**params, name: np.repeat(params[name][:1], 4, axis=0)}
    y, cache = case.expert.forward(shared, rows, offsets)
    y2, cache2 = case.expert.forward(repeated, rows, offsets)
    np.testing.assert_array_equal(y, y2)
    dx, grads = case.expert.backward(y, cache)
    dx2, grads2 = case.expert.backward(y, cache2)
    np.testing.assert_array_equal(dx, dx2)
    assert grads[name].shape == params[name][:1].shape
    np.testing.assert_allclose(grads[name][0], grads2[name].sum(axis=0), rtol=1e-12)


@every_case
def test_a_row_goes_through_the_expert_of_its_block(case):
    params, rows, offsets = setup(case)
    y, _ = case.expert.forward(params, rows, offsets)
    for m in range(4):
        alone = {name: p[m] for name, p in params.items()}
        for a in range(offsets[m], offsets[m + 1]):
            np.testing.assert_allclose(y[a], case.one_row(alone, rows[a]), rtol=1e-9)


@every_case
def test_an_expert_without_rows_gets_a_gradient_of_zero(case):
    params, rows, offsets = setup(case)
    y, cache = case.expert.forward(params, rows, offsets)
    _, grads = case.expert.backward(np.ones_like(y), cache)
    for g in grads.values():
        assert (g[1] == 0).all() and (g[2] != 0).any()


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_types_and_read_only_input(case, dtype):
    params, rows, offsets = setup(case, dtype=dtype)
    for a in (rows, offsets, *params.values()):
        a.flags.writeable = False
    y, cache = case.expert.forward(params, rows, offsets)
    assert y.dtype == dtype and y.shape == (9, case.d_out)
    y.flags.writeable = False
    dx, grads = case.expert.backward(y, cache)
    assert dx.dtype == dtype and dx.shape == rows.shape
    wanted = {name: (p.shape, dtype) for name, p in params.items()}
    assert {name: (g.shape, g.dtype) for name, g in grads.items()} == wanted


@every_case
def test_no_rows(case):
    params, rows, offsets = setup(case, count=(0, 0))
    y, cache = case.expert.forward(params, rows, offsets)
    dx, grads = case.expert.backward(y, cache)
    assert y.shape[0] == dx.shape[0] == 0 and all((g == 0).all() for g in grads.values())


@every_case
def test_integer_rows_are_numbers_like_others(case):
    """Their outputs are not rounded to integers."""
    params, rows, offsets = setup(case)
    rows = np.round(3 * rows).astype(int)
    y, _ = case.expert.forward(params, rows, offsets)
    np.testing.assert_array_equal(y, case.expert.forward(params, rows.astype(float), offsets)[0])
    assert (y % 1 != 0).any()


@every_case
def test_rows_and_offsets_are_checked(case):
    params, rows, _ = setup(case, count=(2, 0, 4))
    for bad in ([0, 2, 2, 7], [0, 3, 2, 6], [1, 2, 2, 6], [6], [0, 2, 4, 5, 6]):
        with pytest.raises(InputError, match=r"offsets: wanted|params"):
            case.expert.forward(params, rows, np.array(bad))
    with pytest.raises(InputError, match="rows: wanted"):
        case.expert.forward(params, rows[..., :-1], np.array([0, 2, 2, 6]))


@pytest.mark.parametrize("name", ["LINEAR", "RELU", "GELU", "SWIGLU", "CUBIC"])
def test_rows_are_checked(name):
    """Integer rows gave integers: every output was truncated to 0."""
    expert = getattr(experts, name)
    rng = np.random.default_rng(0)
    params = expert.init(rng, 5, 3, 4)
    shape = (6, 2, 5) if name == "CUBIC" else (6, 5)
    rows = rng.integers(-3, 3, shape)
    offsets = np.array([0, 2, 2, 6])
    y, _ = expert.forward(params, rows, offsets)
    np.testing.assert_array_equal(y, expert.forward(params, rows.astype(float), offsets)[0])
    assert (y % 1 != 0).any()
    for bad in ([0, 2, 2, 7], [0, 3, 2, 6], [1, 2, 2, 6], [6], [0, 2, 4, 5, 6]):
        with pytest.raises(InputError, match=r"offsets: wanted|params"):
            expert.forward(params, rows, np.array(bad))
    with pytest.raises(InputError, match="rows: wanted"):
        expert.forward(params, rows[..., :-1], offsets)
