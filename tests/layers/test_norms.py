"""RMSNorm and layer normalisation: gradients, naive loops, ε inside of the root, the residual."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.layers import norms

EPS = 1e-5
shapes = pytest.mark.parametrize("shape", [(6,), (1, 6), (70, 6), (2, 3, 6), (0, 6)])


def problem(shape=(2, 3, 6), seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    params = {"g": 1 + 0.3 * rng.normal(size=6), "b": rng.normal(size=6)}
    params = {name: p.astype(dtype) for name, p in params.items()}
    return params, rng.normal(size=shape).astype(dtype)


def gain(params):
    return {"g": params["g"]}


@shapes
def test_rms_equals_a_naive_loop(shape, backend):
    params, x = problem(shape)
    y, _ = norms.rms_forward(gain(params), x, eps=EPS)
    for place in np.ndindex(*shape[:-1]):
        root = np.sqrt(sum(v * v for v in x[place]) / 6 + EPS)
        expected = [v / root * g for v, g in zip(x[place], params["g"], strict=True)]
        np.testing.assert_allclose(y[place], expected, rtol=1e-12)


@shapes
def test_layer_norm_equals_a_naive_loop(shape):
    params, x = problem(shape)
    y, _ = norms.layer_norm_forward(params, x, eps=EPS)
    for place in np.ndindex(*shape[:-1]):
        mean = sum(x[place]) / 6
        root = np.sqrt(sum((v - mean) ** 2 for v in x[place]) / 6 + EPS)
        expected = (x[place] - mean) / root * params["g"] + params["b"]
        np.testing.assert_allclose(y[place], expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (70, 6), (2, 3, 6)])
def test_gradients(shape, backend):
    params, x = problem(shape)
    rng = np.random.default_rng(1)
    errors = pair_error(
        lambda p, x: norms.rms_forward(p, x, eps=EPS), norms.rms_backward, gain(params), x, rng
    )
    assert max(errors.values()) < 1e-7, errors
    errors = pair_error(
        lambda p, x: norms.layer_norm_forward(p, x, eps=EPS),
        norms.layer_norm_backward,
        params,
        x,
        rng,
    )
    assert max(errors.values()) < 1e-7, errors


@shapes
def test_the_residual_and_the_norm_are_the_two_of_them(shape, backend):
    params, x = problem(shape)
    branch = problem(shape, 1)[1]
    total, y, cache = norms.add_rms_forward(gain(params), x, branch, eps=EPS)
    expected, expected_cache = norms.rms_forward(gain(params), x + branch, eps=EPS)
    np.testing.assert_array_equal(total, x + branch)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    dtotal, dy = problem(shape, 2)[1], problem(shape, 3)[1]
    dsum, grads = norms.add_rms_backward(dtotal, dy, cache)
    dx, expected_grads = norms.rms_backward(dy, expected_cache)
    np.testing.assert_allclose(dsum, dtotal + dx, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(grads["g"], expected_grads["g"], rtol=1e-11, atol=1e-14)


def test_the_gradient_of_the_residual_and_the_norm(backend):
    params, x = problem()
    branch = problem(seed=1)[1]
    dtotal, dy = problem(seed=2)[1], problem(seed=3)[1]

    def loss(p):
        total, y, _ = norms.add_rms_forward({"g": p["g"]}, p["x"], p["branch"], eps=EPS)
        return (total * dtotal).sum() + (y * dy).sum()

    _, _, cache = norms.add_rms_forward(gain(params), x, branch, eps=EPS)
    dsum, grads = norms.add_rms_backward(dtotal, dy, cache)
    point = {**gain(params), "x": x, "branch": branch}
    slopes = {**grads, "x": dsum, "branch": dsum}
    errors = gradient_error(loss, point, slopes, np.random.default_rng(0))
    assert max(errors.values()) < 1e-7, errors


def test_pitfall_27_epsilon_is_inside_of_the_root_and_no_mean_is_subtracted(backend):
    """Rows of a constant c: c / √(c² + ε), where c / (|c| + √ε) or c − mean would be others."""
    ones = {"g": np.ones(4)}
    for c in (3.0, 1e-3):
        y, _ = norms.rms_forward(ones, np.full((1, 4), c), eps=1e-6)
        np.testing.assert_allclose(y, c / np.sqrt(c**2 + 1e-6), rtol=1e-13)
    assert (norms.rms_forward(ones, np.zeros((1, 4)), eps=1e-6)[0] == 0).all()
    y, _ = norms.layer_norm_forward({**ones, "b": np.zeros(4)}, np.full((1, 4), 3.0), eps=1e-6)
    assert (y == 0).all()


def test_pitfall_27_gains_are_1_at_initialisation():
    assert norms.rms_init(3)["g"].tolist() == [1, 1, 1]
    params = norms.layer_norm_init(3, dtype=np.float32)
    assert params["g"].tolist() == [1, 1, 1] and params["b"].tolist() == [0, 0, 0]
    assert params["b"].dtype == np.float32


def test_pitfall_28_no_input_changes_and_the_sum_is_a_new_array(backend):
    params, x = problem()
    branch = problem(seed=1)[1]
    for a in (x, branch, *params.values()):
        a.flags.writeable = False
    total, _, cache = norms.add_rms_forward(gain(params), x, branch, eps=EPS)
    assert not np.shares_memory(total, x) and not np.shares_memory(total, branch)
    dy = np.ones_like(x)
    dy.flags.writeable = False
    norms.add_rms_backward(dy, dy, cache)
    _, cache = norms.layer_norm_forward(params, x, eps=EPS)
    norms.layer_norm_backward(dy, cache)


def test_a_gradient_is_orthogonal_to_the_row_without_epsilon(backend):
    """y does not depend on the length of x, so dx · x = 0."""
    params, x = problem()
    _, cache = norms.rms_forward(gain(params), x, eps=0)
    dx, _ = norms.rms_backward(problem(seed=1)[1], cache)
    np.testing.assert_allclose((dx * x).sum(axis=-1), 0, atol=1e-13)


def test_float32(backend):
    params, x = problem(dtype=np.float32)
    total, y, cache = norms.add_rms_forward(gain(params), x, x, eps=EPS)
    dx, grads = norms.add_rms_backward(y, y, cache)
    assert {a.dtype for a in (total, y, dx, grads["g"])} == {np.dtype(np.float32)}
    y, cache = norms.layer_norm_forward(params, x, eps=EPS)
    dx, grads = norms.layer_norm_backward(y, cache)
    assert {a.dtype for a in (y, dx, *grads.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[..., :4], r"x: wanted 6 features per row in float64, got shape \(2, 3, 4\)"),
        (lambda x: x.astype(np.float32), "x: wanted 6 features per row in float64, got .* float32"),
        (lambda x: x * np.nan, "x: wanted finite numbers"),
        (lambda x: x * np.inf, "x: wanted finite numbers"),
        (lambda x: x * 1e200, "x: wanted numbers whose squares are finite"),
    ],
)
def test_bad_input(change, words, backend):
    params, x = problem()
    for call in (
        lambda x: norms.rms_forward(gain(params), x, eps=EPS),
        lambda x: norms.layer_norm_forward(params, x, eps=EPS),
    ):
        with pytest.raises(InputError, match=words):
            call(change(x))


def test_a_gradient_that_is_not_finite_goes_through(backend):
    params, x = problem()
    dy = np.zeros_like(x)
    dy[1, 2, 3] = np.inf
    _, rms = norms.rms_forward(gain(params), x, eps=EPS)
    _, _, added = norms.add_rms_forward(gain(params), x, x, eps=EPS)
    _, layer = norms.layer_norm_forward(params, x, eps=EPS)
    with np.errstate(invalid="ignore"):
        results = (
            norms.rms_backward(dy, rms),
            norms.add_rms_backward(x, dy, added),
            norms.layer_norm_backward(dy, layer),
        )
    for dx, grads in results:
        assert np.isfinite(dx[:1]).all() and not np.isfinite(dx[1, 2]).any()
        assert (~np.isfinite(grads["g"])).tolist() == [False, False, False, True, False, False]


def test_bad_branch_epsilon_and_gradient(backend):
    params, x = problem()
    with pytest.raises(InputError, match=r"branch: wanted shape \(2, 3, 6\), got \(3, 6\)"):
        norms.add_rms_forward(gain(params), x, x[0], eps=EPS)
    with pytest.raises(InputError, match="x \\+ branch: wanted finite numbers"):
        norms.add_rms_forward(gain(params), x, x * np.nan, eps=EPS)
    with pytest.raises(InputError, match="eps: wanted a finite number of at least 0, got -1"):
        norms.rms_forward(gain(params), x, eps=-1)
    with pytest.raises(InputError, match="eps: wanted a number above 0 for rows that are all 0"):
        norms.rms_forward(gain(params), 0 * x, eps=0)
    _, cache = norms.rms_forward(gain(params), x, eps=EPS)
    with pytest.raises(InputError, match=r"dy: wanted shape \(2, 3, 6\)"):
        norms.rms_backward(x[0], cache)
