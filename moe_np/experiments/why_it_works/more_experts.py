"""What happens with more experts than regions, and where do the experts go?

Fits by EM on tasks whose structure is known because it was put there (`moe_np.data.regimes`, and a
curve of which one half is harder than the other), and the trained mixtures of Jacobs et al. (1991).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from moe_np.data import regimes
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import join
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    grouped,
    means,
    numbers,
    sign_of_difference,
)
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES, fit_em, is_front, vowels
from moe_np.mixtures import jacobs1991

# --- More and more experts ------------------------------------------------------------------------

REGIONS = 4
CASES = 100  # in training
FALL = 0.1  # nats per case: a fall of the test likelihood that counts


def more_specs(config: Config, quick: bool) -> list[Spec]:
    """Numbers of experts × seeds."""
    counts = (1, 4, 8) if quick else config.experts
    return [
        {"experts": E, "seed": seed, "n": CASES, "noise": 0.3, "restarts": 4}
        for E in counts
        for seed in range(2 if quick else config.fits)
    ]


def more_run(spec: Spec) -> Result:
    """Fit a mixture by EM to few cases of a task with four regions.

    -> {"train" and "test": log likelihood per case, "error": squared error of the test data}.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng, n_regions=REGIONS, noise=spec["noise"])
    train, test = (regimes.draw(task, n, rng, clouds=False) for n in (spec["n"], 1000))
    fit = fit_em(rng, train.x, train.d, spec["experts"], spec["restarts"])
    return {
        "train": fit.log_likelihood / len(train.x),
        "test": fit.score(test.x, test.d),
        "error": float(((test.d - fit.predict(test.x)) ** 2).mean()),
    }


def more_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per number of experts."""
    cells = []
    for (E,), runs in grouped(specs, results, "experts").items():
        median = float(np.median([run["test"] for run in runs]))
        cells.append({"experts": E, **means(runs, "train", "test", "error"), "median test": median})
    return cells


def more_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim holds where the training likelihood rises all the way and that of the test data
    falls after its best.
    """
    best = max(summary, key=lambda cell: cell["median test"])
    first = summary[0]
    last = summary[-1]
    least = min(summary, key=lambda cell: cell["error"][0])
    rises = all(a["train"][0] < b["train"][0] for a, b in itertools.pairwise(summary))
    fall = best["median test"] - last["median test"]
    holds = "yes" if rises and fall > FALL else "partly" if fall > FALL else "no"
    return holds, (
        f"With {REGIONS} regions and {CASES} cases the test likelihood is highest (by its median) "
        f"at {best['experts']} experts and {fall:.2f} nats a case lower at {last['experts']}, "
        f"while the training likelihood {'rises' if rises else 'does not rise'} all the way, from "
        f"{first['train'][0]:.2f} to {last['train'][0]:.2f}. The squared error of the blend is "
        f"lowest at {least['experts']} experts, {least['error'][0]:.2f}, and "
        f"{last['error'][0]:.2f} at {last['experts']}."
    )


MORE = Question(
    "Do more experts overfit?",
    "overfitting, as experts are added",
    more_specs,
    more_run,
    more_summary,
    more_verdict,
)

# --- Where do the experts go? ---------------------------------------------------------------------

CURVE_EXPERTS = 6
SHARE = 0.05  # of the cases of a half: an expert with as many is in use there


def harder_specs(config: Config, quick: bool) -> list[Spec]:
    """Amplitudes × seeds on the curve, then 4 and 8 experts × seeds on the vowels."""
    amplitudes = (0.0, 1.0) if quick else (0.0, 0.25, 0.5, 1.0)
    curve = [
        {"task": "curve", "amplitude": amplitude, "seed": seed, "restarts": 4}
        for amplitude in amplitudes
        for seed in range(2 if quick else config.fits)
    ]
    return curve + [
        {"task": "vowels", "experts": E, "seed": seed}
        for E in (4, 8)
        for seed in range(2 if quick else config.seeds)
    ]


def harder_run(spec: Spec) -> Result:
    """How many experts there are in the easy and in the hard part of a task."""
    return _harder_curve(spec) if spec["task"] == "curve" else _harder_vowels(spec)


def _harder_curve(spec):
    """x on (−1, 1): a straight line on the left, the same with waves of some amplitude on the
    right. Six experts by EM: how many have 5 % of the cases of each half?
    """
    rng = np.random.default_rng(spec["seed"])
    x = rng.uniform(-1, 1, (300, 1))
    right = x[:, 0] > 0
    waves = np.where(x > 0, np.sin(3 * np.pi * x), 0)
    d = 0.5 * x + spec["amplitude"] * waves + 0.1 * rng.normal(size=x.shape)
    fit = fit_em(rng, x, d, CURVE_EXPERTS, spec["restarts"])
    expert = fit.gate(x).argmax(axis=1)
    return {
        name: int((np.bincount(expert[half]) >= SHARE * half.sum()).sum())
        for name, half in (("easy", ~right), ("hard", right))
    }


