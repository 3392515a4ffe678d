"""Who took which region, by the gate of a dense mixture and by the table of a sparse one."""

import types

import numpy as np

from moe_np.experiments.why_it_works import allocation
from moe_np.experiments.why_it_works.tasks import patches


def test_the_expert_that_the_gate_prefers_takes_the_pair():
    x = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
    data = types.SimpleNamespace(x_train=x, vowel_train=np.array([0, 1, 2]))
    params = {"U": np.zeros((2, 8)), "c": np.zeros(8)}
    params["U"][1, 5] = 3.0  # expert 5 for the front pair, expert 2 for the back pair
    params["U"][1, 2] = -3.0
    assert allocation.taken_vowels(data, params) == [5, 2]


def test_the_expert_with_most_samples_of_a_cluster_takes_it():
    cluster = patches(40).train.cluster
    expert = 7 - cluster
    first = types.SimpleNamespace(expert=np.zeros_like(cluster))
    last = types.SimpleNamespace(expert=expert)
    assert allocation.taken_patches(iter([first, last]), 40) == [7, 6, 5, 4]


def test_seeds_of_experts_gate_and_noise_are_apart():
    def end(*seeds, **options):
        *_, last = allocation.train_patches(*seeds, n=60, epochs=2, **options)
        return last.params["w"]

    base = end(1, 2, 3, gate_scale=0.1)
    assert (base == end(1, 2, 3, gate_scale=0.1)).all()
    for other in ((9, 2, 3), (1, 9, 3), (1, 2, 9)):
        assert (base != end(*other, gate_scale=0.1)).any()
    assert (end(1, 2, None) == end(1, 9, None)).all()  # without a scale the gate begins at 0
