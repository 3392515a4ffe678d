"""Calling the code under audit by the names of its parameters, and finding out what it returns."""

import copy
import inspect
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from moe_np import routing
from moe_np.audit import vocabulary
from moe_np.audit.frameworks import NumPy, framework, framework_of
from moe_np.audit.subject import Call, Subject
from moe_np.base.checks import InputError
from moe_np.base.types import Params


class Settings(NamedTuple):
    """What the user says of the code under audit; None: to be found."""

    d_model: int | None = None
    experts: int | None = None
    k: int | None = None
    capacity_factor: float | None = None
    framework: str | None = None
    like: str | None = None  # the router of moe_np.routing that it should equal
    options: dict[str, Any] = {}  # noqa: RUF012 - options of that router, never changed

    def sizes(self, D: int = 8, E: int = 4, k: int = 2) -> tuple[int, int, int]:
        """D, E and k, with these values for what is not stated."""
        return self.d_model or D, self.experts or E, self.k or k


def reference(name: str) -> Any:
    """The router of `moe_np.routing` of this name."""
    routers = routing.routers()
    if name not in routers:
        raise InputError(f"like: wanted one of {', '.join(routers)}, got {name!r}")
    return routers[name]


def parameters(E: int, D: int, seed: int = 1) -> Params:
    """Values for w, w_noise and bias: no ties, nothing at 0."""
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(size=(D, E)) / np.sqrt(D),
        "w_noise": 0.5 * rng.normal(size=(D, E)) / np.sqrt(D),
        "bias": rng.uniform(-0.3, 0.3, E),
    }


def informative(params: Params) -> Params:
    """The same parameters, and no array of floats is constant.

    A bias that is 0, as `init` has it, does not tell where it enters; a constant array is moved by
    up to 0.3, or 0.3 times its value.
    """
    rng = np.random.default_rng(2)
    moved = {}
    for name, a in params.items():
        a = np.asarray(a)
        if a.dtype.kind == "f" and np.ptp(a) == 0:
            a = a + 0.3 * np.where(a == 0, 1, a) * rng.uniform(-1, 1, a.shape)
        moved[name] = a
    return moved


def reference_parameters(module: Any, D: int, E: int) -> Params:
    """Parameters of a router of this package with which every one of them is seen."""
    initial = {"scale": 1.0} if "scale" in inspect.signature(module.init).parameters else {}
    options = {**initial, **getattr(module, "EXAMPLE_INIT", {})}
    return informative(module.init(np.random.default_rng(1), D, E, **options))


# --- functions ------------------------------------------------------------------------------------


def of_function(target: Callable[..., Any], settings: Settings) -> Subject:
    """A function, a bound method, or an object that is called."""
    function = target if callable(target) else target.forward
    like = _Like(settings)
    names = vocabulary.arguments(function, {*like.params, *like.options})
    D, E, k = settings.sizes(k=like.options.get("k", default_of(function, names.get("k"), 2)))
    tools = framework(settings.framework or framework_of(function))
    settings = settings._replace(k=k if "k" in names else settings.k)
    subject = _unlearned(target, names, tools, like, settings._replace(d_model=D, experts=E))
    if {"w", "params", "k", "E"} & set(names):
        subject.remake = lambda D, E, k: of_function(
            target, settings._replace(d_model=D, experts=E, k=k, framework=tools.name)
        )
    watched = _global_lists(function)
    learn(subject)
    if "loss" not in roles_of(subject):
        grown = [name for name, (values, size) in watched.items() if len(values) > size]
        subject.stores = (*stored_losses([getattr(target, "__self__", target)]), *grown)
    return subject


def _global_lists(function):
    """{name: (list, its length)} of the global lists that a function names."""
    code = getattr(function, "__code__", None)
    names = () if code is None else code.co_names
    values = {name: function.__globals__.get(name) for name in names}
    return {name: (v, len(v)) for name, v in values.items() if isinstance(v, list)}


