"""How long the sparse layer takes, beside a dense network, the floor of the machine, and peers.

    moe-np bench [--expert swiglu|relu] [--quick] [--shape N,D,E ...] [--json] [--record [FILE]]

Each contestant has a process of its own, gets the same data, is warmed up, and computes router and
experts, forward, or forward and backward to the gradients of x and of all parameters. Their results
are compared. The contestants take turns in several rounds, and the least time of each counts.

    moe_np                this package: `routing.top_k` and `layers.sparse_layer`
    products_alone        the matrix products of moe_np and nothing else
    dense_numpy           NumPy: one network of hidden size k·H on all tokens, no router: the same
                          number of active operations
    numpy_mask_loop       NumPy: the usual loop over experts with a mask
    torch_loop            PyTorch, if installed: the same loop with index_add_, autograd
    transformers_mixtral  Transformers' Mixtral block, if installed (SwiGLU only): the fastest of
                          its implementations

The floor is the time that the machine cannot beat (`floor.py`). The product behind it is measured
in the same minute as the shape, since the clock of a processor changes.

A bench has a budget of time. The shapes are measured in the order of their work, and a shape begins
only if it will probably end within the budget: so large shapes get fewer rounds than small ones,
and on a slow machine the largest may be left out. The output says which.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from moe_np.base.checks import choice
from moe_np.base.machine import cores
from moe_np.experiments.layer_speed.contestants import installed
from moe_np.experiments.layer_speed.floor import Peaks, floor
from moe_np.experiments.layer_speed.problem import EXPERTS, Shape
from moe_np.experiments.layer_speed.processes import Runner, unpinned

MODES = ("forward", "forward+backward")
SHAPES = (
    *(Shape(256, 64, 8), Shape(4096, 64, 8), Shape(4096, 64, 64)),
    *(Shape(4096, 256, 8), Shape(4096, 256, 64), Shape(256, 256, 64)),
    *(Shape(4096, 512, 8), Shape(16384, 64, 256), Shape(16384, 512, 8)),
)
QUICK = (Shape(256, 64, 8), Shape(1024, 64, 8))

BUDGET = 240.0  # seconds, of which the last shape may take more than expected
ROUNDS = 5
QUICK_ROUNDS = 2
NORMALS = 3e7  # normal numbers that a process draws per second, for its parameters

Progress = Callable[[str], None]


class Facts(NamedTuple):
    """How the rows were measured."""

    expert: str
    cores: int
    sgemm: tuple[float, float]  # operations per second: the least and the greatest of the shapes
    bandwidth: float  # bytes per second
    unset: dict[str, str]  # BLAS settings that were found, and taken away
    rounds: dict[Shape, int]
    left_out: list[Shape]
    seconds: float
    machine: dict[str, str]
    interrupted: bool


class Result(NamedTuple):
    rows: list[dict[str, Any]]  # one per shape, mode and contestant
    facts: Facts


class Measured:
    """What a bench has measured so far."""

    def __init__(self, kind: str, names: Sequence[str]):
        self.kind = kind
        self.names = list(names)
        self.times = {}  # (shape, mode) -> {contestant: [seconds]}
        self.flops = {}  # shape -> operations per second
        self.bandwidth = 0.0
        self.rounds = {}  # shape -> how often it was measured
        self.cost = {}  # shape -> seconds of its last round, for all contestants
        self.machine = {}

    def peaks(self, shape: Shape) -> Peaks:
        """The best product in the rounds of this shape, and the best copy of all."""
        return Peaks(self.flops[shape], self.bandwidth)


def run(
    kind: str = "swiglu",
    *,
    quick: bool = False,
    shapes: Sequence[Shape] = (),
    budget: float = BUDGET,
    progress: Progress = lambda text: None,
) -> Result:
    """Time all contestants. `shapes` are measured at least once, whatever the budget; the default
    shapes as far as the budget goes. `progress` gets a line of text now and then.

    After Ctrl-C the result has what was measured until then. Raises ArithmeticError where two
    contestants compute different numbers.
    """
    choice("--expert", kind, tuple(EXPERTS))
    wanted = tuple(dict.fromkeys(shapes)) or (QUICK if quick else SHAPES)
    measured = Measured(kind, installed(kind))
    interrupted = False
    start = time.monotonic()
    with unpinned() as unset:
        try:
            for i in range(QUICK_ROUNDS if quick else ROUNDS):
                deadline = None if i == 0 and shapes else start + budget
                _round(measured, wanted, i, deadline, 0.05 if quick else 0.2, progress)
        except KeyboardInterrupt:
            interrupted = True
    left_out = [shape for shape in wanted if shape not in measured.rounds]
    speeds = tuple(measured.flops.values()) or (0.0,)
    facts = Facts(
        expert=kind,
        cores=cores(),
        sgemm=(min(speeds), max(speeds)),
        bandwidth=measured.bandwidth,
        unset=unset,
        rounds={shape: measured.rounds[shape] for shape in wanted if shape in measured.rounds},
        left_out=left_out,
        seconds=time.monotonic() - start,
        machine=measured.machine,
        interrupted=interrupted,
    )
    return Result(_rows(measured, wanted), facts)


# --- a round --------------------------------------------------------------------------------------


def _round(measured, shapes, number, deadline, at_least, progress):
    """Measure the shapes in the order of their work, with new processes, until the deadline."""
    by_work = sorted(shapes, key=lambda shape: floor(measured.kind, shape, True, Peaks(1e11, 3e10)))
    if not _fits(measured, by_work[0], deadline, at_least):
        return
    with Runner(measured.names) as runner:
        for shape in by_work:
            if not _fits(measured, shape, deadline, at_least):
                progress(f"round {number + 1}: no time for {shape} and larger shapes")
                return
            start = time.monotonic()
            _measure(runner, measured, shape, at_least, progress)
            measured.cost[shape] = time.monotonic() - start
            measured.rounds[shape] = measured.rounds.get(shape, 0) + 1
            progress(f"round {number + 1}: {shape} ({measured.cost[shape]:.1f} s)")


def _fits(measured, shape, deadline, at_least):
    return deadline is None or time.monotonic() + _expected(measured, shape, at_least) < deadline


def _expected(measured, shape, at_least):
    """Seconds that a round of this shape will probably take: its last round's, or by the multiples
    of the floor that the contestants took for the shape before it.
    """
    if shape in measured.cost:
        return measured.cost[shape]
    if not measured.cost:
        return 0.0
    last = list(measured.cost)[-1]
    seconds = 0.0
    for mode, times in ((mode, measured.times[last, mode]) for mode in MODES):
        backward = mode == MODES[1]
        before = floor(measured.kind, last, backward, measured.peaks(last))
        now = floor(measured.kind, shape, backward, measured.peaks(last))
        # a call to warm up, at least one to measure, and some time in reserve
        seconds += sum(max(2.5 * min(t) * now / before, 2 * at_least) for t in times.values())
    parameters = shape.experts * shape.d * shape.hidden * 3
    return seconds + len(measured.names) * parameters / NORMALS


def _measure(runner, measured, shape, at_least, progress):
    """All contestants on one shape: the first time their results are compared."""
    names = measured.names
    first = shape not in measured.rounds
    digests = ask_all(runner, names, progress, "prepare", measured.kind, shape, first)
    if first:
        check_same(measured.kind, shape, digests)
    peaks, measured.machine = runner.ask("peaks", "peaks")
    measured.flops[shape] = max(peaks.flops, measured.flops.get(shape, 0.0))
    measured.bandwidth = max(peaks.bandwidth, measured.bandwidth)
    for mode in MODES:
        times = measured.times.setdefault((shape, mode), {})
        answers = ask_all(runner, names, progress, "time", mode == MODES[1], at_least)
        for name, seconds in answers.items():
            times.setdefault(name, []).append(seconds)


def ask_all(runner: Runner, names: list[str], progress: Progress, *message: Any) -> dict[str, Any]:
    """Ask the contestants in turn: {name: answer}. A peer whose process has ended, as a rule for
    want of memory, is taken out of `names`; without moe_np or dense_numpy there is no bench.
    """
    answers = {}
    for name in tuple(names):
        try:
            answers[name] = runner.ask(name, *message)
        except ChildProcessError as error:
            if name in ("moe_np", "dense_numpy"):
                raise
            progress(f"{error}; left out from here on")
            names.remove(name)
    return answers


def check_same(kind: str, shape: Shape, digests: dict[str, dict[str, float]]) -> None:
    """Raises ArithmeticError where a contestant that computes the layer has another digest."""
    reference = digests["moe_np"]
    for name, numbers in digests.items():
        if name in ("dense_numpy", "products_alone"):
            continue
        for array, value in numbers.items():
            # a near tie in the choice of experts moves a digest by about .01
            if abs(value - reference[array]) > 0.02 * (1 + abs(value)):
                raise ArithmeticError(
                    f"{name}: another {array} than moe_np at {tuple(shape)}, {kind} experts"
                )


# --- results --------------------------------------------------------------------------------------


def _rows(measured, shapes):
    """One row per shape, mode and contestant that was measured."""
    return [
        _row(measured, shape, mode, name, times)
        for shape in shapes
        for mode in MODES
        if {"moe_np", "dense_numpy"} <= set(times := measured.times.get((shape, mode), {}))
        for name in times
    ]


def _row(measured, shape, mode, name, times):
    seconds = min(times[name])
    least = floor(measured.kind, shape, mode == MODES[1], measured.peaks(shape))
    return {
        "tokens": shape.tokens,
        "d": shape.d,
        "hidden": shape.hidden,
        "experts": shape.experts,
        "k": shape.k,
        "mode": mode,
        "impl": name,
        "expert": measured.kind,
        "seconds": seconds,
        "ratio_dense": seconds / min(times["dense_numpy"]),
        "ratio_floor": seconds / least,
    }


def table(result: Result) -> str:
    """The rows as Markdown: milliseconds, and in brackets the multiple of the floor."""
    rows, facts = result
    names = list(dict.fromkeys(row["impl"] for row in rows))
    settings = ", ".join(f"{k}={v}" for k, v in facts.unset.items()) or "none"
    sgemm = " to ".join(f"{speed / 1e9:.0f}" for speed in facts.sgemm)
    lines = [
        f"float32, {facts.expert} experts, hidden = 4d, {facts.cores} cores: "
        f"sgemm {sgemm} GFLOP/s from shape to shape, copy {facts.bandwidth / 1e9:.0f} GB/s. "
        "Milliseconds, the least of all rounds [x the floor].",
        f"BLAS settings: {settings} found, run without.",
        "",
        "| tokens | d | experts | k | rounds | mode | " + " | ".join(names) + " | moe_np / dense |",
        "|" + "---|" * (7 + len(names)),
    ]
    cases = {}
    for row in rows:
        shape = Shape(row["tokens"], row["d"], row["experts"], row["k"])
        cases.setdefault((shape, row["mode"]), {})[row["impl"]] = row
    for (shape, mode), by_name in cases.items():
        cells = [*map(str, shape), str(facts.rounds.get(shape, 0)), mode]
        cells += [_cell(by_name.get(name)) for name in names]
        cells.append(f"{by_name['moe_np']['ratio_dense']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", what_was_done(facts)])


def _cell(row):
    return f"{1e3 * row['seconds']:.3g} [{row['ratio_floor']:.2f}]" if row else "–"


def what_was_done(facts: Facts) -> str:
    """One or more sentences: the shapes and rounds that the time was enough for."""
    rounds = sorted(set(facts.rounds.values()))
    times = " to ".join(map(str, dict.fromkeys((rounds[0], rounds[-1])))) if rounds else "0"
    done = f"{len(facts.rounds)} shapes in {facts.seconds:.0f} s, {times} rounds each."
    if facts.interrupted:
        done += " Interrupted."
    if facts.left_out:
        names = "; ".join(map(str, facts.left_out))
        done += f" Left out: {names}. Measure one with --shape N,D,E."
    return done
