"""Which picture a state gets, and the pictures: each takes an Axes, the state and the states before
it.

The first in PICTURES whose arrays are there, one of them new, is drawn. A state that none of them
knows gets its newest array as a map (two axes), bars (one) or a line along the walk (a number).
"""

import io
import itertools

import numpy as np

from moe_np import plots
from moe_np.base.numerics import softmax

SIZE, DPI = (6.6, 4.2), 120
MOST_WRITTEN = 120  # cells of a map in which the values are written
FADING = 5  # states of the past that stay visible
PLACES = (
    "token",
    "expert",
    "order",
    "ids",
    "C",
    "m",
    "p",
)  # numbers that say where, not how much: no bars of these


def png(steps, number, draw=None):
    """The picture of state `number` as PNG, b"" if there is nothing to draw. Matplotlib is imported
    here.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    history = steps.seen[: number + 1]
    draw = draw or steps.draw or choose(history[-1])
    if draw is None:
        return b""
    with plots.style():
        figure = Figure(figsize=SIZE, dpi=DPI)
        FigureCanvasAgg(figure)
        draw(figure.add_subplot(), history[-1], history)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def choose(state):
    """The picture of a state, or None."""
    for fits, draw in PICTURES:
        if fits(state):
            return draw
    return newest if any(_drawable(v) for v in state.arrays.values()) else None


def _has(state, *names, new=()):
    """All of `names` are there and, if any are given, one of `new` has just changed."""
    return all(n in state.arrays for n in names) and (
        not new or bool(set(new) & set(state.changed))
    )


# --- Decision lines -------------------------------------------------------------------------------


def _fits_lines(state):
    if not _has(state, "x", "W", "b", "U", "c", new=("W", "U", "p", "resp")):
        return False
    return state["x"].shape[1:] == (2,) and state["W"].ndim == 3 and state["W"].shape[1:] == (2, 1)


def decision_lines(ax, state, history):
    """Cases, each expert's line o = ½ in its colour, and behind them the gate's first choice, the
    paler the less sure.

    The thicker a line, the larger the share of the cases that the gate gives to the expert; dotted
    below a fiftieth. Where the lines were in the last few states stays visible, fading.
    """
    x = state["x"]
    wanted = state.arrays.get("d", np.zeros((len(x), 1)))[:, 0] > 0.5
    low, high = x.min(axis=0), x.max(axis=0)
    room = 0.1 * (high - low)
    ax.set(
        xlim=(low[0] - room[0], high[0] + 2.5 * room[0]), ylim=(low[1] - room[1], high[1] + room[1])
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    _tint(ax, state)
    for own, marker, name in ((wanted, "o", "1"), (~wanted, "x", "0")):
        ax.scatter(
            *x[own].T,
            s=14,
            c="#404040",
            marker=marker,
            alpha=0.6,
            linewidths=0.8,
            label=f"wanted {name}",
        )
    share = softmax(x @ state["U"] + state["c"]).mean(axis=0)
    for m, colour in zip(range(len(share)), itertools.cycle(plots.COLOURS)):
        label, kind = f"expert {m}, {100 * share[m]:.0f} %", "-" if share[m] >= 0.02 else ":"
        _line(ax, state, m, color=colour, label=label, linestyle=kind, linewidth=1 + 4 * share[m])
        before = [s for s in history[:-1] if "W" in s.arrays][-FADING:]
        for age, old in enumerate(reversed(before), 1):
            _line(
                ax,
                old,
                m,
                color=colour,
                linewidth=0.8,
                alpha=0.5 * (1 - age / (FADING + 1)),
                zorder=1,
            )
    ax.legend(loc="upper right", fontsize=9, framealpha=0.9)
    ax.set_title(_title(state, "squared_error", "mean squared error"), fontsize=12)


def _line(ax, state, m, **options):
    w, b = state["W"][m, :, 0], state["b"][m, 0]
    if (w != 0).any():
        plots.straight_line(ax, w, b, **options)


def _tint(ax, state):
    """Colour the plane by the gate's first choice: white where it has none, as at the start."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    u, v = np.meshgrid(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200))
    p = softmax(np.stack([u, v], axis=2) @ state["U"] + state["c"])
    strength = 0.14 * (p.max(axis=2) - 1 / p.shape[2]) / max(1 - 1 / p.shape[2], 1e-12)
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS])
    own = colours[p.argmax(axis=2) % len(colours)]
    image = 1 - strength[..., None] * (1 - own)
    ax.imshow(image, origin="lower", extent=(x0, x1, y0, y1), aspect="auto", zorder=0)


def _title(state, name, words):
    return state.phase + (f": {words} {float(state[name]):.4f}" if name in state.arrays else "")


