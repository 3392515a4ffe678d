"""The runs of Chen et al. 2022 (arXiv 2208.02813): single networks and mixtures on four clusters.

The paper and its published code are two algorithms, and both are here:

              weight of the      loss                    length of     noise at   stopping
              chosen expert                              a step        test       rule
    code      raw noisy logit    cross-entropy of a      ‖dW‖ + ‖db‖   yes        yes
                                 softmax of the softmax
    paper     softmax of the     cross-entropy           Frobenius     no         no
              logits             (logistic)              norm

Single networks are trained with Adam on plain cross-entropy in both; the paper gives numbers for
settings 1 and 2. The samples of a setting are drawn once, from `data_seed`; two runs differ in
their initialisation and in the routing noise.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice, integer
from moe_np.data.clusters import SETTINGS, Clusters, clusters
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.models import patch_cnn, patch_cnn_training

SYSTEMS = ("single_linear", "single_nonlinear", "moe_linear", "moe_nonlinear")
SINGLE_SETTINGS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Config:
    """Values of the paper and of its notebooks, each with the place where it was read."""

    n_train: int = 16000  # paper, section 5
    n_test: int = 16000
    experts: int = 8  # M
    filters: int = 8  # J per class: 16 in an expert
    single_filters: int = 40  # 80 in a single network
    epochs: int = 501  # notebooks, the runs behind Table 1
    scale: float = 1e-3  # initialisation of experts, times PyTorch's default; the router is 0
    lr: float = 1e-3  # learning rate: the length of an expert's step
    lr_router: float = 0.1
    noise: bool = True  # U[0, 1) added to the logits before the choice
    single_epochs: int = 801  # notebooks; training may not stop before 502 passes
    single_lr_linear: float = 3e-3
    single_lr_nonlinear: float = 1e-2
    weight_decay: float = 5e-4
    seeds: int = 10  # paper, Table 1
    data_seed: int = 2022  # ours


VARIANTS = {
    "code": {"gate": "raw", "loss": "twice", "norm": "sum", "test_noise": True, "stop": True},
    "paper": {
        **{"gate": "softmax", "loss": "once", "norm": "joint"},
        **{"test_noise": False, "stop": False},
    },
}

# --- one run --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """The samples of a setting, prepared for training and for testing."""

    train: Clusters
    train_batch: patch_cnn_training.Batch
    test: Clusters
    test_batch: patch_cnn_training.Batch


@functools.lru_cache(maxsize=2)
def data(setting: int, data_seed: int, n_train: int, n_test: int) -> Data:
    """Draw the samples of a setting; the last two draws of a process are kept."""
    train, test = clusters(setting, n_train, n_test, np.random.default_rng([data_seed, setting]))
    batches = [patch_cnn_training.batch(part.x, part.y) for part in (train, test)]
    return Data(train, batches[0], test, batches[1])


def run_one(spec: Spec) -> Result:
    """Train and test one model. `spec` is what `spec_of` makes.

    -> {"accuracy" in percent of the test samples, "train_accuracy", "loss", "epochs"}, and for a
    mixture "entropy" (nats, of the last training pass) and "entropy_per_epoch"; "record": n in the
    spec adds `_recorded` every n epochs.
    """
    return _run_mixture(spec) if spec["model"].startswith("moe") else _run_single(spec)


def _data(spec):
    return data(*(spec[name] for name in ("setting", "data_seed", "n_train", "n_test")))


def _run_mixture(spec):
    samples = _data(spec)
    D = samples.train_batch.x.shape[2]
    activation = _activation(spec)
    rng = np.random.default_rng([spec["seed"], 1])
    params = patch_cnn.init(
        rng, spec["experts"], spec["filters"], D, scale=spec["scale"], dtype=np.float32
    )
    draw = patch_cnn_training.uniform_noise(rng) if spec["noise"] else None
    names = ("epochs", "gate", "loss", "norm", "lr", "lr_router", "stop")
    options = {name: spec[name] for name in names}
    entropy = []
    record = []
    for step in patch_cnn_training.train_mixture(
        params, samples.train_batch, samples.train.cluster, draw, activation=activation, **options
    ):
        if spec["record"] and step.epoch % spec["record"] == 0:
            record.append(_recorded(step, params, samples, activation))
        params = step.params
        entropy.append(round(step.entropy, 6))

    def accuracy(batch):
        noisy = draw is not None and spec["test_noise"]
        noise = draw((len(batch.y), spec["experts"])) if noisy else None
        out, _ = patch_cnn_training.predict(
            params, batch, noise, activation=activation, gate=spec["gate"]
        )
        return patch_cnn_training.accuracy(out, batch.y)

    result = {
        "accuracy": accuracy(samples.test_batch),
        "train_accuracy": accuracy(samples.train_batch),
        "entropy": entropy[-1],
        "loss": step.loss,
        "epochs": step.epoch + 1,
        "entropy_per_epoch": entropy,
    }
    return result | ({"record": record} if spec["record"] else {})


def _recorded(step, params, samples, activation):
    """Before the update: the directions of experts and router, and the accuracy of each expert on
    each cluster and its load.
    """
    test = samples.test
    values = patch_cnn_training.alignment(params, test.features, test.centers)
    values["accuracy"] = patch_cnn_training.expert_accuracy(
        params, samples.test_batch, test.cluster, activation=activation
    )
    values["load"] = np.bincount(step.expert, minlength=len(params["w"])) / len(step.expert)
    return {"epoch": step.epoch, **{k: v.round(6).tolist() for k, v in values.items()}}


def _run_single(spec):
    samples = _data(spec)
    D = samples.train_batch.x.shape[2]
    activation = _activation(spec)
    rng = np.random.default_rng([spec["seed"], 2])
    params = patch_cnn.init(rng, 1, spec["single_filters"], D, dtype=np.float32)
    del params["theta"]
    lr = spec["single_lr_linear"] if activation == "linear" else spec["single_lr_nonlinear"]
    options = {"activation": activation, "lr": lr, "weight_decay": spec["weight_decay"]}
    for step in patch_cnn_training.train_single(  # noqa: B007 - the last step is used
        params, samples.train_batch, epochs=spec["single_epochs"], **options
    ):
        pass

    def accuracy(batch):
        out = patch_cnn_training.single_predict(step.params, batch, activation=activation)
        return patch_cnn_training.accuracy(out, batch.y)

    return {
        "accuracy": accuracy(samples.test_batch),
        "train_accuracy": accuracy(samples.train_batch),
        "loss": step.loss,
        "epochs": step.epoch + 1,
    }


def _activation(spec):
    return "cubic" if spec["model"].endswith("nonlinear") else "linear"


SHARED = ("data_seed", "n_train", "n_test")
OF_MIXTURES = ("experts", "filters", "epochs", "scale", "lr", "lr_router", "noise")
OF_SINGLE_NETWORKS = (
    *("single_filters", "single_epochs", "single_lr_linear", "single_lr_nonlinear"),
    "weight_decay",
)


def spec_of(
    config: Config, model: str, setting: int, variant: str, seed: int, **changes: object
) -> Spec:
    """Everything that determines one run, as a JSON-able dict.

    `changes` override any of it (the ablation). Nothing in a single network depends on the
    variant, so the variants share its runs.
    """
    choice("model", model, SYSTEMS)
    choice("setting", setting, tuple(SETTINGS))
    choice("variant", variant, tuple(VARIANTS))
    mixture = model.startswith("moe")
    names = (*SHARED, *(OF_MIXTURES if mixture else OF_SINGLE_NETWORKS))
    spec = {"model": model, "setting": setting, "seed": seed}
    spec |= {name: getattr(config, name) for name in names}
    if mixture:
        spec |= {**VARIANTS[variant], "record": 0}
    unknown = set(changes) - set(spec)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise InputError(f"changes: wanted names out of {', '.join(spec)}; got {names}")
    return spec | changes


def quick_config(config: Config) -> Config:
    """Fewer samples, passes and seeds: it shows that all works, and is not a result."""
    return dataclasses.replace(
        config,
        n_train=2000,
        n_test=2000,
        epochs=101,
        single_epochs=61,
        seeds=min(config.seeds, 2),
        lr=3 * config.lr,
    )


def checked_seeds(seeds: int | Sequence[int]) -> list[int]:
    """A number of seeds, or a list of them, as a list. Raises InputError where there is none."""
    if isinstance(seeds, (list, tuple, range)):
        seeds = [integer("seeds", seed, minimum=0) for seed in seeds]
        if not seeds:
            raise InputError("seeds: wanted at least one, got none")
        return seeds
    return list(range(integer("seeds", seeds)))


def summarise(lists: Result) -> Result:
    """Mean and population standard deviation, as the paper's are, of accuracy and entropy."""
    return {
        name: [float(np.mean(lists[name])), float(np.std(lists[name]))]
        for name in ("accuracy", "entropy")
        if name in lists
    }
