"""Hypothesis draws the same examples in every run, so that a red test is red for everybody.

HYPOTHESIS_PROFILE=search draws fresh ones.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "browser: in a real browser (the extra `browser` and a Chromium); skipped without"
    )
    config.addinivalue_line("markers", "nbgrader: runs nbgrader itself (the extra of that name); skipped without")
