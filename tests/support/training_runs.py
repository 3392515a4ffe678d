"""Made-up results of the comparison of training methods, for tests of its summary and claims."""

from moe_np.experiments.training_methods.summary import summarise


def made_up(**systems):
    """A result of one problem "p" with two checkpoints, 10 and 100 passes.

    Each system is a list of (early, final) losses.
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
    return {
        "systems": {"p": runs},
        "checkpoints": {name: [10, 100] for name in runs},
        "seconds": {"p": dict.fromkeys(runs, 0.01)},
        "seconds_range": {"p": {name: [0.01, 0.02] for name in runs}},
        "seeds": list(range(len(next(iter(runs.values()))))),
    }


def summarised(**systems):
    """`made_up` with its summary."""
    result = made_up(**systems)
    result["summary"] = {"p": summarise(result, "p")}
    return result
