"""Values that a load-balancing loss may have for given logits: right ones, and known errors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.base import numerics
from moe_np.base.types import ArrayE, ArrayNE
from moe_np.layers import balance
from moe_np.routing import contract, top_k
from moe_np.routing.contract import Routing


class Rule(NamedTuple):
    """A loss of logits (N, E) and weights (N, E), for k choices per token."""

    name: str
    value: Callable[[ArrayNE, ArrayNE, int], float]
    erratum: int | None = None
    note: str = ""


def _routing(logits, k):
    params = {"w": np.eye(logits.shape[1])}
    return top_k.route(params, logits, k=k, renormalise=k > 1)[0]


def _loss(function, **options):
    def value(logits: ArrayNE, gate: ArrayNE, k: int) -> float:
        routing: Routing = _routing(logits, k)
        return function(routing, **options).value

    return value


def _counts(logits, k):
    return contract.demand_of(contract.top_k(logits, k), logits.shape[1]).sum(axis=0)


def _cv(sums: ArrayE, power: float, mean_power: int, ddof: int = 0) -> float:
    return float(sums.var(ddof=ddof) ** power / sums.mean() ** mean_power)


def _f(logits, k):
    return _counts(logits, k) / len(logits)


RIGHT = (
    Rule("switch", _loss(balance.switch), note="at balance 1"),
    Rule("gshard", _loss(balance.gshard), note="first choices only; at balance 1/E²"),
    Rule("z_loss", _loss(balance.z_loss), note="(ln E)² at logits of 0"),
    Rule("importance", lambda z, g, k: _cv(g.sum(axis=0), 1, 2), note="CV²; at balance 0"),
    Rule("CV² of the counts", lambda z, g, k: _cv(_counts(z, k), 1, 2), note="at balance 0"),
    Rule("token_entropy", _loss(balance.token_entropy)),
    Rule("mean_entropy", _loss(balance.mean_entropy), note="ln E at balance"),
)
SAMPLE = "the variance is that of a sample (ddof = 1): twice too large for two experts"
WRONG = (
    Rule(
        "standard deviation over the mean of the importance",
        lambda z, g, k: _cv(g.sum(axis=0), 0.5, 1),
        5,
        "not squared: its gradient is 0/0 at balance",
    ),
    Rule(
        "variance over the mean of the importance",
        lambda z, g, k: _cv(g.sum(axis=0), 1, 1),
        5,
        "divided by the mean and not by its square: it grows with the batch",
    ),
    Rule(
        "E Σ f·P, P from the selected weights",
        lambda z, g, k: float(_f(z, k) @ g.mean(axis=0)),
        6,
        "P is the mean of the weights of the selected experts, not of the full softmax",
    ),
    Rule(
        "E Σ P·P",
        lambda z, g, k: float((numerics.softmax(z).mean(axis=0) ** 2).sum()),
        6,
        "f is no share of the choices: probabilities are used twice",
    ),
    Rule(
        "E Σ f·f",
        lambda z, g, k: float((_f(z, k) ** 2).sum()),
        6,
        "shares are used twice: a count has no gradient",
    ),
    Rule(
        "Σ f·P with f after the capacity",
        lambda z, g, k: float((np.abs(g) > 1e-9).mean(axis=0) @ numerics.softmax(z).mean(axis=0)),
        6,
        "f is counted after the capacity, and the crowded expert is not relieved",
    ),
    Rule(
        "z-loss of probabilities",
        lambda z, g, k: float(np.mean(numerics.logsumexp(numerics.softmax(z)) ** 2)),
        7,
        "log-sum-exp of probabilities, not of the raw logits",
    ),
    Rule(
        "square of the mean log-sum-exp",
        lambda z, g, k: float(np.mean(numerics.logsumexp(z)) ** 2),
        7,
        "the mean is squared, not the log-sum-exp of each token",
    ),
    Rule(
        "mean of log-sum-exp",
        lambda z, g, k: float(np.mean(numerics.logsumexp(z))),
        7,
        "not squared: it pushes log Z below 0",
    ),
)
