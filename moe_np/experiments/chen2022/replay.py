"""The recorded notebook runs of Chen et al. 2022 (arXiv 2208.02813), repeated from the same random
numbers.

The authors published one notebook per setting of their synthetic data, with its outputs (repository
uclaml/MoE, synthetic_demo_s1.ipynb to s4). Everything random in them came from PyTorch's CPU
generator, which `moe_np.data.torch_random` reproduces to the bit, so the runs can be repeated one
by one. What is random, in the notebook's order and in one stream:

    the start of two single models, linear and cubic    weights and biases; their training draws nothing
    cubic mixtures, then linear ones, each kind as
        a first run     start, one pass, training for pictures, a pass on the training data, a pass on the test data
        ten runs        start, training, a pass on the test data
    start of a mixture  router weights (then set to zero), N × E normal numbers that nothing uses, the experts in turn
    a pass              N × E uniform numbers, the routing noise: also in passes that only measure accuracy

So the position in the stream depends on how many passes every run before took: a run that stopped
one pass early would give all later runs other numbers. Rounding is the only difference left (the
notebooks ran on a graphics card).
"""

import hashlib
import json
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError, choice, integer
from moe_np.data import clusters, torch_random
from moe_np.experiments.common import sources
from moe_np.experiments.common.sweep import (
    one_blas_thread,
    to_json,
    versions,
    write_atomically,
)
from moe_np.models import patch_cnn_training

ACTIVATION = {"moe_nonlinear": "cubic", "moe_linear": "linear"}  # in the notebooks' order
RUNS = 10
N, E, FILTERS, SINGLE_FILTERS, D = (
    16000,
    8,
    16,
    80,
    50,
)  # training and test samples, experts, filters, patch length
START = np.float32(1e-3)  # scale of an expert's start
TRAINING = {"gate": "raw", "loss": "twice", "lr": 1e-3, "lr_router": 0.1, "norm": "sum"}
EPOCHS = 501
FIRST_EPOCHS = {
    1: 601,
    2: 501,
    3: 601,
    4: 601,
}  # of the first cubic mixture in each notebook; all others take EPOCHS
SEED = {1: 11, 2: 9, 3: 11, 4: 11}  # torch.manual_seed of each notebook
MIXTURES = len(ACTIVATION) * (RUNS + 1)
PLAN = [
    (kind, run == 0) for kind in ACTIVATION for run in range(RUNS + 1)
]  # (kind, is it the first run?)


class Recorded(NamedTuple):
    accuracy: list  # percent of the test samples, the ten runs in order
    entropy: (
        str  # mean ± standard deviation over the ten runs, three digits are all that was printed
    )
    first: float  # percent of the test samples, first run


# read in the notebooks' outputs
PAPER = {
    1: {
        "moe_nonlinear": Recorded(
            [
                99.7812,
                99.9688,
                98.8375,
                98.0938,
                99.5500,
                99.6625,
                99.4125,
                99.5250,
                99.7375,
                100.0000,
            ],
            "0.098 ± 0.088",
            100.0,
        ),
        "moe_linear": Recorded(
            [
                95.6625,
                91.8688,
                88.9437,
                92.0625,
                95.3312,
                91.0812,
                95.8438,
                92.4250,
                92.6000,
                94.1312,
            ],
            "1.300 ± 0.044",
            92.8750,
        ),
    },
    2: {
        "moe_nonlinear": Recorded(
            [
                98.2188,
                99.4375,
                93.7188,
                99.0625,
                98.1063,
                98.6625,
                97.6875,
                99.4125,
                98.2313,
                98.4250,
            ],
            "0.183 ± 0.144",
            95.2938,
        ),
        "moe_linear": Recorded(
            [
                89.4500,
                90.6937,
                91.1937,
                89.1437,
                87.3563,
                88.8375,
                90.8438,
                90.5312,
                89.7375,
                87.0812,
            ],
            "1.262 ± 0.095",
            92.4437,
        ),
    },
    3: {
        "moe_nonlinear": Recorded(
            [
                100.0000,
                100.0000,
                100.0000,
                99.9938,
                100.0000,
                99.9500,
                99.9750,
                100.0000,
                100.0000,
                99.9938,
            ],
            "0.008 ± 0.011",
            None,
        ),
        "moe_linear": Recorded(
            [
                96.2500,
                96.9125,
                95.9813,
                96.4875,
                97.5625,
                97.2500,
                92.5687,
                95.4000,
                95.4313,
                95.4437,
            ],
            "1.160 ± 0.100",
            97.0062,
        ),
    },
    4: {
        "moe_nonlinear": Recorded(
            [
                99.3750,
                99.2938,
                99.3375,
                95.4000,
                99.3375,
                99.3688,
                99.3875,
                99.1188,
                99.3750,
                99.2313,
            ],
            "0.089 ± 0.120",
            None,
        ),
        "moe_linear": Recorded(
            [
                92.1875,
                95.3187,
                93.8125,
                94.8438,
                93.9500,
                91.0000,
                94.4813,
                94.0687,
                90.9813,
                92.3125,
            ],
            "1.160 ± 0.155",
            93.3375,
        ),
    },
}
REMARK = {
    2: "The published notebook of setting 2 is not the run behind the paper's Table 1 (98.09 ± 1.27 and 88.48 ± 1.96): "
    "its own means are 98.10 ± 1.56 and 89.49 ± 1.35, and those are what a replay can be held against."
}


