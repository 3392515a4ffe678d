"""The router zoo: every router on one task, from the same seeds. Who remembers most, and how evenly
are experts used?

The task is an associative memory (moe_np/models/associative_memory.py): 8,192 Gaussian keys, 64
values, 32 experts too small to hold them with ease. It is our own, so there is no publication to
compare with; `PAPER` holds what an earlier program of ours found on the same task. Quality is the
perplexity of the stored keys, 64 at the start and 1 at best.

`GATES` lists the routers with the balance losses of their papers. A new router is one more line.
"""

import dataclasses
import functools
import time
import types

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.experiments.common.sweep import one_blas_thread, versions
from moe_np.layers import balance, soft_moe
from moe_np.layers.experts import RELU
from moe_np.models import associative_memory
from moe_np.models.associative_memory import Gate, importance, load, on_logits, reinforce, threshold
from moe_np.routing import (
    base_assignment,
    bias_balanced,
    dense,
    expert_choice,
    gradient_estimators,
    gshard,
    hashing,
    hierarchical,
    kmeans,
    noisy_top_k,
    st_moe,
    strictly_balanced,
    switch,
    top_k,
    top_p,
)
from moe_np.routing.contract import Routing


@dataclasses.dataclass(frozen=True)
class Config:
    """Our own choices; the first five are the earlier program's. One step size for all routers."""

    n_keys: int = 8192
    d_model: int = 32
    n_values: int = 64
    n_experts: int = 32
    hidden: int = 16  # of an expert
    batch: int = 512
    epochs: int = 12
    lr: float = 0.04  # Adam; falls to 0
    factors: tuple = (1.0, 1.25, 2.0)  # capacity factors at which the Switch gates are measured


SEEDS = 4
GROUP = 64  # tokens of a sequence of the soft mixture, and of a group of BASE

# Not published. An earlier program on this task: perplexity, CV of the load in a batch, and the
# percentage of tokens that Switch drops at capacity factors 1, 1.25 and 2.
PAPER = {
    "earlier": {
        "Switch, α = .1": (4.95, 0.27),
        "top-2, Switch loss": (5.35, 0.38),
        "expert choice": (4.25, 0.0),
        "BASE": (9.0, None),
        "hash": (3.55, 0.24),
        "k-means": (4.1, 0.25),
    },
    "earlier drops": (15, 5.5, 0.1),
}

# --- what is a router of routers, or no router ----------------------------------------------------


def in_groups(router, size):
    """The same router on each `size` tokens by themselves, as GShard's groups and BASE's workers
    have it.
    """

    def route(params, x, *, rng=None, **options):
        parts = [
            router.route(params, x[i : i + size], rng=rng, **options)
            for i in range(0, max(len(x), 1), size)
        ]
        shifted = [r._replace(token=r.token + i * size) for i, (r, _) in enumerate(parts)]
        return Routing(*(np.concatenate(field) for field in zip(*shifted, strict=True))), parts

    def route_backward(dweight, dlogits, cache):
        ends = np.cumsum([len(r.token) for r, _ in cache])[:-1]
        dlogits = (
            [None] * len(cache)
            if dlogits is None
            else np.split(dlogits, range(size, len(dlogits), size))
        )
        split = zip(np.split(dweight, ends), dlogits, cache, strict=True)
        parts = [router.route_backward(dw, dl, own) for dw, dl, (_, own) in split]
        return np.concatenate([dx for dx, _ in parts]), {
            k: sum(g[k] for _, g in parts) for k in parts[0][1]
        }

    return types.SimpleNamespace(init=router.init, route=route, route_backward=route_backward)


def soft_step(gate, params, state, x, y, ids, *, lr, rng):
    """`memory_moe.train_step` for the soft mixture, on sequences of GROUP tokens that chance has
    put together.
    """
    N, D = x.shape
    out, cache = soft_moe.soft_moe_forward(
        params["router"], params["experts"], x.reshape(-1, GROUP, D), RELU
    )
    token_loss, values_cache = associative_memory.values_forward(
        params["values"], x + out.reshape(N, D), y
    )
    dh, dvalues = associative_memory.values_backward(np.full(N, 1 / N, x.dtype), values_cache)
    _, drouter, dexperts = soft_moe.soft_moe_backward(dh.reshape(-1, GROUP, D), cache)
    params, state = associative_memory.update(
        params, {"router": drouter, "experts": dexperts, "values": dvalues}, state, lr
    )
    return associative_memory.Step(params, state, float(token_loss.mean()), 0.0, None)


def soft_predict(gate, params, x, ids, *, rng=None):
    out, _ = soft_moe.soft_moe_forward(
        params["router"], params["experts"], x.reshape(-1, GROUP, x.shape[1]), RELU
    )
    return x + out.reshape(x.shape), None


