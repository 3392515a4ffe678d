"""Names of arguments and results by which the audit knows what a router takes and gives.

    role             argument                       result
    x                tokens (N, D)
    logits           logits (N, E) in place of x    logits before any softmax (N, E)
    layers           a list of logits (N, E), one per layer of a model, in place of x
    w, w_noise       matrices (D, E) or (E, D)
    bias             selection bias (E,)
    gate                                            dense weights (N, E)
    weights          (N, k)                         weights (N, k), or (N,) for k = 1
    indices                                         experts (N, k), or (N,) for k = 1
    combine                                         combine tensor (N, E, C) of GShard
    loss                                            load-balancing loss, a number
    load                                            expected load (E,)
    out                                             output of a whole layer (N, D)
    backward                                        function of the gradient at the weights

A dictionary, a NamedTuple or a dataclass has its results by name; a tuple or an array is understood
by the shapes, once, in a first call with sizes that differ from each other.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from moe_np.base.checks import InputError

ARGUMENTS = {
    "x": "x inputs input hidden_states hidden tokens features h xs",
    "logits": "logits gate_logits router_logits gating_output scores",
    "layers": "layers layer_logits",
    "w": "w wg w_g w_gate gate_w router_w router_weight w_router kernel matrix weight",
    "w_noise": "w_noise noise_w wn w_n noise_weight",
    "bias": "bias e_score_correction_bias selection_bias",
    "params": "params parameters",
    "k": "k top_k topk num_selected num_experts_per_tok n_activated experts_per_token",
    "E": "n_experts num_experts e n_routed_experts expert_count experts_count",
    "D": "d_model dim d hidden_size in_features input_size d_in model_dim",
    "H": "d_hidden hidden_dim d_ff ffn_dim intermediate_size",
    "capacity_factor": "capacity_factor",
    "capacity": "capacity expert_capacity",
    "training": "training train is_training",
    "evaluation": "deterministic evaluation inference",
    "rng": "rng generator key",
    "seed": "seed",
    "valid": "valid mask token_mask padding_mask attention_mask",
    "experts": "experts",
}
ROLE_OF_ARGUMENT = {name: role for role, names in ARGUMENTS.items() for name in names.split()}

RESULTS = {
    "gate": "gate gates dense combine_weights gating",
    "weights": "weights weight topk_weights top_k_weights routing_weights router_scores",
    "indices": "indices index choice experts expert topk_idx top_k_index expert_index",
    "logits": "logits router_logits",
    "probs": "probs probabilities router_probs",
    "combine": "combine combine_tensor",
    "loss": "loss aux_loss balance_loss l_aux aux load_balancing_loss z_loss",
    "load": "load expected_load",
    "out": "out output y hidden_states",
    "backward": "backward",
}
ROLE_OF_RESULT = {name: role for role, names in RESULTS.items() for name in names.split()}
ROLES = tuple(RESULTS)


def arguments(function: Callable[..., Any], known: Collection[str] = ()) -> dict[str, str]:
    """{role: parameter} of a function; `known` are further names that are roles themselves.

    Raises InputError for a parameter without a default whose name the audit does not know.
    """
    roles = {}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"x": ""}  # built in: one positional argument
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) or p.name == "self":
            continue
        role = p.name if p.name in known else ROLE_OF_ARGUMENT.get(p.name.lower())
        if role is None and not {"x", "logits", "layers"} & set(roles) and p.default is p.empty:
            role = "x"  # the first unknown one is the input
        if role is None and p.default is p.empty:
            raise InputError(
                f"{getattr(function, '__name__', function)}: parameter {p.name!r} is not known: "
                "give it a default, or write an adapter (see `moe-np audit --help`)"
            )
        if role is not None and role not in roles:
            roles[role] = p.name
    return roles


def by_name(result: Any) -> dict[str, Any] | None:
    """{role: value} of a result that has names, None for one without."""
    if isinstance(result, Mapping):
        items = dict(result)
    elif hasattr(result, "_asdict"):
        items = result._asdict()
    elif hasattr(result, "__dataclass_fields__"):
        items = {name: getattr(result, name) for name in result.__dataclass_fields__}
    else:
        return None
    roles = {}
    for name, value in items.items():
        role = ROLE_OF_RESULT.get(str(name).lower())
        if role is not None and value is not None:
            roles[role] = value
    return roles


def by_shape(arrays: list[np.ndarray | None], sizes: tuple[int, int, int]) -> list[str]:
    """The role of each result, "" for what is not understood, from its shape.

    arrays   the results of a first call; None for what is no array
    sizes    N, D, E of that call, all different
    """
    N, D, E = sizes
    roles = []
    index = next((a.shape for a in arrays if a is not None and a.dtype.kind in "iu"), None)
    for a in arrays:
        shape = () if a is None else tuple(n for n in a.shape if n != 1 or a.ndim == 1)
        role = ""
        if a is None:
            pass
        elif a.dtype.kind in "iu" and shape[:1] == (N,) and len(shape) <= 2:
            role = "indices"
        elif a.size == 1 and a.dtype.kind == "f":
            role = "loss"
        elif a.dtype.kind != "f":
            pass
        elif a.shape == index and shape[:1] == (N,):
            role = "weights"
        elif shape == (E,):
            role = "load"
        elif shape == (N, E):
            role = _matrix(a.reshape(N, E))
        elif shape == (N, D):
            role = "out"
        elif len(shape) == 3 and shape[:2] == (N, E):
            role = "combine"
        elif shape[:1] == (N,):
            role = "weights"
        roles.append(role)
    if "indices" in roles:  # the chosen weights are beside them: a matrix is not the gate
        roles = ["probs" if r == "gate" and "weights" in roles else r for r in roles]
    elif "gate" not in roles and "probs" in roles:  # dense weights
        roles[roles.index("probs")] = "gate"
    return [r if r == "" or r not in roles[:i] else "" for i, r in enumerate(roles)]


def _matrix(a):
    """The role of an (N, E) array: weights have no negative numbers; logits have."""
    if not np.isfinite(a).all():
        return "gate" if np.isnan(a).any() else "logits"
    if (a < 0).any():
        return "logits"
    return "gate" if (a == 0).any() else "probs"
