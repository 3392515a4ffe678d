"""The recorded notebook runs of Chen et al. 2022 (arXiv 2208.02813), from the same random numbers.

The authors published one notebook per setting of their synthetic data, with its outputs (repository
uclaml/MoE, synthetic_demo_s1.ipynb to s4). Everything random in them came from PyTorch's CPU
generator, which `moe_np.data.torch_random` reproduces to the bit, so the runs can be repeated one
by one. What is random, in the notebook's order and in one stream:

    two single models     linear and cubic: initial weights and biases; training draws nothing
    cubic mixtures, then linear ones, each kind as
        a first run       initialisation, one pass, training for pictures, a pass on the training
                          data, a pass on the test data
        ten runs          initialisation, training, a pass on the test data
    initialisation        router weights (then set to zero), N × E normal numbers that nothing
                          uses, the experts in turn
    a pass                N × E uniform numbers, the routing noise, also where a pass only
                          measures accuracy

The position in the stream depends on how many passes every earlier run took: a run that stopped one
pass early would give all later runs other numbers. Rounding is the only difference left (the
notebooks ran on a graphics card).
"""

import hashlib
import json
import pathlib
import sys

import numpy as np

from moe_np import kernels
from moe_np.base.checks import InputError, choice, integer
from moe_np.base.files import write_atomically
from moe_np.base.machine import one_blas_thread
from moe_np.base.types import Params
from moe_np.data import clusters, torch_random
from moe_np.experiments.chen2022.recorded import PAPER, REMARK
from moe_np.experiments.common import sources
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import markdown_table
from moe_np.experiments.common.sweep import to_json, versions
from moe_np.models import patch_cnn_training

ACTIVATION = {"moe_nonlinear": "cubic", "moe_linear": "linear"}  # in the notebooks' order
RUNS = 10
N = 16000  # training samples, and as many test samples
E = 8
FILTERS = 16  # of an expert
SINGLE_FILTERS = 80
D = 50  # length of a patch
START = np.float32(1e-3)  # scale of an expert's initialisation
TRAINING = {"gate": "raw", "loss": "twice", "lr": 1e-3, "lr_router": 0.1, "norm": "sum"}
EPOCHS = 501
FIRST_EPOCHS = {1: 601, 2: 501, 3: 601, 4: 601}  # of the first cubic mixture in each notebook
SEED = {1: 11, 2: 9, 3: 11, 4: 11}  # torch.manual_seed of each notebook
MIXTURES = len(ACTIVATION) * (RUNS + 1)
PLAN = [(kind, run == 0) for kind in ACTIVATION for run in range(RUNS + 1)]  # (kind, first run)

# --- one run --------------------------------------------------------------------------------------


def start_mixture(stream: np.random.RandomState) -> Params:
    """A mixture as the notebook draws it: {"w": (E, 2J, D), "b": (E, 2J), "theta": (E, D)}."""
    torch_random.words(stream, E * D)  # router weights, set to zero at once
    torch_random.skip_normal(stream, N * E)  # for breaking ties, never used
    experts = [torch_random.conv1d(stream, FILTERS, D) for _ in range(E)]
    w, b = (START * np.stack(arrays) for arrays in zip(*experts, strict=True))
    return {"w": w, "b": b, "theta": np.zeros((E, D), np.float32)}


