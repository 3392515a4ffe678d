"""The comparison of ways to train: its problems, its measures, its verdicts, and the result as a
whole.
"""

import ast
import dataclasses
import importlib
import itertools
import json
import pathlib
import sys
import types

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.base.gradcheck import gradient_error
from moe_np.data import piecewise
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.training_methods import claims, problems, report
from moe_np.experiments.training_methods import experiment as methods
from moe_np.layers import experts
from moe_np.mixtures import em as em_mixture
from moe_np.training.methods import em, method

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[3])
)  # figures is a folder of the checkout
TINY = methods.Config(passes=24, longer=2)


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
        return json.loads(to_json(methods.run(TINY, seeds=2, sweep=sweep)))


# --- data and problems ----------------------------------------------------------------------------


def test_a_problem_without_an_expert_is_refused():
    with pytest.raises(InputError, match="n_experts: wanted a whole number of at least 1, got 0"):
        problems.task("piecewise", 0)


@pytest.mark.parametrize("n_experts", [1, 4])
@pytest.mark.parametrize("name", problems.NAMES)
def test_gradient_of_a_problem(name, n_experts):
    problem = problems.task(name, n_experts).problem
    params = problem.init(np.random.default_rng(1))
    grads = method.backward(problem, method.forward(problem, params)[1])
    for part in (
        method.PARTS if n_experts > 1 else ("experts",)
    ):  # one expert's gate has no gradient to see
        loss = lambda own, part=part: method.loss_of(problem, {**params, part: own})  # noqa: E731
        assert (
            max(gradient_error(loss, params[part], grads[part], np.random.default_rng(2)).values())
            < 1e-7
        )


def test_cubic_experts_are_those_of_the_layer():
    rng = np.random.default_rng(0)
    params, x = experts.CUBIC.init(rng, 5, 3, 2), rng.normal(size=(7, 4, 5))
    o, cache = problems.cubic_forward(params, x)
    do = rng.normal(size=o.shape)
    _, grads = problems.cubic_backward(do, cache)
    rows, offsets = np.concatenate([x, x, x]), np.array([0, 7, 14, 21])
    f, layer_cache = experts.CUBIC.forward(params, rows, offsets)
    np.testing.assert_allclose(o[:, :, 0].T.ravel(), f[:, 1] - f[:, 0], rtol=1e-10)
    d = do[:, :, 0].T.reshape(-1, 1)
    _, layer_grads = experts.CUBIC.backward(np.hstack([-d, d]), layer_cache)
    for name in ("w", "b"):
        np.testing.assert_allclose(grads[name], layer_grads[name], rtol=1e-9, atol=1e-12)


def test_quality_of_the_true_mixture():
    task = problems.task("piecewise")
    x = np.concatenate([task.problem.x, task.x_test])
    raw = np.random.default_rng(problems.DATA_SEED)
    parts = [piecewise.piecewise(raw, n) for n in problems.SIZES["piecewise"]]
    mean, sd = parts[0].x.mean(), parts[0].x.std()
    np.testing.assert_allclose(x * sd + mean, np.concatenate([p.x for p in parts]), atol=1e-12)
    slope, value = np.array(piecewise.LINES).T
    lines = {"W": (slope * sd)[:, None, None], "b": (slope * mean + value)[:, None]}
    # a softmax that is steep enough cuts at CUTS: logits k·x − Σ of the cuts before k
    steep, cuts = 3000.0, np.cumsum([0, *piecewise.CUTS])
    gate = {"U": steep * sd * np.arange(4.0)[None], "c": steep * (mean * np.arange(4) - cuts)}
    params = {"experts": lines, "gate": gate}
    noise = 100 * (1 - piecewise.NOISE**2 / task.y_test.var())
    assert task.problem.quality(params, task.x_test, task.y_test) == pytest.approx(noise, abs=0.5)
    assert task.problem.quality(params, task.x_test, task.y_test, hard=True) == pytest.approx(
        noise, abs=0.5
    )


def test_quality_of_classes_by_hand():
    task = problems.task("vowels")
    params = task.problem.init(np.random.default_rng(0))
    params["experts"] = {"W": np.zeros((4, 2, 1)), "b": np.array([[9.0], [-9], [-9], [-9]])}
    params["gate"] = {"U": np.zeros((2, 4)), "c": np.log([0.6, 0.2, 0.1, 0.1])}
    ones = 100 * task.y_test.mean()
    assert task.problem.quality(params, task.x_test, task.y_test) == pytest.approx(ones)
    params["gate"]["c"] = np.log([0.4, 0.3, 0.2, 0.1])
    assert task.problem.quality(params, task.x_test, task.y_test) == pytest.approx(100 - ones)
    assert task.problem.quality(params, task.x_test, task.y_test, hard=True) == pytest.approx(ones)


