"""What happens with more experts than regions, and where do the experts go?

Fits by EM on tasks whose structure is known because it was put there (`moe_np.data.regimes`, and a
curve of which one half is harder than the other), and the trained mixtures of Jacobs et al. (1991).
"""

from collections.abc import Sequence

import numpy as np

from moe_np.base.types import ArrayND, Rng
from moe_np.data import regimes
from moe_np.experiments.common.controlled_claims import verdict_with_controls
from moe_np.experiments.common.decisions import Decision, decide, in_words
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.reports import interval
from moe_np.experiments.common.statistics import t_interval
from moe_np.experiments.why_it_works.questions import (
    Config,
    Question,
    criterion_of_table,
    first_seeds,
    grouped,
    means,
)
from moe_np.experiments.why_it_works.tasks import LEARNING_RATES, fit_em, is_front, vowels
from moe_np.experiments.why_it_works.when_it_helps import fit_net
from moe_np.mixtures import em, jacobs1991
from moe_np.mixtures.jacobs1991_net import net_predict

# --- More and more experts ------------------------------------------------------------------------

REGIONS = 4
CASES = 100  # in training
NOISE = 0.3


def more_specs(config: Config, quick: bool) -> list[Spec]:
    """Numbers of experts × seeds, more of them for the two numbers that are compared."""
    counts = (1, 4, 8) if quick else config.experts
    runs = {E: config.pairs if E in (REGIONS, counts[-1]) else config.fits for E in counts}
    return [
        {"experts": E, "seed": seed, "n": CASES, "noise": NOISE, "restarts": 4}
        for E in counts
        for seed in first_seeds(2 if quick else runs[E])
    ]


def more_run(spec: Spec) -> Result:
    """Fit a mixture by EM, and a network of as many parameters, to few cases of four regions.

    -> {"train" and "test": log likelihood per case of the mixture, "error" and "net": squared
    errors of the test data}. Both have equally many starts.
    """
    rng, train, test = few_cases(spec["seed"], spec["n"], spec["noise"])
    starts = spec["restarts"]
    fit = fit_em(rng, train.x, train.d, spec["experts"], starts)
    hidden = units_of_equal_size(spec["experts"])
    options = {"hidden": hidden, "restarts": starts, "max_iter": 2000}
    net = fit_net(np.random.default_rng([spec["seed"], 1]), train.x, train.d, **options)
    return {
        "train": fit.log_likelihood / len(train.x),
        "test": fit.score(test.x, test.d),
        "error": float(((test.d - fit.predict(test.x)) ** 2).mean()),
        "net": float(((test.d - net_predict(net, test.x, "linear")) ** 2).mean()),
    }


def few_cases(
    seed: int, n: int = CASES, noise: float = NOISE
) -> tuple[Rng, regimes.Cases, regimes.Cases]:
    """(generator, n training cases, test cases) of `REGIONS` regions in one cloud."""
    rng = np.random.default_rng(seed)
    task = regimes.make_task(rng, n_regions=REGIONS, noise=noise)
    train, test = (regimes.draw(task, size, rng, clouds=False) for size in (n, 1000))
    return rng, train, test


def units_of_equal_size(n_experts: int) -> int:
    """Hidden units of a network of 2 inputs, 4 h + 1 parameters, that has as many as a mixture:
    3 per expert, 3 per expert but one in the gate, and one σ.
    """
    return max(1, round((6 * n_experts - 3) / 4))


def more_summary(specs: Sequence[Spec], results: Sequence[Result]) -> list[Result]:
    """One dict per number of experts, with the logs of the test errors of all runs."""
    cells = []
    for (E,), runs in grouped(specs, results, "experts").items():
        median = float(np.median([run["test"] for run in runs]))
        cell = {"experts": E, **means(runs, "train", "test", "error", "net"), "n": len(runs)}
        for name in ("error", "net"):
            cell[f"log {name}"] = np.log([run[name] for run in runs]).tolist()
        cells.append({**cell, "median test": median})
    return cells


