"""The contexts in which an expert has its largest weights: table 9 of Shazeer et al. 2017 (arXiv
1701.06538, appendix E) as a procedure.

The tokens of an expert are sorted by decreasing G(x)_i, and each is shown between its neighbours.
The paper shows three experts that were picked by hand. Here a rule picks them, those whose contexts
have the same token in the middle most often, and three at random stand beside them. A context that
occurs several times is shown once.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from moe_np.base.types import Rng
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.specialisation.snapshots import Routings

SHOWN = 10  # contexts per expert
PICKED = 3  # experts by the rule, and as many at random

Places = Annotated[np.ndarray, "n"]


def compared(routings: Routings, n_experts: int, text_of: Callable[[int], str], rng: Rng) -> Result:
    """Picked and random experts with their contexts, and how uniform all of them are:

        uniformity = share of the contexts' commonest token in the middle

    on average over the picked experts, the random ones, all, and over random places of the text.
    """
    experts = [
        (layer, expert) for layer in range(len(routings.choice)) for expert in range(n_experts)
    ]
    places = {at: places_of(routings, *at) for at in experts}
    experts = [at for at in experts if len(places[at])]
    uniform = {at: uniformity(routings.ids[places[at]]) for at in experts}
    picked = sorted(experts, key=lambda at: (-uniform[at], -len(places[at]), at))[:PICKED]
    chosen = rng.choice(len(experts), min(PICKED, len(experts)), replace=False)
    at_random = [experts[i] for i in chosen]
    by_chance = []
    for _ in experts:
        drawn = distinct(routings, rng.permutation(len(routings.ids)))
        by_chance.append(uniformity(routings.ids[drawn]))

    def shown(at):
        words = [in_context(routings, place, text_of) for place in places[at]]
        return {"layer": at[0], "expert": at[1], "uniformity": uniform[at], "contexts": words}

    return {
        "picked": [shown(at) for at in picked],
        "random": [shown(at) for at in at_random],
        "uniformity": {
            "picked": float(np.mean([uniform[at] for at in picked])),
            "random": float(np.mean([uniform[at] for at in at_random])),
            "all": float(np.mean(list(uniform.values()))),
            "by chance": float(np.mean(by_chance)),
        },
    }


def places_of(routings: Routings, layer: int, expert: int) -> Places:
    """The places of the largest weights of an expert, the largest first; equal ones by place."""
    place, column = np.nonzero(routings.choice[layer] == expert)
    order = np.argsort(-routings.weight[layer, place, column], kind="stable")
    return distinct(routings, place[order])


def distinct(routings: Routings, places: Places) -> Places:
    """The first places whose contexts differ: the token and both its neighbours."""
    kept: list[int] = []
    seen = set()
    ids = routings.ids
    for place in places.tolist():
        context = (int(ids[place - 1]) if place else -1, ids[place], routings.following[place])
        if context not in seen:
            seen.add(context)
            kept.append(place)
        if len(kept) == SHOWN:
            break
    return np.array(kept, np.int64)


def uniformity(tokens: Places) -> float:
    """The share of the commonest token."""
    return float(np.unique(tokens, return_counts=True)[1].max() / len(tokens))


def in_context(routings: Routings, place: int, text_of: Callable[[int], str]) -> list[str]:
    """[text before, text, text after] of a place; the first token has nothing before it."""
    before = text_of(int(routings.ids[place - 1])) if place else ""
    return [before, text_of(int(routings.ids[place])), text_of(int(routings.following[place]))]
