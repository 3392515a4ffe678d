"""Cross-entropy: a naive loop, the projection gradient check, and what is ignored."""

import math

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base.checks import InputError
from moe_np.layers import cross_entropy


def problem(N=7, V=5, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(N, V))).astype(dtype)
    targets = rng.integers(0, V, N)
    targets[[1, 4]] = -1
    soft = rng.dirichlet(np.ones(V), N).astype(dtype)
    for array in (logits, targets, soft):
        array.flags.writeable = False
    return logits, targets, soft


def naive(logits, targets, smoothing, soft=None):
    """Row by row with Python's numbers: the mean over valid rows."""
    losses = []
    for n, row in enumerate(logits.tolist()):
        if targets is not None and targets[n] < 0:
            continue
        V = len(row)
        q = [float(v == targets[n]) for v in range(V)] if soft is None else soft[n].tolist()
        q = [(1 - smoothing) * value + smoothing / V for value in q]
        log_z = math.log(math.fsum(math.exp(z) for z in row))
        losses.append(math.fsum(p * (log_z - z) for p, z in zip(q, row, strict=True)))
    return math.fsum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("with_soft", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_equals_a_loop_over_rows(backend, smoothing, with_soft, dtype):
    logits, targets, soft = problem(dtype=dtype)
    soft = soft if with_soft else None
    loss, cache = cross_entropy.forward(logits, targets, smoothing=smoothing, soft=soft)
    assert isinstance(loss, float) and cache.n_valid == 5
    assert loss == pytest.approx(naive(logits, targets, smoothing, soft), rel=3e-6)
    assert loss == pytest.approx(cache.total / 5, rel=1e-15)
    assert cross_entropy.backward(1.0, cache).dtype == dtype


@pytest.mark.parametrize("smoothing", [0, 0.3])
@pytest.mark.parametrize("with_soft", [False, True])
def test_gradient(backend, smoothing, with_soft):
    logits, targets, soft = problem()
    options = {"smoothing": smoothing, "soft": soft if with_soft else None}
    targets = None if with_soft else targets
    _, cache = cross_entropy.forward(logits, targets, **options)
    dlogits = cross_entropy.backward(1.7, cache)
    error = gradcheck.gradient_error(
        lambda p: 1.7 * cross_entropy.forward(p["logits"], targets, **options)[0],
        {"logits": logits},
        {"logits": dlogits},
        np.random.default_rng(1),
    )
    assert error["logits"] < 1e-8


def test_ignored_rows_are_not_read_and_have_no_gradient(backend):
    """Pitfall 9: the mean is over valid targets, and the uniform part of smoothing is too."""
    logits, targets, soft = problem()
    poisoned = logits.copy()
    poisoned[[1, 4]] = np.nan
    kept = targets >= 0
    for options in ({}, {"smoothing": 0.2}, {"soft": soft}):
        loss, cache = cross_entropy.forward(poisoned, targets, **options)
        parts = {"soft": soft[kept]} if "soft" in options else options
        expected, cache_of_kept = cross_entropy.forward(logits[kept], targets[kept], **parts)
        assert loss == pytest.approx(expected, rel=1e-15)
        dlogits = cross_entropy.backward(1.0, cache)
        assert (dlogits[~kept] == 0).all()
        of_kept = cross_entropy.backward(1.0, cache_of_kept)
        np.testing.assert_allclose(dlogits[kept], of_kept, rtol=1e-14)


def test_errata_26_without_a_valid_target_loss_and_gradient_are_0(backend):
    """Pitfall 9: and not NaN, the mean of no numbers."""
    for shape in ((3, 4), (0, 4)):
        targets = np.full(shape[0], -100)
        loss, cache = cross_entropy.forward(np.ones(shape), targets, ignore=-100, smoothing=0.1)
        assert loss == 0 and cache.n_valid == 0
        assert np.array_equal(cross_entropy.backward(1.0, cache), np.zeros(shape))


def test_the_mean_is_summed_in_float64(backend):
    logits = np.zeros((300_000, 2), np.float32)
    loss, _ = cross_entropy.forward(logits, np.zeros(300_000, int))
    assert loss == pytest.approx(float(np.float32(np.log(2))), rel=1e-12)


def test_large_logits_do_not_overflow_and_rare_targets_have_a_finite_loss(backend):
    """Pitfall 8: the loss is logsumexp − logit; log(softmax) would be −∞."""
    logits = np.array([[1e4, 0.0], [-1e4, -2e4]], np.float32)
    loss, cache = cross_entropy.forward(logits, np.array([1, 1]))
    assert loss == 1e4
    expected = np.array([[0.5, -0.5], [0.5, -0.5]])
    np.testing.assert_allclose(cross_entropy.backward(1.0, cache), expected)


def test_errata_26_perplexity_is_the_exponential_of_a_ratio_of_sums():
    """Pitfall 9: the mean of the perplexities of batches is another number."""
    logits, targets, _ = problem()
    whole, _ = cross_entropy.forward(logits, targets)
    caches = [
        cross_entropy.forward(logits[part], targets[part])[1] for part in (slice(3), slice(3, 7))
    ]
    total = sum(cache.total for cache in caches)
    n_valid = sum(cache.n_valid for cache in caches)
    assert math.exp(total / n_valid) == pytest.approx(math.exp(whole))
    mean = sum(math.exp(cache.total / cache.n_valid) for cache in caches) / 2
    assert abs(mean - math.exp(whole)) > 0.1


def test_the_gradient_can_take_the_place_of_the_logits(backend):
    logits, targets, _ = problem()
    _, cache = cross_entropy.forward(logits, targets)
    expected = cross_entropy.backward(1.0, cache)
    logits = logits.copy()
    _, cache = cross_entropy.forward(logits, targets)
    assert cross_entropy.backward(1.0, cache, out=logits) is logits
    assert np.array_equal(logits, expected)
    with pytest.raises(InputError, match=r"out: wanted float64 of shape \(7, 5\)"):
        cross_entropy.backward(1.0, cache, out=np.zeros((5, 7)))


def test_an_impossible_class_may_have_minus_infinity(backend):
    logits = np.array([[1.0, -np.inf, 2.0]])
    loss, cache = cross_entropy.forward(logits, np.array([0]))
    assert loss == pytest.approx(math.log(1 + math.e))
    assert cross_entropy.backward(1.0, cache)[0, 1] == 0
    with pytest.raises(InputError, match=r"logits\[0\]: wanted finite numbers, got -inf"):
        cross_entropy.forward(logits, np.array([1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros(3)}, r"logits: wanted shape \(N, V\)"),
        ({"logits": np.full((7, 5), np.nan)}, r"logits\[0\]: wanted finite numbers"),
        ({"targets": np.full(7, 5)}, "targets: wanted classes from 0 to 4, or -1 for none, got 5"),
        ({"targets": np.full(7, -2)}, "targets: wanted classes from 0 to 4, or -1 for none, got"),
        ({"targets": np.zeros(6, int)}, r"targets: wanted shape \(7,\)"),
        ({"targets": np.zeros(7)}, "targets: wanted integer numbers"),
        ({"targets": None}, "targets: wanted an array of classes, got None"),
        ({"ignore": 0.5}, "ignore: wanted a whole number"),
        ({"smoothing": 1}, "smoothing: wanted a finite number of at least 0 and below 1"),
        ({"soft": np.ones((7, 5))}, "soft: wanted probabilities, rows of which the sum is 1"),
        ({"soft": np.ones((7, 4))}, r"soft: wanted shape \(7, 5\)"),
    ],
)
def test_bad_input(backend, change, message):
    logits, targets, _ = problem()
    arguments = {"logits": logits, "targets": targets} | change
    with pytest.raises(InputError, match=message):
        cross_entropy.forward(**arguments)