MORE_CRITERION = criterion_of_table(
    f"rise of the log test error from {REGIONS} experts to the most, mixture less network",
    0.1,
    "greater",
)
MORE_REASON = (
    "Any model that grows overfits so few cases at some size. So the claim says something of "
    "mixtures only if their error rises by more than that of a network which grows alike, by a "
    "tenth at least. Against a network that stays as it is it must hold where experts are added, "
    "and fail where they are taken away. Two earlier controls that had to fail, against a network "
    "that grew ten times as far and for a mixture that stayed, had so much spread that they could "
    "not tell. Fifteen seeds could show only a difference of more than a half, and their spread "
    "gave the number of seeds, which are new ones."
)


def _rises(summary):
    """Log test error at the most experts less that at as many as regions, run by run, of both."""
    first = next(cell for cell in summary if cell["experts"] == REGIONS)
    last = summary[-1]
    return [np.subtract(last[f"log {name}"], first[f"log {name}"]) for name in ("error", "net")]


def more_decisions(summary: list[Result]) -> list[Decision]:
    """Whether the mixture's test error rises by more than the network's, seed by seed."""
    mixture, net = _rises(summary)
    case = f"{REGIONS} to {summary[-1]['experts']} experts"
    return [decide(case, MORE_CRITERION, mixture - net)]


def more_verdict(summary: list[Result]) -> tuple[str, str]:
    """The claim is that mixtures overfit as experts are added, so it is comparative."""
    decisions = more_decisions(summary)
    mixture, net = (
        interval(t_interval(rise, level=MORE_CRITERION.level)) for rise in _rises(summary)
    )
    best = max(summary, key=lambda cell: cell["median test"])
    last = summary[-1]
    return verdict_with_controls(decisions), (
        f"From {REGIONS} to {last['experts']} experts the log of the test error changes by "
        f"{mixture}, and that of a network with as many parameters by {net}; that the mixture's "
        f"rises by more: {in_words(decisions)} With {REGIONS} regions and {CASES} "
        f"cases the test likelihood is highest (by its median) at {best['experts']} experts, and "
        f"{best['median test'] - last['median test']:.2f} nats per case lower at "
        f"{last['experts']}. These are dense mixtures by EM; sparse layers are not tested here."
    )


MORE = Question(
    "Do more experts overfit?",
    "overfitting, as experts are added",
    "popular articles; no paper is named",
    "Few cases. It is a comparison, as any model that grows overfits them: so a network grows "
    "alike.",
    more_specs,
    more_run,
    more_summary,
    more_verdict,
    MORE_CRITERION,
    MORE_REASON,
    more_decisions,
)

# --- Do harder regions attract more? --------------------------------------------------------------

CURVE_EXPERTS = 6
AMPLITUDES = (0.0, 0.25, 0.5, 1.0)
VOWEL_EXPERTS = (4, 8)
SHARE = 0.05  # of the cases of a half: an expert with as many is in use there


