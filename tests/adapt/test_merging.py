"""Merging: permuted copies give the function that they are, an upcycled model the dense one."""

import numpy as np
import pytest

from moe_np.adapt import layer_parts, merging, upcycling
from moe_np.base.checks import InputError
from moe_np.layers.mixture_layer import KINDS
from tests.support.adapted import DENSE, SPARSE, difference, ids_of, params_of

every_kind = pytest.mark.parametrize("kind", ["swiglu", "gelu", "relu"])


def expert(kind, seed=0, hidden=9):
    rng = np.random.default_rng(seed)
    params = KINDS[kind].init(rng, 5, 1, hidden)
    return {name: p[0] + 0.1 * rng.normal(size=p[0].shape) for name, p in params.items()}


def outputs(kind, one):
    x = np.random.default_rng(9).normal(size=(20, 5))
    return KINDS[kind].forward(layer_parts.stacked([one]), x, np.array([0, 20]))[0]


def shuffled(one, seed=1):
    return merging.permuted(one, np.random.default_rng(seed).permutation(len(one["w2"])))


@every_kind
def test_the_order_of_the_hidden_units_does_not_matter(kind):
    one = expert(kind)
    other = shuffled(one)
    assert not np.array_equal(one["w1"], other["w1"])
    np.testing.assert_allclose(outputs(kind, other), outputs(kind, one), rtol=1e-12, atol=1e-12)


@every_kind
def test_permuted_copies_merge_into_the_same_function(kind):
    one = expert(kind)
    copies = [one, shuffled(one, 1), shuffled(one, 2)]
    merged = merging.merge(copies, [1, 2, 3])
    np.testing.assert_allclose(outputs(kind, merged), outputs(kind, one), atol=1e-12)
    unaligned = merging.merge(copies, [1, 2, 3], align=False)
    assert np.abs(outputs(kind, unaligned) - outputs(kind, one)).max() > 0.1


@every_kind
def test_the_alignment_is_found_through_noise_and_is_the_best(kind):
    rng = np.random.default_rng(4)
    one = expert(kind)
    order = rng.permutation(9)
    noisy = {name: p + 0.01 * rng.normal(size=p.shape) for name, p in one.items()}
    found = merging.alignment(merging.permuted(noisy, order), one)
    np.testing.assert_array_equal(order[found], np.arange(9))


def test_the_mean_is_weighted():
    a, b = expert("gelu", 0), expert("gelu", 1)
    merged = merging.merge([a, b], [3, 1], align=False)
    np.testing.assert_allclose(merged["b1"], 0.75 * a["b1"] + 0.25 * b["b1"])
    equal = merging.merge([a, b], [0, 0], align=False)
    np.testing.assert_allclose(equal["w1"], 0.5 * a["w1"] + 0.5 * b["w1"])


@pytest.mark.parametrize("align", [True, False])
def test_an_upcycled_model_becomes_the_dense_one_again(align):
    params = params_of(DENSE)
    new = upcycling.upcycle(DENSE, params, experts=4, rng=np.random.default_rng(0))
    back = merging.to_dense(*new, align=align)
    assert back[0] == DENSE._replace(options=back[0].options, dense_layers=())
    assert difference((DENSE, params), back) < 1e-12


def test_groups_of_permuted_copies_with_equal_columns_merge_without_a_change():
    """Experts 0 and 1, and 2 and 3, are the same; a token passes all four with weights that add up
    to 1: after the merge it passes both."""
    config = SPARSE._replace(options={"k": 4, "renormalise": True})
    params = params_of(config)
    for layer in params["layers"]:
        for kept, copy in ((0, 1), (2, 3)):
            order = np.random.default_rng(copy).permutation(8)
            twin = merging.permuted(layer_parts.expert_of(layer, kept), order)
            for name, p in twin.items():
                layer["experts"][name][copy] = p
            layer["router"]["w"][:, copy] = layer["router"]["w"][:, kept]
    halved = config._replace(options={"k": 2, "renormalise": True})
    groups = [[[0, 1], [3, 2]]] * 2
    merged = merging.merge_groups(halved, params, groups, [np.array([1.0, 2, 3, 4])] * 2)
    assert merged[0].experts == 2
    assert difference((config, params), merged) < 1e-12


def test_groups_by_use_are_led_by_the_most_used():
    params = params_of(SPARSE)
    groups, use = merging.groups_by_use(SPARSE, params, ids_of(), keep=2)
    for of_layer, used in zip(groups, use, strict=True):
        assert sorted(m for group in of_layer for m in group) == [0, 1, 2, 3]
        assert {group[0] for group in of_layer} == set(np.argsort(used)[-2:])
    new = merging.merge_groups(SPARSE, params, groups, use)
    assert new[0].experts == 2
    assert np.isfinite(difference((SPARSE, params), new))


def test_experts_with_like_logits_are_grouped():
    params = params_of(SPARSE)
    for layer in params["layers"]:
        w = layer["router"]["w"]
        w[:, 3] = w[:, 1] * 0.9
        w[:, 2] = w[:, 0] * 0.9
    groups, _ = merging.groups_by_use(SPARSE, params, ids_of(), keep=2)
    for of_layer in groups:
        leaders = {group[0] for group in of_layer}
        for group in of_layer:
            for m in group[1:]:  # 0 and 2 have equal directions, and 1 and 3
                assert (m ^ 2) not in leaders or m ^ 2 == group[0]


def test_bad_input_is_one_clear_error():
    with pytest.raises(InputError, match="wanted experts of one shape"):
        merging.merge([expert("gelu"), expert("gelu", hidden=8)])
    with pytest.raises(InputError, match="wanted experts of one shape"):
        merging.alignment(expert("gelu"), expert("swiglu"))
    with pytest.raises(InputError, match="at least one expert to merge, got none"):
        merging.merge([])
    with pytest.raises(InputError, match="none below 0, got -1"):
        merging.merge([expert("relu")] * 2, [2, -1])
    params = params_of(SPARSE)
    with pytest.raises(InputError, match="keep: wanted from k = 2 to 4 experts"):
        merging.groups_by_use(SPARSE, params, ids_of(), keep=1)
    with pytest.raises(InputError, match="each of 4 experts once"):
        merging.merge_groups(SPARSE, params, [[[0, 1], [2]]] * 2)
    with pytest.raises(InputError, match=r"keep: .*got 1"):
        merging.merge_groups(SPARSE, params, [[[0, 1, 2, 3]]] * 2)
    with pytest.raises(InputError, match="groups for 2 layers, got 1"):
        merging.merge_groups(SPARSE, params, [[[0, 1], [2, 3]]])
    with pytest.raises(InputError, match="no shared experts, got 1"):
        merging.to_dense(SPARSE._replace(shared=1), params_of(SPARSE._replace(shared=1)))
    wide = SPARSE._replace(dense_layers=(0,), dense_hidden=11)
    with pytest.raises(InputError, match="dense layers of 8 hidden units, got 11"):
        merging.to_dense(wide, params_of(wide))
