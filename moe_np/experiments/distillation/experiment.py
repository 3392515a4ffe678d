"""Distillation (Fedus et al. 2021, arXiv 2101.03961, table 6): the dense decoder, its teacher with
experts, and students with the operations per token of both.

    system                  student before training          share of soft targets
    teacher                 –                                (a mixture, ordinary training)
    dense                   –                                (the baseline, ordinary training)
    teacher, twice as long  –                                (both again, for twice as many
    dense, twice as long    –                                updates)
    soft targets            new                              1
    copied weights          + the teacher's that are no      1
                            experts' and routers'
    and hard targets        the same                         .25
    copied weights alone    the same                         0, the control
    merged experts          experts merged by use            .25   (half the operations)
    one expert per token    the teacher's, k = 1             .25   (half the operations)

Teacher, baseline and students are trained for equally many updates on equal minibatches. A student
with weights of the teacher has the teacher's updates too. So its *frame*, dense and teacher, are
those that are trained for twice as many; the frame of new students are the others. (A first run
had one frame for all. There the control kept more than the whole gain: what a thousand updates more
bring, which at this scale is more than the gain, would have been taken for distillation.)

Criteria. The teacher has a *gain* where the whole 95 % interval of the paired difference of the
least validation losses, teacher less dense of the same frame, lies below 0. Only then shares are
printed, (student − dense)/(teacher − dense) by seed, with their standard deviation, and only of
students that *keep something*: the interval of student less dense lies below 0. *Distillation helps
beside the control* where the interval of a student with copied weights less the control lies below
0; in the paper it does, and the control is no better than dense.
"""

import dataclasses

from moe_np.adapt import distillation, layer_parts
from moe_np.experiments.common import pretrained, small_decoders, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.small_decoders import Sizes
from moe_np.experiments.common.statistics import describe, paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.common.verdicts import is_below_0
from moe_np.models import decoder_config
from moe_np.training import loop

TEACHER = "teacher"
DENSE = "dense"
TEACHER_LONG = "teacher, twice as long"
DENSE_LONG = "dense, twice as long"
CONTROL = "copied weights alone"
STUDENTS = {  # system: (way of `distillation.student`, share of soft targets)
    "soft targets": ("new", 1.0),
    "copied weights": ("copied", 1.0),
    "and hard targets": ("copied", 0.25),
    CONTROL: ("copied", 0.0),
    "merged experts": ("merged", 0.25),
    "one expert per token": ("fewer", 0.25),
}
WITH_COPIES = tuple(system for system, (way, _) in STUDENTS.items() if way != "new")
SYSTEMS = (TEACHER, DENSE, TEACHER_LONG, DENSE_LONG, *STUDENTS)
LOOKED_AT = 64  # windows by which experts are weighted in the mean

