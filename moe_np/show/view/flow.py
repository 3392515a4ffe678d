"""The flow of a walk as a line of boxes: arrays forward, gradients backward under them.

    x  →  logits  →  probs  →  loss
    dx  ←  dlogits  ←  dprobs

A column per array in the order in which the arrays appeared. The gradient of an array, "d" and its
name, stands below it. The arrays that changed in this state are set off, and the arrow of the
direction in which the walk goes has the colour of the changed ones.
"""

import html

from moe_np import plots
from moe_np.show.steps import State

MOST_COLUMNS = 14  # a longer row of boxes says little

CHANGED = f"color:{plots.ORANGE};font-weight:bold;border-color:{plots.ORANGE}"
BOX = "border:1px solid #9a9a9a;border-radius:3px;padding:0 .35em;white-space:nowrap"
CELL = "text-align:center;padding:1px 2px;border:none;background:none"


def columns(state: State) -> list[tuple[str, str]]:
    """[(array, its gradient)] in the order in which the arrays appeared, "" where there is none."""
    names = list(state.arrays)
    gradients = {f"d{name}" for name in names} & set(names)
    return [
        (name, f"d{name}" if f"d{name}" in gradients else "")
        for name in names
        if name not in gradients
    ]


def flow_html(state: State) -> str:
    """The flow of a state as an HTML table; "" where there are too few arrays, or too many."""
    pairs = columns(state)
    if not 3 <= len(pairs) <= MOST_COLUMNS:
        return ""
    rows = [_row([array for array, _ in pairs], "→", state)]
    if any(gradient for _, gradient in pairs):
        rows.append(_row([gradient for _, gradient in pairs], "←", state))
    style = "border-collapse:collapse;font-size:90%;margin:.3em 0"
    table = f"<table style='{style}'>{''.join(rows)}</table>"
    return f"<div class='moe-flow' style='overflow-x:auto'>{table}</div>"


def _row(names, arrow, state):
    """Boxes and the arrows between them.

    Backward arrows come from the last array and reach the first gradient, over arrays without one.
    """
    cells = []
    for i, name in enumerate(names):
        if i:
            between = bool(name) if arrow == "→" else any(names[:i])
            changed = name in state.changed if arrow == "→" else _last(names, i) in state.changed
            colour = f"color:{plots.ORANGE};font-weight:bold" if changed else "color:#8a8a8a"
            cells.append(f"<td style='{CELL};{colour}'>{arrow if between else ''}</td>")
        look = f"{BOX};{CHANGED}" if name in state.changed else BOX
        box = f"<span style='{look}'>{html.escape(name)}</span>" if name else ""
        cells.append(f"<td style='{CELL}'>{box}</td>")
    return f"<tr style='background:none'>{''.join(cells)}</tr>"


def _last(names, i):
    """The nearest name to the left of place i."""
    return next((name for name in reversed(names[:i]) if name), "")
