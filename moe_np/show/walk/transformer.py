"""A walk through a whole decoder (`moe_np.models.decoder`): embedding, attention, mixture of
experts, loss, and the same way back, one array after the other.

A name has one meaning within a part. The parts are the model, each of its layers, and in a layer
the router and the experts, whose states are those of `moe_np.show.walk.route` and
`moe_np.show.walk.layer`; those of attention are in `moe_np.show.walk.attention_walk`. The gradient
of an array `q` is `dq`. In the equations ⊙ multiplies number by number.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBT
from moe_np.layers import (
    cross_entropy,
    embedding,
    mixture_layer,
    norms,
    projections,
    sparse_layer,
)
from moe_np.layers.mixture_layer import Losses
from moe_np.models import decoder
from moe_np.models.decoder import Config
from moe_np.models.decoder_config import Tree
from moe_np.routing.contract import BalanceLoss
from moe_np.show.steps import State, Steps, Trail
from moe_np.show.walk import attention_walk, routers
from moe_np.show.walk.dispatch import layer

AXES = {
    **attention_walk.AXES,
    **dict.fromkeys(("ids", "targets", "valid", "r1", "r2", "r", "lse", "token_loss"), "B T"),
    **dict.fromkeys(("x", "a", "h2", "m", "x_next", "y"), "B T D"),
    **dict.fromkeys(("g1", "g2", "g"), "D"),
    "embed": "V D",
    "head": "D V",
    "logits": "B T V",
    "balance": "L",
}
EMBEDDING = r"x_{bt} = \mathrm{embed}_{\mathrm{ids}_{bt}}"
RMS = r"R_{bt} = 1 \Big/ \sqrt{\tfrac1D \sum_j X_{btj}^2 + \varepsilon}"
NORM = r"Y_{bt} = G \odot X_{bt} \, R_{bt}"
HEAD = r"\mathrm{logits} = y \; \mathrm{head}"
LSE = r"\mathrm{lse}_{bt} = \log \sum_v e^{\mathrm{logits}_{btv}}"
TOKEN_LOSS = r"\mathrm{token\_loss} = \mathrm{lse} - \mathrm{logits}_{\mathrm{target}}"
LOSS = r"\mathrm{loss} = \tfrac1n \sum_{b,t} \mathrm{token\_loss}_{bt}"

DLOGITS = (
    r"d\mathrm{logits} = \tfrac1n \big( \mathrm{softmax}(\mathrm{logits}) "
    r"- \mathrm{onehot}(\mathrm{target}) \big)"
)
DHEAD = (
    r"d\mathrm{head} = \sum_{b,t} y_{bt}^\top \, d\mathrm{logits}_{bt}, \quad "
    r"dy = d\mathrm{logits} \; \mathrm{head}^\top"
)
NORM_BACKWARD = (
    r"dX = PAST R \, \big( u - n \, \mathrm{mean}(u \odot n) \big), \quad "
    r"u = dY \odot G, \quad n = X R, \quad dG = \sum_{b,t} dY \odot n"
)
DEMBED = r"d\mathrm{embed}_v = \sum_{b,t:\,\mathrm{ids}_{bt} = v} dx_{bt}"


def transformer(
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    valid: ArrayBT | None = None,
    losses: Losses = decoder.SWITCH_LOSS,
) -> Steps:
    """Steps of `decoder.forward`, of the loss, and of `decoder.backward`, in evaluation.

    targets   (B, T), the next tokens; −1 where there is none
    valid     (B, T), False at padding
    losses    load-balancing losses with their coefficients, as in `decoder.loss_and_grads`. Their
              gradients arrive at the routers

    Raises InputError where the model does, and for a loss with a gradient of its own for the load
    (`balance.load`).
    """
    logits, cache = decoder.forward(params, ids, config, valid=valid)
    rows = np.asarray(targets).reshape(-1)
    loss, entropy = cross_entropy.forward(logits.reshape(-1, config.vocabulary), rows)
    counted = None if valid is None else np.asarray(valid).ravel()
    added = [mixture_layer.balance_loss(losses, b.mixture, counted) for b in cache.blocks]
    if any(term.dload is not None for term in added):
        raise InputError("losses: wanted those of logits or weights, got one of the load")
    model = _Model(params, cache, config, added)
    given = {"ids": ids, "targets": np.asarray(targets), "valid": valid}
    return Steps(_states(model, given, logits, loss, entropy))


class _Model(NamedTuple):
    params: Tree
    cache: decoder.Cache
    config: Config
    added: list[BalanceLoss]


def _states(model, given, logits, loss, entropy) -> Iterator[State]:
    trail = Trail(AXES)
    cache = model.cache
    yield trail.see("input", "", given, "Token numbers, and at each position the token after it.")
    arrays = {"embed": model.params["embed"]["w"], "x": cache.blocks[0].norm1.x}
    note = "A row of embed for each token: the residual stream, to which every layer adds."
    yield trail.see("embedding", EMBEDDING, arrays, note)
    outer = trail.arrays
    kept = []
    for i, block in enumerate(cache.blocks):
        trail.forget()
        yield from _block(trail, f"layer {i}", model.params["layers"][i], block)
        kept.append(trail.arrays)
    trail.resume(outer)
    yield from _norm(trail, "final norm", cache.norm, LAST)
    yield from _loss(trail, model, logits, loss, entropy)
    dx = yield from _loss_backward(trail, cache, entropy)
    outer = trail.arrays
    for i, block in reversed(list(enumerate(cache.blocks))):
        trail.resume(kept[i])
        dx = yield from _block_backward(trail, f"backward, layer {i}", block, model.added[i], dx)
    trail.resume(outer)
    dembed = embedding.backward(dx, cache.embedding)["w"]
    note = "The rows of a token that occurs several times are added up."
    if cache.tied:
        dembed = dembed + outer["dhead"].T
        note += " Here embed is also the head, and dhead, transposed, is added."
    yield trail.see("backward, embedding", DEMBED, {"dx": dx, "dembed": dembed}, note)


# --- norms ----------------------------------------------------------------------------------------

FIRST = {"X": "x", "R": "r1", "G": "g1", "Y": "h1"}  # input, 1/rms, gain and output of the norms
SECOND = {"X": "a", "R": "r2", "G": "g2", "Y": "h2"}
LAST = {"X": "x", "R": "r", "G": "g", "Y": "y"}


def _named(equation, names, past=""):
    """The equation with the names of the arrays in the place of X, R, G and Y."""
    equation = equation.replace("PAST", past)
    for letter, name in names.items():
        equation = equation.replace(letter, name if len(name) == 1 else f"{name[0]}_{{{name[1]}}}")
    return equation.replace("}_{bt", ",bt")


def _norm(trail, phase, cache, names):
    x, g, r = cache
    note = "One number per token: 1 divided by the root of the mean square of its features."
    arrays = {names["X"]: x, names["R"]: r}
    yield trail.see(f"{phase}, 1/rms", _named(RMS, names), arrays, note)
    note = "Every token gets the same size, then every feature its gain."
    arrays = {names["G"]: g, names["Y"]: x * r[..., None] * g}
    yield trail.see(phase, _named(NORM, names), arrays, note)


# --- head and loss --------------------------------------------------------------------------------


def _loss(trail, model, logits, loss, entropy):
    cache = model.cache
    head = cache.head.T if cache.tied else cache.head
    note = "At every position one number for each token of the vocabulary."
    note += " The head is embed, transposed." if cache.tied else ""
    yield trail.see("head", HEAD, {"head": head, "logits": logits}, note)
    lse = entropy.lse.reshape(logits.shape[:2])
    yield trail.see("log-sum-exp", LSE, {"lse": lse})
    rows = np.arange(entropy.lse.size)
    of_target = entropy.logits[rows, np.where(entropy.valid, entropy.targets, 0)]
    token_loss = np.where(entropy.valid, entropy.lse - of_target, 0).reshape(lse.shape)
    note = "Minus the logarithm of the probability of the target; 0 where there is no target."
    yield trail.see("loss of each token", TOKEN_LOSS, {"token_loss": token_loss}, note)
    uniform = np.log(logits.shape[-1])
    note = f"The mean over {entropy.n_valid} targets, in nats. Guessing gives {uniform:.4f}."
    yield trail.see("loss", LOSS, {"loss": loss}, note)
    balance = np.array([term.value for term in model.added])
    if balance.any():
        note = "One per layer, with their coefficients. Their gradients arrive at the routers."
        yield trail.see("load-balancing losses", "", {"balance": balance}, note)


def _loss_backward(trail, cache, entropy):
    """The states back to the output of the last layer; returns its gradient."""
    dlogits = cross_entropy.backward(1.0, entropy).reshape(*cache.x.shape[:2], -1)
    note = "Only the target of each position has a negative number. Each row sums to 0."
    yield trail.see("backward, loss", DLOGITS, {"dlogits": dlogits}, note)
    dy, dhead = projections.rows_backward(dlogits, cache.x, cache.head, transposed=cache.tied)
    arrays = {"dhead": dhead.T if cache.tied else dhead, "dy": dy}
    yield trail.see("backward, head", DHEAD, arrays)
    dx, dnorm = norms.rms_backward(dy, cache.norm)
    arrays = {"dg": dnorm["g"], "dx": dx}
    note = "dx is what reaches the residual stream behind the last layer."
    yield trail.see("backward, final norm", _named(NORM_BACKWARD, LAST), arrays, note)
    return dx


# --- a layer --------------------------------------------------------------------------------------


def _block(trail, phase, params, block):
    yield from _norm(trail, f"{phase}: norm 1", block.norm1, FIRST)
    yield from attention_walk.forward(trail, f"{phase}: ", block.attention)
    note = "What attention has gathered is added to the token."
    arrays = {"a": block.norm2.x}
    yield trail.see(f"{phase}: residual", r"a = x + \mathrm{attended}", arrays, note)
    yield from _norm(trail, f"{phase}: norm 2", block.norm2, SECOND)
    mixture = block.mixture
    yield from _forward_part(_routing(mixture, trail.arrays["h2"]), f"{phase}, router: ")
    yield from _forward_part(_experts(mixture, trail.arrays["h2"]), f"{phase}, experts: ")
    yield from _mixture(trail, phase, mixture)
    note = "What the experts have computed is added too."
    x_next = block.norm2.x + trail.arrays["m"]
    equation = r"\mathrm{x\_next} = a + m"
    yield trail.see(f"{phase}: second residual", equation, {"x_next": x_next}, note)


def _mixture(trail, phase, mixture):
    """m, the output of the experts, in the shape of the sequences."""
    shape = trail.arrays["h2"].shape
    m = _output(mixture.experts)
    note = "The rows of out, in the shape of the sequences."
    arrays = {}
    if mixture.shared is not None:
        arrays["shared"] = _output(mixture.shared).reshape(shape)
        m = m + _output(mixture.shared)
        note += " The output of the shared experts is added."
    arrays["m"] = m.reshape(shape)
    yield trail.see(f"{phase}: output of the experts", "", arrays, note)


def _output(cache):
    weighted = cache.weight[:, None] * cache.y
    return sparse_layer.combine(weighted, cache.token, cache.offsets, cache.x_shape[0])


def _block_backward(trail, phase, block, added, dx):
    """The states from dx, the gradient of x_next, to that of x, which is returned."""
    note = "The residual: dx_next arrives at the experts and also goes past them."
    arrays = {"dx_next": dx, "dm": dx}
    yield trail.see(f"{phase}: second residual", r"dm = d\mathrm{x\_next}", arrays, note)
    dout = dx.reshape(-1, dx.shape[-1])
    h2 = trail.arrays["h2"]
    mixture = block.mixture
    yield from _backward_part(_experts(mixture, h2, dout), f"{phase}, experts: ")
    _, _, dweight = sparse_layer.backward(dout, mixture.experts)
    dweight = dweight if added.dweight is None else dweight + added.dweight
    routing = _routing(mixture, h2, dweight, added.dlogits)
    yield from _backward_part(routing, f"{phase}, router: ")
    dh2, grads = mixture_layer.backward(dout, mixture, added)
    arrays = _shared_gradients(grads) | {"dh2": dh2.reshape(dx.shape)}
    note = "The sum of the two dx: of the experts and of the router."
    note += " The shared experts add theirs." if mixture.shared is not None else ""
    yield trail.see(f"{phase}: input of the experts", "", arrays, note)

    da, dnorm = norms.add_rms_backward(dx, arrays["dh2"], block.norm2)
    note = "Through the norm, and dx_next past it."
    equation = _named(NORM_BACKWARD, SECOND, r"d\mathrm{x\_next} + ")
    yield trail.see(f"{phase}: norm 2", equation, {"dg2": dnorm["g"], "da": da}, note)
    yield from attention_walk.backward(trail, f"{phase}: ", block.attention, da)
    dx, dnorm = norms.add_rms_backward(da, trail.arrays["dh1"], block.norm1)
    note = "Through the norm, and da past it."
    equation = _named(NORM_BACKWARD, FIRST, "da + ")
    yield trail.see(f"{phase}: norm 1", equation, {"dg1": dnorm["g"], "dx": dx}, note)
    return dx


# --- router and experts ---------------------------------------------------------------------------

BACK = "backward, "  # how the phases of the backward pass begin in these walks


def _routing(mixture, h2, dweight=None, dlogits=None):
    """The states of the router; a dense layer has none."""
    if mixture.router is None:
        return
    x = h2.reshape(-1, h2.shape[-1])
    given = (mixture.router_params, x, mixture.routing, mixture.gate, dweight, dlogits)
    yield from routers.states(mixture.router, *given)


def _experts(mixture, h2, dout=None):
    kept = mixture.experts
    x = h2.reshape(-1, h2.shape[-1])
    return layer(kept.experts.params, x, mixture.routing, kept.expert, dout)


def _forward_part(states, phase):
    """The states before those of the backward pass. The first tells which tokens are read."""
    for number, current in enumerate(states):
        if current.phase.startswith(BACK):
            return
        note = "x has the rows of h2, one per token. " if number == 0 else ""
        yield current._replace(phase=phase + current.phase, note=note + current.note)


def _backward_part(states, phase):
    for current in states:
        if current.phase.startswith(BACK):
            yield current._replace(phase=phase + current.phase.removeprefix(BACK))


def _shared_gradients(grads):
    """Those of the shared experts and of their gate, by name."""
    arrays = {f"dshared_{name}": grad for name, grad in grads.get("shared", {}).items()}
    return arrays | {f"dshared_gate_{k}": grad for k, grad in grads.get("shared_gate", {}).items()}
