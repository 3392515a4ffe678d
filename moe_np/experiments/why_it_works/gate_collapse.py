"""Why does the gate not send everything to one expert, and does its router learn from one expert at
a time?

A gate that begins with a bias towards one expert shows when training gets away from there. Dense:
the vowels of Jacobs et al. (1991) under all three errors. Sparse, one expert a sample: the clusters
of Chen et al. (2022), the algorithm of the paper and that of its code. And errata 4: what k = 1 and
renormalised weights leave of the router's gradient.
"""

import functools

import numpy as np

from moe_np.base import optim
from moe_np.data import regimes
from moe_np.data.clusters import clusters
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.experiments.why_it_works.question import (
    Question,
    differ,
    grouped,
    listed,
    markdown,
    over,
    pm,
)
from moe_np.layers import diagnostics, sparse_layer
from moe_np.layers.experts import LINEAR
from moe_np.mixtures import jacobs1991 as model
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

# --- Why not everything to one expert? ------------------------------------------------------------

# eq. 1 and 2 have no factor ½, so half the step of eq. 3 is the same step
STEPS = {"cooperative": 0.03, "competitive": 0.03, "mixture": 0.06}
EQUATIONS = {"cooperative": "eq. 1", "competitive": "eq. 2", "mixture": "eq. 3"}
VARIANTS = {
    "paper": {"gate": "softmax", "loss": "once", "norm": "joint"},
    "code": {"gate": "raw", "loss": "twice", "norm": "sum"},
}
MEAN_SUM = 15  # θ·Σ_p x_p for θ = Σ_k c_k: β c_k with mean β = 1.5, times 10


def collapse_specs(config, quick):
    dense, sparse, seeds = (
        ((0, 5), (0, 10), 2) if quick else ((0, 2, 5, 10, 20), (0, 0.5, 1, 2, 5, 10), config.few)
    )
    limit, epochs, n = (300, 60, 500) if quick else (2500, 150, 2000)
    return [
        {"gate": "dense", "kind": error, "bias": bias, "seed": seed, "epochs": limit}
        for error in STEPS
        for bias in dense
        for seed in range(seeds)
    ] + [
        {"gate": "sparse", "kind": variant, "bias": bias, "seed": seed, "epochs": epochs, "n": n}
        for variant in VARIANTS
        for bias in sparse
        for seed in range(seeds)
    ]


def collapse_run(spec):
    return collapse_dense(spec) if spec["gate"] == "dense" else collapse_sparse(spec)


def norm(grads):
    return float(np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads)))


def collapse_dense(spec):
    """Four experts, c_0 = bias. Gradients of the first step, and the epoch at which a second expert
    is in use.
    """
    data = vowel_runs.task("IY+AH", 1, "file order", 0)
    params = model.init_mixture(np.random.default_rng(spec["seed"]), 4)
    params["c"][0] = spec["bias"]
    out = {"escaped": None}
    for step in model.train(
        params, data.x_train, data.d_train, lr=STEPS[spec["kind"]], error=spec["kind"]
    ):
        if step.number == 0:
            grads = model.system_backward(np.ones(len(data.x_train)), step.cache)[1]
            out["gate gradient"] = norm([grads["U"], grads["c"]])
            out["other gradient"] = norm([grads["W"][1:], grads["b"][1:]]) / np.sqrt(
                3
            )  # of one of them
            out["share"] = float(step.cache.p[:, 0].mean())
        elif out["escaped"] is None and model.active_experts(step.cache.p).sum() > 1:
            return {**out, "escaped": step.number}
        if step.number == spec["epochs"]:
            return out


@functools.lru_cache(maxsize=2)
def patches(n):
    train, test = clusters(1, n, n, np.random.default_rng(2022))
    return (
        train,
        patch_cnn_training.batch(train.x, train.y),
        patch_cnn_training.batch(test.x, test.y),
    )


def collapse_sparse(spec):
    """Eight cubic experts, one a sample; θ_0 gives logit 0 a mean of `bias`, against noise between
    0 and 1.
    """
    train, batch, test = patches(spec["n"])
    rng, options = np.random.default_rng(spec["seed"]), VARIANTS[spec["kind"]]
    params = patch_cnn.init(rng, 8, 8, batch.x.shape[2], scale=1e-3, dtype=np.float32)
    params["theta"][0] = spec["bias"] / MEAN_SUM * train.centers.sum(axis=0)
    draw, names = patch_cnn_training.uniform_noise(rng), ("gate", "loss")
    _, expert, grads = patch_cnn_training.gradients(
        params, batch, draw((spec["n"], 8)), activation="cubic", **{k: options[k] for k in names}
    )
    out = {
        "gate gradient": norm([grads["theta"]]),
        "other gradient": norm([grads["w"][1:], grads["b"][1:]]),
    }
    unused = np.bincount(expert, minlength=8) == 0
    out |= {
        "unused": int(unused.sum()),
        "unused moves": bool(grads["w"][unused].any() or grads["b"][unused].any()),
    }
    learn = {"lr": 3e-3, "lr_router": 0.1, "epochs": spec["epochs"], "stop": False}
    escaped = None
    for step in patch_cnn_training.train_mixture(
        params, batch, train.cluster, draw, activation="cubic", **learn, **options
    ):
        params, share = step.params, np.bincount(step.expert, minlength=8) / spec["n"]
        if step.epoch == 0:
            out["share"] = float(share[0])
        if escaped is None and share.max() < 0.5:
            escaped = step.epoch
    noise = None if spec["kind"] == "paper" else draw((spec["n"], 8))
    answers = patch_cnn_training.predict(
        params, test, noise, activation="cubic", gate=options["gate"]
    )[0]
    return {
        **out,
        "escaped": escaped,
        "accuracy": float(patch_cnn_training.accuracy(answers, test.y)),
    }


