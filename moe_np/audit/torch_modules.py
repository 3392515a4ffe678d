"""Instances of torch.nn.Module as subjects: the router's matrix, the experts, stored losses."""

import contextlib
import copy
import inspect
from typing import Any

import numpy as np

from moe_np.audit import vocabulary
from moe_np.audit.calling import (
    Settings,
    call_by_name,
    informative,
    learn,
    parameters,
    roles_of,
    stored_losses,
)
from moe_np.audit.frameworks import framework
from moe_np.audit.subject import Subject
from moe_np.base.types import Array

BIASED = ("bias_balanced", "biased_top_k")  # references with a parameter `bias`


def of_torch_module(module: Any, settings: Settings) -> Subject:
    """An instance of torch.nn.Module; it is copied, and used in double precision."""
    tools: Any = framework("torch")
    with contextlib.suppress(Exception):  # what cannot be copied is used itself
        module = copy.deepcopy(module)
    module = module.double()
    arrays = {name: tools.get(p) for name, p in module.named_parameters()}
    buffers = {name: tools.get(b) for name, b in module.named_buffers()}
    gate = router_matrix(arrays, settings.experts)
    D, E, _ = settings.sizes()
    if gate is not None:
        shape = arrays[gate].shape
        E = settings.experts or (min(shape) if settings.d_model is None else _other(shape, D))
        D = settings.d_model or _other(shape, E)
    torch = tools.torch
    names = vocabulary.arguments(module.forward)
    places = {"w": gate} if gate is not None else {}
    for name, a in {**arrays, **buffers}.items():
        if name != gate and "noise" in name and a.shape in ((D, E), (E, D)) and gate is not None:
            places["w_noise"] = name
        is_bias = settings.like in BIASED and name == beside(gate, "bias")
        if a.shape == (E,) and (is_bias or "correction" in name or "selection" in name):
            places["bias"] = name

    transposed = {
        role: {**arrays, **buffers}[name].shape == (E, D) for role, name in places.items()
    }
    fixed = {"k": settings.k or 2, "E": E, "D": D}

    def call(inputs, training, seed):
        module.train(training)
        changes = {
            name: inputs[role].T if transposed[role] else inputs[role]
            for role, name in places.items()
            if role in inputs
        }
        rest = {role: a for role, a in inputs.items() if role not in places}

        def forward(**arguments):
            return torch.func.functional_call(module, changes, (), arguments)

        forward.__signature__ = inspect.signature(module.forward)  # type: ignore[attr-defined]
        return call_by_name(forward, names, fixed, tools)(rest, training, seed)

    subject = Subject(type(module).__name__, call, tools, (D, E), {*names, "training"})
    subject.takes = "x" if "x" in names or "logits" not in names else "logits"
    subject.params = {
        role: {**arrays, **buffers}[name].T if transposed[role] else {**arrays, **buffers}[name]
        for role, name in places.items()
    }
    subject.params = {name: np.array(a, np.float64) for name, a in subject.params.items()}
    subject.params = informative(subject.params)
    if "bias" in subject.params:
        subject.params["bias"] = parameters(E, D)["bias"]
    linear_bias = "" if gate is None else gate.removesuffix("weight") + "bias"
    if linear_bias in arrays and places.get("bias") != linear_bias:
        subject.linear_bias = arrays[linear_bias]
    subject.k = settings.k
    subject.precision = lambda name: module.to(getattr(torch, name))
    _find_experts(subject, module, tools)
    learn(subject)
    if "loss" not in roles_of(subject):
        subject.stores = stored_losses(module.modules())
    return subject


def beside(gate: str | None, name: str) -> str:
    """The name of another parameter of the module whose matrix is `gate`; "" without a gate."""
    return "" if gate is None else gate.rpartition(".")[0] + "." * ("." in gate) + name


def _other(shape, size):
    return shape[1] if shape[0] == size else shape[0]


def router_matrix(arrays: dict[str, Array], n_experts: int | None) -> str | None:
    """The name of the router's matrix among parameters: by its name, and by E if that is known."""
    hints = ("gate", "router", "classifier", "wg", "w_g", "switch")
    matrices = [
        name
        for name, a in arrays.items()
        if a.ndim == 2 and (n_experts is None or n_experts in a.shape) and "noise" not in name
    ]
    named = [
        name
        for name in matrices
        if any(h in name.lower() for h in hints)
        and not any(part in name for part in ("gate_proj", "shared", "experts."))
    ]
    if named:
        return named[0]
    return matrices[0] if len(matrices) == 1 else None


def _find_experts(subject, module, tools):
    """Functions of the experts and of the shared ones, where the module has them as a list, as a
    dictionary, or stacked in one module that is called with indices and weights.
    """
    experts = getattr(module, "experts", None)
    if experts is None or not hasattr(experts, "children"):
        return
    nets = list(experts.children())
    stacked = "top_k_index" in inspect.signature(experts.forward).parameters
    if len(nets) != subject.E and not stacked:
        return

    def output(m, rows):
        if not stacked:
            return nets[m](rows)
        index = tools.torch.full((len(rows), 1), m)
        return experts(rows, index, tools.torch.ones((len(rows), 1), dtype=rows.dtype))

    def outputs(x):
        with tools.torch.no_grad():
            rows = tools.put(subject.cast(x))
            return np.stack([tools.get(output(m, rows)) for m in range(subject.E)], axis=1)

    subject.experts = outputs
    _find_shared(subject, module, tools)


def _find_shared(subject, module, tools):
    """The network that every token passes, with its gate if it has one."""
    shared = getattr(module, "shared_experts", getattr(module, "shared_expert", None))
    gate = getattr(module, "shared_expert_gate", None)
    if shared is None:
        return

    def output(x):
        with tools.torch.no_grad():
            rows = tools.put(subject.cast(x))
            y = shared(rows)
            return tools.get(y if gate is None else tools.torch.sigmoid(gate(rows)) * y)

    subject.shared = output
