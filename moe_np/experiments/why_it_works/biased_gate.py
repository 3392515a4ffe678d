"""Runs of a gate that begins with a bias towards one expert.

The gate is held with its bias while the experts are trained; then it is let go. Dense, the vowels
of Jacobs et al. (1991) under all three errors; sparse, with one expert per sample, the clusters of
Chen et al. (2022), by the algorithm of the paper and by that of its code.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from moe_np.base.optim import gradient_descent
from moe_np.base.types import Array, Params
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.why_it_works.questions import Config, first_seeds
from moe_np.experiments.why_it_works.tasks import (
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
