"""Soft mixture of experts: slots that are averages of tokens (Puigcerver et al. 2023, arXiv
2308.00951, section 2.1).

    paper                       here       shape          meaning
    X                           x          (B, N, D)      B sequences of N tokens, mixed one by one
    Φ                           phi        (D, E, S)      one column per slot, S slots per expert
    XΦ                          logits     (B, N, E·S)
    D = softmax over tokens     dispatch   (B, N, E·S)    columns sum to 1             (eq. 1)
    X̃ = DᵀX                     slots      (B, E·S, D)    the inputs of the experts    (eq. 1)
    Ỹ                           out        (B, E·S, F)    the outputs of the experts
    C = softmax over slots      combine    (B, N, E·S)    rows sum to 1                (eq. 2)
    Y = CỸ                      y          (B, N, F)                                   (eq. 2)
    scale                       scale      ()             of the normalised logits

No token is chosen or dropped, no expert is without input, and everything has a gradient. There is
no list of assignments, so this is not a router. With a "scale" in params, the logits are cosines
times scale: for the logits, x and the columns of Φ are divided by √(sum of their squares + 1e-6),
as the paper does for large D.

Not causal: a slot averages all tokens of the sequence, and every output mixes all slots
(errata 13).

The experts are from `moe_np.layers.experts`; their rows are the E·B·S slots, sorted by expert.
"""

from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import checks, numerics
from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Array, DType, Params, Rng
from moe_np.layers.experts.expert import Expert, check_finite, check_params
from moe_np.routing import linear_map

EPS = 1e-6
Tokens: TypeAlias = Annotated[np.ndarray, "B, N, D"]
Slots: TypeAlias = Annotated[np.ndarray, "B, E·S, D"]
TokensBySlots: TypeAlias = Annotated[np.ndarray, "B, N, E·S"]


class Cache(NamedTuple):
    """What the backward pass needs."""

    x: Tokens
    valid: Annotated[np.ndarray, "B, N, 1"]
    x_unit: Tokens  # x, or x normalised
    x_norm: Annotated[np.ndarray, "B, N, 1"] | None
    phi_unit: Annotated[np.ndarray, "D, E·S"]  # Φ, or Φ normalised
    phi_norm: Annotated[np.ndarray, "1, E·S"] | None
    scale: Array | None
    logits: TokensBySlots
    dispatch: TokensBySlots
    combine: TokensBySlots
    out: Annotated[np.ndarray, "B, E·S, F"]
    shape: tuple[int, int]  # E, S
    expert: Expert
    expert_cache: Any


def init(
    rng: Rng,
    d_model: int,
    n_experts: int,
    slots: int,
    *,
    normalise: bool = True,
    dtype: DType = np.float64,
) -> Params:
    """{"phi": (D, E, S), "scale": ()}: phi normal with standard deviation 1/√D, scale 1.

    `slots` is S, those of one expert. normalise=False: no scale, and logits without normalisation.
    """
    checks.generator("rng", rng)
    checks.boolean("normalise", normalise)
    checks.float_type("dtype", dtype)
    D = checks.size("d_model", d_model)
    E = checks.size("n_experts", n_experts)
    S = checks.size("slots", slots)
    params = {"phi": (rng.normal(size=(D, E, S)) / np.sqrt(D)).astype(dtype)}
    return {**params, "scale": np.ones((), dtype)} if normalise else params


# --- slots and rows of the experts ----------------------------------------------------------------


def to_experts(slots: Slots, E: int, S: int) -> Annotated[np.ndarray, "E·B·S, D"]:
    """(B, E·S, D) -> (E·B·S, D): the slots of expert 0 in all sequences, then those of expert 1."""
    B, _, D = slots.shape
    return slots.reshape(B, E, S, D).transpose(1, 0, 2, 3).reshape(E * B * S, D)


def from_experts(rows: Annotated[np.ndarray, "E·B·S, D"], E: int, S: int) -> Slots:
    """(E·B·S, D) -> (B, E·S, D), the reverse of `to_experts`."""
    B = len(rows) // (E * S)
    D = rows.shape[1]
    return rows.reshape(E, B, S, D).transpose(1, 0, 2, 3).reshape(B, E * S, D)


# --- the softmax over tokens, and unit vectors ----------------------------------------------------


def token_softmax(logits: TokensBySlots, valid: Annotated[np.ndarray, "B, N, 1"]) -> TokensBySlots:
    """Softmax over the valid tokens of each sequence (axis 1), 0 for the others.

    Without a valid token all are 0, so that an empty sequence has empty slots.
    """
    masked = np.where(valid, logits, -np.inf)
    top = masked.max(axis=1, keepdims=True, initial=-np.inf)
    e = np.exp(masked - np.where(np.isfinite(top), top, 0))
    total = e.sum(axis=1, keepdims=True)
    return e / np.where(total > 0, total, 1)


def unit_forward(a: Array, axis: int) -> tuple[Array, Array]:
    """u = a / √(Σ a² + ε) along an axis: -> (u, its norm √(Σ a² + ε))."""
    norm = np.sqrt((a * a).sum(axis=axis, keepdims=True) + EPS)
    return a / norm, norm


def unit_backward(dunit: Array, unit: Array, norm: Array, axis: int) -> Array:
    """da = (du − u (u·du)) / norm."""
    return (dunit - unit * (unit * dunit).sum(axis=axis, keepdims=True)) / norm


