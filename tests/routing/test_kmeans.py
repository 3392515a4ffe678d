"""k-means routing: nearest centroids, Lloyd, k-means++, running means."""

import numpy as np
import pytest

from moe_np.base import numerics
from moe_np.base.checks import InputError
from moe_np.routing import kmeans
from tests.support.routers import Case, route, setup

CASES = {
    "kmeans": Case(kmeans, {"k": 1, "weights": "one"}, linear=False),
    "kmeans softmax": Case(
        kmeans, {"k": 2, "weights": "softmax", "temperature": 2.0}, linear=False, fewest=2
    ),
    "kmeans renormalised": Case(
        kmeans,
        {"k": 2, "weights": "softmax", "renormalise": True, "temperature": 2.0},
        linear=False,
        fewest=2,
    ),
}


def blobs(seed=0, N=200, E=4, D=3, spread=0.3):
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(E, D))
    label = rng.integers(0, E, N)
    return centres[label] + spread * rng.normal(size=(N, D)), label


def test_worked_by_hand():
    params = {"centroids": np.array([[0.0, 0], [3, 4]])}
    x = np.array([[0.0, 1], [3, 3], [0, 0]])
    routing, _ = kmeans.route(params, x, weights="one", temperature=2.0)
    assert routing.expert.tolist() == [0, 1, 0] and (routing.weight == 1).all()
    np.testing.assert_allclose(routing.logits, [[-0.5, -9], [-9, -0.5], [0, -12.5]], rtol=1e-12)
    soft, _ = kmeans.route(params, x, weights="softmax", temperature=2.0)
    np.testing.assert_allclose(
        soft.weight, [1 / (1 + np.exp(-8.5))] * 2 + [1 / (1 + np.exp(-12.5))], rtol=1e-12
    )


def test_distances_equal_a_naive_loop():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 5))
    c = rng.normal(size=(4, 5))
    naive = [[sum((x[n] - c[m]) ** 2) for m in range(4)] for n in range(7)]
    np.testing.assert_allclose(kmeans.distances(x, c), naive, rtol=1e-12)
    assert (kmeans.distances(1e8 + x, 1e8 + x) >= 0).all()


def test_softmax_weights_are_the_posterior_of_equal_gaussians():
    """exp(−‖x − c‖²/T): T = 2σ² gives the posterior of a mixture of Gaussians with variance σ² and
    equal shares.
    """
    rng = np.random.default_rng(0)
    params = {"centroids": rng.normal(size=(4, 3))}
    x = rng.normal(size=(9, 3))
    var = 0.7
    routing, _ = kmeans.route(params, x, k=4, weights="softmax", temperature=2 * var)
    density = np.exp(-((x[:, None] - params["centroids"]) ** 2).sum(axis=2) / (2 * var))
    np.testing.assert_allclose(
        routing.probs, density / density.sum(axis=1, keepdims=True), rtol=1e-12
    )


def test_a_small_temperature_is_the_hard_choice_and_k_of_e_the_dense_mixture():
    x, _ = blobs()
    params, _ = kmeans.fit(np.random.default_rng(0), x, 4)
    cold, _ = kmeans.route(params, x, weights="softmax", temperature=1e-3)
    np.testing.assert_allclose(cold.weight, 1, rtol=1e-9)
    a, _ = kmeans.route(params, x, k=4, weights="softmax", temperature=50.0)
    b, _ = kmeans.route(params, x, k=4, weights="softmax", renormalise=True, temperature=50.0)
    np.testing.assert_allclose(a.weight, b.weight, rtol=1e-10)
    np.testing.assert_allclose(a.weight.reshape(-1, 4).sum(axis=1), 1, rtol=1e-12)


def test_errata_03_renormalised_is_the_kept_probabilities_over_their_sum():
    x, _ = blobs(spread=3.0)
    params = kmeans.init(np.random.default_rng(1), 3, 5)
    routing, _ = kmeans.route(params, x, k=2, weights="softmax", renormalise=True, temperature=20.0)
    kept, _ = kmeans.route(params, x, k=2, weights="softmax", temperature=20.0)
    kept = kept.weight.reshape(-1, 2)
    np.testing.assert_allclose(
        routing.weight.reshape(-1, 2), kept / kept.sum(axis=1, keepdims=True), rtol=1e-10
    )


