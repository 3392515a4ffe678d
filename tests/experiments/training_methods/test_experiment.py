"""The comparison of training methods as a whole: the result, its report, and its figure."""

import ast
import dataclasses
import importlib
import json

import pytest

from moe_np.base.checks import InputError
from moe_np.experiments import training_methods
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.training_methods import experiment, problems
from moe_np.experiments.training_methods.claims import CLAIMS, WITHDRAWN, control_cells
from moe_np.experiments.training_methods.runs import (
    CONTROLS,
    FIRST_SEED,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
)

pytestmark = pytest.mark.seconds

TINY = Config(passes=24, longer=2)


@pytest.fixture(scope="module")
def result():
    with Sweep(jobs=1, progress=False) as sweep:
        return json.loads(to_json(training_methods.run(TINY, seeds=2, sweep=sweep)))


def test_the_result_and_its_report(result):
    assert result["seeds"] == [FIRST_SEED, FIRST_SEED + 1] and set(result["systems"]) == set(
        problems.NAMES
    )
    for problem, systems in result["systems"].items():
        assert [name for name in systems if name not in CONTROLS] == list(SYSTEMS)
        assert all(len(runs) == 2 for runs in systems.values())
        ranges = result["seconds_range"][problem]
        assert all(0 < ranges[system][0] <= ranges[system][1] for system in systems)
        assert {name: least for name, (least, _) in ranges.items()} == result["seconds"][problem]
    text = training_methods.report(result)
    for system in SYSTEMS:
        assert text.count(f"\n| {system} | ") == 3
    assert list(result["claims"]) == list(CLAIMS)
    for key, answer in result["claims"].items():
        claim = CLAIMS[key]
        assert f"| {claim.title} | {claim.claim} | " in text and f"**{claim.title}** " in text
        assert [d["case"] for d in answer["decisions"]] == [case.name for case in claim.cases]
        for decision in answer["decisions"]:
            assert decision["n"] == 2 and decision["detectable"] is not None
    assert all(f"| {sentence} | {subject} | " in text for subject, sentence, _ in WITHDRAWN)
    assert text.count("would hold in 80 % of cases from") == len(CLAIMS)
    assert text.count("Sensitivity, the verdict") == len(CLAIMS)
    assert "**Sensitivity.**" in text and text.count("answers that change") == 1
    assert "None was chosen for speed" in text
    lines = result["lines"]
    assert lines["joint"] < lines["alternating"] < lines["CMA-ES"]


def test_a_report_of_some_methods_leaves_out_what_needs_the_missing_ones():
    with Sweep(jobs=1, progress=False) as sweep:
        only = ("one expert", "joint")
        result = training_methods.run(TINY, seeds=2, only=only, sweep=sweep)
        text = training_methods.report(json.loads(to_json(result)))
        assert "passes to the level" in text and text.count("\n| joint | ") == 3
        assert result["claims"] == {} and "What articles say" not in text
        assert "What they leave out" not in text
        result = training_methods.run(TINY, seeds=1, only="EM", sweep=sweep)
        text = training_methods.report(json.loads(to_json(result)))
    assert "level" not in text and text.count("\n| EM | ") == 3 and not result["claims"]


def test_a_seed_is_the_same_run_however_many_there_are(result):
    spec = spec_of(TINY, "clusters", "EM", FIRST_SEED + 1)
    assert json.loads(to_json(run_one(spec))) == result["systems"]["clusters"]["EM"][1]


def test_explore_takes_the_lowest_loss():
    config = dataclasses.replace(TINY, grid=(0.001, 0.1), grid_seeds=1, passes=20)
    with Sweep(jobs=1, progress=False) as sweep:
        explored = experiment.explore(config, sweep)
    cells = {(cell["problem"], cell["system"]): cell for cell in explored}
    joint = cells["piecewise", "joint"]
    assert joint["best"] == 0.1 and joint["losses"][0.1] < joint["losses"][0.001]
    assert len(cells) == len(explored) == len(config.knobs)


def test_lines_of_code_leave_out_what_is_no_code(monkeypatch):
    text = (
        '"""Doc.\n\nmore"""\nimport a\n\n# why\nX = (\n    1,\n    2,\n)\n\n\n'
        'def f():\n    """Doc."""\n    return 1\n'
    )
    monkeypatch.setattr(experiment.inspect, "getsource", lambda module: text)
    assert experiment.lines_of_code(None) == 3
    assert ast.parse(text)


def test_the_figure(result):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    script = importlib.import_module("figures.training_methods.figure")
    assert list(script.LOOKS) == list(SYSTEMS)
    fig = plt.figure()
    axes = script.draw(fig, result)
    assert [len(ax.lines) for ax in axes[0]] == [len(SYSTEMS) + 1] * 3
    words = [tick.get_text() for tick in axes[1, 0].get_yticklabels()]
    assert words[1] == "joint" and words[-1] == "CMA-ES, 10 times (dotted)"
    plt.close(fig)


def test_quick_is_shorter():
    quick = training_methods.specs(quick=True)
    cells = 3 * len(SYSTEMS) + len(control_cells(list(CLAIMS)))
    assert len(quick) == 2 * cells and len(training_methods.specs()) == 60 * cells
    assert quick[0]["passes"] == Config().passes // 10
    with pytest.raises(InputError, match="seeds: wanted a whole number"):
        training_methods.specs(seeds=0)
