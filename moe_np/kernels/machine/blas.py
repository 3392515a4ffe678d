"""Matrix products (GEMM) for compiled loops, c = op(a) op(b) + βc, by the BLAS that NumPy uses.

Numba's `np.dot` takes SciPy's BLAS and always overwrites c. NumPy's wheels carry a newer OpenBLAS,
whose aᵀb takes a fifth less time where the result is small. With β = 1 a sum over blocks of rows
needs no pass of its own. Where NumPy has another BLAS (Accelerate, MKL, a distribution's own),
`np.dot` computes the product behind the same name.

OpenBLAS copies both operands into an order of its own before it multiplies. Where few rows meet a
large matrix, the copy takes longer than the product. For processors with AVX-512 OpenBLAS also has
routines that do not copy, for products of at most a million multiplications; this module cuts a
larger product with a short side into such pieces. `MOE_NP_BLAS=whole` does without the pieces, and
`MOE_NP_BLAS=dot` without everything here: then every product is an `np.dot`.

Compiled code calls the routine by a name, "moe_np_sgemm" or "moe_np_dgemm", and `connect` gives the
name its address. So compiled code can be kept on disk, whatever BLAS the next process has.
"""

import ctypes
import os
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - what np.dot in compiled code calls
import threadpoolctl
from numba import carray, config, types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import lower_builtin, overload, type_callable

from moe_np.base.checks import InputError
from moe_np.base.types import Array, DType
from moe_np.kernels.machine.disk_cache import cfunc, njit

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112  # as cblas.h numbers them
LETTERS = {types.float32: "s", types.float64: "d"}  # as BLAS names its routines


# --- arrays as compiled loops want them -----------------------------------------------------------


def read_only(a: Array, dtype: DType = None) -> Array:
    """`a`, contiguous and read-only: calls with the same types share one compiled version."""
    view = np.ascontiguousarray(a, dtype).view()
    view.flags.writeable = False
    return view


@type_callable(read_only)
def _read_only_type(context):
    return lambda a: a.copy(readonly=True)


@lower_builtin(read_only, types.Array)
def _read_only(context, builder, signature, arguments):
    """In compiled loops `read_only` gives the same array another type: that with which Python calls
    a loop, which is then not compiled twice.
    """
    return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])


@njit(cache=True)
def all_finite(a):
    """np.isfinite(a).all() of an array with one axis, in a third of the time."""
    infinity = a.dtype.type(np.inf)
    finite = True
    for i in range(len(a)):
        finite &= abs(a[i]) < infinity  # false for NaN too
    return finite


# --- the product ----------------------------------------------------------------------------------


def gemm(op_a: int, op_b: int, a: Array, b: Array, beta: int, c: Array) -> None:
    """c = op(a) op(b) + βc for contiguous matrices; op is NO_TRANS or TRANS, not both TRANS; β is 0
    or 1. In compiled loops the overload below takes its place.
    """
    product = np.dot(a.T if op_a == TRANS else a, b.T if op_b == TRANS else b)
    c[:] = product + c if beta else product


def _signature(real, pointer):
    op = types.int32
    size = types.int64
    return types.void(
        op, op, op,  # order, op_a, op_b
        size, size, size,  # m, n, k
        real, pointer, size, pointer, size,  # α, a and its row length, b and its row length
        real, pointer, size,  # β, c and its row length
    )  # fmt: skip


def _routines(suffix):
    return {
        real: types.ExternalFunction(f"moe_np_{letter}gemm{suffix}", _signature(real, types.uintp))
        for real, letter in LETTERS.items()
    }


ROUTINE = _routines("")  # what `gemm` calls: in pieces, or the library's own
WHOLE = _routines("_whole")  # the library's own


@overload(gemm)
def _gemm(op_a, op_b, a, b, beta, c):
    routine = ROUTINE[c.dtype]
    real = c.dtype

    def call(op_a, op_b, a, b, beta, c):
        m, n = c.shape
        k = a.shape[0] if op_a == TRANS else a.shape[1]
        routine(
            ROW_MAJOR, op_a, op_b,
            m, n, k,
            real(1), a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1],
            real(beta), c.ctypes.data, n,
        )  # fmt: skip

    return call


def dot_routine(real: types.Float) -> Any:
    """A compiled stand-in for cblas_?gemm, made of `np.dot`."""

    @cfunc(_signature(real, types.CPointer(real)))
    def routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        out = carray(c, (m, n))
        if op_a == TRANS:
            product = np.dot(carray(a, (k, m)).T, carray(b, (k, n)))
        elif op_b == TRANS:
            product = np.dot(carray(a, (m, k)), carray(b, (n, k)).T)
        else:
            product = np.dot(carray(a, (m, k)), carray(b, (k, n)))
        if beta == 0:
            out[:] = product
        else:
            out += product

    return routine


# --- pieces ---------------------------------------------------------------------------------------

# The limits, here and in the two functions, were measured on one core of an AMD Zen 5 with OpenBLAS
# 0.3.31, on products with rows from 1 to 2048 and widths from 16 to 2048: what is cut takes 0.1 to
# 1.0 of the time of the whole product. To measure again:
#   python -m moe_np.experiments.layer_speed.thresholds pieces

SMALL = 1_000_000  # multiplications: OpenBLAS's own limit for a product without copies
SMALL_RESULT = 1200  # a bᵀ: the same, numbers in c
LEAST_SUM = 32  # a bᵀ: with fewer terms in each sum, copies take less time
CACHED = 1 << 15  # bytes of b that stay in the nearest cache while the rows of a pass by