def test_with_weights_one_the_task_does_not_move_the_centroids():
    x, _ = blobs()
    routing, cache = kmeans.route(
        kmeans.init(np.random.default_rng(0), 3, 4), x, k=2, weights="one"
    )
    dx, grads = kmeans.route_backward(np.ones(len(routing.token)), None, cache)
    assert (dx == 0).all() and (grads["centroids"] == 0).all()


# --- Lloyd and k-means++ --------------------------------------------------------------------------


def test_lloyd_finds_the_blobs_and_never_gets_worse():
    for seed in range(5):
        x, label = blobs(seed)
        params, inertia = kmeans.fit(np.random.default_rng(seed), x, 4)
        assert (np.diff(inertia) <= 1e-9).all() and len(inertia) < 30
        routing, _ = kmeans.route(params, x, weights="one")
        if inertia[-1] < 1.5 * 0.09 * 3 * len(
            x
        ):  # not caught in a local optimum: Σ of N·D squares of variance .09
            assert len(set(zip(label.tolist(), routing.expert.tolist(), strict=True))) == 4
    assert inertia[-1] < 1.5 * 0.09 * 3 * len(x), "the last seed is one that ends well"


def test_where_lloyd_ends_each_centroid_is_the_mean_of_its_tokens():
    x = np.random.default_rng(0).normal(size=(300, 2))
    params, inertia = kmeans.fit(np.random.default_rng(1), x, 5)
    expert = kmeans.route(params, x, weights="one")[0].expert
    for m in range(5):
        np.testing.assert_allclose(params["centroids"][m], x[expert == m].mean(axis=0), rtol=1e-10)
    assert inertia[-1] == pytest.approx(
        sum(((x[expert == m] - params["centroids"][m]) ** 2).sum() for m in range(5))
    )


@pytest.mark.seconds
def test_k_means_plus_plus_draws_in_proportion_to_the_squared_distance():
    """From token 0, tokens at distances 1, 2 and 3 come next with probabilities 1/14, 4/14 and
    9/14.
    """
    x = np.array([[0.0], [1], [2], [3]])
    second = {0: [], 1: [], 2: [], 3: []}
    for seed in range(8_000):
        first, after = kmeans.initial_centroids(np.random.default_rng(seed), x, 2)[:, 0]
        second[int(first)].append(after)
    share = np.bincount(np.array(second[0], int), minlength=4) / len(second[0])
    np.testing.assert_allclose(
        share, [0, 1 / 14, 4 / 14, 9 / 14], atol=0.045
    )  # 2,000 draws: SD at most .011


def test_k_means_plus_plus_does_not_depend_on_the_unit():
    x, _ = blobs()
    for seed in range(5):
        large = kmeans.initial_centroids(np.random.default_rng(seed), x, 4)
        small = kmeans.initial_centroids(np.random.default_rng(seed), x / 1024, 4)
        np.testing.assert_array_equal(small * 1024, large)


def test_a_cluster_of_one_token_has_its_centroid_there():
    x = np.array([[0.0, 0], [0, 2], [50, 10]])
    params, inertia = kmeans.fit(np.random.default_rng(0), x, 2)
    centroids = params["centroids"][params["centroids"][:, 0].argsort()]
    np.testing.assert_allclose(centroids, [[0, 1], [50, 10]], atol=1e-12)
    assert inertia[-1] == pytest.approx(2)


def test_a_centroid_without_tokens_stays():
    x = np.repeat([[1.0, 0], [3, 0]], 3, axis=0)
    for seed in range(5):
        params, inertia = kmeans.fit(np.random.default_rng(seed), x, 3)
        assert set(params["centroids"][:, 0]) == {1, 3} and inertia[-1] == 0


