"""Every optimiser against the formula worked by hand or another implementation."""

import functools
import math

import numpy as np
import pytest

from moe_np.base import numerics, optim
from moe_np.base.checks import InputError
from moe_np.base.params import leaves, map_leaves


def frozen(*arrays):
    for a in arrays:
        a.flags.writeable = False
    return arrays


@pytest.fixture
def problem():
    rng = np.random.default_rng(2)
    params = {"w": rng.normal(size=(3, 4, 2)), "b": rng.normal(size=(3, 2))}
    grads = {k: rng.normal(size=p.shape) for k, p in params.items()}
    frozen(*params.values(), *grads.values())
    return params, grads


def test_gradient_descent(problem):
    params, grads = problem
    new = optim.gradient_descent(params, grads, lr=0.1)
    np.testing.assert_allclose(new["w"], params["w"] - 0.1 * grads["w"])


def test_momentum_is_a_geometric_sum(problem):
    params, grads = problem
    p = params
    v = None
    for _ in range(3):
        p, v = optim.momentum(p, grads, v, lr=0.1, beta=0.5)
    np.testing.assert_allclose(p["b"], params["b"] - 0.1 * grads["b"] * (1 + 1.5 + 1.75))


def test_adam_first_step_has_length_lr_and_later_ones_follow_the_recursion(problem):
    params, grads = problem
    p, state = optim.adam(params, grads, lr=0.01)
    np.testing.assert_allclose(p["w"], params["w"] - 0.01 * np.sign(grads["w"]), atol=1e-8)
    p, state = optim.adam(p, {k: -2 * g for k, g in grads.items()}, state, lr=0.01)
    g = grads["b"]
    m = 0.9 * 0.1 * g + 0.1 * (-2 * g)
    v = 0.999 * 0.001 * g**2 + 0.001 * 4 * g**2
    first = params["b"] - 0.01 * np.sign(g) / (1 + 1e-8 / np.abs(g))
    second = first - 0.01 * (m / (1 - 0.9**2)) / (np.sqrt(v / (1 - 0.999**2)) + 1e-8)
    np.testing.assert_allclose(p["b"], second, rtol=1e-12)
    assert state.t == 2


@pytest.mark.parity
def test_adam_equals_pytorch(problem):
    torch = pytest.importorskip("torch")
    params, grads = problem
    tensors = {k: torch.tensor(p.copy(), requires_grad=True) for k, p in params.items()}
    optimiser = torch.optim.Adam(tensors.values(), lr=0.01, weight_decay=5e-4)
    p = params
    state = None
    for step in range(5):
        g = {k: g * np.cos(step) for k, g in grads.items()}
        p, state = optim.adam(p, g, state, lr=0.01, weight_decay=5e-4)
        for k, t in tensors.items():
            t.grad = torch.tensor(g[k].copy())
        optimiser.step()
    for k, t in tensors.items():
        np.testing.assert_allclose(p[k], t.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", ["sum", "joint", "parameter"])
def test_normalised_gradient_descent_moves_every_expert_by_the_same_length(problem, norm):
    params, grads = problem
    new = optim.normalised_gradient_descent(params, grads, lr=0.1, norm=norm)
    for e in range(3):
        dw = new["w"][e] - params["w"][e]
        db = new["b"][e] - params["b"][e]
        gw = np.linalg.norm(grads["w"][e])
        gb = np.linalg.norm(grads["b"][e])
        length = {"sum": gw + gb, "joint": np.hypot(gw, gb)}
        np.testing.assert_allclose(dw, -0.1 * grads["w"][e] / length.get(norm, gw))
        np.testing.assert_allclose(db, -0.1 * grads["b"][e] / length.get(norm, gb))


def test_an_expert_without_a_token_does_not_move(problem):
    params, grads = problem
    grads = {k: g.copy() for k, g in grads.items()}
    for g in grads.values():
        g[1] = 0
    new = optim.normalised_gradient_descent(params, grads, lr=0.1)
    for k in new:
        assert np.array_equal(new[k][1], params[k][1])
        assert not np.array_equal(new[k][0], params[k][0])


@pytest.mark.parametrize(
    "name", ["gradient_descent", "momentum", "adam", "normalised_gradient_descent"]
)
@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_float32_stays_float32(name, shape):
    if name == "normalised_gradient_descent" and not shape:
        pytest.skip("axis 0 is the expert")
    p = {"w": np.ones(shape, np.float32)}
    new = getattr(optim, name)(p, {"w": np.full(shape, 0.5, np.float32)}, lr=0.1)
    new = new[0] if isinstance(new, tuple) else new
    assert new["w"].dtype == np.float32


def test_unknown_norm_is_named():
    with pytest.raises(ValueError, match="norm: wanted one of sum, joint, parameter; got 'l3'"):
        optim.expert_norms({"w": np.ones((1, 2))}, "l3")


@pytest.mark.parametrize("lr", [0.1, np.float64(0.1), np.float32(0.1)])
def test_each_parameter_keeps_its_type(lr):
    """Of float32 and float64 parameters all became float64."""
    params = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 3))}
    steps = [
        optim.gradient_descent(params, params, lr=lr),
        optim.momentum(params, params, lr=lr)[0],
        optim.adam(params, params, lr=lr)[0],
        optim.normalised_gradient_descent(params, params, lr=lr),
    ]
    for new in steps:
        assert [new[name].dtype for name in ("a", "b")] == [np.float32, np.float64]


