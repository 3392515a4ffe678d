"""The decoder: gradients of whole models over all their leaves, causality, padding, refusals."""

import functools

import numpy as np
import pytest

from moe_np.base import gradcheck
from moe_np.base import params as nested
from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.models import decoder
from tests.support.decoders import LAYOUTS, ROUTERS, SMALL, params, text, with_leaves, with_router

MODELS = {**LAYOUTS, **{name: with_router(name) for name in ROUTERS}}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_model = pytest.mark.parametrize("name", MODELS)


def losses_of(name):
    if name in ("hashing", "dense") and MODELS[name].router != "top_k":
        return ()
    return ((0.1, balance.switch), (0.01, balance.z_loss), (0.05, balance.importance))


def errors(config, losses, *, whole=True, valid=None, rng=None):
    """The relative error of the gradients of task and load-balancing losses: of each leaf, or of
    all leaves as one vector.

    rng   a function that makes the generator of noise and dropout; None: none is drawn
    """
    p = params(config)
    every = nested.leaves(p)
    ids, targets = text(config)

    def loss_of(tree):
        if rng is None:
            result = decoder.loss(tree, ids, targets, config, losses=losses, valid=valid)
        else:
            result = decoder.loss_and_grads(
                tree, ids, targets, config, losses=losses, valid=valid, rng=rng()
            )[0]
        return result.task + sum(result.balance)

    generator = None if rng is None else rng()
    _, tree = decoder.loss_and_grads(
        p, ids, targets, config, losses=losses, valid=valid, rng=generator
    )
    grads = nested.leaves(tree)
    shapes = {path: g.shape for path, g in grads.items()}
    assert shapes == {path: a.shape for path, a in every.items()}
    learned = {path: a for path, a in every.items() if a.dtype.kind == "f"}
    grads = {path: grads[path] for path in learned}
    check = functools.partial(gradcheck.gradient_error, rng=np.random.default_rng(3), step=3e-5)
    if not whole:
        return check(lambda q: loss_of(with_leaves(p, {**every, **q})), learned, grads)
    # each leaf in units of its gradient, so that no large one hides a small one
    units = [1 / max(np.linalg.norm(g), 0.1) for g in grads.values()]
    scaled = [unit * g for unit, g in zip(units, grads.values(), strict=True)]
    arrays = list(learned.values())

    def loss_at(q):
        moves = zip(learned, arrays, units, nested.unflatten(q["all"], arrays), strict=True)
        moved = {path: a + unit * move for path, a, unit, move in moves}
        return loss_of(with_leaves(p, {**every, **moved}))

    vector = nested.flatten(scaled)
    return check(loss_at, {"all": 0 * vector}, {"all": vector})


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("backend")
@every_layout
def test_gradients_of_the_whole_model(layout):
    found = errors(LAYOUTS[layout], losses_of(layout))
    assert max(found.values()) < 1e-6, found


@pytest.mark.slow
@every_layout
def test_gradients_of_each_leaf(layout):
    found = errors(LAYOUTS[layout], losses_of(layout), whole=False)
    assert len(found) >= 20 and max(found.values()) < 1e-6, found


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "noisy_top_k"])
def test_gradients_with_other_routers(name):
    found = errors(with_router(name), losses_of(name))
    assert max(found.values()) < 1e-6, found


def same_noise():
    return np.random.default_rng(7)


@pytest.mark.seconds
def test_gradients_with_noise_and_the_load_loss():
    losses = ((0.1, balance.load), (0.1, balance.importance))
    found = errors(with_router("noisy_top_k"), losses, rng=same_noise)
    assert max(found.values()) < 1e-6, found


@pytest.mark.parametrize("layout", ["mixtral", "qwen2", "glam"])
def test_gradients_with_dropout(layout):
    config = LAYOUTS[layout]._replace(dropout=0.2, expert_dropout=0.3)
    found = errors(config, losses_of(layout), rng=same_noise)
    assert max(found.values()) < 1e-6, found


