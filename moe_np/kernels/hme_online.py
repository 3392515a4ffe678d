"""On-line learning of trees (HME) and of nets with one hidden layer, case by case, compiled; the
equations are in `moe_np.mixtures.hme_online`.

All nodes of a tree, level after level, are rows of one array V (nodes, K), the branches of a gating
network side by side. `tree` has the number of branches of a gating network on each level. The
constant input is the last of K. Inner loops run along rows: that makes vector instructions of them
without changing the order of a sum. The letters: N cases, K inputs with the constant 1, C outputs,
E experts (leaves).
"""

import math
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import ArrayE, ArrayN, ArrayNC
from moe_np.kernels.machine.disk_cache import njit
from moe_np.kernels.machine.jit_options import ENTRY, INLINE, INNER, PART

RLS, GRADIENT = range(2)  # Rule.learn: recursive least squares or the gradient
VARIANCE_PER_EXPERT, VARIANCE_HELD, VARIANCE_SHARED = range(3)  # Rule.variance


class Tree(NamedTuple):
    """Parameters, changed in place."""

    branches: Annotated[np.ndarray, "levels"]
    V: Annotated[np.ndarray, "nodes, K"]
    W: Annotated[np.ndarray, "E, C, K"]
    var: ArrayE


class Memory(NamedTuple):
    """What recursive least squares keep between cases, changed in place."""

    R: Annotated[np.ndarray, "E, K, K"]
    S: Annotated[np.ndarray, "gates, K, K"]
    n: ArrayE  # the weight of the running variance; all equal if the variance is shared


class Rule(NamedTuple):
    """How to learn; the numbers are `Options` of `moe_np.mixtures.hme_online`."""

    learn: int
    variance: int
    forgetting: float
    shrink: float
    shrink_every: int
    clip: float
    weighted: bool
    lr: float  # learning rate of the gradient


@njit(**INLINE)
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


# --- posteriors of one case -----------------------------------------------------------------------


