"""The robot arm under other choices: covariances of the experts, and ranges of the surrogate.

All ranges leave the linear map an error of .31; how hard the rest is differs. So no choice of them
can reproduce a published error, and for many published errors one could be found.
"""

import itertools

from moe_np.data import arm
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.jordan1994.runs import SYSTEMS, Config, run_one, spec_of

SEEDS = 3
COVARIANCES = ("shared", "expert", "full")
COVARIANCE_SYSTEMS = ("HME, Algorithm 1", "HME, Algorithm 2")
RANGE_SYSTEMS = ("linear", "backprop", "HME, Algorithm 1", "CART, linear")
BACKPROP_EPOCHS = 1500  # at most, to save time


def cells(config: Config) -> list[tuple[str, str, str, Spec]]:
    """[("covariances" or "ranges", name of the choice, system, changes of the spec)]."""
    out = []
    for name, system in itertools.product(COVARIANCES, COVARIANCE_SYSTEMS):
        out.append(("covariances", name, system, {"covariance": name}))
    for name, system in itertools.product(arm.RANGES, RANGE_SYSTEMS):
        shorter = {"epochs": backprop_epochs(config)} if system == "backprop" else {}
        out.append(("ranges", name, system, {"ranges": name, **shorter}))
    return out


def backprop_epochs(config: Config) -> int:
    """The epochs of backprop here."""
    return min(BACKPROP_EPOCHS, config.epochs[SYSTEMS.index("backprop")])


def run(config: Config, *, sweep: Sweep, quick: bool = False) -> Result:
    """{"covariances": {name: {system: errors}}, "ranges": {name: {system: errors}}, "backprop
    epochs"}, the errors of 3 seeds (1 if quick).
    """
    seeds = 1 if quick else SEEDS
    choices = cells(config)
    specs = [
        spec_of(config, system, seed, **changes)
        for _, _, system, changes in choices
        for seed in range(seeds)
    ]
    results = sweep.map(run_one, specs, "other choices")
    out = {"covariances": {}, "ranges": {}, "backprop epochs": backprop_epochs(config)}
    for i, (table, name, system, _) in enumerate(choices):
        errors = [result["error"] for result in results[i * seeds : (i + 1) * seeds]]
        out[table].setdefault(name, {})[system] = errors
    return out
