"""What is recorded of every update of a training run: a line of metrics.jsonl."""

import time
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.layers import diagnostics
from moe_np.training import loop


class Progress(NamedTuple):
    """What one update did: the line of metrics.jsonl."""

    step: int
    loss: float  # nats per token of the minibatch, before the update
    balance: tuple[float, ...]  # the load-balancing loss of each layer
    gradient_norm: float
    learning_rate: float
    tokens: int
    seconds: float
    processor_seconds: float  # of all threads
    load: list[list[int]]  # assignments of each expert, per layer that has a router
    dropped: list[float]  # share of the assignments that a capacity dropped, per layer


def clocks() -> Annotated[np.ndarray, "2"]:
    """The time, and the processor's time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def of_step(step: loop.Step, seconds: Annotated[np.ndarray, "2"]) -> Progress:
    """The record of an update that took these seconds, as `clocks` has them."""
    routings = [r for r in step.losses.routings if r.demand.shape[1] > 1]
    return Progress(
        step.number,
        float(step.losses.task),
        tuple(float(value) for value in step.losses.balance),
        float(step.gradient_norm),
        float(step.learning_rate),
        step.tokens,
        round(float(seconds[0]), 4),
        round(float(seconds[1]), 4),
        [diagnostics.load(routing).tolist() for routing in routings],
        [float(diagnostics.dropped_share(routing)) for routing in routings],
    )
