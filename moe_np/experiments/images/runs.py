"""The runs of the images: three tasks of classification by a sparse layer, and a decoder of pixels.

A system is a task and a model: "digits: mixture". A classifier is one sparse layer, top-1, trained
once per learning rate, of which the least validation loss decides. The decoder reads the digit and
then draws its 64 pixels row by row, two experts per token.
"""

import dataclasses
from typing import Any

import numpy as np

from moe_np.experiments.common import mixture_classifier, sequence_models
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS, in_use, shape, taken_up
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.sequence_models import Sizes
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.images import digit_images
from moe_np.experiments.images.digit_images import FIRST_DIGIT, LARGEST, SIDE, TASKS, VOCABULARY
from moe_np.models import decoder, generation

PIXELS = "pixel by pixel"
ALL_TASKS = (*TASKS, PIXELS)
SYSTEMS = tuple(f"{task}: {model}" for task in ALL_TASKS for model in MODELS)
SAMPLES = 3  # drawn digits of each kind, by the models of seed 0

# Chen et al. 2022 (arXiv 2208.02813), table 2: percent right of a single network and of a mixture,
# mean and standard deviation. Their authors' program takes the best of all passes by the test set.
PAPER: dict[str, Any] = {
    "CIFAR-10": {
        "CNN": ((80.68, 0.45), (80.31, 0.62)),
        "MobileNetV2": ((92.45, 0.25), (92.23, 0.72)),
        "ResNet18": ((95.51, 0.31), (95.32, 0.68)),
    },
    "CIFAR-10-Rotate": {
        "CNN": ((76.78, 1.79), (79.60, 1.25)),
        "MobileNetV2": ((85.76, 2.91), (89.85, 2.54)),
        "ResNet18": ((88.23, 0.96), (92.60, 2.01)),
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    train: int = 900  # images
    validation: int = 180
    test: int = 717
    experts: int = 8
    hidden: int = 8  # of an expert of a classifier
    updates: int = 1000  # of a classifier
    batch: int = 64
    every: int = 50
    learning_rates: tuple[float, ...] = (3e-3, 1e-2)
    pixels: Sizes = dataclasses.field(default_factory=lambda: Sizes(updates=2000, every=100))
    seeds: int = 5


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    task, model = system.split(": ")
    values = dataclasses.asdict(config)
    sizes = values.pop("pixels")
    del values["seeds"]
    facts = {"system": system, "task": task, "model": model, "seed": seed}
    facts |= {name: values[name] for name in ("train", "validation", "test", "experts")}
    if task == PIXELS:
        return {**facts, "sizes": sizes}
    return {**facts, **values, "learning_rates": list(config.learning_rates)}


def run_one(spec: Spec) -> Result:
    """Train one system from one seed, and measure its test images."""
    sizes = {name: spec[name] for name in ("train", "validation", "test")}
    parts = digit_images.split(spec["seed"], **sizes)
    facts = {"system": spec["system"], "seed": spec["seed"]}
    return facts | (_pixels if spec["task"] == PIXELS else _classes)(spec, parts)


# --- classification -------------------------------------------------------------------------------


def _classes(spec, parts):
    seed = spec["seed"]
    train, validation, test = (digit_images.labelled(spec["task"], p, seed) for p in parts)
    sizes = shape(
        spec["model"], experts=spec["experts"], hidden=spec["hidden"], k=mixture_classifier.K
    )
    classes = int(train.data.y.max()) + 1

    def params_of():
        rng = np.random.default_rng([seed, 1])
        return mixture_classifier.init(rng, train.data.x.shape[1], classes, sizes)

    model = mixture_classifier.trained(
        params_of,
        train.data,
        validation.data,
        learning_rates=tuple(spec["learning_rates"]),
        **{name: spec[name] for name in ("updates", "batch", "every", "seed")},
    )
    result = {
        "accuracy": mixture_classifier.accuracy(model.params, test.data),
        "loss": mixture_classifier.loss_on(model.params, test.data),
        "learning rate": model.learning_rate,
        "parameters": sum(p.size for part in model.params.values() for p in part.values()),
    }
    if spec["model"] == MIXTURE:
        result |= _experts(model, test, sizes.experts, seed)
    return result


def _experts(model, test, n_experts, seed):
    """Which digits and rotations each expert takes."""
    rng = np.random.default_rng([seed, 3])
    expert = mixture_classifier.expert_of(model.params, test.data.x)
    labels = {"digit": test.digit, "rotation": test.rotation}
    labels = {name: label for name, label in labels.items() if label.any()}
    counts = {name: np.zeros((n_experts, label.max() + 1), int) for name, label in labels.items()}
    for name, label in labels.items():
        np.add.at(counts[name], (expert, label), 1)
    return {
        "in use": in_use(expert, n_experts),
        "taken": {name: taken_up(expert, label, rng) for name, label in labels.items()},
        "counts": {name: table.tolist() for name, table in counts.items()},
    }


# --- pixel by pixel -------------------------------------------------------------------------------


def _pixels(spec, parts):
    sizes = Sizes(**spec["sizes"])
    config = sequence_models.config_of(
        sizes, spec["model"], vocabulary=VOCABULARY, context=SIDE * SIDE + 1
    )
    train, validation, test = map(digit_images.sequences, parts)

    def minibatch_of(rng):
        rows = train[rng.integers(0, len(train), sizes.batch)]
        return rows[:, :-1], rows[:, 1:]

    model = sequence_models.trained(
        config,
        sizes,
        minibatch_of,
        lambda params: loss_on(params, validation, config),
        spec["seed"],
    )
    result = {
        "loss": loss_on(model.params, test, config),
        "validation": model.validation,
        **sequence_models.counts(config),
    }
    if spec["model"] == MIXTURE:
        result["taken"] = _pixel_experts(model, parts.test, spec["seed"])
    if spec["seed"] == 0:
        result["samples"] = drawn(model).tolist()
    return result


def loss_on(params: Any, rows: Any, config: decoder.Config) -> float:
    """Nats per pixel of whole images."""
    blocks = [rows[i : i + 64] for i in range(0, len(rows), 64)]
    losses = [decoder.loss(params, b[:, :-1], b[:, 1:], config).task for b in blocks]
    return float(np.average(losses, weights=[len(block) for block in blocks]))


def _pixel_experts(model, part, seed):
    """Per layer, how much the first expert tells of digit, row, column and the value just read."""
    rng = np.random.default_rng([seed, 3])
    rows = digit_images.sequences(part)
    ids = rows[:, 1:-1]  # the tokens that are pixels
    first = sequence_models.first_experts(model, rows[:, :-1])[:, :, 1:]
    place = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    labels = {
        "digit": np.broadcast_to(part.digit[:, None], ids.shape),
        "row": place // SIDE,
        "column": place % SIDE,
        "value": ids,
    }
    return {
        name: [taken_up(layer.ravel(), label.ravel(), rng) for layer in first]
        for name, label in labels.items()
    }


def drawn(model: sequence_models.Trained) -> np.ndarray:
    """(10, SAMPLES, 8, 8): digits that a decoder draws, pixel after pixel, at temperature 1."""
    kinds = np.repeat(np.arange(10), SAMPLES)
    rng = np.random.default_rng(0)
    prompt = kinds[:, None] + FIRST_DIGIT
    tokens = generation.generate(
        model.params, prompt, model.config, tokens=SIDE * SIDE, rng=rng, temperature=1.0
    )
    pixels = np.stack([token.ids for token in tokens], axis=1)
    return np.minimum(pixels, LARGEST).reshape(10, SAMPLES, SIDE, SIDE)


# --- over seeds -----------------------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system."""
    summary = {"parameters": runs[0]["parameters"]}
    for name in ("accuracy", "loss"):
        if name in runs[0]:
            summary[name] = describe([run[name] for run in runs]).record("mean", "sd")
    if "in use" in runs[0]:
        summary["in use"] = float(np.mean([run["in use"] for run in runs]))
    if "taken" in runs[0]:
        summary["taken"] = {
            name: [
                float(v) for v in np.atleast_1d(np.mean([r["taken"][name] for r in runs], axis=0))
            ]
            for name in runs[0]["taken"]
        }
    return summary
