"""Walks through the balance losses (`moe_np.layers.balance`): what each looks at, its value, its
gradient.
"""

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.layers import balance as losses
from moe_np.routing import contract, noisy_top_k
from moe_np.show.steps import Steps, Trail

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
    "own": "N",
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
    "sequence_wise": r"\mathrm{value} = \frac1S \sum_s \sum_i f_{si} \, \frac{1}{T_s} \sum_{n \in s} p_{ni}",
}
HELD = r"d\mathrm{logits}_{ni} = FACTOR \, \mathrm{probs}_{ni} \Big( f_i - \sum_j f_j \, \mathrm{probs}_{nj} \Big)"
GRADIENT = {
    "switch": HELD.replace("FACTOR", r"\frac EN"),
    "gshard": HELD.replace("FACTOR", r"\frac{1}{EN}"),
    "z_loss": r"d\mathrm{logits}_{ni} = \frac{2}{N} \, \mathrm{log\_z}_n \, \mathrm{probs}_{ni}",
    "token_entropy": r"d\mathrm{logits}_{ni} = -\frac1N \, \mathrm{probs}_{ni} (\ln \mathrm{probs}_{ni} + H_n)",
    "mean_entropy": HELD.replace("FACTOR", r"\frac1N") + r", \quad f = -\ln P",
    "device_level": HELD.replace("FACTOR", r"\frac1N")
    + r", \quad f_i = \mathrm{mean\_f}_{\mathrm{device}_i}",
    "sequence_wise": r"\text{through } p = s / \textstyle\sum_j s_j \text{ and } s = \sigma(\mathrm{logits})",
}
GRADIENT["expert_level"] = GRADIENT["switch"]
NAMES = (*VALUE, "importance", "load")


def balance(name, routing, *, valid=None, cache=None, **options):
    """Steps of `moe_np.layers.balance.<name>(routing, ...)`; options are the loss's own.

    name    switch, gshard, z_loss, token_entropy, mean_entropy, expert_level, device_level, sequence_wise, importance;
            or load, Shazeer's CV² of the expected load, which wants the `cache` of `noisy_top_k.route`
    valid   (N,) bool: tokens outside do not count, and the arrays are those of the tokens that do

    Raises InputError where the loss does.
    """
    checks.choice("name", name, NAMES)
    trail = Trail(AXES)
    if name == "load":
        if not isinstance(cache, noisy_top_k.Cache):
            raise InputError(f"cache: wanted that of noisy_top_k.route, got {type(cache).__name__}")
        return Steps(_load(trail, cache))
    value, gradient = getattr(losses, name)(routing, valid=valid, **options)  # and the checks
    if name == "importance":
        return Steps(_importance(trail, routing, valid, value, gradient))
    return Steps(_of_logits(trail, name, routing, valid, options, value, gradient))


def _of_logits(trail, name, routing, valid, options, value, dlogits):
    counted = contract.check_valid(valid, len(routing.logits))
    logits, demand = routing.logits[counted], routing.demand[counted]
    given = {"valid": valid, "logits": logits, "demand": demand}
    yield trail.see(
        "routing",
        "",
        given,
        "What the router said, and what each token asked for before any capacity.",
    )
    equation = r"\mathrm{probs} = \mathrm{softmax}(\mathrm{logits})"
    probs = numerics.softmax(logits)
    if name != "sequence_wise":
        yield trail.see(
            "probabilities", equation, {"probs": probs}, "Over all experts, whoever was chosen."
        )
    yield from INTERMEDIATE[name](trail, logits, demand, probs, counted, **options)
    yield trail.see("value", VALUE[name], {"value": value})
    yield trail.see("gradient", GRADIENT[name], {"dlogits": dlogits}, "f is a constant of it.")


def _f_and_P(trail, f, probs, equation, note):
    yield trail.see("f", equation, {"f": f}, note)
    P = probs.mean(axis=0)
    yield trail.see(
        "P", r"P_i = \frac1N \sum_n \mathrm{probs}_{ni}", {"P": P}, "This is what has a gradient."
    )
    yield trail.see("products", r"\mathrm{product}_i = f_i P_i", {"product": f * P})


def _switch(trail, logits, demand, probs, counted, divide_by_k=True):
    choices = demand.sum(axis=0)
    yield trail.see(
        "choices", r"\mathrm{choices}_i = \sum_n \mathrm{demand}_{ni}", {"choices": choices}
    )
    f = choices / max(choices.sum() if divide_by_k else len(demand), 1)
    below = r"\sum_j \mathrm{choices}_j" if divide_by_k else "N"
    note = (
        "Shares of all choices: they sum to 1."
        if divide_by_k
        else "Choices a token: they sum to k."
    )
    yield from _f_and_P(trail, f, probs, rf"f_i = \mathrm{{choices}}_i / {below}", note)


def _gshard(trail, logits, demand, probs, counted):
    first = logits.argmax(axis=1)
    yield trail.see(
        "first choices", r"\mathrm{first}_n = \arg\max_i \mathrm{logits}_{ni}", {"first": first}
    )
    f = np.bincount(first, minlength=logits.shape[1]) / max(len(logits), 1)
    yield from _f_and_P(
        trail, f, probs, r"f_i = \#\{n : \mathrm{first}_n = i\} / N", "First choices alone."
    )


def _z_loss(trail, logits, demand, probs, counted):
    log_z = numerics.logsumexp(logits)
    yield trail.see(
        "log Z", r"\mathrm{log\_z}_n = \log \sum_j e^{\mathrm{logits}_{nj}}", {"log_z": log_z}
    )


