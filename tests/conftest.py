"""What all tests share: the tier --quick, the profiles of Hypothesis, both kernels as a fixture.

Hypothesis draws the same examples in every run, so that a test that fails, fails everywhere.
HYPOTHESIS_PROFILE=search draws other ones.
"""

import os
import signal
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import settings

# Matplotlib's list of fonts belongs to this environment: one that another set-up left half done in
# the person's folder would put other fonts into the pictures, and warnings into the notebooks.
os.environ["MPLCONFIGDIR"] = str(Path(sys.prefix) / "matplotlib")

collect_ignore = ["support/additions"]  # for a copy of the checkout, see test_contributing.py

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


# --quick leaves out tests with these markers, and those that make an experiment's smoke form
MARKERS_OF_LONG_TESTS = ("seconds", "slow", "nightly", "parity", "browser", "mpi", "nbgrader")
FIXTURE_OF_EXPERIMENTS = "smoke_sweep"


def _takes_long(item):
    marked = any(item.get_closest_marker(name) for name in MARKERS_OF_LONG_TESTS)
    return marked or FIXTURE_OF_EXPERIMENTS in getattr(item, "fixturenames", ())


def pytest_addoption(parser):
    parser.addoption(
        "--quick",
        action="store_true",
        help="one case of each test, and no test that takes a second or more",
    )


@pytest.hookimpl(trylast=True)  # after -k and -m, so that a case is one of those that they leave
def pytest_collection_modifyitems(config, items):
    """With --quick: of each function one case, by a hash of its name, so that all routers, types
    and kernels have their turn and each call takes the same ones.
    """
    if not config.getoption("--quick"):
        return
    cases = {}
    for item in items:
        if not _takes_long(item):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {group[zlib.crc32(name.encode()) % len(group)] for name, group in cases.items()}
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


@pytest.fixture(params=[pytest.param("numpy", marks=pytest.mark.numpy_kernels), "numba"])
def backend(request, monkeypatch):
    """Both kernels; with the JIT switched off the compiled loops run in the interpreter."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("MOE_NP_KERNELS", request.param)
    return request.param


@pytest.fixture
def answers_interrupts():
    """SIGINT raises KeyboardInterrupt, here and in processes that start here, also where the tests
    themselves were started in the background of a shell, which ignores it for them.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
