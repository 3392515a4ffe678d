"""The options of a router in a model's Config: those that its `route` and its `init` take as
keywords, without what the layer and the model give them (rng, dtype, valid tokens, ids, sizes).
"""

import functools
import inspect
from typing import Any

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.layers import mixture_layer

OF_THE_LAYER = ("valid", "training", "rng", "dtype", "ids", "n_experts", "vocabulary")


@functools.cache
def names(router: str, function: str) -> dict[str, bool]:
    """{name of an option: whether it is needed} of "route" or "init" of the router of this name."""
    arguments = inspect.signature(getattr(mixture_layer.router_of(router), function)).parameters
    return {
        p.name: p.default is p.empty
        for p in arguments.values()
        if p.kind is p.KEYWORD_ONLY and p.name not in OF_THE_LAYER
    }


def check(router: str, options: Any, init_options: Any, prefix: str = "config.") -> None:
    """Raise InputError for an option that the router of this name does not have, and where one is
    missing that it needs: each router has other ones, so options change with the router.
    """
    given = {"options": (options, "route"), "init_options": (init_options, "init")}
    for field, (values, function) in given.items():
        known = names(router, function)
        values = checks.mapping(f"{prefix}{field}", {} if values is None else values)
        needed = {name for name, is_needed in known.items() if is_needed}
        if not needed <= set(values) <= set(known):
            wanted = [f"{name} (needed)" if name in needed else name for name in known]
            raise InputError(
                f"{prefix}{field}: wanted a dict with the options of {router}, "
                f"{', '.join(wanted) or 'which has none'}; got {checks.text(dict(values))}"
            )
