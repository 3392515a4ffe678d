"""A computation as a sequence of named states: forward and back, with every intermediate.

    walk = Steps(states)      # any iterable of State, a generator as well
    next(walk)                # the next state; at a prompt or in a notebook it prints itself
    walk.back()               # the state before; `next` then goes forward again
    walk[3], walk.now         # a state by its number; the current state
    walk.history("loss")      # the values of an array, from the first state to the current one

A State says which phase it is, which equation was used, which arrays exist, and which of them are
new or different. It keeps copies, so that a later update in place cannot change the past. `Trail`
makes states that have the arrays of the states before them. `moe_np.show.walk` makes walks of
routers, layers, losses and trainings; `moe_np.show.view` draws them.
"""

import html
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moe_np.base.checks import InputError
from moe_np.base.types import Array

ROWS_SHOWN = 6
DIGITS = 4
NOT_STARTED = "no step has been made yet: call next(steps) first"

AxisNames = tuple[str, ...]


class State(NamedTuple):
    """One moment. Made by `state`, which copies; printed as text and, in a notebook, as a table."""

    phase: str  # "E step"
    equation: str  # LaTeX without dollar signs, or ""
    arrays: dict[str, Array]  # what exists at this moment, oldest first
    axes: dict[str, AxisNames]  # name -> names of the axes, ("N", "E")
    changed: tuple[str, ...]  # names of arrays that are new or differ from the state before
    note: str = ""  # one sentence for the reader

    def __getitem__(self, key: str | int) -> Any:
        """The array of that name (or, as in any tuple, the field of that number)."""
        return self.arrays[key] if isinstance(key, str) else tuple.__getitem__(self, key)

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def state(
    phase: str,
    equation: str = "",
    arrays: Mapping[str, Any] | None = None,
    *,
    axes: Mapping[str, str | AxisNames] | None = None,
    note: str = "",
    before: State | None = None,
) -> State:
    """A State with copies of `arrays`; what is new or different since `before` is marked.

    axes    name -> "N E" or ("N", "E"); the axes of an array without an entry have no names

    Raises InputError where an array has another number of axes than `axes` says.
    """
    copies = {name: np.array(value) for name, value in (arrays or {}).items()}
    names_of_axes = {}
    for name, value in copies.items():
        names = (axes or {}).get(name, ())
        names = tuple(names.split()) if isinstance(names, str) else tuple(names)
        if names and len(names) != value.ndim:
            wanted = f"{value.ndim} names, one per axis"
            raise InputError(f"axes[{name!r}]: wanted {wanted}, got {names}")
        names_of_axes[name] = names
    old = {} if before is None else before.arrays
    changed = tuple(n for n, value in copies.items() if n not in old or not _equal(old[n], value))
    return State(phase, equation, copies, names_of_axes, changed, note)


def _equal(old, new):
    """Equal with NaN = NaN, which np.array_equal can only compare in arrays of numbers."""
    return np.array_equal(old, new, equal_nan=new.dtype.kind in "fc")


