"""The specialisation of experts in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    basis,
    decimal,
    interval,
    join,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.specialisation.measures import LABELS
from moe_np.experiments.specialisation.runs import ONE, PAPER, THREE

MIXTRAL_LAYERS = (0, 15, 31)
KINDS = ("first", "first or second")


def report(result: Result) -> str:
    """The claims, then each measure beside chance and beside what was published, as Markdown."""
    parts = [_caption(result), claims_table(result), _power(result)]
    for system in result["summary"]:
        parts += [f"### {system.capitalize()}", *_of_system(result, system)]
    return "\n\n".join(parts)


def _of_system(result, system):
    parts = [repetition_table(result, system), layers_table(result, system)]
    parts.append(checkpoints_table(result, system))
    if system == ONE:
        parts += [saturation_table(result), top_tokens_table(result), contexts_text(result)]
    if system == THREE:
        parts.append(domains_table(result))
    return parts


def _caption(result):
    config = result["config"]
    tokens = config["updates"] * config["batch"] * config["length"]
    seeds = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders with {config['layers']} layers of width {config['d_model']}, 2 of "
        f"{config['experts']} experts per token, trained on {tokens / 1e6:.1f} million tokens and "
        f"measured on {config['measured']:,} that were held out; {seeds}. Chance: the same "
        f"measure after a permutation. Tokens that occur less than {config['minimum']} times are "
        "left out where shares of tokens are reported."
    )


def claims_table(result: Result) -> str:
    """A row per claim, with the criterion that was fixed before the runs."""
    words = {
        "repetition": "neighbours share experts more often in higher layers (Mixtral, table 5)",
        "saturation": "the router of layer 0 settles last (OLMoE, section 5.1)",
        "prediction": "later layers specialise on the predicted token (OLMoE, section 5.4)",
        "domains": "experts specialise on domains (OLMoE, section 5.3)",
    }
    rows = [
        (words[name], interval(ours["interval"], 3), ours["verdict"], ours["criterion"])
        for name, ours in result["claims"].items()
    ]
    return markdown_table(("claim", "estimate [95 %]", "verdict", "criterion"), rows)


# --- from token to token --------------------------------------------------------------------------


def repetition_table(result: Result, system: str) -> str:
    """Mixtral's table 5: ours per layer with the baselines, theirs below."""
    rows = []
    for text, kinds in result["summary"][system]["repetition"].items():
        for kind in KINDS:
            for layer, ours in enumerate(kinds[kind]):
                cells = [mean_sd(ours[name], 1, factor=100) for name in ours if name != "uniform"]
                uniform = decimal(ours["uniform"]["mean"], 1, factor=100)
                rows.append((f"{text}, {kind}", layer, cells[0], uniform, *cells[1:]))
    head = ("percent of neighbours with a common expert", "layer", "ours", "uniform", "by loads")
    ours = markdown_table((*head, "order permuted", "by the words alone"), rows)
    return ours + "\n\n" + published_repetition() if system == ONE else ours


def published_repetition() -> str:
    """Table 5 of Mixtral, and what to know of it."""
    rows = [
        (text, *(decimal(value, 1) for kind in kinds for value in kind))
        for text, kinds in PAPER["mixtral"].items()
    ]
    head = [f"{kind}, layer {layer}" for kind in KINDS for layer in MIXTRAL_LAYERS]
    notes = (
        "Published (Mixtral, table 5), of 32 layers. Chance is 12.5 and 46.4 there if all experts "
        "get the same load, which is not stated. Not all higher layers are above it: DM "
        "Mathematics has 44.5 at layer 31."
    )
    return markdown_table(("percent", *head), rows) + "\n\n" + notes


# --- per layer ------------------------------------------------------------------------------------


def layers_table(result: Result, system: str) -> str:
    """A row per layer: load, co-activation, vocabulary specialisation, top tokens."""
    ours = result["summary"][system]
    rows = []
    for layer, cv in enumerate(ours["load_cv"]):
        measures = [ours["co_activation"], *(ours["vocabulary"][label] for label in LABELS)]
        cells = [_with_chance(of_layers[layer]) for of_layers in measures]
        top = ours["top_tokens"][layer]
        cells.append(_with_chance({"value": top["share"], "permuted": top["permuted"]}))
        rows.append((layer, mean_sd(cv, 2), *cells))
    head = ("layer", "CV of the load", "commonest partner of an expert")
    head += tuple(f"highest share, {label} token" for label in LABELS)
    table = markdown_table((*head, "share of the top tokens"), rows)
    return table + "\n\nIn percent, by chance in brackets (OLMoE, equations 6 and 8)."


def _with_chance(measure):
    by_chance = decimal(measure["permuted"]["mean"], 1, factor=100)
    return f"{mean_sd(measure['value'], 1, factor=100)} ({by_chance})"


