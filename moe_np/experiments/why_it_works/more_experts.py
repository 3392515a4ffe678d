"""What happens with more experts than regions, and where do the experts go?

Fits by EM on tasks whose structure is known because it was put there (`moe_np.data.regimes`, and a
curve of which one half is harder than the other), and the trained mixtures of Jacobs et al. (1991).
"""

import itertools

import numpy as np

from moe_np.data import regimes
from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.experiments.why_it_works.question import (
    Question,
    differ,
    fit_em,
    grouped,
    listed,
    markdown,
    over,
    pm,
)
from moe_np.mixtures import jacobs1991 as model

# --- More and more experts ------------------------------------------------------------------------

REGIONS = 4


def more_specs(config, quick):
    counts, seeds = ((1, 4, 8), 2) if quick else (config.experts, config.fits)
    return [
        {"experts": E, "seed": seed, "n": 100, "noise": 0.3, "restarts": 4}
        for E in counts
        for seed in range(seeds)
    ]


def more_run(spec):
    """Log likelihood a case of a mixture by EM on few cases of a task with four regions, in
    training and test.
    """
    rng = np.random.default_rng(spec["seed"])
    task = regimes.make_task(rng, n_regions=REGIONS, noise=spec["noise"])
    train, test = (regimes.draw(task, n, rng, clouds=False) for n in (spec["n"], 1000))
    found = fit_em(rng, train.x, train.d, spec["experts"], spec["restarts"])
    error = float(((test.d - found.predict(test.x)) ** 2).mean())
    return {
        "train": found.log_likelihood / len(train.x),
        "test": found.score(test.x, test.d),
        "error": error,
    }


def more_summary(specs, runs):
    return [
        {
            "experts": E,
            **over(own, "train", "test", "error"),
            "median test": float(np.median([r["test"] for r in own])),
        }
        for (E,), own in grouped(specs, runs, "experts").items()
    ]


def more_rows(summary):
    rows = [
        [c["experts"], pm(c["train"]), pm(c["test"]), f"{c['median test']:.2f}", pm(c["error"])]
        for c in summary
    ]
    return markdown(
        ["experts", "training likelihood", "test likelihood", "its median", "test error"], rows
    )


def more_verdict(summary):
    best = max(summary, key=lambda c: c["median test"])
    last, least = summary[-1], min(summary, key=lambda c: c["error"][0])
    rises = all(a["train"][0] < b["train"][0] for a, b in itertools.pairwise(summary))
    falls = best["median test"] - last["median test"]
    holds = "yes" if rises and falls > 0.1 else "partly" if falls > 0.1 else "no"
    return holds, (
        f"With {REGIONS} regions and 100 cases the test likelihood is highest (by its median) at {best['experts']} "
        f"experts and {falls:.2f} nats a case lower at {last['experts']}, while the training likelihood "
        f"{'rises all the way' if rises else 'does not rise all the way'}, from {summary[0]['train'][0]:.2f} to "
        f"{last['train'][0]:.2f}. The squared error of the blend is lowest at {least['experts']} experts, "
        f"{least['error'][0]:.2f}, and {last['error'][0]:.2f} at {last['experts']}."
    )


MORE = Question(
    "Do more experts overfit?",
    "overfitting, as experts are added",
    more_specs,
    more_run,
    more_summary,
    more_rows,
    more_verdict,
)

# --- Where do the experts go? ---------------------------------------------------------------------


def harder_specs(config, quick):
    amplitudes, seeds = ((0.0, 1.0), 2) if quick else ((0.0, 0.25, 0.5, 1.0), config.fits)
    curve = [
        {"task": "curve", "amplitude": a, "seed": seed, "restarts": 4}
        for a in amplitudes
        for seed in range(seeds)
    ]
    vowels = [
        {"task": "vowels", "experts": E, "seed": s}
        for E in (4, 8)
        for s in range(2 if quick else config.seeds)
    ]
    return curve + vowels


def harder_run(spec):
    return harder_curve(spec) if spec["task"] == "curve" else harder_vowels(spec)


def harder_curve(spec):
    """x on (−1, 1): a straight line on the left, the same with waves of some amplitude on the
    right. Six experts by EM: how many have 5 % of the cases of each half?
    """
    rng = np.random.default_rng(spec["seed"])
    x = rng.uniform(-1, 1, (300, 1))
    right = x[:, 0] > 0
    d = (
        0.5 * x
        + spec["amplitude"] * np.where(x > 0, np.sin(3 * np.pi * x), 0)
        + 0.1 * rng.normal(size=x.shape)
    )
    top = fit_em(rng, x, d, 6, spec["restarts"]).gate(x).argmax(axis=1)
    counts = [int((np.bincount(top[half]) >= 0.05 * half.sum()).sum()) for half in (~right, right)]
    return dict(zip(("easy", "hard"), counts, strict=True))


