"""What happens to a trained mixture when experts are removed, merged and added.

    system                   what is done
    use, loss, random        experts are removed, in three ways (`moe_np.adapt.removing`)
    merged                   the same number is left by merging (`moe_np.adapt.merging`)
    everything               a new domain arrives (Spanish, after English): all parameters are
                             trained on it alone
    new expert and router    an expert is added in each layer, and only it and the router are
                             trained
    new expert alone         the same without the router, but for the new expert's column

The first four train nothing. Experts are looked at on training text, losses are of held-out books.

Criteria, fixed before the runs, all on 95 % intervals of differences paired by seed. Removing by
reconstruction loss is *better than at random* where its loss less that at random lies below 0, for
half of the experts; *merging is better than removing* where merged less loss lies below 0. The new
expert *forgets less* than training everything where the rise of the loss on the old domain, its own
less that of everything, lies below 0; it *learns less* where its loss on the new domain, less that
of everything, lies above 0.
"""

import dataclasses

import numpy as np

from moe_np.adapt import adding, layer_parts, merging, removing
from moe_np.base.params import leaves, map_leaves
from moe_np.data.text import bible
from moe_np.experiments.common import pretrained, small_decoders, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.small_decoders import Sizes
from moe_np.experiments.common.statistics import describe, paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.training import loop

MERGED = "merged"
SMALLER = (*removing.WAYS, MERGED)
EVERYTHING = "everything"
EXPERT_AND_ROUTER = "new expert and router"
EXPERT_ALONE = "new expert alone"
LEARNING = (EVERYTHING, EXPERT_AND_ROUTER, EXPERT_ALONE)
SYSTEMS = (*SMALLER, *LEARNING)