def test_the_offset_of_points_that_are_far_from_0_and_close_together():
    points = np.array([[1000.0, 0], [1001, 2]])
    np.testing.assert_array_equal(kmeans.offset(points), [1000.5, 1])
    np.testing.assert_array_equal(kmeans.offset(points / 2**40), np.array([1000.5, 1]) / 2**40)
    for near in (points - [1000, 0], points[:1], points[:0]):
        np.testing.assert_array_equal(kmeans.offset(near), [0, 0])
    # just above and just below 30 times the spread
    assert kmeans.offset(np.array([[30.01], [32.01]]) - 1).any()
    assert not kmeans.offset(np.array([[29.99], [31.99]]) - 1).any()


def test_fewer_distinct_tokens_than_centroids():
    params, inertia = kmeans.fit(np.random.default_rng(0), np.ones((6, 2)), 3)
    assert np.array_equal(params["centroids"], np.ones((3, 2))) and inertia[-1] == 0
    with pytest.raises(
        InputError, match="x: wanted at least 3 tokens, the number of the centroids, got 2"
    ):
        kmeans.fit(np.random.default_rng(0), np.ones((2, 2)), 3)


# --- online ---------------------------------------------------------------------------------------


def test_online_worked_by_hand_and_nothing_changed_in_place():
    params = {"centroids": np.array([[0.0, 0], [10, 0]])}
    params["centroids"].flags.writeable = False
    x = np.array([[2.0, 0], [4, 0], [13, 3]])
    moved, count = kmeans.online(params, x)
    np.testing.assert_allclose(
        moved["centroids"], [[2, 0], [11.5, 1.5]]
    )  # (0 + 2 + 4)/3 and (10 + 13)/2, 3/2
    assert count.tolist() == [3, 2] and params["centroids"][0, 0] == 0
    moved, _ = kmeans.online(params, x, rate=0.1)
    np.testing.assert_allclose(moved["centroids"], [[0.3, 0], [10.3, 0.3]])


def test_online_token_by_token_is_the_running_mean_of_all_it_was_given():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    params = {"centroids": rng.normal(size=(3, 2))}
    count = None
    given = [[c] for c in params["centroids"]]
    for n in range(200):
        m = int(((x[n] - params["centroids"]) ** 2).sum(axis=1).argmin())
        given[m].append(x[n])
        params, count = kmeans.online(params, x[n : n + 1], count)
    np.testing.assert_allclose(params["centroids"], [np.mean(g, axis=0) for g in given], rtol=1e-10)
    assert count.tolist() == [len(g) for g in given]


def test_the_first_token_of_a_centroid_that_counts_as_none_is_its_mean():
    params = {"centroids": np.array([[0.0, 0], [100, 0]])}
    moved, count = kmeans.online(params, np.array([[3.0, 1]]), np.zeros(2))
    assert moved["centroids"].tolist() == [[3, 1], [100, 0]] and count.tolist() == [1, 0]


