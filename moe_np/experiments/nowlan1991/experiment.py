"""Ten vowels: a mixture of competing experts against backprop (Nowlan and Hinton 1991).

S. J. Nowlan and G. E. Hinton (1991), Evaluation of adaptive mixtures of competing experts, Advances
in Neural Information Processing Systems 3:774-780. The experts see formants; the gate sees them too
and may be told who speaks or whether a man, a woman or a child does. A net with one hidden layer
gets all of that as its input.

Known to us from the paper: the vowels, what experts and gate see, σ = .25, the errors in percent
below, and that the four front vowels share an expert. Everything else had to be chosen: see
`CHOSEN`.
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import numpy as np

from moe_np.base import optim
from moe_np.base.checks import choice, integer
from moe_np.data.speech import ten_vowels as data
from moe_np.experiments.common.sweep import versions
from moe_np.mixtures import jacobs1991 as model
from moe_np.mixtures import nowlan1991 as competing

SYSTEMS = ("mixture", "backprop")


@dataclasses.dataclass(frozen=True)
class Config:
    """σ is the paper's, the rest chosen."""

    sigma: float = 0.25
    sigma_start: float = 2.0  # in the rows where σ narrows during the first 60 % of the steps
    levels: int = 30  # so many values of σ on the way
    experts: int = 20
    hidden: int = 20
    spread: float = 0.5  # of the start; the gate's weights at 0
    steps: int = 600  # of Adam on all cases, the step size falling to 0 in a straight line
    drop: int = 1  # the speaker left out
    seeds: int = 25
    grid: tuple = (
        0.01,
        0.03,
        0.1,
    )  # step sizes that `explore` tries, for each published row and system
    grid_seeds: int = 3  # on seeds 1000, 1001, ...


# Percent errors as published: (mixture, backprop); and the remark on the allocation.
PAPER = {
    "training": {"formants": (13.9, 21.8), "+ speaker": (4.6, 6.2), "+ m-f-c": (13.0, 15.4)},
    "generalisation": {"formants": (15.1, 23.3), "+ speaker": (6.4, None), "+ m-f-c": (13.5, 18.4)},
    "claim": "the four front vowels share an expert",
}
CHOSEN = (
    "which formants the experts see (both F1, F2 and F1, F2, F3 are run)",
    "what is the test set (the other repetition of each word: the only one for which a speaker's identity can help)",
    "which man of the table is left out",
    "20 experts and 20 hidden units, softmax outputs with one-hot targets for both, squared error for the net",
    "that the gate sees the formants beside the context (rows without them are run as well)",
    "that σ is .25 from the first step on (rows in which it narrows from 2 are run as well)",
    "start, method (Adam on all cases) and number of steps; the step size of each published row and system by its "
    "training error on separate seeds",
)


class Row(NamedTuple):
    """A line of the table: what experts and gate see, and which published line it belongs to."""

    name: str
    published: str | None
    formants: str
    context: str
    gate_sees_formants: bool = True
    split: str = "repetition"
    experts: int | None = None  # in place of the configuration's
    narrowing: bool = False  # σ from sigma_start down to sigma
    like: str | None = None  # the row whose step sizes it has

    @property
    def systems(self):
        return (
            SYSTEMS if self.gate_sees_formants and not self.narrowing else SYSTEMS[:1]
        )  # a net has one input, no σ


PUBLISHED = tuple(
    Row(f"{formants.replace(' ', ', ')}{more}", published, formants, context)
    for formants, (more, published, context) in itertools.product(
        data.FORMANTS,
        (
            ("", "formants", "none"),
            (" + speaker", "+ speaker", "speaker"),
            (" + m-f-c", "+ m-f-c", "m-f-c"),
        ),
    )
)
ROWS = (
    *PUBLISHED,
    Row("F1, F2, new speakers", None, "F1 F2", "none", split="speakers", like="F1, F2"),
    Row("F1, F2; σ narrows", None, "F1 F2", "none", narrowing=True, like="F1, F2"),
    Row(
        "F1, F2; 5 experts, σ narrows",
        None,
        "F1 F2",
        "none",
        experts=5,
        narrowing=True,
        like="F1, F2",
    ),
    Row(
        "the gate sees the speaker alone; σ narrows",
        None,
        "F1 F2",
        "speaker",
        False,
        narrowing=True,
        like="F1, F2",
    ),
    Row(
        "the gate sees m-f-c alone; σ narrows",
        None,
        "F1 F2",
        "m-f-c",
        False,
        narrowing=True,
        like="F1, F2",
    ),
)
BY_NAME = {row.name: row for row in ROWS}

