"""Pictures of hierarchical mixtures of experts: the regions of the leaves, a tree with its
probabilities, and the states of EM on a tree.
"""

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from moe_np import plots
from moe_np.base.types import Array, ArrayN, ArrayNE, Params
from moe_np.mixtures import hme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RGB = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS[:4]])


def regions(ax: "Axes", p: ArrayNE, leaf: ArrayN) -> None:
    """The plane from -1 to 1 in the colours of four experts, and white borders between leaves.

    p      (n·n, 4) probabilities of the leaves on a square grid
    leaf   (n·n,) the leaf to which the likelier branches lead
    """
    n = round(len(p) ** 0.5)
    colours = (1 - 0.75 * (1 - p @ RGB)).reshape(n, n, 3)
    ax.imshow(colours, origin="lower", extent=(-1, 1, -1, 1))
    line = np.linspace(-1, 1, n)
    borders = {"levels": (0.5, 1.5, 2.5), "colors": "white", "linewidths": 1}
    ax.contour(line, line, leaf.reshape(n, n), **borders)
    across, up = np.meshgrid(line, line)
    for i in range(4):
        weight = p[:, i] ** 4
        x = np.average(across.ravel(), weights=weight)
        y = np.average(up.ravel(), weights=weight)
        plots.label(ax, x, y, f"{i}", size=20, weight="bold")
    ax.set(xticks=[], yticks=[])


def tree(ax: "Axes", top: Array, below: Array, leaf: Array, title: str) -> None:
    """A tree of two branches with two leaves each; branches as thick as their probability.

    top (2,), below (2, 2), leaf (2, 2): probabilities of the branches, of the branches below them,
    and of the leaves
    """
    for i in (0, 1):
        _branch(ax, (1.5, 2), (0.5 + 2 * i, 1), top[i])
        for j in (0, 1):
            colour = plots.COLOURS[2 * i + j]
            x = 2 * i + j
            _branch(ax, (0.5 + 2 * i, 1), (x, 0), below[i, j])
            ax.scatter(x, 0, s=250 + 1500 * leaf[i, j], color=colour, zorder=3)
            plots.label(ax, x, -0.5, f"{leaf[i, j]:.2f}", colour, size=16, weight="bold")
        ax.scatter(0.5 + 2 * i, 1, s=250, color=plots.BLACK, zorder=3)
    ax.scatter(1.5, 2, s=250, color=plots.BLACK, zorder=3)
    ax.set(title=title, xlim=(-0.6, 3.6), ylim=(-0.75, 2.3))
    ax.axis("off")


def _branch(ax, start, end, p):
    look = {"color": plots.GREY, "linewidth": 1 + 9 * p, "solid_capstyle": "round", "zorder": 1}
    ax.plot(*zip(start, end, strict=True), **look)
    plots.label(ax, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, f"{p:.2f}", size=14)


def lines_and_gates(
    ax: "Axes",
    x: Array,
    d: Array,
    params: Params,
    resp: Annotated[np.ndarray, "N, 4"] | None,
) -> None:
    """Cases in the colours of who is responsible, the lines of four experts, and below two bands:
    what the top gate says (two greys), and the leaves.

    x, d     (N, 1) with x from -1 to 1
    params   of a tree of (2, 2) linear experts
    resp     None: cases are grey
    """
    line = np.linspace(-1, 1, 201)[:, None]
    colours: Any = plots.GREY if resp is None else (resp @ RGB).clip(0, 1)
    ax.scatter(x, d, s=16, c=colours, linewidths=0)
    top, below = (np.exp(level) for level in hme.log_gates(params, line))
    leaf = (top.reshape(-1, 2, 1) * below).reshape(-1, 4)
    for e in range(4):
        answer = line @ params["W"][e] + params["b"][e]
        ax.scatter(line, answer, s=40 * leaf[:, e], color=plots.COLOURS[e], linewidths=0)
    greys = top[:, 0] @ np.array([[0.25] * 3, [0.8] * 3])
    for place, band, name in ((-1.5, greys, "top gate"), (-1.8, leaf @ RGB, "leaves")):
        extent = (-1, 1, place, place + 0.22)
        ax.imshow(band[None].clip(0, 1), extent=extent, aspect="auto")
        ax.text(-1.03, place + 0.11, name, ha="right", va="center", fontsize=9)
    ax.set(xlim=(-1, 1), ylim=(-1.85, 1.8), xlabel="x", yticks=(-1, 0, 1))