def train_and_test(
    stream: np.random.RandomState, kind: str, data: tuple, epochs: int, *, first: bool
) -> Result:
    """One mixture from its initialisation to its test accuracy.

    -> {"accuracy" in percent, "epochs", "entropy_per_epoch"}; data: (training batch, cluster of
    each training sample, test batch).
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
        draw((N, E))  # the notebook looks at the loads before training
    entropy = []
    for step in patch_cnn_training.train_mixture(
        params, train, cluster, draw, epochs=epochs, activation=ACTIVATION[kind], **TRAINING
    ):
        entropy.append(round(step.entropy, 6))
    if first:
        result["accuracy_training"] = accuracy(train)
    result["accuracy"] = accuracy(test)
    return {**result, "epochs": len(entropy), "entropy_per_epoch": entropy}


# --- the chain of runs ----------------------------------------------------------------------------


def replay(
    setting: int,
    *,
    store: str | pathlib.Path | None = None,
    progress: bool = True,
    limit: int = MIXTURES,
) -> Result:
    """Repeat the notebook of `setting` 1 to 4: per kind of mixture a first run and ten runs.

    Returns {"name", "setting", kind: {"accuracy": [10], "entropy": [10], "epochs": [10],
    "difference": [10], "entropy_per_epoch": [10 lists], "recorded", "first_run"}, "remark",
    "versions"} for the kinds "moe_nonlinear" and "moe_linear". Accuracies are percent of the 16,000
    test samples; their difference is replayed minus recorded. Entropies are nats, of the noisy
    routing of a training pass; "entropy" is that of the last one, as in the notebooks.

    `store` is a folder: each finished run is kept there with the position of the stream, and a
    replay that was ended continues from there. `limit` ends the chain after this many of its 22
    mixtures; the lists are shorter then. InputError for an unknown setting or a damaged file.
    """
    choice("setting", setting, tuple(PAPER))
    plan = PLAN[: integer("limit", limit, minimum=1, maximum=MIXTURES)]
    path = None if store is None else _path(pathlib.Path(store), setting)
    runs, stream = _load(path, setting)
    remaining = plan[len(runs) :]
    data = _data(setting) if remaining else None
    with one_blas_thread(), _progress_bar(setting, len(runs), len(plan), progress) as bar:
        for kind, first in remaining:
            epochs = FIRST_EPOCHS[setting] if (kind, first) == ("moe_nonlinear", True) else EPOCHS
            runs.append(train_and_test(stream, kind, data, epochs, first=first))
            if path is not None:
                write_atomically(path, to_json({"runs": runs, "stream": _position(stream)}))
            bar.set_postfix_str(f"{kind} {runs[-1]['accuracy']:.2f} %", refresh=False)
            bar.update()
    return _result(setting, runs[: len(plan)])


def run_one(spec: Spec) -> Result:
    """`replay` for a sweep: {"setting": 1 to 4, "limit": 1 to 22, "store": a folder or None}."""
    return replay(**spec, progress=False)


def _data(setting):
    train, test = clusters.notebook_clusters(setting)
    train_batch, test_batch = (patch_cnn_training.batch(d.x, d.y) for d in (train, test))
    return train_batch, train.cluster, test_batch


def _progress_bar(setting, done, total, progress):
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
        of_kind = [run for run, (k, _) in zip(runs, PLAN, strict=False) if k == kind]
        first, *ten = of_kind or [None]
        pairs = zip(ten, recorded.accuracy, strict=False)
        result[kind] = {
            "accuracy": [run["accuracy"] for run in ten],
            "entropy": [run["entropy_per_epoch"][-1] for run in ten],
            "epochs": [run["epochs"] for run in ten],
            "difference": [difference(run["accuracy"], accuracy) for run, accuracy in pairs],
            "entropy_per_epoch": [run["entropy_per_epoch"] for run in ten],
            "recorded": recorded._asdict(),
            "first_run": first,
        }
    return {**result, "remark": REMARK.get(setting, ""), "versions": versions()}


def difference(replayed: float, recorded: float) -> float:
    """Percent points between two test accuracies; the recorded one is put back on the number of
    samples that it was rounded from.
    """
    return round(replayed - round(recorded * N / 100) * 100 / N, 5)


# --- between two calls ----------------------------------------------------------------------------


def _path(store, setting):
    """The file of an unfinished replay; its name changes with all that could change a number."""
    code = json.dumps([kernels.backend(), sources.fingerprint(__name__)])
    digest = hashlib.sha256(code.encode()).hexdigest()[:12]
    return store / "replay_chen2022" / f"s{setting}-{digest}.json"


def _position(stream):
    _, key, position, *_ = stream.get_state()
    return [int(position), *key.tolist()]


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
        runs = stored["runs"]
        position, *key = stored["stream"]
        if not (0 < len(runs) <= len(PLAN) and all(run["entropy_per_epoch"] for run in runs)):
            raise ValueError(f"{len(runs)} runs")
        if not (len(key) == 624 and 0 <= position <= 624 and min(key) >= 0):
            raise ValueError("a position outside the stream")
        stream.set_state(("MT19937", np.array(key, np.uint32), position))
        return runs, stream
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: wanted a stored replay, got a damaged file ({error}); "
            "delete it to start again"
        ) from None


# --- Markdown -------------------------------------------------------------------------------------


def report(result: Result) -> str:
    """Recorded and replayed test accuracy of every run, and means of the runs, as Markdown."""
    columns = []
    entropies = []
    for kind in ACTIVATION:
        of_kind = result[kind]
        columns += [of_kind["recorded"]["accuracy"], of_kind["accuracy"]]
        entropies += [of_kind["recorded"]["entropy"], _mean_sd(of_kind["entropy"], 3)]
    rows = [
        (i + 1, *(f"{column[i]:.4f}" if i < len(column) else "–" for column in columns))
        for i in range(RUNS)
    ]
    rows.append(("mean ± population SD", *(_mean_sd(column, 2) for column in columns)))
    rows.append(("dispatch entropy", *entropies))
    head = ("run", "cubic, recorded", "replayed", "linear, recorded", "replayed")
    setting = f"Setting {result['setting']}"
    parts = [
        f"{setting}: test accuracy of the {RUNS} recorded runs and of their replay, percent. The "
        "deviation is that of the notebooks, the population SD of the runs of the column.",
        markdown_table(head, rows),
        agreement(result),
    ]
    return "\n\n".join([*parts, *([result["remark"]] if result["remark"] else [])])


def _mean_sd(values, digits):
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}" if values else "–"


def agreement(result: Result) -> str:
    """One sentence: how many runs are repeated to the last sample, and the largest difference."""
    gaps = [abs(d) for kind in ACTIVATION for d in result[kind]["difference"]]
    largest = max(gaps, default=0)
    return (
        f"{sum(d == 0 for d in gaps)} of {len(gaps)} runs give the recorded accuracy to the last "
        f"sample; the largest difference is {largest:.4f} points ({round(largest * N / 100)} of "
        f"{N} test samples)."
    )