# --- one run --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16)
def parts(formants, context, gate_sees_formants, split, drop, seed):
    """((x, z, d, vowel) to train on, the same to test on): z is what the gate sees."""
    out = []
    for part in data.ten_vowels(
        formants=formants, context=context, split=split, drop=drop, seed=seed
    ):
        z = np.concatenate([part.x, part.context], axis=1) if gate_sees_formants else part.context
        out.append((part.x, z, part.d, part.vowel))
    return out


def task(spec):
    row = BY_NAME[choice("row", spec["row"], BY_NAME)]
    seed = spec["seed"] if row.split == "speakers" else 0
    return parts(row.formants, row.context, row.gate_sees_formants, row.split, spec["drop"], seed)


def train(spec):
    """The parameters after `steps` steps of Adam from the start of the seed, and the task."""
    train_part, test_part = task(spec)
    x, z, d, _ = train_part
    rng, steps = np.random.default_rng([spec["seed"], 1]), spec["steps"]
    if choice("system", spec["system"], SYSTEMS) == "mixture":
        params = competing.init(
            rng, spec["experts"], x.shape[1], z.shape[1], d.shape[1], init_range=spec["spread"]
        )
        x, z, d = competing.check(params, x, z, d, spec["sigma"])
        loss_at = functools.cache(lambda sigma: competing.mean_loss_of(x, z, d, sigma=sigma))
        losses = (loss_at(sigma) for sigma in widths(spec))
    else:
        Z, C = z.shape[1], d.shape[1]
        params = model.init_net(rng, spec["hidden"], Z, C, init_range=spec["spread"])
        losses = itertools.repeat(functools.partial(net_loss, z=z, d=d), steps)
    state = None
    for i, loss_and_grads in enumerate(losses):
        _, grads = loss_and_grads(params)
        params, state = optim.adam(params, grads, state, lr=spec["lr"] * (1 - i / steps))
    return params, train_part, test_part


def widths(spec):
    """σ at every step: the same, or falling by equal factors to it over the first 60 % of the
    steps.
    """
    part = np.minimum(np.arange(spec["steps"]) / (0.6 * spec["steps"]), 1)
    part = np.ceil(part * spec["levels"]) / spec["levels"]
    return (spec["sigma"] * (spec["sigma_start"] / spec["sigma"]) ** (1 - part)).tolist()


def net_loss(params, z, d):
    """Mean squared error of the net and its gradients."""
    loss, cache = model.net_forward(params, z, d, "softmax")
    return float(loss.mean()), model.net_backward(np.full(len(z), 1 / len(z)), cache)[1]


def answer(params, x, z):
    """Outputs (N, 10) of either system."""
    return (
        competing.predict(params, x, z)[0] if "U" in params else model.predict(params, z, "softmax")
    )


def run_one(spec):
    """Train one system from one seed: percent wrong in training and test, and who took which vowel."""
    params, *both = train(spec)
    wrong = [
        100 * float((answer(params, x, z).argmax(axis=1) != vowel).mean())
        for x, z, _, vowel in both
    ]
    result = {"train": wrong[0], "test": wrong[1]}
    if "U" in params:
        x, z, _, vowel = both[0]
        result |= allocation(competing.predict(params, x, z)[2], vowel)
    return result


def allocation(expert, vowel):
    """How the vowels are shared out: {"of vowel": expert that gets most of its tokens, "in use":
    experts with at least 5 % of all tokens, "front", "front and back": chance that two tokens of
    different vowels have the same expert}.
    """
    n = np.zeros((expert.max() + 1, len(data.NAMES)))
    np.add.at(n, (expert, vowel), 1)
    share = n / n.sum(axis=0)  # (E, 10) of a vowel's tokens
    together = share.T @ share
    front = np.isin(data.NAMES, data.FRONT)
    return {
        "of vowel": n.argmax(axis=0).tolist(),
        "in use": int((n.sum(axis=1) >= 0.05 * n.sum()).sum()),
        "front": float(together[np.ix_(front, front)][~np.eye(front.sum(), dtype=bool)].mean()),
        "front and back": float(together[np.ix_(front, ~front)].mean()),
    }