def collapse_summary(specs, runs):
    out = []
    for (gate, kind, bias), own in grouped(specs, runs, "gate", "kind", "bias").items():
        away = [r["escaped"] for r in own if r["escaped"] is not None]
        one = {"gate": gate, "kind": kind, "bias": bias, "n": len(own), "escaped": len(away)}
        one["when"] = float(np.median(away)) if away else None
        names = ("gate gradient", "other gradient", "share") + (
            ("accuracy",) if gate == "sparse" else ()
        )
        if gate == "sparse":
            one |= {
                "unused": sum(r["unused"] for r in own),
                "unused moves": any(r["unused moves"] for r in own),
            }
        out.append({**one, **over(own, *names)})
    return out


def collapse_rows(summary):
    rows = []
    for c in summary:
        kind = EQUATIONS.get(c["kind"], f"sparse, {c['kind']}")
        cells = [
            kind,
            f"{c['bias']:g}",
            f"{100 * c['share'][0]:.1f}",
            f"{c['gate gradient'][0]:.2g}",
        ]
        cells += [f"{c['other gradient'][0]:.2g}", f"{c['escaped']} of {c['n']}"]
        cells += [
            "–" if c["when"] is None else f"{c['when']:.0f}",
            pm(c["accuracy"], 1) if "accuracy" in c else "",
        ]
        rows.append(cells)
    heads = [
        "",
        "bias",
        "% to the first expert",
        "gate's gradient",
        "another expert's",
        "runs that got away",
    ]
    return markdown([*heads, "epoch (median)", "% right at the end"], rows)


def collapse_verdict(summary):
    dense, sparse = ([c for c in summary if c["gate"] == gate] for gate in ("dense", "sparse"))
    third = [c for c in dense if c["kind"] == "mixture"]
    at = {c["bias"]: c for c in third}
    free, full = at[0], at[max(at)]
    shrink = free["gate gradient"][0] / max(full["gate gradient"][0], 1e-300)
    gone = [c for c in third if c["escaped"] == 0]
    away = [c for c in third if c["escaped"] == c["n"] and c["bias"] > 0]
    falls = full["gate gradient"][0] < free["gate gradient"][0]
    holds = "no" if falls and gone else "partly" if falls else "yes"
    text = (
        f"The gradients are not large, they vanish: under eq. 3 the gate's first gradient is {shrink:.2g} times "
        f"smaller at a bias of {max(at):g} than at none, since it is p − resp, of which both go to 0 (or to 1). "
        if falls
        else "The gate's gradient does grow with the bias. "
    )
    if away:
        slow = max(away, key=lambda c: c["bias"])
        text += (
            f"Training gets away all the same up to a bias of {slow['bias']:g} (in all runs, after {slow['when']:.0f} "
            "epochs by the median)"
        )
        text += (
            f" and never at {listed([format(c['bias'], 'g') for c in gone])} within the epochs given. "
            if gone
            else ". "
        )
    for kind in VARIANTS:
        own = [c for c in sparse if c["kind"] == kind]
        most = [c["bias"] for c in own if c["escaped"] == c["n"]]
        none = [c["bias"] for c in own if c["escaped"] == 0]
        zero = any(c["unused"] for c in own) and not any(c["unused moves"] for c in own)
        text += (
            f"Sparse, the algorithm of the {kind}: "
            + ("an expert without samples has a gradient of exactly 0; " if zero else "")
            + f"all runs get away up to a bias of {max(most, default=0):g}, none at "
            f"{listed([format(b, 'g') for b in none]) if none else 'any bias'}. "
        )
    kinds = {(c["gate"], c["kind"]) for c in summary}
    stay = all(
        any(c["escaped"] == 0 for c in summary if (c["gate"], c["kind"]) == kind) for kind in kinds
    )
    return holds, (
        text + ("What prevents collapse is that the gate starts undecided." if stay else "")
    ).strip()


COLLAPSE = Question(
    "Why does the gate not send everything to one expert?",
    "one expert performs badly, large gradients follow",
    collapse_specs,
    collapse_run,
    collapse_summary,
    collapse_rows,
    collapse_verdict,
)

# --- One expert or two for the router's gradient --------------------------------------------------

