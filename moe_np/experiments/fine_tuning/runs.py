"""The runs: one decoder, pretrained on English, fine-tuned on n windows of Spanish.

    system                what is different
    dense                 the dense decoder with the operations of the sparse one
    sparse                2 of 8 experts, all parameters trained
    dropout               .1 on what attention and experts add
    expert dropout        the same, and .4 on the hidden units of experts (Fedus et al. 2021)
    all but experts       experts and routers frozen
    experts               experts and routers alone
    norms and attention   these alone
    router                routers alone
    less capacity         in training each expert has room for .75 of an even load
    no balance loss       without the load-balancing loss
    masked tokens         each token replaced by a random one with probability .1
    weight decay          .1
    low-rank adapters     of rank 4 on the experts, nothing else
    modern English        sparse, on windows of the World English Bible instead of the Spanish one
    paraphrase            the same, each window replaced with probability .5 by the one at its place
                          in the King James Bible, another translation of the same verses

Early stopping is measured in every run: `test` is that of the least validation loss, `test last`
that of the last update.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from moe_np.adapt import fine_tuning, low_rank
from moe_np.data.text import bible, world_english
from moe_np.experiments.common import small_decoders
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.small_decoders import ACTIVE, Pretrained, Sizes
from moe_np.models import decoder
from moe_np.models.decoder_config import Config as ModelConfig
from moe_np.training import loop

DENSE = "dense"
SPARSE = "sparse"
MODERN = "modern English"


class Remedy(NamedTuple):
    """What is different from fine-tuning all parameters."""

    config: dict[str, Any] = {}  # noqa: RUF012 - values of Config in training, never changed
    groups: tuple[str, ...] = fine_tuning.GROUPS
    balance: bool = True
    mask: float = 0.0  # probability that a token is replaced by a random one
    paraphrase: float = 0.0  # probability that a window is replaced by one of the other translation
    modern: bool = False  # on modern English instead of Spanish
    weight_decay: float = 0.0
    rank: int | None = None


# the parameters of top_k, and its choices as far as there is room
LESS_CAPACITY = {"k": ACTIVE, "renormalise": True, "capacity_factor": 0.75}
REMEDIES = {
    "dropout": Remedy({"dropout": 0.1}),
    "expert dropout": Remedy({"dropout": 0.1, "expert_dropout": 0.4}),
    "all but experts": Remedy(groups=fine_tuning.all_but("experts", "router")),
    "experts": Remedy(groups=("experts", "router")),
    "norms and attention": Remedy(groups=("norms", "attention")),
    "router": Remedy(groups=("router",)),
    "less capacity": Remedy({"router": "capacity_top_k", "options": LESS_CAPACITY}),
    "no balance loss": Remedy(balance=False),
    "masked tokens": Remedy(mask=0.1),
    "weight decay": Remedy(weight_decay=0.1),
    "low-rank adapters": Remedy(rank=4),
    "paraphrase": Remedy(modern=True, paraphrase=0.5),
}
CONTROLS = {MODERN: Remedy(modern=True)}  # what a remedy on another text is compared with
SYSTEMS = (DENSE, SPARSE, *CONTROLS, *REMEDIES)
ALPHA = 8.0

# Fedus et al. 2021 (arXiv 2101.03961), table 4: SuperGLUE after fine-tuning; Zoph et al. 2022
# (arXiv 2202.08906), section 4 and table 5: SuperGLUE with and without the auxiliary loss
PAPER = {
    "SuperGLUE": {"dense": 72.4, "sparse": 73.0, "dropout .2": 73.2, "dropout .3": 70.7},
    "SuperGLUE, expert dropout": 73.0,
    "SuperGLUE, auxiliary loss": {"with": 86.5, "without": 85.7},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    examples: tuple[int, ...] = (64, 256, 1024, 4096)  # windows of the new text
    remedies_at: int = 256  # the number of examples on which remedies are tried
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    batches: tuple[int, ...] = (8, 32)
    updates: int = 300
    every: int = 20
    held_out: int = 8192  # tokens for validation, and for the test
    seeds: int = 5


def spec_of(config: Config, system: str, examples: int, setting: tuple, seed: int) -> Spec:
    """One system on so many examples, with a learning rate and a batch size, from one seed."""
    learning_rate, batch = setting
    return {
        "system": system,
        "seed": seed,
        "model": small_decoders.model_spec(config.sizes, seed, dense=system == DENSE),
        "examples": examples,
        "learning_rate": learning_rate,
        "batch": batch,
        **{name: getattr(config, name) for name in ("updates", "every", "held_out")},
    }


def run_one(spec: Spec) -> Result:
    """Fine-tune, and measure training, validation and test losses."""
    model = small_decoders.pretrained_of(spec["model"])
    remedy = (REMEDIES | CONTROLS).get(spec["system"], Remedy())
    split = bible.split()
    n = spec["held_out"]
    validation, test = (_tokens(model, _text(v, remedy), n) for v in (split.validation, split.test))
    config = model.config._replace(**remedy.config)
    params, gradients_of, params_of = _trained(config, model, remedy, spec["seed"])

    def loss_on(trained, tokens):
        return small_decoders.loss_on(model.config, params_of(trained), tokens, model.length)

    options = loop.Options(
        spec["updates"],
        spec["learning_rate"],
        warmup=10,
        weight_decay=remedy.weight_decay,
        seed=spec["seed"],
    )
    curve = small_decoders.further(
        params,
        gradients_of,
        _masked(_minibatches(spec, model, remedy, split.train), remedy.mask, config),
        lambda trained: loss_on(trained, validation),
        options,
        every=spec["every"],
    )
    facts = {name: spec[name] for name in ("system", "seed", "examples", "learning_rate", "batch")}
    return {
        **facts,
        "steps": curve.steps,
        "validation": curve.validation,
        "training": curve.training,
        "test before": small_decoders.loss_on(model.config, model.params, test, model.length),
        "test": loss_on(curve.best, test),
        "test last": loss_on(curve.params, test),
    }


def _text(verses, remedy: Remedy) -> str:
    if not remedy.modern:
        return bible.running_text(verses, "spanish")
    known = (verse for verse in verses if verse.book in world_english.BOOKS)
    return bible.running_text(world_english.modern(known))


def _tokens(model: Pretrained, text: str, n: int):
    return model.tokeniser.encode(text[: 10 * n])[:n]


def _minibatches(spec, model, remedy, verses):
    """`minibatch_of` of the examples, with or without their paraphrases in old English."""
    texts = [_text(verses, remedy)]
    if remedy.paraphrase:
        texts.append(bible.running_text(verses))
    n = spec["examples"] * model.length + 1
    sides = [_examples(_tokens(model, text, n), model.length) for text in texts]
    if remedy.paraphrase:
        return fine_tuning.paraphrased(*sides, remedy.paraphrase, batch=spec["batch"])
    return fine_tuning.minibatches(*sides[0], batch=spec["batch"])


def _examples(tokens, length):
    """Windows of the text, and the same one token further: (ids, targets)."""
    rows = (len(tokens) - 1) // length
    ids = tokens[: rows * length].reshape(rows, -1)
    return ids, tokens[1 : rows * length + 1].reshape(rows, -1)


def _trained(
    config: ModelConfig, model: Pretrained, remedy: Remedy, seed: int
) -> tuple[Any, Callable[..., Any], Callable[[Any], Any]]:
    """What is trained, `gradients_of`, and what is trained -> the model's parameters."""
    options = {"losses": decoder.SWITCH_LOSS if remedy.balance else (), "workspace": {}}
    if remedy.rank is None:
        chosen = fine_tuning.trained_leaves(config, model.params, remedy.groups)

        def of_groups(params, minibatch, rng):
            ids, targets = minibatch
            losses, grads = decoder.loss_and_grads(params, ids, targets, config, rng=rng, **options)
            return losses, fine_tuning.frozen(grads, chosen)

        return model.params, of_groups, lambda params: params
    rng = small_decoders.generator(seed)
    adapters = low_rank.init(rng, config, model.params, rank=remedy.rank)

    def of_adapters(trained, minibatch, rng):
        ids, targets = minibatch
        facts = {"alpha": ALPHA, "rng": rng, **options}
        return low_rank.loss_and_grads(trained, model.params, ids, targets, config, **facts)

    return (
        adapters,
        of_adapters,
        lambda trained: low_rank.merged(model.params, trained, alpha=ALPHA),
    )


def _masked(minibatch_of, p, config):
    def masked(rng):
        ids, targets = minibatch_of(rng)
        if p:
            ids = fine_tuning.masked(ids, p, rng, vocabulary=config.vocabulary)
        return ids, targets

    return masked
