"""The runs: one model that translates verses, and what is measured of it.

    LSTM, dense          encoder and decoder of LSTMs with attention, one network of 4 H hidden
                         units in each (`moe_np.models.translation`, Shazeer et al. 2017)
    LSTM, 16 experts     the same with 16 experts of H hidden units, of which 4 are used
    transformer, dense   T5: the same network in every layer (`moe_np.models.encoder_decoder`)
    Switch, 8 experts    the same with 8 experts in every other layer, of which 1 is used (Fedus et
                         al. 2021)

A model with experts has the operations per token of its dense counterpart, and those of its gates.
The two families have not the same operations, and are not compared. The same seed gives the same
minibatches to all. Translations are greedy: the most probable token at every position.
"""

import dataclasses
from typing import Any

import numpy as np

from moe_np.base.params import leaves
from moe_np.experiments.common import trained_tree
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.common.trained_tree import Training
from moe_np.experiments.translation import verse_pairs
from moe_np.experiments.translation.verse_pairs import IGNORED, Corpus, Pair
from moe_np.layers import cross_entropy
from moe_np.models import beam_search, encoder_decoder, encoder_decoder_generation, translation
from moe_np.training import loop

LSTM_DENSE = "LSTM, dense"
LSTM_EXPERTS = "LSTM, 16 experts"
DENSE = "transformer, dense"
SWITCH = "Switch, 8 experts"
SYSTEMS = (LSTM_DENSE, LSTM_EXPERTS, DENSE, SWITCH)
COUNTERPARTS = {LSTM_EXPERTS: LSTM_DENSE, SWITCH: DENSE}  # with experts -> dense
EXPERTS = {LSTM_EXPERTS: 16, SWITCH: 8}
ACTIVE = {LSTM_EXPERTS: 4, SWITCH: 1}  # experts per token

