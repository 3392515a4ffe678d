"""The pictures of states, and which state gets which.

Each picture is a function of an Axes, the state, and the history: the states from the first to this
one. The first entry of PICTURES is drawn whose arrays are in the state, one of them new. A state
that no entry fits gets its newest array (`moe_np.show.view.array_pictures`).
"""

import io
import itertools
from typing import TYPE_CHECKING

import numpy as np

from moe_np import plots
from moe_np.base.numerics import softmax
from moe_np.show.steps import Draw, State, Steps
from moe_np.show.view import array_pictures, attention_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (6.6, 4.2)  # inches
DPI = 120
FADING = 5  # earlier states that stay visible


def png(steps: Steps, number: int, draw: Draw | None = None) -> bytes:
    """The picture of state `number` as PNG; b"" if there is nothing to draw."""
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


def choose(state: State) -> Draw | None:
    """The picture that fits a state, or None."""
    for fits, draw in PICTURES:
        if fits(state):
            return draw
    drawable = any(map(array_pictures.drawable, state.arrays.values()))
    return array_pictures.newest if drawable else None


def _has(state, *names, new=()):
    """All of `names` are there and, if any are given, one of `new` has just changed."""
    if not all(name in state.arrays for name in names):
        return False
    return not new or bool(set(new) & set(state.changed))


def _colour(m):
    return plots.COLOURS[m % len(plots.COLOURS)]


def _title(state, name, text):
    return state.phase + (f": {text} {float(state[name]):.4f}" if name in state.arrays else "")


# --- Decision lines -------------------------------------------------------------------------------


def _fits_lines(state):
    if not _has(state, "x", "W", "b", "U", "c", new=("W", "U", "p", "resp")):
        return False
    return state["x"].shape[1:] == (2,) and state["W"].ndim == 3 and state["W"].shape[1:] == (2, 1)


def decision_lines(ax: "Axes", state: State, history: list[State]) -> None:
    """Cases, the line o = ½ of each expert, and behind them the first choice of the gating network.

    A line is thicker where the gating network gives more of the cases to its expert, and dotted
    below 2 %. The lines of the last few states stay visible, fading. The shade behind is paler
    where the gating network is less sure.
    """
    x = state["x"]
    low = x.min(axis=0)
    high = x.max(axis=0)
    margin = 0.1 * (high - low)
    ax.set(xlim=(low[0] - margin[0], high[0] + 2.5 * margin[0]), xlabel="$x_1$")
    ax.set(ylim=(low[1] - margin[1], high[1] + margin[1]), ylabel="$x_2$")
    _tint(ax, state)
    wanted = state.arrays.get("d", np.zeros((len(x), 1)))[:, 0] > 0.5
    look = {"s": 14, "c": "#404040", "alpha": 0.6, "linewidths": 0.8}
    ax.scatter(*x[wanted].T, marker="o", label="wanted 1", **look)
    ax.scatter(*x[~wanted].T, marker="x", label="wanted 0", **look)
    share = softmax(x @ state["U"] + state["c"]).mean(axis=0)
    earlier = [s for s in history[:-1] if "W" in s.arrays][-FADING:]
    for m, colour in zip(range(len(share)), itertools.cycle(plots.COLOURS)):
        label = f"expert {m}, {100 * share[m]:.0f} %"
        look = {"linestyle": "-" if share[m] >= 0.02 else ":", "linewidth": 1 + 4 * share[m]}
        _line(ax, state, m, color=colour, label=label, **look)
        for age, old in enumerate(reversed(earlier), 1):
            alpha = 0.5 * (1 - age / (FADING + 1))
            _line(ax, old, m, color=colour, linewidth=0.8, alpha=alpha, zorder=1)
    ax.legend(loc="upper right", fontsize=9, framealpha=0.9)
    ax.set_title(_title(state, "squared_error", "mean squared error"), fontsize=12)


