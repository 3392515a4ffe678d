"""More and more experts, and where they go: verdicts that change with the numbers."""

import numpy as np
import pytest

from moe_np.experiments.why_it_works import more_experts
from moe_np.mixtures.jacobs1991_net import init_net

NOISE = 0.02 * np.random.default_rng(0).normal(size=10)


def more_cells(mixture, net):
    """A summary with these rises of the log errors from 4 to 8 experts."""
    means = {name: [1.0, 0.1] for name in ("train", "test", "error", "net")}
    rises = ((1, 0.0, 0.0), (4, 0.0, 0.0), (8, mixture, net))
    return [
        {"experts": E, **means, "n": 10, "median test": -float(E)}
        | {"log error": (a + NOISE).tolist(), "log net": (b + NOISE**2).tolist()}
        for E, a, b in rises
    ]


def test_overfitting_is_that_of_mixtures_only_beyond_a_network_that_grows_alike():
    holds, words = more_experts.more_verdict(more_cells(1.0, 0.0))
    assert holds == "holds" and "changes by 1.00" in words
    assert more_experts.more_verdict(more_cells(1.0, 1.0))[0] == "not supported"
    assert more_experts.more_verdict(more_cells(0.0, 1.0))[0] == "not supported"


@pytest.mark.parametrize("n_experts", [2, 4, 8, 12])
def test_the_network_has_as_many_parameters(n_experts):
    hidden = more_experts.units_of_equal_size(n_experts)
    net = init_net(np.random.default_rng(0), hidden, 2, 1)
    mixture = 3 * n_experts + 3 * (n_experts - 1) + 1
    assert abs(sum(p.size for p in net.values()) - mixture) <= 2


def harder_cells(waves, pairs):
    curve = [
        {"amplitude": a, "more": (more + NOISE).tolist()} for a, more in ((0.0, 0.0), (1.0, waves))
    ]
    cell = {"front wrong": [3.0, 0.1], "back wrong": [15.0, 0.1], "more": [pairs] * 10, "n": 10}
    return {"curve": curve, "vowels": [{"experts": E, **cell} for E in (4, 8)]}


def test_the_verdict_on_harder_regions_changes_with_the_numbers():
    holds, words = more_experts.harder_verdict(harder_cells(2.0, 0))
    assert holds == "holds under a condition"
    assert "not supported for back pair, 4 experts and back pair, 8 experts" in words
    assert more_experts.harder_verdict(harder_cells(2.0, 1))[0] == "holds"
    assert more_experts.harder_verdict(harder_cells(0.0, 0))[0] == "not supported"


def test_a_single_run_with_a_second_expert_does_not_decide():
    cells = harder_cells(2.0, 0)
    for cell in cells["vowels"]:
        cell["more"] = [1] + [0] * 9
    assert more_experts.harder_verdict(cells)[0] == "holds under a condition"
