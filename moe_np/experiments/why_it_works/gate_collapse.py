"""Why does the gating network not send everything to one expert, and can it learn from one expert?

A gate that begins with a bias towards one expert shows when training gets away from there: dense,
the vowels of Jacobs et al. (1991) under all three errors; sparse, with one expert per sample, the
clusters of Chen et al. (2022), by the algorithm of the paper and by that of its code. And errata 4:
what k = 1 and renormalised weights leave of the router's gradient.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from moe_np.base import optim
from moe_np.base.types import Array, ArrayNC, ArrayND, Params
from moe_np.data import regimes
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    grouped,
    means,
    numbers,
    sign_of_difference,
)
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES, VARIANTS, patches, vowels
from moe_np.layers import diagnostics, sparse_layer
from moe_np.layers.experts import LINEAR
from moe_np.mixtures import jacobs1991
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.routing import top_k
from moe_np.routing.contract import Routing

# --- Why not everything to one expert? ------------------------------------------------------------

MEAN_SUM = 15  # θ·Σ_p x_p for θ = Σ_k c_k: β c_k with mean β = 1.5, times 10
SPARSE_EXPERTS = 8


def collapse_specs(config: Config, quick: bool) -> list[Spec]:
    """Errors × biases × seeds, dense, then variants × biases × seeds, sparse."""
    seeds = 2 if quick else config.few
    dense = {"gate": "dense", "epochs": 300 if quick else 2500}
    sparse = {"gate": "sparse", "epochs": 60 if quick else 150, "n": 500 if quick else 2000}
    cells = [
        (dense, LEARNING_RATES, (0, 5) if quick else (0, 2, 5, 10, 20)),
        (sparse, VARIANTS, (0, 10) if quick else (0, 0.5, 1, 2, 5, 10)),
    ]
    return [
        {**shared, "kind": kind, "bias": bias, "seed": seed}
        for shared, kinds, biases in cells
        for kind in kinds
        for bias in biases
        for seed in range(seeds)
    ]


def collapse_run(spec: Spec) -> Result:
    """One training run from a gate with a bias towards the first expert.

    -> {"escaped": the epoch at which training got away (None: never), lengths of the first
    gradients: "gate gradient" and "other gradient" (of the experts without bias), "share": of the
    first expert at the beginning}; sparse also "unused" experts at the beginning, whether any
    "unused moves", and "accuracy" at the end.
    """
    return _collapse_dense(spec) if spec["gate"] == "dense" else _collapse_sparse(spec)


def length(grads: Iterable[Array]) -> float:
    """The length of all gradients together as one vector."""
    return float(np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads)))


def _collapse_dense(spec):
    """Four experts, c_0 = bias; away is where a second expert is in use."""
    data = vowels()
    params = jacobs1991.init_mixture(np.random.default_rng(spec["seed"]), 4)
    params["c"][0] = spec["bias"]
    options = {"lr": LEARNING_RATES[spec["kind"]], "error": spec["kind"]}
    result = {"escaped": None}
    for epoch in jacobs1991.train(params, data.x_train, data.d_train, **options):
        if epoch.number == 0:
            grads = jacobs1991.system_backward(np.ones(len(data.x_train)), epoch.cache)[1]
            result["gate gradient"] = length([grads["U"], grads["c"]])
            rest = length([grads["W"][1:], grads["b"][1:]])
            result["other gradient"] = rest / np.sqrt(3)  # of one of the three
            result["share"] = float(epoch.cache.p[:, 0].mean())
        elif result["escaped"] is None and jacobs1991.active_experts(epoch.cache.p).sum() > 1:
            return {**result, "escaped": epoch.number}
        if epoch.number == spec["epochs"]:
            return result


def _collapse_sparse(spec):
    """Eight cubic experts; θ_0 gives logit 0 a mean of `bias`, against noise between 0 and 1. Away
    is where no expert has half of the samples.
    """
    data = patches(spec["n"])
    batch = data.train_batch
    rng = np.random.default_rng(spec["seed"])
    options = VARIANTS[spec["kind"]]
    D = batch.x.shape[2]
    params = patch_cnn.init(rng, SPARSE_EXPERTS, 8, D, scale=1e-3, dtype=np.float32)
    params["theta"][0] = spec["bias"] / MEAN_SUM * data.train.centers.sum(axis=0)
    draw = patch_cnn_training.uniform_noise(rng)
    result = _first_gradients(params, batch, draw((spec["n"], SPARSE_EXPERTS)), options)
    learning = {"lr": 3e-3, "lr_router": 0.1, "epochs": spec["epochs"], "stop": False}
    escaped = None
    for step in patch_cnn_training.train_mixture(
        params, batch, data.train.cluster, draw, activation="cubic", **learning, **options
    ):
        params = step.params
        share = np.bincount(step.expert, minlength=SPARSE_EXPERTS) / spec["n"]
        if step.epoch == 0:
            result["share"] = float(share[0])
        if escaped is None and share.max() < 0.5:
            escaped = step.epoch
    noise = None if spec["kind"] == "paper" else draw((spec["n"], SPARSE_EXPERTS))
    out, _ = patch_cnn_training.predict(
        params, data.test_batch, noise, activation="cubic", gate=options["gate"]
    )
    accuracy = float(patch_cnn_training.accuracy(out, data.test_batch.y))
    return {**result, "escaped": escaped, "accuracy": accuracy}


def _first_gradients(params, batch, noise, options):
    """Before training: lengths of gradients, and what the experts without samples get."""
    options = {"activation": "cubic", "gate": options["gate"], "loss": options["loss"]}
    _, expert, grads = patch_cnn_training.gradients(params, batch, noise, **options)
    unused = np.bincount(expert, minlength=SPARSE_EXPERTS) == 0
    return {
        "gate gradient": length([grads["theta"]]),
        "other gradient": length([grads["w"][1:], grads["b"][1:]]),
        "unused": int(unused.sum()),
        "unused moves": bool(grads["w"][unused].any() or grads["b"][unused].any()),
    }


def collapse_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One cell per kind and bias: how many runs got away, when, and mean gradients."""
    cells = []
    for (gate, kind, bias), runs in grouped(specs, results, "gate", "kind", "bias").items():
        epochs = [run["escaped"] for run in runs if run["escaped"] is not None]
        cell = {"gate": gate, "kind": kind, "bias": bias, "n": len(runs), "escaped": len(epochs)}
        cell["when"] = float(np.median(epochs)) if epochs else None
        cell |= means(runs, "gate gradient", "other gradient", "share")
        if gate == "sparse":
            cell |= means(runs, "accuracy")
            cell["unused"] = sum(run["unused"] for run in runs)
            cell["unused moves"] = any(run["unused moves"] for run in runs)
        cells.append(cell)
    return cells


