"""Pictures of mixtures: functions that take arrays and draw on a given matplotlib Axes.

Made to be read from the last row of a lecture room: large type, labels at the thing they name, and
the colours of Okabe and Ito, which stay apart for colour-blind eyes and in grey.
"""

import contextlib

import numpy as np

from moe_np.base import numerics
from moe_np.layers import diagnostics

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
    """Points x (N, 2) in colour and marker of their class which (N,), each cloud named at its
    median or `places`.
    """
    for i, name in enumerate(names):
        own = x[which == i]
        ax.scatter(
            *own.T, s=16, c=colours[i], marker=markers[i % len(markers)], alpha=0.55, linewidths=0
        )
        label(
            ax,
            *(np.median(own, axis=0) if places is None else places[i]),
            name,
            colours[i],
            size=20,
            weight="bold",
        )


def line(ax, w, b, **options):
    """The straight line w·x + b = 0 across the Axes as they stand, whose limits it leaves alone."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    middle = np.array([x0 + x1, y0 + y1]) / 2
    # the point of the line next to the middle of the picture
    foot = middle - (middle @ w + b) / (w @ w) * w
    along = np.array([-w[1], w[0]]) / np.linalg.norm(w) * 2 * np.hypot(x1 - x0, y1 - y0)
    drawn = ax.plot(
        *np.stack([foot - along, foot + along], axis=1),
        **{"scalex": False, "scaley": False, **options},
    )
    ax.set(xlim=(x0, x1), ylim=(y0, y1))
    return drawn


def along_line(ax, w, b, x, text, colour=BLACK, gap=9, **options):
    """Text that runs beside the line w·x + b = 0 at abscissa x, `gap` points above it (below if
    negative).
    """
    y = -(w[0] * x + b) / w[1]
    ax.figure.draw_without_rendering()  # the layout has to be settled before an angle on the page is known
    ends = ax.transData.transform([(x, y), (x + 0.01, y - 0.01 * w[0] / w[1])])
    angle = np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    shift = gap * np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    place = {
        "ha": "center",
        "va": "center",
        "rotation": angle,
        "rotation_mode": "anchor",
        "path_effects": _rim(0.8),
    }
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
    """Trajectories points (T, M, 2): a dot a step, an open circle at the start, a square at the
    end.
    """
    for i, colour in enumerate(colours):
        own = points[:, i]
        ax.plot(*own.T, ".", color=colour, markersize=size, markeredgewidth=0, zorder=3)
        ax.plot(
            *own[0], "o", markerfacecolor="white", markeredgecolor=colour, markersize=8, zorder=4
        )
        ax.plot(*own[-1], "s", color=colour, markeredgecolor="white", markersize=10, zorder=7)


def spread(ax, names, values, published, colours=COLOURS, rng_seed=0):
    """A row for each name: its values as dots, mean ± SD above them, the published (mean, spread)
    as a diamond.
    """
    jitter = np.random.default_rng(rng_seed)
    for row, (own, (theirs, theirs_sd)) in enumerate(zip(values, published, strict=True)):
        own = np.asarray(own, dtype=float)
        sd = own.std(ddof=1) if len(own) > 1 else 0
        ax.scatter(
            own,
            row + jitter.uniform(-0.13, 0.13, len(own)),
            s=26,
            c=colours[row],
            alpha=0.5,
            linewidths=0,
        )
        ax.errorbar(
            own.mean(),
            row - 0.27,
            xerr=sd,
            fmt="o",
            color=colours[row],
            markersize=8,
            capsize=4,
            linewidth=2,
        )
        ax.errorbar(
            theirs,
            row + 0.3,
            xerr=theirs_sd,
            fmt="D",
            color=BLACK,
            markersize=7,
            capsize=4,
            linewidth=1.5,
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def tile(x, y, colour, size=0.92):
    """A rounded square about (x, y), for tables that are pictures: `ax.add_patch(tile(...))`."""
    from matplotlib.patches import FancyBboxPatch

    box = "round,pad=0,rounding_size=.1"
    return FancyBboxPatch(
        (x - size / 2, y - size / 2), size, size, boxstyle=box, facecolor=colour, edgecolor="none"
    )


# --- how a gate uses its experts: pictures of moe_np.layers.diagnostics ---------------------------


def expert_load(ax, load, demand=None, colour=BLUE):
    """A bar an expert: what it processes, and outlined above it what was dropped; the mean as a
    line.

    load (E,), demand (E,) or None: diagnostics.load and .demand. The title gives CV, max/mean and
    the dropped share.
    """
    load = np.asarray(load)
    asked = load if demand is None else np.asarray(demand)
    place, mean = np.arange(len(load)), load.mean()
    ax.bar(place, asked, 0.8, facecolor="none", edgecolor=colour, linestyle=":", linewidth=1.5)
    ax.bar(place, load, 0.8, color=colour)
    ax.axhline(mean, color=BLACK, linewidth=1.2, linestyle="--")
    lost = 1 - load.sum() / asked.sum() if asked.sum() else 0
    words = f"CV {diagnostics.cv(load):.2f}, max/mean {diagnostics.max_over_mean(load):.2f}"
    ax.set_title(words + ("" if demand is None else f", dropped {100 * lost:.1f} %"))
    ax.set(
        xlabel="expert",
        ylabel="tokens",
        xticks=place if len(load) <= 16 else place[:: len(load) // 8],
    )


def over_time(ax, steps, series, even=None, colours=COLOURS):
    """Lines {name: values} over the training steps, each named at its end; `even`: the value at
    balance.
    """
    if even is not None:
        ax.hlines(even, steps[0], steps[-1], color=GREY, linewidth=1.2, linestyle="--")
    for colour, (name, values) in zip(colours, series.items(), strict=False):
        ax.plot(steps, values, color=colour, linewidth=2)
        ax.annotate(
            name,
            (steps[-1], values[-1]),
            (6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
    ax.set_xlabel("step")


def dispatch(ax, table, names=None):
    """Who gets what: table (E, K) of diagnostics.table, in each row the expert's share of each
    label, darker for more.

    A row of one dark cell is a specialist, an even row a generalist; the title gives the dispatch
    entropy.
    """
    table = np.asarray(table)
    n = table.sum(axis=1, keepdims=True)
    share = table / np.maximum(n, 1)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (m, c), p in np.ndenumerate(share if share.size <= 200 else np.zeros((0, 0))):
        if p >= 0.01:
            ax.text(
                c,
                m,
                f"{100 * p:.0f}",
                ha="center",
                va="center",
                color="white" if p > 0.5 else BLACK,
            )
    H = (n[:, 0] * numerics.entropy(share)).sum() / max(n.sum(), 1)
    ax.set_title(
        f"% of the expert's tokens; entropy {H:.2f} of {np.log(max(table.shape[1], 1)):.2f} nats"
    )
    ax.set(xlabel="label", ylabel="expert", yticks=range(len(table)))
    ax.set_xticks(range(table.shape[1]), names)


def information(ax, found, colour=BLUE):
    """For each {name: diagnostics.Information} a bar of its bits, grey as far as chance alone goes,
    and a mark at the most it could be, the smaller of the two entropies.
    """
    for row, own in enumerate(found.values()):
        ax.barh(row, own.bits, 0.6, color=colour)
        ax.barh(row, min(own.permuted, own.bits), 0.6, color=GREY)
        ceiling = min(own.expert_bits, own.label_bits)
        ax.plot([ceiling] * 2, [row - 0.38, row + 0.38], color=BLACK, linewidth=2)
    ax.set_yticks(range(len(found)), found)
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.set_xlabel("bits about the label (grey: chance; line: all there are)")
