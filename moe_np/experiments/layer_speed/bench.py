"""How long the sparse layer takes, beside a dense net of the same active operations, the hardware's
limits, and peers.

    moe-np bench [--json] [--quick] [--expert swiglu|relu]

Every contestant has a process of its own (pools of threads disturb each other), gets the same data,
is warmed up, and computes router and experts, forward or forward and backward to the gradients of x
and of all parameters. What they return is compared. The contestants take turns, several rounds, and
the least time of each counts. Each round begins with new processes: where the arrays of a process
happen to lie in memory moves a small layer's time by some 5 %.

    moe_np                this package: `routing.top_k` and `sparse_layer`
    products_alone        the matrix products of moe_np and nothing else: what BLAS needs for these sizes
    dense_numpy           NumPy: one network of hidden size k·H on all tokens, no router: the same active operations
    numpy_mask_loop       NumPy: the usual loop over experts with a mask
    torch_loop            PyTorch, if installed: the same loop with index_add_, autograd
    transformers_mixtral  Transformers' Mixtral block, if installed (SwiGLU only): the fastest of its implementations

The floor is what the machine cannot beat: the larger of active operations / the best speed of a
matrix product, and bytes of weights and tokens that have to move / the best speed of copying,
measured between the rounds. The product is that of the same shape's minutes, since a clock changes
(here by 7 %), and the contestants are not to be charged for it.
"""

import contextlib
import importlib.util
import multiprocessing
import os

import numpy as np

from moe_np.base.checks import choice
from moe_np.experiments.layer_speed.contestants import (
    CONTESTANTS,
    EXPERTS,
    Shape,
    cores,
    least_time,
    limits,
    problem,
)

MODES = ("forward", "forward+backward")

# some shells export these, and NumPy's products take twice as long
SETTINGS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

SHAPES = (
    *(
        Shape(256, 64, 8),
        Shape(4096, 64, 8),
        Shape(4096, 64, 64),
        Shape(4096, 256, 8),
        Shape(4096, 256, 64),
    ),
    *(Shape(256, 256, 64), Shape(4096, 512, 8), Shape(16384, 64, 256), Shape(16384, 512, 8)),
)
QUICK = (Shape(256, 64, 8), Shape(1024, 64, 8))


# --- one process a contestant ---------------------------------------------------------------------


def _digest(result):
    """One number for each array, on the scale of its norm: enough to see two that differ."""
    out, dx, grads = result
    arrays = {"out": out, "x": dx, **grads}
    return {
        name: float(
            (a * np.cos(np.arange(a.size)).reshape(a.shape)).sum() / (np.linalg.norm(a) + 1e-30)
        )
        for name, a in arrays.items()
    }


def _serve(prepare, pipe):
    """The loop of a contestant's process: ("prepare", kind, shape), ("digest",) or ("time",
    backward, at_least), until None.
    """
    step = None
    while (message := pipe.recv()) is not None:
        if message[0] == "prepare":
            step = None  # frees the arrays of the last one
            step = prepare(problem(*message[1:]))
            answer = None
            if prepare is not limits:
                step(False)
                step(True)
        elif message[0] == "digest":
            answer = _digest(step(True))
        elif prepare is limits:
            answer = step(None)
        else:
            answer = least_time(step, message[1], at_least=message[2])
        pipe.send(answer)


