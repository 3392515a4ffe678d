"""Attention: gradients, a naive loop, masks, grouped queries, the key-value cache."""

import tracemalloc

import numpy as np
import pytest

from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.layers import attention, key_values, norms, position_bias, rotary

B, T, D, HQ, HK, WIDTH = 2, 7, 12, 6, 3, 4
BIAS = position_bias.init(np.random.default_rng(5), 8, HQ)


def problem(seed=0, norm="none", biases=True):
    rng = np.random.default_rng(seed)
    params = attention.init(rng, D, heads=HQ, kv_heads=HK, d=WIDTH, biases=biases, norm=norm)
    params = nested.map_leaves(lambda a: a + 0.3 * rng.normal(size=a.shape), params)
    return params, rng.normal(size=(B, T, D))


def options(**changes):
    angles = rotary.angles(np.arange(T), WIDTH)
    return {"heads": HQ, "kv_heads": HK, "causal": True, "rotary": angles, **changes}


def padding(n_keys=T):
    valid = np.random.default_rng(3).random((B, n_keys)) < 0.6
    valid[0, :2] = False  # with a causal mask the first two queries have nothing to attend to
    return valid


def naive(params, x, *, heads, kv_heads, causal, window=None, rotary=None, **more):
    """One number at a time: output (B, T, D)."""
    c = more.get("clip_qkv", np.inf)
    memory = more.get("memory", x)
    out = np.zeros_like(x)
    d = params["wq"].shape[1] // heads
    scale = more.get("scale", d**-0.5)
    for b in range(len(x)):
        queries = [project(params, "q", m, t, heads, rotary, c) for t, m in enumerate(x[b])]
        keys = [project(params, "k", m, s, kv_heads, rotary, c) for s, m in enumerate(memory[b])]
        values = [project(params, "v", m, s, kv_heads, None, c) for s, m in enumerate(memory[b])]
        for t in range(x.shape[1]):
            joined = []
            for h in range(heads):
                e = {}
                for s in range(memory.shape[1]):
                    hidden = causal and s > t
                    hidden |= window is not None and abs(s - t) >= window
                    hidden |= "valid" in more and not more["valid"][b, s]
                    if not hidden:
                        score = scale * queries[t][h] @ keys[s][h // (heads // kv_heads)]
                        e[s] = np.exp(score + (more["bias"][h, t, s] if "bias" in more else 0))
                total = sum(e.values())
                sums = [e[s] / total * values[s][h // (heads // kv_heads)] for s in e]
                joined.append(sum(sums, np.zeros(d)))
            out[b, t] = np.concatenate(joined) @ params["wo"]
    return out


def project(params, letter, token, t, n_heads, angles, c=np.inf):
    y = token @ params["w" + letter] + params.get("b" + letter, 0)
    if letter + "_norm" in params:
        gain = params[letter + "_norm"]["g"]
        y = y.reshape(-1, len(gain))
        y = y / np.sqrt((y**2).mean(axis=1, keepdims=True) + 1e-6) * gain
    heads = y.reshape(n_heads, -1).clip(-c, c)
    if angles is None:
        return heads
    first, second = np.split(heads, 2, axis=1)
    cos, sin = angles.cos[t], angles.sin[t]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)


def pair(params, chosen):
    """The pair with the parameters by leaf name, as the gradient check wants it."""

    def forward(flat, x):
        vector = np.concatenate([flat[path].ravel() for path in nested.leaves(params)])
        return attention.forward(nested.unflatten(vector, params), x, **chosen)

    def backward(dout, cache):
        dx, grads = attention.backward(dout, cache)
        return dx, nested.leaves(grads)

    return forward, backward


CASES = {
    "causal": {},
    "window": {"window": 3},
    "both directions": {"causal": False},
    "window in both directions": {"causal": False, "window": 2},
    "padding": {"valid": padding()},
    "window and padding": {"window": 2, "valid": padding()},
    "no rotation": {"rotary": None},
    "scale": {"scale": 1.0},
    "clipped": {"clip_qkv": 0.8},
}
every_case = pytest.mark.parametrize("case", CASES)


@every_case
@pytest.mark.parametrize("norm", ["none", "whole", "head"])
def test_equals_a_naive_loop(case, norm, backend):
    params, x = problem(norm=norm)
    chosen = options(**CASES[case])
    out, _ = attention.forward(params, x, **chosen)
    np.testing.assert_allclose(out, naive(params, x, **chosen), rtol=1e-10, atol=1e-12)


@every_case
@pytest.mark.parametrize("norm", ["none", "whole", "head"])
def test_gradient(case, norm, backend):
    params, x = problem(norm=norm)
    forward, backward = pair(params, options(**CASES[case]))
    rng = np.random.default_rng(1)
    step = 1e-5 if case == "clipped" else 1e-3  # no number crosses its bound
    errors = pair_error(forward, backward, nested.leaves(params), x, rng, step=step)
    if case == "no rotation" and norm == "none":
        errors.pop("bk")  # a constant that is added to all scores of a row has no effect
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("valid", [None, padding(5)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_cross_attention(valid, with_bias, backend):
    params, x = problem(biases=False)
    rng = np.random.default_rng(2)
    memory = rng.normal(size=(B, 5, D))
    chosen = options(causal=False, rotary=None, scale=1.0)
    if valid is not None:
        chosen["valid"] = valid
    if with_bias:
        chosen["bias"] = rng.normal(size=(HQ, T, 5))
    out, cache = attention.forward(params, x, memory=memory, **chosen)
    expected = naive(params, x, memory=memory, **chosen)
    np.testing.assert_allclose(out, expected, rtol=1e-10, atol=1e-12)
    dout = rng.normal(size=out.shape)
    g = attention.backward_all(dout, cache)
    point = {**params, "x": x, "memory": memory}
    slopes = {**g.params, "x": g.x, "memory": g.memory}
    if with_bias:
        point["bias"] = chosen.pop("bias")
        slopes["bias"] = g.bias

    def loss(p):
        moved = {name: p[name] for name in params}
        arguments = {"memory": p["memory"], "bias": p.get("bias"), **chosen}
        return (attention.forward(moved, p["x"], **arguments)[0] * dout).sum()

    errors = gradient_error(loss, point, slopes, rng)
    assert max(errors.values()) < 1e-7, errors


def test_a_memory_of_another_width(backend):
    params, x = problem(biases=False)
    rng = np.random.default_rng(2)
    params |= {name: rng.normal(size=(5, HK * WIDTH)) for name in ("wk", "wv")}
    memory = rng.normal(size=(B, 4, 5))
    out, cache = attention.forward(params, x, memory=memory, heads=HQ, kv_heads=HK, causal=False)
    g = attention.backward_all(np.ones_like(out), cache)
    assert g.x.shape == x.shape and g.memory.shape == memory.shape and g.bias is None
    assert g.params["wk"].shape == (5, HK * WIDTH)


def test_the_position_bias_of_t5(backend):
    """Scale 1, a bias that is learnt, no rotation, causal as in the decoder of T5."""
    params, x = problem(biases=False)
    rng = np.random.default_rng(2)
    chosen = options(rotary=None, scale=1.0)
    limits = {"bidirectional": False, "max_distance": 6}
    bias, bias_cache = position_bias.forward(BIAS, T, T, **limits)
    out, cache = attention.forward(params, x, bias=bias, **chosen)
    np.testing.assert_allclose(out, naive(params, x, bias=bias, **chosen), rtol=1e-10)
    dout = rng.normal(size=out.shape)
    g = attention.backward_all(dout, cache)
    assert g.memory is None
    assert (g.bias[:, ~np.tri(T, dtype=bool)] == 0).all()

    def loss(p):
        bias, _ = position_bias.forward({"w": p["w"]}, T, T, **limits)
        return (attention.forward(params, p["x"], bias=bias, **chosen)[0] * dout).sum()

    slopes = {"x": g.x, **position_bias.backward(g.bias, bias_cache)}
    errors = gradient_error(loss, {"x": x, **BIAS}, slopes, rng)
    assert max(errors.values()) < 1e-7, errors
    with pytest.raises(InputError, match="cache: with memory or bias, wanted backward_all"):
        attention.backward(dout, cache)


# --- errata and pitfalls --------------------------------------------------------------------------


def test_errata_21_only_differences_of_positions_matter(backend):
    params, x = problem()
    out, _ = attention.forward(params, x, **options())
    later = rotary.angles(500 + np.arange(T), WIDTH)
    moved, _ = attention.forward(params, x, **options(rotary=later))
    np.testing.assert_allclose(moved, out, atol=1e-10)


def test_errata_22_query_head_h_reads_key_head_h_divided_by_the_group(backend):
    """2 < Hk < Hq: repeated, 001122, and not tiled, 012012."""
    params, x = problem()
    out, _ = attention.forward(params, x, **options())
    wide = dict(params)
    group = HQ // HK
    for name in ("wk", "bk", "wv", "bv"):
        heads = params[name].reshape(*params[name].shape[:-1], HK, WIDTH)
        wide[name] = heads.repeat(group, axis=-2).reshape(*params[name].shape[:-1], -1)
    repeated, _ = attention.forward(wide, x, **options(kv_heads=HQ))
    np.testing.assert_allclose(repeated, out, rtol=1e-11)
    for name in ("wk", "bk", "wv", "bv"):
        wide[name] = np.concatenate([params[name]] * group, axis=-1)
    tiled, _ = attention.forward(wide, x, **options(kv_heads=HQ))
    assert np.abs(tiled - out).max() > 0.1


def test_errata_22_the_gradient_of_a_key_head_is_the_sum_over_its_queries(backend):
    params, x = problem()
    out, cache = attention.forward(params, x, **options())
    dout = np.random.default_rng(1).normal(size=out.shape)
    _, grads = attention.backward(dout, cache)
    wide = dict(params)
    for name in ("wk", "bk", "wv", "bv"):
        heads = params[name].reshape(*params[name].shape[:-1], HK, WIDTH)
        wide[name] = heads.repeat(HQ // HK, axis=-2).reshape(*params[name].shape[:-1], -1)
    _, cache = attention.forward(wide, x, **options(kv_heads=HQ))
    _, wide_grads = attention.backward(dout, cache)
    for name in ("wk", "wv", "bv"):
        shape = (*params[name].shape[:-1], HK, HQ // HK, WIDTH)
        total = wide_grads[name].reshape(shape).sum(axis=-2).reshape(params[name].shape)
        np.testing.assert_allclose(grads[name], total, rtol=1e-9, atol=1e-12)


def test_errata_24_nothing_to_attend_to_is_0_forward_and_backward(backend):
    """Left padding under a causal mask: rows without a key, in one sequence of two."""
    params, x = problem()
    valid = np.ones((B, T), bool)
    valid[0, :3] = False
    out, cache = attention.forward(params, x, **options(valid=valid))
    assert (out[0, :3] == 0).all() and (np.abs(out[0, 3:]) > 0).all()
    dout = np.zeros_like(out)
    dout[0, :3] = 1
    dx, grads = attention.backward(dout, cache)
    assert (dx == 0).all() and all((g == 0).all() for g in nested.leaves(grads).values())
    dx, grads = attention.backward(np.ones_like(out), cache)
    assert np.isfinite(dx).all() and (dx[0, :3] == 0).all()
    assert all(np.isfinite(g).all() for g in nested.leaves(grads).values())
    # and the other tokens are as if the padding was not there
    alone, _ = attention.forward(params, x[:1, 3:], **options(rotary=angles(3, T)))
    np.testing.assert_allclose(out[:1, 3:], alone, rtol=1e-10)


def angles(start, stop):
    return rotary.angles(np.arange(start, stop), WIDTH)


def test_errata_24_all_keys_hidden_and_scores_that_underflow(backend):
    params, x = problem()
    out, cache = attention.forward(params, x, **options(valid=np.zeros((B, T), bool)))
    dx, _ = attention.backward(np.ones_like(out), cache)
    assert (out == 0).all() and (dx == 0).all()
    # a hidden key has a weight of exactly 0 also where its score is far above the others
    large = x.copy()
    large[:, 2] *= 1e4
    valid = np.ones((B, T), bool)
    valid[:, 2] = False
    out, _ = attention.forward(params, large, **options(valid=valid))
    x = x.copy()
    x[:, 2] = 0
    expected, _ = attention.forward(params, x, **options(valid=valid))
    keep = np.arange(T) != 2
    np.testing.assert_array_equal(out[:, keep], expected[:, keep])


@pytest.mark.parametrize("chunks", [(1,) * 7, (3, 3, 1), (7,), (2, 5), (6, 1)])
@pytest.mark.parametrize("case", ["causal", "window", "padding", "no rotation", "clipped"])
def test_errata_24_chunks_with_a_cache_are_the_whole(chunks, case, backend):
    """The mask of a chunk is (T_new, T_old + T_new)."""
    params, x = problem(norm="head")
    chosen = options(**CASES[case])
    whole, _ = attention.forward(params, x, **chosen)
    kv = key_values.empty(B, HK, T + 2, WIDTH)
    lo = 0
    for n in chunks:
        hi = lo + n
        if chosen["rotary"] is not None:
            chosen["rotary"] = angles(lo, hi)
        if "valid" in CASES[case]:
            chosen["valid"] = padding()[:, :hi]
        out, cache = attention.forward(params, x[:, lo:hi], kv=kv, **chosen)
        assert cache is None and kv.length == hi
        np.testing.assert_allclose(out, whole[:, lo:hi], rtol=1e-10, atol=1e-12)
        lo = hi


@pytest.mark.parametrize("chunks", [(1,) * 7, (3, 3, 1), (7,), (2, 5), (6, 1)])
@pytest.mark.parametrize("window", [1, 3])
def test_a_cache_that_keeps_the_window_alone(chunks, window, backend):
    """With padding and a bias, which count all positions; the compiled loops give the same bits."""
    params, x = problem()
    bias = np.random.default_rng(2).normal(size=(HQ, T, T))
    chosen = options(window=window)
    whole, _ = attention.forward(params, x, bias=bias, valid=padding(), **chosen)
    kv = key_values.empty(B, HK, T, WIDTH, window=window)
    every = key_values.empty(B, HK, T, WIDTH)
    lo = 0
    for n in chunks:
        hi = lo + n
        chosen |= {"rotary": angles(lo, hi), "valid": padding()[:, :hi]}
        chosen["bias"] = bias[:, lo:hi, :hi]
        out, _ = attention.forward(params, x[:, lo:hi], kv=kv, **chosen)
        same, _ = attention.forward(params, x[:, lo:hi], kv=every, **chosen)
        np.testing.assert_allclose(out, whole[:, lo:hi], rtol=1e-10, atol=1e-12)
        if backend == "numba":
            np.testing.assert_array_equal(out, same)
        assert kv.length == hi and kv.keys.shape[2] <= max(2 * window, window - 1 + n)
        lo = hi


def test_chunks_with_the_position_bias(backend):
    params, x = problem()
    chosen = options(rotary=None, scale=1.0)
    bias, _ = position_bias.forward(BIAS, T, T, bidirectional=False, max_distance=6)
    whole, _ = attention.forward(params, x, bias=bias, **chosen)
    kv = key_values.empty(B, HK, T, WIDTH)
    for lo, hi in ((0, 3), (3, 4), (4, 7)):
        limits = {"bidirectional": False, "max_distance": 6, "offset": lo}
        bias, _ = position_bias.forward(BIAS, hi - lo, hi, **limits)
        out, _ = attention.forward(params, x[:, lo:hi], bias=bias, kv=kv, **chosen)
        np.testing.assert_allclose(out, whole[:, lo:hi], rtol=1e-10, atol=1e-12)


def test_the_memory_of_cross_attention_is_projected_once(backend):
    params, x = problem()
    memory = np.random.default_rng(2).normal(size=(B, 5, D))
    chosen = options(causal=False, rotary=None, memory=memory, valid=padding(5))
    whole, _ = attention.forward(params, x, **chosen)
    kv = key_values.empty(B, HK, 5, WIDTH)
    for t in range(T):
        out, _ = attention.forward(params, x[:, t : t + 1], kv=kv, **chosen)
        np.testing.assert_allclose(out, whole[:, t : t + 1], rtol=1e-10, atol=1e-12)
        assert kv.length == 5
        chosen["memory"] = np.zeros_like(memory)  # not read again


def test_errata_25_a_window_is_the_token_itself_and_those_before_it(backend):
    params, x = problem()
    for window in (1, 2, 4):
        out, _ = attention.forward(params, x, **options(window=window))
        for t in range(T):
            changed = x.copy()
            changed[:, t] += 1
            moved, _ = attention.forward(params, changed, **options(window=window))
            rows = np.flatnonzero(np.abs(moved - out).max(axis=(0, 2)) > 1e-9)
            assert rows.tolist() == list(range(t, min(t + window, T)))
    alone, _ = attention.forward(params, x, **options(window=1))  # P = 1 for the token itself
    v = (x @ params["wv"] + params["bv"]).reshape(B, T, HK, WIDTH).repeat(HQ // HK, axis=2)
    np.testing.assert_allclose(alone, v.reshape(B, T, -1) @ params["wo"], rtol=1e-10)
    wide, _ = attention.forward(params, x, **options(window=100))
    np.testing.assert_array_equal(wide, attention.forward(params, x, **options())[0])


def test_pitfall_7_two_layers_see_two_windows_back(backend):
    """So a prompt may not be cut to the window."""
    params, x = problem()
    far = x.copy()
    far[:, 0] += 1
    outs = []
    for tokens in (x, far):
        for _ in range(2):
            tokens, _ = attention.forward(params, tokens, **options(window=3))
        outs.append(tokens)
    moved = np.abs(outs[0] - outs[1]).max(axis=(0, 2)) > 1e-9
    assert moved.tolist() == [True] * 5 + [False] * 2


def test_pitfall_8_large_scores_neither_overflow_nor_change(backend):
    params, x = problem()
    large = {**params, "wq": 1e3 * params["wq"], "wk": 1e3 * params["wk"]}
    out, cache = attention.forward(large, x, **options())
    dx, _ = attention.backward(np.ones_like(out), cache)
    assert np.isfinite(out).all() and np.isfinite(dx).all()
    np.testing.assert_allclose(out, naive_of_largest(large, x), rtol=1e-9)


def naive_of_largest(params, x):
    """Each query takes the value of its largest score, where the scores lie far apart."""
    out = np.empty_like(x)
    for b, t in np.ndindex(B, T):
        joined = []
        for h in range(HQ):
            q = project(params, "q", x[b, t], t, HQ, angles(0, T))[h]
            keys = [
                project(params, "k", x[b, s], s, HK, angles(0, T))[h // 2] for s in range(t + 1)
            ]
            s = int(np.argmax([q @ k for k in keys]))
            joined.append(project(params, "v", x[b, s], s, HK, None)[h // 2])
        out[b, t] = np.concatenate(joined) @ params["wo"]
    return out


def test_pitfall_28_no_input_changes(backend):
    params, x = problem(norm="whole")
    for a in (x, *nested.leaves(params).values()):
        a.flags.writeable = False
    out, cache = attention.forward(params, x, **options(valid=padding()))
    before = out.copy()
    attention.backward(out, cache)
    np.testing.assert_array_equal(out, before)


def test_pitfall_30_padding_of_the_memory_is_hidden_from_every_query(backend):
    params, x = problem()
    rng = np.random.default_rng(2)
    memory = rng.normal(size=(B, 6, D))
    chosen = options(causal=False, rotary=None)
    expected, _ = attention.forward(params, x, memory=memory[:, :4], **chosen)
    valid = np.tile(np.arange(6) < 4, (B, 1))
    out, cache = attention.forward(params, x, memory=memory, valid=valid, **chosen)
    np.testing.assert_allclose(out, expected, rtol=1e-11)
    assert (attention.backward_all(np.ones_like(out), cache).memory[:, 4:] == 0).all()


def test_it_is_causal_and_sequences_do_not_mix(backend):
    params, x = problem()
    out, _ = attention.forward(params, x, **options())
    for t in range(T):
        changed = x.copy()
        changed[0, t] += 1
        moved, _ = attention.forward(params, changed, **options())
        np.testing.assert_array_equal(moved[0, :t], out[0, :t])
        np.testing.assert_array_equal(moved[1], out[1])


# --- sizes, types, memory, errors -----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 3, D), (2, 0, D), (1, 1, D)])
def test_no_sequences_or_no_positions(shape, backend):
    params, _ = problem()
    chosen = options(rotary=angles(0, shape[1]))
    out, cache = attention.forward(params, np.ones(shape), **chosen)
    dx, grads = attention.backward(np.ones(shape), cache)
    assert out.shape == dx.shape == shape
    assert all(np.isfinite(g).all() for g in nested.leaves(grads).values())


def test_float32(backend):
    params, x = problem(norm="whole")
    exact, exact_cache = attention.forward(params, x, **options(valid=padding()))
    small = nested.map_leaves(lambda a: a.astype(np.float32), params)
    out, cache = attention.forward(small, x.astype(np.float32), **options(valid=padding()))
    np.testing.assert_allclose(out, exact, atol=1e-5 * np.abs(exact).max())
    dx, grads = attention.backward(out, cache)
    assert {a.dtype for a in (out, dx, *nested.leaves(grads).values())} == {np.dtype(np.float32)}
    expected, _ = attention.backward(exact, exact_cache)
    np.testing.assert_allclose(dx, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.seconds
def test_no_array_of_all_scores_is_kept_or_made(backend):
    """B · Hq · T · T numbers of 4 bytes would be 34 MB here; those of one sequence are 2 MB."""
    if backend == "numba":
        kernels = pytest.importorskip("tests.support.kernels")
        if not kernels.JIT:
            pytest.skip("too slow in the interpreter")
    rng = np.random.default_rng(0)
    params = attention.init(rng, 16, heads=2, kv_heads=1, dtype=np.float32)
    x = rng.normal(size=(16, 512, 16)).astype(np.float32)
    chosen = {"heads": 2, "kv_heads": 1, "causal": True}
    attention.forward(params, x[:1], **chosen)
    tracemalloc.start()
    out, cache = attention.forward(params, x, **chosen)
    kept, peak = tracemalloc.get_traced_memory()
    attention.backward(out, cache)
    _, peak_backward = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6e6 and peak < 20e6 and peak_backward < 20e6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 5}, "heads: wanted a multiple of 3 key heads, got 5"),
        ({"window": 0}, "window: wanted a whole number of at least 1, got 0"),
        ({"causal": 1}, "causal: wanted True or False, got 1"),
        ({"scale": np.nan}, "scale: wanted a finite number"),
        ({"rotary": rotary.angles(np.arange(3), WIDTH)}, r"rotary.cos: wanted shape \(7, 2\)"),
        ({"valid": np.ones((B, 5), bool)}, r"valid: wanted bool of shape \(2, 7\), got bool"),
        ({"valid": np.ones((B, T))}, "valid: wanted bool of shape"),
        ({"bias": np.ones((HK, T, T))}, r"bias: wanted shape \(6, 7, 7\), got \(3, 7, 7\)"),
        ({"memory": np.ones((B, 3, D))}, "memory: cross attention is not causal and has no"),
        ({"kv": (1, 2)}, "kv: wanted KeyValues, got"),
        (
            {"kv": key_values.empty(B, HK, T, WIDTH), "causal": False},
            "kv: wanted causal=True, because later positions are not known yet",
        ),
        (
            {"kv": key_values.empty(B, HK, T - 1, WIDTH)},
            "kv: wanted room for 7 positions, got 6",
        ),
        (
            {"kv": key_values.empty(B, HK, T, WIDTH, window=2), "window": 3},
            "kv: it keeps at most 1 positions before a query; got a wider window, or none",
        ),
        ({"clip_qkv": 0}, "clip_qkv: wanted a finite number above 0, got 0"),
        ({"clip_qkv": np.inf}, "clip_qkv: wanted a finite number above 0, got inf"),
    ],
)
def test_bad_arguments(changes, words, backend):
    params, x = problem()
    with pytest.raises(InputError, match=words):
        attention.forward(params, x, **options(**changes))


@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_numbers_that_are_not_finite(backend):
    params, x = problem()
    with pytest.raises(InputError, match="x: wanted numbers for which the output is finite"):
        attention.forward({**params, "wv": 1e308 * params["wv"]}, x, **options())
    for name in ("wq", "wk", "wv", "wo", "bq", "bk"):
        for number in (np.nan, np.inf):
            poisoned = {**params, name: params[name].copy()}
            poisoned[name].flat[0] = number
            kv = key_values.empty(B, HK, T, WIDTH)
            for chosen in (options(), options(kv=kv)):
                with pytest.raises(InputError, match="x: wanted numbers for which the output is"):
                    attention.forward(poisoned, x, **chosen)
    x[1, 2, 3] = np.nan
    with pytest.raises(InputError, match=r"x: wanted finite numbers, got nan at index \(1, 2, 3\)"):
        attention.forward(params, x, **options())


def test_a_pass_with_a_cache_of_keys_has_no_backward_pass():
    with pytest.raises(InputError, match="cache: wanted that of a forward pass without kv"):
        attention.backward(np.ones((B, T, D)), None)


@pytest.mark.parametrize("name", ["wq", "wk", "wv", "wo"])
def test_a_missing_matrix_is_named(name):
    params, x = problem()
    params = {key: value for key, value in params.items() if key != name}
    with pytest.raises(InputError, match="params: wanted the keys wq, wk, wv, wo; got"):
        attention.forward(params, x, **options())
    with pytest.raises(InputError, match="params: wanted a dict"):
        attention.forward(None, x, **options())


def test_a_gradient_that_is_not_finite_goes_through():
    params, x = problem()
    out, cache = attention.forward(params, x, **options())
    dx, _ = attention.backward(np.full_like(out, np.nan), cache)
    assert np.isnan(dx).all()


def test_a_block_of_norm_and_attention(backend):
    """The pair in its place: s = x + attention(norm(x)), read backwards."""
    params, x = problem()
    gain = {"g": 1 + 0.1 * np.arange(D)}

    def forward(p, x):
        h, norm = norms.rms_forward({"g": p["g"]}, x, eps=1e-5)
        moved = {name: p[name] for name in params}
        a, cache = attention.forward(moved, h, **options())
        return x + a, (norm, cache)

    def backward(dout, caches):
        norm, cache = caches
        dh, grads = attention.backward(dout, cache)
        dx, norm_grads = norms.rms_backward(dh, norm)
        return dout + dx, grads | norm_grads

    errors = pair_error(forward, backward, {**params, **gain}, x, np.random.default_rng(0))
    assert max(errors.values()) < 1e-7, errors
