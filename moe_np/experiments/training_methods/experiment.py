"""Ways to train the same mixtures: quality, specialisation, time and failures from 25 starts on
three problems.

The methods are those of `moe_np.training`, the problems those of training_problems.py. There is no
publication to compare with; `PAPER` holds what popular articles say of each method, and
training_claims.py what was measured of it.

**Budget.** Every method gets `Config.passes` passes over the training data
(`moe_np.training.methods.method` says what a pass is), and no step that would go beyond them.
"CMA-ES, 10 times" gets ten times as many and spends them on a larger population. Each method has
one knob at most, a step size, chosen by `explore` on seeds of its own.
"""

import ast
import dataclasses
import inspect
import itertools
import time

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.base.machine import one_blas_thread
from moe_np.base.numerics import softmax
from moe_np.base.params import flatten, unflatten
from moe_np.experiments.common.sweep import versions
from moe_np.experiments.training_methods import claims, problems, report
from moe_np.layers import diagnostics
from moe_np.mixtures import jacobs1991
from moe_np.training.methods import (
    alternating,
    cma_es,
    em,
    evolutionary,
    hard,
    joint,
    method,
    separate,
)

PROBLEMS = problems.NAMES


# what `explore` found best of Config.grid: lr of Adam, or σ of the first mutations
KNOBS = tuple(
    (problem, system, value)
    for system, own in {
        "one expert": (0.03, 0.01, 0.01),
        "joint": (0.1, 0.03, 0.1),
        "alternating": (0.3, 0.03, 0.1),
        "separate": (1.0, 0.03, 0.1),
        "straight-through": (0.3, 0.03, 0.03),
        "REINFORCE": (1.0, 0.03, 0.03),
        "evolution strategy": (1.0, 0.3, 0.1),
        "CMA-ES": (0.1, 0.1, 0.3),
        "CMA-ES, 10 times": (0.3, 0.3, 0.3),
    }.items()
    for problem, value in zip(PROBLEMS, own, strict=True)
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Our own choices."""

    seeds: int = 25
    passes: int = 2000
    longer: int = 10  # times the passes, for one evolutionary system
    tuning: float = 0.5  # of the passes, for joint training that goes on where another method ended
    knobs: tuple = KNOBS  # ((problem, system, value), ...)
    grid: tuple = (0.01, 0.03, 0.1, 0.3, 1.0)  # what `explore` tries
    grid_seeds: int = 5  # on seeds 1000, 1001, ... that the experiment itself does not use


PAPER = {  # what popular articles say, not a measurement
    "joint": "simple and efficient, but experts may compete",
    "separate": "easy to manage, but may leave experts incompatible with each other",
    "alternating": "makes experts more compatible, but is slower",
    "gradient": "common and efficient, but gets stuck in local optima",
    "evolutionary": "explores more configurations and avoids local optima, but is complex and slow",
}

# name -> (module, iterator of steps from (task, rng, knob, passes))
SYSTEMS = {
    "one expert": (joint, lambda task, rng, knob, _: joint.train(task.problem, rng, lr=knob)),
    "joint": (joint, lambda task, rng, knob, _: joint.train(task.problem, rng, lr=knob)),
    "alternating": (
        alternating,
        lambda task, rng, knob, _: alternating.train(task.problem, rng, lr=knob),
    ),
    "separate": (
        separate,
        lambda task, rng, knob, passes: separate.train(
            task.problem, rng, lr=knob, expert_steps=passes // 2
        ),
    ),
    "separate, true regions": (
        separate,
        lambda task, rng, knob, passes: separate.train(
            task.problem, rng, lr=knob, expert_steps=passes // 2, labels=task.region
        ),
    ),
    "EM": (em, lambda task, rng, knob, _: em.train(task.problem, rng)),
    "straight-through": (
        hard,
        lambda task, rng, knob, _: hard.train(
            task.problem, rng, lr=knob, estimator="straight_through"
        ),
    ),
    "REINFORCE": (hard, lambda task, rng, knob, _: hard.train(task.problem, rng, lr=knob)),
    "evolution strategy": (
        evolutionary,
        lambda task, rng, knob, _: evolutionary.train(task.problem, rng, sigma=knob),
    ),
    "CMA-ES": (cma_es, lambda task, rng, knob, _: cma(task.problem, rng, knob)),
    "CMA-ES, 10 times": (
        cma_es,
        lambda task, rng, knob, _: cma(task.problem, rng, knob, children=POPULATION),
    ),
}
LONGER = "CMA-ES, 10 times"
TUNED = (
    "joint",
    "alternating",
    "separate",
    "separate, true regions",
)  # joint training goes on from where these end
KNOBLESS = ("EM",)
KNOB_OF = {"separate, true regions": "separate"}
POINTS = 50  # of a curve
POPULATION = 50  # children of the long CMA-ES: fewer leave it in local optima of the pieces, more take too long
LARGE = 100  # numbers in a mixture; above, CMA-ES learns variances only


def cma(problem, rng, sigma, children=None):
    """CMA-ES, in its diagonal form for mixtures of many numbers, whose full matrix would take far
    longer to learn.
    """
    start = problem.init(rng)
    diagonal = flatten(start).size > LARGE
    return cma_es.train(
        problem, rng, initial=start, sigma=sigma, children=children, diagonal=diagonal
    )


# --- one run --------------------------------------------------------------------------------------


def checkpoints(passes):
    """Where a curve is looked at: POINTS numbers of passes, from 2 to all of them, evenly in their
    logarithm.
    """
    return np.geomspace(2, passes, POINTS)


def start(spec):
    """The task and the iterator of a spec."""
    choice("system", spec["system"], tuple(SYSTEMS))
    task = problems.task(spec["problem"], 1 if spec["system"] == "one expert" else problems.E)
    rng = np.random.default_rng(spec["seed"])
    return task, rng, SYSTEMS[spec["system"]][1](task, rng, spec["knob"], spec["passes"])


def until(steps, passes):
    """The steps within so many passes, and always the first."""
    for step in steps:
        if step.passes > passes and step.number > 0:
            return
        yield step


def sampled(steps, passes):
    """The last step within each number of passes, (one a checkpoint); the first where none is."""
    points, out, last = checkpoints(passes), [], None
    for step in until(steps, passes):
        while last is not None and len(out) < POINTS and points[len(out)] < step.passes:
            out.append(last)
        last = step
    return out + [last] * (POINTS - len(out))


def run_one(spec):
    """Train by one method from one seed, and measure what came out. All is of `spec`: no times in
    here.
    """
    task, rng, steps = start(spec)
    problem, measure = task.problem, np.random.default_rng([spec["seed"], 1])
    seen = sampled(steps, spec["passes"])
    end = seen[-1]
    chosen = assignment(problem, end.params, task.x_test)
    information = diagnostics.mutual_information(chosen, task.region_test, measure)
    p = softmax(problem.gate_forward(end.params["gate"], task.x_test)[0])
    found = {
        "loss": end.loss,
        "quality": problem.quality(end.params, task.x_test, task.y_test),
        "quality_hard": problem.quality(end.params, task.x_test, task.y_test, hard=True),
        "specialisation": 100 * (information.bits - information.permuted) / information.label_bits,
        "idle": int((~jacobs1991.active_experts(p)).sum()),
        "variety": variety([assignment(problem, tried(step), problem.x) for step in seen[::3]]),
        "passes": end.passes,
        "losses": [step.loss for step in seen],
    }
    if spec["system"] in TUNED:
        again = joint.train(problem, rng, initial=end.params, lr=spec["knob_joint"])
        *_, tuned = until(again, spec["tuning"] * spec["passes"])
        found["tuned_loss"] = tuned.loss
        found["tuned_quality"] = problem.quality(tuned.params, task.x_test, task.y_test)
    return found


def assignment(problem, params, x):
    """The expert with the largest p, case by case (N,)."""
    return problem.gate_forward(params["gate"], x)[0].argmax(axis=1)


def tried(step):
    """A configuration that was looked at in this step: its parameters, or one child of its
    generation (all alike).
    """
    vectors = getattr(step.cache, "vectors", None)
    return step.params if vectors is None else unflatten(vectors[0], step.params)


def variety(assignments):
    """How much routings differ from each other: the mean over pairs of 1 − Rand index, in %.

    That is the share of pairs of cases that have one expert in common under the one routing and not
    under the other. It does not depend on how experts are numbered. assignments: a list of (N,).
    """
    shares = []
    for a, b in itertools.combinations(assignments, 2):
        counts = diagnostics.table(a, b).astype(float)
        both, rows, columns = (
            (n * n).sum() for n in (counts, counts.sum(axis=1), counts.sum(axis=0))
        )
        n = len(a)
        shares.append((rows + columns - 2 * both) / (n * (n - 1)))
    return 100 * float(np.mean(shares))


def spec_of(config, problem, system, seed, knob=None):
    """What determines a run, as JSON-able data."""
    knobs = {(p, s): value for p, s, value in config.knobs}
    own = None if system in KNOBLESS else knobs[problem, KNOB_OF.get(system, system)]
    return {
        "problem": problem,
        "system": system,
        "seed": seed,
        "knob": own if knob is None else knob,
        "passes": config.passes * (config.longer if system == LONGER else 1),
        "tuning": config.tuning,
        "knob_joint": knobs[problem, "joint"],
    }


# --- step sizes, times, lines of code -------------------------------------------------------------


def explore(config, sweep):
    """Try `config.grid` for every system on seeds of their own: [{"problem", "system", "best",
    "losses"}].

    The best knob has the lowest mean of the final training loss: the test data have no say.
    """
    systems = [s for s in SYSTEMS if s not in KNOBLESS and s not in KNOB_OF]
    cells = list(itertools.product(PROBLEMS, systems, config.grid))
    seeds = range(1000, 1000 + config.grid_seeds)
    bare = dataclasses.replace(config, knobs=tuple((p, s, 0.1) for p in PROBLEMS for s in systems))
    specs = [spec_of(bare, p, s, seed, knob) for p, s, knob in cells for seed in seeds]
    runs, out = iter(sweep.map(run_one, specs, "step sizes")), {}
    for problem, system, knob in cells:
        losses = [one["loss"] for one in itertools.islice(runs, config.grid_seeds)]
        out.setdefault((problem, system), {})[knob] = float(np.mean(losses))
    return [
        {"problem": p, "system": s, "best": min(found, key=found.get), "losses": found}
        for (p, s), found in out.items()
    ]


def seconds_a_pass(config, rounds=2):
    """{problem: {system: seconds}}: a run of seed 0 on one thread over its passes, the least of
    `rounds`.
    """
    out = {problem: {} for problem in PROBLEMS}
    with one_blas_thread():
        for problem, system, _ in itertools.product(PROBLEMS, SYSTEMS, range(rounds)):
            spec = {**spec_of(config, problem, system, 0), "passes": config.passes}
            began = time.perf_counter()
            *_, end = until(start(spec)[2], spec["passes"])
            took = (time.perf_counter() - began) / end.passes
            out[problem][system] = min(took, out[problem].get(system, np.inf))
    return out


def lines_of_code(module):
    """Lines of a module without docstrings, comments and imports, each statement written out the
    same way.
    """
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            kept = [n for n in node.body if not isinstance(n, (ast.Import, ast.ImportFrom))]
            text = (
                kept and isinstance(kept[0], ast.Expr) and isinstance(kept[0].value, ast.Constant)
            )
            node.body = kept[1:] if text else kept
    return len([line for line in ast.unparse(tree).splitlines() if line.strip()])


# --- the experiment -------------------------------------------------------------------------------


def plan(config=None, *, seeds=None, quick=False):
    """config, seeds and all specs of `run`; quick: two seeds and a tenth of the passes."""
    config = Config() if config is None else config
    if quick:
        config = dataclasses.replace(config, passes=max(20, config.passes // 10))
    seeds = (2 if quick else config.seeds) if seeds is None else integer("seeds", seeds)
    cells = itertools.product(PROBLEMS, SYSTEMS, range(seeds))
    return config, seeds, [spec_of(config, *cell) for cell in cells]


def run(config=None, *, seeds=None, sweep, quick=False):
    """Every method on every problem from `seeds` starts: the dict that is written as
    training_methods.json.

    All but `seconds`, and what is made of them, is the same on every call. Seed s is the same run
    however many seeds are asked for.
    """
    config, seeds, specs = plan(config, seeds=seeds, quick=quick)
    runs = iter(sweep.map(run_one, specs, "ways to train"))
    systems = {p: {s: list(itertools.islice(runs, seeds)) for s in SYSTEMS} for p in PROBLEMS}
    result = {
        "name": "training_methods",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seeds)),
        "checkpoints": {
            s: checkpoints(config.passes * (config.longer if s == LONGER else 1)) for s in SYSTEMS
        },
        "systems": systems,
        "seconds": seconds_a_pass(config, 1 if quick else 2),
        "lines": {system: lines_of_code(module) for system, (module, _) in SYSTEMS.items()},
        "measures": {p: problems.task(p).measure for p in PROBLEMS},
        "paper": PAPER,
        "versions": versions(),
    }
    result["summary"] = {p: claims.summarise(result, p) for p in PROBLEMS}
    result["claims"] = claims.claims(result)
    return result


table = report.table