# Lu et al. 2024 (arXiv 2402.14800), as they are cited: points on the average of eight tasks that
# Mixtral 8x7B loses, by the number of 8 experts that are removed by reconstruction loss
PAPER = {"points lost": {2: 2.9, 4: 7.1}}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours: small enough for several seeds."""

    sizes: Sizes = dataclasses.field(default_factory=Sizes)
    removed: tuple[int, ...] = (1, 2, 3, 4, 6)  # how many experts
    looked_at: int = 64  # windows of training text
    further: int = 400  # updates on the new domain
    every: int = 50
    learning_rate: float = 1e-3
    new_tokens: int = 100000  # of the new domain
    seeds: int = 5


OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        small_decoders.SMOKE,
        removed=(1, 2),
        looked_at=4,
        further=2,
        every=2,
        new_tokens=500,
        seeds=1,
    )
}
QUICK = Config(
    small_decoders.QUICK, removed=(2, 4), further=20, every=10, new_tokens=10000, seeds=1
)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(_spec, config, SYSTEMS, seeds=seeds, only=only)


def _spec(config, system, seed):
    facts = {"system": system, "seed": seed, "model": small_decoders.model_spec(config.sizes, seed)}
    names = ("further", "every", "learning_rate", "new_tokens")
    if system in SMALLER:
        names = ("removed", "looked_at")
    return facts | {name: _as_json(getattr(config, name)) for name in names}


def _as_json(value):
    return list(value) if isinstance(value, tuple) else value


def run_one(spec: Spec) -> Result:
    """One system from one seed."""
    model = small_decoders.pretrained_of(spec["model"])
    facts = {"system": spec["system"], "seed": spec["seed"]}
    measure = _smaller if spec["system"] in SMALLER else _learnt
    return {**facts, **measure(spec, model)}


# --- fewer experts --------------------------------------------------------------------------------


def _smaller(spec, model):
    rows = model.train[: spec["looked_at"] * model.length].reshape(-1, model.length)
    losses = {"0": small_decoders.loss_on(*_facts(model), model.validation, model.length)}
    for removed in spec["removed"]:
        keep = model.config.experts - removed
        if spec["system"] == MERGED:
            groups, use = merging.groups_by_use(*_facts(model), rows, keep=keep)
            new = merging.merge_groups(*_facts(model), groups, use)
        else:
            rng = small_decoders.generator(spec["seed"])
            options = {"keep": keep, "by": spec["system"], "ids": rows, "rng": rng}
            new = removing.prune(*_facts(model), **options)
        losses[str(removed)] = small_decoders.loss_on(*new, model.validation, model.length)
    return {"losses": losses}


def _facts(model):
    return model.config, model.params


# --- a new domain ---------------------------------------------------------------------------------


def _learnt(spec, model):
    split = bible.split()
    texts = [bible.running_text(part, "spanish") for part in (split.train, split.validation)]
    train = model.tokeniser.encode(texts[0][: 10 * spec["new_tokens"]])[: spec["new_tokens"]]
    held_out = model.tokeniser.encode(texts[1])[: len(model.validation)]
    config, params = model.config, model.params
    if spec["system"] != EVERYTHING:
        rng = small_decoders.generator(spec["seed"])
        config, params = adding.open_gates(*adding.add(config, params, rng=rng))
    ordinary = small_decoders.ordinary(config)
    masks = _masks(spec["system"], config, params)

    def gradients_of(trained, minibatch, rng):
        losses, grads = ordinary(trained, minibatch, rng)
        return losses, map_leaves(lambda g, mask: g * mask, grads, masks)

    def loss_on(trained, tokens):
        return small_decoders.loss_on(config, trained, tokens, model.length)

    before = small_decoders.loss_on(*_facts(model), model.validation, model.length)
    rate = spec["learning_rate"]
    curve = small_decoders.further(
        params,
        gradients_of,
        small_decoders.windows(model, train),
        lambda trained: loss_on(trained, held_out),
        loop.Options(spec["further"], rate, warmup=10, weight_decay=0.0, seed=spec["seed"]),
        every=spec["every"],
    )
    return {
        "old": [before, loss_on(curve.params, model.validation)],
        "new": [small_decoders.loss_on(*_facts(model), held_out, model.length), *curve.validation],
        "steps": curve.steps,
        "trained": int(sum(np.broadcast_to(m, p.shape).sum() for m, p in _pairs(masks, params))),
    }


def _pairs(masks, params):
    return zip(leaves(masks).values(), leaves(params).values(), strict=True)


def _masks(system, config, params):
    """1 at every number that is trained, 0 at the others, with the structure of the parameters."""
    if system == EVERYTHING:
        return map_leaves(np.ones_like, params)
    masks = map_leaves(np.zeros_like, params)
    for number in layer_parts.sparse_layers(config):
        layer = masks["layers"][number]
        for p in layer["experts"].values():
            p[-1] = 1
        for p in layer["router"].values():
            p[...] = 1
            if system == EXPERT_ALONE:
                p[..., :-1] = 0
    return masks


# --- all ------------------------------------------------------------------------------------------


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (5; 1 if quick): what is written as changing_experts.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        small_decoders.pretrain(sweep, chosen)
        runs = sweep.map(run_one, chosen, "changing experts")
    by_system = system_runs.by_system(runs, SYSTEMS, only)
    return system_runs.result_of(
        "changing_experts",
        config,
        runs,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        differences=differences(by_system, config),
    )


def summarise(runs: list[Result]) -> dict:
    """Means over the seeds of one system."""

    def mean_of(values):
        return describe(values).record("mean", "sd")

    if "losses" in runs[0]:
        counts = runs[0]["losses"]
        return {"losses": {n: mean_of([run["losses"][n] for run in runs]) for n in counts}}
    return {
        "rise of old": mean_of([run["old"][1] - run["old"][0] for run in runs]),
        "new before": mean_of([run["new"][0] for run in runs]),
        "new after": mean_of([run["new"][-1] for run in runs]),
        "trained": runs[0]["trained"],
    }


def differences(by_system: dict[str, list[Result]], config: Config) -> dict:
    """{name: interval of a paired difference}, of the systems that ran."""
    half = config.sizes.experts // 2
    half = str(half if half in config.removed else max(config.removed))
    values = {}
    for system, runs in by_system.items():
        if runs and system in SMALLER:
            values[system] = [run["losses"][half] for run in runs]
        elif runs:
            values[f"old, {system}"] = [run["old"][1] - run["old"][0] for run in runs]
            values[f"new, {system}"] = [run["new"][-1] for run in runs]
    pairs = [("loss", "random"), ("loss", "use"), (MERGED, "loss")]
    for system in (EXPERT_AND_ROUTER, EXPERT_ALONE):
        pairs += [(f"{domain}, {system}", f"{domain}, {EVERYTHING}") for domain in ("old", "new")]
    return {
        f"{ours} less {other}": paired_interval(values[ours], values[other]).record()
        for ours, other in pairs
        if ours in values and other in values
    }
