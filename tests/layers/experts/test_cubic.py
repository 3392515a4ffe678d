"""Cubic experts, and their form for all experts on all samples."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import pair_error
from moe_np.layers.experts import CUBIC, cubic
from tests.support.experts import Case, setup


def one_row(p, x):
    z = np.array([[w @ patch + b for w, b in zip(p["w"], p["b"], strict=True)] for patch in x])
    J = z.shape[1] // 2
    return np.array([(z[:, :J] ** 3).sum(), (z[:, J:] ** 3).sum()])


CASES = {"cubic": Case(CUBIC, (2,), one_row, share=("w",), patches=(3,), d_out=2)}


def test_all_experts_on_all_samples():
    """`dense_forward` and its backward pass are the sorted pair with all samples in each block."""
    params, x, _ = setup(CASES["cubic"])
    E, N = len(params["w"]), len(x)
    f, cache = cubic.dense_forward(params, x)
    offsets = np.arange(E + 1) * N
    f2, cache2 = CUBIC.forward(params, np.tile(x, (E, 1, 1)), offsets)
    np.testing.assert_allclose(f.transpose(1, 0, 2), f2.reshape(E, N, 2), rtol=1e-12)
    grads = cubic.dense_backward(f, cache)
    _, grads2 = CUBIC.backward(f2, cache2)
    for name, g in grads.items():
        np.testing.assert_allclose(g, grads2[name], rtol=1e-11)


def test_no_samples_for_all_experts():
    params, x, _ = setup(CASES["cubic"])
    f, cache = cubic.dense_forward(params, x[:0])
    assert f.shape == (0, 4, 2)
    grads = cubic.dense_backward(f, cache)
    assert all(g.shape == params[name].shape and (g == 0).all() for name, g in grads.items())


@pytest.mark.parametrize("activation", ["cubic", "linear"])
def test_gradient_with_either_activation(activation):
    params, rows, offsets = setup(CASES["cubic"])

    def forward(p, x):
        return cubic.forward(p, x, offsets, activation=activation)

    errors = pair_error(forward, CUBIC.backward, params, rows, np.random.default_rng(1))
    assert max(errors.values()) < 1e-7, errors


def test_the_initialisation_is_uniform_within_scale_over_the_root_of_d():
    rng = np.random.default_rng(0)
    w, b = rng.uniform(-1, 1, (3, 4, 9)), rng.uniform(-1, 1, (3, 4))
    first = CUBIC.init(np.random.default_rng(0), 9, 3, 2)
    np.testing.assert_allclose(first["w"], w / 3, atol=1e-15)
    np.testing.assert_allclose(first["b"], b / 3, atol=1e-15)
    scaled = CUBIC.init(np.random.default_rng(0), 9, 3, 2, scale=2.0)
    np.testing.assert_allclose(scaled["b"], b * 2 / 3, atol=1e-15)
    for share in (("w",), ("b",), ("w", "b")):
        shared = CUBIC.init(np.random.default_rng(0), 9, 3, 2, share=share)
        assert [len(shared[name]) for name in ("w", "b")] == [
            1 if name in share else 3 for name in ("w", "b")
        ]


def test_an_unknown_shared_parameter_is_named():
    with pytest.raises(InputError, match="share: wanted one of w, b; got 'w1'"):
        CUBIC.init(np.random.default_rng(0), 4, 2, 8, share=("w1",))