# --- AdamW ----------------------------------------------------------------------------------------


def model(seed=0, dtype=np.float64):
    """Nested parameters and gradients with the names of a model: experts' biases have two axes."""
    rng = np.random.default_rng(seed)
    shapes = {
        "embed": {"w": (5, 3)},
        "layers": [
            {
                "norm1": {"g": (3,)},
                "attention": {"wq": (3, 4), "bq": (4,)},
                "experts": {"w1": (2, 3, 4), "b1": (2, 4)},
            }
        ],
    }
    params = map_leaves(lambda a: rng.normal(size=a).astype(dtype), _as_arrays(shapes))
    grads = map_leaves(lambda p: rng.normal(size=p.shape).astype(dtype), params)
    frozen(*leaves(params).values(), *leaves(grads).values())
    return params, grads


def _as_arrays(shapes):
    if isinstance(shapes, tuple):
        return np.array(shapes)
    if isinstance(shapes, list):
        return [_as_arrays(child) for child in shapes]
    return {key: _as_arrays(child) for key, child in shapes.items()}


def test_adamw_follows_the_recursion_number_by_number():
    params, grads = model()
    second = map_leaves(lambda g: -0.5 * g, grads)
    options = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
    new, state = optim.adamw(params, grads, **options)
    new, state = optim.adamw(new, second, state, **options)
    assert state.t == 2
    for path, p in leaves(params).items():
        decay = 0.1 if path in ("embed.w", "layers.0.attention.wq", "layers.0.experts.w1") else 0
        for index in np.ndindex(p.shape):
            value, m, v = p[index], 0.0, 0.0
            for t, of_step in ((1, grads), (2, second)):
                g = leaves(of_step)[path][index]
                m = 0.8 * m + 0.2 * g
                v = 0.95 * v + 0.05 * g * g
                value -= 0.01 * decay * value
                value -= 0.01 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.95**t)) + 1e-6)
            assert leaves(new)[path][index] == pytest.approx(value, rel=1e-12)


def test_errata_28_weight_decay_goes_by_name():
    """Pitfall 16: not by the number of axes, for the biases of experts are matrices."""
    params, _ = model()
    zero = map_leaves(np.zeros_like, params)
    new, _ = optim.adamw(params, zero, lr=0.1, weight_decay=0.5)
    moved = {path for path, p in leaves(new).items() if (p != leaves(params)[path]).any()}
    assert moved == {"embed.w", "layers.0.attention.wq", "layers.0.experts.w1"}
    keep_embeddings = functools.partial(optim.decays_by_name, embeddings=False)
    new, _ = optim.adamw(params, zero, lr=0.1, weight_decay=0.5, decays=keep_embeddings)
    assert np.array_equal(new["embed"]["w"], params["embed"]["w"])
    for path in ("norm.g", "layers.3.norm2.b", "experts.b2", "decoder.bias", "position_bias.w"):
        assert not optim.decays_by_name(path)
    for path in ("head.w", "layers.0.experts.shared.w2", "router.w_noise", "lstm.wh", "gate.big"):
        assert optim.decays_by_name(path)


def test_errata_29_adamw_moves_experts_without_tokens():
    """Pitfall 17: a gradient of 0 leaves momentum and decay."""
    params, grads = model()
    new, state = optim.adamw(params, grads, lr=0.1, weight_decay=0.5)
    no_tokens = map_leaves(np.zeros_like, params)
    after, _ = optim.adamw(new, no_tokens, state, lr=0.1, weight_decay=0.5)
    assert all((a != b).all() for a, b in zip(*map(values, (after, new)), strict=True))