def collapse_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where the gate's gradient grows with the bias."""
    dense, sparse = ([c for c in summary if c["gate"] == gate] for gate in ("dense", "sparse"))
    mixture = [cell for cell in dense if cell["kind"] == "mixture"]
    unbiased = next(cell for cell in mixture if cell["bias"] == 0)
    largest = max(mixture, key=lambda cell: cell["bias"])
    falls = largest["gate gradient"][0] < unbiased["gate gradient"][0]
    never = [cell["bias"] for cell in mixture if cell["escaped"] == 0]
    holds = "no" if falls and never else "partly" if falls else "yes"
    text = "The gate's gradient does grow with the bias. "
    if falls:
        ratio = unbiased["gate gradient"][0] / max(largest["gate gradient"][0], 1e-300)
        text = (
            "The gradients are not large, they vanish: under eq. 3 the gate's first gradient is "
            f"{ratio:.2g} times smaller at a bias of {largest['bias']:g} than at none, since it is "
            "p − resp, of which both go to 0 (or to 1). "
        )
    text += _escapes(mixture, never)
    for kind in VARIANTS:
        text += _sparse_escapes(kind, [cell for cell in sparse if cell["kind"] == kind])
    if all(any(c["escaped"] == 0 for c in cells) for cells in _by_kind(summary)):
        text += "What prevents collapse is that the gate starts undecided."
    return holds, text.strip()


def _by_kind(summary):
    groups = {}
    for cell in summary:
        groups.setdefault((cell["gate"], cell["kind"]), []).append(cell)
    return groups.values()


def _escapes(mixture, never):
    """Up to which bias training gets away under eq. 3."""
    away = [cell for cell in mixture if cell["escaped"] == cell["n"] and cell["bias"] > 0]
    if not away:
        return ""
    slowest = max(away, key=lambda cell: cell["bias"])
    text = (
        f"Training gets away all the same up to a bias of {slowest['bias']:g} (in all runs, after "
        f"{slowest['when']:.0f} epochs by the median)"
    )
    if not never:
        return f"{text}. "
    return f"{text} and never at {join(numbers(never))} within the epochs given. "


def _sparse_escapes(kind, cells):
    """Up to which bias training gets away by a sparse algorithm."""
    away = [cell["bias"] for cell in cells if cell["escaped"] == cell["n"]]
    never = [cell["bias"] for cell in cells if cell["escaped"] == 0]
    unused = any(cell["unused"] for cell in cells)
    zero = unused and not any(cell["unused moves"] for cell in cells)
    return (
        f"Sparse, the algorithm of the {kind}: "
        + ("an expert without samples has a gradient of exactly 0; " if zero else "")
        + f"all runs get away up to a bias of {max(away, default=0):g}, none at "
        f"{join(numbers(never), empty='any bias')}. "
    )


COLLAPSE = Question(
    "Why does the gate not send everything to one expert?",
    "one expert performs badly, large gradients follow",
    collapse_specs,
    collapse_run,
    collapse_summary,
    collapse_verdict,
)

# --- One expert or two for the router's gradient --------------------------------------------------

CHOICES = {  # k, renormalise
    "k = 1, renormalised": (1, True),
    "k = 1": (1, False),
    "k = 2, renormalised": (2, True),
    "k = 2": (2, False),
}


