"""Fig. 1 of Chen et al. (2022): four experts and four clusters, at the start, during training and
at the end.

1,600 samples, 4 experts, 20 filters a class, the paper's algorithm. Each cluster is drawn in its
own two directions: to the right what it shows of its signal v_k, whose sign is the class; upwards
how strongly it shows its centre c_k. Cubic experts end with one cluster each and one upright cut
between its classes; linear ones go on sharing them all.
"""

import numpy as np

from moe_np import plots
from moe_np.base.machine import one_blas_thread
from moe_np.data.clusters import SCALE
from moe_np.experiments.chen2022 import experiment
from moe_np.experiments.chen2022.runs import data as draw_samples
from moe_np.models import patch_cnn, patch_cnn_training

TITLE = "Chen et al. 2022, Fig. 1: four experts and four clusters along training"
ORDER = 30
SETTING, N, E, FILTERS = 1, 1600, 4, 20
CONFIG = experiment.Config(n_train=N, n_test=N, experts=E, filters=FILTERS)
EPOCHS = (0, 40, 60, 500)
COLOURS = plots.COLOURS[:E]
HALF, LOW, HIGH = 2.7, 0.55, 2.45  # a cluster's map: ± this many v_k, from this to that many c_k
CORNERS = ((0, 1), (1, 1), (0, 0), (1, 0))  # column and row of each cluster's map
GRID = 90


def trained(activations, seed):
    """(training samples, {activation: `snapshots` of the run that `run_one` makes})."""
    data = draw_samples(SETTING, CONFIG.data_seed, N, CONFIG.n_test).train
    with one_blas_thread():
        return data, {activation: snapshots(data, activation, seed) for activation in activations}


def snapshots(data, activation, seed, epochs=EPOCHS):
    """Train, and keep (expert, right, params) of the passes asked for: ({epoch: ...}, entropy of
    every pass).
    """
    rng = np.random.default_rng([seed, 1])
    params = patch_cnn.init(rng, E, FILTERS, data.x.shape[2], scale=CONFIG.scale, dtype=np.float32)
    batch, seen, curve = patch_cnn_training.batch(data.x, data.y), {}, []
    how = {k: experiment.VARIANTS["paper"][k] for k in ("gate", "loss", "norm", "stop")}
    how |= {"lr": CONFIG.lr, "lr_router": CONFIG.lr_router, "epochs": max(epochs) + 1}
    draw = patch_cnn_training.uniform_noise(rng)
    for step in patch_cnn_training.train_mixture(
        params, batch, data.cluster, draw, activation=activation, **how
    ):
        curve.append(step.entropy)
        if step.epoch in epochs:
            right = (margins(params, batch, activation)[step.expert, np.arange(N)] > 0) == data.y
            seen[step.epoch] = step.expert, right, params
        params = step.params
    return seen, curve


def margins(params, batch, activation):
    """out₁ − out₀ of every expert for every sample, (E, samples): above 0 it says class 1."""
    alone = ({k: params[k][m : m + 1] for k in ("w", "b")} for m in range(E))
    return np.stack(
        [
            np.diff(patch_cnn_training.single_predict(p, batch, activation=activation))[:, 0]
            for p in alone
        ]
    )


def regions(data, params, activation, k):
    """On a grid of cluster k's map: the expert of the router without noise, and the margin of this
    expert.
    """
    right, up = np.meshgrid(np.linspace(-HALF, HALF, GRID), np.linspace(LOW, HIGH, GRID))
    x = np.zeros(
        (GRID * GRID, 4, data.x.shape[2]), np.float32
    )  # two patches of signal and centre, two of nothing
    x[:, 0] = SCALE * right.reshape(-1, 1) * data.features[k]
    x[:, 1] = SCALE * up.reshape(-1, 1) * data.centers[k]
    batch = patch_cnn_training.batch(x, np.zeros(len(x), int))
    expert = (batch.xsum @ params["theta"].T).argmax(axis=1)
    margin = margins(params, batch, activation)[expert, np.arange(len(x))]
    return expert.reshape(GRID, GRID), margin.reshape(GRID, GRID)


