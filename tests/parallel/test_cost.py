"""The model of cost: its formulas by hand."""

import numpy as np
import pytest

from moe_np.parallel import cost
from moe_np.parallel.cost import Machine, Work

MACHINE = Machine(
    flops=1e12, memory_bandwidth=1e11, bandwidth=1e9, local_bandwidth=1e10, node=8, alpha=1e-5
)


def test_an_all_to_all_by_hand():
    """64 ranks of which 8 are near: 56 messages, and 7/8 of the bytes over the slow wire."""
    assert cost.all_to_all(1e6, 64, MACHINE) == pytest.approx(56e-5 + 0.875e-3)
    assert cost.all_to_all(1e6, 8, MACHINE) == pytest.approx(7e-5 + 0.875e-4)
    assert cost.all_to_all(1e6, 1, MACHINE) == 0
    assert cost.all_to_all(1e6, 64, MACHINE, messages=1) == pytest.approx(1e-5 + 0.875e-3)


def test_two_steps_save_messages_and_move_more():
    small = [f(1e4, 512, MACHINE) for f in (cost.all_to_all, cost.two_level_all_to_all)]
    assert small[1] < small[0] / 5
    large = [f(1e9, 64, MACHINE) for f in (cost.all_to_all, cost.two_level_all_to_all)]
    assert large[1] > large[0]
    with pytest.raises(ValueError, match="ranks: wanted a multiple of 8, of a node, got 12"):
        cost.two_level_all_to_all(1.0, 12, MACHINE)


def test_a_ring_by_hand():
    assert cost.all_reduce(1e6, 64, MACHINE) == pytest.approx(126e-5 + 2 * 63 / 64 * 1e-3)
    assert cost.all_reduce(1e6, 4, MACHINE) == pytest.approx(6e-5 + 1.5e-4)
    assert cost.all_reduce(1e6, 1, MACHINE) == 0


def test_the_share_of_the_wire_does_not_depend_on_tokens_d_or_k():
    """Mixtral on A100 over 25 GB/s: .16; DeepSeek-V3's small experts at 50 GB/s, 400 TFLOP/s."""
    a100 = Machine(flops=125e12, bandwidth=25e9, local_bandwidth=300e9)
    assert cost.wire_share(14336, a100) == pytest.approx(0.155, abs=0.001)
    assert cost.wire_share(14336, a100, between=False) == pytest.approx(0.013, abs=0.001)
    h800 = Machine(flops=400e12, bandwidth=50e9)
    assert cost.wire_share(2048, h800) == pytest.approx(1.74, abs=0.01)
    tokens, k, d, H = 100, 3, 64, 256
    operations = 6 * tokens * k * 3 * d * H
    seconds = 4 * tokens * k * d * 2 / MACHINE.bandwidth
    share = seconds / (operations / MACHINE.flops)
    assert cost.wire_share(H, MACHINE) == pytest.approx(share)


@pytest.mark.seconds
def test_touched_experts_are_those_of_random_choices():
    assert cost.touched(32, 2, 0) == 0
    assert cost.touched(32, 2, 1) == pytest.approx(2)
    assert cost.touched(32, 32, 5) == 32
    rng = np.random.default_rng(0)
    drawn = [
        len({e for _ in range(20) for e in rng.choice(32, 2, replace=False)}) for _ in range(4000)
    ]
    assert cost.touched(32, 2, 20) == pytest.approx(np.mean(drawn), abs=0.1)
    with pytest.raises(ValueError, match="k: wanted a whole number of at least 1 and at most 4"):
        cost.touched(4, 5, 1)


def test_a_roofline_is_the_longer_of_two():
    assert cost.roofline(1e12, 1e9, MACHINE) == 1
    assert cost.roofline(1e6, 1e11, MACHINE) == 1


def test_plans_by_hand():
    """Mixtral on 64 devices: memory by parameters, messages by the rows of 32 layers."""
    machine = Machine()
    data, tensor, expert = cost.plans("mixtral-8x7b", 64, machine)
    total, experts = 46_702_792_704, 45_097_156_608
    assert data.memory == 16 * total
    assert tensor.memory == 16 * total / 64
    assert expert.memory == 16 * (total - experts + experts / 8)
    assert data.computing == expert.computing == 6 * 12_748_587_008 * 4096 / machine.flops
    rows = 4 * 32 * cost.all_to_all(4096 * 2 * 4096 * 2, 8, machine)
    rest = cost.all_reduce((total - experts) * 2, 64, machine)
    replicas = cost.all_reduce(experts / 8 * 2, 8, machine._replace(node=1))
    assert expert.messages == pytest.approx(rows + rest + replicas)
    assert data.messages == pytest.approx(cost.all_reduce(total * 2, 64, machine))
    assert 0 < expert.share < data.share < 1
    assert expert.seconds == expert.computing + expert.messages


def test_a_forward_pass_of_few_tokens_is_bound_by_reading():
    work = Work(tokens=1, training=False)
    data, _, expert = cost.plans("mixtral-8x7b", 8, Machine(), work)
    assert data.messages == 0
    rest, experts = 46_702_792_704 - 45_097_156_608, 45_097_156_608
    assert data.computing == pytest.approx((rest + experts * 2 / 8) * 2 / 1.5e12)
    used = cost.touched(8, 2, 8) / 8
    assert expert.computing == pytest.approx((rest + experts / 8 * used) * 2 / 1.5e12)
    assert data.memory == 2 * (rest + experts)
    assert cost.plans("mixtral-8x7b", 1, Machine())[2].messages == 0
