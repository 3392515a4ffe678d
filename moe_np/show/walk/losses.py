"""Walks through the load-balancing losses: what each looks at, its value, its gradient.

The losses are those of `moe_np.layers.balance`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.types import ArrayN
from moe_np.layers import balance as balance_losses
from moe_np.layers import diagnostics
from moe_np.routing import contract, noisy_top_k
from moe_np.routing.contract import Routing
from moe_np.show.steps import State, Steps, Trail

AXES = {
    "logits": "N E",
    "probs": "N E",
    "demand": "N E",
    "token": "A",
    "expert": "A",
    "weight": "A",
    "valid": "N",
    "choices": "E",
    "first": "N",
    "f": ("E", "S E"),
    "P": ("E", "N E"),
    "product": "E",
    "log_z": "N",
    "log_p": "N E",
    "H": "N",
    "importance": "E",
    "load": "E",
    "device": "E",
    "mean_f": "devices",
    "sum_P": "devices",
    "s": "N E",
    "p": "N E",
    "sequence": "N",
    "dlogits": "N E",
}
VALUE = {
    "switch": r"\mathrm{value} = E \sum_i f_i P_i",
    "expert_level": r"\mathrm{value} = E \sum_i f_i P_i",
    "gshard": r"\mathrm{value} = \frac1E \sum_i f_i P_i",
    "z_loss": r"\mathrm{value} = \frac1N \sum_n \mathrm{log\_z}_n^2",
    "token_entropy": r"\mathrm{value} = \frac1N \sum_n H_n",
    "mean_entropy": r"\mathrm{value} = -\sum_i P_i \ln P_i",
    "device_level": r"\mathrm{value} = \sum_d \mathrm{mean\_f}_d \, \mathrm{sum\_P}_d",
    "sequence_wise": (
        r"\mathrm{value} = \frac1S \sum_s \sum_i f_{si} \, "
        r"\frac{1}{T_s} \sum_{n \in s} p_{ni}"
    ),
}
F_HELD = (
    r"d\mathrm{logits}_{ni} = FACTOR \, \mathrm{probs}_{ni} "
    r"\Big( f_i - \sum_j f_j \, \mathrm{probs}_{nj} \Big)"
)
GRADIENT = {
    "switch": F_HELD.replace("FACTOR", r"\frac EN"),
    "expert_level": F_HELD.replace("FACTOR", r"\frac EN"),
    "gshard": F_HELD.replace("FACTOR", r"\frac{1}{EN}"),
    "z_loss": r"d\mathrm{logits}_{ni} = \frac{2}{N} \, \mathrm{log\_z}_n \, \mathrm{probs}_{ni}",
    "token_entropy": (
        r"d\mathrm{logits}_{ni} = "
        r"-\frac1N \, \mathrm{probs}_{ni} (\ln \mathrm{probs}_{ni} + H_n)"
    ),
    "mean_entropy": F_HELD.replace("FACTOR", r"\frac1N") + r", \quad f = -\ln P",
    "device_level": (
        F_HELD.replace("FACTOR", r"\frac1N") + r", \quad f_i = \mathrm{mean\_f}_{\mathrm{device}_i}"
    ),
    "sequence_wise": (
        r"\text{through } p = s / \textstyle\sum_j s_j "
        r"\text{ and } s = \sigma(\mathrm{logits})"
    ),
}
NAMES = (*VALUE, "importance", "load")


def balance(
    name: str,
    routing: Routing,
    *,
    valid: ArrayN | None = None,
    cache: noisy_top_k.Cache | None = None,
    **options: Any,
) -> Steps:
    """Steps of `moe_np.layers.balance.<name>(routing, ...)`; options are the loss's own.

    name    switch, gshard, z_loss, token_entropy, mean_entropy, expert_level, device_level,
            sequence_wise, importance; or load, which wants the `cache` of `noisy_top_k.route`
    valid   (N,) bool: tokens outside do not count, and the arrays are those of the tokens that do

    Raises InputError where the loss does.
    """
    checks.choice("name", name, NAMES)
    trail = Trail(AXES)
    loss_function = getattr(balance_losses, name)
    if name == "load":
        return Steps(_load(trail, cache, loss_function(cache)))
    loss = loss_function(routing, valid=valid, **options)  # and the checks
    if name == "importance":
        return Steps(_importance(trail, routing, valid, loss))
    return Steps(_of_logits(trail, name, routing, valid, options, loss))


def _of_logits(trail, name, routing, valid, options, loss) -> Iterator[State]:
    counted = contract.check_valid(valid, len(routing.logits))
    logits, demand = routing.logits[counted], routing.demand[counted]
    given = {"valid": valid, "logits": logits, "demand": demand}
    note = "The logits of the router, and what each token asked for before any capacity."
    yield trail.see("routing", "", given, note)
    equation = r"\mathrm{probs} = \mathrm{softmax}(\mathrm{logits})"
    probs = numerics.softmax(logits)
    if name != "sequence_wise":
        note = "Over all experts, chosen or not."
        yield trail.see("probabilities", equation, {"probs": probs}, note)
    yield from INTERMEDIATE[name](trail, logits, demand, probs, counted, **options)
    yield trail.see("value", VALUE[name], {"value": loss.value})
    note = "f is held: it has no gradient."
    yield trail.see("gradient", GRADIENT[name], {"dlogits": loss.dlogits}, note)


def _f_and_P(trail, f, probs, equation, note):
    yield trail.see("f", equation, {"f": f}, note)
    P = probs.mean(axis=0)
    equation = r"P_i = \frac1N \sum_n \mathrm{probs}_{ni}"
    yield trail.see("P", equation, {"P": P}, "This is what has a gradient.")
    yield trail.see("products", r"\mathrm{product}_i = f_i P_i", {"product": f * P})


def _switch(trail, logits, demand, probs, counted, divide_by_k=True):
    choices = demand.sum(axis=0)
    equation = r"\mathrm{choices}_i = \sum_n \mathrm{demand}_{ni}"
    yield trail.see("choices", equation, {"choices": choices})
    if divide_by_k:
        f = choices / max(choices.sum(), 1)
        equation = r"f_i = \mathrm{choices}_i / \sum_j \mathrm{choices}_j"
        note = "Shares of all choices: they sum to 1."
    else:
        f = choices / max(len(demand), 1)
        equation = r"f_i = \mathrm{choices}_i / N"
        note = "Choices per token: they sum to k."
    yield from _f_and_P(trail, f, probs, equation, note)


def _gshard(trail, logits, demand, probs, counted):
    first = logits.argmax(axis=1)
    equation = r"\mathrm{first}_n = \arg\max_i \mathrm{logits}_{ni}"
    yield trail.see("first choices", equation, {"first": first})
    f = np.bincount(first, minlength=logits.shape[1]) / max(len(logits), 1)
    equation = r"f_i = \#\{n : \mathrm{first}_n = i\} / N"
    yield from _f_and_P(trail, f, probs, equation, "First choices alone.")


def _z_loss(trail, logits, demand, probs, counted):
    equation = r"\mathrm{log\_z}_n = \log \sum_j e^{\mathrm{logits}_{nj}}"
    yield trail.see("log Z", equation, {"log_z": numerics.logsumexp(logits)})


def _token_entropy(trail, logits, demand, probs, counted):
    equation = r"H_n = -\sum_i \mathrm{probs}_{ni} \ln \mathrm{probs}_{ni}"
    yield trail.see("entropies", equation, {"H": numerics.entropy(probs)})


def _mean_entropy(trail, logits, demand, probs, counted):
    equation = r"P_i = \frac1N \sum_n \mathrm{probs}_{ni}"
    yield trail.see("P", equation, {"P": probs.mean(axis=0)})


def _device_level(trail, logits, demand, probs, counted, device):
    device = np.asarray(device)
    f = logits.shape[1] * demand.sum(axis=0) / max(demand.sum(), 1)
    equation = r"f_i = E \, \mathrm{choices}_i / \sum_j \mathrm{choices}_j"
    yield from _f_and_P(trail, f, probs, equation, "1 at balance.")
    mean_f = np.bincount(device, f) / np.maximum(np.bincount(device), 1)
    sum_P = np.bincount(device, probs.mean(axis=0))
    equation = (
        r"\mathrm{mean\_f}_d = \frac{1}{|d|} \sum_{i \in d} f_i, \quad "
        r"\mathrm{sum\_P}_d = \sum_{i \in d} P_i"
    )
    yield trail.see("devices", equation, {"device": device, "mean_f": mean_f, "sum_P": sum_P})


def _sequence_wise(trail, logits, demand, probs, counted, sequence, k):
    s = numerics.sigmoid(logits)
    note = "A sigmoid of each logit: the rows do not sum to 1."
    yield trail.see("scores", r"s = \sigma(\mathrm{logits})", {"s": s}, note)
    p = numerics.softmax(-numerics.softplus(-logits))
    yield trail.see("shares", r"p_{ni} = s_{ni} / \sum_j s_{nj}", {"p": p})
    sequence = np.asarray(sequence)[counted]
    names, row, T = np.unique(sequence, return_inverse=True, return_counts=True)
    chosen = contract.demand_of(contract.top_k(logits, k), logits.shape[1])
    choices = np.stack([chosen[row == i].sum(axis=0) for i in range(len(names))])
    f = choices * logits.shape[1] / (k * T[:, None])
    equation = (
        r"f_{si} = \frac{E}{k T_s} "
        r"\#\{n \in s : s_{ni} \text{ among the } k \text{ largest}\}"
    )
    yield trail.see("f", equation, {"sequence": sequence, "f": f}, "Within each sequence.")


INTERMEDIATE = {
    "switch": _switch,
    "expert_level": _switch,
    "gshard": _gshard,
    "z_loss": _z_loss,
    "token_entropy": _token_entropy,
    "mean_entropy": _mean_entropy,
    "device_level": _device_level,
    "sequence_wise": _sequence_wise,
}

# --- Shazeer's: of sums of weights, of expected loads ---------------------------------------------

MEAN = (
    r"\mathrm{mean} = \frac1E \sum_i x_i, \quad "
    r"\mathrm{variance} = \frac1E \sum_i (x_i - \mathrm{mean})^2, \quad x = "
)
VALUE_OF_CV = r"\mathrm{value} = \mathrm{variance} / \mathrm{mean}^2"
SLOPE = (
    r"dx_i = \frac{2}{E \, \mathrm{mean}^2} "
    r"(x_i - \mathrm{mean} - \mathrm{variance} / \mathrm{mean}), \quad x = "
)


def _cv_squared(trail, name, x, note):
    symbol = rf"\mathrm{{{name}}}"
    mean = x.mean()
    moments = {"mean": mean, "variance": np.square(x - mean).mean()}
    divisor = "The variance divides by E, not by E − 1."
    yield trail.see("mean and variance", MEAN + symbol, moments, divisor)
    value, dx = balance_losses.cv_squared(x)
    yield trail.see("value", VALUE_OF_CV, {"value": value})
    yield trail.see("gradient", SLOPE + symbol, {f"d{name}": dx}, note)


def _importance(trail, routing, valid, loss) -> Iterator[State]:
    rows = {name: getattr(routing, name) for name in ("token", "expert", "weight")}
    yield trail.see("routing", "", {"valid": valid, **rows}, "One row per assignment.")
    importance = diagnostics.importance(routing, valid=valid)
    equation = r"\mathrm{importance}_m = \sum_{a:\,\mathrm{expert}_a = m} \mathrm{weight}_a"
    note = "The weights given to each expert."
    yield trail.see("importance", equation, {"importance": importance}, note)
    note = "Experts above the mean are pushed down, experts below it up."
    yield from _cv_squared(trail, "importance", importance, note)
    equation = r"d\mathrm{weight}_a = d\mathrm{importance}_{\mathrm{expert}_a}"
    note = "To be added to the task's dweight."
    yield trail.see("gradient of the weights", equation, {"dweight": loss.dweight}, note)


def _load(trail, cache, loss) -> Iterator[State]:
    load, P = noisy_top_k.load_forward(cache)
    equation = (
        r"P_{ni} = \Phi\!\left( "
        r"\frac{\mathrm{clean}_{ni} - \mathrm{threshold}_{ni}}{\sigma_{ni}} \right)"
    )
    note = (
        "The chance that expert i is kept if its own noise is drawn again; the threshold is the "
        "noisy logit of another expert."
    )
    yield trail.see("chances", equation, {"P": P}, note)
    note = "How many tokens each expert can expect."
    yield trail.see("load", r"\mathrm{load}_i = \sum_n P_{ni}", {"load": load}, note)
    yield from _cv_squared(trail, "load", load, "For noisy_top_k.load_backward.")
    dx, grads = noisy_top_k.load_backward(loss.dload, cache)
    gradients = {"dx": dx, **{f"d{name}": g for name, g in grads.items()}}
    yield trail.see("gradient of the router", "", gradients)
