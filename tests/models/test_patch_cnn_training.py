"""Training the models of Chen et al. 2022: passes, the training loops, their stop rule."""

import numpy as np
import pytest

from moe_np.base import optim
from moe_np.base.checks import InputError
from moe_np.models import patch_cnn, patch_cnn_training
from tests.support.patch_cnn import D, E, N, problem

PUBLISHED = {"activation": "cubic", "gate": "raw", "loss": "twice"}  # as in the authors' code


# --- a pass ---------------------------------------------------------------------------------------


def test_permuting_experts_changes_names_only():
    params, x, y, noise, _ = problem()
    batch = patch_cnn_training.batch(x, y)
    order = np.array([2, 0, 3, 1])
    options = {"activation": "cubic", "gate": "softmax", "loss": "once"}
    value, expert, grads = patch_cnn_training.gradients(params, batch, noise, **options)
    params2 = {name: p[order] for name, p in params.items()}
    value2, expert2, grads2 = patch_cnn_training.gradients(
        params2, batch, noise[:, order], **options
    )
    assert value2 == pytest.approx(value)
    assert (order[expert2] == expert).all()
    for name, g in grads.items():
        np.testing.assert_allclose(grads2[name], g[order], atol=1e-12)


def test_ties_in_a_pass_go_to_the_lowest_index():
    params, x, y, _, _ = problem()
    params["theta"][:] = 0
    noise = np.tile([0.1, 0.7, 0.7, 0.2], (N, 1))
    options = {"activation": "linear", "gate": "raw", "loss": "once"}
    batch = patch_cnn_training.batch(x, y)
    for r, chosen in ((None, 0), (noise, 1)):
        _, expert, _ = patch_cnn_training.gradients(params, batch, r, **options)
        assert (expert == chosen).all()


def test_a_pass_gives_the_same_bits_again():
    params, x, y, noise, _ = problem(n=700, dtype=np.float32)
    batch = patch_cnn_training.batch(x, y)
    options = {"activation": "cubic", "gate": "softmax", "loss": "twice"}
    value, _, grads = patch_cnn_training.gradients(params, batch, noise, **options)
    value2, _, grads2 = patch_cnn_training.gradients(params, batch, noise, **options)
    assert value == value2
    assert all((grads[name] == grads2[name]).all() for name in grads)


def test_an_expert_without_samples_gets_no_gradient_and_stays():
    params, x, y, noise, _ = problem()
    noise[:, 3] = -100
    batch = patch_cnn_training.batch(x, y)
    options = {"activation": "cubic", "gate": "raw", "loss": "once"}
    _, expert, grads = patch_cnn_training.gradients(params, batch, noise, **options)
    assert 3 not in expert
    assert all((g[3] == 0).all() for g in grads.values())
    options |= {"epochs": 2, "lr": 0.1, "lr_router": 0}
    *_, last = patch_cnn_training.train_mixture(
        params, batch, expert % 2, lambda shape: noise, **options
    )
    assert (last.params["w"][3] == params["w"][3]).all()
    assert (last.params["w"][:3] != params["w"][:3]).any()


def test_trajectories_are_equal(monkeypatch):
    pytest.importorskip("numba")
    paths = {}
    for backend in ("numpy", "numba"):
        monkeypatch.setenv("MOE_NP_KERNELS", backend)
        params, x, y, _, _ = problem(n=60)
        draw = patch_cnn_training.uniform_noise(np.random.default_rng(3), np.float64)
        options = {**PUBLISHED, "epochs": 15, "lr": 0.05, "lr_router": 0.1, "stop": False}
        batch = patch_cnn_training.batch(x, y)
        passes = patch_cnn_training.train_mixture(params, batch, y, draw, **options)
        paths[backend] = [(s.loss, s.entropy, s.params["w"].sum()) for s in passes]
    np.testing.assert_allclose(paths["numba"], paths["numpy"], rtol=1e-9)
    losses = [loss for loss, *_ in paths["numpy"]]
    assert losses[-1] < losses[0]


# --- training -------------------------------------------------------------------------------------


def stopped_at(monkeypatch, losses, stop=True):
    """Number of the last pass when the passes have `losses`, and whether the rule stopped there."""
    params, x, y, _, _ = problem()
    zeros = {name: np.zeros_like(p) for name, p in params.items()}
    values = iter(losses)

    def gradients(*_, **options):
        return next(values), np.zeros(N, int), zeros

    monkeypatch.setattr(patch_cnn_training, "gradients", gradients)
    batch = patch_cnn_training.batch(x, y)
    options = {**PUBLISHED, "epochs": len(losses), "lr": 1, "lr_router": 1, "stop": stop}
    *_, last = patch_cnn_training.train_mixture(params, batch, y, None, **options)
    return last.epoch, last.stopped


