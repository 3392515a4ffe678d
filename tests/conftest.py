"""What all tests share: the profiles of Hypothesis, and both kernels as a fixture.

Hypothesis draws the same examples in every run, so that a test that fails, fails everywhere.
HYPOTHESIS_PROFILE=search draws other ones.
"""

import os
import signal
import sys
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
