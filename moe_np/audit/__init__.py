"""Audit: hold somebody else's router or whole layer against the reference.

    moe-np audit my_model.py:MyGate
    moe_np.audit.audit(MyGate, k=2) -> Report
    moe_np.audit.assert_router(MyGate, like="top_k", k=2)      in a test

A router in NumPy, PyTorch or JAX is called with small arrays, and every check says what it is, what
is wrong, and which item of the errata it is, with the input, what was wanted and what came. The
verdict is `right`, `wrong`, `convention` (a choice that one has to know) or `unknown`. The code
under audit is the user's own and runs as such: it is imported and called, and nothing protects the
machine from it.

    adapters.py, calling.py, torch_modules.py     any function, class or object becomes a `Subject`
    vocabulary.py                                 the names of arguments and results
    references.py, loss_rules.py                  right rules and known errors
    identity.py, gradient_flow.py, ...            the checks, by idea; catalogue.py has them all
    limits.py, worker.py                          a time limit per check
"""

from collections.abc import Mapping
from typing import Any

from moe_np.audit import limits
from moe_np.audit.calling import Settings
from moe_np.audit.findings import Finding
from moe_np.audit.report import Report
from moe_np.base import checks

__all__ = ["Finding", "Report", "assert_router", "audit"]


def audit(
    router: Any,
    *,
    d_model: int | None = None,
    experts: int | None = None,
    k: int | None = None,
    capacity_factor: float | None = None,
    framework: str | None = None,
    like: str | None = None,
    options: Mapping[str, Any] | None = None,
    time_limit: float = limits.LIMIT,
    only: tuple[str, ...] = (),
) -> Report:
    """Audit a router or a layer.

    router            a function, a class, an object, a router of `moe_np.routing`, or the text
                      "FILE.py:NAME" or "package.module:NAME", which is run in a process of its own
    d_model, experts  the sizes D and E, where they are not found
    k                 choices per token
    framework         "numpy", "torch" or "jax", where it is not found
    like, options     the router of `moe_np.routing` that it should equal, with its options
    time_limit        seconds per check
    only              names of checks; () for all

    Raises InputError where the form of the router is not understood.
    """
    checks.number("time_limit", time_limit, greater_than=0)
    settings = Settings(d_model, experts, k, capacity_factor, framework, like, dict(options or {}))
    run = limits.in_child if isinstance(router, str) else limits.in_thread
    header, findings = run(router, settings, time_limit, only)
    return Report(header["name"], header["framework"], findings)


NAMED = ("d_model", "experts", "k", "capacity_factor", "framework", "time_limit", "only", "options")


def assert_router(router: Any, like: str | None = None, **options: Any) -> Report:
    """For a test: raise AssertionError with the table where the audit finds something wrong.

    like       the router of `moe_np.routing` that it should equal
    options    of `audit` (k, experts, d_model, ...); any other one is an option of `like`
    """
    known = {name: options.pop(name) for name in tuple(options) if name in NAMED}
    known["options"] = {**options, **(known.get("options") or {})}
    report = audit(router, like=like, **known)
    assert not report.faults, f"\n{report}"
    return report
