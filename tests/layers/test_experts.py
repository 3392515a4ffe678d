"""Stacked experts: gradients, a naive loop over rows, experts without rows, shared parameters."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers import experts

H = 6
KINDS = {
    "linear": (experts.LINEAR, (3,)),
    "relu": (experts.RELU, (H, 3)),
    "gelu": (experts.GELU, (H, 3)),
    "swiglu": (experts.SWIGLU, (H, 3)),
    "cubic": (experts.CUBIC, (2,)),
}
all_kinds = pytest.mark.parametrize("kind", KINDS)


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
    step = 1e-3
    if kind == "relu":  # no kink within reach of the difference
        params = {**params, "b1": params["b1"] + 0.05}
        _, cache = expert.forward(params, rows, offsets)
        step = min(step, np.abs(cache.z).min(initial=1) / 50)

    def forward(p, x):
        return expert.forward(p, x, offsets)

    rng = np.random.default_rng(seed + 1)
    return pair_error(forward, expert.backward, params, rows, rng, step=step)


@all_kinds
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_gradient(kind, seed, count):
    relative = errors(kind, seed, count=tuple(count))
    assert max(relative.values()) < 1e-7, relative


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
    relative = errors(kind, share=share)
    assert max(relative.values()) < 1e-7, relative


@all_kinds
def test_shared_parameters_are_the_repeated_ones(kind):
    """Repeat a shared parameter for every expert: the outputs stay, the gradients add up to the
    shared one.
    """
    expert, params, rows, offsets = setup(kind)
    name = min(params)
    shared = {**params, name: params[name][:1]}
    repeated = {**params, name: np.repeat(params[name][:1], 4, axis=0)}
    y, cache = expert.forward(shared, rows, offsets)
    y2, cache2 = expert.forward(repeated, rows, offsets)
    np.testing.assert_array_equal(y, y2)
    dx, grads = expert.backward(y, cache)
    dx2, grads2 = expert.backward(y, cache2)
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
    h = np.where(z > 0, z, 0) if kind == "relu" else z * [normal_distribution(v) for v in z]
    return h @ p["w2"] + p["b2"]


def normal_distribution(z):
    """Φ(z), by numerical integration of the density."""
    return quad(lambda t: np.exp(-t * t / 2) / np.sqrt(2 * np.pi), -12, z, epsabs=1e-14)[0]


@all_kinds
def test_a_row_goes_through_the_expert_of_its_block(kind):
    expert, params, rows, offsets = setup(kind)
    y, _ = expert.forward(params, rows, offsets)
    for m in range(4):
        alone = {name: p[m] for name, p in params.items()}
        for a in range(offsets[m], offsets[m + 1]):
            np.testing.assert_allclose(y[a], one_row(kind, alone, rows[a]), rtol=1e-9)


@all_kinds
def test_an_expert_without_rows_gets_a_gradient_of_zero(kind):
    expert, params, rows, offsets = setup(kind)
    y, cache = expert.forward(params, rows, offsets)
    _, grads = expert.backward(np.ones_like(y), cache)
    for g in grads.values():
        assert (g[1] == 0).all() and (g[2] != 0).any()


@all_kinds
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
    wanted = {name: (p.shape, dtype) for name, p in params.items()}
    assert {name: (g.shape, g.dtype) for name, g in grads.items()} == wanted


@all_kinds
def test_no_rows(kind):
    expert, params, rows, offsets = setup(kind, count=(0, 0))
    y, cache = expert.forward(params, rows, offsets)
    dx, grads = expert.backward(y, cache)
    assert y.shape[0] == dx.shape[0] == 0 and all((g == 0).all() for g in grads.values())


def test_all_cubic_experts_on_all_samples():
    """`dense_forward` and its backward pass are the sorted pair with all samples in each block."""
    _, params, x, _ = setup("cubic")
    E, N = len(params["w"]), len(x)
    f, cache = experts.cubic.dense_forward(params, x)
    offsets = np.arange(E + 1) * N
    f2, cache2 = experts.CUBIC.forward(params, np.tile(x, (E, 1, 1)), offsets)
    np.testing.assert_allclose(f.transpose(1, 0, 2), f2.reshape(E, N, 2), rtol=1e-12)
    grads = experts.cubic.dense_backward(f, cache)
    _, grads2 = experts.CUBIC.backward(f2, cache2)
    for name, g in grads.items():
        np.testing.assert_allclose(g, grads2[name], rtol=1e-11)


def test_no_samples_for_all_cubic_experts():
    _, params, x, _ = setup("cubic")
    f, cache = experts.cubic.dense_forward(params, x[:0])
    assert f.shape == (0, 4, 2)
    grads = experts.cubic.dense_backward(f, cache)
    assert all(g.shape == params[name].shape and (g == 0).all() for name, g in grads.items())


@pytest.mark.parametrize("activation", ["cubic", "linear"])
def test_gradient_of_patch_experts(activation):
    expert, params, rows, offsets = setup("cubic")
    pair = pair_error(
        lambda p, x: experts.cubic.forward(p, x, offsets, activation=activation),
        expert.backward,
        params,
        rows,
        np.random.default_rng(1),
    )
    assert max(pair.values()) < 1e-7, pair


@pytest.mark.parametrize("kind", ["linear", "relu", "swiglu"])
def test_the_stated_scale_of_the_initialisation(kind):
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
    with pytest.raises(InputError, match="share: wanted one of w, b; got 'w1'"):
        experts.CUBIC.init(rng, 4, 2, 8, share=("w1",))


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
