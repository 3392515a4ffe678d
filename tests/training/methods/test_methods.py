"""Ways to train a mixture: what each of them promises, on small problems."""

import functools
import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.base.numerics import log_softmax, softmax
from moe_np.mixtures import jacobs1991
from moe_np.routing import gradient_estimators
from moe_np.training.methods import (
    alternating,
    cma_es,
    densities,
    em,
    evolutionary,
    hard,
    joint,
    method,
    separate,
)

linear = functools.partial(jacobs1991.experts_forward, kind="linear")


def gate_forward(params, x):
    _, cache = jacobs1991.gate_forward(params, x)
    return cache.s, cache


def least_squares(params, x, y, resp):
    """Weighted least squares the plain way."""
    rows, out = np.hstack([x, np.ones((len(x), 1))]), []
    for weight in resp.T:
        root = np.sqrt(weight)[:, None]
        out.append(np.linalg.lstsq(root * rows, root * y, rcond=None)[0])
    coef = np.array(out)
    return {"W": coef[:, :-1], "b": coef[:, -1]}, 1.0


def small(seed=0, E=3, D=2, C=2, N=40, sigma=0.5, exact=False):
    """Linear experts with a linear gate on Gaussian cases with a bend."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D))
    y = np.abs(x @ rng.normal(size=(D, C))) + 0.3 * rng.normal(size=(N, C))
    for a in (x, y):
        a.flags.writeable = False

    def init(rng):
        p = jacobs1991.init_mixture(rng, E, D, C, spread=0.7)
        return {
            "experts": {k: p[k] for k in ("W", "b")},
            "gate": {"U": rng.normal(size=(D, E)), "c": rng.normal(size=E)},
        }

    return method.Problem(
        x,
        y,
        x,
        init,
        linear,
        jacobs1991.experts_backward,
        gate_forward,
        jacobs1991.gate_backward_from_totals,
        *densities.gaussian(sigma),
        lambda params, x, y: 0.0,
        least_squares if exact else None,
    )


def classes(seed=0, E=3):
    """The same with logistic experts and yes-or-no answers."""
    problem = small(seed, E, C=1)
    y = (problem.y > np.median(problem.y)).astype(float)
    return problem._replace(
        y=y,
        density_forward=densities.bernoulli_forward,
        density_backward=densities.bernoulli_backward,
    )


TRAINERS = {
    "joint": joint.train,
    "alternating": functools.partial(alternating.train, turn=3),
    "separate": functools.partial(separate.train, expert_steps=5),
    "em": em.train,
    "reinforce": hard.train,
    "straight-through": functools.partial(hard.train, estimator="straight_through"),
    "evolution strategy": functools.partial(evolutionary.train, parents=3, children=8),
    "CMA-ES": cma_es.train,
    "sep-CMA-ES": functools.partial(cma_es.train, diagonal=True),
}
EVOLUTION = ("evolution strategy", "CMA-ES", "sep-CMA-ES")


def steps(train, problem, n, seed=0, **options):
    return list(itertools.islice(train(problem, np.random.default_rng(seed), **options), n))


def same(a, b):
    return all(np.array_equal(a[part][k], b[part][k]) for part in method.PARTS for k in a[part])


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small, classes])
def test_gradient_of_the_likelihood(make):
    problem = make(1)
    params = problem.init(np.random.default_rng(2))
    grads = method.backward(problem, method.forward(problem, params)[1])
    for part in method.PARTS:
        loss = lambda own, part=part: method.loss_of(problem, {**params, part: own})  # noqa: E731
        errors = gradient_error(loss, params[part], grads[part], np.random.default_rng(3))
        assert max(errors.values()) < 1e-7, errors
        alone = method.backward(problem, method.forward(problem, params)[1], (part,))
        assert list(alone) == [part] and all(
            np.array_equal(alone[part][k], grads[part][k]) for k in grads[part]
        )


@pytest.mark.parametrize("pair", ["gaussian", "bernoulli"])
def test_densities(pair):
    rng = np.random.default_rng(0)
    if pair == "gaussian":
        forward, backward = densities.gaussian(0.7)
        o, y = rng.normal(size=(6, 3, 2)), rng.normal(size=(6, 2))
        log_f, cache = forward(o, y)
        own = -0.5 * ((y[2] - o[2, 1]) ** 2).sum() / 0.49 - 2 * np.log(0.7 * np.sqrt(2 * np.pi))
        assert log_f[2, 1] == pytest.approx(own)
    else:
        forward, backward = densities.bernoulli_forward, densities.bernoulli_backward
        o, y = rng.normal(size=(6, 3, 1)), rng.integers(2, size=(6, 1)).astype(float)
        log_f, cache = forward(o, y)
        np.testing.assert_allclose(np.exp(log_f) + np.exp(forward(o, 1 - y)[0]), 1)
        assert np.isfinite(forward(1e3 * o, y)[0]).all()
    d = rng.normal(size=log_f.shape)
    errors = gradient_error(
        lambda p: (forward(p["o"], y)[0] * d).sum(), {"o": o}, {"o": backward(d, cache)}, rng
    )
    assert errors["o"] < 1e-7


def test_gradient_of_the_gate_towards_a_target():
    rng = np.random.default_rng(0)
    logits, target = (
        rng.normal(size=(7, 4)),
        rng.random((7, 4)),
    )  # rows that do not sum to 1 as well
    loss = lambda p: -(target * log_softmax(p["z"])).sum() / 7  # noqa: E731
    grad = method.cross_entropy_backward(softmax(logits), target)
    assert gradient_error(loss, {"z": logits}, {"z": grad}, rng)["z"] < 1e-7


def test_gradients_of_the_m_step():
    problem, rng = small(4), np.random.default_rng(5)
    params = problem.init(rng)
    resp = softmax(rng.normal(size=(40, 3)))
    for part, make in (("experts", em.experts_objective), ("gate", em.gate_objective)):
        objective = make(problem, resp)
        grads = objective(params[part])[1]()
        errors = gradient_error(lambda p, own=objective: own(p)[0].sum(), params[part], grads, rng)
        assert max(errors.values()) < 1e-7, (part, errors)


def test_straight_through_is_the_gradient_of_the_expected_loss():
    problem, rng = small(6), np.random.default_rng(7)
    params = problem.init(rng)
    _, cache = method.forward(problem, params)
    _, dlogits = hard.gradients(cache, hard.draw(cache, rng), 0.0, "straight_through")
    expected = lambda p: -(softmax(p["z"]) * cache.log_f).sum() / 40  # noqa: E731
    assert gradient_error(expected, {"z": cache.logits}, {"z": dlogits}, rng)["z"] < 1e-7


def test_reinforce_is_right_on_average_whatever_the_baseline():
    """The mean over all draws, each with its probability, is the gradient of the expected loss."""
    problem = small(6)
    params = problem.init(np.random.default_rng(7))
    _, cache = method.forward(problem, params)
    exact = hard.gradients(cache, hard.draw(cache, None), 0.0, "straight_through")[1]
    mean = 0
    for i in range(
        3
    ):  # cases are drawn independently: all of them to expert i, case by case with probability p_i
        expert = np.full(40, i)
        demand = np.eye(3, dtype=bool)[expert]
        routing = hard.Routing(np.arange(40), expert, np.ones(40), cache.logits, cache.p, demand)
        mean = mean + cache.p[:, [i]] * hard.gradients(cache, routing, 1.3, "reinforce")[1]
    np.testing.assert_allclose(mean, exact, atol=1e-14)


def test_the_baseline_remembers_earlier_draws_only(monkeypatch):
    seen, gradients = [], hard.gradients

    def watched(cache, routing, baseline, estimator):
        seen.append((-cache.log_f[routing.token, routing.expert], baseline))
        return gradients(cache, routing, baseline, estimator)

    monkeypatch.setattr(hard, "gradients", watched)
    steps(hard.train, small(6), 5)
    (first, start), *rest = seen
    assert np.array_equal(first, start)
    expected, before = start, first
    for loss, baseline in rest:
        expected = 0.9 * expected + 0.1 * before
        np.testing.assert_allclose(baseline, expected)
        before = loss
    assert len(rest) == 3


def test_hard_experts_learn_from_their_own_cases_only():
    problem, rng = small(6), np.random.default_rng(7)
    _, cache = method.forward(problem, problem.init(rng))
    routing = hard.draw(cache, rng)
    for estimator in gradient_estimators.ESTIMATORS:
        dlog_f, _ = hard.gradients(cache, routing, 0.0, estimator)
        assert np.array_equal(dlog_f != 0, routing.demand) and dlog_f.sum() == pytest.approx(-1)


# --- the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINERS)
def test_contract_of_a_trainer(name):
    problem = small(1)
    start = problem.init(np.random.default_rng(9))
    for own in start.values():
        for a in own.values():
            a.flags.writeable = False
    first, again = (steps(TRAINERS[name], problem, 12, seed=3, start=start) for _ in range(2))
    for number, (a, b) in enumerate(zip(first, again, strict=True)):
        assert (
            a.number == number
            and a.loss == b.loss
            and a.passes == b.passes
            and same(a.params, b.params)
        )
        assert a.loss == pytest.approx(method.loss_of(problem, a.params), rel=1e-12)
        assert {k: v.shape for k, v in a.params["gate"].items()} == {"U": (2, 3), "c": (3,)}
        assert set(a.changed) <= {*method.PARTS, "clusters"} and (number == 0) == (a.changed == ())
    assert all(a.passes < b.passes for a, b in itertools.pairwise(first[1:]))
    assert first[-1].loss < first[0].loss
    if name not in EVOLUTION:
        assert same(first[0].params, start)
    other = steps(TRAINERS[name], problem, 12, seed=4)
    assert not same(first[-1].params, other[-1].params)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_part_that_is_not_said_to_change_does_not(name):
    for before, after in itertools.pairwise(steps(TRAINERS[name], small(2), 14)):
        for part in method.PARTS:
            equal = all(
                np.array_equal(before.params[part][k], after.params[part][k])
                for k in before.params[part]
            )
            assert equal or part in after.changed
            if name in ("alternating", "separate", "joint", "em"):
                assert equal == (part not in after.changed)


def test_alternation_takes_turns():
    found = steps(functools.partial(alternating.train, turn=3), small(2), 14)
    parts = [s.changed[0] for s in found[1:]]
    assert parts == ["experts"] * 3 + ["gate"] * 3 + ["experts"] * 3 + ["gate"] * 3 + ["experts"]
    assert [s.passes for s in found[:8]] == [0.5, 1.5, 2.5, 3.5, 5, 6, 7, 8.5]


def test_alternating_by_single_steps_ends_where_joint_training_does():
    problem = small(1, E=2)
    start = problem.init(np.random.default_rng(0))
    a, b = (
        steps(t, problem, n, start=start, lr=0.05)
        for t, n in ((joint.train, 900), (alternating.train, 1800))
    )
    assert a[-1].loss == pytest.approx(b[-1].loss, abs=2e-3)


def test_separate_has_three_phases():
    found = steps(functools.partial(separate.train, expert_steps=4), small(2), 10)
    assert [s.changed for s in found] == [(), ("clusters",), *[("experts",)] * 4, *[("gate",)] * 4]
    rounds = 2 * found[1].passes
    assert rounds >= 1 and rounds == int(rounds) and found[-1].passes == found[1].passes + 8


def test_separate_experts_fit_their_own_cluster():
    """With labels given, expert m ends at the least squares of its cases, and the gate at the
    labels' softmax fit.
    """
    problem = small(2, E=2)
    labels = (problem.x[:, 0] > 0.2).astype(int)
    labels[:3] = 1 - labels[:3]  # not separable, so that the gate's fit is finite
    train = functools.partial(separate.train, expert_steps=1500, labels=labels, lr=0.02)
    end = steps(train, problem, 3000)[-1].params
    own, _ = least_squares(None, problem.x, problem.y, np.eye(2)[labels])
    np.testing.assert_allclose(end["experts"]["W"], own["W"], atol=1e-4)
    _, cache = method.forward(problem, end)
    assert abs(problem.x.T @ (cache.p - np.eye(2)[labels])).max() < 1e-3


# --- EM -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "exact"), [(small, True), (small, False), (classes, None)])
def test_em_never_lowers_the_likelihood(make, exact):
    for seed in range(24):
        options = {} if exact is None else {"exact": exact, "sigma": 0.2 + 0.03 * seed}
        problem = make(seed, E=1 + seed % 4, **options)
        losses = [s.loss for s in steps(em.train, problem, 8, seed)]
        assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses)), seed
        assert losses[-1] < losses[0]


def test_a_partial_m_step_goes_to_the_exact_one():
    problem, rng = small(3), np.random.default_rng(0)
    params, resp = problem.init(rng)["experts"], softmax(rng.normal(size=(40, 3)))
    found, _, passes = em.climb(em.experts_objective(problem, resp), params, np.ones(3), 400)
    exact, _ = least_squares(None, problem.x, problem.y, resp)
    for name in exact:
        np.testing.assert_allclose(found[name], exact[name], atol=1e-5)
    assert passes > 400


def test_a_block_at_its_maximum_stays_and_others_go_on():
    problem, rng = small(3), np.random.default_rng(0)
    start, resp = problem.init(rng)["experts"], softmax(rng.normal(size=(40, 3)))
    resp[:, 0] = 0  # nothing to learn for expert 0
    found, sizes, _ = em.climb(em.experts_objective(problem, resp), start, np.ones(3), 2)
    assert np.array_equal(found["W"][0], start["W"][0]) and sizes[0] > 0
    assert not np.array_equal(found["W"][1], start["W"][1])


# --- one expert: nothing to divide, so all methods agree ------------------------------------------


@pytest.mark.parametrize("name", TRAINERS)
def test_one_expert_is_least_squares_whatever_the_method(name):
    problem = small(5, E=1, D=1, C=1)
    exact, _ = least_squares(None, problem.x, problem.y, np.ones((40, 1)))
    many = {"em": 200, "separate": 1500, "alternating": 3000, **dict.fromkeys(EVOLUTION, 150)}.get(
        name, 1500
    )
    train = {"separate": functools.partial(separate.train, expert_steps=1400)}.get(
        name, TRAINERS[name]
    )
    end = steps(train, problem, many)[-1].params["experts"]
    assert (
        abs(end["W"].ravel() - exact["W"].ravel()) < 1e-3
        and abs(end["b"].ravel() - exact["b"].ravel()) < 1e-3
    )


# --- evolution ------------------------------------------------------------------------------------


def test_a_mixture_as_a_vector():
    params = small(0, E=3, D=2, C=2).init(np.random.default_rng(0))
    vector = method.flatten(params)
    assert vector.shape == (3 * 2 * 2 + 3 * 2 + 2 * 3 + 3,) and same(
        method.unflatten(vector, params), params
    )
    owner = method.owners(params)
    for i in range(
        3
    ):  # changing what belongs to i changes expert i and its column of the gate, and nothing else
        moved = method.unflatten(vector + (owner == i), params)
        for part, name in (("experts", "W"), ("experts", "b"), ("gate", "U"), ("gate", "c")):
            axis = 0 if part == "experts" else -1
            changed = moved[part][name] - params[part][name]
            for j in range(3):
                assert np.allclose(np.take(changed, j, axis=axis), float(i == j))


@pytest.mark.parametrize("make", [small, classes])
def test_a_population_is_looked_at_in_one_go(make):
    problem, rng = make(0), np.random.default_rng(0)
    first = problem.init(rng)
    vectors = rng.normal(size=(6, len(method.flatten(first))))
    each = [method.loss_of(problem, method.unflatten(v, first)) for v in vectors]
    np.testing.assert_allclose(method.losses_of(problem, vectors, first), each, rtol=1e-12)


def test_what_is_no_number_is_never_selected():
    problem = small(0)
    first = problem.init(np.random.default_rng(0))
    vectors = np.stack([method.flatten(first)] * 2)
    vectors[1] *= 1e200
    losses = method.losses_of(problem, vectors, first)
    assert np.isfinite(losses[0]) and losses[1] == np.inf


def test_children_have_each_expert_whole_from_one_of_two_parents():
    rng, owner = np.random.default_rng(0), np.repeat([0, 1, 2, 0, 1, 2], 4)
    parents = np.array([[1.0], [2.0], [3.0]]) * np.ones(24)
    children, sizes = evolutionary.breed(rng, parents, np.full(3, 1e-9), 300, owner)
    genes = np.rint(children).astype(int)
    np.testing.assert_allclose(children, genes, atol=1e-6)
    per_expert = np.stack([genes[:, owner == i] for i in range(3)], axis=1)
    assert (per_expert == per_expert[:, :, :1]).all()
    kinds = {tuple(row) for row in per_expert[:, :, 0]}
    assert all(len(set(kind)) <= 2 for kind in kinds) and len(kinds) > 15
    assert (sizes > 0).all() and sizes.std() > 0


def test_step_sizes_are_inherited():
    rng = np.random.default_rng(1)
    _, sizes = evolutionary.breed(
        rng, np.zeros((2, 50)), np.array([0.1, 10.0]), 2000, np.zeros(50, int)
    )
    logs = np.log(sizes)
    assert logs.mean() == pytest.approx(0, abs=0.01)  # the geometric mean of .1 and 10
    assert logs.std() == pytest.approx(0.1, rel=0.06)  # τ = 1/√100


@pytest.mark.parametrize("name", EVOLUTION)
def test_the_best_so_far_never_gets_worse(name):
    found = steps(TRAINERS[name], small(1, E=2, C=1), 30)
    losses = [s.loss for s in found]
    assert all(b <= a for a, b in itertools.pairwise(losses)) and losses[-1] < losses[0] - 0.1
    for before, after in itertools.pairwise(found):
        assert after.loss == min(before.loss, after.cache.losses.min())


def test_cma_constants_of_the_tutorial():
    """The defaults of arXiv 1604.00772 for n = 10: λ = 10, μ = 5."""
    c = cma_es.constants(10, 10, False)
    assert (
        c.weights.sum() == pytest.approx(1)
        and (np.diff(c.weights) < 0).all()
        and len(c.weights) == 5
    )
    raw = np.log(5.5) - np.log([1, 2, 3, 4, 5])
    np.testing.assert_allclose(c.weights, raw / raw.sum())
    assert c.mu_eff == pytest.approx(3.1673, abs=1e-4)
    assert c.c_sigma == pytest.approx((3.1673 + 2) / (10 + 3.1673 + 5), abs=1e-5)
    assert c.d_sigma == pytest.approx(1 + c.c_sigma)
    assert c.c_1 == pytest.approx(2 / (11.3**2 + 3.1673), abs=1e-6)
    assert c.chi == pytest.approx(3.0847, abs=1e-3)  # √2 Γ(5.5)/Γ(5)
    faster = cma_es.constants(10, 10, True)
    assert faster.c_1 == pytest.approx(4 * c.c_1) and faster.c_mu == pytest.approx(4 * c.c_mu)


@pytest.mark.parametrize("diagonal", [False, True])
def test_cma_update_is_the_tutorials(diagonal):
    """Every line of it written out once more, with C^(−½) as a matrix."""
    rng, n, lam = np.random.default_rng(2), 5, 8
    c, root = cma_es.constants(n, lam, diagonal), rng.normal(size=(n, n))
    C = rng.uniform(0.5, 2, n) if diagonal else root @ root.T + np.eye(n)
    full = np.diag(C) if diagonal else C
    axes = None if diagonal else cma_es.principal_axes(C)
    cloud = cma_es.Cloud(rng.normal(size=n), 0.7, C, rng.normal(size=n), rng.normal(size=n), 3)
    z, y = cma_es.draw(rng, cloud, axes, lam, diagonal)
    for far in (0.3, 30.0):  # a path of ordinary length, and one that is too long (h_σ = 0)
        before = cloud._replace(path=far * cloud.path)
        now = cma_es.update(before, c, z, y, axes, diagonal)
        values, B = np.linalg.eigh(full)
        inverse_root = B @ np.diag(values**-0.5) @ B.T
        step = sum(c.weights[i] * y[i] for i in range(4))
        path = (1 - c.c_sigma) * before.path
        path = path + np.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * inverse_root @ step
        h = np.linalg.norm(path) / np.sqrt(1 - (1 - c.c_sigma) ** 8) < (1.4 + 2 / (n + 1)) * c.chi
        assert h == (far < 1)
        path_c = (1 - c.c_c) * before.path_c + h * np.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * step
        new = (
            1 - c.c_1 - c.c_mu + (1 - h) * c.c_1 * c.c_c * (2 - c.c_c)
        ) * full + c.c_1 * np.outer(path_c, path_c)
        new = new + c.c_mu * sum(c.weights[i] * np.outer(y[i], y[i]) for i in range(4))
        np.testing.assert_allclose(now.mean, before.mean + 0.7 * step)
        np.testing.assert_allclose(now.path, path)
        np.testing.assert_allclose(now.path_c, path_c)
        np.testing.assert_allclose(now.C, np.diag(new) if diagonal else new)
        growth = np.exp(c.c_sigma / c.d_sigma * (np.linalg.norm(path) / c.chi - 1))
        assert now.sigma == pytest.approx(0.7 * growth) and now.generation == 4


def test_cma_draws_from_its_cloud():
    rng, root = np.random.default_rng(0), np.array([[2.0, 0], [1.0, 0.5]])
    cloud = cma_es.Cloud(np.zeros(2), 1.0, root @ root.T, np.zeros(2), np.zeros(2), 0)
    z, y = cma_es.draw(rng, cloud, cma_es.principal_axes(cloud.C), 40_000, False)
    np.testing.assert_allclose(np.cov(y.T), cloud.C, atol=0.07)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.03)


def valley(seed=0, scale=30.0):
    """One linear expert whose loss is a long narrow valley that runs across the axes."""
    problem = small(seed, E=1, D=2, C=1)
    x = problem.x * np.array([1.0, scale]) @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    y = x @ np.array([[1.0], [2.0]])
    return problem._replace(x=x, y=y, features=x)


def test_cma_learns_the_shape_of_a_valley():
    problem = valley()
    end = steps(cma_es.train, problem, 150)[-1]
    C = end.cache.C[:3, :3]
    rows = np.hstack([problem.x, np.ones((40, 1))])
    whitened = np.linalg.cholesky(rows.T @ rows / 40).T @ C @ np.linalg.cholesky(rows.T @ rows / 40)
    values = np.linalg.eigvalsh(
        whitened
    )  # all alike if C is proportional to the inverse of the curvature
    assert values[-1] / values[0] < 30 < 900 < np.linalg.cond(rows.T @ rows)
    plain = steps(evolutionary.train, problem, 42)[-1]
    assert abs(end.params["experts"]["W"].ravel() - [1, 2]).max() < 1e-3
    assert (
        plain.passes > end.passes
        and abs(plain.params["experts"]["W"].ravel() - [1, 2]).max() > 1e-3
    )


def test_cma_looks_at_the_order_of_the_losses_only():
    problem = small(3, E=1)
    other = problem._replace(
        **dict(zip(("density_forward", "density_backward"), densities.gaussian(2.5), strict=True))
    )
    a, b = (steps(cma_es.train, one, 10) for one in (problem, other))
    assert all(same(x.params, y.params) for x, y in zip(a, b, strict=True))
    assert a[-1].loss != b[-1].loss


# --- the door -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "options", "words"),
    [
        (joint.train, {"lr": 0}, "lr: wanted a finite number above 0, got 0"),
        (joint.train, {"lr": float("nan")}, "lr: wanted a finite number above 0"),
        (
            joint.train,
            {"start": {"experts": {}}},
            "start: wanted the keys experts, gate; got experts",
        ),
        (alternating.train, {"turn": 0}, "turn: wanted a whole number of at least 1, got 0"),
        (separate.train, {"expert_steps": -1}, "expert_steps: wanted a whole number of at least 0"),
        (
            separate.train,
            {"labels": np.zeros(39, int)},
            r"labels: wanted shape \(40,\), got \(39,\)",
        ),
        (
            separate.train,
            {"labels": np.full(40, 3)},
            "labels: wanted whole numbers from 0 to 2, got 3 to 3",
        ),
        (em.train, {"rounds": 0}, "rounds: wanted a whole number of at least 1"),
        (
            hard.train,
            {"estimator": "hope"},
            "estimator: wanted one of reinforce, straight_through; got 'hope'",
        ),
        (evolutionary.train, {"parents": 1}, "parents: wanted a whole number of at least 2, got 1"),
        (
            evolutionary.train,
            {"children": 5},
            "children: wanted more than the 5 parents, or there is no selection",
        ),
        (cma_es.train, {"sigma": -1}, "sigma: wanted a finite number above 0, got -1"),
        (cma_es.train, {"children": 3}, "children: wanted a whole number of at least 4, got 3"),
    ],
)
def test_bad_options(train, options, words):
    with pytest.raises(InputError, match=words):
        steps(train, small(), 3, **options)


def test_bad_problems():
    problem = small()
    with pytest.raises(
        InputError,
        match="problem: wanted x, y and features of as many cases, at least one; got 40, 39",
    ):
        next(joint.train(problem._replace(y=problem.y[1:]), np.random.default_rng(0)))
    start = problem.init(np.random.default_rng(0))
    start["gate"]["c"] = np.array([0, np.nan, 0])
    with pytest.raises(InputError, match=r"start\['gate'\]\['c'\]: wanted finite numbers"):
        next(joint.train(problem, np.random.default_rng(0), start=start))
    for train in (joint.train, separate.train, hard.train, evolutionary.train, cma_es.train):
        with pytest.raises(InputError, match=r"rng: wanted a numpy\.random\.Generator, got 0"):
            next(train(problem, 0))
