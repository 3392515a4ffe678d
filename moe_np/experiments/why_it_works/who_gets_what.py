"""Who specialises in what: does it take time, is it random, does it follow the start of the gate?

Dense: eight experts on the four vowels of Jacobs et al. (1991), two regions, the front and the back
pair. Sparse: eight cubic experts on the four clusters of Chen et al. (2022), one expert a sample,
by the algorithm of their code. The data are the same in all runs; a run differs in its start, and
in the noise of the routing where there is any.
"""

import numpy as np

from moe_np.experiments.jacobs1991 import runs as vowel_runs
from moe_np.experiments.why_it_works.gate_collapse import VARIANTS, patches
from moe_np.experiments.why_it_works.question import (
    Question,
    grouped,
    listed,
    markdown,
    mean_sd,
    over,
    pm,
)
from moe_np.layers import diagnostics
from moe_np.mixtures import jacobs1991 as model
from moe_np.models import patch_cnn, patch_cnn_training

E = 8
RUNS = 25  # to a spec, where runs are many and short

# --- one run of each ------------------------------------------------------------------------------


def train_vowels(expert_seed, gate_seed=None, gate_spread=0.0, keep=False):
    """Eight experts under eq. 3 to an error of .08: (data, Run). The gate starts at 0, or uniform
    in ±gate_spread.
    """
    data = vowel_runs.task("IY+AH", 1, "file order", 0)
    params = model.init_mixture(np.random.default_rng(expert_seed), E)
    if gate_seed is not None:
        rng = np.random.default_rng([gate_seed, 1])
        params |= {k: rng.uniform(-gate_spread, gate_spread, params[k].shape) for k in ("U", "c")}
    return data, model.train_to_stop(
        params, data.x_train, data.d_train, lr=0.06, keep=keep, max_epochs=6000
    )


def taken_vowels(data, params):
    """The expert that the gate prefers for each pair: [front, back]."""
    p = model.gate_forward(params, data.x_train)[0]
    front = np.isin(data.vowel_train, (0, 1))
    return [int(p[own].mean(axis=0).argmax()) for own in (front, ~front)]


def train_patches(experts, gate, noise, *, gate_scale=0.0, n=2000, epochs=120):
    """Chen et al.'s code from three seeds, noise None for none. Yields each `chen2022.Step`."""
    train, batch, _ = patches(n)
    params = patch_cnn.init(
        np.random.default_rng(experts), E, 8, batch.x.shape[2], scale=1e-3, dtype=np.float32
    )
    if gate_scale:
        theta = gate_scale * np.random.default_rng([gate, 1]).normal(size=params["theta"].shape)
        params["theta"] = theta.astype(np.float32)
    draw = (
        None
        if noise is None
        else patch_cnn_training.uniform_noise(np.random.default_rng([noise, 2]))
    )
    options = {"activation": "cubic", "lr": 3e-3, "lr_router": 0.1, "epochs": epochs, "stop": False}
    yield from patch_cnn_training.train_mixture(
        params, batch, train.cluster, draw, **options, **VARIANTS["code"]
    )


def taken_patches(cluster, expert):
    """The expert that most samples of each cluster went to."""
    return diagnostics.table(expert, cluster).argmax(axis=0).tolist()


# --- Does specialisation take time? ---------------------------------------------------------------


def time_specs(config, quick):
    seeds, more = (
        (2, {"n": 500, "epochs": 60}) if quick else (config.seeds, {"n": 2000, "epochs": 120})
    )
    return [
        {"task": task, "seed": seed, **more}
        for task in ("vowels", "patches")
        for seed in range(seeds)
    ]


def time_run(spec):
    """What the choice of the expert tells about the region, in bits, every epoch (the vowels every
    tenth).
    """
    bits, every = [], 10 if spec["task"] == "vowels" else 1
    if spec["task"] == "vowels":
        data, run = train_vowels(spec["seed"], keep=True)
        front = np.isin(data.vowel_train, (0, 1)).astype(int)
        for U, c in zip(run.history["U"][::every], run.history["c"][::every], strict=True):
            bits.append(information((data.x_train @ U + c).argmax(axis=1), front))
        length = run.epochs
    else:
        cluster = patches(spec["n"])[0].cluster
        for step in train_patches(
            spec["seed"], 0, spec["seed"], n=spec["n"], epochs=spec["epochs"]
        ):
            bits.append(information(step.expert, cluster))
        length = spec["epochs"]
    bits = np.array(bits)
    tenth, half, most = (every * for_good(bits, share * bits[-1]) for share in (0.1, 0.5, 0.9))
    at_tenth = float(bits[int(0.1 * length / every)] / bits[-1]) if bits[-1] > 0 else 1.0
    times = {
        "a tenth": tenth,
        "half": half,
        "nine tenths": most,
        "epochs": length,
        "known at a tenth": at_tenth,
    }
    return {
        **times,
        "bits": float(bits[-1]),
        "curve": bits[:: 1 if every == 10 else 2].round(4).tolist(),
    }