def _line(ax, state, m, **options):
    w = state["W"][m, :, 0]
    if (w != 0).any():
        plots.straight_line(ax, w, state["b"][m, 0], **options)


def _tint(ax, state):
    """Colour the plane by the first choice of the gating network: white where it has none."""
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    u, v = np.meshgrid(np.linspace(x0, x1, 200), np.linspace(y0, y1, 200))
    p = softmax(np.stack([u, v], axis=2) @ state["U"] + state["c"])
    strength = 0.14 * (p.max(axis=2) - 1 / p.shape[2]) / max(1 - 1 / p.shape[2], 1e-12)
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS])
    image = 1 - strength[..., None] * (1 - rgb[p.argmax(axis=2) % len(rgb)])
    ax.imshow(image, origin="lower", extent=(x0, x1, y0, y1), aspect="auto", zorder=0)


# --- Posteriors -----------------------------------------------------------------------------------


def _fits_posteriors(state):
    if not _has(state, "x", "resp", new=("resp",)):
        return False
    return state["x"].shape[1:] == (2,) and "W" not in state.changed


def posteriors(ax: "Axes", state: State, history: list[State]) -> None:
    """Cases in the colour of the most responsible expert, faint where that is uncertain."""
    x = state["x"]
    resp = state["resp"]
    for m in range(resp.shape[1]):
        part = resp.argmax(axis=1) == m
        label = f"expert {m}, {100 * resp[:, m].mean():.0f} %"
        ax.scatter(*x[part].T, s=18, c=_colour(m), alpha=_opacity(resp[part]), label=label)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    ax.legend(loc="upper right", fontsize=9)
    title = "colour, the most responsible; strength, how sure"
    ax.set_title(f"{state.phase}: {title}", fontsize=12)


def _opacity(resp):
    """.2 where all experts are equally responsible for a case, up to 1 where one expert is alone.

    None where there are no cases.
    """
    if not len(resp):
        return None
    E = resp.shape[1]
    return 0.2 + 0.8 * np.clip((resp.max(axis=1) - 1 / E) / max(1 - 1 / E, 1e-12), 0, 1)


# --- Regressions of a mixture, with posteriors ----------------------------------------------------


def _fits_regression(state):
    if not _has(state, "x", "y", "W", "b") or state["W"].ndim != 3:
        return False
    return state["x"].shape[1:] == (1,) and state["y"].ndim == 2 and state["W"].shape[1:] == (1, 1)


def regression(ax: "Axes", state: State, history: list[State]) -> None:
    """Cases in the colour of the expert most responsible, and the line of each expert."""
    x = state["x"][:, 0]
    y = state["y"][:, 0]
    resp = state.arrays.get("resp")
    if resp is None:
        ax.scatter(x, y, s=18, c=plots.GREY)
    else:
        for m in np.unique(resp.argmax(axis=1)):  # some experts may be first for no case
            part = resp.argmax(axis=1) == m
            ax.scatter(x[part], y[part], s=18, c=_colour(m), alpha=_opacity(resp[part]))
    ends = np.array([x.min(), x.max()])
    for m, (w, b) in enumerate(zip(state["W"][:, 0, 0], state["b"][:, 0], strict=True)):
        ax.plot(ends, w * ends + b, color=_colour(m), linewidth=2.2, label=f"expert {m}")
    margin = 0.15 * np.ptp(y)
    ax.set(xlabel="x", ylabel="y", ylim=(y.min() - margin, y.max() + margin))
    ax.legend(loc="best", fontsize=9)
    ax.set_title(_title(state, "log_likelihood", "log likelihood"), fontsize=12)


# --- Routing --------------------------------------------------------------------------------------


def _fits_routing(state):
    names = ("token", "expert", "weight", "demand")
    return _has(state, *names, new=("token", "expert")) and state["weight"].ndim == 1


