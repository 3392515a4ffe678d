"""Any computation of the package, looked at one named state at a time.

    steps    a computation as a sequence of states: forward and back, with every intermediate
    walk     such sequences for routers, layers, balance losses, mixtures and trainings
    view     their pictures: widgets in a notebook, HTML on a web page, text at a prompt

They are imported when they are first touched, as in `moe_np.show.walk.route(...)`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_np.show import steps, view, walk

__all__ = ["steps", "view", "walk"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"moe_np.show.{name}")
    raise AttributeError(f"module 'moe_np.show' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
