"""What `walk.route` shows of a router that neither its cache nor its Routing keeps: computed again,
as the router does.

COMPUTED[module](params, x, routing, cache, options) -> {name: array}, None for what is not to be
shown
"""

import numpy as np

from moe_np.routing import bias_balanced, contract, kmeans, noisy_top_k


def _noisy(params, x, routing, cache, options):
    k = cache.weight.shape[1]
    load, P = noisy_top_k.load_forward(cache)
    runner_up = cache.choice[:, k] if cache.choice.shape[1] > k else None
    return {"choice": cache.choice[:, :k], "runner_up": runner_up, "load": load, "P": P}


def _capacity(k):
    def computed(params, x, routing, cache, options):
        factor = options.get("capacity_factor")
        if factor is None:
            return {"token": None}
        valid = contract.check_valid(options.get("valid"), len(x))
        return {"C": contract.capacity(int(valid.sum()), routing.demand.shape[1], k, factor)}

    return computed


def _switch(params, x, routing, cache, options):
    seen = {} if cache.factor is not None else {"seen": None}  # without jitter it is x
    return _capacity(1)(params, x, routing, cache, options) | seen


def _st_moe(params, x, routing, cache, options):
    gates = cache.gates
    share = gates[:, 1] / gates[:, 0] if options.get("of", "first") == "first" else gates[:, 1]
    return _capacity(2)(params, x, routing, cache, options) | {
        "share": share,
        "threshold": options.get("threshold", 0.2),
    }


def _strict(params, x, routing, cache, options):
    if not cache.training:
        return {}
    n = int(cache.valid.sum())
    return {"m": min(contract.capacity(n, routing.demand.shape[1], options["k"], 1.0), n)}


def _hierarchical(params, x, routing, cache, options):
    N, a, b = cache.inside.shape
    outer, inner = cache.outer, cache.inner
    shape = (N, outer.choice.shape[1], inner.choice.shape[1])
    return {
        "primary": x @ params["w_primary"],
        "secondary": (x @ params["w_secondary"]).reshape(N, a, b),
        "outer_choice": outer.choice,
        "outer_weight": outer.weight,
        "inner_choice": inner.choice.reshape(shape),
        "inner_weight": inner.weight.reshape(shape),
        "weight": outer.weight[:, :, None] * inner.weight.reshape(shape),
    }


def _expert_choice(params, x, routing, cache, options):
    n = int(contract.check_valid(options.get("valid"), len(x)).sum())
    return {
        "C": min(contract.capacity(n, routing.demand.shape[1], 1, options["capacity_factor"]), n)
    }


def _top_p(params, x, routing, cache, options):
    order = contract.top_k(routing.logits, routing.logits.shape[1])
    ranked = np.take_along_axis(routing.probs, order, axis=1)
    before = np.zeros_like(ranked)
    before[:, 1:] = np.cumsum(ranked, axis=1)[:, :-1]
    return {
        "order": order,
        "ranked": ranked,
        "before": before,
        "p": options["p"],
        "kept": before < options["p"],
    }


def _biased(params, x, routing, cache, options):
    scores, k = routing.probs + params["bias"], cache.choice.shape[1]
    n_group, best = options.get("n_group", 1), options.get("topk_group", 1)
    if n_group > 1:
        each = bias_balanced.check_groups(
            scores.shape[1], k, n_group, best, options.get("group_best")
        )
        scores = bias_balanced.best_groups(scores, n_group, best, each)
    return {"scores": scores}


COMPUTED = {
    "noisy_top_k": _noisy,
    "switch": _switch,
    "gshard": _capacity(2),
    "st_moe": _st_moe,
    "strictly_balanced": _strict,
    "hierarchical": _hierarchical,
    "expert_choice": _expert_choice,
    "hashing": lambda params, x, routing, cache, options: {"ids": np.asarray(options["ids"])},
    "kmeans": lambda params, x, routing, cache, options: {
        "distances": kmeans.distances(x, params["centroids"])
    },
    "top_p": _top_p,
    "bias_balanced": _biased,
}
