"""ST-MoE's top-2 gate with a threshold for the second expert: Zoph et al. 2022 (arXiv 2202.08906).

    paper            here        shape     meaning
    p                probs       (N, E)    softmax(x·w)
    e1, e2           choice      (N, 2)    the two largest
    g1, g2           gates       (N, 2)    p1/(p1 + p2), p2/(p1 + p2)
    threshold        threshold             0.2
                     share       (N,)      what is compared with it: p2/p1, or g2

A token goes to its second expert only if that one is worth it: deterministically if share >
threshold, or at random with probability min(1, share/threshold). The article keeps the second if
its probability exceeds one fifth of the first's, share = p2/p1 (`of="first"`); the authors' Mesh
TensorFlow code compares the renormalised g2 with 0.2 (`of="pair"`), which is p2/p1 > 1/4. The gates
are renormalised first and stay so when the second is not asked. Places go to all first choices
before the second ones (not causal, as in gshard.py); a second choice that was not asked takes none.
With share g2, threshold 1/2 and chance, this is GShard's rule.
"""

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.routing import contract, gshard

init = gshard.init
Cache = gshard.Cache


def route(
    params,
    x,
    *,
    threshold=0.2,
    of="first",
    second="threshold",
    capacity_factor=None,
    valid=None,
    training=None,
    rng=None,
):
    """Send each token to its best expert and, if that is worth it, to its second: x (N, D) ->
    (Routing, cache).

    of                "first": p2/p1 against the threshold; "pair": p2/(p1 + p2)
    second            "threshold": deterministic; "random": with `rng` by chance, without it by the threshold
    capacity_factor   C = ceil(factor · 2N/E) places an expert; None: no limit. The authors' code has no 2: its 1.25 is
                      0.625 here
    valid             (N,) bool: tokens outside take no place, get no row and do not count in N
    """
    x, choice, gates, logits = gshard.top_2(params, x)
    if not (isinstance(threshold, (int, float)) and 0 <= threshold <= 1):
        raise InputError(f"threshold: wanted a number from 0 to 1, got {threshold!r}")
    checks.choice("of", of, ("first", "pair"))
    checks.choice("second", second, ("threshold", "random"))
    noise = "the random second expert" if second == "random" else None
    _, rng = contract.check_training(training, rng, noise)
    valid = contract.check_valid(valid, len(x))
    share = gates[:, 1] / gates[:, 0] if of == "first" else gates[:, 1]
    bar = np.full(len(x), float(threshold))
    if second == "random" and rng is not None:
        bar[valid] *= rng.random(valid.sum())
    asked = np.stack([valid, valid & (share > bar)], axis=1)
    kept = asked & gshard.places(choice, asked, valid.sum(), logits.shape[1], capacity_factor)
    return gshard.assignments(choice, gates, asked, kept, logits), Cache(
        x, params["w"], choice, gates, kept
    )


def route_backward(dweight, dlogits, cache):
    """dweight (A,), dlogits (N, E) or None -> dx (N, D), {"w"}. Choices, chance and places are
    held.
    """
    return gshard.route_backward(dweight, dlogits, cache)
