"""The runs: one decoder, trained on one language or on three domains, and how its experts divide
the tokens of a text that was held out.

Systems:

    one language     English alone, whole
    three domains    English, Spanish and chorales as lines of notes, as many characters of each

Both are the decoder with 8 experts of the experiment `language_model`, two of which take each
token.
"""

import dataclasses
from typing import Any

import numpy as np

from moe_np.experiments.common import pretrained
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.specialisation import contexts, measures, snapshots
from moe_np.experiments.specialisation.domains import DOMAINS
from moe_np.layers import diagnostics

ONE = "one language"
THREE = "three domains"
SYSTEMS = (ONE, THREE)
TEXTS = {ONE: DOMAINS[:1], THREE: DOMAINS}

PAPER: dict[str, Any] = {
    # Jiang et al. 2024 (arXiv 2401.04088), table 5: percent of the tokens whose expert is that of
    # the token before, at layers 0, 15 and 31 of 32; first choice, and first or second choice
    "mixtral": {
        "ArXiv": ((14.0, 27.9, 22.7), (46.5, 62.3, 52.9)),
        "DM Mathematics": ((14.1, 28.4, 19.7), (44.9, 67.0, 44.5)),
        "Github": ((14.9, 28.1, 19.7), (49.9, 66.9, 49.2)),
        "Gutenberg": ((13.9, 26.1, 26.3), (49.5, 63.1, 52.2)),
        "PhilPapers": ((13.6, 25.3, 22.1), (46.9, 61.9, 51.3)),
        "PubMed Abstracts": ((14.2, 24.6, 22.0), (48.6, 61.6, 51.8)),
        "StackExchange": ((13.6, 27.2, 23.6), (48.2, 64.6, 53.6)),
        "Wikipedia (en)": ((14.4, 23.6, 25.3), (49.8, 62.1, 51.8)),
    },
    # Muennighoff et al. 2024 (arXiv 2409.02060), section 5.1: 8 of 64 experts
    "olmoe saturation": {"share of training": (0.01, 0.4), "percent, at most": (60, 80)},
    # Shazeer et al. 2017 (arXiv 1701.06538), table 9: the first contexts of its three experts
    "shazeer": {
        381: ("with researchers ,", "to innovation .", "tics researchers ."),
        752: ("plays a core", "plays a critical", "provides a legislative"),
        2004: ("with rapidly growing", "under static conditions", "to swift ly"),
    },
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours; the model is that of the experiment `language_model`."""

    d_model: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    hidden: int = 128  # of an expert
    experts: int = 8
    vocabulary: int = 1000
    length: int = 128
    batch: int = 16
    updates: int = 2000
    checkpoint_every: int = 100
    learning_rate: float = 3e-3
    books: tuple[str, ...] = ()  # of the Bible to train on; () for all that are not held out
    characters: int = 1_200_000  # of each of the three domains
    measured: int = 16_384  # held-out tokens of all domains together
    minimum: int = 20  # occurrences of a token in what is reported of tokens
    top: int = 8  # tokens per expert
    seeds: int = 5


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    model = pretrained.spec_of(
        "mixtral",
        updates=config.updates,
        seed=seed,
        checkpoint_every=config.checkpoint_every,
        books=config.books,
        d_model=config.d_model,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        d_head=config.d_model // config.heads,
        hidden=config.hidden,
        experts=config.experts,
        vocabulary=config.vocabulary,
        length=config.length,
        batch=config.batch,
        learning_rate=config.learning_rate,
        validation_tokens=config.measured,
    )
    model["domains"] = list(TEXTS[system])
    model["characters"] = config.characters if system == THREE else None
    model["measured"] = config.measured
    limits = {"minimum": config.minimum, "top": config.top}
    return {"system": system, "seed": seed, "model": model, **limits}


def run_one(spec: Spec) -> Result:
    """Train the model of a spec and measure the routings of its held-out texts."""
    rng = np.random.default_rng([spec["seed"], 2])
    trained = snapshots.trained(spec["model"])
    run = trained.run
    by_domain = {
        name: snapshots.routings_of(trained.params, run.config, tokens, length=run.settings.length)
        for name, tokens in trained.texts.items()
    }
    whole = measures.joined(list(by_domain.values()))
    E = run.config.experts

    def text_of(token):
        return shown(run.tokeniser.decode([token]))

    in_domains = None
    if len(by_domain) > 1:
        in_domains = measures.domain_measures(by_domain, run.config, rng)
    _, validations = pretrained.metrics(run)
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "loss": validations[-1]["validation_loss"],
        "load_cv": [diagnostics.cv(np.bincount(c.ravel(), minlength=E)) for c in whole.choice],
        "repetition": {name: measures.repetition(r, E, rng) for name, r in by_domain.items()},
        "saturation": measures.saturation(trained, E, rng),
        "checkpoints": measures.over_checkpoints(trained, run.config, rng, minimum=spec["minimum"]),
        "co_activation": [measures.co_activation(choice, E, rng) for choice in whole.choice],
        "vocabulary": measures.vocabulary(whole, run.config, rng, minimum=spec["minimum"]),
        "top_tokens": measures.top_tokens(
            whole, run.config, text_of, rng, minimum=spec["minimum"], n=spec["top"]
        ),
        "contexts": contexts.compared(next(iter(by_domain.values())), E, text_of, rng),
        "domains": in_domains,
    }


def shown(text: str) -> str:
    """The text of a token, with signs for blanks and ends of lines."""
    return text.replace(" ", "·").replace("\n", "¶")


# --- over seeds -----------------------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system: of each measure a value per layer."""
    return {
        **averaged([numbers_of(run) for run in runs]),
        "steps": runs[0]["saturation"]["steps"],
    }


def numbers_of(run: Result) -> Result:
    """What of a run can be averaged over seeds: experts have no order, so no single expert's."""
    names = ("loss", "load_cv", "repetition", "co_activation", "vocabulary")
    top = [{n: layer[n] for n in ("share", "permuted")} for layer in run["top_tokens"]["layers"]]
    out = {
        **{name: run[name] for name in names},
        "saturation": run["saturation"]["values"],
        "saturation by chance": run["saturation"]["permuted"],
        "checkpoints": {n: rows for n, rows in run["checkpoints"].items() if n != "steps"},
        "top_tokens": top,
        "uniformity": run["contexts"]["uniformity"],
    }
    if run["domains"]:
        out["domains"] = [
            {n: layer[n] for n in ("value", "permuted", "by_words")} for layer in run["domains"]
        ]
    return out


def averaged(trees: list[Any]) -> Any:
    """Dicts and lists of one structure -> the same with mean and deviation of each number."""
    if isinstance(trees[0], dict):
        return {name: averaged([tree[name] for tree in trees]) for name in trees[0]}
    if isinstance(trees[0], list):
        return [averaged(list(parts)) for parts in zip(*trees, strict=True)]
    return describe(trees).record("mean", "sd")