def for_good(curve, level):
    """The first place from which on the curve does not fall below the level again."""
    below = np.flatnonzero(curve < level)
    return int(below[-1]) + 1 if len(below) else 0


def information(expert, label):
    """I(expert; label) in bits, without the permuted baseline of `diagnostics.mutual_information`
    (here below .03).
    """
    p = diagnostics.table(expert, label) / len(label)
    independent = p.sum(axis=1, keepdims=True) * p.sum(axis=0)
    return float((p[p > 0] * np.log2(p[p > 0] / independent[p > 0])).sum())


def time_summary(specs, runs):
    out = []
    for (task,), own in grouped(specs, runs, "task").items():
        names = ("a tenth", "half", "nine tenths", "epochs", "known at a tenth", "bits")
        one = {"task": task, "n": len(own), **over(own, *names)}
        one["late"] = sum(r["known at a tenth"] < 0.5 for r in own)
        out.append({**one, "curves": [r["curve"] for r in own]})
    return out


def time_rows(summary):
    rows = [
        [
            c["task"],
            pm(c["bits"]),
            *(pm(c[k], 0) for k in ("a tenth", "half", "nine tenths", "epochs")),
        ]
        for c in summary
    ]
    heads = [
        "",
        "bits about the region, at the end",
        "epochs until a tenth is there for good",
        "half",
        "nine tenths",
        "of",
    ]
    return markdown(heads, rows)


def time_verdict(summary):
    late = [c["late"] > 0.9 * c["n"] for c in summary]
    holds = "yes" if all(late) else "partly" if any(late) else "no"
    parts = [
        f"on the {c['task']}, half of what the choice of the expert says in the end is there for good after "
        f"{c['half'][0]:.0f} ± {c['half'][1]:.0f} of {c['epochs'][0]:.0f} epochs; after a tenth of the epochs "
        f"{100 * c['known at a tenth'][0]:.0f} % of it is, less than half in {c['late']} of {c['n']} runs"
        for c in summary
    ]
    return holds, ("; ".join(parts) + ".").replace("on the", "On the", 1)


TIME = Question(
    "Does specialisation take time?",
    "specialisation takes time (Chen et al. 2022)",
    time_specs,
    time_run,
    time_summary,
    time_rows,
    time_verdict,
)

# --- Is the allocation random? --------------------------------------------------------------------

REGIONS = {
    "vowels": ("[i] [ɪ]", "[ɑ] [ʌ]"),
    "patches": ("cluster 1", "cluster 2", "cluster 3", "cluster 4"),
}
REGIONS["patches, no noise"] = REGIONS["patches"]


def random_specs(config, quick):
    blocks, n, epochs = (1, 500, 40) if quick else (config.blocks, 2000, 120)
    runs = 4 if quick else RUNS
    return [
        {"task": task, "first": runs * block, "runs": runs, "n": n, "epochs": epochs}
        for task in REGIONS
        for block in range(blocks if task != "patches, no noise" else 1)
    ]


def random_run(spec):
    """Which expert took each region, a list for every run of the block."""
    taken = []
    for seed in range(spec["first"], spec["first"] + spec["runs"]):
        if spec["task"] == "vowels":
            data, run = train_vowels(seed)
            taken.append(taken_vowels(data, run.params))
        else:
            noise = None if spec["task"].endswith("no noise") else seed
            for step in train_patches(seed, 0, noise, n=spec["n"], epochs=spec["epochs"]):  # noqa: B007 - the last one
                pass
            taken.append(taken_patches(patches(spec["n"])[0].cluster, step.expert))
    return {"taken": taken}


def random_summary(specs, runs):
    from scipy import stats

    out = []
    for (task,), own in grouped(specs, runs, "task").items():
        taken = np.array([one for r in own for one in r["taken"]])
        counts = np.array([np.bincount(column, minlength=E) for column in taken.T])
        chi = [stats.chisquare(row) for row in counts]
        one = {
            "task": task,
            "n": len(taken),
            "counts": counts.tolist(),
            "chi2": [float(c.statistic) for c in chi],
        }
        one["p"] = float(min(1.0, len(chi) * min(c.pvalue for c in chi)))
        one["ways"] = len({tuple(row) for row in taken.tolist()})
        out.append(one)
    return out


def random_rows(summary):
    rows = []
    for c in summary:
        for region, counts, chi2 in zip(REGIONS[c["task"]], c["counts"], c["chi2"], strict=True):
            rows.append([c["task"], region, *counts, f"{chi2:.1f}"])
    return markdown(["", "region", *(f"expert {e + 1}" for e in range(E)), "χ², 7 df"], rows)


def random_verdict(summary):
    usual, without = summary[:-1], summary[-1]
    even = [c for c in usual if c["p"] > 0.01]
    holds = "yes" if len(even) == len(usual) else "partly" if even else "no"
    parts = [
        f"{c['task']}: p = {c['p']:.2g} ({c['ways']} allocations in {c['n']} runs)" for c in usual
    ]
    text = (
        "Against 'every expert is equally likely to take a region', the smallest p of the regions times their number: "
        + "; ".join(parts)
        + ". Experts start alike, so this has to be so; it is a check that nothing in the program prefers one. "
    )
    if without["p"] < 0.01:
        first = max(without["counts"][0])
        text += (
            "Without the routing noise the gate that starts at 0 ties everywhere and the lowest index wins: then it is "
            f"not even at all (p = {without['p']:.1g}; {first} of {without['n']} runs give the first cluster to the "
            "same expert)."
        )
    else:
        text += f"Without the routing noise it is as even (p = {without['p']:.2g})."
    return holds, text


