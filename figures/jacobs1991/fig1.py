"""Fig. 1 of Jacobs et al. (1991): experts, a gate, and a selector that picks one expert's output.

All nets see the same input. The gate has an output for each expert, and these outputs are the
chances with which the selector answers with that expert. Nothing is added up: that is what
separates eq. 3 from eq. 1.
"""

from moe_np import plots

TITLE = "Jacobs et al. 1991, Fig. 1: the architecture"
ORDER = 5


def box(ax, x, y, width, height, text, colour):
    from matplotlib.patches import FancyBboxPatch

    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=.08"
    )
    shape.set(facecolor=colour + "26", edgecolor=colour, linewidth=2)
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", size=14)


def arrow(ax, start, end, colour, curve=0.0, text=None, at=None):
    style = {"arrowstyle": "-|>,head_width=.3,head_length=.5", "color": colour, "linewidth": 2}
    style |= {"connectionstyle": f"arc3,rad={curve}", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)
    if text:
        plots.label(ax, *at, text, colour, size=16)


def draw(ax):
    """Experts below the selector, the gate to their right, the input under all of them."""
    ax.set(xlim=(-0.1, 8.1), ylim=(-0.15, 5.35), aspect="equal")
    ax.axis("off")
    selector = (2.4, 3.85)
    for i, x in enumerate((0.8, 2.4, 4.0), start=1):
        arrow(ax, (x, 0.75), (x, 1.25), plots.GREY)
        box(ax, x, 1.75, 1.3, 1.0, f"expert {i}", plots.BLUE)
        tip = (selector[0] + (x - selector[0]) * 0.42, selector[1] - 0.4)
        middle = ((x + tip[0]) / 2 + (-0.34 if i == 1 else 0.34), (2.25 + tip[1]) / 2)
        arrow(ax, (x, 2.25), tip, plots.BLUE, text=f"$o_{i}$", at=middle)
    arrow(ax, (6.7, 0.75), (6.7, 1.25), plots.GREY)
    box(ax, 6.7, 1.75, 1.5, 1.0, "gate\n(softmax)", plots.ORANGE)
    for i, height in enumerate((3.6, 3.85, 4.1)):
        ax.plot([6.4 + 0.3 * i] * 2, [2.25, height], color=plots.ORANGE, linewidth=2)
        arrow(ax, (6.4 + 0.3 * i, height), (3.5, height), plots.ORANGE)
    plots.label(ax, 5.0, 4.42, "$p_1,\\ p_2,\\ p_3$", plots.ORANGE, size=16)
    box(ax, *selector, 2.2, 0.8, "selector: expert $i$\nwith chance $p_i$", plots.GREEN)
    arrow(ax, (2.4, 4.25), (2.4, 4.85), plots.GREEN)
    ax.text(2.4, 5.1, "output", ha="center", va="center", size=14)
    ax.plot([0.8, 6.7], [0.75, 0.75], color=plots.GREY, linewidth=2)
    ax.plot([3.2, 3.2], [0.3, 0.75], color=plots.GREY, linewidth=2)
    ax.text(3.2, 0.1, "input: formants $F_1$ and $F_2$", ha="center", va="center", size=14)


def make(job):
    import matplotlib.pyplot as plt

    with plots.style():
        fig, ax = plt.subplots(figsize=(8.2, 5.6))
        draw(ax)
        job.save(fig, "jacobs1991_fig1")
    return (
        "![architecture](jacobs1991_fig1.png)\n\nEvery expert is one logistic unit on two formants; the gate is linear "
        "with a softmax. In training nothing is drawn: eq. 3 is the likelihood of the target under the draw, "
        "E = −log Σ p_i exp(−½ ‖d − o_i‖²)."
    )
