"""The runs: one language model of Shazeer et al. 2017, and what is measured of it.

Rows of the paper's Tables 7 and 8, D the width and 2 D the hidden units of an expert; operations
are multiplications per token without embedding and softmax, as in the tables:

    LSTM-4D       one LSTM of 4 D units with a projection (LSTM-2048-512)    36 D²
    4xLSTM        four LSTMs (4xLSTM-512)                                    32 D²
    MoE-1-Wide    LSTM, one network of 8 D hidden units, LSTM                32 D²
    MoE-4         LSTM, 4 experts of which all are used, LSTM                32 D² + gate
    MoE-8 to -32  LSTM, more experts of which 4 are used, LSTM               32 D² + gate
    MoE-32-h      the same as MoE-32, in two levels: 2 of 4 groups, 2 of 8   32 D² + gate

MoE-1-Deep, whose expert has four hidden layers, is left out. The same seed gives the same
minibatches to all.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.params import leaves
from moe_np.data.text import bible, tokenisers
from moe_np.data.text.windows import covering_windows, random_windows
from moe_np.experiments.common import trained_tree
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.trained_tree import Training
from moe_np.experiments.shazeer2017_language import stacked_lstm
from moe_np.language import evaluation
from moe_np.layers import diagnostics
from moe_np.models import lstm_moe
from moe_np.training import loop

LSTM = "LSTM-4D"
FOUR_LSTM = "4xLSTM"
WIDE = "MoE-1-Wide"
FLAT = {"MoE-4": 4, "MoE-8": 8, "MoE-16": 16, "MoE-32": 32}  # flat gates: number of experts
SMALLEST = "MoE-4"
LARGEST = "MoE-32"
HIERARCHICAL = "MoE-32-h"
EXPERTS = {**FLAT, HIERARCHICAL: 32}
SYSTEMS = (LSTM, FOUR_LSTM, WIDE, *EXPERTS)
ACTIVE = 4  # experts per token, section C.1
GROUPS = 4  # of the hierarchical gate, two of which are used

PAPER: dict[str, Any] = {
    # Table 7, 1 Billion Word Benchmark: test perplexity after 10 epochs, millions of operations per
    # timestep, millions of parameters without embedding and softmax
    "table7": {
        "LSTM-2048-512": (44.7, 9.4, 9.4),
        "4xLSTM-512": (46.0, 8.4, 8.4),
        "MoE-1-Wide": (46.1, 8.4, 8.4),
        "MoE-1-Deep": (45.7, 8.4, 8.4),
        "MoE-4": (45.0, 8.4, 8.4),
        "MoE-32": (39.7, 8.4, 37.8),
        "MoE-256": (35.7, 8.6, 272.9),
        "MoE-256-h": (36.0, 8.4, 272.9),
        "MoE-1024-h": (34.6, 8.5, 1079.0),
        "MoE-4096-h": (34.1, 8.9, 4303.4),
    },
    # Table 8, 100 Billion Word Google News: test perplexity after .1 epochs and after 1 epoch
    "table8": {
        "4xLSTM-512": (54.5, 47.0),
        "MoE-32": (48.5, 40.4),
        "MoE-256-h": (42.8, 35.3),
        "MoE-1024-h": (40.3, 32.7),
        "MoE-4096-h": (38.9, 30.9),
        "MoE-16384-h": (38.2, 29.7),
        "MoE-65536-h": (38.2, 28.9),
        "MoE-131072-h": (39.8, 29.2),
    },
    # Table 6, MoE-256 with w_importance = w_load = .1
    "table6": {"CV(Importance)": 0.06, "CV(Load)": 0.05, "max/mean of the load": 1.14},
}
ROWS = {LSTM: "LSTM-2048-512", FOUR_LSTM: "4xLSTM-512"}  # ours -> the paper's, where they differ


@dataclasses.dataclass(frozen=True)
class Config:
    """Ratios of sizes, k and dropout are the paper's (appendix C.1); D = 512 there."""

    d_model: int = 64
    dropout: float = 0.1
    vocabulary: int = 1000  # byte pairs; in the paper 793,471 words
    length: int = 64
    batch: int = 32
    updates: int = 2500
    checkpoint_every: int = 125
    learning_rate: float = 3e-3
    books: tuple[str, ...] = ()  # to train on; () for all that are not held out
    held_out_tokens: int = 32768  # at most, of the validation books and of the test books each
    seeds: int = 5


class Corpus(NamedTuple):
    """The text as tokens."""

    tokeniser: tokenisers.Tokeniser
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    values: dict[str, Any] = {"d_model": config.d_model, "dropout": config.dropout}
    if system in (LSTM, FOUR_LSTM):
        values["layers"] = 4 if system == FOUR_LSTM else 1
        values["hidden"] = None if system == FOUR_LSTM else 4 * config.d_model
    else:
        values["experts"] = EXPERTS.get(system, 1)
        values["expert_hidden"] = config.d_model * (8 if system == WIDE else 2)
        values["options"] = {"k": ACTIVE}
    if system == HIERARCHICAL:
        values["router"] = "hierarchical"
        values["options"] = dict(lstm_moe.HIERARCHICAL_GATE)
        values["init_options"] = {"groups": GROUPS}
    data = ("vocabulary", "length", "batch", "checkpoint_every", "held_out_tokens")
    model = {
        "values": values,
        "options": {
            "updates": config.updates,
            "learning_rate": config.learning_rate,
            "seed": seed,
        },
        "books": list(config.books),
        **{name: getattr(config, name) for name in data},
    }
    return {"system": system, "seed": seed, "model": model}