# --- Posteriors -----------------------------------------------------------------------------------


def _fits_posteriors(state):
    return (
        _has(state, "x", "resp", new=("resp",))
        and state["x"].shape[1:] == (2,)
        and "W" not in state.changed
    )


def posteriors(ax, state, history):
    """Cases in the colour of the expert that is most responsible, faint where none is sure."""
    x, resp = state["x"], state["resp"]
    for m in range(resp.shape[1]):
        own = resp.argmax(axis=1) == m
        sure = _sure(resp[own].max(axis=1), resp.shape[1]) if own.any() else None
        colour = plots.COLOURS[m % len(plots.COLOURS)]
        label = f"expert {m}, {100 * resp[:, m].mean():.0f} %"
        ax.scatter(*x[own].T, s=18, c=colour, alpha=sure, label=label)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.legend(loc="upper right", fontsize=9)
    ax.set_title(f"{state.phase}: colour, the most responsible; strength, how sure", fontsize=12)


# --- Regressions of a mixture, with posteriors ----------------------------------------------------


def _fits_regression(state):
    if not _has(state, "x", "y", "W", "b") or state["W"].ndim != 3:
        return False
    return state["x"].shape[1:] == (1,) and state["y"].ndim == 2 and state["W"].shape[1:] == (1, 1)


def regression(ax, state, history):
    """Cases in the colour of the expert most responsible, faint where none is sure; each expert's
    line.
    """
    x, y = state["x"][:, 0], state["y"][:, 0]
    resp = state.arrays.get("resp")
    if resp is None:
        ax.scatter(x, y, s=18, c=plots.GREY)
    else:
        for m in np.unique(resp.argmax(axis=1)):  # an expert may have no case to itself
            own = resp.argmax(axis=1) == m
            ax.scatter(
                x[own],
                y[own],
                s=18,
                c=plots.COLOURS[m % 8],
                alpha=_sure(resp[own].max(axis=1), resp.shape[1]),
            )
    ends = np.array([x.min(), x.max()])
    low, high = y.min() - 0.15 * np.ptp(y), y.max() + 0.15 * np.ptp(y)
    for m, (w, b) in enumerate(zip(state["W"][:, 0, 0], state["b"][:, 0], strict=True)):
        ax.plot(ends, w * ends + b, color=plots.COLOURS[m % 8], linewidth=2.2, label=f"expert {m}")
    ax.set(xlabel="x", ylabel="y", ylim=(low, high))
    ax.legend(loc="best", fontsize=9)
    ax.set_title(_title(state, "log_likelihood", "log likelihood"), fontsize=12)


def _sure(most, E):
    """From .2 where all E share a case alike to 1 where one has it all."""
    return 0.2 + 0.8 * np.clip((most - 1 / E) / max(1 - 1 / E, 1e-12), 0, 1)


# --- Routing --------------------------------------------------------------------------------------


def _fits_routing(state):
    return (
        _has(state, "token", "expert", "weight", "demand", new=("token", "expert"))
        and state["weight"].ndim == 1
    )