def values(params):
    return list(leaves(params).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place_and_in_blocks_the_bits_are_the_same(dtype, monkeypatch):
    params, grads = model(dtype=dtype)
    state = None
    expected, same = params, map_leaves(np.copy, params)
    state_in_place = None
    for block in (4, 1 << 14):
        monkeypatch.setattr(optim, "BLOCK", block)
        expected, state = optim.adamw(expected, grads, state, lr=0.1, weight_decay=0.5)
        before = values(same)
        same, state_in_place = optim.adamw(
            same, grads, state_in_place, lr=0.1, weight_decay=0.5, in_place=True
        )
        assert all(a is b for a, b in zip(before, values(same), strict=True))
    for a, b in zip(values((expected, state.v)), values((same, state_in_place.v)), strict=True):
        assert a.dtype == dtype and np.array_equal(a, b)


def test_scale_is_clipping_without_a_second_pass():
    params, grads = model()
    clipped, norm = optim.clip_by_global_norm(grads, 0.5)
    expected, _ = optim.adamw(params, clipped, lr=0.1)
    same, _ = optim.adamw(params, grads, lr=0.1, scale=optim.clip_scale(norm, 0.5))
    for a, b in zip(values(expected), values(same), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_adamw_refuses_other_gradients():
    params, grads = model()
    with pytest.raises(InputError, match=r"grads: wanted the leaves of params, got a difference"):
        optim.adamw(params, {"embed": grads["embed"]}, lr=0.1)
    short = {**grads, "embed": {"w": grads["embed"]["w"][1:]}}
    message = r"grads\['embed.w'\]: wanted float64 of shape \(5, 3\), got float64 of \(4, 3\)"
    with pytest.raises(InputError, match=message):
        optim.adamw(params, short, lr=0.1)
    transposed = {"w": np.zeros((2, 3)).T}
    with pytest.raises(InputError, match="wanted contiguous arrays with in_place=True"):
        optim.adamw(transposed, transposed, lr=0.1, in_place=True)
    assert optim.adamw(transposed, transposed, lr=0.1)[0]["w"].shape == (3, 2)


# --- clipping, schedule, accumulation -------------------------------------------------------------


def test_errata_30_clipping_has_one_norm_over_all_leaves():
    """Pitfall 18: experts included; the norm is that before clipping."""
    _, grads = model()
    every = np.concatenate([g.ravel() for g in values(grads)])
    clipped, norm = optim.clip_by_global_norm(grads, 0.5)
    assert norm == pytest.approx(np.linalg.norm(every), rel=1e-14)
    for before, after in zip(values(grads), values(clipped), strict=True):
        np.testing.assert_allclose(after, before * 0.5 / norm, rtol=1e-14)
    unchanged, norm = optim.clip_by_global_norm(grads, 1e3)
    assert unchanged is grads and norm == optim.global_norm(grads)


def test_the_norm_is_summed_in_float64():
    """Pitfall 18: in float32 the squares of these gradients overflow, or a small one is lost."""
    assert optim.global_norm({"w": np.full(4, 1e25, np.float32)}) == pytest.approx(2e25, rel=1e-6)
    one_large = np.ones(optim.BLOCK + 99, np.float32)
    one_large[0] = 2**12  # in float32 2²⁴ + 1 is 2²⁴
    assert optim.global_norm({"w": one_large}) == math.sqrt(2**24 + len(one_large) - 1)


def test_a_norm_that_is_not_finite_does_not_scale():
    grads = {"w": np.array([np.nan, 1.0]), "b": np.ones(2)}
    clipped, norm = optim.clip_by_global_norm(grads, 1.0)
    assert math.isnan(norm) and clipped is grads


def test_warm_up_and_cosine():
    rates = [
        optim.warmup_cosine(step, peak=2.0, warmup=4, total=12, final=0.2) for step in range(15)
    ]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[7] == pytest.approx(1.1)  # half of the cosine
    assert rates[11:] == pytest.approx([0.2] * 4)
    assert (np.diff(rates[3:12]) < 0).all()
    assert optim.warmup_cosine(0, peak=2.0, warmup=0, total=1, final=0.2) == pytest.approx(0.2)
    with pytest.raises(InputError, match="total: wanted a whole number of at least 5"):
        optim.warmup_cosine(0, peak=1.0, warmup=4, total=4)


def regression(w, x, y):
    """The mean squared error over the rows of x, its gradient, and the number of rows."""
    residual = x @ w - y
    return {"w": 2 * x.T @ residual / max(len(x), 1)}, len(x)


def test_errata_26_accumulation_divides_by_the_valid_tokens_of_all_micro_batches():
    """Pitfall 10: the mean of the micro-batches' means is another gradient."""
    rng = np.random.default_rng(0)
    w, x, y = rng.normal(size=3), rng.normal(size=(9, 3)), rng.normal(size=9)
    cuts = (slice(0, 6), slice(6, 6), slice(6, 9))
    grads, n = optim.accumulate(regression(w, x[cut], y[cut]) for cut in cuts)
    expected, _ = regression(w, x, y)
    assert n == 9
    np.testing.assert_allclose(grads["w"], expected["w"], rtol=1e-13)
    mean = np.mean([regression(w, x[cut], y[cut])[0]["w"] for cut in cuts], axis=0)
    assert np.abs(mean - expected["w"]).max() > 0.01


def test_accumulation_without_valid_tokens_is_0():
    grads, n = optim.accumulate([({"w": np.zeros(2, np.float32)}, 0)])
    assert n == 0 and grads["w"].tolist() == [0, 0] and grads["w"].dtype == np.float32
    with pytest.raises(InputError, match="micro_batches: wanted at least one"):
        optim.accumulate([])


def test_errata_26_balance_losses_do_not_accumulate():
    """Pitfall 10: two micro-batches, each unbalanced, whose union is balanced."""
    logits = np.repeat([[2.0, -2.0], [-2.0, 2.0]], 4, axis=0)

    def switch(logits):
        p = numerics.softmax(logits)
        f = np.bincount(logits.argmax(axis=1), minlength=2) / len(logits)
        return 2 * f @ p.mean(axis=0)

    assert switch(logits) == pytest.approx(1)
    assert 0.5 * (switch(logits[:4]) + switch(logits[4:])) > 1.9
