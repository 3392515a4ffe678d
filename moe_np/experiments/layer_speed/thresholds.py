"""Measure the constants of the compiled loops again: the time of the layer for several values.

    python -m moe_np.experiments.layer_speed.thresholds NAME VALUE ... [--shape N,D,E] [--expert X]
    python -m moe_np.experiments.layer_speed.thresholds pieces

NAME is a constant of a module of `moe_np.kernels`, as in `sparse_layer.STEP` or
`machine.tasks.HOT`, or of `moe_np`, as in `routing.linear_map.LARGE`. Compiled code holds its
constants, so each value has processes of its own, which compile anew. The values take turns, and
the least of several rounds counts. `pieces` compares matrix products in pieces with whole ones, on
one thread, for what is cut. BLAS settings of the shell are taken away (`processes.SETTINGS`).
"""

import argparse
import contextlib
import importlib
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, choice
from moe_np.base.machine import one_blas_thread
from moe_np.experiments.layer_speed.cli import parse_shape
from moe_np.experiments.layer_speed.numpy_contestants import moe_layer
from moe_np.experiments.layer_speed.problem import EXPERTS, Shape, least_time, problem
from moe_np.experiments.layer_speed.processes import unpinned

GENERATIONS = 2  # processes per value, one after the other
ROUNDS = 4  # per generation


# --- the layer, for several values of a constant --------------------------------------------------