class Runner:
    """The contestants' processes; use as a context manager. `ask` gives one of them something to
    do, and waits.
    """

    def __init__(self, names):
        context = multiprocessing.get_context(
            "spawn"
        )  # a fresh process reads the BLAS settings anew
        self._pipes, self._processes = {}, {}
        for name in names:
            ours, theirs = context.Pipe()
            prepare = limits if name == "limits" else CONTESTANTS[name][0]
            self._processes[name] = context.Process(
                target=_serve, args=(prepare, theirs), daemon=True
            )
            self._processes[name].start()
            theirs.close()
            self._pipes[name] = ours

    def ask(self, name, *message):
        try:
            self._pipes[name].send(message)
            return self._pipes[name].recv()
        except (EOFError, ConnectionError):
            self._processes[name].join()
            code = self._processes[name].exitcode
            raise ChildProcessError(f"{name}: its process ended with status {code}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes.values():
            process.terminate()
            process.join()


@contextlib.contextmanager
def unpinned():
    """The environment without `SETTINGS`, for the processes to start in: yields what was found."""
    found = {name: os.environ.pop(name) for name in SETTINGS if name in os.environ}
    try:
        yield found
    finally:
        os.environ.update(found)


def _check_same(kind, shape, digests):
    ours = digests["moe_np"]
    for name, theirs in digests.items():
        for array, value in theirs.items() if name not in ("dense_numpy", "products_alone") else ():
            if abs(value - ours[array]) > 0.02 * (
                1 + abs(value)
            ):  # a near tie that falls the other way moves .01
                raise ArithmeticError(
                    f"{name}: another {array} than moe_np at {tuple(shape)}, {kind} experts"
                )


def floor(kind, shape, backward, flops, bandwidth):
    """Seconds below which the machine cannot go, in float32. Training reads weights twice and
    writes their gradient.
    """
    matrices = 3 if kind == "swiglu" else 2
    N, d, E, k, H = shape.tokens, shape.d, shape.experts, shape.k, shape.hidden
    operations = 2 * N * k * matrices * d * H + 2 * N * d * E
    weights, tokens = matrices * min(E, N * k) * d * H, 2 * N * d
    passes = 3 if backward else 1
    return max(
        passes * operations / flops,
        4 * (passes * weights + (2 if backward else 1) * tokens) / bandwidth,
    )


def run(kind="swiglu", *, quick=False, say=lambda text: None):
    """Time all contestants: -> (rows, facts). rows are dicts, one a shape, mode and contestant;
    facts say how.

    `say` is called with a line of text now and then.
    """
    choice("--expert", kind, tuple(EXPERTS))
    wanted = {
        n: needs
        for n, (_, needs) in CONTESTANTS.items()
        if kind == "swiglu" or n != "transformers_mixtral"
    }
    names = [
        name for name, needs in wanted.items() if all(importlib.util.find_spec(m) for m in needs)
    ]
    shapes, rounds, at_least = (QUICK, 2, 0.05) if quick else (SHAPES, 5, 0.2)
    times, peak, bandwidth = {}, {}, 0.0
    with unpinned() as found:
        for i in range(rounds):
            with Runner([*names, "limits"]) as runner:
                runner.ask("limits", "prepare", kind, QUICK[0])
                for shape in shapes:
                    say(
                        f"round {i + 1} of {rounds}: {shape.tokens} tokens, d {shape.d}, {shape.experts} experts"
                    )
                    _ask_all(runner, names, say, "prepare", kind, shape)
                    if i == 0:
                        _check_same(kind, shape, _ask_all(runner, names, say, "digest"))
                    flops, moved = runner.ask("limits", "time")
                    peak[shape], bandwidth = max(flops, peak.get(shape, 0)), max(moved, bandwidth)
                    for mode in MODES:
                        for name, seconds in _ask_all(
                            runner, names, say, "time", mode == MODES[1], at_least
                        ).items():
                            times.setdefault((shape, mode), {}).setdefault(name, []).append(seconds)
    rows = [
        _row(kind, *key, name, own, peak[key[0]], bandwidth)
        for key, own in times.items()
        for name in own
    ]
    facts = {
        "expert": kind,
        "cores": cores(),
        "bandwidth": bandwidth,
        "unset": found,
        "rounds": rounds,
    }
    return rows, facts | {"sgemm": (min(peak.values()), max(peak.values()))}


def _ask_all(runner, names, say, *message):
    """Ask the contestants in turn. A peer that cannot go on, for want of memory as a rule, leaves
    `names`.
    """
    answers = {}
    for name in tuple(names):
        try:
            answers[name] = runner.ask(name, *message)
        except ChildProcessError as error:
            if name in ("moe_np", "dense_numpy"):
                raise
            say(f"{error}; left out from here on")
            names.remove(name)
    return answers


def _row(kind, shape, mode, name, times, peak, bandwidth):
    seconds = min(times[name])
    return {
        "tokens": shape.tokens,
        "d": shape.d,
        "hidden": shape.hidden,
        "experts": shape.experts,
        "k": shape.k,
        "mode": mode,
        "impl": name,
        "expert": kind,
        "seconds": seconds,
        "ratio_dense": seconds / min(times["dense_numpy"]),
        "ratio_floor": seconds / floor(kind, shape, mode == MODES[1], peak, bandwidth),
    }


def table(rows, facts):
    """The rows as Markdown: milliseconds, and in brackets the multiple of the floor."""
    names = list(dict.fromkeys(row["impl"] for row in rows))
    found = ", ".join(f"{k}={v}" for k, v in facts["unset"].items()) or "none"
    sgemm, copy = (
        (f"{each / 1e9:.0f}" for each in facts["sgemm"]),
        f"{facts['bandwidth'] / 1e9:.0f} GB/s",
    )
    lines = [
        f"float32, {facts['expert']} experts, hidden = 4d, {facts['cores']} cores: sgemm {' to '.join(sgemm)} GFLOP/s "
        f"from shape to shape, copy {copy}. Milliseconds, least of {facts['rounds']} rounds [x the floor].",
        f"BLAS settings: {found} found, run without.",
        "",
        "| tokens | d | experts | k | mode | " + " | ".join(names) + " | moe_np / dense |",
        "|" + "---|" * (6 + len(names)),
    ]
    cases = {}
    for row in rows:
        key = tuple(row[k] for k in ("tokens", "d", "experts", "k", "mode"))
        cases.setdefault(key, {})[row["impl"]] = row
    for key, own in cases.items():
        cells = [
            f"{1e3 * own[n]['seconds']:.3g} [{own[n]['ratio_floor']:.2f}]" if n in own else "–"
            for n in names
        ]
        ratio = f"{own['moe_np']['ratio_dense']:.2f}"
        lines.append("| " + " | ".join([*map(str, key), *cells, ratio]) + " |")
    return "\n".join(lines)
