"""Matrix products for compiled loops, c = op(a) op(b) + βc, by the BLAS that NumPy itself uses.

Numba's `np.dot` takes SciPy's BLAS and always overwrites c. NumPy's wheels carry a newer OpenBLAS,
whose aᵀb is a fifth faster where the result is small; and with β = 1 a sum over blocks of rows
needs no pass of its own. Where NumPy has another BLAS (Accelerate, MKL, a distribution's own),
`np.dot` does the work behind the same name.

OpenBLAS copies both operands into an order of its own before it multiplies, which takes longer than
the product itself where few rows meet a large matrix. For processors with AVX-512 it also has
routines that do without, for products of at most a million multiplications; `in_pieces` cuts larger
ones with a small side into such. So a layer of small experts takes a tenth less time, and one with
few tokens for each expert two fifths less.

Compiled code calls the routine by a name, "moe_np_sgemm" or "moe_np_dgemm", to which this module
gives an address: so what is compiled can be kept, whatever BLAS there is the next time.
"""

import ctypes

import llvmlite.binding
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - what np.dot in compiled code calls
import threadpoolctl
from numba import carray, cfunc, config, njit, types
from numba.extending import overload

ROWS_FIRST, PLAIN, TRANSPOSED = 101, 111, 112  # as cblas.h numbers them


def fixed(a, dtype=None):
    """`a` contiguous and read-only: then every call has the same types, and nothing is compiled
    twice.
    """
    view = np.ascontiguousarray(a, dtype).view()
    view.flags.writeable = False
    return view


@njit(cache=True)
def finite(a):
    """Whether all numbers of an array with one axis are finite: np.isfinite(a).all(), in a third of
    the time.
    """
    infinity, found = a.dtype.type(np.inf), True
    for i in range(len(a)):
        found &= abs(a[i]) < infinity  # not so for NaN
    return found


def gemm(op_a, op_b, a, b, beta, c):
    """c = op(a) op(b) + βc for contiguous matrices, op PLAIN or TRANSPOSED, not both transposed, β
    0 or 1.
    """
    product = np.dot(a.T if op_a == TRANSPOSED else a, b.T if op_b == TRANSPOSED else b)
    c[:] = product + c if beta else product


def _signature(real, pointer):
    op, size = types.int32, types.int64
    return types.void(
        op, op, op, size, size, size, real, pointer, size, pointer, size, real, pointer, size
    )


LETTERS = {types.float32: "s", types.float64: "d"}  # as BLAS names its routines


def _routines(of):
    names = {real: f"moe_np_{letter}gemm{of}" for real, letter in LETTERS.items()}
    return {
        real: types.ExternalFunction(name, _signature(real, types.uintp))
        for real, name in names.items()
    }


ROUTINE, WHOLE = _routines(""), _routines("_whole")


@overload(gemm)
def _gemm(op_a, op_b, a, b, beta, c):
    routine, real = ROUTINE[c.dtype], c.dtype

    def call(op_a, op_b, a, b, beta, c):
        m, n, k = c.shape[0], c.shape[1], a.shape[0] if op_a == TRANSPOSED else a.shape[1]
        of_a, of_b, of_c = a.ctypes.data, b.ctypes.data, c.ctypes.data
        width_a, width_b = a.shape[1], b.shape[1]
        routine(
            ROWS_FIRST,
            op_a,
            op_b,
            m,
            n,
            k,
            real(1),
            of_a,
            width_a,
            of_b,
            width_b,
            real(beta),
            of_c,
            n,
        )

    return call


def by_dot(real):
    """What `gemm` needs of cblas_?gemm, made of `np.dot`."""

    @cfunc(_signature(real, types.CPointer(real)), cache=True)
    def routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        out = carray(c, (m, n))
        if op_a == TRANSPOSED:
            product = np.dot(carray(a, (k, m)).T, carray(b, (k, n)))
        elif op_b == TRANSPOSED:
            product = np.dot(carray(a, (m, k)), carray(b, (n, k)).T)
        else:
            product = np.dot(carray(a, (m, k)), carray(b, (k, n)))
        if beta == 0:
            out[:] = product
        else:
            out += product

    return routine


SMALL = 1_000_000  # multiplications that OpenBLAS does without copying
SMALL_RESULT, LEAST_SUM = (
    1200,
    32,
)  # where b is transposed: not more numbers in c, not fewer terms in each
# bytes of b that stay near while the rows of a pass by: two thirds of the smallest cache
CACHED = 1 << 15