def test_regions():
    assert [np.bincount(problems.task(n).region).size for n in problems.NAMES] == [2, 4, 4]
    vowels = problems.task("vowels")
    front = vowels.problem.x[vowels.region == 0][
        :, 1
    ].mean()  # [i] and [ɪ] have the higher second formant
    assert front > vowels.problem.x[vowels.region == 1][:, 1].mean() + 1


@pytest.mark.parametrize("name", problems.NAMES)
def test_em_is_monotone_on_the_problems(name):
    problem = problems.task(name).problem
    losses = [s.loss for s in itertools.islice(em.train(problem, np.random.default_rng(1)), 8)]
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(losses)) and losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["piecewise", "vowels"])
def test_em_is_the_em_of_mixtures(name):
    """Step by step the same likelihood as `moe_np.mixtures.em` from the same start."""
    problem = problems.task(name).problem
    start = problem.init(np.random.default_rng(3))
    ours = [s.loss for s in itertools.islice(em.train(problem, None, initial=start), 7)]
    W, b = start["experts"]["W"], start["experts"]["b"]
    if name == "piecewise":
        family, y = em_mixture.Gaussian("fixed", problems.SIGMA**2), problem.y
        own = {"W": W, "b": b, "var": np.array(problems.SIGMA**2)}
    else:
        family, y = em_mixture.Categorical(), problem.y[:, 0].astype(int)
        own = {"W": np.concatenate([0 * W, W], axis=2), "b": np.concatenate([0 * b, b], axis=1)}
    with pytest.warns(em_mixture.ConvergenceWarning):
        options = {
            "family": family,
            "rng": None,
            "start": {**own, **start["gate"]},
            "max_iter": 6,
            "tol": 1e-15,
        }
        theirs = em_mixture.fit(problem.x, y, 4, **options)
    np.testing.assert_allclose(ours, -theirs.history / len(y), rtol=1e-8)


# --- measures -------------------------------------------------------------------------------------


def test_variety_by_hand():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert methods.variety([a, 3 - a]) == 0  # only the numbers differ
    # together under a: 01, 23; under b: 02, 13: four of the six pairs of cases disagree
    assert methods.variety([a, b]) == pytest.approx(100 * 4 / 6)
    assert methods.variety([a, b, a]) == pytest.approx(100 * 8 / 18)


def test_curves_hold_the_last_step_within_each_checkpoint():
    steps = [types.SimpleNamespace(number=n, passes=p) for n, p in enumerate([0, 3, 50, 90, 101])]
    seen = methods.sampled(iter(steps), 100)
    points = methods.checkpoints(100)
    assert (
        len(seen) == methods.POINTS
        and points[0] == pytest.approx(2)
        and points[-1] == pytest.approx(100)
    )
    for point, step in zip(points, seen, strict=True):
        assert step.passes == max(s.passes for s in steps if s.passes <= point)
    late = methods.sampled(iter([types.SimpleNamespace(number=0, passes=500), steps[-1]]), 100)
    assert all(step.passes == 500 for step in late)  # a first look is never left out


def test_lines_of_code_leave_out_what_is_no_code(monkeypatch):
    text = '"""Doc.\n\nmore"""\nimport a\n\n# why\nX = (\n    1,\n    2,\n)\n\n\ndef f():\n    """Doc."""\n    return 1\n'
    monkeypatch.setattr(methods.inspect, "getsource", lambda module: text)
    assert methods.lines_of_code(None) == 3
    assert ast.parse(text)


def test_a_run_is_its_spec():
    for system in ("joint", "separate, true regions", "REINFORCE", "evolution strategy"):
        spec = methods.spec_of(TINY, "piecewise", system, 3)
        found = methods.run_one(spec)
        assert to_json(found) == to_json(methods.run_one(json.loads(json.dumps(spec))))
        assert found["loss"] != methods.run_one({**spec, "seed": 4})["loss"]
        assert len(found["losses"]) == methods.POINTS and found["losses"][-1] == found["loss"]
        assert found["passes"] <= 24 and ("tuned_loss" in found) == (system in methods.TUNED)


def test_budgets():
    spec = methods.spec_of(TINY, "vowels", methods.LONGER, 0)
    assert spec["passes"] == 48 and methods.spec_of(TINY, "vowels", "joint", 0)["passes"] == 24
    assert methods.run_one(spec)["passes"] <= 50
    assert len(methods.Config().knobs) == 3 * (
        len(methods.SYSTEMS) - len(methods.KNOBLESS) - len(methods.KNOB_OF)
    )


