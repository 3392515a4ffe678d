"""Look at a walk: `view(steps)` shows a picture and the arrays of a state, with buttons.

In a notebook these are core ipywidgets (slider, back, forward, play), which work in JupyterLab, VS
Code and Colab alike. Without ipywidgets or without a kernel the state is printed, and `next(steps)`
and `steps.back()` move along the walk. With MOE_NP_VIEW=page in the environment the states become
one piece of HTML that needs no kernel, for web pages; MOE_NP_VIEW=text always prints.
"""

import os
from collections.abc import Iterable
from typing import Any

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.show.steps import Draw, State, Steps

__all__ = ["view"]
AHEAD = 60  # states that are computed at once, if the walk has them; the forward button adds more


def view(
    steps: Steps | Iterable[State], *, last: int | None = None, draw: Draw | None = None
) -> Any:
    """Show a walk from its current state. Returns what a notebook displays; None after printing.

    steps    of `moe_np.show.steps`, or any iterable of states
    last     number of the last state to compute in advance; None: 60 states, or all there are
    draw     draw(ax, state, history): a picture in place of those of `moe_np.show.view.pictures`;
             history is the list of states from the first to this one. Without it `steps.draw` is
             used, if it is set

    Raises InputError for a walk without a state.
    """
    steps = steps if isinstance(steps, Steps) else Steps(steps)
    current = max(steps.at, 0)
    if last is None:
        compute_until(steps, current + AHEAD)
    else:
        compute_until(steps, checks.integer("last", last, minimum=0))
    if not steps.seen:
        raise InputError("steps: wanted at least one state, got none")
    mode = display_mode()
    if mode == "widgets":
        from moe_np.show.view.viewer import Viewer

        return Viewer(steps, draw).box
    if mode == "page":
        from moe_np.show.view.page import Page

        return Page(steps, draw)
    print(repr(steps.now if steps.at >= 0 else next(steps)))
    print("next(steps) goes on, steps.back() goes back.")
    return None


def compute_until(steps: Steps, number: int) -> None:
    """Compute the states up to `number`, or to the end of the walk."""
    try:
        _ = steps[number]
    except IndexError:
        return


def display_mode() -> str:
    """What this session can show: "widgets", "page" or "text".

    Raises InputError for another value of MOE_NP_VIEW.
    """
    mode = os.environ.get("MOE_NP_VIEW", "")
    if mode not in ("", "widgets", "page", "text"):
        raise InputError(f"MOE_NP_VIEW: wanted widgets, page or text, got {mode!r}")
    return mode or ("widgets" if _has_kernel() and _has_widgets() else "text")


def _has_kernel():
    """Whether this is the kernel of a notebook, and not a terminal."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def _has_widgets():
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return False
    return True
