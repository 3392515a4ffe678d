"""What is measured of the routings of a text, layer by layer, each with its value by chance.

The measures themselves are in `moe_np.layers.specialisation`.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np

from moe_np.base.types import Rng
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.specialisation.snapshots import Routings, Trained
from moe_np.layers import specialisation
from moe_np.models.decoder_config import Config

LABELS = ("input", "next", "predicted")  # what vocabulary specialisation is of


def joined(parts: list[Routings]) -> Routings:
    """The routings of several texts, one after the other."""
    ids, following, predicted = (np.concatenate([part[i] for part in parts]) for i in range(3))
    choice = np.concatenate([part.choice for part in parts], axis=1)
    weight = np.concatenate([part.weight for part in parts], axis=1)
    return Routings(ids, following, predicted, choice, weight)


def repetition(routings: Routings, n_experts: int, rng: Rng) -> Result:
    """Mixtral's table 5: of the first choice, and of the first or second."""

    def of(width):
        return [
            specialisation.repetition(choice[:, :width], n_experts, rng, ids=routings.ids)._asdict()
            for choice in routings.choice
        ]

    return {"first": of(1), "first or second": of(routings.choice.shape[2])}


def saturation(trained: Trained, n_experts: int, rng: Rng) -> Result:
    """OLMoE's equation 5 at each checkpoint, a value per layer, and at the last one by chance."""
    names = list(trained.texts)
    choices = {
        step: np.concatenate([of_domain[name] for name in names], axis=1)
        for step, of_domain in trained.choices.items()
    }
    last = choices[max(choices)]
    rows = [
        [
            specialisation.saturation(earlier, final, n_experts, rng, permutations=3)
            for earlier, final in zip(choice, last, strict=True)
        ]
        for choice in choices.values()
    ]
    return {
        "steps": list(choices),
        "values": [[measure.value for measure in row] for row in rows],
        "permuted": [measure.permuted for measure in rows[-1]],
    }


def co_activation(choice: Annotated[np.ndarray, "N, k"], n_experts: int, rng: Rng) -> Result:
    """OLMoE's equation 6: each expert's commonest partner, on average, and by chance."""

    def strongest(choice):
        together = specialisation.co_activation(choice, n_experts)
        np.fill_diagonal(together, 0)
        return float(together.max(axis=1).mean())

    mixed = specialisation.independent(choice, rng)
    return {"value": strongest(choice), "permuted": strongest(mixed)}


def over_checkpoints(trained: Trained, config: Config, rng: Rng, *, minimum: int) -> Result:
    """Co-activation, vocabulary and domain specialisation (where there are several domains) at each
    checkpoint: {"steps": [...], name: a row of measures, one per layer, for each checkpoint}.
    """
    texts = list(trained.texts.values())
    labels = {
        "input token": np.concatenate([tokens[:-1] for tokens in texts]),
        "next token": np.concatenate([tokens[1:] for tokens in texts]),
    }
    domain = np.repeat(np.arange(len(texts)), [len(tokens) - 1 for tokens in texts])
    E = config.experts
    words = (E, config.vocabulary)
    limits = {"minimum": minimum, "permutations": 2}
    rows: Result = {name: [] for name in ("co-activation", *labels)}
    if len(texts) > 1:
        rows["domain"] = []
    for of_domain in trained.choices.values():
        layers = np.concatenate([of_domain[name] for name in trained.texts], axis=1)
        rows["co-activation"].append([co_activation(choice, E, rng) for choice in layers])
        for name, label in labels.items():
            rows[name].append([_highest(c[:, :1], label, words, rng, **limits) for c in layers])
        if "domain" in rows:
            rows["domain"].append([_highest(c, domain, (E, len(texts)), rng) for c in layers])
    return {"steps": list(trained.choices), **rows}


def _highest(choice, label, shape, rng, **limits):
    return specialisation.highest_share(choice, label, shape, rng, **limits)._asdict()


def vocabulary(whole: Routings, config: Config, rng: Rng, *, minimum: int) -> Result:
    """OLMoE's equation 8, of the token, the true next one, and the predicted one: the share of the
    expert that gets most of a token.
    """
    shape = (config.experts, config.vocabulary)
    labels = dict(zip(LABELS, whole[:3], strict=True))
    return {
        name: [
            specialisation.highest_share(
                choice[:, :1], label, shape, rng, minimum=minimum
            )._asdict()
            for choice in whole.choice
        ]
        for name, label in labels.items()
    }


def top_tokens(
    whole: Routings,
    config: Config,
    text_of: Callable[[int], str],
    rng: Rng,
    *,
    minimum: int,
    n: int,
) -> Result:
    """The top tokens of each layer and expert, and the mean of their shares, ours and by chance."""
    shape = (config.experts, config.vocabulary)
    limits = {"minimum": minimum, "n": n}
    layers = []
    for choice in whole.choice:
        top = specialisation.top_tokens(choice[:, 0], whole.ids, shape, **limits)
        mixed = rng.permutation(whole.ids)
        by_chance = specialisation.top_tokens(choice[:, 0], mixed, shape, **limits)
        layers.append(
            {
                "experts": [[[text_of(t.token), t.share, t.count] for t in row] for row in top],
                "share": _mean_share(top),
                "permuted": _mean_share(by_chance),
            }
        )
    return {"layers": layers}


def _mean_share(rows):
    shares = [token.share for row in rows for token in row]
    return float(np.mean(shares)) if shares else 0.0


def domain_measures(by_domain: dict[str, Routings], config: Config, rng: Rng) -> list[Result]:
    """OLMoE's equation 7: N_{i,D} / N_D, and the highest of each domain, with two values by chance:
    of domains that are permuted among all tokens, and among those of the same kind.
    """
    whole = joined(list(by_domain.values()))
    domain = np.repeat(np.arange(len(by_domain)), [len(r.ids) for r in by_domain.values()])
    shape = (config.experts, len(by_domain))
    rows = []
    for choice in whole.choice:
        highest = specialisation.highest_share(choice, domain, shape, rng)
        by_words = specialisation.highest_share(choice, domain, shape, rng, within=whole.ids)
        rows.append(
            {
                "shares": specialisation.shares(choice, domain, shape).share.T.tolist(),
                **highest._asdict(),
                "by_words": by_words.permuted,
            }
        )
    return rows