@njit(cache=True)
def pieces(op_a, op_b, m, n, k, size):
    """(rows, columns, terms) of a piece of an (m, n) product with k terms in each sum and `size`
    bytes per number: of the whole product where pieces would gain nothing.
    """
    if op_b == TRANS:
        return _pieces_transposed(m, n, k, size)
    if m * n * k <= SMALL:
        return max(m, 1), max(n, 1), max(k, 1)
    short = m if op_a == NO_TRANS else k if k >= 8 or size == 4 else n
    if n <= 128 or (n * size <= 1024 and min(m, k) <= 64) or short * size <= 128:
        near = CACHED // size
        columns = min(n, near // min(k, 32))
        rows = 48 if columns <= 256 else 24
        # with few rows, b passes by only once and need not stay
        return rows, columns, min(k, (near if m > 16 else 4 * near) // columns)
    return max(m, 1), max(n, 1), max(k, 1)


@njit(cache=True)
def _pieces_transposed(m, n, k, size):
    """`pieces` of a bᵀ, whose numbers are inner products of rows."""
    many_rows = m > k // 2 or m * size > (512 if k <= 512 else 256)
    if k < LEAST_SUM or many_rows or (m * n * k <= SMALL and m * n <= SMALL_RESULT):
        return max(m, 1), max(n, 1), max(k, 1)
    columns = min(n, 128)
    return 1024 // columns, columns, min(k, 512)


def _whole(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
    """The library's own cblas_?gemm, called by its name: a function that closes over the routine
    itself is compiled again in each process.
    """


@overload(_whole)
def _library_routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
    routine = WHOLE[alpha]

    def call(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c)

    return call


def pieces_routine(real: types.Float) -> Any:
    """A compiled cblas_?gemm for α = 1 that calls the library's own for each piece."""
    size = real.bitwidth // 8

    @cfunc(_signature(real, types.uintp))
    def routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        rows, columns, terms = pieces(op_a, op_b, m, n, k, np.int64(size))
        # the distance in memory from a number of op(a) or op(b) to the next one down or along
        down_a, along_a = (1, width_a) if op_a == TRANS else (width_a, 1)
        down_b, along_b = (1, width_b) if op_b == TRANS else (width_b, 1)
        for j in range(0, n, columns):
            for i in range(0, m, rows):
                for p in range(0, max(k, 1), terms):  # once without terms: then c becomes βc
                    _whole(
                        order, op_a, op_b,
                        min(rows, m - i), min(columns, n - j), min(terms, k - p),
                        alpha,
                        a + (i * down_a + p * along_a) * size, width_a,
                        b + (p * down_b + j * along_b) * size, width_b,
                        alpha if p else beta,  # α is 1: later terms are added
                        c + (i * width_c + j) * size, width_c,
                    )  # fmt: skip

    return routine


# --- names and addresses --------------------------------------------------------------------------


# before the letter and "gemm64_", in the wheels of NumPy 2 and of NumPy 1.26
PREFIXES = ("scipy_cblas_", "cblas_")


class Library(NamedTuple):
    """An OpenBLAS that counts with 64 bits, as NumPy's wheels have it."""

    handle: ctypes.CDLL
    prefix: str  # what the names of its routines begin with
    avx512: bool  # whether it has routines that do not copy


def numpy_openblas() -> Library | None:
    """The OpenBLAS of NumPy's wheel, or None where NumPy has another BLAS."""
    for pool in threadpoolctl.threadpool_info():
        if pool["internal_api"] == "openblas":
            handle = ctypes.CDLL(pool["filepath"])
            for prefix in PREFIXES:
                if all(hasattr(handle, f"{prefix}{x}gemm64_") for x in LETTERS.values()):
                    avx512 = pool["architecture"] in ("SkylakeX", "Cooperlake", "SapphireRapids")
                    return Library(handle, prefix, avx512)
    return None


_connected = []  # keeps alive what the addresses point to, for all that was ever linked to them


def connect(library: Library | None, *, in_pieces: bool = False) -> None:
    """Give the names their addresses, for everything that is compiled or loaded from now on.

    library     the OpenBLAS that multiplies; None: `np.dot` multiplies
    in_pieces   whether products with a short side are cut into pieces
    """
    for real, letter in LETTERS.items():
        if library is None:
            whole = dot_routine(real)
            address = whole.address
        else:
            whole = getattr(library.handle, f"{library.prefix}{letter}gemm64_")
            address = ctypes.cast(whole, ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"moe_np_{letter}gemm_whole", address)
        cut = pieces_routine(real) if in_pieces and not config.DISABLE_JIT else None
        llvmlite.binding.add_symbol(f"moe_np_{letter}gemm", cut.address if cut else address)
        _connected.append((whole, cut))


def connect_by_environment() -> None:
    """`connect` by the environment variable MOE_NP_BLAS (unset, whole or dot), as far as this
    machine has such a BLAS. Raises InputError for another value.
    """
    choice = os.environ.get("MOE_NP_BLAS", "")
    if choice not in ("", "whole", "dot"):
        raise InputError(f"MOE_NP_BLAS: wanted whole or dot, got {choice!r}")
    library = None if choice == "dot" else numpy_openblas()
    connect(library, in_pieces=library is not None and library.avx512 and not choice)


connect_by_environment()
