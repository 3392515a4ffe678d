"""Distillation of a mixture into a smaller model (Fedus et al. 2021, arXiv 2101.03961, section 4.2,
"Distillation"; Hinton et al. 2015, arXiv 1503.02531).

    loss = (1 − s) · (−log p(target)) + s T² · (−Σ_v q_v log p_v(T))
    q = softmax(teacher's logits / T),   p(T) = softmax(logits / T)

    paper    here           meaning
    .25      soft           s, the share of the soft targets; the hard ones have the rest
    –        temperature    T; T² keeps the size of the gradient (Hinton et al., section 2)
    –        teacher        logits (N, V), which are not differentiated

The students of Fedus et al., table 6, have the operations of the teacher per token:

    way       the student before training
    new       a dense decoder of k times an expert's width
    copied    the same, with the teacher's weights that are not those of experts and routers
    merged    a dense decoder of one expert's width: the experts merged (`moe_np.adapt.merging`)
    task      a dense decoder of one expert's width: in each layer the expert that got the most
              weight on the task's text (task-level distillation to k = 1)

`copied` with soft = 0 is the control, copied weights without distillation: in table 6 it is worse
than training anew. `fewer_choices` is the same mixture with a smaller k, for distillation by the
teacher that it was.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.adapt import layer_parts, merging
from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.params import leaves
from moe_np.base.types import Array, ArrayBT, ArrayN, Rng
from moe_np.layers import cross_entropy, mixture_layer
from moe_np.layers.mixture_layer import Losses
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree
from moe_np.routing.contract import Routing

ArrayNV = Annotated[np.ndarray, "N, V"]
WAYS = ("new", "copied", "merged", "task")

# --- the loss -------------------------------------------------------------------------------------


class Cache(NamedTuple):
    """What the backward pass needs, and the two losses by themselves."""

    hard: cross_entropy.Cache
    soft: cross_entropy.Cache
    share: float
    temperature: float
    hard_loss: float
    soft_loss: float  # without T²


def loss_forward(
    logits: ArrayNV,
    targets: ArrayN,
    teacher: ArrayNV,
    *,
    soft: float = 0.25,
    temperature: float = 1.0,
    ignore: int = -1,
) -> tuple[float, Cache]:
    """logits and teacher (N, V), targets (N,) -> (mean loss over the valid targets in nats, cache).

    Raises InputError for a teacher of another vocabulary, and for soft outside of 0 to 1.
    """
    soft = checks.number("soft", soft, minimum=0, maximum=1)
    T = checks.number("temperature", temperature, greater_than=0)
    teacher = checks.array("teacher", teacher, ("N", "V"))
    logits = checks.array("logits", logits, ("N", "V"), finite=False)
    if teacher.shape != logits.shape:
        wanted = f"logits of shape {logits.shape}, those of the student"
        raise InputError(f"teacher: wanted {wanted}, got {teacher.shape}")
    hard_loss, hard = cross_entropy.forward(logits, targets, ignore=ignore)
    q = numerics.softmax(teacher / teacher.dtype.type(T)).astype(logits.dtype, copy=False)
    scaled = logits / logits.dtype.type(T)
    soft_loss, softened = cross_entropy.forward(scaled, targets, ignore=ignore, soft=q)
    loss = (1 - soft) * hard_loss + soft * T * T * soft_loss
    return loss, Cache(hard, softened, soft, T, hard_loss, soft_loss)


def loss_backward(dloss: float, cache: Cache) -> ArrayNV:
    """dloss -> dlogits (N, V). The teacher is not differentiated."""
    s = cache.share
    T = cache.temperature
    dlogits = cross_entropy.backward(dloss * (1 - s), cache.hard)
    return dlogits + cross_entropy.backward(dloss * s * T, cache.soft)  # T² · 1/T


class Loss(NamedTuple):
    """What one step measures. The gradients are those of task + Σ balance."""

    task: float  # the loss of `loss_forward`, nats per valid target
    balance: tuple[float, ...]  # of each layer of the student
    tokens: int  # number of valid targets
    routings: tuple[Routing, ...]
    hard: float  # −log p(target), of which the perplexity is
    soft: float


def loss_and_grads(
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    teacher: tuple[Config, Tree],
    soft: float = 0.25,
    temperature: float = 1.0,
    losses: Losses = decoder.SWITCH_LOSS,
    ignore: int = -1,
    rng: Rng | None = None,
    workspace: dict | None = None,
) -> tuple[Loss, Tree]:
    """One step of distillation: ids and targets (B, T) -> (Loss, gradients of all parameters).

    teacher   its config and parameters; it is evaluated without dropout and noise. With soft = 0 it
              is not evaluated
    losses    load-balancing losses, for a student that is a mixture

    Raises InputError for a teacher with another vocabulary.
    """
    check_vocabularies(teacher[0], config)
    options = {"training": True, "rng": rng, "workspace": workspace}
    logits, cache = decoder.forward(params, ids, config, **options)
    targets = checks.array("targets", targets, logits.shape[:2], kind="i").ravel()
    rows = logits.reshape(-1, config.vocabulary)
    wanted = rows if soft == 0 else _logits(teacher, ids)
    mixed = {"soft": soft, "temperature": temperature, "ignore": ignore}
    task, entropy = loss_forward(rows, targets, wanted, **mixed)
    added = [mixture_layer.balance_loss(losses, block.mixture) for block in cache.blocks]
    grads = decoder.backward(loss_backward(1.0, entropy).reshape(logits.shape), cache, added)
    routings = tuple(block.mixture.routing for block in cache.blocks)
    balance = tuple(term.value for term in added)
    parts = (entropy.hard_loss, entropy.soft_loss)
    return Loss(task, balance, entropy.hard.n_valid, routings, *parts), grads


def _logits(teacher, ids):
    config, params = teacher
    return decoder.forward(params, ids, config)[0].reshape(-1, config.vocabulary)


def check_vocabularies(teacher: Config, student: Config) -> None:
    """Raise InputError where teacher and student have different vocabularies."""
    if teacher.vocabulary != student.vocabulary:
        wanted = f"the {teacher.vocabulary} tokens of the teacher's vocabulary"
        raise InputError(f"student: wanted {wanted}, got {student.vocabulary}")


# --- students -------------------------------------------------------------------------------------


def student(
    way: str,
    config: Config,
    params: Tree,
    *,
    rng: Rng,
    ids: Annotated[Array, "B, T"] | None = None,
) -> tuple[Config, Tree]:
    """A student of this teacher: one of `WAYS`, see above.

    ids   tokens of the task, for "task", and for the weights of "merged" (None: equal ones)

    Raises InputError for a teacher without experts or with shared ones.
    """
    if checks.choice("way", way, WAYS) == "merged":
        seen = [] if ids is None else layer_parts.on_text(config, params, ids)
        use = [layer_parts.use(of_layer) for of_layer in seen]
        return merging.to_dense(config, params, use or None)
    if way == "task":
        if ids is None:
            raise InputError("ids: wanted the tokens of the task, got None")
        return single_expert(config, params, ids)
    layer_parts.check_sparse(config, params)
    new = student_config(config)
    dtype = params["embed"]["w"].dtype
    begun = decoder.init(checks.generator("rng", rng), new, dtype=dtype)
    return new, copied_weights(params, begun) if way == "copied" else begun


def student_config(config: Config) -> Config:
    """The dense decoder with the operations per token of a mixture: k times an expert's width."""
    return merging.dense_config(config, hidden=layer_parts.choices(config) * config.hidden)


