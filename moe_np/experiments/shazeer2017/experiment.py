"""The balance losses of noisy top-k gating, switched on and off: Shazeer et al. 2017 (arXiv
1701.06538), appendix A.

Table 6 gives, for six pairs (w_importance, w_load), the test perplexity of a language model with
256 experts and how evenly it used them. Here the same six pairs train the same gate on an
associative memory (moe_np/models/associative_memory.py), in seconds. What can carry over is the
balance. The perplexity column belongs to the language model, which is not reproduced; ours is that
of the stored keys.

A gate collapses when its inputs have something in common, as the activations of a trained net do: a
step that makes an expert a little better for one token then draws most other tokens to it as well.
Gaussian keys have nothing in common, so `Config.common` adds one vector to all of them; the case
without it is run too, for comparison.
"""

import dataclasses

import numpy as np

from moe_np.base.checks import integer
from moe_np.experiments.common.sweep import versions
from moe_np.layers import diagnostics
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Gate, importance, load
from moe_np.routing import noisy_top_k


@dataclasses.dataclass(frozen=True)
class Config:
    weights: tuple = (
        (0, 0),
        (0.2, 0),
        (0, 0.2),
        (0.1, 0.1),
        (0.01, 0.01),
        (1, 1),
    )  # Table 6: w_importance, w_load
    centred: tuple = ((0, 0), (0.1, 0.1))  # ours: the pairs that are run with common = 0 as well
    k: int = 2  # ours; the paper's MoE-256 has 4 of 256
    n_experts: int = 32  # ours, and so is all below
    noise_epsilon: float = 1e-2  # the authors' code; the paper has 0
    common: float = 2.0  # length of what all keys share; their own part has length √D = 5.7
    n_keys: int = 8192
    d_model: int = 32
    n_values: int = 64
    hidden: int = 16
    batch: int = 512
    epochs: int = 16
    lr: float = 0.04


SEEDS = 2

PAPER = {
    "table6": [  # w_importance, w_load, test perplexity, CV(Importance), CV(Load), max/mean of the load
        (0, 0, 39.8, 3.04, 3.01, 17.80),
        (0.2, 0, 35.6, 0.06, 0.17, 1.47),
        (0, 0.2, 35.7, 0.22, 0.04, 1.15),
        (0.1, 0.1, 35.6, 0.06, 0.05, 1.14),
        (0.01, 0.01, 35.7, 0.48, 0.11, 1.37),
        (1, 1, 35.7, 0.03, 0.02, 1.07),
    ]
}

# --- one run --------------------------------------------------------------------------------------


def gate_of(spec):
    """The noisy gate with those of the two losses that have a weight. It starts at zero, as in
    appendix A.
    """
    losses = tuple(
        (w, loss) for w, loss in zip(spec["weights"], (importance, load), strict=True) if w
    )
    return Gate(
        noisy_top_k, {"k": spec["k"], "noise_epsilon": spec["noise_epsilon"]}, losses=losses
    )


def balance(gate, params, keys, rng):
    """CV(Importance), CV(Load), max/mean of the load over all keys as one batch; `rng` is the
    noise, None without.

    With noise the load is the expected one of eq. (10), without it a count. One large batch,
    because counts of a small one are uneven by chance alone.
    """
    routing, cache = noisy_top_k.route(params["router"], keys, **gate.train, rng=rng)
    loads, _ = noisy_top_k.load_forward(cache)
    return {
        "cv_importance": diagnostics.cv(diagnostics.importance(routing)),
        "cv_load": diagnostics.cv(loads),
        "max_mean": diagnostics.max_over_mean(loads),
    }


def run_one(spec):
    """Train with one pair of weights from one seed; perplexity of the stored keys and balance,
    noise on and off.
    """
    gate, sizes = gate_of(spec), (spec["n_keys"], spec["d_model"], spec["n_values"])
    task, start, steps, noise = (np.random.default_rng([spec["seed"], i]) for i in range(4))
    keys, labels = associative_memory.associations(task, *sizes, common=spec["common"])
    params = associative_memory.init(
        start, gate, keys, spec["n_values"], n_experts=spec["n_experts"], hidden=spec["hidden"]
    )
    options = {name: spec[name] for name in ("epochs", "batch", "lr")}
    for step in associative_memory.train(gate, params, keys, labels, rng=steps, **options):
        params = step.params
    found = {}
    for name, rng in (("without noise", None), ("with noise", noise)):
        quality = associative_memory.measure(
            gate, params, keys, labels, batch=spec["batch"], rng=rng
        )
        found[name] = {"perplexity": quality["perplexity"], **balance(gate, params, keys, rng)}
    return found


def spec_of(config, weights, common, seed):
    """What determines a run, as JSON-able data."""
    own = dataclasses.asdict(config)
    del own["centred"]
    return {**own, "weights": list(weights), "common": common, "seed": seed}


# --- the experiment -------------------------------------------------------------------------------


def plan(config=None, *, seeds=None, quick=False):
    """config, the cases (weights, common), seeds and all specs of `run`; quick: one seed and one
    pass.
    """
    config = Config() if config is None else config
    if quick:
        config = dataclasses.replace(config, epochs=1)
    seeds = (1 if quick else SEEDS) if seeds is None else integer("seeds", seeds)
    cases = [(w, config.common) for w in config.weights] + [(w, 0.0) for w in config.centred]
    return (
        config,
        cases,
        seeds,
        [spec_of(config, *case, seed) for case in cases for seed in range(seeds)],
    )


