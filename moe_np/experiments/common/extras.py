"""Packages that only some experiments need, and one clear error where they are not installed."""

import importlib.util

from moe_np.base.checks import InputError

NAMES = {"sklearn": "scikit-learn"}  # of modules whose package has another name


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # its entry of sys.modules is None or has no spec
        return False


def require(module: str, extra: str) -> None:
    """Raise InputError that names the extra unless the module can be imported."""
    if not installed(module):
        name = NAMES.get(module, module)
        raise InputError(
            f"{name}: wanted it installed, the extra `{extra}`, got no such package; "
            f'pip install "moe-np[{extra}]"'
        )
