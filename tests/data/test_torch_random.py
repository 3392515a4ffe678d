"""PyTorch's stream without PyTorch: against its printed numbers, and PyTorch itself if there."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import torch_random

RAND_11 = [2500505.0, 8163007.0, 16536656.0, 2825307.0]
CONV_12_WEIGHT = ["bd224955", "be9dfd74", "bd5f9d00", "3dce0160", "bdd80a14", "bedc6abb"]
CONV_12_BIAS = ["3e22536b", "be987eaa"]
PERM_9 = [[2, 0, 1, 3], [1, 3, 2, 0], [3, 2, 0, 1]]


def test_rand_gives_the_numbers_torch_2_13_printed():
    # torch.manual_seed(11); torch.rand(4) * 2**24
    assert (torch_random.rand(torch_random.manual_seed(11), 4) * 2**24).tolist() == RAND_11


def test_conv1d_gives_the_numbers_torch_2_13_printed():
    # torch.manual_seed(12); torch.nn.Conv1d(1, 2, 3): weight and bias as hexadecimal bits
    weight, bias = torch_random.conv1d(torch_random.manual_seed(12), 2, 3)
    assert [f"{v:08x}" for v in weight.ravel().view(np.uint32)] == CONV_12_WEIGHT
    assert [f"{v:08x}" for v in bias.view(np.uint32)] == CONV_12_BIAS


def test_randperms_give_the_numbers_torch_2_13_printed():
    # torch.manual_seed(9); [torch.randperm(4) for _ in range(3)]
    assert torch_random.randperms(torch_random.manual_seed(9), 3, 4).tolist() == PERM_9


def test_values_are_multiples_of_two_to_the_minus_24():
    u = torch_random.rand(torch_random.manual_seed(0), 100, 100)
    assert u.dtype == np.float32 and u.shape == (100, 100)
    assert u.min() >= 0 and u.max() < 1
    assert (u * 2**24 == np.floor(u * 2**24)).all()


def test_randperms_are_permutations_all_equally_likely():
    perms = torch_random.randperms(torch_random.manual_seed(1), 24000, 4)
    _, counts = np.unique(perms, axis=0, return_counts=True)
    assert len(counts) == 24 and (np.sort(perms, axis=1) == np.arange(4)).all()
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # chi square, 23 degrees of freedom, p = .001


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(InputError, match="seed: wanted"):
        torch_random.manual_seed(seed)


def test_few_normal_numbers_are_refused():
    with pytest.raises(InputError, match="count: wanted"):
        torch_random.skip_normal(torch_random.manual_seed(0), 15)


@pytest.mark.parametrize("seed", [0, 9, 11, 12, 2**32 - 1, 123456789012])
def test_the_whole_stream_against_torch(seed):
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    stream = torch_random.manual_seed(seed)
    assert np.array_equal(torch.rand(300, 7).numpy(), torch_random.rand(stream, 300, 7))
    for low, high in ((-0.3, 0.7), (0, 1), (2.5, 2.75)):
        assert np.array_equal(
            torch.empty(1001).uniform_(low, high).numpy(),
            torch_random.uniform(stream, low, high, 1001),
        )
    for filters, fan_in in ((16, 50), (80, 50), (1, 3)):
        conv = torch.nn.Conv1d(1, filters, fan_in, fan_in)
        weight, bias = torch_random.conv1d(stream, filters, fan_in)
        assert np.array_equal(conv.weight.detach().numpy().reshape(filters, fan_in), weight)
        assert np.array_equal(conv.bias.detach().numpy(), bias)
    for count in (16, 90, 1024):
        torch.normal(0, 1e-5, size=(count,))
        torch_random.skip_normal(stream, count)
    for n in (2, 4, 9):
        assert np.array_equal(
            [torch.randperm(n).numpy() for _ in range(5)], torch_random.randperms(stream, 5, n)
        )
    assert torch.rand(1).item() == torch_random.rand(stream, 1)[0]  # both stand at the same word