@njit(cache=True)
def pieces(op_a, op_b, m, n, k, size):
    """(rows, columns, terms) of a piece of an (m, n) product of k terms: of all of it, if it is
    better left whole.

    The limits are measured (AMD Zen 5, OpenBLAS 0.3.31), on products with rows 1 to 2048 and widths
    16 to 2048: what is cut took .1 to 1.0 of the time of the whole.
    """
    whole = max(m, 1), max(n, 1), max(k, 1)
    if op_b == TRANSPOSED:
        if k < LEAST_SUM or m > k // 2 or m * size > (512 if k <= 512 else 256):
            return whole
        if m * n * k <= SMALL and m * n <= SMALL_RESULT:
            return whole
        columns = min(n, 128)
        return 1024 // columns, columns, min(k, 512)
    if m * n * k <= SMALL:
        return whole
    few = m if op_a == PLAIN else k if k >= 8 or size == 4 else n
    if n <= 128 or (n * size <= 1024 and min(m, k) <= 64) or few * size <= 128:
        near = CACHED // size
        columns = min(n, near // min(k, 32))
        return (
            48 if columns <= 256 else 24,
            columns,
            min(k, (near if m > 16 else 4 * near) // columns),
        )
    return whole


def _whole(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
    """The library's own cblas_?gemm. By a name: what closes over a routine itself is compiled anew
    each time.
    """


@overload(_whole)
def _of_the_library(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
    routine = WHOLE[alpha]

    def call(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c):
        routine(order, op_a, op_b, m, n, k, alpha, a, width_a, b, width_b, beta, c, width_c)

    return call


def in_pieces(real):
    """cblas_?gemm with α = 1, but what OpenBLAS would copy a lot for is done in pieces that it does
    not copy.
    """
    size = real.bitwidth // 8

    @cfunc(_signature(real, types.uintp), cache=True)
    def routine(order, op_a, op_b, m, n, k, one, a, width_a, b, width_b, beta, c, width_c):
        rows, columns, terms = pieces(op_a, op_b, m, n, k, size)
        down_a, along_a = (1, width_a) if op_a == TRANSPOSED else (width_a, 1)
        down_b, along_b = (1, width_b) if op_b == TRANSPOSED else (width_b, 1)
        for j in range(0, n, columns):
            for i in range(0, m, rows):
                for p in range(
                    0, max(k, 1), terms
                ):  # once if there is nothing to add up: c becomes βc
                    M, N, K = min(rows, m - i), min(columns, n - j), min(terms, k - p)
                    of_a = a + (i * down_a + p * along_a) * size
                    of_b = b + (p * down_b + j * along_b) * size
                    of_c = c + (i * width_c + j) * size
                    more = one if p else beta
                    _whole(
                        order,
                        op_a,
                        op_b,
                        M,
                        N,
                        K,
                        one,
                        of_a,
                        width_a,
                        of_b,
                        width_b,
                        more,
                        of_c,
                        width_c,
                    )

    return routine


def numpys_library():
    """The OpenBLAS of NumPy's wheel, which takes whole numbers of 64 bits, or None; whether it uses
    AVX-512.
    """
    for found in threadpoolctl.threadpool_info():
        if found["internal_api"] == "openblas":
            library = ctypes.CDLL(found["filepath"])
            if hasattr(library, "scipy_cblas_sgemm64_") and hasattr(
                library, "scipy_cblas_dgemm64_"
            ):
                return library, found["architecture"] in (
                    "SkylakeX",
                    "Cooperlake",
                    "SapphireRapids",
                )
    return None, False


_connected = {}  # keeps what has an address from being thrown away


def connect(library, small=False):
    """Give the names their addresses, in that library or of `by_dot`: for all that is compiled or
    loaded later.

    small: whether the library multiplies small matrices without copying them.
    """
    for real, letter in LETTERS.items():
        if library is None:
            routine = by_dot(real)
            address = routine.address
        else:
            routine = getattr(library, f"scipy_cblas_{letter}gemm64_")
            address = ctypes.cast(routine, ctypes.c_void_p).value
        llvmlite.binding.add_symbol(f"moe_np_{letter}gemm_whole", address)
        cut = in_pieces(real) if small and not config.DISABLE_JIT else None
        address = cut.address if cut else address
        _connected[letter] = routine, cut
        llvmlite.binding.add_symbol(f"moe_np_{letter}gemm", address)


connect(*numpys_library())
