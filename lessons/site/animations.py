"""The moving pictures of the site: the lines of the vowels (lesson 04), the landscapes (lesson 03).

They are made when the site is built, as GIFs that begin again at their end. Beside each is its last
frame as a PNG, which is what a printer gets, and a reader who has asked for less motion.
"""

import pathlib

import numpy as np

from moe_np import plots
from moe_np.mixtures import jacobs1991

DPI = 72
NAMES = {"cooperative": "eq. 1", "competitive": "eq. 2", "mixture": "eq. 3"}
GRID = np.linspace(-3, 3, 61)
TARGETS = np.array([[-2.0], [2.0]])
FRAME = 125  # milliseconds for which a frame is seen
HELD = 1500  # the last one

# lesson -> (name, what the picture shows)
PICTURES = {
    "03_three_errors": (
        "landscapes",
        "The error of two experts that each give one number, for targets −2 and +2. Gradient "
        "descent begins at the circle: under eq. 1 it ends in a valley, under eq. 2 both experts "
        "give 0, under eq. 3 they part.",
    ),
    "04_vowels": (
        "vowels",
        "Four experts learn to tell vowels apart, 1991. A line is where an expert says ½, and it "
        "is thicker for an expert that the gate uses more. First all lines move together, then "
        "they part.",
    ),
}


def make(folder: pathlib.Path) -> None:
    """Write the GIFs and their last frames into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with plots.style():
        landscapes(folder / "landscapes")
        vowels(folder / "vowels")


def write(figure, draw, n_frames, path):
    """Draw the frames 0 to n_frames − 1; the last one stays for a while."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    frames = []
    for frame in range(n_frames):
        draw(frame)
        canvas.draw()
        figure.set_layout_engine("none")  # the places of the first frame hold for all
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        frames.append(Image.fromarray(pixels))
    durations = [FRAME] * (n_frames - 1) + [HELD]
    options = {"save_all": True, "duration": durations, "loop": 0}
    frames[0].save(path.with_suffix(".gif"), append_images=frames[1:], **options)
    frames[-1].save(path.with_suffix(".png"))


# --- the landscapes of lesson 03 ------------------------------------------------------------------


def mean_error(error: str, pairs: np.ndarray) -> np.ndarray:
    """The mean error over both targets of pairs of answers (n, 2), at p = ½: (n,)."""
    forward, _ = jacobs1991.ERRORS[error]
    half = np.full((len(pairs), 2), 0.5)
    values = [
        forward(pairs[:, :, None], half, np.full((len(pairs), 1), d))[0] for d in TARGETS[:, 0]
    ]
    return np.mean(values, axis=0)


def descent(error: str, steps: int, lr: float = 0.05) -> np.ndarray:
    """Gradient descent from (0.6, 0.3): (steps + 1, 2)."""
    forward, backward = jacobs1991.ERRORS[error]
    path = [np.array([0.6, 0.3])]
    for _ in range(steps):
        answers = np.stack([path[-1]] * 2)[:, :, None]  # the same two to both targets
        _, cache = forward(answers, np.full((2, 2), 0.5), TARGETS)
        do = backward(np.ones(2), cache)[0]
        path.append(path[-1] - lr * do.mean(axis=0)[:, 0])
    return np.array(path)


def landscapes(path: pathlib.Path) -> None:
    """Three landscapes side by side, and the way down each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8))
    axes = figure.subplots(1, 3, sharey=True)
    first, second = np.meshgrid(GRID, GRID)
    pairs = np.stack([first.ravel(), second.ravel()], axis=1)
    # many small steps at the beginning, where they are long, and fewer later
    moments = np.unique(np.geomspace(1, 400, 45).astype(int)) - 1
    moving = []
    for ax, error in zip(axes, NAMES, strict=True):
        height = mean_error(error, pairs).reshape(first.shape)
        levels = np.quantile(height, np.linspace(0, 1, 16))
        ax.contourf(first, second, height, levels=levels, cmap="Blues_r")
        steps = descent(error, 400)[moments]
        ax.plot(*steps[0], "o", color=plots.ORANGE, markerfacecolor="white", markersize=9)
        (line,) = ax.plot([], [], color=plots.ORANGE, linewidth=2.5)
        (end,) = ax.plot([], [], "s", color=plots.ORANGE, markeredgecolor="white", markersize=10)
        ax.set(title=NAMES[error], xlabel="$o_0$", aspect="equal")
        moving.append((steps, line, end))
    axes[0].set_ylabel("$o_1$")

    def draw(frame):
        for steps, line, end in moving:
            line.set_data(*steps[: frame + 1].T)
            end.set_data(*steps[frame : frame + 1].T)

    write(figure, draw, len(moments), path)


# --- the vowels of lesson 04 ----------------------------------------------------------------------


def vowels(path: pathlib.Path) -> None:
    """The decision lines of four experts, from the start to the end of the run of lesson 04."""
    from matplotlib.figure import Figure

    from moe_np.data import vowel_task
    from moe_np.show import walk
    from moe_np.show.view import pictures

    data = vowel_task()
    start = jacobs1991.init_mixture(np.random.default_rng(0), 4)
    steps = walk.vowels(start, data.x_train, data.d_train, lr=0.04, every=40, stop=0.08)
    states = list(steps)
    figure = Figure(figsize=(6.6, 4.4))
    ax = figure.subplots()

    def draw(frame):
        ax.clear()
        pictures.decision_lines(ax, states[frame], states[: frame + 1])

    write(figure, draw, len(states), path)
