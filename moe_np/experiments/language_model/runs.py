"""The runs: one decoder, trained on the King James Bible, and what is measured of it.

Systems, of which each mixture uses two experts per token:

    dense                  one feed-forward network, the operations of two experts
    8 experts              the same operations per token, four times the feed-forward parameters
    32 experts             the same operations per token, sixteen times the feed-forward parameters
    dense, half the size   one feed-forward network with half of the parameters of 8 experts
    dense, equal size      one feed-forward network with the parameters of 8 experts
    ..., width 128         the first two, twice as wide
    ..., two books         the first three, on so little text that they overfit

The first three differ in parameters alone, which is the comparison of papers on sparse models;
"dense, equal size" is what articles mean by a dense model of the same size, and "dense, half the
size" stands between the two, for the comparison at equal quality. The same seed gives the same
minibatches to all that read the same text.
"""

import dataclasses
import itertools
import time

import numpy as np

from moe_np.base.machine import one_blas_thread
from moe_np.base.params import leaves
from moe_np.data.text import bible
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.crossing import first_crossing
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.language import evaluation, model_files
from moe_np.models import decoder

DENSE = "dense"
EIGHT = "8 experts"
MANY = "32 experts"
HALF = "dense, half the size"
LARGE = "dense, equal size"
TWO_BOOKS = {f"{system}, two books": system for system in (DENSE, EIGHT, MANY)}
WIDE = {f"{system}, width 128": system for system in (DENSE, EIGHT)}
WIDE_DENSE, WIDE_EIGHT = WIDE
SYSTEMS = (DENSE, EIGHT, MANY, HALF, LARGE, *WIDE, *TWO_BOOKS)
# the dense model of equal text and width, with which a system is compared
DENSE_OF = {EIGHT: DENSE, MANY: DENSE, HALF: DENSE, LARGE: DENSE, WIDE_EIGHT: WIDE_DENSE}
EXPERTS = {DENSE: 1, EIGHT: 8, MANY: 32, HALF: 1, LARGE: 1}
ACTIVE = 2  # experts per token