def test_explore_takes_the_lowest_loss():
    config = dataclasses.replace(TINY, grid=(0.001, 0.1), grid_seeds=1, passes=20)
    with Sweep(jobs=1, progress=False) as sweep:
        found = methods.explore(config, sweep)
    joint = next(one for one in found if (one["problem"], one["system"]) == ("piecewise", "joint"))
    assert joint["best"] == 0.1 and joint["losses"][0.1] < joint["losses"][0.001]
    assert len(found) == len(config.knobs)


@pytest.mark.parametrize(
    ("bad", "words"), [({"system": "hope"}, "system: wanted one of"), ({"problem": "x"}, "problem")]
)
def test_bad_specs(bad, words):
    with pytest.raises(InputError, match=words):
        methods.run_one({**methods.spec_of(TINY, "vowels", "joint", 0), **bad})


# --- verdicts -------------------------------------------------------------------------------------


def made_up(**systems):
    """A result of one problem with two checkpoints, 10 and 100 passes. Each system: a list of
    (early, final) losses.
    """
    runs = {
        name: [
            {"loss": b, "losses": [a, b], "quality": 100 - 50 * b, "passes": 100} for a, b in own
        ]
        for name, own in systems.items()
    }
    for own in runs.values():
        for run in own:
            run.update(quality_hard=0, specialisation=0, idle=0, variety=0)
    return {
        "systems": {"p": runs},
        "checkpoints": {name: [10, 100] for name in runs},
        "seconds": {"p": dict.fromkeys(runs, 0.01)},
        "seeds": list(range(len(next(iter(runs.values()))))),
    }


def test_stuck_unfinished_failed_and_passes():
    result = made_up(
        **{"one expert": [(1, 1)] * 4, "joint": [(0.05, 0), (0.5, 0.09), (0.305, 0.3), (0.9, 0.6)]},
    )
    found = claims.summarise(result, "p")
    assert found["level"] == pytest.approx(0.1) and found["alone"] == 1 and found["best"] == 0
    one = found["systems"]["joint"]
    assert (one["stuck"], one["unfinished"]) == (
        2,
        0,
    )  # the last checkpoint is all there is of the last fifth
    assert (
        one["reached"] == [10, 100, None, None]
        and one["passes"] == 100
        and one["seconds"] == pytest.approx(1)
    )
    assert found["systems"]["one expert"]["passes"] is None
    median = np.median([100, 95.5, 85, 70])
    assert found["failure"] == pytest.approx((median + 50) / 2) and one["failed"] == int(
        (median + 50) / 2 > 70
    )


def test_stuck_is_told_from_unfinished_by_the_last_fifth():
    result = made_up(**{"one expert": [(1, 1)], "joint": [(0.5, 0)]})
    points = [10, 80, 100]
    result["checkpoints"] = dict.fromkeys(result["checkpoints"], points)
    for own in result["systems"]["p"].values():
        own[0]["losses"] = [own[0]["losses"][0], 0.5 if own[0]["loss"] == 0 else 1, own[0]["loss"]]
    result["systems"]["p"]["joint"] += [
        {**result["systems"]["p"]["joint"][0], "loss": 0.4, "losses": [1, 0.405, 0.4]},
        {**result["systems"]["p"]["joint"][0], "loss": 0.4, "losses": [1, 0.42, 0.4]},
    ]
    one = claims.summarise(result, "p")["systems"]["joint"]
    assert (one["stuck"], one["unfinished"]) == (1, 1)


def test_tests_by_hand():
    assert claims.greater([3, 4, 5, None], [1, 2, 2.5, 2.7]) == pytest.approx(1 / 70)
    assert claims.greater([1, 1], [1, 1]) == 1 and claims.greater([None], [None]) == 1
    assert claims.more_often(3, 0, 3) == pytest.approx(1 / 20)
    assert claims.best_of(5, 10, 3) == pytest.approx(10 / 120) and claims.best_of(2, 10, 3) == 0
    assert claims.middle([None, 5, 7]) == 7 and claims.middle([None, None, 7]) is None


def test_verdicts():
    assert (
        claims.verdict(["yes"] * 3) == "holds" and claims.verdict(["yes", "no", "no"]) == "partly"
    )
    assert (
        claims.verdict(["yes", "no", "reverse"])
        == claims.verdict(["reverse", "yes", "yes"])
        == "mixed"
    )
    assert (
        claims.verdict(["no"] * 3) == "not seen"
        and claims.verdict(["no", "reverse", "no"]) == "reversed"
    )
    assert (
        claims.state(0.01, 0.9) == "yes"
        and claims.state(0.9, 0.01) == "reverse"
        and claims.state(0.3, 0.7) == "no"
    )