# Shazeer et al. 2017 (arXiv 1701.06538), newstest2014: test perplexity, BLEU, operations per
# timestep, parameters
PAPER: dict[str, Any] = {
    "English to French (Table 2)": {
        "MoE with 2048 experts": (2.69, 40.35, "85M", "8.7B"),
        "MoE with 2048 experts, longer training": (2.63, 40.56, "85M", "8.7B"),
        "GNMT (Wu et al. 2016)": (2.79, 39.22, "214M", "278M"),
        "GNMT+RL (Wu et al. 2016)": (2.96, 39.92, "214M", "278M"),
    },
    "English to German (Table 3)": {
        "MoE with 2048 experts": (4.64, 26.03, "85M", "8.7B"),
        "GNMT (Wu et al. 2016)": (5.25, 24.91, "214M", "278M"),
        "GNMT+RL (Wu et al. 2016)": (8.08, 24.66, "214M", "278M"),
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    d_model: int = 64
    lstm_hidden: int = 128  # of an LSTM, with a projection to d_model
    expert_hidden: int = 128  # H of an expert of the LSTM model
    layers: int = 2  # of encoder and decoder of the transformer, each
    heads: int = 4
    hidden: int = 256  # of a feed-forward network or an expert of the transformer
    dropout: float = 0.1
    vocabulary: int = 2000  # byte pairs of both languages together
    longest: int = 64  # tokens of a verse in either language; longer ones are left out
    batch: int = 32  # pairs
    updates: int = 6000
    checkpoint_every: int = 500
    learning_rate: float = 3e-3
    books: tuple[str, ...] = ()  # to train on; () for all that are not held out
    held_out: int = 1000  # verses, at most, of the validation books and of the test books each
    seeds: int = 3


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    values: dict[str, Any] = {
        "d_model": config.d_model,
        "dropout": config.dropout,
        "experts": EXPERTS.get(system, 1),
    }
    if system in (LSTM_DENSE, LSTM_EXPERTS):
        model = "translation"
        factor = ACTIVE[LSTM_EXPERTS] if system == LSTM_DENSE else 1
        values["hidden"] = config.lstm_hidden
        values["expert_hidden"] = factor * config.expert_hidden
    else:
        model = "encoder_decoder"
        values["hidden"] = config.hidden
        values["encoder_layers"] = values["decoder_layers"] = config.layers
        values["heads"] = config.heads
        values["d_head"] = config.d_model // config.heads
        values["context"] = config.longest + 2
        values["tied"] = False
    names = ("vocabulary", "longest", "held_out")
    data = {name: getattr(config, name) for name in names}
    options = {"updates": config.updates, "learning_rate": config.learning_rate, "seed": seed}
    trained = {
        "model": model,
        "values": values,
        "options": options,
        "data": {"books": list(config.books), **data},
        "batch": config.batch,
        "checkpoint_every": config.checkpoint_every,
    }
    return {"system": system, "seed": seed, "model": trained}


class Translator:
    """A model of either kind: its module, its Config, and what both have in common."""

    def __init__(self, spec: Spec, corpus: Corpus) -> None:
        size = corpus.tokeniser.size
        self.start = corpus.tokeniser.special[verse_pairs.START]
        self.end = corpus.tokeniser.special[verse_pairs.END]
        self.longest = spec["data"]["longest"]
        if spec["model"] == "translation":
            self.module: Any = translation
            sizes = {"source_vocabulary": size, "target_vocabulary": size}
            self.config: Any = translation.Config(**sizes, **spec["values"])
            self.options = {"start": self.start}
        else:
            self.module = encoder_decoder
            values = {"vocabulary": size, "start": self.start, **spec["values"]}
            self.config = encoder_decoder.Config(**values)
            self.options = {}

    def loss_and_grads(self, params: Any, minibatch: Any, rng: Any) -> tuple[Any, Any]:
        """One step of training."""
        source, valid, targets = minibatch
        options = {**self.options, "source_valid": valid, "rng": rng}
        return self.module.loss_and_grads(params, source, targets, self.config, **options)

    def nats(self, params: Any, pairs: tuple[Pair, ...], batch: int) -> tuple[float, int]:
        """Σ −log p of the targets, and how many they are, end tokens included."""
        total = 0.0
        count = 0
        for source, valid, targets in _minibatches(pairs, batch):
            inputs = translation.shift_right(targets, self.start)
            masks = {"source_valid": valid, "valid": targets != IGNORED}
            logits, _ = self.module.forward(params, source, inputs, self.config, **masks)
            rows = logits.reshape(-1, logits.shape[-1])
            _, cache = cross_entropy.forward(rows, targets.ravel(), ignore=IGNORED)
            total += cache.total
            count += cache.n_valid
        return float(total), int(count)

    def greedy(self, params: Any, pairs: tuple[Pair, ...], batch: int) -> list[list[int]]:
        """The tokens of a translation of each verse, without the end token."""
        written = []
        for source, valid, _ in _minibatches(pairs, batch):
            search = self._greedy_lstm if self.module is translation else self._greedy_transformer
            written += search(params, source, valid)
        return written

    def _greedy_lstm(self, params, source, valid):
        tokens = {"start": self.start, "end": self.end, "longest": self.longest}
        results = beam_search.translate(params, source, self.config, **tokens, source_valid=valid)
        return [translated.tokens for translated in results]

    def _greedy_transformer(self, params, source, valid):
        options = {"tokens": self.longest, "stop": (self.end,), "source_valid": valid}
        steps = encoder_decoder_generation.generate(params, source, self.config, **options)
        rows = np.array([step.ids for step in steps]).T.tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]


def _minibatches(pairs, batch):
    for first in range(0, len(pairs), batch):
        yield verse_pairs.minibatch(pairs[first : first + batch])


def training_of(spec: Spec) -> Training:
    """How a model is trained, from `spec["model"]` of a run."""
    corpus = verse_pairs.corpus(**spec["data"])
    translator = Translator(spec, corpus)
    options = loop.Options(**spec["options"])

    def validation_loss(params):
        nats, tokens = translator.nats(params, corpus.validation, spec["batch"])
        return nats / tokens

    rng = np.random.default_rng([options.seed, 0])
    return Training(
        translator.module.init(rng, translator.config),
        translator.loss_and_grads,
        lambda rng: verse_pairs.random_minibatch(corpus.train, rng, batch=spec["batch"]),
        validation_loss,
        options,
        spec["checkpoint_every"],
    )


def run_one(spec: Spec) -> Result:
    """Train the model of a spec: its validation curve, its test loss, and its translations."""
    model = spec["model"]
    trained = trained_tree.trained(model, training_of)
    corpus = verse_pairs.corpus(**model["data"])
    translator = Translator(model, corpus)
    nats, tokens = translator.nats(trained.params, corpus.test, model["batch"])
    written = translator.greedy(trained.params, corpus.test, model["batch"])
    seconds = sum(record["processor_seconds"] for record in trained.updates)
    share = ACTIVE.get(spec["system"], 1) / EXPERTS.get(spec["system"], 1)
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        **sizes(trained.params, share),
        "epochs": len(trained.updates) * model["batch"] / len(corpus.train),
        "kept": corpus.kept,
        "steps": [record["step"] for record in trained.validations],
        "validation": [record["validation_loss"] for record in trained.validations],
        "seconds": seconds,
        "test_loss": nats / tokens,
        "translations": [corpus.tokeniser.decode(tokens).strip() for tokens in written],
    }


def sizes(params: Any, share: float) -> dict[str, int]:
    """Parameters without embeddings and softmax, and how many of them a token uses: of those of
    experts that a router chooses, `share`."""
    counted = {
        path: leaf.size
        for path, leaf in leaves(params).items()
        if not {"embed", "head"} & set(path.split("."))
    }
    routers = {path.split("router")[0] for path in counted if ".router." in path}
    routed = sum(
        n for path, n in counted.items() if any(path.startswith(f"{p}experts.") for p in routers)
    )
    total = sum(counted.values())
    return {"parameters": total, "active": round(total - routed * (1 - share))}


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system; of BLEU and chrF where they were computed."""
    summary: dict[str, Any] = {name: runs[0][name] for name in ("parameters", "active", "epochs")}
    values = {
        "validation": [min(run["validation"]) for run in runs],
        "test_loss": [run["test_loss"] for run in runs],
        "perplexity": [float(np.exp(run["test_loss"])) for run in runs],
        "seconds": [run["seconds"] for run in runs],
    }
    for name in runs[0].get("scores", {}):
        values[name] = [run["scores"][name] for run in runs]
    described = {name: describe(v).record("mean", "sd") for name, v in values.items()}
    return {**summary, **described}