def _token_entropy(trail, logits, demand, probs, counted):
    H = numerics.entropy(probs)
    yield trail.see(
        "entropies", r"H_n = -\sum_i \mathrm{probs}_{ni} \ln \mathrm{probs}_{ni}", {"H": H}
    )


def _mean_entropy(trail, logits, demand, probs, counted):
    yield trail.see("P", r"P_i = \frac1N \sum_n \mathrm{probs}_{ni}", {"P": probs.mean(axis=0)})


def _device_level(trail, logits, demand, probs, counted, device):
    device = np.asarray(device)
    f = logits.shape[1] * demand.sum(axis=0) / max(demand.sum(), 1)
    yield from _f_and_P(
        trail,
        f,
        probs,
        r"f_i = E \, \mathrm{choices}_i / \sum_j \mathrm{choices}_j",
        "1 at balance.",
    )
    experts = np.bincount(device)
    equation = r"\mathrm{mean\_f}_d = \frac{1}{|d|} \sum_{i \in d} f_i, \quad \mathrm{sum\_P}_d = \sum_{i \in d} P_i"
    mean_f, sum_P = (
        np.bincount(device, f) / np.maximum(experts, 1),
        np.bincount(device, probs.mean(axis=0)),
    )
    yield trail.see("devices", equation, {"device": device, "mean_f": mean_f, "sum_P": sum_P})


def _sequence_wise(trail, logits, demand, probs, counted, sequence, k):
    s = numerics.sigmoid(logits)
    yield trail.see(
        "scores",
        r"s = \sigma(\mathrm{logits})",
        {"s": s},
        "A sigmoid each: the rows do not sum to 1.",
    )
    p = numerics.softmax(-numerics.softplus(-logits))
    yield trail.see("shares", r"p_{ni} = s_{ni} / \sum_j s_{nj}", {"p": p})
    names, row, T = np.unique(
        np.asarray(sequence)[counted], return_inverse=True, return_counts=True
    )
    chosen = contract.demand_of(contract.top_k(logits, k), logits.shape[1])
    f = (
        np.stack([chosen[row == i].sum(axis=0) for i in range(len(names))])
        * logits.shape[1]
        / (k * T[:, None])
    )
    equation = (
        r"f_{si} = \frac{E}{k T_s} \#\{n \in s : s_{ni} \text{ among the } k \text{ largest}\}"
    )
    yield trail.see(
        "f", equation, {"sequence": np.asarray(sequence)[counted], "f": f}, "Within each sequence."
    )


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

MEAN = r"\mathrm{mean} = \frac1E \sum_i x_i, \quad \mathrm{variance} = \frac1E \sum_i (x_i - \mathrm{mean})^2, \quad x = "
VALUE_OF_CV = r"\mathrm{value} = \mathrm{variance} / \mathrm{mean}^2"
SLOPE = r"dx_i = \frac{2}{E \, \mathrm{mean}^2} (x_i - \mathrm{mean} - \mathrm{variance} / \mathrm{mean}), \quad x = "


def _cv_squared(trail, name, x, note):
    own = rf"\mathrm{{{name}}}"
    mean = x.mean()
    found = {"mean": mean, "variance": np.square(x - mean).mean()}
    yield trail.see(
        "mean and variance", MEAN + own, found, "The variance divides by E, not by E − 1."
    )
    value, dx = losses.cv_squared(x)
    yield trail.see("value", VALUE_OF_CV, {"value": value})
    yield trail.see("gradient", SLOPE + own, {f"d{name}": dx}, note)


def _importance(trail, routing, valid, value, dweight):
    kept = contract.check_valid(valid, len(routing.probs))[routing.token]
    given = {
        "valid": valid,
        "token": routing.token,
        "expert": routing.expert,
        "weight": routing.weight,
    }
    yield trail.see("routing", "", given, "One row an assignment.")
    total = np.bincount(
        routing.expert[kept], routing.weight[kept], minlength=routing.probs.shape[1]
    )
    equation = r"\mathrm{importance}_m = \sum_{a:\,\mathrm{expert}_a = m} \mathrm{weight}_a"
    yield trail.see(
        "importance", equation, {"importance": total}, "The weights given to each expert."
    )
    yield from _cv_squared(
        trail, "importance", total, "Above the mean it is pushed down, below it up."
    )
    equation = r"d\mathrm{weight}_a = d\mathrm{importance}_{\mathrm{expert}_a}"
    yield trail.see(
        "gradient of the weights",
        equation,
        {"dweight": dweight},
        "To be added to the task's dweight.",
    )


def _load(trail, cache):
    load, P = noisy_top_k.load_forward(cache)
    equation = r"P_{ni} = \Phi\!\left( \frac{\mathrm{clean}_{ni} - \mathrm{threshold}_{ni}}{\sigma_{ni}} \right)"
    note = "The chance that expert i is kept if its own noise is drawn again; the threshold is another expert's."
    yield trail.see("chances", equation, {"P": P}, note)
    yield trail.see(
        "load",
        r"\mathrm{load}_i = \sum_n P_{ni}",
        {"load": load},
        "How many tokens each expert can expect.",
    )
    yield from _cv_squared(trail, "load", load, "For noisy_top_k.load_backward.")
    _, dload = losses.cv_squared(load)
    dx, grads = noisy_top_k.load_backward(dload, cache)
    yield trail.see(
        "gradient of the router", "", {"dx": dx, **{f"d{k}": g for k, g in grads.items()}}
    )