# What papers print of sparse against dense at equal operations per token, in the order of the
# report: Fedus et al. 2021 (arXiv 2101.03961), section 3.1 and figure 5; Muennighoff et al. 2024
# (arXiv 2409.02060), section 4.1
PAPER = {
    "switch steps": 7.5,  # Switch-Base with 64 experts reaches T5-Base's quality in 1/7.5 the steps
    "switch time": 7.0,  # and in 1/7 of the time
    "olmoe tokens": 3.0,  # OLMoE reaches a dense model's quality with 1/3 of the tokens
    "olmoe time": 2.0,  # and in 1/2 of the time
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 128  # of an expert
    vocabulary: int = 1000
    length: int = 128
    batch: int = 16
    updates: int = 2000
    checkpoint_every: int = 100
    learning_rate: float = 3e-3
    books: tuple[str, ...] = ()  # to train on; () for all that are not held out
    two_books: tuple[str, ...] = ("Gen", "Exod")  # to overfit
    updates_of_two_books: int = 1500
    validation_tokens: int = 32768
    timed_batch: int = 16  # windows in the measurement of inference
    seeds: int = 3


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    layer = {**TWO_BOOKS, **WIDE}.get(system, system)
    times = 2 if system in WIDE else 1
    d_model = times * config.d_model
    as_many_as = {DENSE: ACTIVE, HALF: EXPERTS[EIGHT] // 2, LARGE: EXPERTS[EIGHT]}  # experts
    hidden = times * config.hidden * as_many_as.get(layer, 1)
    few = system in TWO_BOOKS
    model = pretrained.spec_of(
        "mixtral",
        updates=config.updates_of_two_books if few else config.updates,
        seed=seed,
        checkpoint_every=config.checkpoint_every,
        books=config.two_books if few else config.books,
        d_model=d_model,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        d_head=d_model // config.heads,
        hidden=hidden,
        experts=EXPERTS[layer],
        vocabulary=config.vocabulary,
        length=config.length,
        batch=config.batch,
        learning_rate=config.learning_rate,
        validation_tokens=config.validation_tokens,
    )
    return {"system": system, "seed": seed, "model": model, "timed_batch": config.timed_batch}


def run_one(spec: Spec) -> Result:
    """Train the model of a spec, and measure it: its curve, its test loss, and its speed."""
    run = pretrained.trained(spec["model"])
    updates, validations = pretrained.metrics(run)
    best = model_files.load(run.folder / "best")
    test = bible.running_text(bible.split().test)
    tokens = run.tokeniser.encode(test)[: run.settings.validation_tokens]
    measured = evaluation.evaluate(
        lambda ids, targets: (decoder.forward(best.params, ids, best.config)[0], targets),
        tokens,
        run.tokeniser,
        length=run.settings.length,
    )
    seconds = np.cumsum([record["processor_seconds"] for record in updates])
    batch = run.settings.batch * run.settings.length
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        **_sizes(best.params, spec["model"]["changes"]["experts"]),
        "epochs": len(updates) * batch / len(run.train),
        "tokens": [record["step"] * batch for record in validations],
        "seconds": [float(seconds[record["step"] - 1]) for record in validations],
        "validation": [record["validation_loss"] for record in validations],
        "training": _smoothed(updates, validations),
        "bits_per_byte": validations[-1]["bits_per_byte"],
        "test": {
            "loss": measured.loss,
            "perplexity": measured.perplexity,
            "bits_per_byte": measured.bits_per_byte,
        },
        "inference": _inference_seconds(best, spec["timed_batch"], run.settings.length),
    }


def _sizes(params, experts):
    """Parameters, and how many of them a token uses (an embedding's row counts as one row)."""
    sizes = {path: leaf.size for path, leaf in leaves(params).items()}
    routed = sum(n for path, n in sizes.items() if ".experts." in path)
    total = sum(sizes.values())
    unused = routed * (1 - min(ACTIVE, experts) / experts)
    return {"parameters": total, "active": round(total - unused)}


def _smoothed(updates, validations):
    """The mean training loss of the updates between two validations."""
    steps = [0, *(record["step"] for record in validations)]
    loss = np.array([record["loss"] for record in updates])
    return [float(loss[a:b].mean()) for a, b in itertools.pairwise(steps)]


def _inference_seconds(model, batch, length, repeats=3):
    """Processor seconds per 1000 tokens of a forward pass, the least of several."""
    ids = np.random.default_rng(0).integers(0, model.config.vocabulary, (batch, length))
    seconds = []
    with one_blas_thread():
        for _ in range(repeats + 1):
            start = time.process_time()
            decoder.forward(model.params, ids, model.config)
            seconds.append(time.process_time() - start)
    return 1000 * min(seconds[1:]) / ids.size


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system."""
    return {
        "parameters": runs[0]["parameters"],
        "active": runs[0]["active"],
        "epochs": runs[0]["epochs"],
        "validation": describe([run["validation"][-1] for run in runs]).record("mean", "sd"),
        "best": describe([min(run["validation"]) for run in runs]).record("mean", "sd"),
        "test": describe([run["test"]["loss"] for run in runs]).record("mean", "sd"),
        "perplexity": describe([run["test"]["perplexity"] for run in runs]).record("mean", "sd"),
        "bits": describe([run["test"]["bits_per_byte"] for run in runs]).record("mean", "sd"),
        "seconds": describe([run["seconds"][-1] for run in runs]).record("mean", "sd"),
        "inference": describe([run["inference"] for run in runs]).record("mean", "sd"),
    }


def reached(losses: list[float], places: list[float], wanted: float) -> float | None:
    """The place (tokens, or seconds) where a falling loss first is at most `wanted`, by a line
    between two validations; None where it never is.
    """
    if losses and losses[0] <= wanted:
        return places[0]
    crossing = first_crossing(losses, wanted)
    if crossing is None:
        return None
    i, share = crossing
    return places[i] + share * (places[i + 1] - places[i])