# Fedus et al. 2021, table 6: negative log perplexity, T5-Base against Switch-Base of 3,800 million
# parameters, and table 7: the share kept at 82 to 99 % compression
PAPER = {
    "quality": {
        DENSE: -1.636,
        TEACHER: -1.444,
        "soft targets": -1.631,
        "copied weights": -1.598,
        "and hard targets": -1.580,
        CONTROL: -1.639,
    },
    "share": {"soft targets": 3, "copied weights": 20, "and hard targets": 29},
    "share by compression": {82: 37, 90: 32, 95: 30, 97: 27, 99: 28},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    every: int = 100  # updates between validations
    seeds: int = 5


OPTIONS: tuple[Option, ...] = ()
SMOKE = {"config": Config(small_decoders.SMOKE, every=2, seeds=1)}
QUICK = Config(small_decoders.QUICK, every=20, seeds=1)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(_spec, config, SYSTEMS, seeds=seeds, only=only)


def _spec(config, system, seed):
    updates = config.sizes.updates * (2 if system in (TEACHER_LONG, DENSE_LONG) else 1)
    dense = system in (DENSE, DENSE_LONG)
    model = small_decoders.model_spec(config.sizes, seed, dense=dense, updates=updates)
    facts = {"learning_rate": config.sizes.learning_rate, "every": config.every}
    return {"system": system, "seed": seed, "model": model, **facts}


def run_one(spec: Spec) -> Result:
    """Train one system from one seed: its parameters, and its validation losses."""
    model = small_decoders.pretrained_of(spec["model"])
    facts = {"system": spec["system"], "seed": spec["seed"]}
    if spec["system"] not in STUDENTS:
        _, validations = model.records
        curve = [record["validation_loss"] for record in validations]
        return {**facts, "validation": curve, **_sizes(model.config)}
    way, soft = STUDENTS[spec["system"]]
    config, params = _student(way, model, spec["seed"])
    updates = spec["model"]["updates"]
    workspace = {}

    def gradients_of(trained, minibatch, rng):
        ids, targets = minibatch
        teacher = (model.config, model.params)
        options = {"soft": soft, "rng": rng, "workspace": workspace}
        return distillation.loss_and_grads(
            trained, ids, targets, config, teacher=teacher, **options
        )

    def validation_of(trained):
        return small_decoders.loss_on(config, trained, model.validation, model.length)

    curve = small_decoders.further(
        params,
        gradients_of,
        small_decoders.windows(model),
        validation_of,
        loop.Options(updates, spec["learning_rate"], seed=spec["seed"]),
        every=spec["every"],
    )
    return {**facts, "validation": curve.validation[1:], **_sizes(config)}


def _student(way, model, seed):
    if way == "fewer":
        return distillation.fewer_choices(model.config, 1), model.params
    rng = small_decoders.generator(seed)
    rows = model.train[: LOOKED_AT * model.length].reshape(-1, model.length)
    return distillation.student(way, model.config, model.params, rng=rng, ids=rows)


def _sizes(config):
    k = layer_parts.choices(config) if config.experts > 1 else 1
    counts = decoder_config.architecture(config)
    return {"experts": config.experts, "k": k, "expert width": counts.d_expert or counts.d_ff}


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (5; 1 if quick): what is written as distillation.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        small_decoders.pretrain(sweep, chosen)
        runs = sweep.map(run_one, chosen, "distillation")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "distillation",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        against_dense=against_dense(by_system),
        against_control=against_control(by_system),
        shares=shares(by_system),
    )


def least(runs: list[Result]) -> list[float]:
    """The least validation loss of each run, by seed."""
    return [min(run["validation"]) for run in runs]


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system."""
    width = runs[0]["k"] * runs[0]["expert width"]
    return {"least": describe(least(runs)).record("mean", "sd"), "active width": width}


def frame(system: str) -> tuple[str, str]:
    """(dense, teacher) with which a system is compared: those with as many updates."""
    long = system in WITH_COPIES or system == TEACHER_LONG
    return (DENSE_LONG, TEACHER_LONG) if long else (DENSE, TEACHER)


def against_dense(by_system: dict[str, list[Result]]) -> dict:
    """{system: interval of its least validation loss less that of the dense model of its frame}."""
    intervals = {}
    for system, runs in by_system.items():
        dense = by_system.get(frame(system)[0], [])
        if dense and runs and system not in (DENSE, DENSE_LONG):
            intervals[system] = paired_interval(least(runs), least(dense)).record()
    return intervals


def against_control(by_system: dict[str, list[Result]]) -> dict:
    """{student with all copied weights: interval of its least loss less that of the control}."""
    control = by_system.get(CONTROL, [])
    return {
        system: paired_interval(least(by_system[system]), least(control)).record()
        for system, (way, _) in STUDENTS.items()
        if way == "copied" and system != CONTROL and control and by_system.get(system)
    }


def shares(by_system: dict[str, list[Result]]) -> dict:
    """{student: mean and sd by seed of the share of the teacher's gain that it keeps}, of students
    that keep something of a gain, each in its own frame.
    """
    differences = against_dense(by_system)
    kept = {}
    for system in STUDENTS:
        dense, teacher = frame(system)
        if all(is_below_0(differences.get(name)) for name in (system, teacher)):
            triples = zip(
                *(least(by_system[name]) for name in (system, dense, teacher)), strict=True
            )
            kept[system] = describe([(s - d) / (t - d) for s, d, t in triples]).record("mean", "sd")
    return kept
