"""Why does the gating network not send everything to one expert?

The claim of articles is that an expert which gets everything performs badly, and that large
gradients follow. So the state is made of which it speaks: the gate has a bias towards one expert
and is held there while the experts are trained; then it is let go. What is measured is the gradient
of the gate at that moment, beside the largest that it has in a usual run without a bias, and
whether training gets away. Dense, the vowels of Jacobs et al.
(1991) under all three errors; sparse, with one expert per sample, the clusters of Chen et al.
(2022), by the algorithm of the paper and by that of its code.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from moe_np.base.optim import gradient_descent
from moe_np.base.types import Array, Params
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.common.controlled_claims import (
    MUST_FAIL,
    MUST_HOLD,
    of_role,
    verdict_with_controls,
    with_role,
    words_of_controls,
)
from moe_np.experiments.common.decisions import Decision, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.common.verdicts import HOLDS, NOT_SUPPORTED
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import (
    EQUATIONS,
    LEARNING_RATES,
    MEAN_SUM,
    VARIANTS,
    patches,
    vowels,
)
from moe_np.mixtures import jacobs1991
from moe_np.models import patch_cnn, patch_cnn_training

SPARSE_EXPERTS = 8
BIASES = {"dense": (2, 5, 10), "sparse": (1, 5, 10)}
GATE = ("U", "c")  # parameters of the dense gate
HELD = {"dense": 500, "sparse": 30}  # epochs in which only the experts learn

# --- Runs -----------------------------------------------------------------------------------------


def collapse_specs(config: Config, quick: bool) -> list[Spec]:
    """Errors × biases × seeds, dense, then variants × biases × seeds, sparse; 0 is no bias."""
    seeds = 2 if quick else config.few
    shared = {
        "dense": {"epochs": 300 if quick else 2500},
        "sparse": {"epochs": 60 if quick else 150, "n": 500 if quick else 2000},
    }
    return [
        {"gate": gate, **shared[gate], "held": HELD[gate], "kind": kind, "bias": bias, "seed": seed}
        for gate, kinds in (("dense", LEARNING_RATES), ("sparse", VARIANTS))
        for kind in kinds
        for bias in ((0, 5) if quick else (0, *BIASES[gate]))
        for seed in first_seeds(seeds)
    ]


def collapse_run(spec: Spec) -> Result:
    """One run: the experts learn under a held gate with a bias, then everything learns. Without a
    bias everything learns from the beginning.

    -> {"escaped": the epoch after the release at which training got away (None: never), "share" of
    the first expert, lengths of the gradients: "gate gradient", "first gradient" (of the expert
    with the bias), "other gradient" (of one of the others)}, all at the release, or where the
    gate's is largest in a run without a bias. Such a run has also the gate's gradient at its
    "end", and there with the gate "undecided". Sparse also "unused" experts, whether any "unused
    moves", and "accuracy" at the end.
    """
    return _collapse_dense(spec) if spec["gate"] == "dense" else _collapse_sparse(spec)


def length(grads: Iterable[Array]) -> float:
    """The length of all gradients together as one vector."""
    return float(np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads)))


def _collapse_dense(spec):
    """Four experts, c_0 = bias; away is where a second expert is in use."""
    data = vowels()
    params = jacobs1991.init_mixture(np.random.default_rng(spec["seed"]), 4)
    if not spec["bias"]:
        return _usual_dense(params, data, spec)
    lr = LEARNING_RATES[spec["kind"]]
    params["c"][0] = spec["bias"]
    for _ in range(spec["held"]):
        _, grads = _dense_gradients(params, data, spec["kind"])
        grads |= {name: np.zeros_like(grads[name]) for name in GATE}
        params = gradient_descent(params, grads, lr=lr)
    result = _dense_lengths(params, data, spec["kind"])
    return {**result, "escaped": _dense_escape(params, data, spec, lr)}


def _usual_dense(params, data, spec):
    """Everything learns from the beginning; see `collapse_run`."""
    largest = {"gate gradient": -1.0}
    escaped = None
    for epoch in range(spec["epochs"]):
        cache, grads = _dense_gradients(params, data, spec["kind"])
        if escaped is None and epoch and jacobs1991.active_experts(cache.p).sum() > 1:
            escaped = epoch
        if length(grads[name] for name in GATE) > largest["gate gradient"]:
            largest = _dense_lengths(params, data, spec["kind"])
        params = gradient_descent(params, grads, lr=LEARNING_RATES[spec["kind"]])
    undecided = params | {name: np.zeros_like(params[name]) for name in GATE}
    for words, values in (("end", params), ("undecided", undecided)):
        largest[words] = _dense_lengths(values, data, spec["kind"])["gate gradient"]
    return {**largest, "escaped": escaped}


def _dense_lengths(params, data, error):
    """Lengths of the gradients, and the share of the first expert."""
    cache, grads = _dense_gradients(params, data, error)
    rest = length([grads["W"][1:], grads["b"][1:]])
    return {
        "gate gradient": length(grads[name] for name in GATE),
        "first gradient": length([grads["W"][0], grads["b"][0]]),
        "other gradient": rest / 3**0.5,
        "share": float(cache.p[:, 0].mean()),
    }


def _dense_gradients(params: Params, data: VowelTask, error: str):
    loss, cache = jacobs1991.system_forward(params, data.x_train, data.d_train, error)
    return cache, jacobs1991.system_backward(np.ones_like(loss), cache)[1]


def _dense_escape(params, data, spec, lr):
    options = {"lr": lr, "error": spec["kind"]}
    for epoch in jacobs1991.train(params, data.x_train, data.d_train, **options):
        if epoch.number and jacobs1991.active_experts(epoch.cache.p).sum() > 1:
            return epoch.number
        if epoch.number == spec["epochs"]:
            return None


def _collapse_sparse(spec):
    """Eight cubic experts; θ_0 gives logit 0 a mean of `bias`, against noise between 0 and 1. Away
    is where no expert has half of the samples.
    """
    data = patches(spec["n"])
    rng = np.random.default_rng(spec["seed"])
    options = VARIANTS[spec["kind"]]
    D = data.train_batch.x.shape[2]
    params = patch_cnn.init(rng, SPARSE_EXPERTS, 8, D, scale=1e-3, dtype=np.float32)
    params["theta"][0] = spec["bias"] / MEAN_SUM * data.train.centers.sum(axis=0)
    draw = patch_cnn_training.uniform_noise(rng)
    noise_shape = (spec["n"], SPARSE_EXPERTS)
    result = {"gate gradient": -1.0}
    if spec["bias"]:
        for step in _passes(params, data, draw, options, lr_router=0.0, epochs=spec["held"]):
            params = step.params
        result = _sparse_gradients(params, data.train_batch, draw(noise_shape), options)
    escaped = None
    for step in _passes(params, data, draw, options, lr_router=0.1, epochs=spec["epochs"]):
        params = step.params
        share = np.bincount(step.expert, minlength=SPARSE_EXPERTS) / spec["n"]
        if escaped is None and share.max() < 0.5:
            escaped = step.epoch
        if not spec["bias"]:
            lengths = _sparse_gradients(params, data.train_batch, draw(noise_shape), options)
            result = max(result, lengths, key=lambda values: values["gate gradient"])
    if not spec["bias"]:
        undecided = params | {"theta": np.zeros_like(params["theta"])}
        for words, values in (("end", params), ("undecided", undecided)):
            lengths = _sparse_gradients(values, data.train_batch, draw(noise_shape), options)
            result = {**result, words: lengths["gate gradient"]}
    noise = None if spec["kind"] == "paper" else draw(noise_shape)
    out, _ = patch_cnn_training.predict(
        params, data.test_batch, noise, activation="cubic", gate=options["gate"]
    )
    accuracy = float(patch_cnn_training.accuracy(out, data.test_batch.y))
    return {**result, "escaped": escaped, "accuracy": accuracy}


def _passes(params, data, draw, options, **learning) -> Iterator[patch_cnn_training.TrainingPass]:
    return patch_cnn_training.train_mixture(
        params,
        data.train_batch,
        data.train.cluster,
        draw,
        **{"activation": "cubic", "lr": 3e-3, "stop": False},
        **learning,
        **options,
    )


def _sparse_gradients(params, batch, noise, options):
    """Lengths of gradients, and what the experts without samples get."""
    options = {"activation": "cubic", "gate": options["gate"], "loss": options["loss"]}
    _, expert, grads = patch_cnn_training.gradients(params, batch, noise, **options)
    counts = np.bincount(expert, minlength=SPARSE_EXPERTS)
    unused = counts == 0
    return {
        "gate gradient": length([grads["theta"]]),
        "first gradient": length([grads["w"][0], grads["b"][0]]),
        "other gradient": length([grads["w"][1:], grads["b"][1:]]) / (SPARSE_EXPERTS - 1) ** 0.5,
        "share": float(counts[0] / len(expert)),
        "unused": int(unused.sum()),
        "unused moves": bool(grads["w"][unused].any() or grads["b"][unused].any()),
    }


def collapse_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One cell per kind and bias: how many runs got away, when, mean gradients, and the logs to
    base 10 of the gate's gradients, without a bias also at the end and there undecided.
    """
    cells = []
    for (gate, kind, bias), runs in grouped(specs, results, "gate", "kind", "bias").items():
        epochs = [run["escaped"] for run in runs if run["escaped"] is not None]
        cell = {"gate": gate, "kind": kind, "bias": bias, "n": len(runs), "escaped": len(epochs)}
        cell["when"] = float(np.median(epochs)) if epochs else None
        cell |= means(runs, "gate gradient", "first gradient", "other gradient", "share")
        cell["log gradients"] = _logs(runs, "gate gradient")
        if not bias:
            cell |= {f"log {words}": _logs(runs, words) for words in CONTROLS}
        if gate == "sparse":
            cell |= means(runs, "accuracy")
            cell["unused"] = sum(run["unused"] for run in runs)
            cell["unused moves"] = any(run["unused moves"] for run in runs)
        cells.append(cell)
    return cells


