"""Where a measured curve first takes a value, by a line between two of its places."""

import itertools
from collections.abc import Sequence


def first_crossing(values: Sequence[float], wanted: float) -> tuple[int, float] | None:
    """(i, share): `wanted` lies between the values i and i + 1, this share of the way from the
    first to the second; the first such i. None where no two neighbours have it between them.
    """
    for i, (before, after) in enumerate(itertools.pairwise(values)):
        if min(before, after) <= wanted <= max(before, after):
            return i, (wanted - before) / (after - before) if after != before else 0.0
    return None
