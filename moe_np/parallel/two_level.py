"""The all-to-all exchange in two steps: within the nodes, then between them (Hwang et al. 2022,
Tutel, arXiv 2206.03382, "two-dimensional hierarchical", 2DH).

A node has m ranks with a fast connection; rank r is the rank i = r mod m of node a = r div m. What
(a, i) has for (b, j) goes to (a, j) first, within the node, and from there to (b, j), together with
what the m − 1 other ranks of node a have for it:

    (a, i) -> (a, j) -> (b, j)

So a rank sends R/m − 1 messages between nodes in place of R − m, each m times as long. The rows
that arrive are the same, in the same order: by their sender.

    generator = two_level.exchanged(step(rank), rank, ranks, node=4)

is a rank whose every `Send` is made this way; nothing in the step has to know.
"""

from collections.abc import Generator
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array
from moe_np.parallel.exchanges import Exchange, Send


def exchanged(
    generator: Generator[Exchange, Any, Any], rank: int, ranks: int, node: int
) -> Generator[Exchange, Any, Any]:
    """The same rank, with each Send in two steps.

    node   m, ranks per node. Raises InputError where it does not divide `ranks`
    """
    if checks.integer("ranks", ranks, minimum=1) % checks.integer("node", node, minimum=1):
        raise InputError(f"node: wanted a divisor of {ranks} ranks, got {node}")
    answer = None
    while True:
        try:
            exchange = generator.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(exchange, Send):
            answer = yield from send(exchange, rank, ranks, node)
        else:
            answer = yield exchange


def send(exchange: Send, rank: int, ranks: int, node: int) -> Generator[Exchange, Any, Array]:
    """One Send in two steps, and a step before them in which a node's ranks tell their counts."""
    nodes = ranks // node
    a, i = divmod(rank, node)
    in_node = np.arange(a * node, (a + 1) * node)  # the ranks of this node
    alike = np.arange(i, ranks, node)  # the ranks i of all nodes
    counts = exchange.counts.reshape(nodes, node)  # to (b, j)

    few = np.zeros(ranks, np.int64)
    few[in_node] = nodes
    name = exchange.name
    known = yield Send(counts.T.ravel(), few, few, f"{name}, counts in the node")
    known = known.reshape(node, nodes)  # from (a, i') for (b, i)

    starts = np.concatenate([[0], np.cumsum(exchange.counts)])
    order = _order(starts, np.arange(ranks).reshape(nodes, node).T)  # by j, then b
    within = np.zeros(ranks, np.int64)
    within[in_node] = counts.sum(axis=0)
    coming = np.zeros(ranks, np.int64)
    coming[in_node] = known.sum(axis=1)
    rows = yield Send(exchange.rows[order], within, coming, f"{name}, in the node")

    starts = np.concatenate([[0], np.cumsum(known)])  # the blocks (i', b)
    order = _order(starts, np.arange(ranks).reshape(node, nodes).T)  # by b, then i'
    between = np.zeros(ranks, np.int64)
    between[alike] = known.sum(axis=0)
    coming = np.zeros(ranks, np.int64)
    coming[alike] = exchange.expected.reshape(nodes, node).sum(axis=1)
    return (yield Send(rows[order], between, coming, f"{name}, between nodes"))


def _order(starts, blocks):
    """The rows of the blocks in their order; block n has the rows starts[n] : starts[n + 1]."""
    pieces = [np.arange(starts[n], starts[n + 1]) for n in blocks.ravel()]
    return np.concatenate(pieces)


def messages(ranks: int, node: int) -> tuple[int, int]:
    """How many messages a rank sends between nodes: -> (direct, in two steps)."""
    return ranks - node, ranks // node - 1