def harder_specs(config: Config, quick: bool) -> list[Spec]:
    """Amplitudes × seeds on the curve, then 4 and 8 experts × seeds on the vowels."""
    amplitudes = (0.0, 1.0) if quick else AMPLITUDES
    curve = [
        {"task": "curve", "amplitude": amplitude, "seed": seed, "restarts": 4}
        for amplitude in amplitudes
        for seed in first_seeds(2 if quick else config.fits)
    ]
    return curve + [
        {"task": "vowels", "experts": E, "seed": seed}
        for E in VOWEL_EXPERTS
        for seed in first_seeds(2 if quick else config.seeds)
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
    waves = np.where(x > 0, np.sin(3 * np.pi * x), 0)
    d = 0.5 * x + spec["amplitude"] * waves + 0.1 * rng.normal(size=x.shape)
    easy, hard = experts_by_half(fit_em(rng, x, d, CURVE_EXPERTS, spec["restarts"]), x)
    return {"easy": easy, "hard": hard}


def experts_by_half(fit: em.Fit, x: ArrayND) -> tuple[int, int]:
    """How many experts have a `SHARE` of the cases of the left half, and of the right one."""
    expert = fit.gate(x).argmax(axis=1)
    right = x[:, 0] > 0
    left, right = (
        int((np.bincount(expert[half]) >= SHARE * half.sum()).sum()) for half in (~right, right)
    )
    return left, right


def _harder_vowels(spec):
    """Jacobs et al.'s vowels: experts in use for the front and for the back pair, and each pair's
    errors.
    """
    data = vowels()
    params = jacobs1991.init_mixture(np.random.default_rng(spec["seed"]), spec["experts"])
    run = jacobs1991.train_to_stop(params, data.x_train, data.d_train, lr=LEARNING_RATES["mixture"])
    p = jacobs1991.gate_forward(run.params, data.x_train)[0]
    front = is_front(data.vowel_train)
    y = jacobs1991.predict(run.params, data.x_train)
    errors = ((y > 0.5) != (data.d_train > 0.5))[:, 0]
    return {
        "front": int(jacobs1991.active_experts(p[front]).sum()),
        "back": int(jacobs1991.active_experts(p[~front]).sum()),
        "front wrong": 100 * float(errors[front].mean()),
        "back wrong": 100 * float(errors[~front].mean()),
    }


def harder_summary(specs: Sequence[Spec], results: Sequence[Result]) -> Result:
    """{"curve": one dict per amplitude, "vowels": one per number of experts}.

    "more" has, run by run, the experts of the harder part less those of the easier one: of the wavy
    half, and of the back pair of vowels, in which more tokens are wrong.
    """
    out = {"curve": [], "vowels": []}
    keys = ("task", "amplitude", "experts")
    completed = [{**dict.fromkeys(keys), **spec} for spec in specs]
    for (task, amplitude, E), runs in grouped(completed, results, *keys).items():
        if task == "curve":
            surplus = [run["hard"] - run["easy"] for run in runs]
            cell = {"amplitude": amplitude, **means(runs, "easy", "hard"), "more": surplus}
        else:
            cell = {"experts": E, **means(runs, *runs[0])}
            cell["more"] = [run["back"] - run["front"] for run in runs]
        out[task].append({**cell, "n": len(runs)})
    return out


HARDER_CRITERION = criterion_of_table(
    "number of experts in use for the harder part less that for the easier one",
    0.5,
    "greater",
)
HARDER_REASON = (
    "Half an expert in the mean is the least that can be called more. On the curve the harder half "
    "is the one with waves, which takes more pieces of a line; nothing else makes it hard. On a "
    "curve without waves the claim must fail, and on one with four steps it must hold. On the "
    "vowels the harder pair is the one of which more tokens are wrong. The control without waves "
    "has twice the seeds with which it failed to exclude half an expert, and new ones."
)


def harder_decisions(summary: Result) -> list[Decision]:
    """Waves of every amplitude, and the back pair of vowels less the front pair."""
    cases = [
        (f"waves of {cell['amplitude']:g}", cell) for cell in summary["curve"] if cell["amplitude"]
    ]
    cases += [(f"back pair, {cell['experts']} experts", cell) for cell in summary["vowels"]]
    return [decide(case, HARDER_CRITERION, cell["more"]) for case, cell in cases]


def harder_verdict(summary: Result) -> tuple[str, str]:
    """By the cases; the controls have runs of their own."""
    decisions = harder_decisions(summary)
    four = summary["vowels"][0]
    return verdict_with_controls(decisions), (
        f"More experts in the harder part: {in_words(decisions)} On the vowels "
        f"{four['front wrong'][0]:.1f} % of the front and {four['back wrong'][0]:.1f} % of the "
        "back pair are wrong with 4 experts."
    )


HARDER = Question(
    "Do harder regions attract more experts?",
    "harder regions attract more experts",
    "articles, of the vowels of 1991",
    "The vowels, where the pair that is harder also differs in other ways. On a curve with waves "
    "of several heights on one half nothing but difficulty differs.",
    harder_specs,
    harder_run,
    harder_summary,
    harder_verdict,
    HARDER_CRITERION,
    HARDER_REASON,
    harder_decisions,
)
