"""The layouts in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    interval,
    join,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.layouts.runs import EVERY, PAPER, SMALL

CLAIMS = {  # claim -> what is compared, the direction of the literature
    "halves": (
        "test loss: experts in the second half, less in the first half",
        "lower (DeepSpeed-MoE, section 4.1)",
    ),
    "scale": (
        "loss at the first checkpoint: initial scale .1, less 1",
        "lower (Switch, section 2.4)",
    ),
    "precision": (
        "tokens with other experts, share: router in float32, less in bfloat16",
        "lower (Switch, section 2.4)",
    ),
    "alternate": ("test loss: every other layer, less every layer", "not compared"),
}
DIGITS = {"precision": 4}  # of the differences; the shares are of the order of a thousandth


def report(result: Result) -> str:
    """The comparisons beside the literature's directions, then the systems, as Markdown."""
    parts = [_caption(result)]
    if result["claims"]:
        parts += [claims_table(result), _power(result)]
    parts += [systems_table(result), loads_table(result)]
    if EVERY in result["summary"]:
        parts.append(rounding_table(result))
    if SMALL in result["summary"]:
        parts.append(scale_text(result))
    return "\n\n".join([*parts, layouts_text()])


def _caption(result):
    config = result["config"]
    tokens = config["updates"] * config["batch"] * config["length"]
    seeds = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders with {config['layers']} layers of width {config['d_model']}, 2 experts per "
        f"token, trained on {tokens / 1e6:.1f} million tokens of the King James Bible, whole books "
        f"held out; {seeds}. Loss in nats per token. All have the same operations per token, and "
        "the same number of parameters but for the rows of the routers."
    )


def claims_table(result: Result) -> str:
    """A row per comparison, ours beside the direction of the literature."""
    rows = [
        (
            CLAIMS[name][0],
            interval(ours["interval"], DIGITS.get(name, 3)),
            CLAIMS[name][1],
            ours["verdict"] or MISSING,
        )
        for name, ours in result["claims"].items()
    ]
    head = ("difference", "ours [95 %]", "direction in the literature", "verdict")
    return markdown_table(head, rows)


def systems_table(result: Result) -> str:
    """A row per system."""
    rows = [
        (
            system,
            f"{ours['parameters'] / 1e6:.3f}",
            mean_sd(ours["early"], 3),
            mean_sd(ours["validation"], 3),
            mean_sd(ours["test"], 3),
            mean_sd(ours["perplexity"], 1),
            mean_sd(ours["gradient_norm"], 1),
        )
        for system, ours in result["summary"].items()
    ]
    first = result["config"]["checkpoint_every"]
    head = ("system", "parameters, million", f"validation loss, update {first}")
    head += ("validation loss, end", "test loss", "test perplexity", "largest gradient norm")
    return markdown_table(head, rows)


def loads_table(result: Result) -> str:
    """The coefficient of variation of the loads in each layer, in the last tenth of training."""
    layers = range(result["config"]["layers"])
    rows = []
    for system, ours in result["summary"].items():
        cvs = [ours["load_cv"].get(str(i)) for i in layers]
        rows.append((system, *("no experts" if cv is None else mean_sd(cv, 2) for cv in cvs)))
    return markdown_table(("CV of the load", *(f"layer {i}" for i in layers)), rows)


def rounding_table(result: Result) -> str:
    """What bfloat16 does to the choices of a trained router."""
    rows = [
        (way, layer, *(mean_sd(changed[name], 2, factor=100) for name in changed))
        for way, layers in result["summary"][EVERY]["rounded"].items()
        for layer, changed in enumerate(layers)
    ]
    head = ("percent of the tokens", "layer", "other experts", "another first", "ties at the cut")
    return (
        "Routers in float32 with inputs in bfloat16 (selective), and in bfloat16 altogether, "
        "against float32, of trained models.\n\n"
        + markdown_table(head, rows)
        + "\n\nPublished: training in bfloat16 altogether "
        f"{PAPER['switch bfloat16']}, with routers in float32 it was as good as float32. Here no "
        "model was trained in bfloat16: the table shows one cause, not that result."
    )


def scale_text(result: Result) -> str:
    """The initial scales beside Switch's."""
    published = join(
        f"{mean:.2f} ± {sd:.2f} at scale {scale:g}"
        for scale, (mean, sd) in PAPER["switch scale"].items()
    )
    text = f"Published, negative log perplexity after 3,500 steps (higher is better): {published}."
    if EVERY not in result["summary"] or len(result["seeds"]) == 1:
        return text
    deviations = [result["summary"][system]["early"]["sd"] for system in (SMALL, EVERY)]
    small, large = (decimal(sd, 4) for sd in deviations)
    return (
        f"{text} There the small scale also makes seeds alike; here the deviation over seeds is "
        f"{small} at scale .1 and {large} at 1. Our layers have norms before them, and outputs "
        "into the residual stream that are scaled down by the depth, at both scales."
    )


def layouts_text() -> str:
    """Which models have which layout."""
    rows = [f"{layout}: {join(models)}" for layout, models in PAPER["layouts"].items()]
    return f"Layers with experts in published models: {'; '.join(rows)}."


def _power(result):
    values = {CLAIMS[name][0]: ours["interval"] for name, ours in result["claims"].items()}
    return power_sentence(values, len(result["seeds"]), digits=4)