# --- one run --------------------------------------------------------------------------------------


def start_mixture(stream):
    """A mixture as the notebook draws it, float32: {"w": (E, 2J, D), "b": (E, 2J), "theta": (E,
    D)}.
    """
    torch_random.words(stream, E * D)  # router weights, set to zero at once
    torch_random.skip_normal(stream, N * E)  # for breaking ties, never used
    experts = [torch_random.conv1d(stream, FILTERS, D) for _ in range(E)]
    w, b = (START * np.stack(arrays) for arrays in zip(*experts, strict=True))
    return {"w": w, "b": b, "theta": np.zeros((E, D), np.float32)}


def train_and_test(stream, kind, data, epochs, *, first):
    """One mixture from its start to its test accuracy: {"accuracy" in percent, "epochs",
    "entropy_per_epoch"}.
    """
    train, cluster, test = data

    def draw(shape):
        return torch_random.rand(stream, *shape)

    def accuracy(batch):
        out, _ = patch_cnn_training.predict(
            step.params, batch, draw((N, E)), activation=ACTIVATION[kind], gate=TRAINING["gate"]
        )
        return round(100 * int((out.argmax(axis=1) == batch.y).sum()) / len(batch.y), 5)

    params = start_mixture(stream)
    result = {}
    if first:
        draw((N, E))  # a look at the loads before training
    entropy = []
    for step in patch_cnn_training.train_mixture(
        params, train, cluster, draw, epochs=epochs, activation=ACTIVATION[kind], **TRAINING
    ):
        entropy.append(round(step.entropy, 6))
    if first:
        result["accuracy_training"] = accuracy(train)
    return {
        **result,
        "accuracy": accuracy(test),
        "epochs": len(entropy),
        "entropy_per_epoch": entropy,
    }


# --- the chain of runs ----------------------------------------------------------------------------


def replay(setting, *, store=None, progress=True, limit=MIXTURES):
    """Repeat the notebook of `setting` 1 to 4: both kinds of mixture, a first run and ten more of
    each.

    Returns {"name", "setting", kind: {"accuracy": [10], "entropy": [10], "epochs": [10],
    "difference": [10], "entropy_per_epoch": [10 lists], "recorded", "first_run"}, "remark",
    "versions"} for the kinds "moe_nonlinear" and "moe_linear". Accuracies are percent of the 16,000
    test samples; their difference is replayed minus recorded. Entropies are nats, of the noisy
    routing of a training pass; "entropy" is that of the last one, as in the notebooks.

    `store` is a folder: each finished run is kept there with the position of the stream, and a
    replay that was ended goes on from there. `limit` ends the chain after so many of its 22
    mixtures; the lists are shorter then. InputError for an unknown setting or a damaged file.
    """
    choice("setting", setting, tuple(PAPER))
    plan = PLAN[: integer("limit", limit, minimum=1, maximum=MIXTURES)]
    path = None if store is None else _path(pathlib.Path(store), setting)
    runs, stream = _load(path, setting)
    todo = plan[len(runs) :]
    data = _data(setting) if todo else None
    with one_blas_thread(), _bar(setting, len(runs), len(plan), progress) as bar:
        for kind, first in todo:
            epochs = FIRST_EPOCHS[setting] if (kind, first) == ("moe_nonlinear", True) else EPOCHS
            runs.append(train_and_test(stream, kind, data, epochs, first=first))
            if path is not None:
                write_atomically(path, to_json({"runs": runs, "stream": _position(stream)}))
            bar.set_postfix_str(f"{kind} {runs[-1]['accuracy']:.2f} %", refresh=False)
            bar.update()
    return _result(setting, runs[: len(plan)])


def run_one(spec):
    """`replay` for a sweep. spec: {"setting": 1 to 4, "limit": 1 to 22, "store": a folder or None}."""
    return replay(**spec, progress=False)