@pytest.mark.parametrize("layout", ["mixtral", "qwen2", "switch"])
def test_gradients_with_padding(layout):
    valid = np.ones((2, 9), bool)
    valid[0, 6:] = valid[1, :2] = False
    found = errors(LAYOUTS[layout], losses_of(layout), valid=valid)
    assert max(found.values()) < 1e-6, found


def test_a_block_is_a_pair():
    """dx of a block, which the whole model's gradients see only through the embedding."""
    config = LAYOUTS["qwen2"]
    layer = params(config)["layers"][0]
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 5, 12))
    ids = rng.integers(19, size=(2, 5))
    angles = decoder.rotary.angles(np.arange(5), config.d_head)
    batch = decoder.Batch(ids, angles, None, None, None, False)
    found = gradcheck.pair_error(
        lambda p, x: decoder.block_forward(with_leaves(layer, p), x, config, 0, batch),
        lambda dout, cache: (lambda dx, g: (dx, nested.leaves(g)))(
            *decoder.block_backward(dout, cache)
        ),
        nested.leaves(layer),
        x,
        rng,
        step=3e-5,
    )
    assert max(found.values()) < 1e-6, found


# --- what the model says --------------------------------------------------------------------------


@every_model
def test_no_token_sees_its_future(name):
    config = MODELS[name]
    p = params(config)
    ids, _ = text(config, B=1, T=12)
    logits, _ = decoder.forward(p, ids, config, training=False)
    for t in (1, 6, 11):
        later = ids.copy()
        later[0, t:] = (later[0, t:] + 5) % config.vocabulary
        changed, _ = decoder.forward(p, later, config, training=False)
        np.testing.assert_allclose(changed[0, :t], logits[0, :t], rtol=1e-10, atol=1e-12)
        assert np.abs(changed[0, t:] - logits[0, t:]).max() > 1e-3


def test_how_far_a_window_reaches():
    """Two layers with window 4: logits at t depend on the tokens from t − 6 on."""
    config = LAYOUTS["mixtral"]
    p = params(config)
    ids, _ = text(config, B=1, T=14)
    logits, _ = decoder.forward(p, ids, config)
    earlier = ids.copy()
    earlier[0, 3] = (earlier[0, 3] + 1) % config.vocabulary
    changed = np.abs(decoder.forward(p, earlier, config)[0] - logits)[0].max(axis=1) > 1e-12
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(3, 10))
    everything = config._replace(full_layers=(0,))
    logits, _ = decoder.forward(p, ids, everything)
    changed = np.abs(decoder.forward(p, earlier, everything)[0] - logits)[0].max(axis=1) > 1e-12
    np.testing.assert_array_equal(np.flatnonzero(changed), np.arange(3, 14))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "switch"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(layout, side):
    config = LAYOUTS[layout]
    p = params(config)
    ids, targets = text(config, B=1, T=6)
    padding = ((0, 0), (3, 0) if side == "left" else (0, 3))
    valid = np.pad(np.ones((1, 6), bool), padding)
    logits, _ = decoder.forward(p, ids, config)
    padded, _ = decoder.forward(p, np.pad(ids, padding), config, valid=valid)
    np.testing.assert_allclose(padded[valid], logits[0], rtol=1e-9, atol=1e-11)

    loss, grads = decoder.loss_and_grads(p, ids, targets, config)
    padded_loss, padded_grads = decoder.loss_and_grads(
        p,
        np.pad(ids, padding, constant_values=3),
        np.pad(targets, padding, constant_values=-1),
        config,
        valid=valid,
    )
    assert padded_loss.tokens == loss.tokens
    assert padded_loss.task == pytest.approx(loss.task, rel=1e-10)
    assert padded_loss.balance == pytest.approx(loss.balance, rel=1e-10)
    for path, g in nested.leaves(grads).items():
        other = nested.leaves(padded_grads)[path]
        np.testing.assert_allclose(other, g, atol=1e-9 * np.abs(g).max(), err_msg=path)


