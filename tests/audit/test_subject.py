"""Finding the form of what is audited: names, shapes, whole layers, sizes."""

import numpy as np
import pytest

from moe_np.audit import adapters, loss_rules, references, torch_modules, vocabulary
from moe_np.audit.calling import Settings, reference
from moe_np.audit.findings import Finding, finding_of, show
from moe_np.audit.frameworks import framework, framework_of
from moe_np.audit.subject import Subject
from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.layers import balance
from moe_np.routing import top_k


def dense(x, w):
    return numerics.softmax(x @ w)


def test_forms_of_results():
    rng = np.random.default_rng(0)
    gate = np.abs(rng.normal(size=(7, 4)))
    index = np.zeros((7, 2), np.int64)
    sizes = (7, 8, 4)
    assert vocabulary.by_shape([gate], sizes) == ["gate"]
    assert vocabulary.by_shape([index, gate[:, :2]], sizes) == ["indices", "weights"]
    roles = ["weights", "indices", "loss", "logits"]
    logits = rng.normal(size=(7, 4))
    assert vocabulary.by_shape([gate[:, :2], index, np.array(1.0), logits], sizes) == roles
    assert vocabulary.by_shape([rng.normal(size=(1, 7, 8)), np.ones(())], sizes) == ["out", "loss"]
    assert vocabulary.by_shape([np.ones((7, 4, 3)), None], sizes) == ["combine", ""]


@pytest.mark.parametrize(
    "function",
    [
        dense,
        lambda x, router_weight: dense(x, router_weight.T) if len(router_weight) == 4 else 1 / 0,
        lambda params, x: dense(x, params["w"]),
        lambda logits: numerics.softmax(logits),
        lambda x, w: {"gates": dense(x, w)},
        lambda x, w: dense(x, w)[:, :, None] * np.array([1.0, 0.0, 0.0]),
    ],
)
def test_forms_of_functions(function):
    subject = adapters.subject_of(function)
    x = subject.random(5)
    logits = subject.logits_of(x)
    np.testing.assert_allclose(subject.answer(x).gate, numerics.softmax(logits), atol=1e-12)


def test_a_sequence_of_tokens():
    def router(x, w):
        B, T, _ = x.shape
        return numerics.softmax(x.reshape(B * T, -1) @ w).reshape(B, T, -1)

    subject = adapters.subject_of(router)
    assert subject.three_axes and subject.answer(subject.random(5)).gate.shape == (5, 4)


def test_the_weights_of_a_layer_follow_from_its_output():
    def layer(x, w, experts):
        gate = dense(x, w)
        return sum(gate[:, m, None] * net(x) for m, net in enumerate(experts))

    subject = adapters.subject_of(layer)
    x = subject.random(6)
    answer = subject.answer(x)
    assert subject.is_layer and answer.residual.max() < 1e-10
    np.testing.assert_allclose(answer.gate, dense(x, subject.params["w"]), atol=1e-9)


def test_tokens_with_given_logits():
    subject = adapters.subject_of(dense)
    logits = np.random.default_rng(1).normal(size=(5, 4))
    np.testing.assert_allclose(subject.logits_of(subject.tokens(logits)), logits, atol=1e-12)
    narrow = adapters.subject_of(dense, Settings(d_model=3))
    assert narrow.tokens(logits) is None


def test_an_object_whose_matrix_is_an_attribute():
    class Gate:
        def __init__(self, dim, num_experts):
            self.weight = np.ones((num_experts, dim))

        def __call__(self, x):
            return numerics.softmax(x @ self.weight.T)

    subject = adapters.subject_of(Gate)
    w = np.random.default_rng(2).normal(size=(8, 4))
    x = subject.random(3)
    np.testing.assert_allclose(subject.answer(x, w=w).gate, dense(x, w))
    assert isinstance(subject, Subject) and subject.remake(6, 3, 1).E == 3


def test_indices_outside_mark_what_is_dropped():
    subject = adapters.subject_of(dense)
    gate = subject.dense(np.array([[0.5, 0.0]]), np.array([[1, -1]]))
    assert gate.tolist() == [[0, 0.5, 0, 0]]
    with pytest.raises(InputError, match="indices"):
        subject.dense(np.array([[0.5]]), np.array([[4]]))


def test_rules_are_those_of_the_package():
    z = np.random.default_rng(3).normal(size=(20, 4))
    routing, _ = top_k.route({"w": np.eye(4)}, z, k=2, renormalise=True)
    gate = references.matrix(routing)
    for rule in loss_rules.RIGHT:
        if hasattr(balance, rule.name):
            expected = getattr(balance, rule.name)(routing).value
            assert rule.value(z, gate, 2) == pytest.approx(expected), rule.name
    names = [c.name for c in references.right_ones(2, 4, None, None)]
    assert names[1] == "top_k(k=2, renormalise=True)"
    with pytest.raises(InputError, match="like"):
        reference("nothing")


def test_frameworks_are_found_by_what_the_code_mentions():
    assert framework_of(dense) == "numpy" and framework_of(top_k) == "numpy"
    with pytest.raises(InputError, match="framework"):
        framework("fortran")


def test_the_matrix_of_a_router_is_found_by_name_and_shape():
    shapes = {"experts.0.weight": (8, 8), "mlp.gate_proj.weight": (8, 4), "gate.weight": (4, 8)}
    arrays = {name: np.zeros(shape) for name, shape in shapes.items()}
    assert torch_modules.router_matrix(arrays, 4) == "gate.weight"
    assert torch_modules.router_matrix({"bias": np.zeros(4)}, None) is None


def test_evidence_is_short_and_comes_back():
    assert len(show(np.arange(1000))) <= 90
    finding = Finding("check", "wrong", "text", 3, "a", "b", "c")
    assert finding_of(finding.record()) == finding
