"""Pictures of mixtures: functions that take arrays and draw on a given matplotlib Axes.

Made to be read from the last row of a lecture room: large type, labels at the thing they name, and the colours of
Okabe and Ito, which stay apart for colour-blind eyes and in grey.
"""

import contextlib

import numpy as np

# Okabe and Ito (2008), Color universal design
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, YELLOW, BLACK = "#56B4E9", "#E69F00", "#F0E442", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, YELLOW, BLACK)
GREY = "#8A8A8A"

STYLE = {
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
def style():
    """The settings of all our pictures, for the time of a `with` block."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def _rim(alpha=1.0):
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=3.5, foreground="white", alpha=alpha)]


def label(ax, x, y, text, colour=BLACK, **options):
    """Text on the data, with a white rim so that lines and dots under it do not eat it."""
    options = {"ha": "center", "va": "center", "zorder": 10, "path_effects": _rim(), **options}
    return ax.text(x, y, text, color=colour, **options)


def classes(ax, x, which, names, colours=COLOURS, markers="os^D", places=None):
    """Points x (N, 2) in colour and marker of their class which (N,), each cloud named at its median or `places`."""
    for i, name in enumerate(names):
        own = x[which == i]
        ax.scatter(*own.T, s=16, c=colours[i], marker=markers[i % len(markers)], alpha=0.55, linewidths=0)
        label(ax, *(np.median(own, axis=0) if places is None else places[i]), name, colours[i], size=20, weight="bold")


def line(ax, w, b, **options):
    """The straight line w·x + b = 0 across the Axes as they stand, whose limits it leaves alone."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    middle = np.array([x0 + x1, y0 + y1]) / 2
    foot = middle - (middle @ w + b) / (w @ w) * w  # the point of the line next to the middle of the picture
    along = np.array([-w[1], w[0]]) / np.linalg.norm(w) * 2 * np.hypot(x1 - x0, y1 - y0)
    drawn = ax.plot(*np.stack([foot - along, foot + along], axis=1), **{"scalex": False, "scaley": False, **options})
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    return drawn


def along_line(ax, w, b, x, text, colour=BLACK, gap=9, **options):
    """Text that runs beside the line w·x + b = 0 at abscissa x, `gap` points above it (below if negative)."""
    y = -(w[0] * x + b) / w[1]
    ax.figure.draw_without_rendering()  # the layout has to be settled before an angle on the page is known
    ends = ax.transData.transform([(x, y), (x + 0.01, y - 0.01 * w[0] / w[1])])
    angle = np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    shift = gap * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    place = {"ha": "center", "va": "center", "rotation": angle, "rotation_mode": "anchor", "path_effects": _rim(0.8)}
    return ax.annotate(
        text,
        (x, y),
        shift,
        textcoords="offset points",
        color=colour,
        zorder=9,
        annotation_clip=False,
        **place,
        **options,
    )


def paths(ax, points, colours, size=3.2):
    """Trajectories points (T, M, 2): a dot a step, an open circle at the start, a square at the end."""
    for i, colour in enumerate(colours):
        own = points[:, i]
        ax.plot(*own.T, ".", color=colour, markersize=size, markeredgewidth=0, zorder=3)
        ax.plot(*own[0], "o", markerfacecolor="white", markeredgecolor=colour, markersize=8, zorder=4)
        ax.plot(*own[-1], "s", color=colour, markeredgecolor="white", markersize=10, zorder=7)


def spread(ax, names, values, published, colours=COLOURS, rng_seed=0):
    """A row for each name: its values as dots, mean ± SD above them, the published (mean, spread) as a diamond."""
    jitter = np.random.default_rng(rng_seed)
    for row, (own, (theirs, theirs_sd)) in enumerate(zip(values, published, strict=True)):
        own = np.asarray(own, dtype=float)
        sd = own.std(ddof=1) if len(own) > 1 else 0
        ax.scatter(own, row + jitter.uniform(-0.13, 0.13, len(own)), s=26, c=colours[row], alpha=0.5, linewidths=0)
        ax.errorbar(own.mean(), row - 0.27, xerr=sd, fmt="o", color=colours[row], markersize=8, capsize=4, linewidth=2)
        ax.errorbar(theirs, row + 0.3, xerr=theirs_sd, fmt="D", color=BLACK, markersize=7, capsize=4, linewidth=1.5)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def tile(x, y, colour, size=0.92):
    """A rounded square about (x, y), for tables that are pictures: `ax.add_patch(tile(...))`."""
    from matplotlib.patches import FancyBboxPatch

    box = "round,pad=0,rounding_size=.1"
    return FancyBboxPatch((x - size / 2, y - size / 2), size, size, boxstyle=box, facecolor=colour, edgecolor="none")