# --- the layer ------------------------------------------------------------------------------------


@one_blas_thread()
def forward(
    params: Params,
    expert_params: Params,
    x: Tokens,
    expert: Expert,
    *,
    valid: Annotated[np.ndarray, "B, N"] | None = None,
) -> tuple[Annotated[np.ndarray, "B, N, F"], Cache]:
    """Y = C·experts(Dᵀ X): x (B, N, D) -> y (B, N, F), cache.

    Padding (valid[b, n] = False) is in no slot, and its y is 0. Raises InputError for x that is not
    finite or not of the features and type of params["phi"], and for a wrong `valid`.
    """
    x, phi, scale, valid = _check(params, x, valid)
    D, E, S = phi.shape
    expert_params, lengths = check_params(expert_params, E, x.dtype, expert.axes)
    check_finite(expert_params, np.arange(E))
    if expert.axes["x"] != ("D",) or lengths.get("D", D) != D:
        raise InputError(f"expert_params: wanted experts that read {D} features per row")
    x_unit = x
    phi_unit = phi.reshape(D, E * S)
    x_norm = phi_norm = None
    if scale is not None:
        x_unit, x_norm = unit_forward(x_unit, axis=2)
        phi_unit, phi_norm = unit_forward(phi_unit, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        logits = x_unit @ phi_unit
        if scale is not None:
            logits = scale * logits
    linear_map.check_logits(logits, "phi")
    dispatch = token_softmax(logits, valid)
    combine = numerics.softmax(logits) * valid
    slots = dispatch.transpose(0, 2, 1) @ x
    rows = to_experts(slots, E, S)
    offsets = np.arange(E + 1) * (len(x) * S)
    with np.errstate(over="ignore", invalid="ignore"):
        y_rows, expert_cache = expert.forward(expert_params, rows, offsets)
    out = from_experts(y_rows, E, S)
    logit_parts = (x_unit, x_norm, phi_unit, phi_norm, scale, logits)
    cache = Cache(x, valid, *logit_parts, dispatch, combine, out, (E, S), expert, expert_cache)
    with np.errstate(over="ignore", invalid="ignore"):
        y = combine @ out
    if not np.isfinite(y).all():
        raise InputError(
            "x: wanted numbers for which the layer's output is finite, got larger ones"
        )
    return y, cache


@one_blas_thread()
def backward(dy: Annotated[np.ndarray, "B, N, F"], cache: Cache) -> tuple[Tokens, Params, Params]:
    """dy (B, N, F) -> dx (B, N, D), grads of params, grads of expert_params.

    Everything is differentiated.
    """
    c = cache
    E, S = c.shape
    dcombine = dy @ c.out.transpose(0, 2, 1)
    dout = c.combine.transpose(0, 2, 1) @ dy
    drows, expert_grads = c.expert.backward(to_experts(dout, E, S), c.expert_cache)
    dslots = from_experts(drows, E, S)
    ddispatch = c.x @ dslots.transpose(0, 2, 1)
    dx = c.dispatch @ dslots
    dlogits = numerics.softmax_backward(dcombine, c.combine)  # the rows of padding stay 0
    dlogits = dlogits + numerics.softmax_backward(ddispatch, c.dispatch, axis=1)
    dx_unit = dlogits @ c.phi_unit.T
    dphi = np.tensordot(c.x_unit, dlogits, axes=((0, 1), (0, 1)))  # of x_unit · phi_unit
    if c.scale is None:
        return dx + dx_unit, {"phi": dphi.reshape(-1, E, S)}, expert_grads
    assert c.x_norm is not None and c.phi_norm is not None  # they come with the scale
    dscale = np.asarray((dphi * c.phi_unit).sum())
    dx_unit = unit_backward(c.scale * dx_unit, c.x_unit, c.x_norm, axis=2)
    dphi = unit_backward(c.scale * dphi, c.phi_unit, c.phi_norm, axis=0)
    return dx + dx_unit, {"phi": dphi.reshape(-1, E, S), "scale": dscale}, expert_grads


def _check(params, x, valid):
    """Check x against phi and the mask against x; return x, phi, valid (B, N, 1)."""
    x = checks.array("x", x, ("B", "N", "D"))
    axes: dict[str, tuple[int | str, ...]] = {"phi": ("D", "E", "S")}
    if "scale" in checks.mapping("params", params):
        axes["scale"] = ()
    arrays = checks.params("params", params, axes)
    phi = arrays["phi"]
    scale = arrays.get("scale")
    for name, a in (("x", x), ("params['phi']", phi)) if scale is not None else ():
        largest = 1e-3 * np.sqrt(np.finfo(a.dtype).max)
        if np.abs(a).max(initial=0) > largest:
            got = np.abs(a).max()
            raise InputError(f"{name}: wanted numbers of at most {largest:.1e}, got {got:g}")
    if x.shape[2] != len(phi) or x.dtype != phi.dtype:
        wanted = f"{len(phi)} features per token in {phi.dtype}"
        raise InputError(f"x: wanted {wanted}, got {x.shape[2]} in {x.dtype}")
    valid = np.ones(x.shape[:2], bool) if valid is None else valid
    valid = checks.mask("valid", valid, x.shape[:2])
    return x, phi, scale, valid[:, :, None]
