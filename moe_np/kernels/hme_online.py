"""On-line learning compiled: the loops of `moe_np.mixtures.hme_online`, and of one-hidden-layer
nets, case by case.

The same equations as there in another layout. All nodes of a tree, level after level, are rows of
one array V (nodes, K), a gate's branches side by side; `tree` has the number of branches of a gate
on each level, the constant input is the last of K. Inner loops run along rows: that makes vector
instructions of them without changing the order of any sum.
"""

import math

import numpy as np
from numba import njit


@njit(error_model="numpy", nogil=True)
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@njit(error_model="numpy", nogil=True)
def _infer(x, y, tree, V, W, var, xi, log_g, h, joint, evidence, residual, distance):
    """Posteriors of one case: fills xi, log_g, h, joint (nodes,), residual (E, C), distance (E,).
    Returns the loss.
    """
    E, C, _ = W.shape
    first, P = 0, 1
    for b in tree:
        for p in range(P):
            base, top = first + p * b, -np.inf
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
    for e in range(E):
        distance[e] = 0.0
        for c in range(C):
            residual[e, c] = y[c] - _dot(W[e, c], x)
            distance[e] += residual[e, c] * residual[e, c]
        evidence[first - E + e] = -0.5 * (distance[e] / var[e] + C * math.log(2 * math.pi * var[e]))
    root, last = 0.0, first
    for level in range(len(tree) - 1, -1, -1):
        b = tree[level]
        last -= P
        above = last - P // b  # number of the first node on the level above
        for p in range(P // b):
            base, top = last + p * b, -np.inf
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
                evidence[above + p] = root
        P //= b
    first, P = 0, 1
    for b in tree:
        for k in range(P * b):
            up = 1.0 if P == 1 else joint[first - P + k // b]
            joint[first + k] = up * h[first + k]
        first += P * b
        P *= b
    return -root


@njit(error_model="numpy", nogil=True)
def _rls(R, x, Rx, h, forget, weighted):
    """R after the case, and in Rx the new R x."""
    K = x.size
    Rx[:] = 0.0
    for j in range(K):
        for i in range(K):
            Rx[i] += x[j] * R[j, i]
    down = h if weighted else 1.0
    size = _dot(Rx, x)
    gain = down / (forget + down * size)
    for j in range(K):
        part = gain * Rx[j]
        for i in range(K):
            R[j, i] = (R[j, i] - part * Rx[i]) / forget
    scale = (1 - gain * size) / forget
    for i in range(K):
        Rx[i] *= scale


@njit(error_model="numpy", nogil=True)
def _gate_targets(h, target, clip):
    """log h about its mean over the branches, within ±clip/2."""
    mean = 0.0
    for k in range(h.size):
        target[k] = math.log(max(h[k], 2.2250738585072014e-308))
        mean += target[k]
    mean /= h.size
    for k in range(h.size):
        target[k] = min(max(target[k] - mean, -clip / 2), clip / 2)


@njit(cache=True, error_model="numpy", nogil=True)
def hme_epoch(
    x,
    y,
    order,
    tree,
    V,
    W,
    var,
    R,
    S,
    n,
    cases,
    learn,
    forget0,
    nearer,
    every,
    clip,
    weighted,
    hold,
    lr,
):
    """One pass over the cases in `order`, in place; var and n (E,), all equal if `hold` is 2 (one
    for all experts).

    learn   0 recursive least squares, 1 the gradient
    hold    0 a variance an expert, 1 none is learned, 2 one for all
    Returns Σ over cases of the loss before each.
    """
    E, C, K = W.shape
    nodes = len(V)
    xi, log_g, h, joint, evidence = np.empty((5, nodes))
    residual, distance, Rx, target = np.empty((E, C)), np.empty(E), np.empty(K), np.empty(nodes)
    total = 0.0
    for i in order:
        lam = 1 - (1 - forget0) * nearer ** (cases // every)
        total += _infer(
            x[i], y[i], tree, V, W, var, xi, log_g, h, joint, evidence, residual, distance
        )
        first, P, gate = 0, 1, 0
        for b in tree:
            for p in range(P):
                base = first + p * b
                up = 1.0 if P == 1 else joint[first - P + p]
                if learn == 0:
                    _rls(S[gate], x[i], Rx, up, lam, weighted)
                    _gate_targets(h[base : base + b], target[:b], clip)
                for k in range(b):
                    if learn == 0:
                        step = up * (target[k] - xi[base + k])
                        for j in range(K):
                            V[base + k, j] += step * Rx[j]
                    else:
                        step = lr * up * (h[base + k] - math.exp(log_g[base + k]))
                        for j in range(K):
                            V[base + k, j] += step * x[i, j]
                gate += 1
            first += P * b
            P *= b
        square = 0.0
        for e in range(E):
            resp = joint[nodes - E + e]
            square += resp * distance[e] / C
            if learn == 0:
                _rls(R[e], x[i], Rx, resp, lam, weighted)
                for c in range(C):
                    step = resp * residual[e, c]
                    for j in range(K):
                        W[e, c, j] += step * Rx[j]
            else:
                for c in range(C):
                    step = lr * resp * residual[e, c] / var[e]
                    for j in range(K):
                        W[e, c, j] += step * x[i, j]
            if hold == 0:
                n[e] = lam * n[e] + resp
                var[e] += resp * (distance[e] / C - var[e]) / n[e]
        if hold == 2:
            n[:] = lam * n[0] + 1
            var[:] = var[0] + (square - var[0]) / n[0]
        cases += 1
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def net_epoch(x, y, order, W, V, lr):
    """One pass of back-propagation case by case, in place: x (N, K) and hidden units with a
    constant 1 last.

    W (K, H) into logistic hidden units, V (C, H + 1) out of them, linear outputs, error ½ ‖y −
    out‖²: `net_forward` of `moe_np.mixtures.jacobs1991`. Returns Σ over cases of the error before
    each.
    """
    K, H = W.shape
    C = len(V)
    hidden, dhidden, error = np.ones(H + 1), np.empty(H), np.empty(C)
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
