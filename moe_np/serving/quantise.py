"""Experts in 8, 4, 3 or 2 bits per weight: round to nearest by groups of the input axis.

    s = (max w − a) / (2ᵇ − 1),   c = round((w − a) / s),   w ≈ a + s c

    here     shape             meaning
    w        (E, D, H)         a matrix per expert; groups lie along D, as inputs are summed there
    c        0 to 2ᵇ − 1       the codes, packed without gaps
    a, s     (E, D/group, H)   offset and scale of each group, float16: 32 bits more per group

The offset is rounded down and the scale up, so that every weight lies in the range of its group and
none is further than s/2 from its code, to the rounding of float32. There is no calibration: methods
that use data (GPTQ, arXiv 2210.17323; QMoE for mixtures, arXiv 2310.16795) lose less at few bits.

Only routed experts are rounded, and biases are not. Where the router is rounded too
(`router_bits`), a token may get other experts, which no rounding of the experts does.
"""

from typing import Annotated, Any, NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayE, Params

BITS = (8, 4, 3, 2)
Matrices = Annotated[np.ndarray, "E, D, H"]
Tree = dict[str, Any]


class Quantised(NamedTuple):
    """Matrices in few bits."""

    codes: Annotated[np.ndarray, "E, bytes"]  # uint8
    offset: Annotated[np.ndarray, "E, groups, H"]  # float16
    scale: Annotated[np.ndarray, "E, groups, H"]  # float16; 0 where all weights are equal
    bits: int
    group: int
    shape: tuple[int, int, int]  # of the matrices
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """The memory of codes, offsets and scales."""
        return self.codes.nbytes + self.offset.nbytes + self.scale.nbytes


def quantise(w: Matrices, bits: int, group: int = 64) -> Quantised:
    """Matrices (E, D, H) in so many bits, in groups of `group` inputs; the last may be shorter.

    Raises InputError for bits other than 8, 4, 3 and 2, and for weights that float16 cannot hold.
    """
    bits = checks.choice("bits", bits, BITS)
    group = checks.integer("group", group)
    w = checks.array("w", w, ("E", "D", "H"))
    if w.size and np.abs(w).max() > np.finfo(np.float16).max:
        raise InputError(
            f"w: wanted weights that float16 holds, up to 65504, got {np.abs(w).max()}"
        )
    E, D, H = w.shape
    padding = ((0, 0), (0, -D % group), (0, 0))
    grouped = np.pad(w, padding, mode="edge").reshape(E, -1, group, H)
    low, high = grouped.min(axis=2), grouped.max(axis=2)
    top = (1 << bits) - 1
    offset = _rounded_down(low)
    # −(−x rounded down) is x rounded up
    scale = -_rounded_down((offset.astype(w.dtype) - high) / top)
    unit = scale.astype(w.dtype)[:, :, None]
    steps = (grouped - offset.astype(w.dtype)[:, :, None]) / np.where(unit == 0, 1, unit)
    codes = np.clip(np.rint(steps), 0, top).astype(np.uint8)
    return Quantised(pack(codes.reshape(E, -1), bits), offset, scale, bits, group, w.shape, w.dtype)


def _rounded_down(x):
    """float16, the nearest one, or the next lower one where that is above x by more than the
    rounding of float32: numbers that came from float16 come back.
    """
    rounded = x.astype(np.float16)
    too_high = rounded.astype(np.float64) - x > 2.0**-20 * np.abs(x)
    return np.where(too_high, np.nextafter(rounded, np.float16(-np.inf)), rounded)


def dequantise(q: Quantised, experts: ArrayE | None = None) -> Matrices:
    """a + s c of all matrices, or of those of some experts."""
    part = slice(None) if experts is None else experts
    offset, scale = (table[part].astype(q.dtype)[:, :, None] for table in (q.offset, q.scale))
    E, groups, _, H = offset.shape
    codes = unpack(q.codes[part], q.bits, groups * q.group * H).reshape(E, groups, q.group, H)
    return (offset + scale * codes).reshape(E, -1, H)[:, : q.shape[1]]


def pack(codes: Annotated[np.ndarray, "E, n"], bits: int) -> Annotated[np.ndarray, "E, bytes"]:
    """Codes below 2ᵇ, one behind the other without gaps; the last byte is filled with zeros."""
    places = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8)[::-1]) & np.uint8(1)
    return np.packbits(places.reshape(len(codes), -1), axis=1)


def unpack(
    packed: Annotated[np.ndarray, "E, bytes"], bits: int, n: int
) -> Annotated[np.ndarray, "E, n"]:
    """The n codes per row that `pack` packed; its exact inverse."""
    places = np.unpackbits(packed, axis=1, count=n * bits).reshape(len(packed), n, bits)
    codes = np.zeros((len(packed), n), np.uint8)
    for place in range(bits):
        codes = (codes << np.uint8(1)) | places[:, :, place]
    return codes


# --- models ---------------------------------------------------------------------------------------


class QuantisedExperts:
    """The experts of a layer in few bits. A mixture layer reads those that tokens chose; only they
    become floating point. It has no backward pass.
    """

    def __init__(self, params: Params, bits: int, group: int = 64) -> None:
        self._parts = {
            leaf: quantise(array, bits, group) if array.ndim == 3 else array
            for leaf, array in params.items()
        }
        self._n = len(params["w2"])

    def __len__(self) -> int:
        return self._n

    @property
    def nbytes(self) -> int:
        """The memory of all of them."""
        return sum(part.nbytes for part in self._parts.values())

    def read(self, numbers: ArrayE) -> Params:
        """The parameters of these experts, each (len(numbers), ...)."""
        return {
            leaf: dequantise(part, numbers) if isinstance(part, Quantised) else part[numbers]
            for leaf, part in self._parts.items()
        }


class Sizes(NamedTuple):
    """Memory of the routed experts of a model, in bytes."""

    before: int
    after: int

    @property
    def share(self) -> float:
        """After over before."""
        return self.after / self.before


def of_model(
    params: Tree, bits: int, group: int = 64, *, router_bits: int | None = None
) -> tuple[Tree, Sizes]:
    """A decoder's parameters with the routed experts in few bits: -> (params, sizes). The
    parameters given are not changed.

    router_bits   those of the routers' matrices; None: they stay as they are

    Raises InputError for a model without a router.
    """
    before = after = 0
    layers = []
    for layer in params["layers"]:
        if "router" in layer:
            before += sum(array.nbytes for array in layer["experts"].values())
            experts = QuantisedExperts(layer["experts"], bits, group)
            after += experts.nbytes
            layer = {**layer, "experts": experts}
            if router_bits is not None:
                layer["router"] = rounded_router(layer["router"], router_bits, group)
        layers.append(layer)
    if not before:
        raise InputError("params: wanted a model with routed experts, got none")
    return {**params, "layers": layers}, Sizes(before, after)


def rounded_router(router: Params, bits: int, group: int = 64) -> Params:
    """The parameters of a router, its matrices rounded."""
    return {
        name: dequantise(quantise(p[None], bits, group))[0] if p.ndim == 2 else p
        for name, p in router.items()
    }
