"""Made-up results of the comparison of training methods, for tests of its summary and claims."""

from moe_np.experiments.training_methods.summary import summarise


def made_up(**systems):
    """A result of one problem "p" with two checkpoints, 10 and 100 passes.

    Each system is a list of (early, final) losses.
    """
    return {**everywhere(("p",), systems), "seeds": list(range(len(next(iter(systems.values())))))}


def everywhere(problems, systems, gains=None):
    """A result with the same runs on all problems; `systems` as in `made_up`.

    gains   {system: what its experts gain when they go on, by seed}
    """
    runs = {
        name: [
            {"loss": final, "losses": [early, final], "quality": 100 - 50 * final, "passes": 100}
            for early, final in losses
        ]
        for name, losses in systems.items()
    }
    for runs_of_system in runs.values():
        for run in runs_of_system:
            run.update(quality_hard=0, specialisation=0, idle=0, variety=0)
    for name, values in (gains or {}).items():
        for run, gain in zip(runs[name], values, strict=True):
            run["tuned_loss"] = run["loss"] - gain
    return {
        "systems": dict.fromkeys(problems, runs),
        "checkpoints": {name: [10, 100] for name in runs},
        "seconds": {problem: dict.fromkeys(runs, 0.01) for problem in problems},
        "seconds_range": {problem: {name: [0.01, 0.01] for name in runs} for problem in problems},
        "lines": dict.fromkeys(runs, 1),
    }


def summarised(**systems):
    """`made_up` with its summary."""
    return with_summary(made_up(**systems))


def with_summary(result):
    """A result with the summary of each of its problems."""
    return {**result, "summary": {p: summarise(result, p) for p in result["systems"]}}