# --- step sizes, and the experiment ---------------------------------------------------------------


def spec_of(config, row, system, seed, lr):
    """What determines a run, as JSON-able data."""
    spec = {"row": row, "system": system, "seed": seed, "lr": lr}
    spec |= {k: getattr(config, k) for k in ("spread", "steps", "drop")}
    if system == "backprop":
        return spec | {"hidden": config.hidden}
    of = BY_NAME[choice("row", row, BY_NAME)]
    sigma_start = config.sigma_start if of.narrowing else config.sigma
    experts = of.experts or config.experts
    return spec | {
        "experts": experts,
        "sigma": config.sigma,
        "sigma_start": sigma_start,
        "levels": config.levels,
    }


def cells(rows):
    return [(row.name, system) for row in rows for system in row.systems]


def explore(config, rows, sweep):
    """The step size with the lowest mean training error on seeds of its own: {(row, system): lr}.

    Rows that are `like` another one take over its step sizes.
    """
    seeds = range(1000, 1000 + config.grid_seeds)
    explored = [row for row in rows if row.like is None]
    tried = [(row, system, lr) for row, system in cells(explored) for lr in config.grid]
    specs = [spec_of(config, row, system, seed, lr) for row, system, lr in tried for seed in seeds]
    errors = np.array([r["train"] for r in sweep.map(run_one, specs, "ten vowels, steps")])
    means = errors.reshape(len(tried), len(seeds)).mean(axis=1)
    best = {}
    for (row, system, lr), mean in zip(tried, means, strict=True):
        if (row, system) not in best or mean < best[row, system][1]:
            best[row, system] = (lr, mean)
    return {(row, system): best[BY_NAME[row].like or row, system][0] for row, system in cells(rows)}


def quick_config(config):
    return dataclasses.replace(config, steps=min(config.steps, 150), grid=(0.1,), grid_seeds=1)


def run(config=None, *, seeds=None, sweep, quick=False):
    """All rows, mixture and backprop, `seeds` runs each (25; 2 if quick): the dict written as
    nowlan1991.json.
    """
    config = Config() if config is None else config
    config = quick_config(config) if quick else config
    rows = ROWS[:3] if quick else ROWS
    seeds = (2 if quick else config.seeds) if seeds is None else integer("seeds", seeds)
    lr = explore(config, rows, sweep)
    specs = [
        spec_of(config, *cell, seed, lr[cell]) for cell in cells(rows) for seed in range(seeds)
    ]
    runs = iter(sweep.map(run_one, specs, "ten vowels"))
    found = [
        {
            "row": row,
            "system": system,
            "lr": lr[row, system],
            "runs": list(itertools.islice(runs, seeds)),
        }
        for row, system in cells(rows)
    ]
    return {
        "name": "nowlan1991",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seeds)),
        "cells": found,
        "reference": {formants: reference(formants) for formants in data.FORMANTS},
        "paper": PAPER,
        "versions": versions(),
    }


def reference(formants):
    """(training, test) errors in percent of one normal density a vowel (quadratic discriminant
    analysis): a reference that learns nothing step by step, on the same split.
    """
    (x, _, _, vowel), test = parts(formants, "none", True, "repetition", Config.drop, 0)
    scores = []
    for k in range(len(data.NAMES)):
        own = x[vowel == k]
        centre, spread = own.mean(axis=0), np.cov(own.T)
        scores.append((centre, np.linalg.inv(spread), np.linalg.slogdet(spread)[1]))

    def wrong(x, vowel):
        away = [
            np.einsum("nd,de,ne->n", x - m, inverse, x - m) + logdet
            for m, inverse, logdet in scores
        ]
        return 100 * float((np.argmin(away, axis=0) != vowel).mean())

    return wrong(x, vowel), wrong(test[0], test[3])


def table(result):
    """Ours beside the published errors, what does not come out, and what was chosen. Markdown."""
    from moe_np.experiments.nowlan1991 import report

    return report.table(result)
