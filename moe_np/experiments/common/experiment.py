"""What an experiment is: a folder of `moe_np/experiments` whose `__init__` has these names.

    SUMMARY          one line for `moe-np list`, a plain string
    Config           a frozen dataclass: the paper's values, each with the place where it was read
    PAPER            the published numbers, {} where nothing was published
    SYSTEMS          the names that `--only` may pick out; () where one run holds all systems
    OPTIONS          a tuple of `Option`: flags of the command line beside the common ones
    SMOKE            keyword arguments of `run` that make it end within five seconds, for tests
    run_one(spec)    one run of one system from one seed: a JSON-able dict in, a JSON-able dict out
    specs(...)       the specs of the runs that are known from the start, arguments as for `run`
    run(...)         all runs and their summary, a JSON-able dict: what is written as NAME.json
    summarise(...)   what is reported of several runs of one system
    report(result)   the result as Markdown, the published numbers beside ours

In the folder, `experiment.py` computes (it never prints), `report.py` puts into words and tables,
`sensitivity.py` and the like hold further runs. Imports go from the report to the experiment and
never back; the `__init__` presents the names above and computes nothing.

`sweep` is a `moe_np.experiments.common.sweep.Sweep`: it runs specs in parallel and remembers the
finished ones. All numbers come from the seeds in a spec, so the result does not depend on the
number of processes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from moe_np.base import checks
from moe_np.base.checks import InputError

Spec = dict[str, Any]
Result = dict[str, Any]


class Option(NamedTuple):
    """One flag of the command line and one keyword argument of `run`, `--NAME` and NAME.

    A flag with `values` takes one of them, read as the type of the first; one without is a switch.
    The default is that of `run`.
    """

    name: str
    help: str
    values: tuple = ()


@runtime_checkable
class Experiment(Protocol):
    """The names that the `__init__` of an experiment's folder has; see the docstring above."""

    SUMMARY: str
    Config: type
    PAPER: dict
    SYSTEMS: tuple
    OPTIONS: tuple
    SMOKE: dict
    run_one: Callable[[Spec], Result]
    specs: Callable[..., Sequence[Spec]]
    run: Callable[..., Result]
    summarise: Callable[..., Any]
    report: Callable[[Result], str]


def selected(systems: Sequence[str], only: str | Iterable[str] | None) -> tuple[str, ...]:
    """The systems that `--only` picks out, in their own order; all where it is None.

    Raises InputError for a name that is not a system, and for an experiment without systems.
    """
    if only is None:
        return tuple(systems)
    names = (only,) if isinstance(only, str) else tuple(only)
    if not systems:
        raise InputError("only: wanted nothing, since one run of this experiment holds all systems")
    for name in names:
        checks.choice("only", name, tuple(systems))
    return tuple(system for system in systems if system in names)


def seed_count(seeds: int | None, default: int) -> int:
    """The number of seeds asked for, checked; the default where it is None."""
    return default if seeds is None else checks.integer("seeds", seeds)