def checkpoints_table(result: Result, system: str) -> str:
    """The other measures of OLMoE over training, at the first and the last layer."""
    ours = result["summary"][system]
    last = len(ours["load_cv"]) - 1
    rows = [
        (
            f"{100 * step / ours['steps'][-1]:.0f} %",
            *(
                _with_chance(of_steps[number][layer])
                for of_steps in ours["checkpoints"].values()
                for layer in (0, last)
            ),
        )
        for number, step in enumerate(ours["steps"])
    ]
    names = ours["checkpoints"]
    head = [f"{name}, layer {layer}" for name in names for layer in (0, last)]
    return (
        "Over training: an expert's commonest partner, and the share of the commonest expert of a "
        "token or a domain; percent, by chance in brackets.\n\n"
        + markdown_table(("after", *head), rows)
    )


def saturation_table(result: Result) -> str:
    """OLMoE's equation 5: a row per checkpoint."""
    ours = result["summary"][ONE]
    steps = ours["steps"]
    rows = [
        (f"{100 * step / steps[-1]:.0f} %", *(mean_sd(value, 1, factor=100) for value in values))
        for step, values in zip(steps, ours["saturation"], strict=True)
    ]
    chance = [mean_sd(value, 1, factor=100) for value in ours["saturation by chance"]]
    rows.append(("by chance", *chance))
    head = [f"layer {i}" for i in range(len(chance))]
    shares, percents = PAPER["olmoe saturation"].values()
    published = join([f"{p} at {100 * s:.0f} %" for s, p in zip(shares, percents, strict=True)])
    return (
        "Router saturation, percent of the last choices (OLMoE, equation 5).\n\n"
        + markdown_table(("after", *head), rows)
        + f"\n\nPublished: up to {published} of training, layer 0 far slower than the rest; "
        "12.5 by chance."
    )


def top_tokens_table(result: Result) -> str:
    """The top tokens of each layer and expert, of the first seed."""
    rows = []
    (first, *_) = [run for run in result["runs"] if run["system"] == ONE]
    for layer, of_layer in enumerate(first["top_tokens"]["layers"]):
        for expert, tokens in enumerate(of_layer["experts"]):
            words = [f"`{text}` {100 * share:.0f} of {count}" for text, share, count in tokens]
            rows.append(
                (layer, expert, ", ".join(words), decimal(of_layer["permuted"], 0, factor=100))
            )
    head = ("layer", "expert", "top tokens: percent of all occurrences", "by chance")
    return f"Top tokens, seed {first['seed']} (`·` is a blank).\n\n" + markdown_table(head, rows)


def contexts_text(result: Result) -> str:
    """Table 9 of Shazeer et al. 2017 as a procedure: picked experts beside random ones."""
    (first, *_) = [run for run in result["runs"] if run["system"] == ONE]
    rows = []
    for way in ("picked", "random"):
        for expert in first["contexts"][way]:
            where = f"{way}: layer {expert['layer']}, expert {expert['expert']}"
            lines = [f"`{a}` **`{b}`** `{c}`" for a, b, c in expert["contexts"]]
            rows.append((where, "; ".join(lines)))
    for number, lines in PAPER["shazeer"].items():
        rows.append((f"published, picked by hand: expert {number}", "; ".join(lines)))
    ours = result["summary"][ONE]["uniformity"]
    sizes = [f"{mean_sd(ours[name], 0, factor=100)} for {name}" for name in ("picked", "random")]
    chance = mean_sd(ours["by chance"], 0, factor=100)
    return (
        f"Contexts of the largest weights, seed {first['seed']} (Shazeer et al. 2017, table 9).\n\n"
        + markdown_table(("expert", "contexts"), rows)
        + f"\n\nPercent of the contexts with the commonest token in the middle: {join(sizes)}, "
        f"{mean_sd(ours['all'], 0, factor=100)} over all experts, {chance} for places by chance."
    )


# --- domains --------------------------------------------------------------------------------------


def domains_table(result: Result) -> str:
    """OLMoE's equation 7: who takes what, of the first seed, and the highest share over seeds."""
    (first, *_) = [run for run in result["runs"] if run["system"] == THREE]
    names = list(first["repetition"])
    rows = [
        (layer, name, *(decimal(share, 0, factor=100) for share in shares))
        for layer, measures in enumerate(first["domains"])
        for name, shares in zip(names, measures["shares"], strict=True)
    ]
    experts = range(len(first["domains"][0]["shares"][0]))
    taken = markdown_table(("layer", "domain", *(f"expert {i}" for i in experts)), rows)
    over_seeds = [
        (layer, *(mean_sd(ours[name], 1, factor=100) for name in ours))
        for layer, ours in enumerate(result["summary"][THREE]["domains"])
    ]
    head = ("layer", "highest share of a domain", "by chance", "by its vocabulary alone")
    uniform = 100 * 2 / len(experts)
    return (
        f"Who takes what: percent of a domain's tokens that go to an expert, seed {first['seed']} "
        f"(OLMoE, equation 7; each row sums to 200, {uniform:.1f} each if at random).\n\n"
        f"{taken}\n\n{markdown_table(head, over_seeds)}\n\n"
        "By its vocabulary alone: the domains permuted among the occurrences of each token. Most "
        "tokens occur in one domain, and a router that sees nothing but the token then tells "
        "domains apart."
    )


def _power(result):
    values = {name: ours["interval"] for name, ours in result["claims"].items()}
    return power_sentence(values, len(result["seeds"]))