def test_online_leaves_a_centroid_without_tokens_where_it_is():
    params = {"centroids": np.array([[0.0, 0], [100, 0]])}
    for options in ({}, {"rate": 0.5}):
        moved, count = kmeans.online(params, np.ones((4, 2)), np.zeros(2), **options)
        assert moved["centroids"][1].tolist() == [100, 0] and count.tolist() == [4, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "none"}, "weights: wanted one of one, softmax; got 'none'"),
        (
            {"weights": "softmax", "renormalise": True, "k": 1},
            "the task's gradient of the router is 0",
        ),
        (
            {"weights": "one", "renormalise": True, "k": 2},
            "renormalise: wanted False with weights='one', got True",
        ),
        (
            {"weights": "one", "temperature": 0.0},
            "temperature: wanted a finite number above 0, got 0.0",
        ),
        ({"weights": "one", "k": 5}, "k: wanted at most the 4 experts there are, got 5"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        kmeans.route(kmeans.init(np.random.default_rng(0), 3, 4), np.ones((2, 3)), **options)


def test_one_expert():
    routing, _ = kmeans.route({"centroids": np.ones((1, 2))}, np.zeros((3, 2)), weights="softmax")
    assert (routing.weight == 1).all() and (routing.expert == 0).all()
    assert np.array_equal(routing.probs, numerics.softmax(routing.logits))


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_at_the_logits_moves_tokens_and_centroids_apart_or_together(name):
    """Of −‖x − c‖²/T: dc = (2/T) Σ_n dlogits (x − c), and dx its reverse."""
    params, x = setup(CASES[name])
    routing, cache = route(CASES[name], params, x)
    rng = np.random.default_rng(3)
    dweight = rng.normal(size=routing.weight.shape)
    dlogits = rng.normal(size=(12, 4))
    at_logits = kmeans.logits_backward(dweight, dlogits, cache)
    dx, grads = kmeans.route_backward(dweight, dlogits, cache)
    apart = x[:, None] - params["centroids"]  # (N, E, D)
    pull = 2 / cache.temperature * at_logits[:, :, None] * apart
    np.testing.assert_allclose(grads["centroids"], pull.sum(axis=0), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(dx, -pull.sum(axis=1), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("offset", [0, 1e2, 1e3, 1e4])
def test_an_offset_common_to_tokens_and_centroids_changes_no_choice(offset):
    """‖x‖² − 2 x·c + ‖c‖² loses everything where x and c are far from 0 and close together."""
    rng = np.random.default_rng(0)
    c = (rng.normal(size=(8, 4)) + offset).astype(np.float32)
    x = (rng.normal(size=(500, 4)) + offset).astype(np.float32)
    exact = ((x[:, None].astype(float) - c.astype(float)) ** 2).sum(axis=2)
    # the differences of float32 numbers are exact here: relative errors are those of the squares
    np.testing.assert_allclose(kmeans.distances(x, c), exact, rtol=2e-3, atol=1e-4)
    routing, cache = kmeans.route({"centroids": c}, x, weights="softmax")
    assert (routing.expert == exact.argmin(axis=1)).mean() > 0.998
    dweight = rng.normal(size=500).astype(np.float32)
    dx, grads = kmeans.route_backward(dweight, None, cache)
    pull = 2 * kmeans.logits_backward(dweight, None, cache).astype(float)
    difference = x[:, None].astype(float) - c
    np.testing.assert_allclose(dx, -(pull[:, :, None] * difference).sum(axis=1), atol=1e-4)
    wanted = (pull[:, :, None] * difference).sum(axis=0)
    np.testing.assert_allclose(grads["centroids"], wanted, atol=1e-3)


@pytest.mark.parametrize("offset", [0, 1e4])
def test_clusters_far_from_0_are_found(offset):
    rng = np.random.default_rng(0)
    cluster = np.arange(300) % 3
    x = (4 * np.eye(3)[cluster] + 0.1 * rng.normal(size=(300, 3)) + offset).astype(np.float32)
    params, inertia = kmeans.fit(rng, x, 3)
    expert = kmeans.route(params, x, weights="one")[0].expert
    assert [len(set(expert[cluster == m])) for m in range(3)] == [1, 1, 1]
    mean = np.array([x[cluster == m].mean(axis=0, dtype=float) for m in range(3)])
    np.testing.assert_allclose(np.sort(params["centroids"], 0), np.sort(mean, 0), atol=3e-3)
    assert inertia[-1] == pytest.approx(9, rel=0.3)
    moved, _ = kmeans.online(params, x, np.full(3, 1e6))
    np.testing.assert_allclose(moved["centroids"], params["centroids"], atol=2e-3)


def test_a_distance_that_overflows_and_bad_counts_are_refused():
    params = {"centroids": np.zeros((2, 3))}
    with pytest.raises(InputError, match="squared distance"):
        kmeans.route(params, np.full((2, 3), 1e200), weights="one")
    with pytest.raises(InputError, match="count: wanted numbers of at least 0"):
        kmeans.online(params, np.ones((2, 3)), [-1, 0])
    with pytest.raises(InputError, match="rate: wanted a finite number of at least 0"):
        kmeans.online(params, np.ones((2, 3)), rate=np.nan)


def test_the_initialisation_is_normal_with_deviation_scale():
    drawn = np.random.default_rng(0).normal(size=(3, 4))
    first = kmeans.init(np.random.default_rng(0), 4, 3)["centroids"]
    np.testing.assert_array_equal(first, drawn)
    scaled = kmeans.init(np.random.default_rng(0), 4, 3, scale=3.0)["centroids"]
    np.testing.assert_array_equal(scaled, 3 * drawn)
