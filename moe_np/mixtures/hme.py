"""Hierarchical mixtures of experts: a tree of gates with an expert at every leaf; probabilities,
posteriors, gradient.

M. I. Jordan and R. A. Jacobs (1994), Hierarchical mixtures of experts and the EM algorithm, Neural
Computation 6:181-214; the gradient is theirs of 1992. EM for a tree is in hme_em.py, learning case
by case in hme_online.py.

    paper      here        shape        meaning (two levels as in the paper; here there may be any number)
    x          x           (N, D)       inputs; the paper's constant input is b and c here
    y          y           (N, C)       wanted outputs; or labels (N,), whole numbers below C
    v_i        U1[:, 0, i] (D,)         top gate: its logits are x U1 + c1, the paper's ξ_i
    v_ij       U2[:, i, j] (D,)         gate below branch i: logits ζ_ij
    g_i        g[0]        (N, 1, b1)   softmax of the top gate
    g_j|i      g[1]        (N, b1, b2)  softmax of the gate below i
    U_ij       W, b        (E, D, C)    expert at leaf (i, j), number i·b2 + j of the E = b1·b2 leaves
    μ_ij       mu          (N, E, C)    its output x W + b; for labels class probabilities, a softmax of that
    P_ij       log_density (N, E)       log density of y under the expert
    h_i        h[0]        (N, 1, b1)   posterior of branch i, y being known
    h_j|i      h[1]        (N, b1, b2)  posterior of j below i
    h_ij       resp        (N, E)       posterior of a leaf: h_i h_j|i

Level l of the tree is two arrays, U{l} (D, P, b) and c{l} (P, b): P gates with b branches each, and
P·b gates (or experts) on the next level. So every level is one product and one softmax, whatever
the depth; the shapes say what tree it is. A branch that a tree does not have (an uneven tree) has c
= −inf: its gate is exactly 0.

Gaussian experts have "var" in their parameters: () one for all, (E,) one an expert, (E, C, C) a
covariance matrix an expert. Without it the experts are categorical and y is labels.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.numerics import log_softmax, logsumexp, softmax
from moe_np.base.optim import gradient_descent

# --- Trees ----------------------------------------------------------------------------------------


def depth(params):
    """The number of levels of gates."""
    return sum(name.startswith("U") for name in params)


def branching(params):
    """(b1, b2, ...): the number of branches of a gate on each level."""
    return tuple(params[f"c{level}"].shape[1] for level in range(1, depth(params) + 1))


def init(rng, tree, D, C, *, spread=0.05, var=1.0, like="shared"):
    """Weights and biases uniform in ±spread, of gates and experts: siblings that start equal would
    stay equal.

    For inputs of the size of 1: gates that start saturated stay so, since posteriors then equal
    what they believe.

    tree    branches of a gate on each level: (2, 2, 2, 2) is a binary tree of 16 experts, (16,) a plain mixture
    var     the variance that Gaussian experts start with
    like    "shared" one variance, "expert" one an expert, "full" a covariance matrix an expert; None: categorical
    """
    checks.generator("rng", rng)
    checks.choice("like", like, ("shared", "expert", "full", None))
    spread, var = checks.number("spread", spread, minimum=0), checks.number("var", var, above=0)
    D, C = checks.integer("D", D), checks.integer("C", C)
    if not isinstance(tree, (tuple, list)) or not tree:
        raise checks.InputError(
            f"tree: wanted numbers of branches, one a level, such as (2, 2); got {tree!r}"
        )
    P, params = 1, {}
    for level, b in enumerate(tree, start=1):
        b = checks.integer(f"tree[{level - 1}]", b)
        params[f"U{level}"] = rng.uniform(-spread, spread, (D, P, b))
        params[f"c{level}"] = rng.uniform(-spread, spread, (P, b))
        P *= b
    params["W"] = rng.uniform(-spread, spread, (P, D, C))
    params["b"] = rng.uniform(-spread, spread, (P, C))
    if like is not None:
        kinds = {
            "shared": np.array(var),
            "expert": np.full(P, var),
            "full": np.tile(var * np.eye(C), (P, 1, 1)),
        }
        params["var"] = kinds[like]
    return params


def subtree(params, branch):
    """What hangs on one branch of the top gate: the parameters of a tree one level lower (or of one
    expert).
    """
    b = params["c1"].shape[1]
    out = {}
    for name, value in params.items():
        if name[0] in "Uc":
            level, axis = int(name[1:]), 1 if name[0] == "U" else 0
            if level > 1:
                out[f"{name[0]}{level - 1}"] = np.split(value, b, axis)[branch]
        else:
            out[name] = np.split(value, b)[branch] if value.ndim else value
    return out


def join(U, c, parts):
    """A gate U (D, b), c (b,) on top of b trees of the same shape (of single experts: without U1):
    the parameters.
    """
    out = {"U1": U[:, None, :], "c1": c[None, :]}
    for name, value in parts[0].items():
        values = [part[name] for part in parts]
        if name[0] in "Uc":
            axis = 1 if name[0] == "U" else 0
            out[f"{name[0]}{int(name[1:]) + 1}"] = np.concatenate(values, axis)
        else:
            out[name] = np.concatenate(values) if value.ndim else value
    return out


# --- Gates and experts ----------------------------------------------------------------------------


def affine(x, W, b):
    """x W + b for W (D, ...), b (...): (N, ...). In memory the cases run fastest, which the sums
    over branches like.
    """
    totals = (W.reshape(len(W), -1).T @ x.T).reshape(*W.shape[1:], len(x))
    return np.moveaxis(totals, -1, 0) + b


def affine_backward(dtotals, x, W):
    """dtotals (N, ...) -> dx (N, D), dW (D, ...), db (...)."""
    flat = np.moveaxis(dtotals, 0, -1).reshape(-1, len(x))
    dW = (flat @ x).T.reshape(W.shape)
    return (W.reshape(len(W), -1) @ flat).T, dW, dtotals.sum(axis=0)


def gates(params, x):
    """log g_j|i of every level, [(N, P, b)]."""
    levels = range(1, depth(params) + 1)
    return [log_softmax(affine(x, params[f"U{level}"], params[f"c{level}"])) for level in levels]


def leaves(log_levels):
    """From conditional log probabilities [(N, P, b)] down the tree to those of its leaves, (N, E):
    log Π g.
    """
    total = log_levels[0]
    for log_level in log_levels[1:]:
        total = total.reshape(len(total), -1, 1) + log_level
    return total.reshape(len(total), -1)


def experts(params, x):
    """The totals x W + b of all experts on all cases, (N, E, C)."""
    return affine(x, params["W"].transpose(1, 0, 2), params["b"])


def answers(params, totals):
    """mu (N, E, C) from the totals: the means themselves, or class probabilities."""
    return totals if "var" in params else softmax(totals)


# --- The likelihood -------------------------------------------------------------------------------


def log_density(params, totals, y):
    """log P_ij (N, E) from the totals: of a Gaussian about mu, or of the label's class.

    Of the class, that is, and not of "label == number of the expert" (errata 15).
    """
    if "var" not in params:
        return log_softmax(totals)[np.arange(len(y)), :, y]
    C, var, residual = totals.shape[2], params["var"], residuals(y, totals)
    if var.ndim < 2:
        return -0.5 * ((residual * residual).sum(axis=2) / var + C * np.log(2 * math.pi * var))
    distance = (residual * whitened(residual, var)).sum(axis=2)
    return -0.5 * (distance + np.linalg.slogdet(var)[1] + C * math.log(2 * math.pi))


def residuals(y, mu):
    """y − μ of every expert, (N, E, C). With y laid out as mu is, cases fastest, this takes a tenth
    of the time.
    """
    return np.asfortranarray(y)[:, None, :] - mu


def whitened(residual, var):
    """Σ⁻¹ r of every expert: residual (N, E, C), var (E, C, C) -> (N, E, C)."""
    return np.einsum("ecd,ned->nec", np.linalg.inv(var), residual)


class Posterior(NamedTuple):
    loss: np.ndarray  # (N,) minus the log likelihood of each case
    evidence: list  # [(N, P)] log likelihood of the case under each gate and what hangs below it
    h: list  # [(N, P, b)] posterior of each branch, given that its gate is on the way
    joint: list  # [(N, P, b)] the same not given that: products down the tree
    resp: np.ndarray  # (N, E) of each leaf


def posterior(log_g, log_p):
    """Bayes' rule up and down the tree: log_g [(N, P, b)], log_p (N, E) -> Posterior. All in
    logarithms.

    Up: the evidence of a node is Σ_j g_j|i · evidence of j, and h_j|i is the share of j in it.
    Down: the joint posterior of a node is its parent's times its own.
    """
    h, evidence, below = [], [], log_p
    for log_level in reversed(log_g):
        share = log_level + below.reshape(log_level.shape)
        below = logsumexp(share)
        h.insert(0, np.exp(share - below[:, :, None]))
        evidence.insert(0, below)
    joint, above = [], 1.0
    for level in h:
        joint.append(above * level)
        above = joint[-1].reshape(len(level), -1, 1)
    return Posterior(-below[:, 0], evidence, h, joint, above[:, :, 0])


class Cache(NamedTuple):
    params: dict
    x: np.ndarray
    y: np.ndarray
    g: list  # [(N, P, b)]
    mu: np.ndarray  # (N, E, C)
    log_density: np.ndarray  # (N, E)
    post: Posterior


def forward(params, x, y):
    """−log Σ_i g_i Σ_j g_j|i P_ij, minus the log likelihood of each case. Returns (loss (N,),
    cache).
    """
    log_g, totals = gates(params, x), experts(params, x)
    log_p = log_density(params, totals, y)
    post = posterior(log_g, log_p)
    return post.loss, Cache(
        params, x, y, [np.exp(level) for level in log_g], answers(params, totals), log_p, post
    )


def backward(dloss, cache):
    """(dx, grads). Every node learns from its share of the case (with unit variance)

        ∂/∂U_ij = −h_ij (y − μ_ij) xᵀ     ∂/∂v_i = −(h_i − g_i) x     ∂/∂v_ij = −h_i (h_j|i − g_j|i) x

    that is, h of all gates above, times what the gate believed against what came out. The gradient
    of "var" is there as well; whoever descends along it has to keep the variances positive.
    """
    params, x, post = cache.params, cache.x, cache.post
    dlog_p = -dloss[:, None] * post.resp
    dmu, grads = _density_backward(dlog_p, cache)
    dx, dW, grads["b"] = affine_backward(dmu, x, params["W"].transpose(1, 0, 2))
    grads["W"] = dW.transpose(1, 0, 2)
    above = np.ones((len(x), 1, 1))
    for level, (g, h) in enumerate(zip(cache.g, post.h, strict=True), start=1):
        dlogits = -dloss[:, None, None] * above * (h - g)
        dx_level, grads[f"U{level}"], grads[f"c{level}"] = affine_backward(
            dlogits, x, params[f"U{level}"]
        )
        dx = dx + dx_level
        above = post.joint[level - 1].reshape(len(x), -1, 1)
    return dx, {name: grads[name] for name in params}


def _density_backward(dlog_p, cache):
    """From dlog_p (N, E) to the experts' totals x W + b, (N, E, C), and the gradient of "var" if
    there is one.
    """
    params, mu, y = cache.params, cache.mu, cache.y
    if "var" not in params:
        onehot = np.arange(mu.shape[2]) == y[:, None, None]
        return dlog_p[:, :, None] * (onehot - mu), {}
    var, C, residual = params["var"], mu.shape[2], residuals(y, mu)
    if var.ndim == 3:
        pull, inverse = whitened(residual, var), np.linalg.inv(var)
        dvar = (
            0.5 * np.einsum("ne,nec,ned->ecd", dlog_p, pull, pull)
            - 0.5 * dlog_p.sum(axis=0)[:, None, None] * inverse
        )
        return dlog_p[:, :, None] * pull, {"var": dvar}
    own = np.broadcast_to(var, mu.shape[1])
    distance = (residual * residual).sum(axis=2)
    dvar = 0.5 * (dlog_p * (distance / own**2 - C / own)).sum(axis=0)
    return dlog_p[:, :, None] * residual / own[:, None], {"var": dvar if var.ndim else dvar.sum()}


# --- Using and training ---------------------------------------------------------------------------


def predict(params, x):
    """Σ_ij g_i g_j|i μ_ij, (N, C): the mean answer, or the probabilities of the classes."""
    x = checks.array("x", x, ("N", params["W"].shape[1]))
    weight = np.exp(leaves(gates(params, x)))
    return np.einsum("ne,nec->nc", weight, answers(params, experts(params, x)))


def log_likelihood(params, x, y):
    """Σ over cases of log P(y | x), a float."""
    params, x, y = checked(params, x, y)
    return -float(forward(params, x, y)[0].sum())


class Step(NamedTuple):
    """What training looks like after `number` updates, before the next one."""

    number: int
    loss: float  # minus the log likelihood, summed over cases
    params: dict
    cache: NamedTuple


def train(params, x, y, *, lr, hold=("var",)):
    """Ascend the log likelihood, one update an epoch over all cases (the 1992 algorithm). Yields a
    Step without end.

    hold    names of parameters that stay as they are: the variances, as in the paper
    """
    params, x, y = checked(params, x, y)
    lr = checks.number("lr", lr, above=0)
    for number in itertools.count():
        loss, cache = forward(params, x, y)
        yield Step(number, float(loss.sum()), params, cache)
        grads = backward(np.ones_like(loss), cache)[1]
        params = {
            **gradient_descent(params, grads, lr=lr),
            **{name: params[name] for name in hold if name in params},
        }


def checked(params, x, y=None):
    """The public door: shapes that fit together, finite numbers, variances above 0, labels below C.

    Returns params, x, y as arrays.
    """
    x = checks.array("x", x, ("N", "D"))
    N, D = x.shape
    if N == 0:
        raise checks.InputError(f"x: wanted at least one case, got shape (0, {D})")
    if not isinstance(params, dict):
        raise checks.InputError(f"params: wanted a dict of arrays, got {type(params).__name__}")
    shapes, P = {}, 1
    for level in range(1, max(depth(params), 1) + 1):
        if f"c{level}" not in params or f"U{level}" not in params:
            raise checks.InputError(
                f"params: wanted U{level} and c{level}, got {', '.join(params)}"
            )
        c = checks.array(f"params['c{level}']", params[f"c{level}"], (P, "b"), finite=False)
        if (
            not c.size
            or np.isnan(c).any()
            or not (np.isfinite(c).any(axis=1) & (c < np.inf).all(axis=1)).all()
        ):
            raise checks.InputError(
                f"params['c{level}']: wanted numbers, or −inf for branches that are not there"
            )
        shapes |= {f"U{level}": (D, P, c.shape[1]), f"c{level}": c.shape}
        P *= c.shape[1]
    C = checks.array("params['b']", params.get("b"), (P, "C")).shape[1]
    shapes |= {"W": (P, D, C), "b": (P, C)}
    if "var" in params:
        ndim = np.ndim(params["var"])
        shapes["var"] = ((), (P,), None, (P, C, C))[min(ndim, 3)] if ndim != 2 else (P, C, C)
    if set(params) != set(shapes):
        raise checks.InputError(
            f"params: wanted the keys {', '.join(shapes)}; got {', '.join(map(str, params))}"
        )
    params = {
        k: checks.array(f"params[{k!r}]", params[k], s, finite=k[0] != "c")
        for k, s in shapes.items()
    }
    var = params.get("var", np.ones(1))
    if not (np.linalg.eigvalsh(var) if var.ndim == 3 else var).min() > 0:
        raise checks.InputError(
            "params['var']: wanted variances above 0, or positive definite matrices"
        )
    if y is None:
        return params, x
    if "var" in params:
        return params, x, checks.array("y", y, (N, C))
    y = checks.array("y", y, (N,), kind="i")
    if not ((y >= 0) & (y < C)).all():
        raise checks.InputError(f"y: wanted labels from 0 to {C - 1}, got {y.min()} to {y.max()}")
    return params, x, y