def k_specs(config: Config, quick: bool) -> list[Spec]:
    """Choices × seeds."""
    steps = 60 if quick else 800
    seeds = 2 if quick else config.fits
    return [
        {"choice": choice, "seed": seed, "steps": steps}
        for choice in CHOICES
        for seed in range(seeds)
    ]


def route(params: Params, x: ArrayND, k: int, renormalise: bool) -> tuple[Routing, top_k.Cache]:
    """`top_k.route`, which refuses k = 1 renormalised; here it is let through."""
    if (k, renormalise) != (1, True):
        return top_k.route(params, x, k=k, renormalise=renormalise)
    logits, probs, choice, weight, demand = top_k.forward_numpy(x, params["w"], k, renormalise)
    token = np.arange(len(x))
    routing = Routing(token, choice.ravel(), weight.ravel(), logits, probs, demand)
    return routing, top_k.Cache(x, params["w"], probs, choice, weight, renormalise, None)


def k_gradients(
    router: Params, experts: Params, x: ArrayND, d: ArrayNC, k: int, renormalise: bool
) -> tuple[float, Params, Params]:
    """Half the mean squared error of a sparse layer of linear experts.

    -> (loss, gradients of the router, gradients of the experts).
    """
    routing, cache = route(router, x, k, renormalise)
    out, layer_cache = sparse_layer.forward(experts, x, routing, LINEAR)
    residual = out - d
    _, dexperts, dweight = sparse_layer.backward(residual / len(x), layer_cache)
    _, drouter = top_k.route_backward(dweight, None, cache)
    return 0.5 * float((residual**2).sum(axis=1).mean()), drouter, dexperts


def k_run(spec: Spec) -> Result:
    """Four linear experts on four regions, router and experts by Adam.

    -> {"gradient": length of the router's first, "largest": component of any gradient of the
    router, "error": of the test data, "bits": what the routing tells about the region at the end}.
    """
    k, renormalise = CHOICES[spec["choice"]]
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng)
    train, test = (regimes.draw(task, n, rng) for n in (400, 1000))
    x, x_test = (np.hstack([part.x, np.ones((len(part.x), 1))]) for part in (train, test))
    router = top_k.init(rng, 3, 4, scale=0.1)
    experts = LINEAR.init(rng, 3, 4, 1, scale=0.5)
    router_state = experts_state = first = None
    largest = 0.0
    for i in range(spec["steps"]):
        _, drouter, dexperts = k_gradients(router, experts, x, train.d, k, renormalise)
        first = length([drouter["w"]]) if first is None else first
        largest = max(largest, float(np.abs(drouter["w"]).max()))
        lr = 0.05 * (1 - i / spec["steps"])
        router, router_state = optim.adam(router, drouter, router_state, lr=lr)
        experts, experts_state = optim.adam(experts, dexperts, experts_state, lr=lr)
    routing, _ = route(router, x_test, k, renormalise)
    out, _ = sparse_layer.forward(experts, x_test, routing, LINEAR)
    known = diagnostics.mutual_information(routing.expert, test.region, rng, token=routing.token)
    error = float(((out - test.d) ** 2).mean())
    return {"gradient": first, "largest": largest, "error": error, "bits": known.bits}


def k_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One cell per choice; "better" than the first, renormalised k = 1, by the log of the error."""
    cells = []
    baseline = None
    for (choice,), runs in grouped(specs, results, "choice").items():
        log_error = np.log([run["error"] for run in runs])
        baseline = log_error if baseline is None else baseline
        cell = {"choice": choice, "n": len(runs), **means(runs, "gradient", "largest", "bits")}
        cell["error"] = float(np.exp(log_error.mean()))
        cell["better"] = -sign_of_difference(log_error, baseline)
        cell["zero"] = sum(run["largest"] == 0 for run in runs)
        cells.append(cell)
    return cells


def k_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where k = 1 learns in neither form."""
    cells = {cell["choice"]: cell for cell in summary}
    stuck = cells["k = 1, renormalised"]
    single = cells["k = 1"]
    zero = stuck["zero"] == stuck["n"]
    learns = single["better"] > 0
    holds = "partly" if zero and learns else "yes" if zero else "no"
    text = (
        "With renormalised weights k = 1 gives the router a gradient of exactly 0 in "
        f"{stuck['zero']} of {stuck['n']} runs, and the test error stays at {stuck['error']:.3f}. "
    )
    if not learns:
        return holds, f"{text}Left as it is, k = 1 is no better: {single['error']:.4f}."
    return holds, (
        f"{text}But one expert is enough if its weight is left as it is: {single['error']:.4f}, "
        f"against {cells['k = 2, renormalised']['error']:.4f} for two renormalised. It is "
        "renormalising that takes the gradient away, not the single expert."
    )


ONE_OR_TWO = Question(
    "Are two experts needed for the router to learn?",
    "at least two experts are needed for the router to learn",
    k_specs,
    k_run,
    k_summary,
    k_verdict,
)