def routing_map(ax: "Axes", state: State, history: list[State]) -> None:
    """Tokens down, experts across: a dot per row of the routing, a cross per dropped choice.

    The shade is the router's probability.
    """
    demand = state["demand"]
    probs = state.arrays.get("probs", np.zeros(demand.shape))
    ax.imshow(probs, cmap="Greys", vmin=0, vmax=max(1, probs.max()), aspect="auto", alpha=0.6)
    token, expert, weight = (state[name] for name in ("token", "expert", "weight"))
    largest = max(np.abs(weight).max(initial=0), 1e-300)
    ax.scatter(expert, token, s=40 + 160 * np.abs(weight) / largest, c=plots.BLUE)
    if len(token) <= 60:
        beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        for n, m, w in zip(token, expert, weight, strict=True):
            ax.annotate(f"{w:.2f}", (m, n), **beside)
    taken = np.zeros(demand.shape, bool)
    taken[token, expert] = True
    dropped = np.argwhere(demand & ~taken)
    ax.scatter(dropped[:, 1], dropped[:, 0], s=60, c=plots.ORANGE, marker="x", linewidths=2)
    ax.set(xlabel="expert", ylabel="token", xticks=range(demand.shape[1]))
    rows = f"{len(token)} rows" + (f", {len(dropped)} dropped (×)" if len(dropped) else "")
    ax.set_title(f"{rows}; shade: the router's probability", fontsize=12)


def _fits_sort(state):
    new = ("order", "expert") if state.changed else ()
    return _has(state, "order", "offsets", "expert", new=new)


def sorting(ax: "Axes", state: State, history: list[State]) -> None:
    """The assignments in the router's order above, and sorted by expert below."""
    offsets = state["offsets"]
    expert = next(s["expert"] for s in history if "expert" in s.arrays)
    for place, a in enumerate(state["order"]):
        if a >= 0:
            ax.plot([a, place], [1, 0], color=_colour(expert[a]), linewidth=1, alpha=0.7)
            ax.plot(place, 0, "s", color=_colour(expert[a]), markersize=9)
    colours = [_colour(m) for m in expert]
    ax.scatter(range(len(expert)), np.ones(len(expert)), s=80, marker="s", c=colours)
    for m, (start, end) in enumerate(itertools.pairwise(offsets)):
        ax.axvline(start - 0.5, ymax=0.35, color=plots.BLACK, linewidth=0.8)
        ax.text((start + end - 1) / 2, -0.16, f"expert {m}", ha="center", fontsize=9)
    ax.set(ylim=(-0.3, 1.25), yticks=(0, 1), yticklabels=("sorted", "as routed"), xlabel="place")
    ax.set_title("one colour per expert", fontsize=12)


# --- Balance --------------------------------------------------------------------------------------


def _fits_balance(state):
    return _has(state, "f", "P", new=("P", "f", "product", "value")) and state["f"].ndim == 1


def shares(ax: "Axes", state: State, history: list[State]) -> None:
    """f and P of the experts side by side."""
    E = len(state["P"])
    place = np.arange(E)
    f = state["f"] / max(state["f"].sum(), 1e-300)
    ax.bar(place - 0.2, f, 0.4, color=plots.BLUE, label="f, share of the choices")
    ax.bar(place + 0.2, state["P"], 0.4, color=plots.AMBER, label="P, mean probability")
    ax.axhline(1 / E, color=plots.BLACK, linewidth=1, linestyle="--")
    ax.set(xlabel="expert", ylabel="share", xticks=range(E))
    ax.legend(fontsize=9)
    value = state.arrays.get("value")
    title = "dashed: balance" if value is None else f"value {float(value):.4f}"
    ax.set_title(title, fontsize=12)


# --- All ----------------------------------------------------------------------------------------

PICTURES = (
    (_fits_posteriors, posteriors),
    (_fits_lines, decision_lines),
    (_fits_regression, regression),
    (_fits_sort, sorting),
    (_fits_routing, routing_map),
    (_fits_balance, shares),
    (attention_pictures.fits_attention, attention_pictures.attention),
    (attention_pictures.fits_rotation, attention_pictures.rotation),
)
