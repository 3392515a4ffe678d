"""Cubic experts, the two-layer patch networks of Chen et al. 2022 (arXiv 2208.02813, section 3).

An expert applies its filters to every patch of a sample, raises each response to the third power,
and sums the results per class. With activation="linear" the responses are summed as they are.

    f_c = Σ_p Σ_{j in class c} σ(w_j·x_p + b_j),    σ(z) = z³ or z

    paper          here     shape           meaning
    x⁽¹⁾ .. x⁽ᴾ⁾   rows     (A, P, D)       the P patches of each sample, sorted by expert
    w_{m,j}        w        (E, 2J, D)      filters of expert m: J of class 0, then J of class 1
    –              b        (E, 2J)         biases (in the authors' code, not in the paper)
    ⟨w_{m,j}, x⟩   z        (A, P, 2J)      response of each filter to each patch, with the bias
    f_m(x; W)      f        (A, 2)          output per class

There are two pairs with the same equations: `forward` and `backward` for samples sorted by their
expert, `dense_forward` and `dense_backward` for all experts on all samples. The sparse layer,
`moe_np.models.patch_cnn` and the comparison of training methods use these.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import checks
from moe_np.base.types import Array, ArrayNPD, DType, Params, Rng
from moe_np.layers.experts.expert import (
    Expert,
    Offsets,
    blocks,
    check_rows,
    per_expert,
    sum_shared,
    zero_gradients,
)

CLASSES = 2
Patches: TypeAlias = Annotated[np.ndarray, "A, P, D"]
ClassSums: TypeAlias = Annotated[np.ndarray, "A, 2"]


def init(
    rng: Rng,
    patch_len: int,
    n_experts: int,
    filters: int,
    *,
    scale: float = 1.0,
    share: Sequence[str] = (),
    dtype: DType = np.float64,
) -> Params:
    """{"w": (E, 2J, D), "b": (E, 2J)}, both U(−1/√D, 1/√D) times scale; J = filters, D = patch_len.

    U(−1/√D, 1/√D) is PyTorch's default initialisation of a convolution over D numbers. `share`
    names the parameters that all experts have in common.
    """
    E = checks.integer("n_experts", n_experts)
    F = CLASSES * checks.integer("filters", filters)
    D = checks.integer("patch_len", patch_len)
    for name in share:
        checks.choice("share", name, ("w", "b"))
    bound = 1 / np.sqrt(D)
    w = scale * rng.uniform(-bound, bound, (1 if "w" in share else E, F, D))
    b = scale * rng.uniform(-bound, bound, (1 if "b" in share else E, F))
    return {"w": w.astype(dtype), "b": b.astype(dtype)}


# --- from the responses to the outputs ------------------------------------------------------------


def class_sums(z: Array, activation: str = "cubic") -> Array:
    """f_c = Σ_p Σ_{j in class c} σ(z_pj): z (N, P, ..., 2J) -> f (N, ..., 2)."""
    activated = z * z * z if activation == "cubic" else z
    per_filter = activated.sum(axis=1)
    J = z.shape[-1] // CLASSES
    return per_filter.reshape(*per_filter.shape[:-1], CLASSES, J).sum(axis=-1)


def class_sums_backward(df: Array, z: Array, activation: str = "cubic") -> Array:
    """df (N, ..., 2) -> dz (N, P, ..., 2J): 3 z² df_c for a filter of class c; linear: df_c."""
    per_filter = np.repeat(df, z.shape[-1] // CLASSES, axis=-1)[:, None]
    if activation == "linear":
        return per_filter.repeat(z.shape[1], axis=1)
    return 3 * z * z * per_filter


# --- samples sorted by their expert ---------------------------------------------------------------


class Cache(NamedTuple):
    """What the backward pass of cubic experts needs."""

    params: Params
    rows: Patches
    offsets: Offsets
    z: Annotated[np.ndarray, "A, P, 2J"]
    activation: str  # "cubic" or "linear"


def forward(
    params: Params, rows: Patches, offsets: Offsets, *, activation: str = "cubic"
) -> tuple[ClassSums, Cache]:
    """The outputs of expert m for its rows x: rows (A, P, D) -> f (A, 2), cache."""
    params, rows, offsets = check_rows(params, rows, offsets, AXES)
    w, b = (per_expert(params, name, offsets) for name in ("w", "b"))
    z = np.empty((*rows.shape[:2], w.shape[1]), rows.dtype)
    for m, block in blocks(offsets):
        z[block] = rows[block] @ w[m].T + b[m]
    return class_sums(z, activation), Cache(params, rows, offsets, z, activation)


def backward(df: ClassSums, cache: Cache) -> tuple[Patches, Params]:
    """df (A, 2) -> drows (A, P, D), {"w", "b"}.

    dw_mj = Σ dz_j x and db_mj = Σ dz_j over the rows of expert m and their patches;
    dx = Σ_j dz_j w_mj.
    """
    params, rows, offsets, z, activation = cache
    w = per_expert(params, "w", offsets)
    dz = class_sums_backward(df, z, activation)
    drows = np.empty_like(rows)
    grads = zero_gradients({name: params[name] for name in ("w", "b")}, offsets)
    for m, block in blocks(offsets):
        grads["w"][m] = np.tensordot(dz[block], rows[block], axes=((0, 1), (0, 1)))
        grads["b"][m] = dz[block].sum(axis=(0, 1))
        drows[block] = dz[block] @ w[m]
    return drows, sum_shared(grads, params)


AXES = {"w": ("2J", "D"), "b": ("2J",), "x": ("P", "D")}
CUBIC = Expert(init, forward, backward, AXES)


# --- all experts on all samples -------------------------------------------------------------------


class DenseCache(NamedTuple):
    """What the backward pass of all experts on all samples needs."""

    w: Annotated[np.ndarray, "E, 2J, D"]
    x: ArrayNPD
    z: Annotated[np.ndarray, "N, P, E, 2J"]


def dense_forward(
    params: Params, x: ArrayNPD
) -> tuple[Annotated[np.ndarray, "N, E, 2"], DenseCache]:
    """The outputs of every cubic expert for every sample: x (N, P, D) -> f (N, E, 2), cache.

    The filters of all experts are one matrix, so that this is one product.
    """
    w, b = params["w"], params["b"]
    N, P, D = x.shape
    E, F = b.shape
    z = (x.reshape(N * P, D) @ w.reshape(E * F, D).T).reshape(N, P, E, F) + b
    return class_sums(z), DenseCache(w, x, z)


def dense_backward(df: Annotated[np.ndarray, "N, E, 2"], cache: DenseCache) -> Params:
    """df (N, E, 2) -> {"w", "b"}. The gradient with respect to x is not computed."""
    w, x, z = cache
    N, P, D = x.shape
    dz = class_sums_backward(df, z)
    E, F, _ = w.shape
    dw = dz.reshape(N * P, E * F).T @ x.reshape(N * P, D)
    return {"w": dw.reshape(w.shape), "b": dz.sum(axis=(0, 1))}
