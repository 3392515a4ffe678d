"""Pictures of mixtures: functions that take arrays and draw on a given matplotlib Axes.

They are made to be read from the last row of a lecture room: large type, labels at the thing that
they name, and the colours of Okabe and Ito, which colour-blind readers can tell apart and which
differ in grey as well.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from moe_np.base.types import Array, ArrayE, ArrayN
from moe_np.layers import diagnostics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import FancyBboxPatch
    from matplotlib.text import Annotation, Text

ArrayN2 = Annotated[np.ndarray, "N, 2"]

# Okabe and Ito (2008), Color universal design
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
SKY = "#56B4E9"
AMBER = "#E69F00"
YELLOW = "#F0E442"
BLACK = "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, YELLOW, BLACK)
GREY = "#8A8A8A"

STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "figure.constrained_layout.use": True,
    "svg.fonttype": "path",
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """A context in which matplotlib has the settings of all our pictures."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def _rim(alpha=1.0):
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=3.5, foreground="white", alpha=alpha)]


def label(ax: "Axes", x: float, y: float, text: str, colour: str = BLACK, **options: Any) -> "Text":
    """Text at (x, y) of the data, with a white rim that separates it from lines and dots below."""
    options = {"ha": "center", "va": "center", "zorder": 10, "path_effects": _rim(), **options}
    return ax.text(x, y, text, color=colour, **options)


# --- the plane of two inputs ----------------------------------------------------------------------


def labelled_points(
    ax: "Axes",
    x: ArrayN2,
    group: ArrayN,
    names: Sequence[str],
    colours: Sequence[str] = COLOURS,
    markers: str = "os^D",
    places: Sequence[tuple[float, float]] | None = None,
) -> None:
    """The points x in the colour and marker of their group, and the name of each group.

    group   (N,) numbers of the groups, as positions in `names`
    places  where the names stand; None: at the median of each group
    """
    for i, name in enumerate(names):
        points = x[group == i]
        look = {"c": colours[i], "marker": markers[i % len(markers)]}
        ax.scatter(*points.T, s=16, alpha=0.55, linewidths=0, **look)
        place = np.median(points, axis=0) if places is None else places[i]
        label(ax, place[0], place[1], name, colours[i], size=20, weight="bold")


