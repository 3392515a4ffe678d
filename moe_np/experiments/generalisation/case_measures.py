"""What is measured of the runs of one seed: differences, ratios of times, doublings of the data."""

import math
from collections.abc import Callable

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.generalisation.runs import steps_to

Measure = Callable[..., float]  # of the runs of the cells, of one seed


def less(key: str, subtracted: str | None = None, key_of_b: str | None = None) -> Measure:
    """a[key] − b[key]; with `subtracted` the same of a rise: key less subtracted. `key_of_b`: where
    that of b is another.
    """

    def value(run, key):
        return run[key] - (run[subtracted] if subtracted else 0)

    return lambda a, b: value(a, key) - value(b, key_of_b or key)


def less_twice(key: str) -> Measure:
    """(a − b) − (c − d) of a key."""
    return lambda a, b, c, d: (a[key] - b[key]) - (c[key] - d[key])


def log_time_ratio(unit: str) -> Measure:
    """Log of the time of a over that of b until both are at the level that the worse of them
    reaches: steps times `unit`, which is "seconds" or "operations".
    """

    def ratio(a: Result, b: Result) -> float:
        level = max(min(run["validation"]) for run in (a, b))
        times = [steps_to(run, level) * run[unit] for run in (a, b)]
        return math.log(times[0] / times[1])

    return ratio


def doublings(few: Result, some: Result, many: Result, other: Result) -> float:
    """How many doublings of its training cases a system needs to have the test loss that another
    one has with `some` cases; on straight lines over the log of the number, and between the two
    ends: with the fewest cases better, or with the most worse, says no more.
    """
    sizes = [math.log2(run["cases"] / some["cases"]) for run in (few, some, many)]
    losses = [run["test"] for run in (few, some, many)]
    level = other["test"]
    if losses[0] <= level:
        return sizes[0]
    for i in (1, 2):
        if losses[i] <= level:
            share = (losses[i - 1] - level) / (losses[i - 1] - losses[i])
            return sizes[i - 1] + share * (sizes[i] - sizes[i - 1])
    return sizes[-1]
