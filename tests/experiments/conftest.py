"""What the tests of several experiments share: the runs of the smoke forms."""

import pytest

from moe_np.experiments.common.sweep import Sweep


@pytest.fixture(scope="session")
def smoke_sweep(tmp_path_factory):
    """The name of an experiment -> a sweep that keeps the runs of its smoke form, for which several
    tests ask.
    """
    folder = tmp_path_factory.mktemp("smoke")
    return lambda name: Sweep(folder / name, jobs=1, progress=False)