def _logs(runs, name):
    """Logs to base 10 of a length in all runs."""
    return np.log10(np.maximum([run[name] for run in runs], 1e-300)).tolist()


# --- The verdict ----------------------------------------------------------------------------------

CONTROLS = {"undecided": MUST_HOLD, "end": MUST_FAIL}
CRITERION = criterion_of_table(
    "log to base 10 of the gate's gradient over a twentieth of its largest in a usual run",
    0.3,
    "greater",
)
REASON = (
    "Large means at least a tenth of the largest gradient that the gate has at any time in a usual "
    "run, from the same seed and without a bias, in which the experts part: twice a twentieth, and "
    "the log of 2 is .3. At the end of that run, where the gate has learned whom to choose, there "
    "is little to be gained by it, so there the claim must fail; with the same experts and a gate "
    "that is made undecided, there is much, so there it must hold. The tenth was chosen by three "
    "other runs of every kind without a bias, in which twice the largest failed this control, and "
    "with the gradients of an earlier run known. A bias larger than 10 would only test the "
    "precision of the numbers. An earlier criterion compared with experts that become equal under "
    "an undecided gate and leave it hardly any gradient; the seeds are new."
)


def kind_in_words(kind: str) -> str:
    """An error of the dense mixture, or a variant of the sparse one."""
    return EQUATIONS.get(kind, f"sparse, {kind}")


