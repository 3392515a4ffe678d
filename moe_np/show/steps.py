"""Any computation as a sequence of named states: one operation at a time, forward and back, with
every intermediate.

    walk = Steps(states)      # any iterable of State, a generator as well
    next(walk)                # the next state; at a prompt or in a notebook it prints itself
    walk.back()               # the one before; `next` then goes forward again through what is remembered
    walk[3], walk.now         # a state by its number; the one we are at
    walk.so_far("loss")       # what an array was, from the first state to this one

A State says which phase it is, which equation was used, which arrays exist now, and which of them
are new or different. It keeps copies, so that a later update in place cannot rewrite the past.
`Trail` makes states of which each has the arrays of those before it. `moe_np.show.walk` makes walks
of routers, layers, losses and trainings; `moe_np.show.view` draws them.
"""

import html
import textwrap
from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError

ROWS_SHOWN, DIGITS = 6, 4


class State(NamedTuple):
    """One moment. Made by `state`, which copies; printed as text and, in a notebook, as a table."""

    phase: str  # "E step"
    equation: str  # LaTeX without dollar signs, or ""
    arrays: dict  # name -> array, what exists at this moment, oldest first
    axes: dict  # name -> names of the axes, ("N", "E")
    changed: tuple  # names of what is new or has another value than in the state before
    note: str = ""  # one sentence for the reader

    def __getitem__(self, key):
        """The array of that name (or, as in any tuple, the field of that number)."""
        return self.arrays[key] if isinstance(key, str) else tuple.__getitem__(self, key)

    def __repr__(self):
        return as_text(self)

    def _repr_html_(self):
        return as_html(self)


def state(phase, equation="", arrays=None, *, axes=None, note="", before=None):
    """A State with copies of `arrays`; what is new or different since `before` (a State or None) is
    marked.

    axes    name -> "N E" or ("N", "E"); a name without an entry gets none
    Raises InputError where an array has another number of axes than `axes` says.
    """
    copies = {name: np.array(value) for name, value in (arrays or {}).items()}
    named = {}
    for name, value in copies.items():
        own = (axes or {}).get(name, ())
        own = tuple(own.split()) if isinstance(own, str) else tuple(own)
        if own and len(own) != value.ndim:
            raise InputError(f"axes[{name!r}]: wanted {value.ndim} names, one an axis, got {own}")
        named[name] = own
    old = {} if before is None else before.arrays
    changed = tuple(
        n
        for n, v in copies.items()
        if n not in old or not np.array_equal(old[n], v, _nan_counts(v))
    )
    return State(phase, equation, copies, named, changed, note)


def _nan_counts(value):
    return value.dtype.kind in "fc"  # np.array_equal(equal_nan=True) is for numbers only


class Trail:
    """States one after another: each has what is given to it and what was there before.

    axes    name -> "N E", or several of them, ("N k", "A"), of which that with the right number of axes is taken.
            A gradient "dname" without an entry has the axes of its name; without either, none are named.
    """

    def __init__(self, axes=None):
        self.axes, self.arrays, self.last = axes or {}, {}, None

    def see(self, phase, equation="", arrays=None, note=""):
        """The next State: the arrays so far, and after them `arrays`, also where they take an old
        one's name.

        None among them is left out.
        """
        given = {name: value for name, value in (arrays or {}).items() if value is not None}
        self.arrays = {
            name: value for name, value in self.arrays.items() if name not in given
        } | given
        axes = {name: self._axes(name, np.ndim(value)) for name, value in self.arrays.items()}
        self.last = state(phase, equation, self.arrays, axes=axes, note=note, before=self.last)
        return self.last

    def forget(self):
        """Begin again without arrays, as at a new epoch; what comes is still compared with the last
        state.
        """
        self.arrays = {}

    def _axes(self, name, ndim):
        ways = self.axes.get(name, self.axes.get(name[1:], ()) if name.startswith("d") else ())
        ways = (ways,) if isinstance(ways, str) else ways
        return next((way for way in ways if len(way.split()) == ndim), ())


# --- Walking --------------------------------------------------------------------------------------