@njit(**PART)
def _infer(
    x, y,
    branches, V, W, var,
    xi, log_g, h, joint, evidence,  # one number per node
    residual, distance,
):  # fmt: skip
    """Posteriors of one case: fills all arrays of the last two groups; returns −log p(y | x)."""
    E, C, _ = W.shape
    first = 0  # node of this level
    P = 1  # gating networks on this level
    for b in branches:  # the gating networks, level after level
        for p in range(P):
            base = first + p * b
            top = -np.inf
            for k in range(base, base + b):
                xi[k] = _dot(V[k], x)
                top = max(top, xi[k])
            total = 0.0
            for k in range(base, base + b):
                total += math.exp(xi[k] - top)
            for k in range(base, base + b):
                log_g[k] = xi[k] - top - math.log(total)
        first += P * b
        P *= b
    for e in range(E):  # the experts
        distance[e] = 0.0
        for c in range(C):
            residual[e, c] = y[c] - _dot(W[e, c], x)
            distance[e] += residual[e, c] * residual[e, c]
        evidence[first - E + e] = -0.5 * (distance[e] / var[e] + C * math.log(2 * math.pi * var[e]))
    root = 0.0
    last = first
    for level in range(len(branches) - 1, -1, -1):  # h, from the leaves upwards
        b = branches[level]
        last -= P
        parent = last - P // b  # first node on the level above
        for p in range(P // b):
            base = last + p * b
            top = -np.inf
            for k in range(base, base + b):
                h[k] = log_g[k] + evidence[k]
                top = max(top, h[k])
            total = 0.0
            for k in range(base, base + b):
                total += math.exp(h[k] - top)
            root = top + math.log(total)
            for k in range(base, base + b):
                h[k] = math.exp(h[k] - root)
            if level:
                evidence[parent + p] = root
        P //= b
    first = 0
    P = 1
    for b in branches:  # joint, from the root downwards
        for k in range(P * b):
            up = 1.0 if P == 1 else joint[first - P + k // b]
            joint[first + k] = up * h[first + k]
        first += P * b
        P *= b
    return -root


# --- learning from one case -----------------------------------------------------------------------


@njit(**INNER)
def _rls(R, x, Rx, h, forgetting, weighted):
    """R becomes that after the case, and Rx the new R x."""
    K = x.size
    Rx[:] = 0.0
    for j in range(K):
        for i in range(K):
            Rx[i] += x[j] * R[j, i]
    weight = h if weighted else 1.0
    size = _dot(Rx, x)
    gain = weight / (forgetting + weight * size)
    for j in range(K):
        part = gain * Rx[j]
        for i in range(K):
            R[j, i] = (R[j, i] - part * Rx[i]) / forgetting
    scale = (1 - gain * size) / forgetting
    for i in range(K):
        Rx[i] *= scale


@njit(**INNER)
def _gate_targets(h, target, clip):
    """log h minus its mean over the branches, within ±clip/2."""
    mean = 0.0
    for k in range(h.size):
        target[k] = math.log(max(h[k], 2.2250738585072014e-308))
        mean += target[k]
    mean /= h.size
    for k in range(h.size):
        target[k] = min(max(target[k] - mean, -clip / 2), clip / 2)


@njit(**INLINE)
def _learn_gates(
    x, branches, V, S,
    rule, forgetting,
    xi, log_g, h, joint,
    Rx, target,
):  # fmt: skip
    """The gating networks of all levels. Scratch: Rx (K,), target (nodes,)."""
    K = x.size
    first = 0
    P = 1
    gate = 0
    for b in branches:
        for p in range(P):
            base = first + p * b
            up = 1.0 if P == 1 else joint[first - P + p]
            if rule.learn == RLS:
                _rls(S[gate], x, Rx, up, forgetting, rule.weighted)
                _gate_targets(h[base : base + b], target[:b], rule.clip)
                for k in range(b):
                    step = up * (target[k] - xi[base + k])
                    for j in range(K):
                        V[base + k, j] += step * Rx[j]
            else:
                for k in range(base, base + b):
                    step = rule.lr * up * (h[k] - math.exp(log_g[k]))
                    for j in range(K):
                        V[k, j] += step * x[j]
            gate += 1
        first += P * b
        P *= b


@njit(**INLINE)
def _learn_experts(
    x, W, var, R, n,
    rule, forgetting,
    joint, residual, distance,
    Rx,
):  # fmt: skip
    """The experts and their variances. Scratch: Rx (K,)."""
    E, C, K = W.shape
    leaf = len(joint) - E
    square = 0.0
    for e in range(E):
        resp = joint[leaf + e]
        square += resp * distance[e] / C
        if rule.learn == RLS:
            _rls(R[e], x, Rx, resp, forgetting, rule.weighted)
            for c in range(C):
                step = resp * residual[e, c]
                for j in range(K):
                    W[e, c, j] += step * Rx[j]
        else:
            for c in range(C):
                step = rule.lr * resp * residual[e, c] / var[e]
                for j in range(K):
                    W[e, c, j] += step * x[j]
        if rule.variance == VARIANCE_PER_EXPERT:
            n[e] = forgetting * n[e] + resp
            var[e] += resp * (distance[e] / C - var[e]) / n[e]
    if rule.variance == VARIANCE_SHARED:
        n[:] = forgetting * n[0] + 1
        var[:] = var[0] + (square - var[0]) / n[0]


# --- passes ---------------------------------------------------------------------------------------


def hme_epoch(
    x: Annotated[np.ndarray, "N, K"],
    y: ArrayNC,
    order: ArrayN,
    tree: Tree,
    memory: Memory,
    cases: int,
    rule: Rule,
) -> float:
    """One pass over the cases in `order`; changes tree and memory in place.

    x with the constant 1 last; cases is the number of cases seen before. Returns Σ over cases of
    the loss before each.
    """
    return _hme_epoch(x, y, order, *tree, *memory, cases, rule)


@njit(**ENTRY)
def _hme_epoch(
    x, y, order,
    branches, V, W, var,
    R, S, n,
    cases, rule,
):  # fmt: skip
    """`hme_epoch` with tree and memory unpacked, which takes less time to compile."""
    E, C, K = W.shape
    nodes = len(V)
    xi = np.empty(nodes)  # totals of the gating networks
    log_g = np.empty(nodes)
    h = np.empty(nodes)  # posterior of a branch, given its parent
    joint = np.empty(nodes)  # posterior of the path from the root
    evidence = np.empty(nodes)  # log p(y | node)
    residual = np.empty((E, C))
    distance = np.empty(E)  # Σ_c residual²
    Rx = np.empty(K)
    target = np.empty(nodes)
    total = 0.0
    for i in order:
        row = x[i]
        forgetting = 1 - (1 - rule.forgetting) * rule.shrink ** (cases // rule.shrink_every)
        total += _infer(
            row, y[i], branches, V, W, var, xi, log_g, h, joint, evidence, residual, distance
        )
        _learn_gates(row, branches, V, S, rule, forgetting, xi, log_g, h, joint, Rx, target)
        _learn_experts(row, W, var, R, n, rule, forgetting, joint, residual, distance, Rx)
        cases += 1
    return total


@njit(**ENTRY)
def net_epoch(x, y, order, W, V, lr):
    """One pass of backpropagation case by case, in place, with learning rate lr.

    x (N, K); W (K, H) into logistic hidden units, V (C, H + 1) out of them with the constant last;
    linear outputs, error ½ ‖y − out‖²: `net_forward` of `moe_np.mixtures.jacobs1991`. Returns Σ
    over cases of the error before each.
    """
    K, H = W.shape
    C = len(V)
    hidden = np.ones(H + 1)
    dhidden = np.empty(H)
    error = np.empty(C)
    total = 0.0
    for i in order:
        hidden[:H] = 0.0
        for j in range(K):
            for k in range(H):
                hidden[k] += x[i, j] * W[j, k]
        for k in range(H):
            hidden[k] = 1 / (1 + math.exp(-hidden[k]))
        dhidden[:] = 0.0
        for c in range(C):
            error[c] = y[i, c] - _dot(V[c], hidden)
            total += 0.5 * error[c] * error[c]
            for k in range(H):
                dhidden[k] += error[c] * V[c, k]
            for k in range(H + 1):
                V[c, k] += lr * error[c] * hidden[k]
        for k in range(H):
            dhidden[k] *= lr * hidden[k] * (1 - hidden[k])
        for j in range(K):
            for k in range(H):
                W[j, k] += x[i, j] * dhidden[k]
    return total
