"""How a report says which differences its runs can show: one sentence, the same in all reports.

    power_sentence({"a less b": interval}, 5, "nats per token")
    power_sentence({"a": {"mean": 3.1, "sd": 0.2}, ...}, 25, "epochs", paired=False)

The sizes are those of `moe_np.experiments.common.power` for the spread of the very runs: a guide to
how many runs a repetition needs, and no second opinion on the differences that were observed.
"""

import math
from collections.abc import Mapping
from typing import Any

from moe_np.base.checks import integer
from moe_np.experiments.common.power import ALPHA, POWER, smallest_difference
from moe_np.experiments.common.reports import decimal, join, plural

AT_MOST = 4  # names that are listed one by one


def power_sentence(
    values: Mapping[str, Any],
    n: int,
    unit: str = "",
    *,
    digits: int = 3,
    runs: str = "seed",
    paired: bool = True,
) -> str:
    """From which size on n runs show a difference in 80 % of the cases, as a paragraph.

    values   {name: what the spread is read from}: a record of `statistics.Interval` of a paired
             difference, or the mean and sample SD as a dict or a pair: of the paired differences,
             or if not paired of the runs of one system; None is left out
    unit     of the differences

    An empty text where `values` is empty.
    """
    if not values:
        return ""
    n = integer("n", n)
    spreads = {name: spread_of(value, n) for name, value in values.items()}
    known = {name: sd for name, sd in spreads.items() if sd is not None}
    if n == 1 or not known:
        return f"**Power.** {plural(n, runs)} cannot show any difference: the spread is not known."
    sizes = {name: smallest_difference(n, sd, paired=paired) for name, sd in known.items()}
    kind = "paired t test" if paired else "t test of two systems that vary as the one named does"
    text = ", ".join(f"{decimal(size, digits)} ({name})" for name, size in sizes.items())
    if len(sizes) > AT_MOST:
        ends = [choose(sizes, key=sizes.__getitem__) for choose in (min, max)]
        text = join((f"{decimal(sizes[name], digits)} ({name})" for name in ends), "to")
    unit = f" {unit}" if unit else ""
    return (
        f"**Power.** With {plural(n, runs)}{'' if paired else ' each'} a difference would be seen "
        f"in {100 * POWER:.0f} % of the cases ({kind}, p < {ALPHA:g}) from this size on: "
        f"{text}{unit}."
    )


def spread_of(value: Any, n: int) -> float | None:
    """The sample SD that a value stands for; None where it is not known.

    A t interval has the half width t · s / √n with n − 1 degrees of freedom.
    """
    if value is None or n == 1:
        return None
    if not isinstance(value, Mapping):
        return value[1]
    if "sd" in value:
        return value["sd"]
    if value["low"] is None or value["high"] is None:
        return None
    from scipy import stats

    level = value.get("level", 0.95)
    half = (value["high"] - value["low"]) / 2
    return half * math.sqrt(n) / float(stats.t.ppf((1 + level) / 2, n - 1))
