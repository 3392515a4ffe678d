"""Adapters: any function, class, object or router of this package becomes a `Subject`.

What a function takes and gives is told by its names and by calling it (vocabulary.py). A class is
made with the sizes that its parameters name. An instance of torch.nn.Module is copied, and the
matrix of its router is found by the shape of its parameters. Where that does not fit, an adapter is
a function of ten lines with names that the audit knows.
"""

import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from moe_np import routing
from moe_np.audit import vocabulary
from moe_np.audit.calling import Settings, default_of, of_function, reference_parameters
from moe_np.audit.frameworks import NumPy, framework, framework_of
from moe_np.audit.subject import Subject
from moe_np.audit.torch_modules import of_torch_module
from moe_np.base.checks import InputError

DEFAULT = Settings()


def subject_of(target: Any, settings: Settings = DEFAULT) -> Subject:
    """The Subject of a target. Raises InputError where its form is not understood."""
    if isinstance(target, Subject):
        return target
    if isinstance(target, ModuleType):
        subject = of_reference(target, settings)
    elif isinstance(target, type) or _is_factory(target):
        subject = of_class(target, settings)
    elif hasattr(target, "named_parameters"):
        subject = of_torch_module(target, settings)
    elif callable(target) or hasattr(target, "forward"):
        subject = of_function(target, settings)
    else:
        raise InputError(f"target: wanted a function, a class or a router, got {type(target)}")
    if settings.like is not None:
        subject.like = settings.like
        subject.options = dict(settings.options)
    if subject.k is None:
        subject.k = settings.k
    return subject


# --- routers of this package ----------------------------------------------------------------------


def of_reference(module: ModuleType, settings: Settings) -> Subject:
    """A router of `moe_np.routing`, or a module that keeps its contract, with its EXAMPLE."""
    if not hasattr(module, "route"):
        raise InputError(f"{module.__name__}: wanted a function `route`, as a router has")
    D, E, _ = settings.sizes()
    options = {**module.EXAMPLE, **settings.options}
    if "k" in options and settings.k is not None:
        options["k"] = settings.k
    params = reference_parameters(module, D, E)
    router: Any = module

    def call(inputs, training, seed):
        x = inputs["x"]
        values = {name: _per_token(a, len(x)) for name, a in options.items()}
        given = {name: inputs.get(name, a) for name, a in params.items()}
        generator = np.random.default_rng(seed) if training else None
        valid = inputs.get("valid")
        result, cache = router.route(given, x, **values, valid=valid, rng=generator)
        gate = np.zeros((len(x), E))
        gate[result.token, result.expert] = result.weight
        gate = gate.astype(x.dtype)

        def backward(dgate, dload=None):
            dweight = dgate[result.token, result.expert].astype(x.dtype)
            load = {} if dload is None else {"dload": dload}
            dx, grads = router.route_backward(dweight, None, cache, **load)
            return {"dx": dx, **{f"d{name}": g for name, g in grads.items()}}

        roles = {"gate": gate, "logits": result.logits, "backward": backward}
        if hasattr(cache, "load"):
            roles["load"] = cache.load
        return roles

    name = module.__name__.rpartition(".")[2]
    subject = Subject(name, call, NumPy(), (D, E), {"training", "rng", "valid"})
    subject.params = {
        name: a for name, a in params.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"
    }
    if module in routing.routers().values():
        subject.like = name
        subject.options = options
        subject.k = options.get("k")
    return subject


def _per_token(value, N):
    """An option with one number per token, repeated for N tokens."""
    return np.resize(value, N) if isinstance(value, np.ndarray) else value


# --- classes ---------------------------------------------------------------


def _is_factory(target):
    """A function of sizes alone, which makes the object that is audited."""
    if not isinstance(target, FunctionType):
        return False
    roles = {vocabulary.ROLE_OF_ARGUMENT.get(name) for name in inspect.signature(target).parameters}
    return {"D", "E"} <= roles and not {"x", "logits", "layers", "params"} & roles


def of_class(target: Callable[..., Any], settings: Settings) -> Subject:
    """A class or a function that makes an object, with the sizes that its parameters name."""
    maker = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    names = vocabulary.arguments(maker)
    names = {role: name for role, name in names.items() if name}
    if "x" in names:  # the first unknown parameter of a constructor is no input
        names["D"] = names.pop("x")
    D, E, k = settings.sizes(k=default_of(maker, names.get("k"), settings.k or 2))
    factor = settings.capacity_factor or default_of(maker, names.get("capacity_factor"), 1.0)
    values = {"k": k, "E": E, "D": D, "H": 2 * D, "capacity_factor": factor}
    if "experts" in names:  # a number of experts that is called so
        values["experts"] = E
    framework(framework_of(target)).seed(0)
    instance = target(**{names[r]: v for r, v in values.items() if r in names})
    settings = settings._replace(d_model=D, experts=E, k=k if "k" in names else settings.k)
    subject = subject_of(instance, settings)
    subject.name = getattr(target, "__name__", subject.name)
    if "capacity" in names:
        subject.places = default_of(maker, names["capacity"], None)
    if "capacity_factor" in names:
        subject.factor = factor
        subject.accepts.add("capacity_factor of the class")
    subject.remake = lambda D, E, k: of_class(target, settings._replace(d_model=D, experts=E, k=k))
    return subject
