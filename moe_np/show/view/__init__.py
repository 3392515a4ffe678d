"""Looking at a walk: `view(steps)` shows a picture and the arrays of a state, with a slider, back,
forward and play.

In a notebook these are core ipywidgets, which work in JupyterLab, VS Code and Colab alike. Without
ipywidgets or without a kernel the state is printed, and `next(steps)` and `steps.back()` do the
walking: nothing is lost but comfort. With MOE_NP_VIEW=page in the environment the states become one
piece of HTML that needs no kernel, for web pages; MOE_NP_VIEW=text always prints.
"""

import os

from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.show.steps import Steps

__all__ = ["view"]
AHEAD = 60  # so many states are computed at once, if the walk has them; forward adds more


def view(steps, *, last=None, draw=None):
    """Show a walk from where it is. Returns what a notebook displays, or None after printing.

    steps    of `moe_np.show.steps`, or any iterable of states
    last     look ahead up to the state of this number; None: to the end, or 60 states
    draw     draw(ax, state, history): the picture, where `moe_np.show.view.pictures` has no good one; history is the list of
             states from the first to this one. `steps.draw` is taken otherwise, if it is set

    Raises InputError for a walk without a single state.
    """
    steps = steps if isinstance(steps, Steps) else Steps(steps)
    number = steps.at if last is None else checks.integer("last", last, minimum=0)
    look_ahead(steps, max(number, 0) if last is not None else max(number, 0) + AHEAD)
    if not steps.seen:
        raise InputError("steps: wanted at least one state, got none")
    way = how()
    if way == "widgets":
        from moe_np.show.view.viewer import Viewer

        return Viewer(steps, draw).box
    if way == "page":
        from moe_np.show.view.page import Page

        return Page(steps, draw)
    print(repr(steps.now if steps.at >= 0 else next(steps)))
    print("next(steps) goes on, steps.back() goes back.")
    return None


def look_ahead(steps, number):
    """Compute the states up to `number`, or to the end of the walk."""
    try:
        _ = steps[number]
    except IndexError:
        return


def how():
    """What this session can show: "widgets", "page" or "text"."""
    asked = os.environ.get("MOE_NP_VIEW", "")
    if asked not in ("", "widgets", "page", "text"):
        raise InputError(f"MOE_NP_VIEW: wanted widgets, page or text, got {asked!r}")
    return asked or ("widgets" if _has_kernel() and _has_widgets() else "text")


def _has_kernel():
    """A notebook's kernel, not a terminal."""
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