def copied_weights(teacher: Tree, params: Tree) -> Tree:
    """The student's parameters with the teacher's embedding, attention, norms and head.

    Raises InputError where one of them has another shape.
    """
    of_teacher = leaves(teacher)
    new = layer_parts.copied(params)
    for path, p in leaves(new).items():
        if set(path.split(".")) & {"experts", "router", "shared", "shared_gate"}:
            continue
        source = of_teacher.get(path)
        if source is None or source.shape != p.shape:
            got = None if source is None else source.shape
            raise InputError(f"teacher: wanted {path} of shape {p.shape} to copy, got {got}")
        p[...] = source
    return new


def single_expert(
    config: Config, params: Tree, ids: Annotated[Array, "B, T"]
) -> tuple[Config, Tree]:
    """In each layer the expert with the largest sum of weights on these tokens, for all tokens:
    routing at the level of the task (Kudugunta et al. 2021, arXiv 2110.03742), as a dense decoder.
    """
    seen = layer_parts.on_text(config, params, ids)
    new = merging.dense_config(config)
    best = {of.layer: int(layer_parts.use(of).argmax()) for of in seen}

    def narrowed(number: int, layer: Tree) -> Any:
        return merging.as_dense(layer, layer_parts.expert_of(layer, best[number]))

    return new, layer_parts.with_layers(params, narrowed, list(best))


def fewer_choices(config: Config, k: int) -> Config:
    """The same mixture with k experts per token; k = 1 is not renormalised, so that its router
    learns (`moe_np.routing.top_k`).
    """
    checks.integer("k", k, minimum=1, maximum=layer_parts.choices(config))
    options = {**config.options, "k": k}
    return config._replace(options=options if k > 1 else {**options, "renormalise": False})