def harder_vowels(spec):
    """Jacobs et al.'s vowels: experts in use for the front and for the back pair, each pair's
    errors, and how much the squared error rises without the experts that are not in use.
    """
    data = vowel_runs.task("IY+AH", 1, "file order", 0)
    params = vowel_runs.start(f"{spec['experts']} experts", spec["seed"], 0.05, 1)
    run = model.train_to_stop(params, data.x_train, data.d_train, lr=0.06)
    o, p = (
        model.experts_forward(run.params, data.x_train)[0][:, :, 0],
        model.gate_forward(run.params, data.x_train)[0],
    )
    d, front = data.d_train[:, 0], np.isin(data.vowel_train, (0, 1))
    wrong = ((p * o).sum(axis=1) > 0.5) != (d > 0.5)
    active = model.active_experts(p)
    share = p * active
    without = ((d - (share * o).sum(axis=1) / share.sum(axis=1)) ** 2).mean() - (
        (d - (p * o).sum(axis=1)) ** 2
    ).mean()
    return {
        "in use": int(active.sum()),
        "front": int(model.active_experts(p[front]).sum()),
        "back": int(model.active_experts(p[~front]).sum()),
        "front wrong": 100 * float(wrong[front].mean()),
        "back wrong": 100 * float(wrong[~front].mean()),
        "without the idle": float(without),
    }


def harder_summary(specs, runs):
    pairs = list(zip(specs, runs, strict=True))
    out = {"curve": [], "vowels": []}
    for a in dict.fromkeys(s["amplitude"] for s in specs if s["task"] == "curve"):
        own = [r for s, r in pairs if s.get("amplitude") == a]
        more = differ([r["hard"] - r["easy"] for r in own])
        out["curve"].append(
            {"amplitude": a, **over(own, "easy", "hard"), "more": more, "n": len(own)}
        )
    for E in dict.fromkeys(s["experts"] for s in specs if s["task"] == "vowels"):
        own = [r for s, r in pairs if s.get("experts") == E]
        out["vowels"].append({"experts": E, **over(own, *own[0]), "n": len(own)})
    return out


def harder_rows(summary):
    rows = [[f"{c['amplitude']:g}", pm(c["easy"], 1), pm(c["hard"], 1)] for c in summary["curve"]]
    first = markdown(
        ["waves on the right, amplitude", "experts on the straight half", "on the wavy half"], rows
    )
    rows = [
        [
            c["experts"],
            pm(c["in use"], 1),
            pm(c["front"], 1),
            pm(c["back"], 1),
            pm(c["front wrong"], 1),
            pm(c["back wrong"], 1),
            f"{c['without the idle'][0]:+.4f}",
        ]
        for c in summary["vowels"]
    ]
    heads = [
        "vowels: experts",
        "in use",
        "for [i] [ɪ]",
        "for [ɑ] [ʌ]",
        "% wrong there",
        "and there",
        "idle taken away",
    ]
    return first + "\n\n" + markdown(heads, rows)


def harder_verdict(summary):
    hardest = summary["curve"][-1]
    shows = [c for c in summary["curve"] if c["more"] > 0]
    four, eight = summary["vowels"][0], summary["vowels"][-1]
    one_each = all(c[k] == [1.0, 0.0] for c in summary["vowels"] for k in ("front", "back"))
    idle = all(c["in use"][0] < c["experts"] for c in summary["vowels"])
    attracts = bool(shows) and summary["curve"][0]["more"] == 0
    holds = "yes" if attracts and idle and not one_each else "partly" if attracts or idle else "no"
    curve = (
        f"With waves of amplitude {hardest['amplitude']:g} the harder half has {hardest['hard'][0]:.1f} experts and "
        f"the straight one {hardest['easy'][0]:.1f}; a difference (p < .01) is there for "
        f"{listed([format(c['amplitude'], 'g') for c in shows]) if shows else 'no amplitude'}. "
    )
    vowels = (
        "On the four vowels it does **not** show: the two pairs differ in difficulty "
        f"({eight['front wrong'][0]:.1f} and {eight['back wrong'][0]:.1f} % wrong) and have one expert each in every "
        "run. "
        if one_each
        else f"On the vowels the pairs have {eight['front'][0]:.1f} and {eight['back'][0]:.1f} experts of 8. "
    )
    return holds, (
        curve
        + vowels
        + f"Some experts do contribute nothing: of 4 and 8 experts {four['in use'][0]:.1f} and "
        f"{eight['in use'][0]:.1f} are in use, and without the others the squared error changes by "
        f"{four['without the idle'][0]:+.4f} and {eight['without the idle'][0]:+.4f}."
    )


HARDER = Question(
    "Do harder regions attract more experts, and do some contribute nothing?",
    "harder regions attract more experts; some contribute nothing",
    harder_specs,
    harder_run,
    harder_summary,
    harder_rows,
    harder_verdict,
)