def stored_losses(objects: Iterable[Any]) -> tuple[str, ...]:
    """Names of attributes that look like a loss and that have a value after a call."""
    names = []
    for thing in objects:
        if isinstance(thing, FunctionType):
            continue
        for name, value in getattr(thing, "__dict__", {}).items():
            is_loss = any(text in name.lower() for text in ("loss", "aux")) and name[:1] != "_"
            if is_loss and (hasattr(value, "dtype") or (isinstance(value, list) and value)):
                names.append(name)
    return tuple(names)


def roles_of(subject: Subject) -> set[str]:
    """The roles of its results in a call."""
    return set(subject.results(subject.inputs(subject.random(5))))


def default_of(function: Callable[..., Any], name: str | None, value: Any) -> Any:
    """The default of a parameter, `value` where it has none."""
    if name is None:
        return value
    default = inspect.signature(function).parameters[name].default
    return value if default is inspect.Parameter.empty or default is None else default


class _Like:
    """Parameters and options of the router that the code should equal; empty without one."""

    def __init__(self, settings):
        self.params: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        if settings.like is None:
            return
        module: Any = reference(settings.like)
        D, E, _ = settings.sizes()
        self.params = reference_parameters(module, D, E)
        self.options = {**module.EXAMPLE, **settings.options}
        if settings.k is not None and "k" in self.options:
            self.options["k"] = settings.k


def _unlearned(target, names, tools, like, settings):
    """The Subject of a function whose parameters have these roles."""
    function = target if callable(target) else target.forward
    D, E, _ = settings.sizes()
    fixed = {"k": settings.k or 2, "E": E, "D": D, "experts": _linear_experts(D, E, tools)}
    fixed |= {name: a for name, a in like.options.items() if name in names}
    call = call_by_name(function, names, fixed, tools)
    subject = Subject(_name(function), call, tools, (D, E), set(names))
    subject.takes = "x" if "x" in names else "logits"
    available = {**parameters(E, D), **like.params}
    wanted = set(available) & (set(like.params or available) if "params" in names else set(names))
    subject.params = {name: available[name] for name in sorted(wanted)}
    if not isinstance(target, FunctionType):
        _set_attributes(subject, getattr(target, "__self__", target))
    if "capacity_factor" in names:
        default = default_of(function, names["capacity_factor"], 1.0)
        default = like.options.get("capacity_factor", default)
        subject.factor = settings.capacity_factor or default
    subject.k = fixed["k"] if "k" in names else settings.k
    if "experts" in names:
        subject.experts = lambda x: np.stack([x @ m for m in _expert_matrices(D, E)], axis=1)
    return subject


def _set_attributes(subject, target):
    """Of an object: the attributes that are its matrices and its bias are set before each call."""
    D, E = subject.D, subject.E
    places = {}
    for name, value in vars(target).items() if hasattr(target, "__dict__") else ():
        role = vocabulary.ROLE_OF_ARGUMENT.get(name.lower())
        shape = np.shape(value)
        if role in ("w", "w_noise") and shape in ((D, E), (E, D)):
            places[role] = name, shape == (E, D)
        elif role == "bias" and shape == (E,):
            places[role] = name, False
    function = subject.call

    def call(inputs, training, seed):
        for role, (name, transposed) in places.items():
            if role in inputs:
                setattr(target, name, inputs[role].T if transposed else inputs[role])
        rest = {role: a for role, a in inputs.items() if role not in places}
        return function(rest, training, seed)

    subject.call = call
    values = {
        role: np.array(getattr(target, name), np.float64) for role, (name, _) in places.items()
    }
    turned = {role: a.T if places[role][1] else a for role, a in values.items()}
    subject.params |= informative(turned)