def test_the_loss_is_reported_apart():
    config = LAYOUTS["deepseek"]
    p = params(config)
    ids, targets = text(config)
    loss, _ = decoder.loss_and_grads(p, ids, targets, config, losses=((0.1, balance.switch),))
    logits, cache = decoder.forward(p, ids, config)
    log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    valid = targets >= 0
    expected = -np.take_along_axis(log_p, targets[..., None], axis=-1)[valid].mean()
    assert loss.task == pytest.approx(expected, rel=1e-12) and loss.tokens == valid.sum() == 16
    assert loss.balance[0] == 0, "the first layer is dense"
    for i in (1, 2):
        routing = cache.blocks[i].mixture.routing
        assert loss.balance[i] == pytest.approx(0.1 * balance.switch(routing).value, rel=1e-12)
        np.testing.assert_array_equal(routing.demand, loss.routings[i].demand)
    without, _ = decoder.loss_and_grads(p, ids, targets, config, losses=())
    assert without.task == loss.task and sum(without.balance) == 0


def test_errata_27_opposite_imbalances_of_two_layers_do_not_cancel():
    """Two layers, each with all tokens on another half of the experts (errata 27)."""
    config = SMALL._replace(experts=4, options={"k": 2, "renormalise": True})
    p = params(config)
    ids, targets = text(config)
    for i, layer in enumerate(p["layers"]):
        layer["norm2"]["g"] = np.eye(12)[0]  # the router sees one feature, of either sign
        wanted = np.array([1, 1, -1, -1]) * (1 if i == 0 else -1)
        layer["router"]["w"] = np.zeros((12, 4))
        layer["experts"]["w2"] = 0 * layer["experts"]["w2"]
        layer["attention"]["wo"] = 0 * layer["attention"]["wo"]
        layer["router"]["w"][0] = 5.0 * wanted
    p["embed"]["w"][:, 0] = 3.0
    loss, _ = decoder.loss_and_grads(p, ids, targets, config, losses=((1.0, balance.switch),))
    assert min(loss.balance) > 1.9


@every_layout
def test_nothing_is_changed_in_place(layout):
    config = LAYOUTS[layout]
    p = nested.map_leaves(lambda a: a.copy(), params(config))
    for a in nested.leaves(p).values():
        a.flags.writeable = False
    ids, targets = text(config)
    ids.flags.writeable = targets.flags.writeable = False
    logits, cache = decoder.forward(p, ids, config)
    logits.flags.writeable = False
    first = decoder.backward(logits, cache)
    second = decoder.backward(logits, cache)
    for path, g in nested.leaves(first).items():
        np.testing.assert_array_equal(g, nested.leaves(second)[path])
    decoder.loss_and_grads(p, ids, targets, config)


@every_layout
def test_float32(layout):
    config = LAYOUTS[layout]
    p = params(config)
    ids, targets = text(config)
    wide, wide_grads = decoder.loss_and_grads(p, ids, targets, config)
    narrow = nested.map_leaves(lambda a: a.astype(np.float32), p)
    logits, _ = decoder.forward(narrow, ids, config)
    assert logits.dtype == np.float32
    loss, grads = decoder.loss_and_grads(narrow, ids, targets, config)
    assert loss.task == pytest.approx(wide.task, rel=1e-5)
    for path, g in nested.leaves(grads).items():
        expected = nested.leaves(wide_grads)[path]
        assert g.dtype == np.float32
        assert np.abs(g - expected).max() <= 1e-4 * np.abs(expected).max(), path


def test_both_kernels_are_equal(monkeypatch):
    config = LAYOUTS["mixtral"]
    p = params(config, dtype=np.float32)
    ids, targets = text(config)
    results = []
    for backend in ("numpy", "numba"):
        if backend == "numba":
            pytest.importorskip("numba")
        monkeypatch.setenv("MOE_NP_KERNELS", backend)
        results.append(decoder.loss_and_grads(p, ids, targets, config))
    assert results[0][0].task == pytest.approx(results[1][0].task, rel=1e-6)
    for path, g in nested.leaves(results[0][1]).items():
        other = nested.leaves(results[1][1])[path]
        assert np.abs(g - other).max() <= 2e-5 * np.abs(g).max(), path