def _data(setting):
    train, test = clusters.notebook_clusters(setting)
    return (
        patch_cnn_training.batch(train.x, train.y),
        train.cluster,
        patch_cnn_training.batch(test.x, test.y),
    )


def _bar(setting, done, total, progress):
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=done,
        desc=f"replay of setting {setting}",
        unit="run",
        file=sys.stderr,
        disable=not progress,
        leave=False,
        dynamic_ncols=True,
    )


def _result(setting, runs):
    result = {"name": "replay_chen2022", "setting": setting}
    for kind, recorded in PAPER[setting].items():
        first, *ten = [run for run, (of, _) in zip(runs, PLAN, strict=False) if of == kind] or [
            None
        ]
        result[kind] = {
            "accuracy": [run["accuracy"] for run in ten],
            "entropy": [run["entropy_per_epoch"][-1] for run in ten],
            "epochs": [run["epochs"] for run in ten],
            "difference": [
                difference(run["accuracy"], a)
                for run, a in zip(ten, recorded.accuracy, strict=False)
            ],
            "entropy_per_epoch": [run["entropy_per_epoch"] for run in ten],
            "recorded": recorded._asdict(),
            "first_run": first,
        }
    return {**result, "remark": REMARK.get(setting, ""), "versions": versions()}


def difference(replayed, recorded):
    """Percent points between two test accuracies, with the recorded one put back on the sample it
    was rounded from.
    """
    return round(replayed - round(recorded * N / 100) * 100 / N, 5)


# --- between two calls ----------------------------------------------------------------------------


def _path(store, setting):
    """Where an unfinished replay is kept; the name changes with everything that could change a
    number.
    """
    what = json.dumps([kernels.backend(), sources.fingerprint(__name__)])
    return (
        store
        / "replay_chen2022"
        / f"s{setting}-{hashlib.sha256(what.encode()).hexdigest()[:12]}.json"
    )


def _position(stream):
    _, key, at, *_ = stream.get_state()
    return [int(at), *key.tolist()]


def _load(path, setting):
    """The finished runs and the stream behind them."""
    stream = torch_random.manual_seed(SEED[setting])
    try:
        text = "" if path is None else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    if not text:
        for _ in range(2):
            torch_random.conv1d(stream, SINGLE_FILTERS, D)  # the two single models
        return [], stream
    try:
        stored = json.loads(text)
        runs, (at, *key) = stored["runs"], stored["stream"]
        if not (0 < len(runs) <= len(PLAN) and all(run["entropy_per_epoch"] for run in runs)):
            raise ValueError(f"{len(runs)} runs")
        if not (len(key) == 624 and 0 <= at <= 624):
            raise ValueError("a position outside the stream")
        stream.set_state(("MT19937", np.array(key, np.uint32), at))
        return runs, stream
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: wanted a stored replay, got a damaged file ({error}); delete it to start again"
        ) from None


# --- Markdown -------------------------------------------------------------------------------------


def report(result):
    """Recorded and replayed test accuracy of every run, and means of the runs, as Markdown."""
    head = f"Setting {result['setting']}: test accuracy of the recorded runs and of their replay, percent.\n"
    lines = [
        head,
        "| run | cubic, recorded | replayed | linear, recorded | replayed |",
        "|---|---|---|---|---|",
    ]
    columns = [
        column
        for kind in ACTIVATION
        for column in (result[kind]["recorded"]["accuracy"], result[kind]["accuracy"])
    ]
    for i in range(RUNS):
        cells = (f"{column[i]:.4f}" if i < len(column) else "–" for column in columns)
        lines.append(f"| {i + 1} | {' | '.join(cells)} |")
    lines.append("| mean ± SD | " + " | ".join(_spread(column, 2) for column in columns) + " |")
    entropy = [
        cell
        for kind in ACTIVATION
        for cell in (result[kind]["recorded"]["entropy"], result[kind]["entropy"])
    ]
    cells = (cell if isinstance(cell, str) else _spread(cell, 3) for cell in entropy)
    lines.append("| dispatch entropy | " + " | ".join(cells) + " |")
    return "\n".join(
        [*lines, "", agreement(result), *(["", result["remark"]] if result["remark"] else [])]
    )


def _spread(values, digits):
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else "–"


def agreement(result):
    """One sentence: how many runs are repeated to the last sample, and how far off the worst one
    is.
    """
    gaps = [abs(d) for kind in ACTIVATION for d in result[kind]["difference"]]
    worst = max(gaps, default=0)
    return (
        f"{sum(d == 0 for d in gaps)} of {len(gaps)} runs give the recorded accuracy to the last sample; the largest "
        f"difference is {worst:.4f} points ({round(worst * N / 100)} of {N} test samples)."
    )
