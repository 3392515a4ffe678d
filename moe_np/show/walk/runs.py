"""Walks along a whole run: EM step by step (`moe_np.mixtures.em`), and any training that is an
iterator of steps.
"""

import itertools

import numpy as np

from moe_np.base import checks
from moe_np.show.steps import Steps, Trail

AXES = {
    "x": ("N D", "N P D"),
    "y": ("N", "N C"),
    "d": "N C",
    "W": "E D C",
    "b": "E C",
    "U": "D E",
    "c": "E",
    "o": "N E C",
    "p": "N E",
    "s": "N E",
    "log_f": "N E",
    "logits": "N E",
    "resp": "N E",
    "case_loss": "N",
}


def em(x, y, n_experts, *, family, rng, **options):
    """Steps of one climb of EM on x (N, D) and y (N, C) or (N,): start, E step, M step of the
    experts, of the gate, ...

    The states of `moe_np.show.walk.em_walk.steps`, which has the options, with x and y put before their
    arrays.
    """
    from moe_np.show.walk.em_walk import steps

    def states():
        data = {"x": np.array(x), "y": np.array(y)}
        axes = {"x": ("N", "D"), "y": ("N", "C")[: data["y"].ndim]}
        for now in steps(x, y, n_experts, family=family, rng=rng, **options):
            yield now._replace(arrays={**data, **now.arrays}, axes={**axes, **now.axes})

    return Steps(states())


def training(trainer, *, every=1, last=None, data=None):
    """Steps of an iterator that trains: of `moe_np.training`, of `train` in `moe_np.mixtures`, or
    of one's own.

    A step is a NamedTuple; its numbers, its `params` (a dict of arrays, or of such dicts) and the
    arrays of its `cache` are shown, under their names. `number` and `changed`, where it has them,
    are words.

    every    a state for every so many steps, from the first
    last     end after the step of this number; None: go on as long as the trainer does
    data     {"x": ..., "y": ...}: arrays to be there in every state, for pictures
    """
    checks.integer("every", every)
    return Steps(_sampled(iter(trainer), every, last, data or {}))


def _sampled(trainer, every, last, data):
    trail = Trail(AXES)
    for count in itertools.count():
        step = next(trainer, None)
        if step is None or (last is not None and count > last):
            return
        if count % every == 0 or count == last:
            trail.forget()
            fields = step._asdict()
            number, changed = fields.pop("number", count), fields.pop("changed", ())
            note = f"Changed: {', '.join(map(str, changed))}." if changed else ""
            yield trail.see(f"step {number}", "", {**data, **_flat(fields)}, note)


def _flat(fields):
    """The numbers and arrays of a step by name; where two have one name, the later is called
    part.name.
    """
    out = {}
    for name, value in fields.items():
        if hasattr(
            value, "_asdict"
        ):  # a cache: the arrays that stand in it, not what is further down
            value = {k: v for k, v in value._asdict().items() if isinstance(v, np.ndarray)}
        if isinstance(value, dict):
            for inner, array in _flat(value).items():
                out[inner if inner not in out else f"{name}.{inner}"] = array
        elif isinstance(value, (np.ndarray, np.number, int, float)):
            out[name] = value
    return out