def call_by_name(
    function: Callable[..., Any], names: dict[str, str], fixed: dict[str, Any], tools: NumPy
) -> Call:
    """inputs, training, seed -> the result of the function, each argument under its name."""
    signature = inspect.signature(function).parameters
    needs_rng = "rng" in names and signature[names["rng"]].default is inspect.Parameter.empty

    def call(inputs, training, seed):
        values = {**fixed, **inputs}
        if "params" in names:
            values["params"] = {n: a for n, a in inputs.items() if n not in ("x", "valid")}
        if "layers" in names and "layers" not in inputs:
            values["layers"] = [inputs["logits"]]
        values["training"] = training
        values["evaluation"] = not training
        if training or (needs_rng and "training" in names) or (tools.name == "jax" and needs_rng):
            values["rng"] = tools.generator(seed)
        elif needs_rng:
            values["rng"] = None
        values["seed"] = seed if training else None
        N = len(values["x"] if "x" in values else values["logits"])
        values = {name: _of_tokens(a, N, tools) for name, a in values.items()}
        arguments = {names[role]: values[role] for role in names if role in values and names[role]}
        if not names.get("x", "x"):
            return function(values["x"])
        return function(**arguments)

    return call


def _of_tokens(value, N, tools):
    """An option with one number per token, for N tokens; other values as they are."""
    is_option = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "i"
    return tools.put(np.resize(value, N)) if is_option and tools.name != "numpy" else value


def _expert_matrices(D, E):
    return np.random.default_rng(3).normal(size=(E, D, D)) / np.sqrt(D)


def _linear_experts(D, E, tools):
    """E functions rows (n, D) -> (n, D), native; in the precision of the rows."""
    matrices = [tools.put(m) for m in _expert_matrices(D, E)]
    if tools.name == "torch":
        return [lambda rows, w=w: rows @ w.to(rows.dtype) for w in matrices]
    return [lambda rows, w=w: rows @ w.astype(rows.dtype) for w in matrices]


def _name(target):
    return getattr(target, "__name__", type(target).__name__)


# --- what a call gives ----------------------------------------------------------------------------


def learn(subject: Subject) -> Subject:
    """Call it once and find the roles of its results; the number of axes and the orientation of w
    are tried in turn. Raises InputError with the first error of the code under audit.
    """
    N = next(n for n in (7, 11, 13) if n not in (subject.D, subject.E))
    x = subject.random(N)
    errors = []
    for three_axes, transposed in ((False, False), (True, False), (False, True), (True, True)):
        if transposed and "w" not in subject.accepts:
            continue
        attempt = _transposing(subject) if transposed else subject
        attempt.three_axes = three_axes
        try:
            result = _first_call(attempt, x)
            subject.layout = _layout(attempt, result, (N, subject.D, subject.E))
        except Exception as error:
            errors.append(error)
            continue
        subject.three_axes = three_axes
        if transposed:
            subject.call = attempt.call
        roles = set(subject.named(result))
        subject.is_layer = "out" in roles and not {"gate", "weights", "combine"} & roles
        return subject
    raise errors[0]


def _first_call(subject, x):
    inputs = subject.inputs(x)
    if subject.three_axes:
        inputs = {**inputs, subject.takes: inputs[subject.takes][None]}
    subject.framework.seed(0)
    return subject.call(inputs, False, 0)


def _layout(subject, result, sizes):
    """Roles by position; [] for a result with names."""
    tools = subject.framework
    named = vocabulary.by_name(result)
    if named is not None:
        if not {"gate", "weights", "combine", "out", "loss"} & set(named):
            raise InputError(f"{subject.name}: its results have none of the names that are known")
        return []
    values = list(result) if isinstance(result, (tuple, list)) else [result]
    arrays = [tools.get(v) if tools.holds(v) else None for v in values]
    roles = vocabulary.by_shape(arrays, sizes)
    if not {"gate", "out", "combine", "loss"} & set(roles) and not {"weights", "indices"} <= set(
        roles
    ):
        shapes = [None if a is None else a.shape for a in arrays]
        raise InputError(
            f"{subject.name}: {sizes[0]} tokens, D = {sizes[1]}, E = {sizes[2]} gave results of "
            f"shape {shapes}: neither weights nor an output"
        )
    return roles


def _transposing(subject):
    """The same, with w and w_noise given as (E, D)."""
    other = copy.copy(subject)
    function = subject.call

    def call(inputs, training, seed):
        turned = {n: a.T if n in ("w", "w_noise") else a for n, a in inputs.items()}
        return function(turned, training, seed)

    other.call = call
    return other