def _harder_vowels(spec):
    """Jacobs et al.'s vowels: experts in use for the front and for the back pair, each pair's
    errors, and how much the squared error rises without the experts that are not in use.
    """
    data = vowels()
    params = vowel_runs.start(f"{spec['experts']} experts", spec["seed"], 0.05, 1)
    run = jacobs1991.train_to_stop(params, data.x_train, data.d_train, lr=LEARNING_RATES["mixture"])
    o = jacobs1991.experts_forward(run.params, data.x_train)[0][:, :, 0]
    p = jacobs1991.gate_forward(run.params, data.x_train)[0]
    d = data.d_train[:, 0]
    front = is_front(data.vowel_train)
    y = (p * o).sum(axis=1)
    errors = (y > 0.5) != (d > 0.5)
    active = jacobs1991.active_experts(p)
    share = p * active
    y_active = (share * o).sum(axis=1) / share.sum(axis=1)
    return {
        "in use": int(active.sum()),
        "front": int(jacobs1991.active_experts(p[front]).sum()),
        "back": int(jacobs1991.active_experts(p[~front]).sum()),
        "front wrong": 100 * float(errors[front].mean()),
        "back wrong": 100 * float(errors[~front].mean()),
        "without the idle": float(((d - y_active) ** 2).mean() - ((d - y) ** 2).mean()),
    }


def harder_summary(specs: Sequence[Spec], results: Sequence[Result]) -> Result:
    """{"curve": one dict per amplitude, "vowels": one per number of experts}.

    "more": the sign of the difference between the hard and the easy half.
    """
    out = {"curve": [], "vowels": []}
    keys = ("task", "amplitude", "experts")
    completed = [{**dict.fromkeys(keys), **spec} for spec in specs]
    for (task, amplitude, E), runs in grouped(completed, results, *keys).items():
        if task == "curve":
            sign = sign_of_difference([run["hard"] - run["easy"] for run in runs])
            cell = {"amplitude": amplitude, **means(runs, "easy", "hard"), "more": sign}
        else:
            cell = {"experts": E, **means(runs, *runs[0])}
        out[task].append({**cell, "n": len(runs)})
    return out


def harder_verdict(summary: Result) -> tuple[str, str]:
    """The claim holds where waves attract experts, some experts are idle, and the pairs of vowels
    have not one expert each.
    """
    curve = summary["curve"]
    vowel_cells = summary["vowels"]
    attracting = [cell["amplitude"] for cell in curve if cell["more"] > 0]
    attracts = bool(attracting) and curve[0]["more"] == 0
    single = all(cell[pair] == [1.0, 0.0] for cell in vowel_cells for pair in ("front", "back"))
    idle = all(cell["in use"][0] < cell["experts"] for cell in vowel_cells)
    holds = "yes" if attracts and idle and not single else "partly" if attracts or idle else "no"
    hardest = curve[-1]
    text = (
        f"With waves of amplitude {hardest['amplitude']:g} the harder half has "
        f"{hardest['hard'][0]:.1f} experts and the straight one {hardest['easy'][0]:.1f}; a "
        "difference (p < .01) is there for "
        f"{join(numbers(attracting), empty='no amplitude')}. "
    )
    return holds, text + _vowels_text(vowel_cells[0], vowel_cells[-1], single)


def _vowels_text(four, eight, single):
    if single:
        pairs = (
            "On the four vowels it does **not** show: the two pairs differ in difficulty "
            f"({eight['front wrong'][0]:.1f} and {eight['back wrong'][0]:.1f} % wrong) and have "
            "one expert each in every run. "
        )
    else:
        pairs = (
            f"On the vowels the pairs have {eight['front'][0]:.1f} and {eight['back'][0]:.1f} "
            "experts of 8. "
        )
    return (
        f"{pairs}Some experts do contribute nothing: of 4 and 8 experts {four['in use'][0]:.1f} "
        f"and {eight['in use'][0]:.1f} are in use, and without the others the squared error "
        f"changes by {four['without the idle'][0]:+.4f} and {eight['without the idle'][0]:+.4f}."
    )


HARDER = Question(
    "Do harder regions attract more experts, and do some contribute nothing?",
    "harder regions attract more experts; some contribute nothing",
    harder_specs,
    harder_run,
    harder_summary,
    harder_verdict,
)