# --- the routers ----------------------------------------------------------------------------------


def hash_options(ids, n_experts):
    return {"ids": ids, "n_experts": n_experts}


def hash_table(rng, keys, n_experts):
    return hashing.init(rng, keys.shape[1], n_experts, vocabulary=len(keys))


def centroids(rng, keys, n_experts):
    return kmeans.fit(rng, keys, n_experts, rounds=20)[0]


def soft_init(rng, keys, n_experts):
    """As many slots as a top-2 gate has assignments."""
    return soft_moe.init(rng, keys.shape[1], n_experts, -(-2 * GROUP // n_experts))


TOP_2 = {"k": 2, "renormalise": True}
SWITCH = on_logits(balance.switch)
GSHARD = on_logits(balance.gshard, lambda n_experts: n_experts**2)  # 1 at balance, as Switch's

GATES = {
    "dense net, same active size": Gate(dense, n_experts=1, hidden=32),
    "dense net, same total size": Gate(dense, n_experts=1, hidden=512),
    "top-2, no loss": Gate(top_k, TOP_2),
    "top-2, Switch loss": Gate(top_k, TOP_2, losses=((0.01, SWITCH),)),
    "noisy top-2": Gate(  # starts as the others do; at zero, as in appendix A, it loses the first passes
        noisy_top_k,
        {"k": 2, "noise_epsilon": 1e-2},
        losses=((0.1, importance), (0.1, load)),
        start={"scale": 1.0},
    ),
    "Switch, α = .01": Gate(switch, {"capacity_factor": 1.25}, losses=((0.01, SWITCH),)),
    "Switch, α = .1": Gate(switch, {"capacity_factor": 1.25}, losses=((0.1, SWITCH),)),
    "GShard": Gate(gshard, losses=((0.01, GSHARD),)),
    "ST-MoE": Gate(st_moe, losses=((0.01, GSHARD), (1e-3, on_logits(balance.z_loss)))),
    "strictly balanced": Gate(
        strictly_balanced,
        {"k": 2, "training": True},
        {"k": 2, "training": False},
        ((1.0, threshold),),
    ),
    "expert choice": Gate(expert_choice, {"capacity_factor": 2.0}),
    "hash": Gate(hashing, hash_options, prepare=hash_table),
    "k-means": Gate(kmeans, {"k": 1, "weights": "one"}, prepare=centroids),
    "BASE": Gate(in_groups(base_assignment, GROUP), {"training": True}, {"training": False}),
    "top-p": Gate(
        top_p, {"p": 0.4}, losses=((0.01, SWITCH), (1e-4, on_logits(balance.token_entropy)))
    ),
    "bias-balanced": Gate(bias_balanced, TOP_2, after=bias_balanced.update_bias),
    "straight-through": Gate(
        gradient_estimators, {"estimator": "straight_through"}, losses=((0.01, SWITCH),)
    ),
    "REINFORCE": Gate(
        gradient_estimators, {"estimator": "reinforce"}, losses=((1.0, reinforce), (0.01, SWITCH))
    ),
    "hierarchical": Gate(
        hierarchical,
        {"k_primary": 1, "k_secondary": 2, "renormalise": False},
        losses=((0.1, importance),),
        start={"groups": 8},
    ),
    "soft mixture": Gate(soft_moe, prepare=soft_init, step=soft_step, predict=soft_predict),
}
WITH_CAPACITY = ("Switch, α = .01", "Switch, α = .1")

# --- one run --------------------------------------------------------------------------------------


def setup(spec):
    """The gate, the task and the start of a spec. Seeds give the same task and the same minibatches
    to all routers.
    """
    gate = GATES[choice("system", spec["system"], GATES)]
    task, start, steps = (np.random.default_rng([spec["seed"], i]) for i in range(3))
    keys, labels = associative_memory.associations(
        task, spec["n_keys"], spec["d_model"], spec["n_values"]
    )
    params = associative_memory.init(
        start, gate, keys, spec["n_values"], n_experts=spec["n_experts"], hidden=spec["hidden"]
    )
    return gate, keys, labels, params, steps


def run_one(spec):
    """Train one router from one seed; perplexity of the stored keys and how the experts are used,
    in evaluation.
    """
    gate, keys, labels, params, rng = setup(spec)
    options = {name: spec[name] for name in ("epochs", "batch", "lr")}
    for step in associative_memory.train(gate, params, keys, labels, rng=rng, **options):
        params = step.params
    look = functools.partial(
        associative_memory.measure, gate, params, keys, labels, batch=spec["batch"]
    )
    found = look()
    if gate.test is not None:
        found["as trained"] = look(**gate.train)["perplexity"]
    if spec["system"] in WITH_CAPACITY:
        found["drops"] = [look(capacity_factor=factor) for factor in spec["factors"]]
    return found


def spec_of(config, system, seed):
    """What determines a run, as JSON-able data."""
    return {
        "system": system,
        **dataclasses.asdict(config),
        "factors": list(config.factors),
        "seed": seed,
    }


def step_times(config, *, rounds=5, each=4):
    """Milliseconds of a training step of each system, on one thread: {system: ms}, the least of
    `rounds` in turn.
    """
    running, least = {}, dict.fromkeys(GATES, np.inf)
    epochs = 1 + (rounds + 1) * each // (config.n_keys // config.batch)
    for system in GATES:
        gate, keys, labels, params, rng = setup(spec_of(config, system, 0))
        steps = associative_memory.train(
            gate, params, keys, labels, epochs=epochs, batch=config.batch, lr=config.lr, rng=rng
        )
        running[system] = steps
    with one_blas_thread():
        for turn in range(rounds + 1):
            for system, steps in running.items():
                start = time.perf_counter()
                for _ in range(each):
                    next(steps)
                if turn:  # the first turn may compile
                    least[system] = min(least[system], 1e3 * (time.perf_counter() - start) / each)
    return least


# --- the experiment -------------------------------------------------------------------------------


def plan(config=None, *, seeds=None, quick=False):
    """config, seeds and all specs of `run`; quick: one seed and one pass over the keys."""
    config = Config() if config is None else config
    if quick:
        config = dataclasses.replace(config, epochs=1)
    seeds = (1 if quick else SEEDS) if seeds is None else integer("seeds", seeds)
    return (
        config,
        seeds,
        [spec_of(config, system, seed) for system in GATES for seed in range(seeds)],
    )


def run(config=None, *, seeds=None, sweep, quick=False):
    """Every system, `seeds` runs each, and the time of a step: the dict that is written as
    router_zoo.json.

    All but `milliseconds` is the same on every call. Seed s is the same run however many seeds are
    asked for.
    """
    config, seeds, specs = plan(config, seeds=seeds, quick=quick)
    runs = sweep.map(run_one, specs, "router zoo")
    systems = {system: runs[i * seeds : (i + 1) * seeds] for i, system in enumerate(GATES)}
    return {
        "name": "router_zoo",
        "config": dataclasses.asdict(config),
        "seeds": list(range(seeds)),
        "systems": systems,
        "summary": {system: summarise(own) for system, own in systems.items()},
        "milliseconds": step_times(config, rounds=1, each=1) if quick else step_times(config),
        "paper": PAPER,
        "versions": versions(),
    }


def summarise(runs):
    """{name: {"mean", "sd"}} of what the runs of a system gave, n − 1 in the deviation; lists item
    by item.
    """
    first, out = runs[0], {}
    for name, value in first.items():
        if isinstance(value, list):
            out[name] = [summarise([one[name][i] for one in runs]) for i in range(len(value))]
        else:
            values = np.array([one[name] for one in runs])
            out[name] = {
                "mean": float(values.mean()),
                "sd": float(values.std(ddof=1)) if len(runs) > 1 else 0.0,
            }
    return out


# --- reporting ------------------------------------------------------------------------------------


def by_chance(config, k):
    """The CV of the load in a batch if every token chose k experts at random: counts are binomial."""
    p = k / config["n_experts"]
    return float(np.sqrt((1 - p) / (p * config["batch"])))


def pm(found, digits=2, times=1):
    return f"{times * found['mean']:.{digits}f} ± {times * found['sd']:.{digits}f}"


def table(result):
    """All systems, best first, with what the earlier program found; Switch's drops; what was seen.
    Markdown.
    """
    n, earlier = len(result["seeds"]), result["paper"]["earlier"]
    lines = [
        f"Mean ± SD over {n} seed{'s' if n > 1 else ''}; in brackets what an earlier program found.\n",
        "| router | perplexity | CV of a batch | max/mean | dropped % | no expert % | experts a token | ms a step |",
        "|---" * 8 + "|",
    ]
    for system, one in sorted(
        result["summary"].items(), key=lambda item: item[1]["perplexity"]["mean"]
    ):
        seen = earlier.get(system, (None, None))
        cells = [pm(one["perplexity"]) + ("" if seen[0] is None else f" ({seen[0]:g})")]
        if "cv" in one:
            cells += [
                pm(one["cv"]) + ("" if seen[1] is None else f" ({seen[1]:g})"),
                f"{one['max_mean']['mean']:.2f}",
            ]
            cells += [f"{100 * one[name]['mean']:.1f}" for name in ("dropped", "unserved")]
            cells += [f"{one['experts']['mean']:.2f}"]
        else:
            cells += ["–"] * 5
        lines.append(f"| {system} | {' | '.join(cells)} | {result['milliseconds'][system]:.2f} |")
    return "\n".join([*lines, "", drops_table(result), "", remarks(result)])


def drops_table(result):
    factors = result["config"]["factors"]
    theirs = " | ".join(f"{v:g}" for v in result["paper"]["earlier drops"])
    lines = [
        "Tokens that the trained Switch gates drop, in percent, and the perplexity at that capacity factor:\n",
        "| | " + " | ".join(f"factor {f:g}" for f in factors) + " |",
        "|---" * (len(factors) + 1) + "|",
    ]
    for system in WITH_CAPACITY:
        cells = [
            f"{pm(c['dropped'], 1, 100)}, {c['perplexity']['mean']:.2f}"
            for c in result["summary"][system]["drops"]
        ]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, f"| the earlier program | {theirs} |"])


