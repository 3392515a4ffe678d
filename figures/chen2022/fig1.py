"""Fig. 1 of Chen et al. (2022): four experts and four clusters, at the beginning, during training
and at the end.

1,600 samples, 4 experts, 20 filters per class, the paper's algorithm. Each cluster is drawn in two
directions of its own: to the right the component along its signal v_k, whose sign is the class;
upwards the component along its centre c_k. At the end of the run that is drawn each cubic expert
has one cluster, with one upright line between the classes; linear experts still share all clusters.
Few runs with cubic experts end so: the picture says how many, and which one is drawn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeAlias

import numpy as np

from figures import Job
from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import ArrayN, Params
from moe_np.data.clusters import SCALE, Clusters
from moe_np.experiments.chen2022.runs import VARIANTS, Config, run_one, spec_of
from moe_np.experiments.chen2022.runs import data as draw_samples
from moe_np.models import patch_cnn, patch_cnn_training
from moe_np.models.patch_cnn_training import Batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Chen et al. 2022, Fig. 1: four experts and four clusters along training"
ORDER = 30
SETTING = 1
N = 1600
E = 4
FILTERS = 20
CONFIG = Config(n_train=N, n_test=N, experts=E, filters=FILTERS)
SEEDS = 8
DIVIDED = 0.05  # an entropy below it: every cluster has an expert to itself
EPOCHS = (0, 40, 60, 500)
COLOURS = plots.COLOURS[:E]

# the map of a cluster: ± HALF v_k to the right, from LOW to HIGH c_k upwards
HALF = 2.7
LOW = 0.55
HIGH = 2.45
CORNERS = ((0, 1), (1, 1), (0, 0), (1, 0))  # column and row of each cluster's map
GRID = 90

Grid: TypeAlias = Annotated[np.ndarray, "GRID, GRID"]


# --- training -------------------------------------------------------------------------------------


class Snapshot(NamedTuple):
    """A pass of training."""

    expert: ArrayN  # the expert of each sample
    right: ArrayN  # whether this expert's answer is the sample's class
    params: Params


class Run(NamedTuple):
    """One training run."""

    snapshots: dict[int, Snapshot]  # by epoch
    entropy: list[float]  # of every pass


def train(data: Clusters, activation: str, seed: int) -> Run:
    """The run that `runs.run_one` makes from this seed, with the passes of EPOCHS kept."""
    rng = np.random.default_rng([seed, 1])
    params = patch_cnn.init(rng, E, FILTERS, data.x.shape[2], scale=CONFIG.scale, dtype=np.float32)
    batch = patch_cnn_training.batch(data.x, data.y)
    options = {name: VARIANTS["paper"][name] for name in ("gate", "loss", "norm", "stop")}
    options |= {"lr": CONFIG.lr, "lr_router": CONFIG.lr_router, "epochs": max(EPOCHS) + 1}
    draw_noise = patch_cnn_training.uniform_noise(rng)
    run = Run({}, [])
    for step in patch_cnn_training.train_mixture(
        params, batch, data.cluster, draw_noise, activation=activation, **options
    ):
        run.entropy.append(step.entropy)
        if step.epoch in EPOCHS:
            margin = margins(params, batch, activation)[step.expert, np.arange(N)]
            run.snapshots[step.epoch] = Snapshot(step.expert, (margin > 0) == data.y, params)
        params = step.params
    return run


def margins(params: Params, batch: Batch, activation: str) -> Annotated[np.ndarray, "E, N"]:
    """out₁ − out₀ of every expert for every sample; class 1 is the answer where it is positive."""
    rows = []
    for m in range(E):
        expert = {name: params[name][m : m + 1] for name in ("w", "b")}
        out = patch_cnn_training.single_predict(expert, batch, activation=activation)
        rows.append(np.diff(out)[:, 0])
    return np.stack(rows)


# --- one picture ----------------------------------------------------------------------------------


def regions(data: Clusters, params: Params, activation: str, k: int) -> tuple[Grid, Grid]:
    """On a grid of cluster k's map: the expert of the router without noise, and its margin."""
    right, up = np.meshgrid(np.linspace(-HALF, HALF, GRID), np.linspace(LOW, HIGH, GRID))
    # a patch of signal, a patch of centre, and two patches of zeros
    x = np.zeros((GRID * GRID, 4, data.x.shape[2]), np.float32)
    x[:, 0] = SCALE * right.reshape(-1, 1) * data.features[k]
    x[:, 1] = SCALE * up.reshape(-1, 1) * data.centers[k]
    batch = patch_cnn_training.batch(x, np.zeros(len(x), int))
    expert = (batch.xsum @ params["theta"].T).argmax(axis=1)
    margin = margins(params, batch, activation)[expert, np.arange(len(x))]
    return expert.reshape(GRID, GRID), margin.reshape(GRID, GRID)