def routing_map(ax, state, history):
    """Tokens down, experts across: what the router thinks of each as a shade, a dot for every row
    it made, a cross for what was asked for and dropped.
    """
    demand = state["demand"]
    probs = state.arrays.get("probs", np.zeros(demand.shape))
    ax.imshow(probs, cmap="Greys", vmin=0, vmax=max(1, probs.max()), aspect="auto", alpha=0.6)
    token, expert, weight = state["token"], state["expert"], state["weight"]
    ax.scatter(
        expert,
        token,
        s=40 + 160 * np.abs(weight) / max(np.abs(weight).max(initial=0), 1e-300),
        c=plots.BLUE,
    )
    if len(token) <= 60:
        for a in range(len(token)):
            ax.annotate(
                f"{weight[a]:.2f}",
                (expert[a], token[a]),
                (9, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    taken = np.zeros(demand.shape, bool)
    taken[token, expert] = True
    lost = np.argwhere(demand & ~taken)
    ax.scatter(lost[:, 1], lost[:, 0], s=60, c=plots.ORANGE, marker="x", linewidths=2)
    ax.set(xlabel="expert", ylabel="token", xticks=range(demand.shape[1]))
    words = f"{len(token)} rows" + (f", {len(lost)} dropped (×)" if len(lost) else "")
    ax.set_title(f"{words}; shade: the router's probability", fontsize=12)


def _fits_sort(state):
    return _has(
        state, "order", "offsets", "expert", new=("order", "expert") if state.changed else ()
    )


def sorting(ax, state, history):
    """The assignments in the router's order above, and below where each stands after sorting by
    expert.
    """
    order, offsets = state["order"], state["offsets"]
    first = next(s for s in history if "expert" in s.arrays)
    expert, A = first["expert"], len(first["expert"])
    for place, a in enumerate(order):
        if a >= 0:
            ax.plot([a, place], [1, 0], color=plots.COLOURS[expert[a] % 8], linewidth=1, alpha=0.7)
            ax.plot(place, 0, "s", color=plots.COLOURS[expert[a] % 8], markersize=9)
    ax.scatter(range(A), np.ones(A), s=80, marker="s", c=[plots.COLOURS[m % 8] for m in expert])
    for m in range(len(offsets) - 1):
        ax.axvline(offsets[m] - 0.5, ymax=0.35, color=plots.BLACK, linewidth=0.8)
        ax.text(
            (offsets[m] + offsets[m + 1] - 1) / 2, -0.16, f"expert {m}", ha="center", fontsize=9
        )
    ax.set(ylim=(-0.3, 1.25), yticks=(0, 1), yticklabels=("sorted", "as routed"), xlabel="place")
    ax.set_title("a colour an expert", fontsize=12)


# --- Balance --------------------------------------------------------------------------------------


def _fits_balance(state):
    return _has(state, "f", "P", new=("P", "f", "product", "value")) and state["f"].ndim == 1


def shares(ax, state, history):
    """f and P of every expert side by side."""
    E = len(state["P"])
    ax.bar(
        np.arange(E) - 0.2,
        state["f"] / max(state["f"].sum(), 1e-300),
        0.4,
        color=plots.BLUE,
        label="f, what was asked",
    )
    ax.bar(np.arange(E) + 0.2, state["P"], 0.4, color=plots.AMBER, label="P, mean probability")
    ax.axhline(1 / E, color=plots.BLACK, linewidth=1, linestyle="--")
    ax.set(xlabel="expert", ylabel="share", xticks=range(E))
    ax.legend(fontsize=9)
    ax.set_title(
        f"value {float(state['value']):.4f}" if "value" in state.arrays else "dashed: balance",
        fontsize=12,
    )


# --- Anything else --------------------------------------------------------------------------------


def _drawable(value):
    return value.ndim <= 3 and value.size > 0 and value.dtype.kind in "fiub"


def newest(ax, state, history):
    """The last array that changed (or the last there is): a map, bars, or a number along the walk."""
    there = [
        n for n, v in state.arrays.items() if _drawable(v) and not (v.ndim < 2 and n in PLACES)
    ]
    names = [n for n in there if n in state.changed] or there
    name = ([n for n in names if state.arrays[n].ndim] or names or list(state.arrays))[-1]
    value, axes = state.arrays[name].astype(float), state.axes[name]
    if value.ndim == 3 and 1 in value.shape:
        axes = tuple(a for a, n in zip(axes, value.shape, strict=True) if n > 1) if axes else ()
        value = value.reshape([n for n in value.shape if n > 1])
    if value.ndim == 0:
        line = [float(s.arrays[name]) for s in history if name in s.arrays]
        ax.plot(range(len(line)), line, ".-", color=plots.BLUE)
        ax.set(xlabel="state", ylabel=name)
    elif value.ndim == 1:
        ax.bar(range(len(value)), value, color=plots.BLUE)
        ax.set(xlabel=axes[0] if axes else "", ylabel=name)
        ax.locator_params(axis="x", integer=True)
    else:
        _map(
            ax,
            value.reshape(value.shape[0], -1),
            axes if value.ndim == 2 else axes[:1] + ("all others",) * bool(axes),
        )
    ax.set_title(name, fontsize=12)


def _map(ax, value, axes):
    finite = np.where(np.isfinite(value), value, np.nan)
    most = np.nanmax(np.abs(finite)) if np.isfinite(finite).any() else 1
    signed = np.nanmin(finite) < 0 if np.isfinite(finite).any() else False
    ax.imshow(
        finite,
        cmap="RdBu_r" if signed else "Blues",
        vmin=-most if signed else 0,
        vmax=most or 1,
        aspect="auto",
    )
    if value.size <= MOST_WRITTEN:
        for (i, j), v in np.ndenumerate(value):
            dark = abs(v) > 0.6 * most
            ax.text(
                j,
                i,
                f"{v:.2g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
    ax.locator_params(integer=True)
    if axes:
        ax.set(ylabel=axes[0], xlabel=axes[1])


PICTURES = (
    (_fits_posteriors, posteriors),
    (_fits_lines, decision_lines),
    (_fits_regression, regression),
    (_fits_sort, sorting),
    (_fits_routing, routing_map),
    (_fits_balance, shares),
)
