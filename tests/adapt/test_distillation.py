"""Distillation: the loss with its gradient check, students, and refusals."""

import numpy as np
import pytest

from moe_np.adapt import distillation, merging, upcycling
from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error, pair_error
from moe_np.base.params import flatten, leaves, unflatten
from moe_np.layers import balance, cross_entropy
from moe_np.models import decoder
from tests.support.adapted import DENSE, SPARSE, difference, ids_of, logits_of, params_of


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    targets = np.array([3, 0, -1, 6, 2])
    return rng.normal(size=(5, 7)), targets, 2 * rng.normal(size=(5, 7))


@pytest.mark.parametrize("soft", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_its_equation(rows, soft, temperature):
    logits, targets, teacher = rows
    loss, cache = distillation.loss_forward(*rows, soft=soft, temperature=temperature)
    hard, kl = [], []
    for z, t, y in zip(logits, teacher, targets, strict=True):
        if y >= 0:
            q = np.exp(t / temperature) / np.exp(t / temperature).sum()
            p = np.exp(z / temperature) / np.exp(z / temperature).sum()
            hard.append(-np.log(np.exp(z[y]) / np.exp(z).sum()))
            kl.append(-(q * np.log(p)).sum())
    assert cache.hard_loss == pytest.approx(np.mean(hard))
    assert cache.soft_loss == pytest.approx(np.mean(kl))
    wanted = (1 - soft) * np.mean(hard) + soft * temperature**2 * np.mean(kl)
    assert loss == pytest.approx(wanted)


@pytest.mark.parametrize("soft", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_its_gradient(rows, soft, temperature):
    logits, targets, teacher = rows
    options = {"soft": soft, "temperature": temperature}

    def forward(_, x):
        return distillation.loss_forward(x, targets, teacher, **options)

    def backward(dloss, cache):
        return distillation.loss_backward(float(dloss), cache), {}

    errors = pair_error(forward, backward, {}, logits, np.random.default_rng(1))
    assert errors["x"] < 1e-8
    _, cache = forward(None, logits)
    assert not distillation.loss_backward(1.0, cache)[2].any(), "no target, no gradient"


def test_one_quarter_of_soft_targets_is_one_cross_entropy_with_mixed_targets(rows):
    logits, targets, teacher = rows
    loss, _ = distillation.loss_forward(logits, targets, teacher, soft=0.25)
    one_hot = np.eye(7)[targets]
    mixed = 0.75 * one_hot + 0.25 * numerics.softmax(teacher)
    assert loss == pytest.approx(cross_entropy.forward(logits, targets, soft=mixed)[0])


def test_the_teachers_own_softmax_is_where_the_soft_loss_is_least(rows):
    _, targets, teacher = rows
    _, cache = distillation.loss_forward(teacher, targets, teacher, soft=1.0)
    np.testing.assert_allclose(distillation.loss_backward(1.0, cache), 0, atol=1e-15)


@pytest.mark.parametrize("config", [DENSE, SPARSE])
def test_the_gradients_of_a_student(config):
    teacher = (SPARSE._replace(experts=6), params_of(SPARSE._replace(experts=6), 3))
    params = params_of(config)
    ids, targets = ids_of(), ids_of(2)
    options = {"teacher": teacher, "temperature": 1.5, "losses": ((0.1, balance.switch),)}

    def loss(vector):
        of_student = unflatten(vector["p"], params)
        return total(distillation.loss_and_grads(of_student, ids, targets, config, **options)[0])

    losses, grads = distillation.loss_and_grads(params, ids, targets, config, **options)
    flat = {"p": flatten(params)}, {"p": flatten(grads, params)}
    assert gradient_error(loss, *flat, np.random.default_rng(0), step=1e-4)["p"] < 1e-6
    assert losses.tokens == 21 and len(losses.balance) == 2
    hard = decoder.loss(params, ids, targets, config).task
    assert losses.hard == pytest.approx(hard)
    assert losses.task == pytest.approx(0.75 * hard + 0.25 * 1.5**2 * losses.soft)


def total(losses):
    return losses.task + sum(losses.balance)


def test_without_soft_targets_it_is_ordinary_training():
    teacher = (SPARSE, params_of(SPARSE, 3))
    params = params_of(DENSE)
    ids, targets = ids_of(), ids_of(2)
    losses, grads = distillation.loss_and_grads(
        params, ids, targets, DENSE, teacher=teacher, soft=0.0
    )
    plain, of_plain = decoder.loss_and_grads(params, ids, targets, DENSE)
    assert losses.task == pytest.approx(plain.task)
    for path, g in leaves(of_plain).items():
        np.testing.assert_allclose(leaves(grads)[path], g, atol=1e-12)


# --- students -------------------------------------------------------------------------------------


def test_a_new_student_has_the_operations_of_the_teacher():
    params = params_of(SPARSE)
    rng = np.random.default_rng(0)
    config, new = distillation.student("new", SPARSE, params, rng=rng)
    assert (config.experts, config.hidden) == (1, 16)
    copied_config, copied = distillation.student("copied", SPARSE, params, rng=rng)
    assert copied_config == config
    for path, p in leaves(copied).items():
        if "experts" in path:
            assert p.shape[0] == 1 and not np.array_equal(p, leaves(new)[path])
        else:
            np.testing.assert_array_equal(p, leaves(params)[path])
    assert np.isfinite(logits_of((config, copied))).all()


@pytest.mark.parametrize("way", ["merged", "task"])
def test_of_an_upcycled_teacher_one_expert_is_the_dense_model(way):
    params = params_of(DENSE)
    teacher = upcycling.upcycle(DENSE, params, experts=4, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    student = distillation.student(way, *teacher, rng=rng, ids=ids_of())
    assert difference((DENSE, params), student) < 1e-12


def test_the_experts_of_a_task_are_those_with_the_most_weight():
    params = params_of(SPARSE)
    _, new = distillation.single_expert(SPARSE, params, ids_of())
    _, cache = decoder.forward(params, ids_of(), SPARSE)
    for number, block in enumerate(cache.blocks):
        routing = block.mixture.routing
        best = np.bincount(routing.expert, routing.weight, 4).argmax()
        of_teacher = params["layers"][number]["experts"]["w1"][best]
        np.testing.assert_array_equal(new["layers"][number]["experts"]["w1"][0], of_teacher)
        assert "router" not in new["layers"][number]


def test_fewer_choices():
    assert distillation.fewer_choices(SPARSE, 1).options == {"k": 1, "renormalise": False}
    assert distillation.fewer_choices(SPARSE, 2).options == SPARSE.options
    assert np.isfinite(logits_of((distillation.fewer_choices(SPARSE, 1), params_of(SPARSE)))).all()
    with pytest.raises(InputError, match=r"k: wanted .*at most 2, got 3"):
        distillation.fewer_choices(SPARSE, 3)


def test_bad_input_is_one_clear_error(rows):
    logits, targets, teacher = rows
    with pytest.raises(InputError, match=r"teacher: wanted logits of shape \(5, 7\)"):
        distillation.loss_forward(logits, targets, teacher[:, :6])
    with pytest.raises(InputError, match="soft"):
        distillation.loss_forward(logits, targets, teacher, soft=1.5)
    with pytest.raises(InputError, match="temperature"):
        distillation.loss_forward(logits, targets, teacher, temperature=0)
    other = DENSE._replace(vocabulary=31)
    with pytest.raises(InputError, match="the 30 tokens of the teacher's vocabulary, got 31"):
        distillation.loss_and_grads(
            params_of(other), ids_of(), ids_of(), other, teacher=(SPARSE, params_of(SPARSE))
        )
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="several experts in a layer, got a dense one"):
        distillation.student("new", DENSE, params_of(DENSE), rng=rng)
    with pytest.raises(InputError, match="the tokens of the task, got None"):
        distillation.student("task", SPARSE, params_of(SPARSE), rng=rng)
    with pytest.raises(InputError, match="to copy, got"):
        distillation.copied_weights(
            params_of(SPARSE), params_of(merging.dense_config(SPARSE)._replace(d_head=4))
        )
