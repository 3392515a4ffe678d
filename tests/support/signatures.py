"""The settings of a function that hold unless they are given."""

import inspect
from collections.abc import Callable


def defaults(function: Callable) -> dict[str, object]:
    """The parameters with a default that is not None."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default not in (p.empty, None)}