def origin(k: int) -> tuple[float, float]:
    """Where the map of cluster k has its middle (horizontally) and its foot (vertically)."""
    column, row = CORNERS[k]
    return 2.15 * HALF * column, 1.1 * (HIGH - LOW) * row


def draw(
    ax: "Axes", data: Clusters, snapshot: Snapshot, activation: str, *, with_regions: bool
) -> None:
    """The maps of all clusters: samples, mistakes, and the regions of the router."""
    for k in range(len(CORNERS)):
        if with_regions:
            draw_regions(ax, data, snapshot.params, activation, k)
        else:
            x0, y0 = origin(k)
            ax.fill_between(
                (x0 - HALF, x0 + HALF), y0, y0 + HIGH - LOW, color="#EFEFEF", linewidth=0
            )
        draw_samples_of(ax, data, snapshot, k)
    ax.set(xlim=(-HALF, 3.15 * HALF), ylim=(0, 2.1 * (HIGH - LOW)), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_regions(ax: "Axes", data: Clusters, params: Params, activation: str, k: int) -> None:
    """Tints: the expert that the router chooses; a line where the expert's answer changes."""
    from matplotlib.colors import to_rgb

    tints = np.array([0.8 + 0.2 * np.array(to_rgb(colour)) for colour in COLOURS])
    x0, y0 = origin(k)
    box = (x0 - HALF, x0 + HALF, y0, y0 + HIGH - LOW)
    expert, margin = regions(data, params, activation, k)
    image = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    ax.imshow(tints[expert], extent=box, **image)
    if margin.min() < 0 < margin.max():
        ax.contour(margin, [0], extent=box, colors="black", linewidths=2.2, zorder=4)


def draw_samples_of(ax: "Axes", data: Clusters, snapshot: Snapshot, k: int) -> None:
    """The samples of cluster k in the colour of their expert; a cross where it is wrong."""
    x0, y0 = origin(k)
    samples = np.flatnonzero(data.cluster == k)
    xsum = (data.x.sum(axis=1) / SCALE)[samples]
    x = xsum @ data.features[k] + x0
    y = xsum @ data.centers[k] - LOW + y0
    inside = (np.abs(x - x0) < HALF) & (y > y0) & (y < y0 + HIGH - LOW)
    dot = {"marker": "o", "s": 11, "zorder": 3}
    cross = {"marker": "x", "s": 22, "linewidths": 1.3, "zorder": 5}
    for is_right, style in ((True, dot), (False, cross)):
        shown = inside & (snapshot.right[samples] == is_right)
        colours = [COLOURS[m] for m in snapshot.expert[samples[shown]]]
        ax.scatter(x[shown], y[shown], c=colours, **style)


# --- the figure -----------------------------------------------------------------------------------


def which_run(ends: Sequence[float]) -> tuple[int, str]:
    """The seed that is drawn, of runs that ended at these entropies, and how usual that run is."""
    divided = [seed for seed, end in enumerate(ends) if end < DIVIDED]
    seed = divided[0] if divided else 0
    words = f"{len(divided)} of {len(ends)} runs with cubic experts give each cluster an expert of "
    drawn = f"drawn is the first of them, seed {seed}" if divided else "drawn is seed 0"
    return seed, f"{words}its own; {drawn}"


def picture(data: Clusters, runs: dict[str, Run], words: str) -> "Figure":
    """A row per kind of expert, a column per pass; below, which run it is."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, len(EPOCHS), figsize=(15, 7.4))
    for row, (activation, run) in zip(axes, runs.items(), strict=True):
        for ax, epoch in zip(row, EPOCHS, strict=True):
            snapshot = run.snapshots[epoch]
            draw(ax, data, snapshot, activation, with_regions=epoch > 0)
            title = f"pass {epoch}" + (": by chance" if epoch == 0 else "")
            ax.set_title(title, fontsize=15, pad=16)
            right = 100 * snapshot.right.mean()
            ax.set_xlabel(f"entropy {run.entropy[epoch]:.2f}, {right:.0f} % right", fontsize=14)
        row[0].set_ylabel(f"{activation} experts", fontsize=18, weight="bold", labelpad=26)
    name_clusters(axes[0, 0])
    name_experts(axes[0, -1], data, runs["cubic"].snapshots[EPOCHS[-1]])
    name_directions(axes[0, 0])
    fig.get_layout_engine().set(wspace=0.06, hspace=0.05)
    fig.supxlabel(words, fontsize=14)
    return fig


def name_clusters(ax: "Axes") -> None:
    """The number of each cluster, at the foot of its map."""
    for k in range(len(CORNERS)):
        x, y = origin(k)
        plots.label(ax, x, y + 0.16, f"cluster {k + 1}", size=13)


def name_experts(ax: "Axes", data: Clusters, snapshot: Snapshot) -> None:
    """On each map the expert to which most of the cluster goes."""
    for k in range(len(CORNERS)):
        m = np.bincount(snapshot.expert[data.cluster == k]).argmax()
        x, y = origin(k)
        plots.label(ax, x, y + 0.16, f"expert {m + 1}", COLOURS[m], size=15, weight="bold")


def name_directions(ax: "Axes") -> None:
    """An arrow to the right, class signal; an arrow upwards, centre."""
    arrow = {"arrowstyle": "->", "linewidth": 1.6}
    style = {"arrowprops": arrow, "fontsize": 13, "annotation_clip": False}
    side = -1.09 * HALF
    top = 2.14 * (HIGH - LOW)
    ax.annotate("class signal $v_k$", (1.2 * HALF, top), (-HALF, top), va="center", **style)
    ax.annotate("centre $c_k$", (side, 1.95), (side, 0), ha="center", rotation=90, **style)


def specs(job: Job) -> tuple:
    """(run_one, runs): cubic experts, the paper's algorithm and the published code, some seeds."""
    seeds = range(2 if job.quick else SEEDS)
    return run_one, [
        spec_of(CONFIG, "moe_nonlinear", SETTING, variant, seed)
        for variant in ("paper", "code")
        for seed in seeds
    ]


def make(job: Job) -> str:
    """Train from some seeds and draw one run; return the figure's section of the report."""
    ends = [run["entropy"] for run in job.sweep.map(*specs(job), desc="chen2022 fig. 1")]
    paper, code = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    seed, words = which_run(paper)
    data = draw_samples(SETTING, CONFIG.data_seed, N, CONFIG.n_test).train
    with one_blas_thread():
        runs = {activation: train(data, activation, seed) for activation in patch_cnn.ACTIVATIONS}
    with plots.style():
        job.save(picture(data, runs, words), "chen2022_fig1")
    of_paper, of_code = (", ".join(f"{end:.2f}" for end in part) for part in (paper, code))
    parts = [
        "![four experts and four clusters](chen2022_fig1.png)",
        f"One dot per sample ({N} in all), in the colour of its expert; a cross is a sample that "
        "this expert gets wrong. Each cluster is shown in two directions of its own, its class "
        "signal to the right and its centre upwards. Tints are the regions of the router without "
        "its noise; the answer of the expert in charge changes at the black lines.",
        f"Setting {SETTING}, the paper's algorithm (softmax gate, one cross-entropy), {E} experts "
        f"of {FILTERS} filters per class. With as many experts as clusters few runs end like this "
        f"one. Cubic experts from the seeds 0, 1, ... ended at the entropies {of_paper}: {words}. "
        f"The published code from the same seeds ended at {of_code}. "
        "Published: the same in another embedding, from one run.",
    ]
    return "\n\n".join(parts)
