"""Step views of whole runs: EM step by step (`moe_np.mixtures.em`), and any training that is an
iterator of steps.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, Rng
from moe_np.mixtures.em_families import Family
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


def em(
    x: ArrayND,
    y: ArrayNC | ArrayN,
    n_experts: int,
    *,
    family: Family,
    rng: Rng | None,
    **options: Any,
) -> Steps:
    """Steps of one run of EM: start, E step, M step of the experts, of the gate, ...

    The states of `moe_np.show.walk.em_walk.steps`, which has the options, with x and y before their
    arrays.
    """
    from moe_np.show.walk.em_walk import steps

    data = {"x": np.array(x), "y": np.array(y)}
    data_axes = {"x": ("N", "D"), "y": ("N", "C")[: data["y"].ndim]}

    def with_data(current):
        arrays = {**data, **current.arrays}
        return current._replace(arrays=arrays, axes={**data_axes, **current.axes})

    return Steps(map(with_data, steps(x, y, n_experts, family=family, rng=rng, **options)))


def training(
    trainer: Iterator[NamedTuple],
    *,
    every: int = 1,
    last: int | None = None,
    data: dict[str, Array] | None = None,
) -> Steps:
    """Steps of an iterator that trains, for example `train` of `moe_np.training.methods.joint`.

    A training step is a NamedTuple. Its numbers, its `params` (a dict of arrays, or of such dicts)
    and the arrays of its `cache` are shown under their names; `number` and `updated`, where it has
    them, in words.

    every    one state for this many training steps, beginning with the first
    last     end after the training step with this number; None: no end of its own
    data     {"x": ..., "y": ...}: arrays that every state has, for pictures
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
            number = fields.pop("number", count)
            updated = fields.pop("updated", ())
            note = f"Changed: {', '.join(map(str, updated))}." if updated else ""
            yield trail.see(f"step {number}", "", {**data, **_flat(fields)}, note)


def _flat(fields):
    """The numbers and arrays of a step by name; the later of two with one name is part.name."""
    out = {}
    for name, value in fields.items():
        if hasattr(value, "_asdict"):  # a cache: its arrays, not those of caches within it
            value = {k: v for k, v in value._asdict().items() if isinstance(v, np.ndarray)}
        if isinstance(value, dict):
            for inner, array in _flat(value).items():
                out[inner if inner not in out else f"{name}.{inner}"] = array
        elif isinstance(value, (np.ndarray, np.number, int, float)):
            out[name] = value
    return out
