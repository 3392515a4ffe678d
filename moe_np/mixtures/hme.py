"""Hierarchical mixture of experts (HME): a tree of gating networks with an expert at every leaf.

M. I. Jordan and R. A. Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural
Computation 6:181-214; the gradient is that of their paper of 1992. This file has likelihood,
posteriors and gradient; hme_em.py has EM, hme_online.py learning case by case, hme_tree.py the
shapes.

    paper  here         shape        meaning (two levels, as in the paper; any number here)
    x      x            (N, D)       inputs; the paper's constant input is the biases b and c
    y      y            (N, C)       targets; or class labels (N,), whole numbers below C
    v_i    U1[:, 0, i]  (D,)         top gate: its logits are x U1 + c1, the paper's ξ_i
    v_ij   U2[:, i, j]  (D,)         gate below branch i: logits ζ_ij
    g_i    g[0]         (N, 1, b1)   softmax of the top gate: its mixture weights
    g_j|i  g[1]         (N, b1, b2)  softmax of the gate below branch i
    U_ij   W, b         (E, D, C)    expert at leaf (i, j): number i·b2 + j of the E = b1·b2 leaves
    μ_ij   mu           (N, E, C)    its output x W + b; for labels the softmax of that
    P_ij   log_density  (N, E)       P(y | x, expert ij) (here its logarithm)
    h_i    h[0]         (N, 1, b1)   posterior of branch i, given y
    h_j|i  h[1]         (N, b1, b2)  posterior of branch j below i
    h_ij   resp         (N, E)       responsibility of a leaf: h_i h_j|i

All gates of a level are one product and one softmax, whatever the depth.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.base.optim import gradient_descent
from moe_np.base.types import Array, ArrayN, ArrayNC, ArrayND, ArrayNE, ArrayNEC, Params
from moe_np.mixtures.hme_tree import branching, check, depth, init, join, subtree  # noqa: F401

Levels = list[Annotated[np.ndarray, "N, P, b"]]  # one array per level of the tree

# --- Gates and experts ----------------------------------------------------------------------------


def affine(x: ArrayND, W: Array, b: Array) -> Array:
    """x W + b for W (D, ...) and b (...): (N, ...), with the cases contiguous in memory."""
    product = (W.reshape(len(W), -1).T @ x.T).reshape(*W.shape[1:], len(x))
    return np.moveaxis(product, -1, 0) + b


def affine_backward(dout: Array, x: ArrayND, W: Array) -> tuple[ArrayND, Array, Array]:
    """dout (N, ...) -> dx (N, D), dW (D, ...), db (...)."""
    flat = np.moveaxis(dout, 0, -1).reshape(-1, len(x))
    dW = (flat @ x).T.reshape(W.shape)
    return (W.reshape(len(W), -1) @ flat).T, dW, dout.sum(axis=0)


def log_gates(params: Params, x: ArrayND) -> Levels:
    """log g_j|i of the gating networks of every level, [(N, P, b)]."""
    levels = range(1, depth(params) + 1)
    return [log_softmax(affine(x, params[f"U{level}"], params[f"c{level}"])) for level in levels]


def leaf_log_probs(log_levels: Levels) -> ArrayNE:
    """log Π g along the path to each leaf, from the conditional log probabilities of the levels."""
    total = log_levels[0]
    for log_level in log_levels[1:]:
        total = total.reshape(len(total), -1, 1) + log_level
    return total.reshape(len(total), -1)


def linear_outputs(params: Params, x: ArrayND) -> ArrayNEC:
    """x W + b of all experts: the means of Gaussian experts, the logits of categorical experts."""
    return affine(x, params["W"].transpose(1, 0, 2), params["b"])


def outputs(params: Params, linear: ArrayNEC) -> ArrayNEC:
    """mu: the means, or the class probabilities, from the linear outputs."""
    return linear if "var" in params else softmax(linear)


# --- The density of an expert ---------------------------------------------------------------------


def log_density(params: Params, linear: ArrayNEC, y: ArrayNC | ArrayN) -> ArrayNE:
    """log P_ij from the linear outputs: of a Gaussian with mean mu, or of the class y.

    The class is named by y; y is not the number of an expert (errata 15).
    """
    if "var" not in params:
        return log_softmax(linear)[np.arange(len(y)), :, y]
    C = linear.shape[2]
    var = params["var"]
    residual = _residuals(y, linear)
    if var.ndim < 2:
        return -0.5 * ((residual * residual).sum(axis=2) / var + C * np.log(2 * math.pi * var))
    distance = (residual * _whitened(residual, var)).sum(axis=2)
    return -0.5 * (distance + np.linalg.slogdet(var)[1] + C * math.log(2 * math.pi))


def log_density_backward(
    dlog_p: ArrayNE, params: Params, mu: ArrayNEC, y: ArrayNC | ArrayN
) -> tuple[ArrayNEC, Params]:
    """(gradient with respect to the linear outputs, {"var"}, or {} for categorical experts).

    y is not differentiated.
    """
    if "var" not in params:
        onehot = np.arange(mu.shape[2]) == y[:, None, None]
        return dlog_p[:, :, None] * (onehot - mu), {}
    C = mu.shape[2]
    var = params["var"]
    residual = _residuals(y, mu)
    if var.ndim == 3:
        inverse = np.linalg.inv(var)
        pull = _whitened(residual, var)
        scatter = np.einsum("ne,nec,ned->ecd", dlog_p, pull, pull)
        dvar = 0.5 * scatter - 0.5 * dlog_p.sum(axis=0)[:, None, None] * inverse
        return dlog_p[:, :, None] * pull, {"var": dvar}
    var_e = np.broadcast_to(var, mu.shape[1])
    distance = (residual * residual).sum(axis=2)
    dvar = 0.5 * (dlog_p * (distance / var_e**2 - C / var_e)).sum(axis=0)
    dlinear = dlog_p[:, :, None] * residual / var_e[:, None]
    return dlinear, {"var": dvar if var.ndim else dvar.sum()}


def _residuals(y, mu):
    """y − μ of every expert, (N, E, C); fastest with y laid out as mu is, the cases contiguous."""
    return np.asfortranarray(y)[:, None, :] - mu


def _whitened(residual, var):
    """Σ⁻¹ r of every expert: residual (N, E, C), var (E, C, C) -> (N, E, C)."""
    return np.einsum("ecd,ned->nec", np.linalg.inv(var), residual)


# --- The likelihood of the tree -------------------------------------------------------------------


class Posterior(NamedTuple):
    """The E step: posteriors of all branches and leaves, given y."""

    loss: ArrayN  # minus the log likelihood of each case
    evidence: list[Annotated[np.ndarray, "N, P"]]  # log likelihood of the case under each gate
    h: Levels  # posterior of each branch, given that its gate is on the path
    joint: Levels  # posterior of each branch: the product of h down the tree
    resp: ArrayNE  # responsibility of each leaf


def posterior(log_g: Levels, log_p: ArrayNE) -> Posterior:
    """Bayes' rule up and down the tree, from log g of all gates and log P of all experts.

    Up: the evidence of a gate is Σ_j g_j|i · evidence of branch j, and h_j|i is the part of branch
    j in that sum. Down: the joint posterior of a branch is h_j|i times that of its gate.
    """
    h = []
    evidence = []
    below = log_p
    for log_level in reversed(log_g):
        log_joint = log_level + below.reshape(log_level.shape)
        below = logsumexp(log_joint)
        h.insert(0, np.exp(log_joint - below[:, :, None]))  # h_j|i
        evidence.insert(0, below)
    joint = []
    parent = np.ones((1, 1, 1), log_p.dtype)
    for level in h:
        joint.append(parent * level)  # h_i h_j|i: at the leaves h_ij
        parent = joint[-1].reshape(len(level), -1, 1)
    return Posterior(-below[:, 0], evidence, h, joint, parent[:, :, 0])


class Cache(NamedTuple):
    params: Params
    x: ArrayND
    y: ArrayNC | ArrayN
    g: Levels
    mu: ArrayNEC
    log_density: ArrayNE
    post: Posterior


def forward(params: Params, x: ArrayND, y: ArrayNC | ArrayN) -> tuple[ArrayN, Cache]:
    """−log Σ_i g_i Σ_j g_j|i P_ij, minus the log likelihood of each case: (loss (N,), cache)."""
    log_g = log_gates(params, x)
    linear = linear_outputs(params, x)
    log_p = log_density(params, linear, y)
    post = posterior(log_g, log_p)
    g = [np.exp(level) for level in log_g]
    return post.loss, Cache(params, x, y, g, outputs(params, linear), log_p, post)


def backward(dloss: ArrayN, cache: Cache) -> tuple[ArrayND, Params]:
    """(dx, grads). Every gate and expert learns from its posterior of the case (unit variance here)

        ∂/∂U_ij = −h_ij (y − μ_ij) xᵀ    ∂/∂v_i = −(h_i − g_i) x    ∂/∂v_ij = −h_i (h_j|i − g_j|i) x

    that is, the joint posterior of the gate, times posterior minus prior of its branches. The
    gradient of "var" is included; gradient descent must keep the variances positive. y is not
    differentiated.
    """
    params = cache.params
    x = cache.x
    post = cache.post
    dlog_p = -dloss[:, None] * post.resp
    dlinear, grads = log_density_backward(dlog_p, params, cache.mu, cache.y)
    dx, dW, grads["b"] = affine_backward(dlinear, x, params["W"].transpose(1, 0, 2))
    grads["W"] = dW.transpose(1, 0, 2)
    parent = np.ones((len(x), 1, 1))
    for level, (g, h) in enumerate(zip(cache.g, post.h, strict=True), start=1):
        dlogits = -dloss[:, None, None] * parent * (h - g)
        dx_level, dU, dc = affine_backward(dlogits, x, params[f"U{level}"])
        grads |= {f"U{level}": dU, f"c{level}": dc}
        dx = dx + dx_level
        parent = post.joint[level - 1].reshape(len(x), -1, 1)
    return dx, {name: grads[name] for name in params}


def log_likelihood(params: Params, x: ArrayND, y: ArrayNC | ArrayN) -> float:
    """Σ over the cases of log P(y | x). Raises InputError for bad arguments."""
    params, x, y = check(params, x, y)
    return -float(forward(params, x, y)[0].sum())


def predict(params: Params, x: ArrayND) -> ArrayNC:
    """Σ_ij g_i g_j|i μ_ij: the mean of y, or the class probabilities."""
    W = checks.array("params['W']", checks.mapping("params", params, ("W",))["W"], ("E", "D", "C"))
    x = checks.array("x", x, ("N", W.shape[1]))
    if len(x):
        C = W.shape[2]
        y = np.zeros((len(x), C)) if "var" in params else np.zeros(len(x), int)
        params, x, _ = check(params, x, y)
    weight = np.exp(leaf_log_probs(log_gates(params, x)))
    return np.einsum("ne,nec->nc", weight, outputs(params, linear_outputs(params, x)))


# --- Training by the gradient ---------------------------------------------------------------------


class Iteration(NamedTuple):
    """The state of training a tree after `number` updates (EM: M steps; on-line: passes)."""

    number: int
    loss: float  # minus the log likelihood, summed over the cases
    params: Params
    cache: Cache  # of the forward pass at `params`


def train(
    params: Params,
    x: ArrayND,
    y: ArrayNC | ArrayN,
    *,
    lr: float,
    hold: tuple[str, ...] = ("var",),
) -> Iterator[Iteration]:
    """Gradient descent with learning rate `lr`, one update per epoch over all cases (1992).

    hold    names of parameters that keep their values: the variances, as in the paper

    Yields an `Iteration` before each update, without end. Raises InputError for bad arguments.
    """
    params, x, y = check(params, x, y)
    lr = checks.number("lr", lr, greater_than=0)
    for number in itertools.count():
        loss, cache = forward(params, x, y)
        yield Iteration(number, float(loss.sum()), params, cache)
        grads = backward(np.ones_like(loss), cache)[1]
        held = {name: params[name] for name in hold if name in params}
        params = {**gradient_descent(params, grads, lr=lr), **held}