def remarks(result):
    """What was seen, and how it differs from the earlier program, from the numbers of this very
    run. Markdown.
    """
    config = result["config"]
    ours = {system: f"{one['perplexity']['mean']:.1f}" for system, one in result["summary"].items()}
    trained = {
        k: f"{one['as trained']['mean']:.1f}"
        for k, one in result["summary"].items()
        if "as trained" in one
    }
    return (
        f"**What is measured.** Perplexity of the stored keys themselves after {config['epochs']} passes: labels are "
        f"random, so there is nothing to test on, and for a key never seen {config['n_values']} is the best there is. "
        "All systems have the same keys, labels, minibatches and step size, and the balance losses of their papers, or "
        "Switch's where those have none; GShard's is taken times E², so that it is 1 at balance. CV and max/mean are "
        "of what tokens asked for in "
        f"batches of {config['batch']}. Choosing by chance gives a CV of {by_chance(config, 1):.2f} with one expert a "
        f"token and {by_chance(config, 2):.2f} with two: a gate that looks at one token alone cannot do much better. "
        "Milliseconds are of one thread.\n\n"
        f"**Quality.** {ours['top-2, Switch loss']} for top-2, {ours['dense net, same active size']} for a dense net "
        f"that computes as much for a token, {ours['dense net, same total size']} for one with as many parameters, "
        "which does sixteen times the work. After so few passes this is speed of learning as much as room: trained "
        "several times as long, the large dense net is no worse than top-2 (`Config.epochs`). "
        f"A hash, which learns nothing, gets {ours['hash']}: the task is pure memory, and a key that never changes its "
        "expert is never forgotten. Gates that send a key elsewhere each time it comes up pay for it, be it by noise "
        f"(noisy top-2 {ours['noisy top-2']}, REINFORCE {ours['REINFORCE']}, straight-through "
        f"{ours['straight-through']}) or because the choice depends on the other keys of the group (BASE "
        f"{ours['BASE']} with the greedy choice, {trained['BASE']} with the balanced one it was trained with). Expert "
        f"choice ({ours['expert choice']}) and strictly balanced ({ours['strictly balanced']} with thresholds, "
        f"{trained['strictly balanced']} with the batch's mask) look at the whole batch too and do not suffer. The "
        f"soft mixture ({ours['soft mixture']}) does not fit: its slots are averages over a sequence, and what stands "
        "beside a key in a minibatch is chance.\n\n"
        f"**Balance.** On these centred keys a balance loss buys little: top-2 {ours['top-2, no loss']} without and "
        f"{ours['top-2, Switch loss']} with it. Where keys have something in common it is another story: `shazeer2017`."
        "\n\n" + beside_earlier(result)
    )


def beside_earlier(result):
    """How far the earlier program's numbers agree with these."""
    from scipy.stats import spearmanr

    earlier, summary = result["paper"]["earlier"], result["summary"]
    ours = [summary[system]["perplexity"]["mean"] for system in earlier]
    rank = spearmanr(ours, [perplexity for perplexity, _ in earlier.values()]).statistic
    off = [
        abs(summary[system]["cv"]["mean"] - cv)
        for system, (_, cv) in earlier.items()
        if cv is not None
    ]
    return (
        f"**Beside the earlier program.** The order of the {len(earlier)} routers agrees to a rank correlation of "
        f"{rank:.2f}, the CVs to {max(off):.2f}. The perplexities do not compare: its length of training and step "
        "sizes were not kept. Known differences: Switch is trained here at a capacity factor of 1.25 and drops tokens "
        f"while it learns; BASE assigns groups of {GROUP} keys, for time, and larger groups change a key's company "
        "less."
    )
