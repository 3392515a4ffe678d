"""ST-MoE's top-2 gate with a threshold for the second expert: Zoph et al. 2022 (arXiv 2202.08906).

    paper            here        shape     meaning
    p                probs       (N, E)    softmax(x·w)
    e1, e2           choice      (N, 2)    the two largest
    g1, g2           gates       (N, 2)    p1/(p1 + p2), p2/(p1 + p2)
    threshold        threshold             0.2
    –                share       (N,)      what is compared with it: p2/p1, or g2

A token goes to its second expert only if the share of that one is large enough: deterministically
if share > threshold, or at random with probability min(1, share/threshold). The article keeps the
second if its probability exceeds one fifth of the first's, share = p2/p1 (`of="first"`); the
authors' Mesh TensorFlow code compares the renormalised g2 with 0.2 (`of="pair"`), which is p2/p1 >
1/4. The gates are renormalised first and stay so when the second is not sent. Places go to all
first choices before the second ones (not causal, as in gshard.py); a second choice that was not
sent takes none. With share g2, threshold 1/2 and a random second, this is GShard's rule.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayA, ArrayDE, ArrayN, ArrayND, ArrayNE, Options, Params, Rng
from moe_np.routing import contract, gshard
from moe_np.routing.contract import Routing, Stage
from moe_np.routing.gshard import ArrayN2

CAUSAL = False  # with a capacity
EXAMPLE: Options = {"capacity_factor": 1.0}

init = gshard.init  # {"w": (D, E)}


class Cache(NamedTuple):
    """What `route` keeps for `route_backward` and for the stages."""

    x: ArrayND
    w: ArrayDE
    choice: ArrayN2
    gates: ArrayN2
    of: str
    share: ArrayN
    threshold: float
    rnd: ArrayN | None  # None where the second choice is deterministic
    C: int | None
    kept: ArrayN2  # bool: sent and placed
    valid: ArrayN


def route(
    params: Params,
    x: ArrayND,
    *,
    threshold: float = 0.2,
    of: str = "first",
    second: str = "threshold",
    capacity_factor: float | None = None,
    valid: ArrayN | None = None,
    training: bool | None = None,
    rng: Rng | None = None,
) -> tuple[Routing, Cache]:
    """Send each token to its best expert and, if its share is large enough, to its second: x (N, D)
    -> (Routing, cache).

    of                "first": p2/p1 is compared with the threshold; "pair": p2/(p1 + p2)
    second            "threshold": deterministic; "random": at random in training, by the threshold
                      in evaluation
    capacity_factor   C = ceil(factor · 2N/E) places per expert, N without padding; None: no limit.
                      The authors' code has no 2: its 1.25 is 0.625 here
    """
    x, w, choice, gates, logits = gshard.top_2(params, x)
    threshold = checks.number("threshold", threshold, minimum=0, maximum=1)
    checks.choice("of", of, ("first", "pair"))
    checks.choice("second", second, ("threshold", "random"))
    noise = "the random second expert" if second == "random" else None
    _, rng = contract.check_training(training, rng, noise)
    valid = contract.check_valid(valid, len(x))
    share = gates[:, 1] / gates[:, 0] if of == "first" else gates[:, 1]
    bar = np.full(len(x), threshold)
    rnd = None
    if second == "random" and rng is not None:
        rnd = np.ones(len(x))
        rnd[valid] = rng.random(valid.sum())
        bar *= rnd
    sent = np.stack([valid, valid & (share > bar)], axis=1)
    C = gshard.places(valid, logits.shape[1], capacity_factor)
    kept = sent & gshard.placed(choice, sent, logits.shape[1], C)
    cache = Cache(x, w, choice, gates, of, share, threshold, rnd, C, kept, valid)
    return gshard.assignments(choice, gates, sent, kept, logits), cache


def logits_backward(dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache) -> ArrayNE:
    """dweight (A,), dlogits (N, E) or None -> dlogits (N, E). Choices, random numbers and places
    are held.
    """
    return gshard.logits_backward(dweight, dlogits, _as_gshard(cache))


def route_backward(
    dweight: ArrayA, dlogits: ArrayNE | None, cache: Cache
) -> tuple[ArrayND, Params]:
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choices, random numbers and places
    are held.
    """
    return gshard.route_backward(dweight, dlogits, _as_gshard(cache))


def _as_gshard(cache):
    """The cache in the form of gshard.py, whose backward pass is the same."""
    sent = (cache.x, cache.w, cache.choice, cache.gates, cache.rnd)
    return gshard.Cache(*sent, cache.C, cache.kept, cache.valid)


# --- the stages, for the step view ----------------------------------------------------------------

ABOVE = "The second choice is sent if its share is above the threshold."
SHARE = {"share": "N", "threshold": ""}
STAGES: tuple[Stage, ...] = (
    *gshard.TWO_LARGEST,
    Stage(
        "share of the second",
        r"\mathrm{share} = \mathrm{gates}_2 / \mathrm{gates}_1",
        SHARE,
        ABOVE,
        when=("of", "first"),
    ),
    Stage(
        "share of the second", r"\mathrm{share} = \mathrm{gates}_2", SHARE, ABOVE, ("of", "pair")
    ),
    Stage(
        "random threshold",
        r"\text{second choice sent if } \mathrm{share}_n > "
        r"\mathrm{rnd}_n \cdot \mathrm{threshold}",
        {"rnd": "N"},
        "With probability share / threshold, at most 1.",
    ),
    Stage(
        "places",
        "",
        {"demand": "N E", "C": "", "kept": "N 2"},
        "kept: sent, and placed. First choices come before the second ones.",
    ),
)
BACKWARD = gshard.BACKWARD