def test_a_workspace_gives_the_same():
    config = LAYOUTS["deepseek"]
    p = params(config)
    workspace = {}
    for seed in (1, 2):
        ids, targets = text(config, seed=seed)
        loss, grads = decoder.loss_and_grads(p, ids, targets, config)
        again, same = decoder.loss_and_grads(p, ids, targets, config, workspace=workspace)
        assert again.task == loss.task
        for path, g in nested.leaves(grads).items():
            np.testing.assert_array_equal(g, nested.leaves(same)[path])


def test_dropout_only_in_training():
    config = LAYOUTS["mixtral"]._replace(dropout=0.3, expert_dropout=0.3)
    p = params(config)
    ids, _ = text(config)
    plain, _ = decoder.forward(p, ids, LAYOUTS["mixtral"])
    rng = np.random.default_rng(0)
    evaluated, _ = decoder.forward(p, ids, config, training=False, rng=rng)
    np.testing.assert_array_equal(plain, evaluated)
    trained = [decoder.forward(p, ids, config, rng=np.random.default_rng(s))[0] for s in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert np.abs(trained[0] - plain).max() > 0.01 < np.abs(trained[0] - trained[2]).max()
    layers = {"dropout": 0.3}, {"expert_dropout": 0.3}
    for options in layers:
        part, _ = decoder.forward(p, ids, LAYOUTS["mixtral"]._replace(**options), rng=rng)
        assert np.abs(part - plain).max() > 0.01, options


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["expert_choice", "base_assignment", "strictly_balanced", "gshard", "st_moe"]
)
def test_routers_that_see_the_future_are_refused(name):
    config = SMALL._replace(router=name, options={})
    p = params(SMALL)
    for function in (
        lambda: decoder.init(np.random.default_rng(0), config),
        lambda: decoder.forward(p, text(SMALL)[0], config),
        lambda: decoder.loss_and_grads(p, *text(SMALL), config),
    ):
        with pytest.raises(InputError, match=f"router: .*got {name}: .* would see its future"):
            function()


def test_bad_ids():
    p = params(SMALL)
    for ids, message in [
        ([[0, 19]], "ids: wanted token numbers from 0 to 18, got 19"),
        ([[-1, 0]], "ids: wanted token numbers from 0 to 18, got -1"),
        ([0, 1], r"ids: wanted shape \(B, T\)"),
        ([[0.5]], "ids: wanted integer"),
        (np.zeros((2, 0), int), "ids: wanted 1 to 32 positions, the model's context, got 0"),
        (np.zeros((1, 33), int), "ids: wanted 1 to 32 positions, the model's context, got 33"),
    ]:
        with pytest.raises(InputError, match=message):
            decoder.forward(p, ids, SMALL)


def test_parameters_that_do_not_fit():
    ids, targets = text(SMALL)
    p = params(SMALL)
    for change, message in [
        ({"layers": p["layers"][:1]}, "wanted 2 layers, got 1"),
        ({"embed": {"w": p["embed"]["w"][:5]}}, r"params\['embed'\]\['w'\]: wanted shape"),
        ({"head": {"w": p["head"]["w"].T}}, r"params\['head'\]\['w'\]: wanted shape"),
        ({"layers": [p["layers"][0], {**p["layers"][1], "experts": {}}]}, "layer 1: params: want"),
    ]:
        with pytest.raises(InputError, match=message):
            decoder.forward({**p, **change}, ids, SMALL)
    without = {name: part for name, part in p.items() if name != "head"}
    with pytest.raises(InputError, match="wanted a 'head' with"):
        decoder.forward(without, ids, SMALL)
    with pytest.raises(InputError, match="wanted no 'head' with"):
        decoder.forward(p, ids, SMALL._replace(tied=True))
    with pytest.raises(InputError, match="targets"):
        decoder.loss_and_grads(p, ids, targets[:, :3], SMALL)
    with pytest.raises(InputError, match="valid"):
        decoder.forward(p, ids, SMALL, valid=np.ones((2, 3), bool))


def test_a_number_that_is_not_finite_names_the_layer():
    p = params(SMALL)
    p["layers"][1]["experts"]["w1"][:] = np.nan
    with pytest.raises(InputError, match=r"layer 1: params\['w1'\]"):
        decoder.forward(p, text(SMALL)[0], SMALL)
