"""The runs of the text classification: one sparse layer from word counts to parts of the Bible."""

import dataclasses
from typing import Any

import numpy as np

from moe_np.experiments.common import mixture_classifier
from moe_np.experiments.common.dense_and_mixture import MIXTURE, MODELS, in_use, shape, taken_up
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.text_classification import passages
from moe_np.experiments.text_classification.passages import LANGUAGES, PARTS

SYSTEMS = MODELS

# Chen et al. 2022 (arXiv 2208.02813), appendix: sentiment of sentences in four languages, percent
# right of a single network and of a mixture
PAPER: dict[str, Any] = {"sentiment in four languages": (74.13, 76.22)}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    verses: int = 3  # of a passage
    features: int = 512
    chapters: int | None = None  # every so many-th; None: all
    experts: int = 8
    hidden: int = 8  # of an expert
    updates: int = 3000
    batch: int = 64
    every: int = 100
    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    seeds: int = 5


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    values = dataclasses.asdict(config)
    del values["seeds"]
    rates = list(config.learning_rates)
    return {"system": system, "seed": seed, **values, "learning_rates": rates}


def run_one(spec: Spec) -> Result:
    """Train one system from one seed, and measure passages of held-out chapters."""
    seed = spec["seed"]
    facts = (spec["verses"], spec["features"], spec["chapters"])
    train, validation, test = passages.split(passages.passages(*facts), seed)
    sizes = shape(
        spec["system"], experts=spec["experts"], hidden=spec["hidden"], k=mixture_classifier.K
    )

    def params_of():
        rng = np.random.default_rng([seed, 1])
        return mixture_classifier.init(rng, spec["features"], len(PARTS), sizes)

    model = mixture_classifier.trained(
        params_of,
        train.data,
        validation.data,
        learning_rates=tuple(spec["learning_rates"]),
        **{name: spec[name] for name in ("updates", "batch", "every", "seed")},
    )
    result = {
        "system": spec["system"],
        "seed": seed,
        "passages": [len(part.part) for part in (train, validation, test)],
        "accuracy": mixture_classifier.accuracy(model.params, test.data),
        "loss": mixture_classifier.loss_on(model.params, test.data),
        "learning rate": model.learning_rate,
        "parameters": sum(p.size for part in model.params.values() for p in part.values()),
    }
    if spec["system"] == MIXTURE:
        result |= _experts(model, test, sizes.experts, seed)
    return result


def _experts(model, test, n_experts, seed):
    """Which languages and parts each expert takes."""
    rng = np.random.default_rng([seed, 3])
    expert = mixture_classifier.expert_of(model.params, test.data.x)
    counts = np.zeros((n_experts, len(LANGUAGES), len(PARTS)), int)
    np.add.at(counts, (expert, test.language, test.part), 1)
    labels = {"language": test.language, "part": test.part}
    return {
        "in use": in_use(expert, n_experts),
        "taken": {name: taken_up(expert, label, rng) for name, label in labels.items()},
        "counts": counts.tolist(),
    }


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system."""
    summary = {"parameters": runs[0]["parameters"]}
    for name in ("accuracy", "loss"):
        summary[name] = describe([run[name] for run in runs]).record("mean", "sd")
    if "in use" in runs[0]:
        summary["in use"] = float(np.mean([run["in use"] for run in runs]))
    if "taken" in runs[0]:
        summary["taken"] = {
            name: describe([run["taken"][name] for run in runs]).record("mean", "sd")
            for name in runs[0]["taken"]
        }
    return summary
