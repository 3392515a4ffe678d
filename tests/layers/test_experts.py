"""Stacked experts: gradients, a naive loop over rows, experts without rows, shared parameters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import experts
from moe_np.models import patch_cnn

H = 6
KINDS = {
    "linear": (experts.LINEAR, (3,)),
    "relu": (experts.RELU, (H, 3)),
    "gelu": (experts.GELU, (H, 3)),
    "swiglu": (experts.SWIGLU, (H, 3)),
    "cubic": (experts.CUBIC, (2,)),
}
every = pytest.mark.parametrize("kind", KINDS)


def setup(kind, seed=0, count=(3, 0, 5, 1), d_model=4, share=(), dtype=np.float64):
    """(expert, params away from zero, rows, offsets): `count` rows for each expert."""
    rng = np.random.default_rng(seed)
    expert, sizes = KINDS[kind]
    params = expert.init(rng, d_model, len(count), *sizes, share=share)
    params = {k: (p + 0.3 * rng.normal(size=p.shape)).astype(dtype) for k, p in params.items()}
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    shape = (offsets[-1], 3, d_model) if kind == "cubic" else (offsets[-1], d_model)
    return expert, params, rng.normal(size=shape).astype(dtype), offsets


def errors(kind, seed=0, **options):
    expert, params, rows, offsets = setup(kind, seed, **options)
    if kind == "relu":  # no kink within reach of the difference
        _, cache = expert.forward(params, rows, offsets)
        params = {**params, "b1": params["b1"] + 0.05}
        _, cache = expert.forward(params, rows, offsets)
        near = np.abs(cache.z).min(initial=1)
        step = min(1e-3, near / 50)
    else:
        step = 1e-3
    return pair_error(
        lambda p, x: expert.forward(p, x, offsets),
        expert.backward,
        params,
        rows,
        np.random.default_rng(seed + 1),
        step=step,
    )


@every
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_gradient(kind, seed, count):
    found = errors(kind, seed, count=tuple(count))
    assert max(found.values()) < 1e-7, found


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("linear", ("w",)),
        ("relu", ("w1", "b1")),
        ("gelu", ("w2", "b2")),
        ("swiglu", ("w1", "w3")),
        ("cubic", ("w",)),
    ],
)
def test_gradient_of_shared_parameters(kind, share):
    found = errors(kind, share=share)
    assert max(found.values()) < 1e-7, found


@every
def test_shared_parameters_are_the_repeated_ones(kind):
    """Repeat a shared parameter for every expert: the outputs stay, the gradients add up to the
    shared one.
    """
    expert, params, rows, offsets = setup(kind)
    name = min(params)
    shared = {**params, name: params[name][:1]}
    repeated = {**params, name: np.repeat(params[name][:1], 4, axis=0)}
    (y, cache), (y2, cache2) = (
        expert.forward(shared, rows, offsets),
        expert.forward(repeated, rows, offsets),
    )
    np.testing.assert_array_equal(y, y2)
    (dx, grads), (dx2, grads2) = expert.backward(y, cache), expert.backward(y, cache2)
    np.testing.assert_array_equal(dx, dx2)
    assert grads[name].shape == params[name][:1].shape
    np.testing.assert_allclose(grads[name][0], grads2[name].sum(axis=0), rtol=1e-12)


def one_row(kind, p, x):
    """The expert as its paper writes it, one row at a time."""
    if kind == "linear":
        return x @ p["w"] + p["b"]
    if kind == "cubic":
        z = np.array([[w @ patch + b for w, b in zip(p["w"], p["b"], strict=True)] for patch in x])
        J = z.shape[1] // 2
        return np.array([(z[:, :J] ** 3).sum(), (z[:, J:] ** 3).sum()])
    if kind == "swiglu":
        a = x @ p["w1"]
        return (a / (1 + np.exp(-a)) * (x @ p["w3"])) @ p["w2"]
    z = x @ p["w1"] + p["b1"]
    if kind == "relu":
        h = np.where(z > 0, z, 0)
    else:
        h = [
            v * quad(lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi), -12, v, epsabs=1e-14)[0]
            for v in z
        ]
    return np.array(h) @ p["w2"] + p["b2"]


@every
def test_each_row_goes_through_its_own_expert(kind):
    expert, params, rows, offsets = setup(kind)
    y, _ = expert.forward(params, rows, offsets)
    for m in range(4):
        for a in range(offsets[m], offsets[m + 1]):
            np.testing.assert_allclose(
                y[a], one_row(kind, {k: p[m] for k, p in params.items()}, rows[a]), rtol=1e-9
            )


@every
def test_an_expert_without_rows_gets_a_gradient_of_zero(kind):
    expert, params, rows, offsets = setup(kind)
    y, cache = expert.forward(params, rows, offsets)
    _, grads = expert.backward(np.ones_like(y), cache)
    for g in grads.values():
        assert (g[1] == 0).all() and (g[2] != 0).any()


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_types_and_read_only_input(kind, dtype):
    expert, params, rows, offsets = setup(kind, dtype=dtype)
    for a in (rows, offsets, *params.values()):
        a.flags.writeable = False
    y, cache = expert.forward(params, rows, offsets)
    assert y.dtype == dtype and y.shape == (9, 2 if kind == "cubic" else 3)
    y.flags.writeable = False
    dx, grads = expert.backward(y, cache)
    assert dx.dtype == dtype and dx.shape == rows.shape
    assert {k: (g.shape, g.dtype) for k, g in grads.items()} == {
        k: (p.shape, dtype) for k, p in params.items()
    }


@every
def test_no_rows_at_all(kind):
    expert, params, rows, offsets = setup(kind, count=(0, 0))
    y, cache = expert.forward(params, rows, offsets)
    dx, grads = expert.backward(y, cache)
    assert y.shape[0] == dx.shape[0] == 0 and all((g == 0).all() for g in grads.values())


def test_cubic_is_the_expert_of_chen2022():
    expert, params, rows, offsets = setup("cubic")
    f, cache = expert.forward(params, rows, offsets)
    of = np.repeat(np.arange(4), np.diff(offsets))
    f2, cache2 = patch_cnn.expert_forward(params, rows, of, activation="cubic")
    np.testing.assert_allclose(f, f2, rtol=1e-12)
    (dx, grads), (dx2, grads2) = expert.backward(f, cache), patch_cnn.expert_backward(f, cache2)
    np.testing.assert_allclose(dx, dx2, rtol=1e-12)
    for name in grads:
        np.testing.assert_allclose(grads[name], grads2[name], rtol=1e-11)


@pytest.mark.parametrize("kind", ["linear", "relu", "swiglu"])
def test_the_stated_scale_of_the_start(kind):
    expert, _ = KINDS[kind]
    sizes = (300,) if kind == "linear" else (400, 300)
    params = expert.init(np.random.default_rng(0), 100, 2, *sizes, scale=0.5, dtype=np.float32)
    for name, p in params.items():
        assert p.dtype == np.float32
        if p.ndim == 2:
            assert (p == 0).all()
        else:
            assert abs(p.std() * np.sqrt(p.shape[1]) / 0.5 - 1) < 0.02, name


def test_bad_sizes_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 1, got 0"):
        experts.RELU.init(rng, 4, 0, 8)
    with pytest.raises(InputError, match="share: wanted one of w1, b1, w2, b2; got 'w3'"):
        experts.RELU.init(rng, 4, 2, 8, share=("w3",))