def straight_line(ax: "Axes", w: Array, b: float, **options: Any) -> "list[Line2D]":
    """The line w·x + b = 0, w (2,), across the whole Axes. The limits of the Axes do not change."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    middle = np.array([x0 + x1, y0 + y1]) / 2
    # the point of the line that is nearest to the middle of the picture
    foot = middle - (middle @ w + b) / (w @ w) * w
    along = np.array([-w[1], w[0]]) / np.linalg.norm(w) * 2 * np.hypot(x1 - x0, y1 - y0)
    ends = np.stack([foot - along, foot + along], axis=1)
    drawn = ax.plot(*ends, **{"scalex": False, "scaley": False, **options})
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    return drawn


def text_along_line(
    ax: "Axes",
    w: Array,
    b: float,
    x: float,
    text: str,
    colour: str = BLACK,
    gap: float = 9,
    **options: Any,
) -> "Annotation":
    """Text parallel to the line w·x + b = 0 at abscissa x, `gap` points above it.

    A negative gap places it below.
    """
    y = -(w[0] * x + b) / w[1]
    ax.figure.figure.draw_without_rendering()  # an angle on the page needs a settled layout
    ends = ax.transData.transform([(x, y), (x + 0.01, y - 0.01 * w[0] / w[1])])
    angle = np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    shift = gap * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    options = {
        **{"ha": "center", "va": "center", "rotation": angle, "rotation_mode": "anchor"},
        **{"path_effects": _rim(0.8), "zorder": 9, "annotation_clip": False},
        **options,
    }
    placed = {"xytext": (shift[0], shift[1]), "textcoords": "offset points", "color": colour}
    return ax.annotate(text, (x, y), **{**placed, **options})


def trajectories(
    ax: "Axes",
    points: Annotated[np.ndarray, "T, M, 2"],
    colours: Sequence[str],
    size: float = 3.2,
) -> None:
    """M paths of T points: a dot per point, an open circle at the first, a square at the last."""
    for i, colour in enumerate(colours):
        path = points[:, i]
        first = {"markerfacecolor": "white", "markeredgecolor": colour, "markersize": 8}
        last = {"color": colour, "markeredgecolor": "white", "markersize": 10}
        ax.plot(*path.T, ".", color=colour, markersize=size, markeredgewidth=0, zorder=3)
        ax.plot(*path[0], "o", zorder=4, **first)
        ax.plot(*path[-1], "s", zorder=7, **last)


# --- runs and tables ------------------------------------------------------------------------------


def runs_beside_published(
    ax: "Axes",
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    published: Sequence[tuple[float, float]],
    colours: Sequence[str] = COLOURS,
    seed: int = 0,
) -> None:
    """A row per name: a dot per run, above them mean ± SD, below them the published mean and SD.

    values     the numbers of each name's runs
    published  (mean, standard deviation) of each name, drawn as a black diamond
    seed       of the random heights that keep dots apart
    """
    rng = np.random.default_rng(seed)
    for row, (run_values, (mean, sd)) in enumerate(zip(values, published, strict=True)):
        numbers = np.asarray(run_values, dtype=float)
        our_sd = numbers.std(ddof=1) if len(numbers) > 1 else 0
        height = row + rng.uniform(-0.13, 0.13, len(numbers))
        circle = {"fmt": "o", "color": colours[row], "markersize": 8, "linewidth": 2}
        diamond = {"fmt": "D", "color": BLACK, "markersize": 7, "linewidth": 1.5}
        ax.scatter(numbers, height, s=26, c=colours[row], alpha=0.5, linewidths=0)
        ax.errorbar(numbers.mean(), row - 0.27, xerr=our_sd, capsize=4, **circle)
        ax.errorbar(mean, row + 0.3, xerr=sd, capsize=4, **diamond)
    _rows_from_the_top(ax, names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _rows_from_the_top(ax, names):
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def tile(x: float, y: float, colour: str, size: float = 0.92) -> "FancyBboxPatch":
    """A rounded square about (x, y), for tables that are pictures: `ax.add_patch(tile(...))`."""
    from matplotlib.patches import FancyBboxPatch

    corner = (x - size / 2, y - size / 2)
    box = "round,pad=0,rounding_size=.1"
    return FancyBboxPatch(corner, size, size, boxstyle=box, facecolor=colour, edgecolor="none")


# --- how a gate uses its experts: pictures of moe_np.layers.diagnostics ---------------------------


def expert_load(ax: "Axes", load: ArrayE, demand: ArrayE | None = None, colour: str = BLUE) -> None:
    """A bar per expert: the tokens that it processes, and dotted above them those dropped.

    load and demand as from diagnostics.load and .demand. The mean load is a dashed line; the title
    gives the coefficient of variation, maximum / mean, and the dropped share.
    """
    load = np.asarray(load)
    wanted = load if demand is None else np.asarray(demand)
    place = np.arange(len(load))
    ax.bar(place, wanted, 0.8, facecolor="none", edgecolor=colour, linestyle=":", linewidth=1.5)
    ax.bar(place, load, 0.8, color=colour)
    ax.axhline(load.mean(), color=BLACK, linewidth=1.2, linestyle="--")
    dropped = 1 - load.sum() / wanted.sum() if wanted.sum() else 0
    title = f"CV {diagnostics.cv(load):.2f}, max/mean {diagnostics.max_over_mean(load):.2f}"
    ax.set_title(title + ("" if demand is None else f", dropped {100 * dropped:.1f} %"))
    ticks = place if len(load) <= 16 else place[:: len(load) // 8]
    ax.set(xlabel="expert", ylabel="tokens", xticks=ticks)


def training_curves(
    ax: "Axes",
    steps: Sequence[float],
    series: Mapping[str, Sequence[float]],
    balanced: float | None = None,
    colours: Sequence[str] = COLOURS,
) -> None:
    """A line per entry {name: values} over the training steps, with its name at its end.

    balanced  the value at balance, drawn as a dashed line; None: no line
    """
    if balanced is not None:
        ax.hlines(balanced, steps[0], steps[-1], color=GREY, linewidth=1.2, linestyle="--")
    beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    for colour, (name, values) in zip(colours, series.items(), strict=False):
        ax.plot(steps, values, color=colour, linewidth=2)
        ax.annotate(name, (steps[-1], values[-1]), color=colour, **beside)
    ax.set_xlabel("step")


def dispatch_table(ax: "Axes", counts: Array, names: Sequence[str] | None = None) -> None:
    """A row per expert: the share of each label among its tokens, darker for a larger share.

    counts (E, K) as from diagnostics.table. A row with one dark cell is a specialist, an even row a
    generalist. The title gives the dispatch entropy.
    """
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (m, c), p in np.ndenumerate(share if share.size <= 200 else np.zeros((0, 0))):
        if p >= 0.01:
            colour = "white" if p > 0.5 else BLACK
            ax.text(c, m, f"{100 * p:.0f}", ha="center", va="center", color=colour)
    entropy = diagnostics.entropy_of_table(counts)
    largest = np.log(max(counts.shape[1], 1))
    ax.set_title(f"% of the expert's tokens; entropy {entropy:.2f} of {largest:.2f} nats")
    ax.set(xlabel="label", ylabel="expert", yticks=range(len(counts)))
    ax.set_xticks(range(counts.shape[1]), names)


def information_bars(
    ax: "Axes", information: Mapping[str, diagnostics.Information], colour: str = BLUE
) -> None:
    """A bar per router: the bits that its choice of expert tells about the label.

    The grey part is what chance alone gives, and a mark shows the largest possible value, the
    smaller of the two entropies. `information` is {name: diagnostics.mutual_information(...)}.
    """
    for row, measured in enumerate(information.values()):
        ax.barh(row, measured.bits, 0.6, color=colour)
        ax.barh(row, min(measured.permuted, measured.bits), 0.6, color=GREY)
        ceiling = min(measured.expert_bits, measured.label_bits)
        ax.plot([ceiling] * 2, [row - 0.38, row + 0.38], color=BLACK, linewidth=2)
    _rows_from_the_top(ax, list(information))
    ax.set_xlabel("bits about the label (grey: chance; line: the largest possible)")