def test_stop_rule(monkeypatch):
    # a little worse: goes on
    assert stopped_at(monkeypatch, [0.6, 0.61, 0.5]) == (2, False)
    # above the smallest by more than .02
    assert stopped_at(monkeypatch, [0.6, 0.5, 0.521, 0.4]) == (2, True)
    # near the floor and rising
    assert stopped_at(monkeypatch, [0.6, 0.3138, 0.3139, 0.3]) == (2, True)
    # near the floor and not rising
    assert stopped_at(monkeypatch, [0.3138, 0.3138, 0.3137]) == (2, False)
    assert stopped_at(monkeypatch, [0.5, 0.9, 0.9], stop=False) == (2, False)


def test_a_single_network_is_trained_by_adam_with_weight_decay():
    params, x, y, _, _ = problem()
    params = {name: params[name][:1] for name in ("w", "b")}
    batch = patch_cnn_training.batch(x, y)
    options = {"epochs": 5, "activation": "cubic", "lr": 0.01}
    passes = list(patch_cnn_training.train_single(params, batch, **options))
    state = None
    for number, training_pass in enumerate(passes):
        value, grads = patch_cnn_training.single_gradients(params, batch, activation="cubic")
        params, state = optim.adam(params, grads, state, lr=0.01, weight_decay=5e-4)
        assert (training_pass.epoch, training_pass.loss) == (number, value)
        for name, p in params.items():
            np.testing.assert_array_equal(training_pass.params[name], p)
    assert len(passes) == 5 and passes[-1].loss < passes[0].loss


def test_stop_rule_of_a_single_network(monkeypatch):
    """After pass number `stop_after`, and above the smallest loss by more than .02."""
    params, x, y, _, _ = problem()
    params = {name: params[name][:1] for name in ("w", "b")}
    zeros = {name: np.zeros_like(p) for name, p in params.items()}
    batch = patch_cnn_training.batch(x, y)

    def stopped_single(*losses):
        values = iter(losses)
        monkeypatch.setattr(
            patch_cnn_training, "single_gradients", lambda *_, **options: (next(values), zeros)
        )
        options = {"epochs": len(losses), "activation": "cubic", "lr": 1, "stop_after": 2}
        *_, last = patch_cnn_training.train_single(params, batch, **options)
        return last.epoch, last.stopped

    assert stopped_single(0.5, 0.9, 0.9, 0.51, 0.5) == (4, False)  # too early, then too little
    assert stopped_single(0.5, 0.9, 0.9, 0.5 + 0.02, 0.5) == (4, False)
    assert stopped_single(0.5, 0.9, 0.9, 0.53, 0.5) == (3, True)
    assert stopped_single(0.5, 0.4, 0.4, 0.4, 0.43, 0.4) == (4, True)


def test_a_step_of_an_expert_has_the_same_length_however_few_its_samples():
    params, x, y, noise, _ = problem()
    options = {**PUBLISHED, "epochs": 1, "norm": "joint", "lr": 0.01, "lr_router": 0.1}
    batch = patch_cnn_training.batch(x, y)
    (first,) = patch_cnn_training.train_mixture(params, batch, y, lambda shape: noise, **options)
    update = {name: (first.params[name] - params[name]).reshape(E, -1) for name in ("w", "b")}
    squared = sum((u**2).sum(axis=1) for u in update.values())
    np.testing.assert_allclose(np.sqrt(squared), 0.01)


def test_what_a_mixture_has_learned():
    v = np.eye(D)[:3]
    params = {"w": np.zeros((2, 4, D)), "b": np.zeros((2, 4)), "theta": np.zeros((2, D))}
    params["w"][0, 1, 0] = -3
    params["w"][1, 2, 2] = 2
    params["theta"][1, 0] = -1
    known = patch_cnn_training.alignment(params, v, v[::-1])
    assert known["expert_feature"].tolist() == [[3, 0, 0], [0, 0, 2]]
    assert known["expert_center"].tolist() == [[0, 0, 3], [2, 0, 0]]
    assert known["router_feature"].tolist() == [[0, 0, 0], [1, 0, 0]]
    x = np.zeros((4, 1, D))
    x[:, 0, 0] = [1, -1, 1, -1]  # expert 0 predicts class 0 for −1: its filter of class 0 is −3
    batch = patch_cnn_training.batch(x, np.array([1, 0, 0, 0]))
    cluster = np.array([0, 0, 1, 1])
    right = patch_cnn_training.expert_accuracy(params, batch, cluster, activation="cubic")
    assert right[0].tolist() == [100, 50]


# --- bad input ------------------------------------------------------------------------------------


