"""Soft mixture of experts: slots that are averages of tokens (Puigcerver et al. 2023, arXiv
2308.00951, section 2.1).

    paper                            here        shape            meaning
    n, p, m                          experts E, slots S of each, tokens N of a sequence; B sequences, mixed one by one
    X                                x           (B, N, D)
    Φ                                phi         (D, E, S)        one column a slot
    XΦ                               logits      (B, N, E·S)
    D = softmax over tokens          dispatch    (B, N, E·S)      columns sum to 1        (eq. 1)
    X̃ = DᵀX                          slots       (B, E·S, D)      what the experts see    (eq. 1)
    Ỹ                                out         (B, E·S, F)      what they answer
    C = softmax over slots           combine     (B, N, E·S)      rows sum to 1           (eq. 2)
    Y = CỸ                           y           (B, N, F)                                (eq. 2)
    scale                            scale       ()               of the normalised logits

No token is chosen or dropped, no expert is idle, and everything has a gradient. There is no list of
assignments either, so this is a file of its own and not a router. If params has a "scale", logits
are cosines times scale: x and the columns of Φ are divided by √(their sum of squares + 1e-6), for
the logits only (the paper's remedy for large D).

Not causal: a slot averages all tokens of the sequence, and every output mixes all slots (errata
13).

The experts are an `Expert` of moe_np.layers.experts, or anything with its two functions; they get
E·B·S rows sorted by expert:

    expert.forward(expert_params, rows (E·B·S, D), offsets (E + 1,))  -> (y (E·B·S, F), cache)
    expert.backward(dy, cache)                                        -> (drows, grads)
"""

from typing import NamedTuple

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError

EPS = 1e-6


class Cache(NamedTuple):
    x: np.ndarray  # (B, N, D)
    valid: np.ndarray  # (B, N, 1)
    x_unit: np.ndarray  # (B, N, D)  x, or x normalised
    x_norm: np.ndarray | None  # (B, N, 1)
    phi_unit: np.ndarray  # (D, E·S)  Φ, or Φ normalised
    phi_norm: np.ndarray | None  # (1, E·S)
    scale: np.ndarray | None
    logits: np.ndarray  # (B, N, E·S)
    dispatch: np.ndarray  # (B, N, E·S)
    combine: np.ndarray  # (B, N, E·S)
    out: np.ndarray  # (B, E·S, F)
    shape: tuple  # (E, S)
    expert: object
    expert_cache: object


def init(rng, d_model, n_experts, slots, *, normalise=True, dtype=np.float64):
    """{"phi": (D, E, S), "scale": () if normalised}: phi normal with standard deviation 1/√D, scale
    1.
    """
    D, E = checks.integer("d_model", d_model), checks.integer("n_experts", n_experts)
    phi = rng.normal(size=(D, E, checks.integer("slots", slots))) / np.sqrt(D)
    params = {"phi": phi.astype(dtype)}
    return {**params, "scale": np.ones((), dtype)} if normalise else params


def to_experts(a, E, S):
    """(B, E·S, D) -> (E·B·S, D): the slots of expert 0 in all sequences first."""
    B, _, D = a.shape
    return a.reshape(B, E, S, D).transpose(1, 0, 2, 3).reshape(E * B * S, D)


def from_experts(a, E, S):
    """(E·B·S, F) -> (B, E·S, F)"""
    B, F = len(a) // (E * S), a.shape[1]
    return a.reshape(E, B, S, F).transpose(1, 0, 2, 3).reshape(B, E * S, F)


def unit_forward(a, axis):
    """a / √(Σ a² + ε) along an axis -> (unit, norm)."""
    norm = np.sqrt((a * a).sum(axis=axis, keepdims=True) + EPS)
    return a / norm, norm


def unit_backward(dunit, unit, norm, axis):
    """da = (du − u (u·du)) / norm."""
    return (dunit - unit * (unit * dunit).sum(axis=axis, keepdims=True)) / norm


