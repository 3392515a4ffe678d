"""Pictures of the lessons that take many lines to draw and few to understand: the lessons call
them, so that their own lines stay about mixtures of experts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_np import plots
from moe_np.base.types import Array, ArrayE, ArrayN, ArrayNE, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# --- text -----------------------------------------------------------------------------------------


def coloured_tokens(
    ax: "Axes",
    texts: Sequence[str],
    experts: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    per_row: int = 60,
) -> None:
    """The tokens of a text one after another, each on the colour of its expert, with a legend.

    names     of the experts; None: "expert 0", ...
    per_row   characters per row
    """
    from matplotlib.patches import Rectangle

    x, row = 0.0, 0
    for text, expert in zip(texts, experts, strict=True):
        shown = text.replace(" ", "·").replace("\n", "↵")
        if x + len(shown) > per_row:
            x, row = 0.0, row + 1
        colour = plots.COLOURS[expert % len(plots.COLOURS)]
        look = {"facecolor": colour, "alpha": 0.4, "edgecolor": "white", "linewidth": 2}
        ax.add_patch(Rectangle((x, -row - 0.45), len(shown), 0.9, **look))
        font = {"family": "monospace", "fontsize": 11, "ha": "center", "va": "center"}
        ax.text(x + len(shown) / 2, -row, shown, **font)
        x += len(shown)
    for place, expert in enumerate(sorted(set(experts))):
        at = place * per_row / 8
        name = f"expert {expert}" if names is None else names[expert]
        colour = plots.COLOURS[expert % len(plots.COLOURS)]
        ax.plot(at + 0.5, -row - 1.4, "s", markersize=10, color=colour, alpha=0.5)
        ax.text(at + 1.3, -row - 1.4, name, fontsize=9, va="center")
    ax.set(xlim=(-0.2, per_row), ylim=(-row - 1.9, 0.6))
    ax.axis("off")


def bars_of_parameters(
    ax: "Axes", names: Sequence[str], active: Sequence[float], total: Sequence[float]
) -> None:
    """A bar per model: pale all parameters, full those that one token uses, in billions."""
    for row, (used, size) in enumerate(zip(active, total, strict=True)):
        ax.barh(row, size, 0.6, color=plots.BLUE, alpha=0.25)
        ax.barh(row, used, 0.6, color=plots.BLUE)
        words = f"{used:,.1f} of {size:,.1f} billion: {used / size:.0%}"
        ax.text(size * 1.1, row, words, va="center", fontsize=11)
    ax.set_yticks(range(len(names)), names)
    ax.set(xscale="log", xlim=(0.1, 60 * max(total)), xlabel="billion parameters (logarithmic)")
    ax.invert_yaxis()


# --- the arm and the three branches ---------------------------------------------------------------


def arm_postures(ax: "Axes", postures: Sequence[Array], target: float) -> None:
    """Two postures that reach the target at (target, 0), and their mean, which does not.

    postures   three arrays (3, 2): shoulder, elbow and hand
    """
    for posture, colour in zip(postures, (plots.BLUE, plots.GREEN, plots.ORANGE), strict=True):
        look = {"color": colour, "linewidth": 5, "markersize": 10, "alpha": 0.8}
        ax.plot(*np.asarray(posture).T, "o-", **look)
    ax.plot(target, 0, "X", color=plots.BLACK, markersize=14, zorder=5)
    plots.label(ax, target, 0.18, "target", size=14)
    plots.label(ax, 1.78, -0.17, "the mean of both", plots.ORANGE, size=14)
    ax.set(xlim=(-0.15, 2.15), ylim=(-0.95, 0.95), aspect="equal")
    ax.axis("off")


def lines_of_experts(ax: "Axes", x: ArrayN, o: ArrayNE, p: ArrayNE) -> None:
    """The answer o of each expert over x, as wide as its p, with its number."""
    for i in range(o.shape[1]):
        colour = plots.COLOURS[i]
        ax.scatter(x, o[:, i], s=50 * p[:, i], color=colour, linewidths=0)
        at = int(np.average(np.arange(len(x)), weights=p[:, i]))
        side = 0.15 if o[-1, i] < o[0, i] else -0.15
        plots.label(ax, x[at] + side, o[at, i] + 0.1, f"expert {i}", colour, weight="bold")


def densities(
    ax: "Axes",
    grid: ArrayN,
    possible: ArrayN,
    net: tuple[float, float],
    o: ArrayE,
    p: ArrayE,
    sigma: float,
) -> None:
    """What is possible at one x (grey), the normal density of a net, and that of a mixture.

    possible   (G,) True where the grid of wanted outputs is possible
    net        (mean, standard deviation)
    o, p       (E,) answers and mixture weights, all with the standard deviation sigma
    """

    def normal(mean, width):
        z = (grid - mean) / width
        return np.exp(-z * z / 2) / (width * np.sqrt(2 * np.pi))

    height = possible / (possible.mean() * np.ptp(grid))
    ax.fill_between(grid, height, color=plots.GREY, alpha=0.4, step="mid", linewidth=0)
    ax.plot(grid, normal(*net), "--", color=plots.ORANGE, linewidth=2.5, label="net")
    parts = [weight * normal(mean, sigma) for mean, weight in zip(o, p, strict=True)]
    ax.plot(grid, np.sum(parts, axis=0), color=plots.BLACK, linewidth=2.5, label="mixture")
    for i, part in enumerate(parts):
        ax.fill_between(grid, part, color=plots.COLOURS[i], alpha=0.5, linewidth=0)
    ax.set(xlabel="$d$", ylabel="density", ylim=(0, 12), xlim=(grid[0], grid[-1]))
    ax.legend(frameon=False, loc="upper center")


# --- the gate -------------------------------------------------------------------------------------


def belief_and_responsibility(
    axes: "Sequence[Axes] | np.ndarray", p: ArrayNE, resp: ArrayNE, moved: ArrayNE
) -> None:
    """An Axes per case: outlined bars p, full bars resp, and arrows from p to p after a step."""
    look = {"arrowstyle": "-|>", "color": plots.BLACK, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    E = p.shape[1]
    for n, ax in enumerate(axes):
        ax.bar(range(E), resp[n], 0.72, color=plots.COLOURS[:E], alpha=0.35)
        outline = {"facecolor": "none", "edgecolor": plots.COLOURS[:E], "linewidth": 2}
        ax.bar(range(E), p[n], 0.72, **outline)
        for i in range(E):
            if abs(moved[n, i] - p[n, i]) > 0.02:
                ax.annotate("", (i, moved[n, i]), (i, p[n, i]), arrowprops=look)
        ax.set(title=f"case {n}", xticks=range(E), xlabel="expert", ylim=(0, 1.05))
    axes[0].set_ylabel("p (outline), resp (full)")


# --- three errors ---------------------------------------------------------------------------------


def landscape_with_path(ax: "Axes", o0: Array, o1: Array, height: Array, path: Array) -> None:
    """The height over (o0, o1), dark where it is low, and a path (T, 2) from circle to square."""
    levels = np.quantile(height, np.linspace(0, 1, 16)).tolist()
    ax.contourf(o0, o1, height, levels=levels, cmap="Blues_r")
    ax.plot(*path.T, color=plots.ORANGE, linewidth=2.5)
    circle = {"markerfacecolor": "white", "markeredgecolor": plots.ORANGE, "markersize": 9}
    ax.plot(*path[0], "o", **circle)
    ax.plot(*path[-1], "s", color=plots.ORANGE, markeredgecolor="white", markersize=10)
    ax.set_aspect("equal")


def two_lines(ax: "Axes", x: ArrayN, d: ArrayN, now: Any) -> None:
    """The cases, the lines of two experts, and some cases in the colour of who is responsible.

    now   a state with W (2, 1, 1), b (2, 1), and x, d, resp_0 of the cases that are coloured
    """
    from matplotlib.colors import LinearSegmentedColormap

    ax.plot(x, d, ".", color=plots.GREY, markersize=3)
    for W, b, colour in zip(now["W"], now["b"], (plots.BLUE, plots.ORANGE), strict=True):
        ax.plot(x, x * W[0, 0] + b[0], color=colour, linewidth=2.5)
    blend = LinearSegmentedColormap.from_list("", [plots.ORANGE, "white", plots.BLUE])
    look = {"s": 130, "cmap": blend, "vmin": 0, "vmax": 1, "edgecolor": plots.BLACK, "zorder": 5}
    ax.scatter(now["x"], now["d"], c=now["resp_0"], **look)
    ax.set(title=now.phase, xlabel="x", ylabel="d", ylim=(-4, 4))


def two_answers(ax: "Axes", x: ArrayN, d: ArrayN, o: ArrayNE, p: ArrayNE, y: ArrayN) -> None:
    """The cases, the answers of two experts, stronger where p is larger, and the blend y."""
    ax.plot(x, d, ".", color=plots.GREY, markersize=3)
    for i, colour in enumerate((plots.BLUE, plots.ORANGE)):
        look: dict[str, Any] = {"alpha": np.clip(p[:, i], 0.1, 1), "linewidths": 0}
        ax.scatter(x, o[:, i], s=14, color=colour, **look)
    ax.plot(x, y, color=plots.BLACK, linewidth=1.2)
    ax.set(xlabel="x", ylim=(-4, 4))


# --- the vowels -----------------------------------------------------------------------------------


def lines_over_points(
    ax: "Axes", x: Array, d: ArrayN, params: Params, share: ArrayE, dashed: Params
) -> None:
    """Cases (N, 2), filled where d is 1, and the line of each expert, as thick as its share.

    dashed   the parameters of a single expert, whose line is drawn dashed
    """
    for value, face in ((0, "white"), (1, plots.GREY)):
        points = x[d == value]
        ax.scatter(*points.T, s=14, facecolor=face, edgecolor=plots.GREY, linewidth=0.8)
    ax.set(xlim=(0.1, 1.3), ylim=(0.5, 3.2), xlabel="first formant (kHz)")
    for m, (W, b) in enumerate(zip(params["W"], params["b"], strict=True)):
        width = 0.7 + 6 * share[m]
        plots.straight_line(ax, W[:, 0], b[0], color=plots.COLOURS[m], linewidth=width)
    W, b = dashed["W"][0], dashed["b"][0]
    plots.straight_line(ax, W[:, 0], b[0], color=plots.BLACK, linestyle="--", linewidth=1.5)


# --- noisy top-k ----------------------------------------------------------------------------------


def chances_to_be_kept(
    ax: "Axes", clean: ArrayE, sigma: ArrayE, noisy: ArrayE, threshold: ArrayE, P: ArrayE
) -> None:
    """One token: per expert the density of its noisy logit, the part above the threshold shaded,
    the logit that was drawn as a dot, and P. Blue: kept.
    """
    line = np.linspace(-6, 6, 400)
    for i in range(len(clean)):
        density = 0.8 * np.exp(-0.5 * ((line - clean[i]) / sigma[i]) ** 2)
        beats = line >= threshold[i]
        colour = plots.BLUE if noisy[i] > threshold[i] else plots.GREY
        ax.plot(line, i + density, color=colour, linewidth=1.5)
        shade = {"color": colour, "alpha": 0.45, "linewidth": 0}
        ax.fill_between(line[beats], i, (i + density)[beats], **shade)
        ax.plot([threshold[i]] * 2, [i, i + 0.85], color=plots.BLACK, linewidth=1.5)
        ax.plot(noisy[i], i, "o", color=colour, markersize=8, clip_on=False, zorder=5)
        ax.text(6.1, i + 0.25, f"P = {P[i]:.2f}", color=colour)
    ax.set(xlabel="logit", yticks=range(len(clean)), xlim=(-6, 6))
