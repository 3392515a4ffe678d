"""ST-MoE's threshold for the second expert."""

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.routing import gshard, st_moe, top_k
from tests.support.routers import Case

CASES = {
    "st_moe": Case(st_moe, {"threshold": 0.4}, full=False, fewest=2),
    "st_moe random": Case(
        st_moe,
        {"of": "pair", "second": "random", "capacity_factor": 0.75},
        noisy=True,
        causal=False,
        full=False,
        fewest=2,
    ),
}

# the second is 1/4, 1/5 + and 1/5 − of the first
P = np.array([[0.60, 0.15, 0.25 - 0.13], [0.80, 0.161, 0.039], [0.80, 0.159, 0.041]])


def test_the_second_is_kept_above_one_fifth_of_the_first():
    routing, _ = st_moe.route({"w": np.eye(3)}, np.log(P))
    pairs = list(zip(routing.token, routing.expert, strict=True))
    assert pairs == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    np.testing.assert_allclose(
        routing.weight, [0.8, 0.2, 0.8 / 0.961, 0.161 / 0.961, 0.8 / 0.959], rtol=1e-12
    )
    assert routing.demand.sum() == 5, "a second that is not worth it was not asked"


def test_of_the_pair_one_fifth_means_one_quarter_of_the_first():
    for ratio, count in ((0.251, 2), (0.249, 1)):
        routing, _ = st_moe.route({"w": np.eye(2)}, np.log([[1.0, ratio]]), of="pair")
        assert len(routing.token) == count


@pytest.mark.parametrize(("of", "share"), [("first", 0.1), ("pair", 1 / 11)])
def test_by_chance_the_second_is_asked_in_proportion(of, share):
    x = np.log(np.tile([1.0, 0.1], (20_000, 1)))
    routing, _ = st_moe.route(
        {"w": np.eye(2)}, x, of=of, second="random", rng=np.random.default_rng(0)
    )
    assert abs((routing.expert == 1).sum() / 20_000 - share / 0.2) < 0.012
    sure, _ = st_moe.route(
        {"w": np.eye(2)}, x + np.array([0, 1]), of=of, second="random", rng=np.random.default_rng(0)
    )
    assert (sure.expert == 1).sum() == 20_000, "a share above the threshold is certain"


def test_without_a_generator_chance_is_the_threshold():
    x = np.random.default_rng(0).normal(size=(50, 4))
    a, b = (st_moe.route({"w": np.eye(4)}, x, second=s)[0] for s in ("random", "threshold"))
    assert all(np.array_equal(u, v) for u, v in zip(a, b, strict=True)) and 50 < len(a.token) < 100


def test_share_of_the_pair_against_one_half_by_chance_is_gshard():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 5))}
    x = rng.normal(size=(60, 3))
    options = {"capacity_factor": 0.7}
    as_gshard = {**options, "threshold": 0.5, "of": "pair", "second": "random"}
    ours, cache = st_moe.route(params, x, **as_gshard, rng=np.random.default_rng(1))
    by_code = {**options, "variant": "code"}
    other, other_cache = gshard.route(params, x, **by_code, rng=np.random.default_rng(1))
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_array_equal(a, b)
    for name in other_cache._fields:
        np.testing.assert_array_equal(getattr(cache, name), getattr(other_cache, name))


def test_threshold_0_is_top_2_and_threshold_1_the_best_alone():
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 5))}
    x = rng.normal(size=(9, 3))
    ours = st_moe.route(params, x, threshold=0)[0]
    other = top_k.route(params, x, k=2, renormalise=True)[0]
    for a, b in zip(ours, other, strict=True):
        np.testing.assert_allclose(
            a, b, rtol=1e-12
        )  # a compiled top-k gate differs in the last bits
    alone, _ = st_moe.route(params, x, threshold=1.0)
    assert alone.token.tolist() == list(range(9)) and (alone.weight < 1).all()


def test_a_second_that_is_not_asked_takes_no_place():
    # C = 1 for expert 1: the first token does not want it enough, so the second token gets it
    gates = np.array([[0.9, 0.06, 0.04], [0.1, 0.3, 0.6]])
    routing, _ = st_moe.route({"w": np.eye(3)}, np.log(gates), capacity_factor=0.5)
    assert list(zip(routing.token, routing.expert, strict=True)) == [(0, 0), (1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 1.5}, "threshold: wanted a .* of at least 0 and at most 1, got 1.5"),
        ({"threshold": np.nan}, "threshold: wanted a finite number of at least 0 .*, got nan"),
        ({"of": "second"}, "of: wanted one of first, pair"),
        ({"second": "never"}, "second: wanted one of threshold, random"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(InputError, match=words):
        st_moe.route({"w": np.eye(3)}, np.log(P), **options)