class Steps:
    """States in order, remembered as they are met: `next`, `back`, by number, and in a `for` loop
    from here on.
    """

    def __init__(self, states, *, draw=None):
        """states: an iterable of State. draw: optional `draw(ax, state, history)` that
        `moe_np.show.view` calls.
        """
        self._source = iter(states)
        self.seen = []
        self.at = -1  # number of the state we are at; −1 before the first
        self.draw = draw

    def __iter__(self):
        return self

    def __next__(self):
        if self.at + 1 == len(self.seen):
            self.seen.append(next(self._source))
        self.at += 1
        return self.seen[self.at]

    def back(self):
        """One state back. At the first one there is nowhere to go: InputError."""
        if self.at < 1:
            raise InputError(
                "back: wanted a step to go back to, got the first one" if self.seen else NOT_STARTED
            )
        self.at -= 1
        return self.seen[self.at]

    @property
    def now(self):
        if self.at < 0:
            raise InputError(NOT_STARTED)
        return self.seen[self.at]

    def __getitem__(self, number):
        """State `number`, computed if it has to be; the position does not move. IndexError past the
        end.
        """
        if not isinstance(number, (int, np.integer)) or number < 0:
            raise InputError(f"number: wanted a whole number of at least 0, got {number!r}")
        while len(self.seen) <= number:
            try:
                self.seen.append(next(self._source))
            except StopIteration:
                raise IndexError(
                    f"there are {len(self.seen)} steps, and so no number {number}"
                ) from None
        return self.seen[number]

    def goto(self, number):
        """Move to state `number` and return it."""
        found = self[number]
        self.at = int(number)
        return found

    def until(self, phase, *, most=10_000):
        """The next state whose phase starts with `phase`. StopIteration (as of `next`) if there is
        none.

        InputError if there is none among the next `most`: not every walk ends.
        """
        for _ in range(most):
            if (found := next(self)).phase.startswith(phase):
                return found
        raise InputError(f"phase: wanted the start of one of the next {most} phases, got {phase!r}")

    def so_far(self, name):
        """The arrays of that name in the states from the first to the one we are at, where it
        exists.
        """
        return [s.arrays[name] for s in self.seen[: self.at + 1] if name in s.arrays]

    def __repr__(self):
        where = "not started" if self.at < 0 else f"at number {self.at}, {self.now.phase}"
        return f"Steps, {where}. next(steps) goes on, steps.back() goes back"


NOT_STARTED = "no step has been made yet: call next(steps) first"

# --- Showing --------------------------------------------------------------------------------------


def preview(value, *, rows=ROWS_SHOWN):
    """The first rows of an array as short text, of a single row 4 times as many numbers; scalars in
    full.

    A last axis of length 1 is not shown: a column is printed as a row.
    """
    value = np.asarray(value)
    while value.ndim > 1 and value.shape[-1] == 1:
        value = value[..., 0]
    rows = 4 * rows if value.ndim == 1 else rows
    with np.printoptions(precision=DIGITS, suppress=True, threshold=60, edgeitems=3, linewidth=100):
        if value.ndim == 0:
            return str(value) if value.dtype.kind not in "fc" else f"{value:.{DIGITS + 2}g}"
        text = str(value[:rows])
    return text if len(value) <= rows else text + f"\n ... {len(value) - rows} more"


def _shape(state, name):
    value, axes = state.arrays[name], state.axes[name]
    if value.ndim == 0:
        return ""
    return (
        "("
        + ", ".join(
            f"{a} = {n}" for a, n in zip(axes or ["·"] * value.ndim, value.shape, strict=True)
        )
        + ")"
    )


def as_text(state):
    """The state in plain text: what is new or has changed with its values, marked *; the rest by
    name.
    """
    lines = [state.phase]
    lines += [f"    {state.equation}"] if state.equation else []
    lines += [f"    {state.note}"] if state.note else []
    for name in state.changed:
        lines.append(f"  * {name} {_shape(state, name)}".rstrip())
        lines += ["      " + line for line in preview(state.arrays[name]).splitlines()]
    same = ", ".join(name for name in state.arrays if name not in state.changed)
    hanging = {
        "initial_indent": "    unchanged: ",
        "subsequent_indent": " " * 15,
        "break_long_words": False,
    }
    return "\n".join(lines + (textwrap.wrap(same, 110, **hanging) if same else []))


def as_html(state):
    """The same as an HTML table without scripts or outside styles; `<details>` hides what did not
    change.
    """
    new, old = [], []
    for name in state.arrays:
        cells = (name, _shape(state, name), preview(state.arrays[name]))
        name_, shape, values = (html.escape(cell) for cell in cells)
        row = (
            f"<tr><td style='text-align:left;vertical-align:top'><b>{name_}</b></td>"
            f"<td style='text-align:left;vertical-align:top;white-space:nowrap'>{shape}</td>"
            f"<td style='text-align:left'><pre style='margin:0;background:none'>{values}</pre></td></tr>"
        )
        (new if name in state.changed else old).append(row)
    parts = [f"<b>{html.escape(state.phase)}</b>"]
    parts += (
        [f"<div class='mathjax_process'>$\\displaystyle {html.escape(state.equation)}$</div>"]
        if state.equation
        else []
    )
    parts += [f"<div>{html.escape(state.note)}</div>"] if state.note else []
    parts += [f"<table>{''.join(new)}</table>"] if new else []
    parts += (
        [
            f"<details><summary>unchanged: {len(old)}</summary><table>{''.join(old)}</table></details>"
        ]
        if old
        else []
    )
    return "<div>" + "".join(parts) + "</div>"