class Trail:
    """States one after another: each has the arrays that are given to it and those before it."""

    def __init__(self, axes: Mapping[str, str | tuple[str, ...]] | None = None) -> None:
        """axes: name -> "N E", or several, ("N k", "A"), of which the one with the right number of
        axes is taken.

        A gradient "dname" without an entry has the axes of its name; without either it has none.
        """
        self.axes = axes or {}
        self.arrays: dict[str, Any] = {}
        self.last: State | None = None

    def see(
        self,
        phase: str,
        equation: str = "",
        arrays: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> State:
        """The next State: the arrays so far, then `arrays`, of which those that are None are left
        out. A new array under an old name replaces the old one.
        """
        given = {name: value for name, value in (arrays or {}).items() if value is not None}
        kept = {name: value for name, value in self.arrays.items() if name not in given}
        self.arrays = kept | given
        axes = {name: self._axes(name, np.ndim(value)) for name, value in self.arrays.items()}
        self.last = state(phase, equation, self.arrays, axes=axes, note=note, before=self.last)
        return self.last

    def forget(self) -> None:
        """Begin again without arrays, as at a new epoch.

        The next state is still compared with the last one.
        """
        self.arrays = {}

    def resume(self, arrays: Mapping[str, Any]) -> None:
        """Go on with the arrays of an earlier state: the next state is compared with them."""
        self.arrays = dict(arrays)
        self.last = state("", "", arrays)

    def _axes(self, name, ndim):
        choices = self.axes.get(name, self.axes.get(name[1:], ()) if name.startswith("d") else ())
        choices = (choices,) if isinstance(choices, str) else choices
        return next((axes for axes in choices if len(axes.split()) == ndim), ())


# --- Walking --------------------------------------------------------------------------------------

Draw = Callable[[Any, State, list[State]], None]  # draw(ax, state, history)


class Steps:
    """States in order, kept once they were computed: `next`, `back`, by number, and in a `for` loop
    from the current state on.

    seen   the states computed so far
    at     number of the current state; −1 before the first
    draw   None, or draw(ax, state, history), which `moe_np.show.view` calls for the picture
    """

    def __init__(self, states: Iterable[State], *, draw: Draw | None = None) -> None:
        self._source = iter(states)
        self.seen: list[State] = []
        self.at = -1
        self.draw = draw

    def __iter__(self) -> "Steps":
        return self

    def __next__(self) -> State:
        if self.at + 1 == len(self.seen):
            self.seen.append(next(self._source))
        self.at += 1
        return self.seen[self.at]

    def back(self) -> State:
        """Move one state back and return that state. Raises InputError at the first one."""
        if self.at < 1:
            first = "back: wanted a step to go back to, got the first one"
            raise InputError(first if self.seen else NOT_STARTED)
        self.at -= 1
        return self.seen[self.at]

    @property
    def now(self) -> State:
        """The current state. Raises InputError before the first."""
        if self.at < 0:
            raise InputError(NOT_STARTED)
        return self.seen[self.at]

    def __getitem__(self, number: int) -> State:
        """State `number`, computed if necessary; the current state stays the same.

        Raises IndexError past the end.
        """
        if not isinstance(number, (int, np.integer)) or number < 0:
            raise InputError(f"number: wanted a whole number of at least 0, got {number!r}")
        while len(self.seen) <= number:
            try:
                self.seen.append(next(self._source))
            except StopIteration:
                message = f"there are {len(self.seen)} steps, and so no number {number}"
                raise IndexError(message) from None
        return self.seen[number]

    def goto(self, number: int) -> State:
        """Move to state `number` and return it."""
        target = self[number]
        self.at = int(number)
        return target

    def until(self, phase: str, *, most: int = 10_000) -> State:
        """Move to the next state whose phase starts with `phase`, and return it.

        Raises StopIteration, as `next` does, if there is none, and InputError if none of the next
        `most` states is one, since some walks have no end.
        """
        for _ in range(most):
            current = next(self)
            if current.phase.startswith(phase):
                return current
        raise InputError(f"phase: wanted the start of one of the next {most} phases, got {phase!r}")

    def history(self, name: str) -> list[Array]:
        """The values of an array, from the first state to the current one, where it exists."""
        return [s.arrays[name] for s in self.seen[: self.at + 1] if name in s.arrays]

    def __repr__(self) -> str:
        where = "not started" if self.at < 0 else f"at number {self.at}, {self.now.phase}"
        return f"Steps, {where}. next(steps) goes on, steps.back() goes back"


# --- Showing --------------------------------------------------------------------------------------


def preview(value: Any, *, rows: int = ROWS_SHOWN) -> str:
    """The first rows of an array as short text: of a vector 4 · rows numbers, of a scalar all.

    A last axis of length 1 is not shown: a column is printed as a row. Neither are first axes of
    length 1, of an array with more than two axes.
    """
    value = np.asarray(value)
    while value.ndim > 2 and len(value) == 1:
        value = value[0]
    while value.ndim > 1 and value.shape[-1] == 1:
        value = value[..., 0]
    rows = 4 * rows if value.ndim == 1 else rows
    digits: dict[str, Any] = _digits(value)
    with np.printoptions(**digits, threshold=60, edgeitems=3, linewidth=100):
        if value.ndim == 0:
            return str(value) if value.dtype.kind not in "fc" else f"{value:.{DIGITS + 2}g}"
        text = str(value[:rows])
    return text if len(value) <= rows else text + f"\n ... {len(value) - rows} more"


def _digits(value):
    """Four decimals; more where all numbers are small, such as gradients: 0.0001 says little."""
    finite = np.abs(value[np.isfinite(value)]) if value.dtype.kind == "f" else np.zeros(0)
    largest = finite.max(initial=0)
    if not 0 < largest < 0.01:
        return {"precision": DIGITS, "suppress": True}
    if largest < 1e-4:
        return {"precision": DIGITS - 1, "suppress": False}
    return {"precision": DIGITS + 2, "suppress": True}


def _shape(state, name):
    """The shape of an array with the names of its axes: "(N = 4, E = 2)"."""
    value = state.arrays[name]
    if value.ndim == 0:
        return ""
    axes = state.axes[name] or ["·"] * value.ndim
    return "(" + ", ".join(f"{a} = {n}" for a, n in zip(axes, value.shape, strict=True)) + ")"


def as_text(state: State) -> str:
    """The state in plain text: the arrays that changed with their values, the others by name."""
    lines = [state.phase]
    lines += [f"    {state.equation}"] if state.equation else []
    lines += [f"    {state.note}"] if state.note else []
    for name in state.changed:
        lines.append(f"  * {name} {_shape(state, name)}".rstrip())
        lines += ["      " + line for line in preview(state.arrays[name]).splitlines()]
    unchanged = ", ".join(name for name in state.arrays if name not in state.changed)
    indents: dict[str, Any] = {"initial_indent": "    unchanged: ", "subsequent_indent": " " * 15}
    if unchanged:
        lines += textwrap.wrap(unchanged, 110, break_long_words=False, **indents)
    return "\n".join(lines)


def as_html(state: State) -> str:
    """The state as an HTML table, without scripts and style sheets.

    `<details>` hides the arrays that did not change.
    """
    changed = [_html_row(state, name) for name in state.arrays if name in state.changed]
    unchanged = [_html_row(state, name) for name in state.arrays if name not in state.changed]
    parts = [f"<b>{html.escape(state.phase)}</b>"]
    if state.equation:
        equation = f"$\\displaystyle {html.escape(state.equation)}$"
        parts.append(f"<div class='mathjax_process'>{equation}</div>")
    if state.note:
        parts.append(f"<div>{html.escape(state.note)}</div>")
    if changed:
        parts.append(f"<table>{''.join(changed)}</table>")
    if unchanged:
        table = f"<table>{''.join(unchanged)}</table>"
        summary = f"<summary>unchanged: {len(unchanged)}</summary>"
        parts.append(f"<details>{summary}{table}</details>")
    return "<div>" + "".join(parts) + "</div>"


def _html_row(state, name):
    cells = (name, _shape(state, name), preview(state.arrays[name]))
    name_text, shape, values = (html.escape(cell) for cell in cells)
    left = "text-align:left"
    unbroken = "margin:0;background:none;white-space:pre"
    return (
        f"<tr><td style='{left};vertical-align:top'><b>{name_text}</b></td>"
        f"<td style='{left};vertical-align:top;white-space:nowrap'>{shape}</td>"
        f"<td style='{left}'><pre style='{unbroken}'>{values}</pre></td></tr>"
    )