def set_constant(name: str, value: str) -> None:
    """Give a constant another value. Raises InputError for a name that is not a number of a module,
    and for `machine.blas`, whose loops are compiled when they are imported (measure `pieces`).
    """
    module_name, _, constant = name.rpartition(".")
    before = None
    for path in (f"moe_np.kernels.{module_name}", f"moe_np.{module_name}"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(path)
            before = getattr(module, constant, None)
            break
    if not isinstance(before, (int, float)) or module_name == "machine.blas":
        raise InputError(f"NAME: wanted MODULE.CONSTANT such as sparse_layer.STEP, got {name!r}")
    setattr(module, constant, type(before)(float(value)))


def _serve(name, value, kind, shape, pipe):
    set_constant(name, value)
    step = moe_layer(problem(kind, shape))
    step(True)
    while pipe.recv():
        pipe.send([least_time(step, backward, at_least=0.1) for backward in (False, True)])


@contextlib.contextmanager
def _process(name, value, kind, shape, cache) -> Iterator:
    context = multiprocessing.get_context("spawn")
    pipe, end_of_process = context.Pipe()
    arguments = (name, value, kind, shape, end_of_process)
    os.environ["NUMBA_CACHE_DIR"] = cache
    process = context.Process(target=_serve, args=arguments, daemon=True)
    process.start()
    end_of_process.close()
    try:
        yield pipe
    finally:
        process.terminate()
        process.join()


def measure(
    name: str, values: Sequence[str], kind: str, shape: Shape
) -> dict[str, tuple[float, float]]:
    """{value: least seconds of (forward, forward and backward)}."""
    set_constant(name, values[0])  # a wrong name ends here
    least = {value: np.full(2, np.inf) for value in values}
    before = os.environ.get("NUMBA_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder, unpinned():
        try:
            for _ in range(GENERATIONS):
                with contextlib.ExitStack() as stack:
                    pipes = {
                        value: stack.enter_context(
                            _process(name, value, kind, shape, os.path.join(folder, str(i)))
                        )
                        for i, value in enumerate(values)
                    }
                    for _ in range(ROUNDS):
                        for value, pipe in pipes.items():
                            pipe.send(True)
                            least[value] = np.minimum(least[value], pipe.recv())
        finally:
            os.environ.pop("NUMBA_CACHE_DIR")
            if before is not None:
                os.environ["NUMBA_CACHE_DIR"] = before
    return {value: (float(forward), float(both)) for value, (forward, both) in least.items()}


def table(name: str, times: dict[str, tuple[float, float]]) -> str:
    """Milliseconds per value, as Markdown."""
    lines = [f"| {name} | forward, ms | forward and backward, ms |", "|---|---|---|"]
    for value, (forward, both) in times.items():
        lines.append(f"| {value} | {1e3 * forward:.3f} | {1e3 * both:.3f} |")
    return "\n".join(lines)


# --- products in pieces ---------------------------------------------------------------------------

ROWS = (1, 4, 16, 64, 256, 1024)
WIDTHS = (16, 64, 256, 1024)


class Comparison(NamedTuple):
    op: str
    dtype: str
    size: tuple[int, int, int]  # rows and columns of the result, terms of each sum
    ratio: float  # time in pieces / time of the whole


def _product_loops(library):
    """The product by that library in compiled loops: (whole, in pieces)."""
    import numba

    from moe_np.kernels.machine import blas

    def product(op_a, op_b, a, b, c):
        blas.gemm(op_a, op_b, a, b, 0, c)

    loops = []
    for in_pieces in (False, True):
        blas.connect(library, in_pieces=in_pieces)
        loop = numba.njit(product)
        for dtype in (np.float32, np.float64):  # compiled now, with these addresses
            a = np.ones((2, 2), dtype)
            loop(blas.NO_TRANS, blas.NO_TRANS, a, a, a.copy())
        loops.append(loop)
    blas.connect_by_environment()
    return loops


@one_blas_thread()
def compare_pieces() -> list[Comparison]:
    """All products of the grid that are cut into pieces, by the BLAS of this process. Raises
    InputError where that is no OpenBLAS.
    """
    from moe_np.kernels.machine import blas

    library = blas.numpy_openblas()
    if library is None:
        raise InputError("pieces: wanted a NumPy with an OpenBLAS of its own")
    loops = _product_loops(library)
    ops = {
        "ab": (blas.NO_TRANS, blas.NO_TRANS),
        "aᵀb": (blas.TRANS, blas.NO_TRANS),
        "abᵀ": (blas.NO_TRANS, blas.TRANS),
    }
    rng = np.random.default_rng(0)
    sides = dict.fromkeys((*ROWS, *WIDTHS))
    comparisons = []
    for op, dtype, m, n, k in itertools.product(
        ops, (np.float32, np.float64), sides, WIDTHS, sides
    ):
        piece = blas.pieces(*ops[op], m, n, k, np.dtype(dtype).itemsize)
        if piece[0] >= m and piece[1] >= n and piece[2] >= k:
            continue
        a = rng.normal(size=(k, m) if op == "aᵀb" else (m, k)).astype(dtype)
        b = rng.normal(size=(n, k) if op == "abᵀ" else (k, n)).astype(dtype)
        arguments = (*ops[op], a, b, np.empty((m, n), dtype))
        whole, cut = (
            min(least_time(loop, *arguments, at_least=0.005) for _ in range(3)) for loop in loops
        )
        comparisons.append(Comparison(op, np.dtype(dtype).name, (m, n, k), cut / whole))
    return comparisons


def table_of_pieces(comparisons: Sequence[Comparison]) -> str:
    """Per product and dtype the ratios of time, as Markdown."""
    lines = ["| product | dtype | sizes cut | least | median | greatest, at (m, n, k) |"]
    lines.append("|---|---|---|---|---|---|")
    for op, dtype in dict.fromkeys((c.op, c.dtype) for c in comparisons):
        group = [c for c in comparisons if (c.op, c.dtype) == (op, dtype)]
        ratios = [c.ratio for c in group]
        slowest = max(group, key=lambda c: c.ratio)
        cells = [f"{min(ratios):.2f}", f"{np.median(ratios):.2f}"]
        cells.append(f"{slowest.ratio:.2f}, {slowest.size}")
        lines.append(f"| {op} | {dtype} | {len(group)} | {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the command ----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", metavar="NAME", help="sparse_layer.STEP, ..., or pieces")
    parser.add_argument("values", metavar="VALUE", nargs="*", help="numbers to compare")
    parser.add_argument(
        "--shape", default="1024,64,8", metavar="N,D,E", help="(default: %(default)s)"
    )
    parser.add_argument("--expert", default="relu", metavar="X", help="relu (default) or swiglu")
    args = parser.parse_args(argv)
    try:
        if args.name == "pieces":
            with unpinned(), multiprocessing.get_context("spawn").Pool(1) as pool:
                print(table_of_pieces(pool.apply(compare_pieces)))
        elif not args.values:
            raise InputError("VALUE: wanted at least one number")
        else:
            kind = choice("--expert", args.expert, tuple(EXPERTS))
            shape = parse_shape(args.shape)
            print(table(args.name, measure(args.name, args.values, kind, shape)))
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
