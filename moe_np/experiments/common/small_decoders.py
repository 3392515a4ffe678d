"""Small decoders that experiments begin with, from the shared models of
`moe_np.experiments.common.pretrained`, and their further training with a curve.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.optim import AdamState, decays_by_name
from moe_np.base.params import map_leaves
from moe_np.base.types import ArrayBT, Rng
from moe_np.data.text.windows import covering_windows, random_windows
from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.language import run_state
from moe_np.layers import cross_entropy
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree
from moe_np.training import loop

ACTIVE = 2  # experts per token


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The decoder and its pretraining on the King James Bible. All values are ours."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 96  # of an expert; a dense network of equal operations has twice as many
    experts: int = 8
    vocabulary: int = 1000
    length: int = 64
    batch: int = 16
    updates: int = 1000
    learning_rate: float = 3e-3
    checkpoint_every: int = 100
    books: tuple[str, ...] = ()  # to train on; () for all that are not held out
    validation_tokens: int = 16384


SMOKE = Sizes(
    d_model=16,
    layers=1,
    heads=2,
    kv_heads=1,
    hidden=8,
    experts=4,
    vocabulary=300,
    length=16,
    batch=4,
    updates=4,
    checkpoint_every=2,
    books=("Jonah",),
    validation_tokens=200,
)
QUICK = Sizes(
    d_model=32,
    layers=2,
    hidden=48,
    vocabulary=500,
    updates=60,
    checkpoint_every=30,
    books=("Gen", "Exod"),
    validation_tokens=2048,
)


def model_spec(sizes: Sizes, seed: int, *, dense: bool = False, updates: int | None = None) -> Spec:
    """The spec of a pretrained decoder: with experts, or dense with the same operations."""
    return pretrained.spec_of(
        "mixtral",
        updates=updates or sizes.updates,
        seed=seed,
        checkpoint_every=sizes.checkpoint_every,
        books=sizes.books,
        d_model=sizes.d_model,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        d_head=sizes.d_model // sizes.heads,
        hidden=ACTIVE * sizes.hidden if dense else sizes.hidden,
        experts=1 if dense else sizes.experts,
        vocabulary=sizes.vocabulary,
        length=sizes.length,
        batch=sizes.batch,
        learning_rate=sizes.learning_rate,
        validation_tokens=sizes.validation_tokens,
    )


class Pretrained(NamedTuple):
    """A decoder after its last update, with its text."""

    config: Config
    params: Tree
    optimiser: AdamState
    tokeniser: Any
    train: np.ndarray  # tokens
    validation: np.ndarray
    batch: int
    length: int
    records: tuple[list[dict[str, Any]], list[dict[str, Any]]]  # of updates, and of validations


def pretrained_of(spec: Spec) -> Pretrained:
    """The model of a spec from `model_spec`: trained, or found; within `pretrained.stored_with`."""
    run = pretrained.trained(spec)
    rng = np.random.default_rng(0)
    begun = loop.initial_state(decoder.init(rng, run.config))
    state, _ = run_state.read(run.folder, begun)
    sizes = (run.settings.batch, run.settings.length)
    texts = (run.tokeniser, run.train, run.validation)
    facts = (run.config, state.params, state.optimiser)
    return Pretrained(*facts, *texts, *sizes, pretrained.metrics(run))


def pretrain(sweep: Sweep, specs: Iterable[Spec]) -> None:
    """Train the models that these specs begin with, spec["model"], each once: several runs share a
    model, and a folder is trained by one process at a time.
    """
    models = {pretrained.key(spec["model"]): spec["model"] for spec in specs}
    sweep.map(train_one, list(models.values()), "pretrained models")


def train_one(spec: Spec) -> Result:
    """Train the model of a spec from `model_spec`, if need be."""
    run = pretrained.trained(spec)
    return {"updates": run.options.updates}


def loss_on(config: Config, params: Tree, tokens: np.ndarray, length: int) -> float:
    """Nats per token of a text, every token but the first predicted once."""
    total = 0.0
    count = 0
    for ids, targets in covering_windows(tokens, batch=16, length=length):
        logits, _ = decoder.forward(params, ids, config)
        rows = logits.reshape(-1, config.vocabulary)
        _, cache = cross_entropy.forward(rows, targets.ravel())
        total += cache.total
        count += cache.n_valid
    return total / max(count, 1)


def windows(model: Pretrained, tokens: np.ndarray | None = None) -> Callable[[Rng], Any]:
    """`minibatch_of`: random windows of the model's text, or of other tokens."""
    text = model.train if tokens is None else tokens
    return lambda rng: random_windows(text, rng, batch=model.batch, length=model.length)


def ordinary(config: Config) -> Callable[..., Any]:
    """`gradients_of`: the next token, with Switch's load-balancing loss."""
    workspace: dict = {}

    def gradients_of(params: Tree, minibatch: tuple[ArrayBT, ArrayBT], rng: Rng) -> Any:
        ids, targets = minibatch
        return decoder.loss_and_grads(params, ids, targets, config, rng=rng, workspace=workspace)

    return gradients_of


class Curve(NamedTuple):
    """What further training did."""

    steps: list[int]  # 0, and every validation
    seconds: list[float]  # of the processor, in training
    validation: list[float]
    training: list[float]  # the mean loss between two validations, one fewer
    params: Any  # after the last update
    best: Any  # of the least validation loss


def further(
    params: Any,
    gradients_of: Callable[..., Any],
    minibatch_of: Callable[[Rng], Any],
    validation_of: Callable[[Any], float],
    options: loop.Options,
    *,
    every: int,
    optimiser: AdamState | None = None,
    decays: Callable[[str], bool] = decays_by_name,
) -> Curve:
    """Train on, with a validation at the beginning, after every `every` updates and at the end."""
    state = loop.initial_state(params)
    if optimiser is not None:
        means = [map_leaves(np.array, tree) for tree in (optimiser.m, optimiser.v)]
        state = state._replace(optimiser=AdamState(optimiser.t, *means))
    least = validation_of(state.params)
    curve = Curve([0], [0.0], [least], [], None, params)
    used = 0.0
    losses = []
    start = time.process_time()
    for step in loop.train(state, gradients_of, minibatch_of, options, decays=decays):
        state = step.state
        losses.append(step.losses.task)
        if step.number % every and step.number != options.updates:
            continue
        used += time.process_time() - start
        loss = validation_of(state.params)
        curve.steps.append(step.number)
        curve.seconds.append(used)
        curve.validation.append(loss)
        curve.training.append(float(np.mean(losses)))
        if loss < least:
            least = loss
            curve = curve._replace(best=map_leaves(np.array, state.params))
        losses = []
        start = time.process_time()
    return curve._replace(params=state.params)


def generator(seed: int) -> Rng:
    """The generator of what an adapted model draws at its initialisation, by seed."""
    return np.random.default_rng([seed, 1])