def model_of(spec: Spec, vocabulary: int) -> tuple[Any, Any]:
    """The module of the model, and its Config."""
    module = stacked_lstm if "layers" in spec["values"] else lstm_moe
    return module, module.Config(vocabulary=vocabulary, **spec["values"])


def corpus_of(spec: Spec) -> Corpus:
    """The text of a spec, in byte pairs that were learnt from its training books."""
    return _corpus(tuple(spec["books"]), spec["vocabulary"], spec["held_out_tokens"])


@functools.lru_cache(maxsize=1)
def _corpus(books, vocabulary, held_out_tokens):
    split = bible.split()
    text = bible.running_text(bible.of_books(books) if books else split.train)
    tokeniser = tokenisers.train("byte_pairs", text, vocabulary)
    held_out = [
        tokeniser.encode(bible.running_text(verses))[:held_out_tokens]
        for verses in (split.validation, split.test)
    ]
    return Corpus(tokeniser, tokeniser.encode(text), *held_out)


def training_of(spec: Spec) -> Training:
    """How a model is trained, from `spec["model"]` of a run."""
    corpus = corpus_of(spec)
    module, config = model_of(spec, corpus.tokeniser.size)
    options = loop.Options(**spec["options"])
    rng = np.random.default_rng([options.seed, 0])
    sizes = {"batch": spec["batch"], "length": spec["length"]}
    return Training(
        module.init(rng, config),
        lambda params, windows, rng: module.loss_and_grads(params, *windows, config, rng=rng),
        lambda rng: random_windows(corpus.train, rng, **sizes),
        lambda params: _evaluation(params, spec, corpus.validation).loss,
        options,
        spec["checkpoint_every"],
    )


def _evaluation(params, spec, tokens):
    corpus = corpus_of(spec)
    module, config = model_of(spec, corpus.tokeniser.size)
    return evaluation.evaluate(
        lambda ids, targets: (module.forward(params, ids, config)[0], targets),
        tokens,
        corpus.tokeniser,
        length=spec["length"],
        batch=spec["batch"],
    )


def run_one(spec: Spec) -> Result:
    """Train the model of a spec; its validation curve, test loss, sizes, and balance."""
    model = spec["model"]
    trained = trained_tree.trained(model, training_of)
    corpus = corpus_of(model)
    test = _evaluation(trained.params, model, corpus.test)
    seconds = np.cumsum([record["processor_seconds"] for record in trained.updates])
    has_router = spec["system"] in EXPERTS
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "parameters": parameters(trained.params),
        "operations": operations(spec["system"], model["values"]["d_model"]),
        "epochs": len(trained.updates) * model["batch"] * model["length"] / len(corpus.train),
        "steps": [record["step"] for record in trained.validations],
        "validation": [record["validation_loss"] for record in trained.validations],
        "seconds": float(seconds[-1]),
        "test": {
            "loss": test.loss,
            "perplexity": test.perplexity,
            "bits_per_byte": test.bits_per_byte,
        },
        "balance": balance(trained.params, model) if has_router else None,
    }


def parameters(params: Any) -> int:
    """Without embedding and softmax, as in the tables."""
    return sum(p.size for path, p in leaves(params).items() if path.split(".")[0] not in OUTSIDE)


OUTSIDE = ("embed", "head")


def operations(system: str, D: int) -> int:
    """Multiplications per token without embedding and softmax. The gate's two matrices count, and
    of a hierarchical gate's second level the chosen groups."""
    if system == LSTM:
        return 36 * D * D
    gate = 2 * D * EXPERTS.get(system, 0)
    if system == HIERARCHICAL:
        gate = D * (GROUPS + 2 * EXPERTS[system] // GROUPS)
    return 32 * D * D + gate


def balance(params: Any, spec: Spec) -> dict[str, dict[str, float]]:
    """How evenly the experts are used on the test books, as in Table 6: as in evaluation, and with
    the noise of training (which a hierarchical gate here does not have)."""
    corpus = corpus_of(spec)
    _, config = model_of(spec, corpus.tokeniser.size)
    config = config._replace(dropout=0.0)
    measured = {}
    for name in ("evaluation", "with noise"):
        rng = None if name == "evaluation" else np.random.default_rng(0)
        importance = np.zeros(config.experts)
        load = np.zeros(config.experts)
        sizes = {"batch": spec["batch"], "length": spec["length"]}
        for ids, _ in covering_windows(corpus.test, **sizes):
            _, cache = lstm_moe.hidden(params, ids, config, rng=rng)
            routing = cache.mixture.mixture.routing
            importance += diagnostics.importance(routing)
            load += diagnostics.load(routing)
        measured[name] = {
            "CV(Importance)": diagnostics.cv(importance),
            "CV(Load)": diagnostics.cv(load),
            "max/mean of the load": diagnostics.max_over_mean(load),
        }
    return measured


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system."""

    def described(values):
        return describe(values).record("mean", "sd")

    summary = {
        "parameters": runs[0]["parameters"],
        "operations": runs[0]["operations"],
        "epochs": runs[0]["epochs"],
        "validation": described([min(run["validation"]) for run in runs]),
        "loss": described([run["test"]["loss"] for run in runs]),
        "perplexity": described([run["test"]["perplexity"] for run in runs]),
        "bits": described([run["test"]["bits_per_byte"] for run in runs]),
        "seconds": described([run["seconds"] for run in runs]),
        "balance": None,
    }
    if runs[0]["balance"]:
        summary["balance"] = {
            mode: {name: described([run["balance"][mode][name] for run in runs]) for name in names}
            for mode, names in runs[0]["balance"].items()
        }
    return summary