def over_tokens(logits, valid):
    """Softmax over axis 1 of the valid tokens; all 0 where there is none, so that an empty sequence
    has empty slots.
    """
    masked = np.where(valid, logits, -np.inf)
    top = masked.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(masked - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=1, keepdims=True)
    return e / np.where(total > 0, total, 1)


def check(params, x, valid):
    """Check x against phi and the mask against x; return x, phi, valid (B, N, 1)."""
    x = checks.array("x", x, ("B", "N", "D"))
    phi = checks.array("params['phi']", params["phi"], ("D", "E", "S"))
    if x.shape[2] != len(phi) or x.dtype != phi.dtype:
        raise InputError(
            f"x: wanted {len(phi)} features a token in {phi.dtype}, got {x.shape[2]} in {x.dtype}"
        )
    valid = np.ones(x.shape[:2], bool) if valid is None else np.asarray(valid)
    if valid.dtype != bool or valid.shape != x.shape[:2]:
        raise InputError(
            f"valid: wanted bool of shape {x.shape[:2]}, got {valid.dtype} of shape {valid.shape}"
        )
    return x, phi, valid[:, :, None]


def soft_moe_forward(params, expert_params, x, expert, *, valid=None):
    """Y = C·experts(Dᵀ X): x (B, N, D) -> y (B, N, F), cache.

    Padding (valid[b, n] = False) is in no slot, and its y is 0.
    """
    x, phi, valid = check(params, x, valid)
    (D, E, S), scale = phi.shape, params.get("scale")
    x_unit, x_norm, phi_unit, phi_norm = x, None, phi.reshape(D, E * S), None
    if scale is not None:
        x_unit, x_norm = unit_forward(x_unit, axis=2)
        phi_unit, phi_norm = unit_forward(phi_unit, axis=0)
    logits = x_unit @ phi_unit
    if scale is not None:
        logits = scale * logits
    dispatch = over_tokens(logits, valid)
    combine = numerics.softmax(logits) * valid
    slots = dispatch.transpose(0, 2, 1) @ x
    rows, offsets = to_experts(slots, E, S), np.arange(E + 1) * (len(x) * S)
    answer, own = expert.forward(expert_params, rows, offsets)
    out = from_experts(answer, E, S)
    units = (x_unit, x_norm, phi_unit, phi_norm, scale)
    return combine @ out, Cache(
        x, valid, *units, logits, dispatch, combine, out, (E, S), expert, own
    )


def soft_moe_backward(dy, cache):
    """dy (B, N, F) -> dx (B, N, D), grads as params, grads as expert_params. Nothing is held: all
    of it is smooth.
    """
    c, (E, S) = cache, cache.shape
    dcombine = dy @ c.out.transpose(0, 2, 1)
    dout = c.combine.transpose(0, 2, 1) @ dy
    dslots, expert_grads = c.expert.backward(to_experts(dout, E, S), c.expert_cache)
    dslots = from_experts(dslots, E, S)
    ddispatch = c.x @ dslots.transpose(0, 2, 1)
    dx = c.dispatch @ dslots
    dlogits = numerics.softmax_backward(dcombine, c.combine)  # padded rows are 0 and stay so
    dlogits = dlogits + numerics.softmax_backward(ddispatch, c.dispatch, axis=1)
    dx_unit = dlogits @ c.phi_unit.T
    dphi = np.tensordot(c.x_unit, dlogits, axes=((0, 1), (0, 1)))  # of x_unit · phi_unit
    if c.scale is None:
        return dx + dx_unit, {"phi": dphi.reshape(-1, E, S)}, expert_grads
    dscale = np.asarray((dphi * c.phi_unit).sum())
    dx_unit = unit_backward(c.scale * dx_unit, c.x_unit, c.x_norm, axis=2)
    dphi = unit_backward(c.scale * dphi, c.phi_unit, c.phi_norm, axis=0)
    return dx + dx_unit, {"phi": dphi.reshape(-1, E, S), "scale": dscale}, expert_grads
