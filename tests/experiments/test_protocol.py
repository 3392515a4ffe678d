"""Every experiment has the names of the protocol, and runs and reports in its smoke form."""

import dataclasses
import inspect
import json

import pytest

from moe_np.base.checks import InputError
from moe_np.experiments.common import registry
from moe_np.experiments.common.experiment import Experiment, Option, seed_count, selected
from moe_np.experiments.common.sweep import to_json

# exact numbers, or times of one machine that are compared with nothing
WITHOUT_POWER = ("frameworks", "imbalance")

LONG = ("why_it_works",)  # of which the smoke form takes more than two seconds

every_experiment = pytest.mark.parametrize("name", registry.summaries())


@every_experiment
def test_it_has_the_names_of_the_protocol(name):
    experiment = registry.load(name)
    assert isinstance(experiment, Experiment)
    assert experiment.SUMMARY and "\n" not in experiment.SUMMARY
    assert dataclasses.is_dataclass(experiment.Config)
    assert experiment.Config.__dataclass_params__.frozen
    assert isinstance(experiment.PAPER, dict) and isinstance(experiment.SYSTEMS, tuple)


@every_experiment
def test_its_options_are_keyword_arguments_of_run(name):
    experiment = registry.load(name)
    parameters = inspect.signature(experiment.run).parameters
    common = {"config", "seeds", "only", "sweep", "quick"}
    assert set(parameters) == common | {option.name for option in experiment.OPTIONS}
    for option in experiment.OPTIONS:
        assert isinstance(option, Option) and option.help
        assert parameters[option.name].kind is inspect.Parameter.KEYWORD_ONLY
        assert not option.values or parameters[option.name].default in option.values
    assert set(inspect.signature(experiment.specs).parameters) <= set(parameters) - {"sweep"}


@every_experiment
def test_its_specs_are_json_and_its_run_is_one_of_the_package(name):
    experiment = registry.load(name)
    specs = experiment.specs(quick=True)
    assert json.loads(json.dumps(specs)) == list(specs)
    assert experiment.run_one.__module__.startswith(f"moe_np.experiments.{name}")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in registry.summaries()],
)
def test_its_smoke_form_runs_and_is_reported(name, smoke_sweep):
    experiment = registry.load(name)
    with smoke_sweep(name) as sweep:
        result = json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE)))
    assert result["name"] == name and {"config", "seeds", "paper", "versions"} <= set(result)
    report = experiment.report(result)
    assert "|---" in report and "nan" not in report.split()
    assert "80 %" in report or "**Power.**" in report or name in WITHOUT_POWER


@pytest.mark.parametrize("name", [n for n in registry.summaries() if registry.load(n).SYSTEMS])
def test_only_one_system_is_run_and_reported(name, smoke_sweep):
    experiment = registry.load(name)
    system = experiment.SYSTEMS[-1]
    with smoke_sweep(name) as sweep:
        options = {**experiment.SMOKE, "only": (system,)}
        result = json.loads(to_json(experiment.run(sweep=sweep, **options)))
    assert "|---" in experiment.report(result)
    numbers = to_json({k: v for k, v in result.items() if k not in ("paper", "config")})
    assert f'"{system}"' in numbers
    assert not any(f'"{other}"' in numbers for other in experiment.SYSTEMS[:-1])
    with pytest.raises(InputError, match=r"only: wanted one of .*; got 'none'"):
        experiment.specs(only=("none",))


def test_an_unknown_experiment_is_refused():
    with pytest.raises(InputError, match=r"experiment: wanted one of .*; got 'jordan1066'"):
        registry.load("jordan1066")


def test_the_systems_that_are_asked_for():
    assert selected(("a", "b", "c"), None) == ("a", "b", "c")
    assert selected(("a", "b", "c"), ("c", "a")) == ("a", "c")
    assert selected(("a", "b"), "b") == ("b",)
    with pytest.raises(InputError, match="only: wanted one of a, b; got 'd'"):
        selected(("a", "b"), "d")
    with pytest.raises(InputError, match="one run of this experiment holds all systems"):
        selected((), "a")


def test_the_number_of_seeds():
    assert seed_count(None, 7) == 7 and seed_count(3, 7) == 3
    with pytest.raises(InputError, match="seeds: wanted a whole number of at least 1, got 0"):
        seed_count(0, 7)
