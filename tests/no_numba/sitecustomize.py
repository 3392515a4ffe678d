"""Put this folder on PYTHONPATH and no Python process, child or parent, finds Numba."""

import sys

sys.modules["numba"] = None
