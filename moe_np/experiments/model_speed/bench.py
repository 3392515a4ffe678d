"""How long whole models take: a training step, reading a text, and cached generation.

    moe-np bench model [--quick] [--json]

    moe_np          this package: `models.decoder`, `models.generation`
    dense           the same with one feed-forward network per layer, of as many active operations
    torch           PyTorch, if installed: a statement of the same model written for speed, with and
                    without torch.compile
    transformers    Transformers' Mixtral, if installed: the fastest of its implementations

What is timed is in `workload.py`, the contestants in `serving.py`. Each contestant has a process of
its own, without the settings that slow down BLAS; all but the dense one have the same parameters
and data, and what they compute is compared. They take turns in several rounds, and the least time
of each counts; of several variants the fastest. Small workloads come first. One begins only if it
will probably end within the budget, and a contestant that does not answer in time is left out.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.machine import cores
from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.experiments.layer_speed.processes import Runner, unpinned
from moe_np.experiments.model_speed.serving import (
    CONTESTANTS,
    PEERS,
    FailureText,
    installed,
    serve,
)
from moe_np.experiments.model_speed.workload import Workload, floor

WORKLOADS = (
    Workload("train", 128, 16, 128),
    Workload("prefill", 128, 16, 128),
    Workload("generate", 128, 1, 48),
    Workload("generate", 128, 8, 48),
    Workload("generate", 512, 1, 24),
    Workload("prefill", 512, 8, 128),
    Workload("train", 512, 8, 128),
    Workload("generate", 512, 8, 24),
)
QUICK = (
    Workload("train", 64, 2, 16, 2, 4, 256),
    Workload("prefill", 64, 2, 16, 2, 4, 256),
    Workload("generate", 64, 1, 4, 2, 4, 256),
)

BUDGET = 230.0  # seconds after which no workload begins
LAST = 285.0  # seconds after which no answer is waited for
PATIENCE = 60.0  # seconds for an answer of a peer: torch.compile takes long
ROUNDS = 4
AT_LEAST = 0.4  # seconds of a contestant's turn
IMPLS = ("moe_np", *PEERS, "dense")

Progress = Callable[[str], None]


class Facts(NamedTuple):
    """How the rows were measured."""

    cores: int
    sgemm: float  # operations per second
    bandwidth: float  # bytes per second
    unset: dict[str, str]  # BLAS settings that were found, and taken away
    left_out: list[str]  # workloads, and contestants with the reason
    seconds: float
    machine: dict[str, str]
    interrupted: bool


class Result(NamedTuple):
    rows: list[dict[str, Any]]  # one per workload and impl
    facts: Facts


class Measured:
    """What a bench has measured so far."""

    def __init__(self, names: Sequence[str]):
        self.names = list(names)
        self.times = {}  # workload -> {contestant: [seconds]}
        self.memory = {}  # workload -> {contestant: bytes}
        self.cost = {}  # workload -> seconds that it took, for all contestants
        self.peaks = Peaks(0.0, 0.0)
        self.machine = {}
        self.left_out = []


def run(
    *,
    quick: bool = False,
    workloads: Sequence[Workload] = (),
    budget: float = BUDGET,
    progress: Progress = lambda text: None,
) -> Result:
    """Time all contestants that are installed; `progress` gets a line of text now and then.

    After Ctrl-C the result has what was measured until then. Raises ArithmeticError where two
    contestants compute different numbers.
    """
    wanted = tuple(workloads) or (QUICK if quick else WORKLOADS)
    measured = Measured(installed())
    _name_absent(measured, progress)
    interrupted = False
    start = time.monotonic()
    with unpinned() as unset:
        try:
            for d in dict.fromkeys(w.d for w in wanted):  # new processes forget the last width
                of_width = [w for w in wanted if w.d == d]
                limits = (start + budget, start + budget + LAST - BUDGET)
                _measure_all(measured, of_width, limits, 0.05 if quick else AT_LEAST, progress)
        except KeyboardInterrupt:
            interrupted = True
        except TimeoutError:
            progress("no time for more")
    facts = Facts(
        cores=cores(),
        sgemm=measured.peaks.flops,
        bandwidth=measured.peaks.bandwidth,
        unset=unset,
        left_out=[*measured.left_out, *(str(w) for w in wanted if w not in measured.times)],
        seconds=time.monotonic() - start,
        machine=measured.machine,
        interrupted=interrupted,
    )
    return Result(_rows(measured), facts)


def _name_absent(measured, progress):
    present = {CONTESTANTS[name].impl for name in measured.names}
    for impl in [impl for impl in IMPLS if impl not in present]:
        measured.left_out.append(f"{impl} (not installed)")
        progress(f"{impl} is not installed, and left out")


# --- measuring ------------------------------------------------------------------------------------


def _measure_all(measured, workloads, limits, at_least, progress):
    with Runner(measured.names, CONTESTANTS, serve) as runner:
        for w in workloads:
            if time.monotonic() + _expected(measured, w) > limits[0]:
                progress(f"no time for {w}")
                continue
            begin = time.monotonic()
            _measure(runner, measured, w, limits[1], at_least, progress)
            measured.cost[w] = time.monotonic() - begin
            progress(f"{w} ({measured.cost[w]:.1f} s)")


def _expected(measured, w):
    """Seconds that a workload will probably take, by the costliest measured one of its kind."""
    known = [
        seconds * max(1.0, floor(w, measured.peaks) / floor(before, measured.peaks))
        for before, seconds in measured.cost.items()
        if before.what == w.what
    ]
    return min(known, default=0.0)


def _measure(runner, measured, w, last, at_least, progress):
    """All contestants on one workload: results, times in turns, memory."""
    names = [name for name in measured.names if w.what in CONTESTANTS[name].whats]
    ask = _Asking(runner, measured, last, progress)
    peaks, measured.machine = runner.ask("peaks", "peaks")
    measured.peaks = Peaks(*np.maximum(peaks, measured.peaks).tolist())
    times = {}
    results = {}
    for name in names:
        results |= ask.all([name], "prepare", w)
        check_same(w, results)
        for _, seconds in ask.all([name], "time", at_least).items():
            measured.times.setdefault(w, times)[name] = [seconds]
    for _ in range(ROUNDS - 1):
        begin = time.monotonic()
        for name, seconds in ask.all(times, "time", at_least).items():
            times[name].append(seconds)
        if 2 * time.monotonic() - begin > last:
            break
    measured.memory[w] = ask.all(times, "peak")


class _Asking:
    """Asks contestants in turn, and leaves out those that fail, end, or do not answer in time."""

    def __init__(self, runner, measured, last, progress):
        self.runner = runner
        self.measured = measured
        self.last = last
        self.progress = progress

    def all(self, names, *message):
        """{name: answer} of the contestants that still take part. Raises TimeoutError at the end
        of the time.
        """
        answers = {}
        for name in [name for name in names if name in self.measured.names]:
            left = self.last - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                patience = min(left, PATIENCE) if CONTESTANTS[name].libraries else left
                answer = self.runner.ask(name, *message, timeout=patience)
            except ChildProcessError as error:
                answer = FailureText(str(error).removeprefix(f"{name}: "))
            if isinstance(answer, FailureText):
                self._leave_out(name, answer)
            else:
                answers[name] = answer
        return answers

    def _leave_out(self, name, answer):
        if time.monotonic() >= self.last:
            raise TimeoutError
        if name in ("moe_np", "dense"):
            raise ChildProcessError(f"{name}: {answer}")
        self.measured.names.remove(name)
        self.measured.left_out.append(f"{name} ({answer})")
        self.progress(f"{name}: {answer}; left out from here on")


def check_same(w: Workload, results: dict[str, Any]) -> None:
    """Raises ArithmeticError where a contestant with our parameters has another result: the loss
    of the first step, logits, or the first token of each sequence.
    """
    reference = results["moe_np"]
    for name, result in results.items():
        if name == "dense":
            continue
        error = np.abs(np.asarray(result, np.float64) - reference).max()
        if error > 1e-3 * np.abs(reference).max():
            raise ArithmeticError(f"{name}: another result than moe_np for {w}")


# --- results --------------------------------------------------------------------------------------


def _rows(measured):
    return [
        _row(measured, w, impl)
        for w, times in measured.times.items()
        for impl in IMPLS
        if any(CONTESTANTS[name].impl == impl for name in times)
    ]


def _row(measured, w, impl):
    times = measured.times[w]
    names = [name for name in times if CONTESTANTS[name].impl == impl]
    fastest = min(names, key=lambda name: min(times[name]))
    seconds = min(times[fastest])
    return {
        "what": w.what,
        "impl": impl,
        "d": w.d,
        "layers": w.layers,
        "experts": 1 if impl == "dense" else w.experts,
        "batch": w.batch,
        "length": w.length,
        "seconds": seconds,
        "tokens_per_second": w.tokens / seconds,
        "ratio_floor": seconds / floor(w, measured.peaks, impl == "dense"),
        "ratio_moe_np": seconds / min(times["moe_np"]),
        "variant": CONTESTANTS[fastest].variant,
        "peak_bytes": measured.memory.get(w, {}).get(fastest),
    }


def table(result: Result) -> str:
    """The rows as Markdown."""
    facts = result.facts
    settings = ", ".join(f"{k}={v}" for k, v in facts.unset.items()) or "none"
    lines = [
        f"{facts.machine.get('processor', '')}, {facts.machine.get('blas', '')}, float32, "
        f"{facts.cores} cores: sgemm {facts.sgemm / 1e9:.0f} GFLOP/s, copy "
        f"{facts.bandwidth / 1e9:.0f} GB/s. The least time of all rounds.",
        f"BLAS settings: {settings} found, run without.",
        "",
        "| what | d | batch | length | impl | variant | ms | tokens/s | x floor | x moe_np | MB |",
        "|" + "---|" * 11,
    ]
    for row in result.rows:
        numbers = (row[key] for key in ("what", "d", "batch", "length", "impl", "variant"))
        megabytes = "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
        cells = [*map(str, numbers), f"{1e3 * row['seconds']:.4g}"]
        cells += [f"{row['tokens_per_second']:,.0f}", f"{row['ratio_floor']:.2f}"]
        cells += [f"{row['ratio_moe_np']:.2f}", megabytes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", what_was_done(facts)])


def what_was_done(facts: Facts) -> str:
    """What the time was enough for."""
    done = f"{facts.seconds:.0f} s." + (" Interrupted." if facts.interrupted else "")
    return done + (f" Left out: {'; '.join(facts.left_out)}." if facts.left_out else "")