# --- head and loss in one -------------------------------------------------------------------------


def head_problem(tied, N=9, D=4, V=6, dtype=np.float64):
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(V, D) if tied else (D, V)).astype(dtype)}
    x = rng.normal(size=(N, D)).astype(dtype)
    targets = rng.integers(0, V, N)
    targets[2::4] = -7
    for array in (params["w"], x, targets):
        array.flags.writeable = False
    return params, x, targets


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("smoothing", [0, 0.2])
@pytest.mark.parametrize("N", [0, 9, 300])
def test_head_and_loss_in_one_are_the_two_after_each_other(backend, tied, smoothing, N):
    params, x, targets = head_problem(tied, N)
    options = {"ignore": -7, "smoothing": smoothing}
    w = params["w"].T if tied else params["w"]
    expected, cache = cross_entropy.forward(x @ w, targets, **options)
    dlogits = cross_entropy.backward(1.5, cache)
    loss, head_cache = cross_entropy.head_forward(params, x, targets, tied=tied, **options)
    dx, grads = cross_entropy.head_backward(1.5, head_cache)
    assert loss == pytest.approx(expected, rel=1e-13)
    assert head_cache.n_valid == cache.n_valid
    assert head_cache.total == pytest.approx(cache.total, rel=1e-13)
    np.testing.assert_allclose(dx, dlogits @ w.T, rtol=1e-10, atol=1e-15)
    dw = dlogits.T @ x if tied else x.T @ dlogits
    np.testing.assert_allclose(grads["w"], dw, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("tied", [False, True])
def test_gradient_of_head_and_loss(backend, tied):
    params, x, targets = head_problem(tied)

    def loss(arrays):
        w = {"w": arrays["w"]}
        return cross_entropy.head_forward(w, arrays["x"], targets, tied=tied, ignore=-7)[0]

    _, cache = cross_entropy.head_forward(params, x, targets, tied=tied, ignore=-7)
    dx, grads = cross_entropy.head_backward(1.0, cache)
    errors = gradcheck.gradient_error(
        loss, {**params, "x": x}, {**grads, "x": dx}, np.random.default_rng(0)
    )
    assert max(errors.values()) < 1e-8


def test_bad_input_of_head_and_loss(backend):
    params, x, targets = head_problem(False)
    with pytest.raises(InputError, match=r"x: wanted shape \(N, 4\)"):
        cross_entropy.head_forward(params, x[:, 1:], targets)
    with pytest.raises(InputError, match="x: wanted float64, the type of params"):
        cross_entropy.head_forward(params, x.astype(np.float32), targets)
    with pytest.raises(InputError, match="targets: wanted classes from 0 to 5"):
        cross_entropy.head_forward(params, x, targets)
    poisoned = x.copy()
    poisoned[0, 1] = np.nan
    with pytest.raises(InputError, match=r"x: wanted finite numbers, got nan at index \(0, 1\)"):
        cross_entropy.head_forward(params, poisoned, targets, ignore=-7)
    with pytest.raises(InputError, match=r"params\['w'\]: wanted finite numbers"):
        cross_entropy.head_forward({"w": params["w"] * np.inf}, x, targets, ignore=-7)
    with pytest.raises(InputError, match="logits"):
        cross_entropy.head_forward({"w": params["w"] * 1e200}, x * 1e200, targets, ignore=-7)


def test_the_target_minus_1_is_ignored_unless_another_is_named(backend):
    params, x, _ = head_problem(False)
    targets = np.array([0, -1, 3, 0, -1, 5, 1, 0, 2])
    logits = x @ params["w"]
    assert cross_entropy.forward(logits, targets)[1].n_valid == 7
    loss, cache = cross_entropy.head_forward(params, x, targets)
    assert cache.n_valid == 7
    assert loss == pytest.approx(cross_entropy.forward(logits, targets, ignore=-1)[0], rel=1e-13)