RANDOM = Question(
    "Is the allocation random?",
    "experts specialise in regions at random",
    random_specs,
    random_run,
    random_summary,
    random_rows,
    random_verdict,
)

# --- Does it follow the start of the gate? --------------------------------------------------------

SCALES = {"vowels": (0.05, 0.5, 2.0), "patches": (0.001, 0.01, 0.1)}
KEPT = {"vowels": ("experts", "gate"), "patches": ("experts", "gate", "noise")}


def start_specs(config, quick):
    bases, sizes = (
        (3, {"n": 500, "epochs": 40}) if quick else (config.bases, {"n": 2000, "epochs": 120})
    )
    return [
        {"task": task, "scale": scale, "seed": seed, **sizes}
        for task, scales in SCALES.items()
        for scale in (scales[1:] if quick else scales)
        for seed in range(bases)
    ]


def start_run(spec):
    """One base run, and for each source of chance a run that keeps it and draws the others anew:
    the share of regions that go to the same expert. "nothing" keeps none: what chance alone
    gives.
    """
    names = KEPT[spec["task"]]
    base = dict.fromkeys(names, 1000 + spec["seed"])
    wanted, same = allocation(spec, base), {}
    for i, kept in enumerate((*names, "nothing")):
        fresh = {
            name: base[name] if name == kept else 2000 + 100 * i + spec["seed"] for name in names
        }
        same[kept] = float(np.mean(np.array(wanted) == np.array(allocation(spec, fresh))))
    return same


def allocation(spec, seeds):
    if spec["task"] == "vowels":
        data, run = train_vowels(seeds["experts"], seeds["gate"], spec["scale"])
        return taken_vowels(data, run.params)
    options = {"gate_scale": spec["scale"], "n": spec["n"], "epochs": spec["epochs"]}
    for step in train_patches(seeds["experts"], seeds["gate"], seeds["noise"], **options):  # noqa: B007 - the last one
        pass
    return taken_patches(patches(spec["n"])[0].cluster, step.expert)


def start_summary(specs, runs):
    out = []
    for (task, scale), own in grouped(specs, runs, "task", "scale").items():
        chance = 1 / E
        agree = over(own, *own[0])
        explained = {
            kept: mean_sd([(r[kept] - chance) / (1 - chance) for r in own])[0]
            for kept in own[0]
            if kept != "nothing"
        }
        error = {kept: agree[kept][1] / np.sqrt(len(own)) / (1 - chance) for kept in explained}
        out.append(
            {
                "task": task,
                "scale": scale,
                "n": len(own),
                "agree": agree,
                "explained": explained,
                "se": error,
            }
        )
    return out


def start_rows(summary):
    rows = []
    for c in summary:
        cells = [
            f"{100 * c['explained'][k]:.0f} ± {100 * c['se'][k]:.0f}"
            if k in c["explained"]
            else "–"
            for k in ("experts", "gate", "noise")
        ]
        rows.append([c["task"], f"{c['scale']:g}", *cells, f"{100 * c['agree']['nothing'][0]:.0f}"])
    heads = [
        "",
        "gate's start, scale",
        "% explained by experts' start",
        "by the gate's",
        "by the noise",
    ]
    return markdown([*heads, "% the same with nothing kept"], rows)


def start_verdict(summary):
    follows = [
        c
        for c in summary
        if max(c["explained"], key=c["explained"].get) == "gate" and c["explained"]["gate"] > 0.5
    ]
    holds = "yes" if len(follows) == len(summary) else "partly" if follows else "no"
    parts = []
    for c in summary:
        most = max(c["explained"], key=c["explained"].get)
        least = "" if c["explained"][most] > 0.1 else " (next to nothing)"
        parts.append(
            f"{c['task']}, {c['scale']:g}: {most}, {100 * c['explained'][most]:.0f} %{least}"
        )
    cells = [f"{c['task']} at {c['scale']:g}" for c in follows]
    return holds, (
        "The share of the allocation that is kept when one source of chance is kept and the others are drawn anew "
        "(1 all, 0 as many as by chance). What explains most, by the scale of the gate's start: "
        + "; ".join(parts)
        + ". "
        + (
            f"The gate's start decides (more than half) for {listed(cells)}"
            if cells
            else "The gate's start never decides"
        )
        + (
            "."
            if len(cells) == len(summary)
            else ": it has to be large beside what the experts' start and noise bring in."
        )
    )


START = Question(
    "Does the allocation follow the start of the gate?",
    "which expert takes what depends on the gate's start",
    start_specs,
    start_run,
    start_summary,
    start_rows,
    start_verdict,
)
