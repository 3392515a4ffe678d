"""`--quick`: one case of each test function, always the same one, and none that takes long."""

import collections
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("tests/routing", "tests/experiments/serving")


def collected(*options):
    """The names of the collected tests."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist"]
    done = subprocess.run(
        [*command, *options, *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if "::" in line]


def functions(names):
    return collections.Counter(name.partition("[")[0] for name in names)


def test_one_case_of_each_function():
    everything = collected("-m", "not slow and not seconds and not nightly")
    quick = collected("--quick")
    assert set(functions(quick).values()) == {1}
    # the tests of experiments that ask for the runs of a smoke form are left out as well
    routing = {name for name in functions(everything) if name.startswith("tests/routing")}
    assert routing == {name for name in functions(quick) if name.startswith("tests/routing")}
    assert set(functions(quick)) < set(functions(everything))


def test_a_case_is_one_of_those_that_are_asked_for():
    names = collected("--quick", "-k", "test_only_padding and expert_choice")
    assert len(names) == 1 and "expert_choice" in names[0]