CHOICES = {
    "k = 1, renormalised": (1, True),
    "k = 1": (1, False),
    "k = 2, renormalised": (2, True),
    "k = 2": (2, False),
}


def k_specs(config, quick):
    steps, seeds = (60, 2) if quick else (800, config.fits)
    return [
        {"choice": choice, "seed": seed, "steps": steps}
        for choice in CHOICES
        for seed in range(seeds)
    ]


def route(params, x, k, renormalise):
    """`top_k.route`, but k = 1 renormalised, which that refuses, is let through to see what comes
    of it.
    """
    if (k, renormalise) != (1, True):
        return top_k.route(params, x, k=k, renormalise=renormalise)
    logits, probs, choice, weight, demand = top_k.forward_numpy(x, params["w"], k, renormalise)
    routing = Routing(np.arange(len(x)), choice.ravel(), weight.ravel(), logits, probs, demand)
    return routing, top_k.Cache(x, params["w"], probs, choice, weight, renormalise)


def k_gradients(router, experts, x, d, k, renormalise):
    """Half the mean squared error of a sparse layer of linear experts: (loss, router's gradients,
    experts').
    """
    routing, cache = route(router, x, k, renormalise)
    out, layer = sparse_layer.forward(experts, x, routing, LINEAR)
    residual = out - d
    _, dexperts, dweight = sparse_layer.backward(residual / len(x), layer)
    return (
        0.5 * float((residual**2).sum(axis=1).mean()),
        top_k.route_backward(dweight, None, cache)[1],
        dexperts,
    )


def k_run(spec):
    """Four linear experts on four regions, router and experts by Adam. First gradient of the
    router, test error and what the routing knows about the region in the end.
    """
    k, renormalise = CHOICES[spec["choice"]]
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    train, test = (regimes.draw(task, n, rng) for n in (400, 1000))
    x, x_test = (np.concatenate([c.x, np.ones((len(c.x), 1))], axis=1) for c in (train, test))
    router, experts = top_k.init(rng, 3, 4, scale=0.1), LINEAR.init(rng, 3, 4, 1, scale=0.5)
    states, first, largest = [None, None], None, 0.0
    for i in range(spec["steps"]):
        _, drouter, dexperts = k_gradients(router, experts, x, train.d, k, renormalise)
        first = norm([drouter["w"]]) if first is None else first
        largest = max(largest, float(np.abs(drouter["w"]).max()))
        lr = 0.05 * (1 - i / spec["steps"])
        router, states[0] = optim.adam(router, drouter, states[0], lr=lr)
        experts, states[1] = optim.adam(experts, dexperts, states[1], lr=lr)
    routing, _ = route(router, x_test, k, renormalise)
    out, _ = sparse_layer.forward(experts, x_test, routing, LINEAR)
    known = diagnostics.mutual_information(routing.expert, test.region, rng, token=routing.token)
    error = float(((out - test.d) ** 2).mean())
    return {"gradient": first, "largest": largest, "error": error, "bits": known.bits}


def k_summary(specs, runs):
    out = []
    base = None
    for (name,), own in grouped(specs, runs, "choice").items():
        log_error = np.log([r["error"] for r in own])
        base = log_error if base is None else base
        one = {"choice": name, **over(own, "gradient", "largest", "bits"), "n": len(own)}
        one |= {"error": float(np.exp(log_error.mean())), "better": -differ(log_error, base)}
        out.append({**one, "zero": sum(r["largest"] == 0 for r in own)})
    return out


def k_rows(summary):
    rows = [
        [
            c["choice"],
            pm(c["gradient"]),
            f"{c['zero']} of {c['n']}",
            f"{c['error']:.4f}",
            pm(c["bits"]),
        ]
        for c in summary
    ]
    heads = [
        "",
        "router's first gradient",
        "runs with exactly 0 throughout",
        "test error (geometric mean)",
    ]
    return markdown([*heads, "bits about the region (of 2)"], rows)


def k_verdict(summary):
    at = {c["choice"]: c for c in summary}
    stuck, one, two = (at[name] for name in ("k = 1, renormalised", "k = 1", "k = 2, renormalised"))
    zero, learns = stuck["zero"] == stuck["n"], one["better"] > 0
    holds = "partly" if zero and learns else "yes" if zero else "no"
    return holds, (
        f"With renormalised weights k = 1 gives the router a gradient of exactly 0 in {stuck['zero']} of {stuck['n']} "
        f"runs, and the test error stays at {stuck['error']:.3f}. "
        + (
            f"But one expert is enough if its weight is left as it is: {one['error']:.4f}, against {two['error']:.4f} "
            "for two renormalised. It is renormalising that takes the gradient away, not the single expert."
            if learns
            else f"Left as it is, k = 1 is no better: {one['error']:.4f}."
        )
    )


ONE_OR_TWO = Question(
    "Are two experts needed for the router to learn?",
    "at least two experts are needed for the router to learn",
    k_specs,
    k_run,
    k_summary,
    k_rows,
    k_verdict,
)
