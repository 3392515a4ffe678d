"""Hypothesis draws the same examples in every run, so that a red test is red for everybody.

HYPOTHESIS_PROFILE=search draws fresh ones.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