def test_claims_follow_the_runs():
    """The same claims on made-up runs that say yes, and on the mirror image."""
    quick, late = [(0.0, 0.0)] * 9, [(0.5, 0.0)] * 9
    result = made_up(**{"one expert": [(1, 1)] * 9, "joint": quick, "alternating": late})
    result["summary"] = {"p": claims.summarise(result, "p")}
    assert claims.slower("alternating", "joint")(result, "p")[1] == "yes"
    assert claims.slower("joint", "alternating")(result, "p")[1] == "reverse"
    assert claims.gets_stuck(result, "p") == ("0 of 9 stuck, 0 unfinished", "no")
    assert claims.avoids("alternating")(result, "p")[1] == "no"
    assert claims.efficient(result, "p") == ("10, alternating 100; p = 1 the other way", "yes")
    result = made_up(**{"one expert": [(1, 1)] * 9, "joint": late, "EM": quick})
    result["summary"] = {"p": claims.summarise(result, "p")}
    text, found = claims.efficient(result, "p")
    assert found == "reverse" and text.startswith("100, EM 10; p = 2e-05")
    result = made_up(
        **{"one expert": [(1, 1)] * 9, "joint": [(0.7, 0.7)] * 9, claims.LONGER: quick}
    )
    result["summary"] = {"p": claims.summarise(result, "p")}
    assert claims.gets_stuck(result, "p")[1] == "yes"
    assert claims.avoids(claims.LONGER)(result, "p")[1] == "yes"
    assert claims.beats_restarts(result, "p") == ("0 % against 100 %", "yes")
    assert (
        claims.percent(0.0004) == "0.04 %"
        and claims.percent(0.28) == "28 %"
        and claims.percent(0) == "0 %"
    )
    assert (
        claims.p_text(0.2, 0.9) == "p = 0.2"
        and claims.p_text(0.999, 2e-7) == "p = 2e-07 the other way"
    )


# --- the whole ------------------------------------------------------------------------------------


def test_the_result_and_its_table(result):
    assert result["seeds"] == [0, 1] and set(result["systems"]) == set(problems.NAMES)
    for problem, own in result["systems"].items():
        assert list(own) == list(methods.SYSTEMS)
        assert all(len(runs) == 2 for runs in own.values())
        assert all(0 < result["seconds"][problem][s] < 1 for s in own)
    text = methods.table(result)
    for system in methods.SYSTEMS:
        assert text.count(f"\n| {system} | ") == 3 + sum(
            one["about"] == system for one in result["claims"]
        )
    for one in result["claims"]:
        assert f"| {one['about']} | {one['claim']} |" in text
        assert set(one["found"].values()) <= {"yes", "no", "reverse"}
    assert {one["about"] for one in result["claims"]} == set(methods.PAPER)
    lines = result["lines"]
    assert lines["joint"] < lines["alternating"] < lines["CMA-ES"]


def test_a_seed_is_the_same_run_however_many_there_are(result):
    spec = methods.spec_of(TINY, "clusters", "EM", 1)
    assert json.loads(to_json(methods.run_one(spec))) == result["systems"]["clusters"]["EM"][1]


def test_joint_training_is_not_compared_with_itself():
    ends = {"one expert": 1, "joint": 0.7, "EM": 0.7, "ES": 0}
    result = made_up(**{system: [(loss, loss)] * 3 for system, loss in ends.items()})
    found = claims.summarise(result, "p")["systems"]
    assert [report.stuck_and_good(result, found, s) for s in ("joint", "EM", "ES")] == [
        False,
        True,
        False,
    ]


def test_the_figure(result):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    script = importlib.import_module("figures.training_methods.figure")
    assert list(script.LOOKS) == list(methods.SYSTEMS)
    fig = plt.figure()
    axes = script.draw(fig, result)
    assert [len(ax.lines) for ax in axes[0]] == [len(methods.SYSTEMS) + 1] * 3
    words = [tick.get_text() for tick in axes[1, 0].get_yticklabels()]
    assert words[1] == "joint" and words[-1] == "CMA-ES, 10 times (dotted)"
    plt.close(fig)


def test_quick_is_shorter():
    config, seeds, specs = methods.plan(quick=True)
    assert config.passes == methods.Config().passes // 10 and seeds == 2
    assert len(specs) == 2 * 3 * len(methods.SYSTEMS) and len(methods.plan()[2]) == 25 * 3 * len(
        methods.SYSTEMS
    )
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        methods.plan(seeds=0)


@pytest.mark.slow
def test_em_finds_the_lines_and_clusters_of_x_alone_do_not():
    found = {}
    for system in ("EM", "separate"):
        runs = [
            methods.run_one(methods.spec_of(methods.Config(), "piecewise", system, seed))
            for seed in range(3)
        ]
        found[system] = [(run["loss"], run["quality"], run["specialisation"]) for run in runs]
    assert all(
        loss < -0.57 and quality > 90 and special > 90 for loss, quality, special in found["EM"]
    )
    assert all(
        loss > -0.3 and quality < 80 and special < 80
        for loss, quality, special in found["separate"]
    )