def draw(ax, data, snapshot, activation, routed):
    """Four maps; dots coloured by the expert they went to, crosses for mistakes, tints for the
    router's regions.
    """
    from matplotlib.colors import to_rgb

    expert, right, params = snapshot
    tints = np.array([0.8 + 0.2 * np.array(to_rgb(c)) for c in COLOURS])
    xsum = data.x.sum(axis=1) / SCALE
    for k, (column, row) in enumerate(CORNERS):
        x0, y0 = 2.15 * HALF * column, 1.1 * (HIGH - LOW) * row
        box = (x0 - HALF, x0 + HALF, y0, y0 + HIGH - LOW)
        if routed:
            region, margin = regions(data, params, activation, k)
            ax.imshow(
                tints[region], extent=box, origin="lower", aspect="auto", interpolation="nearest"
            )
            if margin.min() < 0 < margin.max():
                ax.contour(margin, [0], extent=box, colors="black", linewidths=2.2, zorder=4)
        else:
            ax.fill_between(box[:2], *box[2:], color="#EFEFEF", linewidth=0)
        mine = np.flatnonzero(data.cluster == k)
        place = np.stack(
            [xsum[mine] @ data.features[k] + x0, xsum[mine] @ data.centers[k] - LOW + y0], axis=1
        )
        inside = (
            (np.abs(place[:, 0] - x0) < HALF) & (place[:, 1] > y0) & (place[:, 1] < y0 + HIGH - LOW)
        )
        for ok, style in (
            (True, {"marker": "o", "s": 11}),
            (False, {"marker": "x", "s": 22, "linewidths": 1.3}),
        ):
            some = inside & (right[mine] == ok)
            ax.scatter(
                *place[some].T,
                c=[COLOURS[m] for m in expert[mine[some]]],
                zorder=3 if ok else 5,
                **style,
            )
    ax.set(xlim=(-HALF, 3.15 * HALF), ylim=(0, 2.1 * (HIGH - LOW)), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def spot(k):
    """Where cluster k's name goes: the foot of its map."""
    column, row = CORNERS[k]
    return 2.15 * HALF * column, 1.1 * (HIGH - LOW) * row + 0.16


def name_experts(ax, data, snapshot):
    """On each map the expert that most of the cluster goes to."""
    for k in range(len(CORNERS)):
        m = np.bincount(snapshot[0][data.cluster == k]).argmax()
        plots.label(ax, *spot(k), f"expert {m + 1}", COLOURS[m], size=15, weight="bold")


def picture(data, runs):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, len(EPOCHS), figsize=(15, 7.4))
    for row, (activation, (seen, curve)) in zip(axes, runs.items(), strict=True):
        for ax, epoch in zip(row, EPOCHS, strict=True):
            draw(ax, data, seen[epoch], activation, routed=epoch > 0)
            ax.set_title(
                f"pass {epoch}" + (": by chance" if epoch == 0 else ""), fontsize=15, pad=16
            )
            right = 100 * seen[epoch][1].mean()
            ax.set_xlabel(f"entropy {curve[epoch]:.2f}, {right:.0f} % right", fontsize=14)
        row[0].set_ylabel(f"{activation} experts", fontsize=18, weight="bold", labelpad=26)
    for k in range(len(CORNERS)):
        plots.label(axes[0, 0], *spot(k), f"cluster {k + 1}", size=13)
    name_experts(axes[0, -1], data, runs["cubic"][0][EPOCHS[-1]])
    arrow = {
        "arrowprops": {"arrowstyle": "->", "linewidth": 1.6},
        "fontsize": 13,
        "annotation_clip": False,
    }
    side, top = -1.09 * HALF, 2.14 * (HIGH - LOW)
    axes[0, 0].annotate("class signal $v_k$", (1.2 * HALF, top), (-HALF, top), va="center", **arrow)
    axes[0, 0].annotate("centre $c_k$", (side, 1.95), (side, 0), ha="center", rotation=90, **arrow)
    fig.get_layout_engine().set(wspace=0.06, hspace=0.05)
    return fig


def specs(job):
    """Cubic experts from several starts, with the paper's algorithm and with the published code."""
    starts = range(2 if job.quick else 8)
    both = ("paper", "code")
    return experiment.run_one, [
        experiment.spec_of(CONFIG, "moe_nonlinear", SETTING, v, s) for v in both for s in starts
    ]


def make(job):
    ends = [run["entropy"] for run in job.sweep.map(*specs(job), desc="chen2022 fig. 1")]
    paper, code = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    seed = next((s for s, end in enumerate(paper) if end < 0.05), 0)
    data, runs = trained(patch_cnn.ACTIVATIONS, seed)
    with plots.style():
        job.save(picture(data, runs), "chen2022_fig1")
    apart = sum(e < 0.05 for e in paper)
    paper, code = (", ".join(f"{e:.2f}" for e in some) for some in (paper, code))
    return (
        "![four experts and four clusters](chen2022_fig1.png)\n\n"
        f"One dot a sample ({N} in all), in the colour of the expert it was sent to; a cross is a "
        "sample that this "
        "expert got wrong. Each cluster is shown in its own two directions, its class signal to "
        "the right and its "
        "centre upwards. Tints are the regions of the router without its noise, black lines are "
        "where the expert in "
        "charge changes its answer.\n\n"
        f"Setting {SETTING}, the paper's algorithm (softmax gate, one cross-entropy), {E} experts "
        f"of {FILTERS} filters "
        "a class. With as many experts as clusters few starts end like this one. Cubic experts "
        "from the "
        f"seeds 0, 1, ... ended at the entropies {paper}: {apart} gave every cluster an expert of "
        "its own, and the "
        f"first of them, seed {seed}, is drawn. The published code from the same starts ended at "
        f"{code}. "
        "Published: the same in another embedding, from one run.\n"
    )