def name_of(cell: Result) -> str:
    """A case in words."""
    return f"{kind_in_words(cell['kind'])} at {cell['bias']:g}"


def collapse_decisions(summary: list[Result]) -> list[Decision]:
    """One per kind and bias: whether the gate's gradient is large beside those of a usual run; then
    the controls of every kind.
    """
    usual = {cell["kind"]: cell for cell in summary if cell["bias"] == 0}

    def against_usual(case, kind, logs):
        largest = np.array(usual[kind]["log gradients"])
        return decide(case, CRITERION, logs - (largest - math.log10(20)))

    decisions = [
        against_usual(name_of(cell), cell["kind"], cell["log gradients"])
        for cell in summary
        if cell["bias"]
    ]
    for kind, cell in usual.items():
        for words, role in CONTROLS.items():
            case = f"{kind_in_words(kind)}, gate at the end"
            case += " made undecided" if words == "undecided" else ""
            decisions.append(with_role(role, against_usual(case, kind, cell[f"log {words}"])))
    return decisions


def collapse_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is on the gradient; whether runs get away is told beside it."""
    all_decisions = collapse_decisions(summary)
    decisions = of_role(all_decisions)
    biased = [cell for cell in summary if cell["bias"]]
    away = {True: [], False: []}
    for cell, decision in zip(biased, decisions, strict=True):
        large = decision["verdict"] == HOLDS
        away[large].append(f"{name_of(cell)} {cell['escaped']} of {cell['n']}")
    texts = [
        f"where the gradient is {'' if large else 'not shown to be '}large, {join(counts)}"
        for large, counts in away.items()
        if counts
    ]
    text = (
        f"{words_of_controls(all_decisions)}"
        "A large gradient of the gate after an expert was trained on everything: "
        f"{in_words(decisions)} Runs that got away from the bias afterwards: {'; '.join(texts)}. "
    )
    free = [d["case"] for d, cell in zip(decisions, biased, strict=True) if _is_free(d, cell)]
    if free:
        text += f"So no large gradient is needed to get away in {join(free)}. "
    if any(cell.get("unused") for cell in biased):
        moves = any(cell.get("unused moves") for cell in biased)
        words = "do move" if moves else "have a gradient of exactly 0, so they cannot improve"
        text += f"Sparse, experts without samples {words}. "
    return verdict_with_controls(all_decisions), (
        f"{text}This is about a gate that begins with a bias. It does not say why gates without "
        "one collapse or not: lesson 09 shows one that does."
    )


def _is_free(decision, cell):
    """Whether all runs got away from where the gradient is known not to be large."""
    return decision["verdict"] == NOT_SUPPORTED and cell["escaped"] == cell["n"]


COLLAPSE = Question(
    "Why does the gate not send everything to one expert?",
    "one expert performs badly, large gradients follow",
    collapse_specs,
    collapse_run,
    collapse_summary,
    collapse_verdict,
    CRITERION,
    REASON,
    collapse_decisions,
)
