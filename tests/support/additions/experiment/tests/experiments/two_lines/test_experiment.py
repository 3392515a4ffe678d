"""One line and two lines on y = |x|: what the errors should be."""

import pytest

from moe_np.experiments import two_lines
from moe_np.experiments.common.sweep import Sweep


def test_one_line_has_the_error_of_the_mean_and_two_lines_that_of_the_noise():
    with Sweep(jobs=1, progress=False) as sweep:
        result = two_lines.run(sweep=sweep)
    error = {name: ours["error"]["mean"] for name, ours in result["summary"].items()}
    uniform = 1 / 12**0.5  # the standard deviation of |x|
    assert error["one line"] == pytest.approx((uniform**2 + 0.01) ** 0.5, rel=0.1)
    assert error["two lines"] < 0.6 * error["one line"]
    assert "| two lines | 0." in two_lines.report(result)
