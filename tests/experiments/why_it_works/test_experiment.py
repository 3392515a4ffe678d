"""The questions as a whole: each one runs, sums up and decides; results and reports of some."""

import json

import pytest

from moe_np.base.checks import InputError
from moe_np.base.machine import one_blas_thread
from moe_np.experiments import why_it_works
from moe_np.experiments.common.sweep import Sweep, to_json
from moe_np.experiments.why_it_works import (
    allocation_at_random,
    biased_gate,
    cooperation,
    gate_collapse,
    idle_experts,
    more_experts,
    one_expert_or_two,
    what_the_gate_learns,
    when_experts_specialise,
    when_it_helps,
    who_gets_what,
)
from moe_np.experiments.why_it_works.experiment import QUESTIONS
from moe_np.experiments.why_it_works.further_controls import CONTROLS
from moe_np.experiments.why_it_works.questions import INTERVALS, Config
from moe_np.experiments.why_it_works.report import DEVIATIONS_OF, TABLES, WORDS, section
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES
from moe_np.mixtures import jacobs1991

CAPS = {
    **{"epochs": 60, "n": 160, "steps": 10, "runs": 2},
    **{"single_epochs": 3, "restarts": 1, "max_iter": 30},
}
CONFIG = why_it_works.Config(
    **{"seeds": 2, "few": 2, "fits": 2, "pairs": 2, "smooth": 2},
    experts=(1, 3),
    blocks=1,
    bases=2,
)
LONG = ("help", "learns", "more", "harder")  # fits by EM or L-BFGS


def short(spec):
    return {k: min(v, CAPS[k]) if k in CAPS else v for k, v in spec.items()}


@pytest.fixture
def quick_vowels(monkeypatch):
    """The vowels' runs to an error of .08 take a thousand epochs; here they end after fifty."""
    train_to_stop = jacobs1991.train_to_stop

    def cut(*args, **options):
        return train_to_stop(*args, **{**options, "max_epochs": 50})

    monkeypatch.setattr(jacobs1991, "train_to_stop", cut)


def question_names():
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow) if name in LONG else name for name in QUESTIONS]


@pytest.mark.seconds
@pytest.mark.parametrize("name", question_names())
def test_every_question_runs_and_decides(name, quick_vowels):
    question = QUESTIONS[name]
    specs = [short(s) for s in question.specs(CONFIG, True) if s.get("seed", 0) % 25 < 2]
    with one_blas_thread():
        runs = [json.loads(to_json(why_it_works.run_one({"question": name, **s}))) for s in specs]
        last = why_it_works.run_one({"question": name, **specs[-1]})
    assert json.loads(to_json(last)) == runs[-1]
    answer = json.loads(to_json(why_it_works.summarise(name, specs, runs)))
    assert answer["claim"] == question.claim and answer["runs"] == len(runs)
    words = answer["verdict"]
    assert question.reason.endswith(".") and question.criterion.level >= 0.95
    assert question.source and question.case.endswith(".")
    assert len(answer["decisions"]) >= 1
    assert section(name, answer).count("Sensitivity, the verdict with") == 1
    assert answer["holds"] in WORDS and words.endswith(".") and "nan" not in words
    table = TABLES[name](answer["summary"])
    assert len({line.count("|") for line in table.split("\n\n")[0].splitlines()}) == 1, table


def test_a_result_has_what_the_contract_says(quick_vowels):
    with Sweep(jobs=1, progress=False) as sweep:
        result = why_it_works.run(CONFIG, sweep=sweep, quick=True, only=("k", "time"))
        assert json.loads(to_json(result)) == json.loads(to_json(result))
        assert list(result["questions"]) == ["k", "time"] and result["seeds"] == [40_000, 40_001]
        report = why_it_works.report(result)
        assert "*Criterion.* The claim holds if the whole" in report and "Bonferroni" in report
        assert all(question["decisions"] for question in result["questions"].values())
        assert all(QUESTIONS[name].title in report for name in ("k", "time"))
        assert "Few seeds" in report and "Mean ± sample SD over 2 runs per row." in report
        with pytest.raises(InputError, match="only: wanted one of help"):
            why_it_works.run(sweep=sweep, only=("why not",))


def test_the_specs_of_all_questions():
    full = why_it_works.specs()
    assert len({json.dumps(spec, sort_keys=True) for spec in full}) == len(full)
    assert {spec["question"] for spec in full} == set(QUESTIONS) == set(why_it_works.PAPER)
    assert len(why_it_works.specs(seeds=1)) < len(full) / 5


def test_an_effect_size_is_left_out_where_the_runs_hardly_differ():
    specs = [{"choice": choice} for choice in one_expert_or_two.CHOICES for _ in range(3)]
    run = {"gradient": 1.0, "largest": 1.0, "bits": 1.0}
    errors = [i // 3 + 1 + 1e-9 * i**2 for i in range(len(specs))]
    results = [{**run, "error": error} for error in errors]
    decisions = why_it_works.summarise("k", specs, results)["decisions"]
    assert {decision["effect"] for decision in decisions} == {None}
    results = [{**run, "error": error**i} for i, error in enumerate(errors)]
    decisions = why_it_works.summarise("k", specs, results)["decisions"]
    assert all(decision["effect"] is not None for decision in decisions)


def test_the_intervals_of_the_table_are_counted():
    """Those of the cases and controls, of the effect of clouds, of both rises of the error, and of
    the evenness of the allocation.
    """
    scales = who_gets_what.SCALES.items()
    kinds = {(s["kind"], s["bias"]) for s in biased_gate.collapse_specs(Config(), False)}
    unbiased = sum(bias == 0 for _, bias in kinds)
    own = {
        "help": len(when_it_helps.CELLS) + len(when_it_helps.RULES),
        "learns": len(when_it_helps.CELLS) + len(what_the_gate_learns.CONTROLS),
        "more": 1 + 2,
        "harder": len(more_experts.AMPLITUDES) - 1 + len(more_experts.VOWEL_EXPERTS),
        "idle": len(idle_experts.EXPERTS),
        "collapse": len(kinds) - unbiased + unbiased * len(gate_collapse.CONTROLS),
        "k": len(one_expert_or_two.RIVALS),
        "equal": 2 * len(LEARNING_RATES),
        "errors": 2 * len(cooperation.TASKS),
        "time": 2 + len(when_experts_specialise.ROLES),
        "random": 2 * len(allocation_at_random.REGIONS) - len(allocation_at_random.ROLES),
        "start": sum(len(s) * len(who_gets_what.SOURCES[task]) for task, s in scales),
    }
    further = {name: len(CONTROLS.get(name, ())) for name in own}
    assert {name: own[name] + further[name] for name in own} == INTERVALS
    levels = {question.criterion.level for question in QUESTIONS.values()}
    assert levels == {1 - 0.05 / sum(INTERVALS.values())}


def test_every_question_has_a_table_and_says_what_its_deviation_is():
    assert set(TABLES) == set(QUESTIONS) == set(DEVIATIONS_OF) | {"random"}
    assert DEVIATIONS_OF["start"] == "error" and DEVIATIONS_OF["help"] == "sample"
