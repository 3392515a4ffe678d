"""A result of short runs, and a sweep, for the tests of Jordan and Jacobs (1994)."""

import pytest

from moe_np.experiments import jordan1994
from moe_np.experiments.common.sweep import Sweep


@pytest.fixture
def sweep():
    with Sweep(jobs=1, progress=False) as sweep:
        yield sweep


@pytest.fixture(scope="package")
def result(smoke_sweep):
    with smoke_sweep("jordan1994") as sweep:
        return jordan1994.run(sweep=sweep, **jordan1994.SMOKE)