BAD_BATCHES = {
    "x without an axis": (
        (np.zeros((3, 5)), np.zeros(3, int)),
        r"x: wanted shape \(N, P, D\), got \(3, 5\)",
    ),
    "x not finite": (
        (np.full((1, 1, 1), np.nan), np.zeros(1, int)),
        "x: wanted finite numbers, got nan",
    ),
    "y of another length": (
        (np.zeros((3, 2, 2)), np.zeros(2, int)),
        r"y: wanted shape \(3,\), got \(2,\)",
    ),
    "y of other classes": (
        (np.zeros((2, 2, 2)), np.array([-1, 1])),
        "y: wanted classes 0 and 1, got -1 to 1",
    ),
}


@pytest.mark.parametrize(("samples", "words"), BAD_BATCHES.values(), ids=BAD_BATCHES.keys())
def test_a_bad_batch_is_named(samples, words):
    with pytest.raises(InputError, match=words):
        patch_cnn_training.batch(*samples)


def test_bad_options_are_named():
    options = {"gate": "raw", "loss": "once"}
    with pytest.raises(InputError, match="activation: wanted one of cubic, linear; got 'cube'"):
        patch_cnn_training.gradients({}, None, None, activation="cube", **options)
    with pytest.raises(InputError, match="gate: wanted one of raw, softmax; got 'hard'"):
        patch_cnn_training.predict({}, None, None, activation="cubic", gate="hard")


@pytest.mark.parametrize("backend", ["", "numpy"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("b", (2, 6)), ("theta", (9, 5)), ("w", (2, 6, 5)), ("w", (4, 6, 4)), ("b", (4, 5))],
)
def test_parameters_that_do_not_fit_together_are_refused(monkeypatch, backend, name, shape):
    """The compiled pass read outside of the arrays: a segmentation fault, or gradients of 1e41."""
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    rng = np.random.default_rng(0)
    params = patch_cnn.init(rng, 4, 3, 5)
    batch = patch_cnn_training.batch(rng.normal(size=(40, 2, 5)), rng.integers(0, 2, 40))
    options = {"activation": "cubic", "gate": "raw", "loss": "once"}
    noise = rng.random((40, 4))
    patch_cnn_training.gradients(params, batch, noise, **options)
    with pytest.raises(InputError, match=r"params\['\w+'\]: wanted"):
        patch_cnn_training.gradients({**params, name: np.ones(shape)}, batch, noise, **options)
    for bad in (noise[:, :2], noise[:10], noise * np.nan, 3):
        with pytest.raises(InputError, match="noise: wanted"):
            patch_cnn_training.gradients(params, batch, bad, **options)
    single = {"w": params["w"][:1], "b": params["b"]}
    with pytest.raises(InputError, match=r"params\['\w'\]: wanted"):
        patch_cnn_training.single_gradients(single, batch, activation="cubic")


@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_a_loss_that_is_not_finite_is_refused(monkeypatch, backend):
    monkeypatch.setenv("MOE_NP_KERNELS", backend)
    params, x, y, noise, _ = problem()
    params = {name: p.copy() for name, p in params.items()}
    params["w"][...] = 1e150
    batch = patch_cnn_training.batch(x, y)
    options = {"activation": "cubic", "gate": "raw", "loss": "once"}
    with pytest.raises(InputError, match="params: wanted numbers for which the loss is finite"):
        patch_cnn_training.gradients(params, batch, noise, **options)
    single = {name: params[name][:1] for name in ("w", "b")}
    with pytest.raises(InputError, match="params: wanted numbers for which the loss is finite"):
        patch_cnn_training.single_gradients(single, batch, activation="cubic")


def test_accuracy_in_percent():
    out = np.array([[1.0, 0], [0, 1], [2, 1], [0, 3]])
    assert patch_cnn_training.accuracy(out, np.array([0, 1, 1, 1])) == 75


def test_a_single_network_is_one():
    params, x, y, _, _ = problem()
    batch = patch_cnn_training.batch(x, y)
    two = {name: params[name][:2] for name in ("w", "b")}
    with pytest.raises(InputError, match=r"params\['w'\]: wanted one network, got 2"):
        patch_cnn_training.single_gradients(two, batch, activation="cubic")
    with pytest.raises(InputError, match=r"params\['w'\]: wanted one network, got 2"):
        patch_cnn_training.single_predict(two, batch, activation="cubic")


@pytest.mark.parametrize(("E", "F"), [(0, 4), (4, 0), (4, 3)])
def test_no_experts_no_filters_and_an_odd_number_are_refused(E, F):
    _, x, y, _, _ = problem()
    batch = patch_cnn_training.batch(x, y)
    params = {"w": np.ones((E, F, D)), "b": np.ones((E, F)), "theta": np.ones((E, D))}
    options = {"activation": "cubic", "gate": "raw", "loss": "once"}
    with pytest.raises(InputError, match=r"params\['w'\]: wanted"):
        patch_cnn_training.gradients(params, batch, None, **options)
