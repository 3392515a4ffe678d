"""What a kind of expert is, and what the kinds have in common: rows sorted by expert, shared
parameters, initialisation.

    here       shape             meaning
    rows       (A, D)            inputs, sorted: those of expert 0, then those of expert 1, ...
    offsets    (E + 1,)          expert m has rows[offsets[m]:offsets[m + 1]], which may be empty
    y          (A, D_out)        outputs, in the same order
    params     {name: (E, ...)}  axis 0 is the expert

**Shared parameters.** A parameter whose axis 0 has length 1 is common to all experts (with
`share=("w1", "b1")` in `init`: a common first layer). Its gradient is the sum of the gradients that
the experts would have had if each had its own copy.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, NamedTuple, TypeAlias

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType, Params, Rng

Offsets: TypeAlias = Annotated[np.ndarray, "E + 1"]
Outputs: TypeAlias = Annotated[np.ndarray, "A, D_out"]
Axes: TypeAlias = dict[str, tuple[str, ...]]


class Expert(NamedTuple):
    """A kind of expert: three functions, and what the sparse layer checks and compiles."""

    init: Callable[..., Params]  # init(rng, d_model, n_experts, ...) -> params
    forward: Callable  # forward(params, rows, offsets) -> (y, cache)
    backward: Callable  # backward(dy, cache) -> (drows, grads)
    # the axes of every parameter and of the input "x" without their first one, which is E or N, as
    # in {"w": ("D", "D_out"), "x": ("D",)}: for the sparse layer, which checks that equal names
    # have equal lengths
    axes: Axes
    # its name in `moe_np.kernels.sparse_layer`, and the function that makes its cache of
    # (params, rows, offsets, z, g), the arrays of the compiled loops. None: NumPy only.
    kernel: tuple[str, Callable] | None = None


def blocks(offsets: Offsets) -> Iterator[tuple[int, slice]]:
    """The experts that have rows, each with the slice of its rows."""
    for m in range(len(offsets) - 1):
        if offsets[m] < offsets[m + 1]:
            yield m, slice(offsets[m], offsets[m + 1])


def of_block(mask: Array | None, block: slice) -> Array | None:
    """The rows of a mask of dropout, which is None where there is none."""
    return None if mask is None else mask[block]


def per_expert(params: Params, name: str, offsets: Offsets) -> Array:
    """params[name] with axis 0 of length E: a shared parameter is repeated, without a copy."""
    p = params[name]
    return np.broadcast_to(p, (len(offsets) - 1, *p.shape[1:]))


def zero_gradients(params: Params, offsets: Offsets) -> Params:
    """Zeros for the gradients of all parameters, with axis 0 of length E also where shared."""
    n_experts = len(offsets) - 1
    return {name: np.zeros((n_experts, *p.shape[1:]), p.dtype) for name, p in params.items()}


def sum_shared(grads: Params, params: Params) -> Params:
    """The gradients of shared parameters summed over the experts; the others as they are."""
    return {
        name: g if len(params[name]) == len(g) else g.sum(axis=0, keepdims=True)
        for name, g in grads.items()
    }


def with_dropout(kind: Expert, p: float, rng: Rng | None) -> Expert:
    """The kind of expert with dropout on its hidden layer, after the activation.

    One mask per assignment (Fedus et al. 2021, section 2.4, "expert dropout", p = .4 in
    fine-tuning): to drop whole experts is another thing (errata 33). The mask is in the cache, each
    forward pass draws a new one, and without a generator there is none. It runs in NumPy.

    Raises InputError for p outside of [0, 1) and for a kind without a hidden layer.
    """
    p = checks.number("p", p, minimum=0, less_than=1)
    if not {"p", "rng"} <= set(inspect.signature(kind.forward).parameters):
        raise InputError(
            "kind: wanted a kind of expert with a hidden layer (RELU, GELU, SWIGLU), "
            f"got one with the parameters {', '.join(kind.axes)}"
        )
    return kind._replace(forward=functools.partial(kind.forward, p=p, rng=rng), kernel=None)


# --- the checks of what comes in ------------------------------------------------------------------


def check_params(
    params: Params, n_experts: int, dtype: np.dtype, axes: Axes
) -> tuple[Params, dict[str, int]]:
    """Check the parameters against each other: -> (params as arrays, {name of an axis: length}).

    dtype   of the inputs
    axes    of the kind of expert, `Expert.axes`; a nested mixture names no parameters
    """
    checks.not_long_double("x", np.empty(0, dtype))
    lengths = {}
    arrays = {}
    for name, value in checks.mapping("params", params).items():
        known = name in axes or not isinstance(value, np.ndarray)
        p = checks.array(f"params[{name!r}]", value, None, finite=False) if known else value
        shape = p.shape
        if p.dtype != dtype:
            raise InputError(f"x: wanted {p.dtype}, the type of params[{name!r}], got {dtype}")
        if not shape or (shape[0] != n_experts and shape[0] != 1):
            wanted = f"axis 0 of {n_experts} experts (or 1, shared)"
            got = shape[0] if shape else "no axis"
            raise InputError(f"params[{name!r}]: wanted {wanted}, got {got}")
        if name in axes:
            fits = len(axes[name]) == len(shape) - 1
            for axis, n in zip(axes[name], shape[1:], strict=False):
                if lengths.setdefault(axis, n) != n:
                    fits = False
            if not fits:
                wanted = (shape[0], *(lengths.get(axis, axis) for axis in axes[name]))
                checks.array(f"params[{name!r}]", p, wanted, finite=False)  # raises
        arrays[name] = p
    names = axes.keys() - {"x"}
    if names and names != arrays.keys():
        wanted = ", ".join(name for name in axes if name != "x")
        got = checks.text(", ".join(map(str, arrays)))[1:-1] or "none"
        raise InputError(f"params: wanted {wanted}, got {got}")
    return arrays, lengths


def check_finite(params: Params, used: Annotated[np.ndarray, "m"]) -> None:
    """Check that the parameters of the experts numbered in `used` are finite."""
    for name, p in params.items():
        parts = [p] if len(p) == 1 or len(used) == len(p) else [p[m] for m in used]
        # one pass without a copy; a sum of finite numbers may overflow, hence the second look
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = [part for part in parts if not np.isfinite(part.sum())]
        for part in suspect:
            checks.array(f"params[{name!r}]", part, None)


def check_rows(
    params: Params, rows: Array, offsets: Offsets, axes: Axes
) -> tuple[Params, Array, Offsets]:
    """Check the arguments of the `forward` of a kind of expert; return them as arrays."""
    rows = checks.array("rows", rows, ("A", *axes["x"]), finite=False)
    offsets = checks.array("offsets", offsets, ("E + 1",), kind="i")
    rising = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(rows)
    if not rising or (np.diff(offsets) < 0).any():
        raise InputError(
            f"offsets: wanted numbers that rise from 0 to {len(rows)}, the number of the rows, "
            f"got {checks.text(offsets.tolist())}"
        )
    names = [name for name in axes if name != "x"]
    checks.mapping("params", params, names)
    params = {name: params[name] for name in names}
    params, lengths = check_params(params, len(offsets) - 1, rows.dtype, axes)
    if lengths.get("D", rows.shape[-1]) != rows.shape[-1]:
        raise InputError(
            f"rows: wanted {lengths['D']} features, as the experts read, got {rows.shape[-1]}"
        )
    return params, rows, offsets


# --- initialisation -------------------------------------------------------------------------------


def normal_init(
    rng: Rng,
    shapes: dict[str, tuple[int, ...]],
    n_experts: int,
    *,
    scale: float,
    share: Sequence[str],
    dtype: DType,
) -> Params:
    """Initialisation of the parameters in `shapes`, which are given without the axis of experts.

    (fan_in, fan_out): weights (E, fan_in, fan_out), normal with standard deviation scale/√fan_in;
    (n,): biases (E, n), zero. The names in `share` get axis 0 of length 1.
    Raises InputError for a size that is not a whole number of at least 1, or an unknown name.
    """
    checks.generator("rng", rng)
    checks.number("scale", scale, minimum=0, maximum=1e30)
    checks.float_type("dtype", dtype)
    n_experts = checks.size("n_experts", n_experts)
    for name in share:
        checks.choice("share", name, tuple(shapes))
    params = {}
    for name, sizes in shapes.items():
        sizes = tuple(checks.size("size", n) for n in sizes)
        shape = (1 if name in share else n_experts, *sizes)
        if len(sizes) == 2:
            p = rng.normal(size=shape) * (scale / np.sqrt(sizes[0]))
        else:
            p = np.zeros(shape)
        params[name] = p.astype(dtype)
    return params
