"""Experiments of several systems: the order of their specs, their runs by system, their result."""

import dataclasses

import pytest

from moe_np.experiments.common import system_runs
from moe_np.experiments.common.sweep import versions

NAMES = ("dense", "sparse", "large")


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 8
    seeds: int = 2


def spec_of(config, system, seed):
    return {"system": system, "seed": seed, "width": config.width}


def order(specs):
    return [(spec["seed"], spec["system"]) for spec in specs]


def test_specs_are_those_of_all_systems_seed_by_seed():
    specs = system_runs.specs_of(spec_of, Config(), NAMES)
    assert order(specs) == [(seed, name) for seed in (0, 1) for name in NAMES]
    assert {spec["width"] for spec in specs} == {8}
    assert len(system_runs.specs_of(spec_of, Config(), NAMES, seeds=5)) == 15


def test_only_picks_systems_in_their_own_order():
    specs = system_runs.specs_of(spec_of, Config(), NAMES, seeds=1, only=("large", "dense"))
    assert order(specs) == [(0, "dense"), (0, "large")]
    with pytest.raises(ValueError, match="only: wanted one of"):
        system_runs.specs_of(spec_of, Config(), NAMES, only=("small",))
    with pytest.raises(ValueError, match="seeds: wanted"):
        system_runs.specs_of(spec_of, Config(), NAMES, seeds=0)


def test_runs_are_found_by_their_system():
    runs = system_runs.specs_of(spec_of, Config(), NAMES)
    found = system_runs.by_system(runs, NAMES, only=("sparse", "dense"))
    assert list(found) == ["dense", "sparse"]
    assert [run["seed"] for run in found["sparse"]] == [0, 1]


def test_the_result_has_what_all_have_and_the_numbers_of_this_one():
    runs = system_runs.specs_of(spec_of, Config(), NAMES)[::-1]
    result = system_runs.result_of("widths", Config(), runs, {"dense": 1}, {"paper": 2}, slope=3)
    assert list(result) == [
        *("name", "config", "seeds", "runs", "summary", "slope", "paper", "versions"),
    ]
    assert result["config"] == {"width": 8, "seeds": 2}
    assert result["seeds"] == [0, 1]
    assert result["runs"] is runs
    assert result["versions"] == versions()