def run(config=None, *, seeds=None, sweep, quick=False):
    """All pairs of weights, `seeds` runs each: the dict that is written as shazeer2017.json."""
    config, cases, seeds, specs = plan(config, seeds=seeds, quick=quick)
    runs = sweep.map(run_one, specs, "balance losses")
    rows = []
    for i, (weights, common) in enumerate(cases):
        own = runs[i * seeds : (i + 1) * seeds]
        rows.append(
            {"weights": list(weights), "common": common, "runs": own, "summary": summarise(own)}
        )
    return {
        "name": "shazeer2017",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seeds)),
        "rows": rows,
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs):
    """{"with noise" or "without noise": {name: {"mean", "sd"}}}, n − 1 in the deviation."""
    out = {}
    for noise, names in runs[0].items():
        out[noise] = {}
        for name in names:
            values = np.array([one[noise][name] for one in runs])
            sd = float(values.std(ddof=1)) if len(runs) > 1 else 0.0
            out[noise][name] = {"mean": float(values.mean()), "sd": sd}
    return out


# --- reporting ------------------------------------------------------------------------------------

COLUMNS = ("perplexity", "cv_importance", "cv_load", "max_mean")


def cells(found):
    digits = (1, 2, 2, 2)
    means = [f"{found[name]['mean']:.{d}f}" for name, d in zip(COLUMNS, digits, strict=True)]
    means[0] += f" ± {found['perplexity']['sd']:.1f}"
    return means


def table(result):
    """Table 6 with ours beside it, with noise and without, then the case without a common part.
    Markdown.
    """
    n, config = len(result["seeds"]), result["config"]
    published = {tuple(row[:2]): row[2:] for row in result["paper"]["table6"]}
    shared = [row for row in result["rows"] if row["common"]]
    head = "| w_imp, w_load | perplexity | CV(Imp) | CV(Load) | max/mean |"
    lines = [
        f"Keys with a common part of length {config['common']:g}; mean over {n} seed{'s' if n > 1 else ''}, with the "
        "SD for the perplexity. Each cell: published / ours with noise / ours without noise.\n",
        head,
        "|---" * 5 + "|",
    ]
    for row in shared:
        theirs = published.get(tuple(row["weights"]), ("–",) * 4)
        ours = [cells(row["summary"][noise]) for noise in ("with noise", "without noise")]
        joined = [f"{p} / {a} / {b}" for p, a, b in zip(theirs, *ours, strict=True)]
        lines.append(f"| {pair(row)} | " + " | ".join(joined) + " |")
    lines += [
        "",
        "Keys without anything in common: ours with noise / without noise.\n",
        head,
        "|---" * 5 + "|",
    ]
    for row in result["rows"]:
        if not row["common"]:
            ours = [cells(row["summary"][noise]) for noise in ("with noise", "without noise")]
            lines.append(
                f"| {pair(row)} | "
                + " | ".join(f"{a} / {b}" for a, b in zip(*ours, strict=True))
                + " |"
            )
    return "\n".join([*lines, "", remarks(result)])


def pair(row):
    return ", ".join(f"{w:g}" for w in row["weights"])


def remarks(result):
    """What carries over and what does not, from the numbers of this very run. Markdown."""
    config, rows = (
        result["config"],
        {(tuple(r["weights"]), r["common"] > 0): r["summary"] for r in result["rows"]},
    )

    def of(weights, column="perplexity", noise="without noise", shared=True):
        return rows[weights, shared][noise][column]["mean"]

    pairs = [tuple(w) for w in config["weights"]]
    none, mild, strong = (0, 0), [w for w in pairs if 0 < sum(w) < 1], (1, 1)
    quality, even = [of(w) for w in mild], [of(w, "cv_load") for w in mild]
    alone = [
        f"{of(w, 'cv_importance'):.2f} and {of(w, 'cv_load'):.2f}" for w in ((0.2, 0), (0, 0.2))
    ]
    ceiling = config["n_experts"] / config["k"]
    noisy = "with noise"
    return (
        f"**What carries over.** Without a loss the gate favours few experts: CV(Load) {of(none, 'cv_load'):.2f}, "
        f"max/mean {of(none, 'max_mean'):.1f} (with all tokens on the same {config['k']} experts these would be "
        f"{(ceiling - 1) ** 0.5:.2f} and {ceiling:g}). Losses with weights up to .2 bring CV(Load) down to "
        f"{min(even):.2f} to {max(even):.2f}, and .01 less than .1, as in the paper. No loss is worse, and these "
        f"losses are much alike: perplexity {of(none):.1f} against {min(quality):.1f} to {max(quality):.1f}. In the "
        "paper each of the two losses alone is ahead on its own column; here CV(Importance) and CV(Load) are "
        f"{alone[0]} with importance alone, {alone[1]} with load alone.\n\n"
        f"**What does not.** The perplexities themselves: {result['paper']['table6'][0][2]} and "
        f"{result['paper']['table6'][1][2]} belong to a language model that is not reproduced. Weights of 1 hurt here "
        f"({of(strong):.1f}) and not there: how strong a weight is depends on the task's gradient beside it. And the "
        "common part is a condition: without it the gate does not collapse (CV(Load) "
        f"{of(none, 'cv_load', shared=False):.2f}), and a loss changes little, perplexity "
        f"{of(none, shared=False):.1f} without and {of((0.1, 0.1), shared=False):.1f} with it.\n\n"
        "**Noise makes loads even by itself.** Drawn anew for each token, it spreads them whatever the gate has "
        "learned. "
        f"With weights of 1 CV(Load) is {of(strong, 'cv_load', noisy):.2f} with noise and {of(strong, 'cv_load'):.2f} "
        "without it: the losses were met by noise, not by the gate. With .1 each it is "
        f"{of((0.1, 0.1), 'cv_load', noisy):.2f} and {of((0.1, 0.1), 'cv_load'):.2f}: there the gate has learned it. "
        "Whoever quotes a CV should say whether the noise was on."
    )
