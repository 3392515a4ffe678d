"""Routers (gating networks): which token goes to which expert, and with what weight. One file per
router; moe_np/routing/contract.py explains how to write one.

N tokens   D features   E experts   k choices   A assignments   C capacity
"""

import importlib
import pkgutil
from types import ModuleType


def routers() -> dict[str, ModuleType]:
    """All routers of this folder by name, each a `contract.Router`: the modules with a `route`."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "route")}
