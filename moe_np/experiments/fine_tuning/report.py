"""Fine-tuning in words and tables."""

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
from moe_np.experiments.common.verdicts import is_below_0, side_of_0


def report(result: Result) -> str:
    """The tables and what came out, as Markdown."""
    parts = (_caption(result), _systems(result), _differences(result), _power(result))
    parts += (_seen(result),)
    return "\n\n".join(part for part in parts if part)


def _caption(result):
    config = result["config"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    return (
        f"Decoders pretrained for {config['sizes']['updates']} updates on the English Bible, then "
        f"{config['updates']} on windows of {config['sizes']['length']} tokens of the Spanish one "
        "(paraphrase and its control, modern English: of the World English Bible); "
        f"{caption}. Each row has the learning rate and the batch size of the least mean "
        "validation loss. Losses in nats per token; test: of the least validation loss (early "
        "stopping), last: of the last update; rise: of the validation loss from its least value."
    )


def _systems(result):
    names = ("training", "rise", "test before", "test", "test last")
    rows = []
    for system, by_size in result["summary"].items():
        for examples, ours in by_size.items():
            rate, batch = ours["setting"]
            losses = [mean_sd(ours[name], 3, unsigned_zero=True) for name in names]
            rows.append((system, examples, f"{rate:g}, {batch}", *losses))
    return markdown_table(("system", "examples", "setting", *names), rows)


def _differences(result):
    ours = result["differences"]
    rows = [
        (f"{examples} examples, sparse less dense", "–", interval(value, 4))
        for examples, value in ours["test"].items()
    ]
    rows += [
        (f"{examples} examples, batch {batch}, sparse less dense", interval(value, 4), "–")
        for batch, by_size in ours["rise"].items()
        for examples, value in by_size.items()
    ]
    batch = min(result["config"]["batches"])
    rows += [
        (f"{remedy} less sparse, batch {batch}, last", "–", interval(value, 4))
        for remedy, value in ours["remedies"].items()
    ]
    head = ("difference, 95 % interval by seed", "rise", "test loss")
    return markdown_table(head, rows) if rows else ""


def _seen(result):
    ours = result["differences"]
    paper = result["paper"]
    lines = ["**What was seen.**"]
    for examples, value in ours["test"].items():
        words = join(
            f"{verdict(by_size[examples])} (batch {batch})"
            for batch, by_size in ours["rise"].items()
            if examples in by_size
        )
        lines.append(
            f"Overfitting of sparse beside dense with {examples} examples: {words}; its test loss "
            f"with early stopping is {quality(value)}."
        )
    helped = [remedy for remedy, value in ours["remedies"].items() if is_below_0(value)]
    if ours["remedies"]:
        lines.append(f"Remedies that help without early stopping: {', '.join(helped) or 'none'}.")
    glue = paper["SuperGLUE"]
    loss = paper["SuperGLUE, auxiliary loss"]
    numbers = [decimal(glue[name], 1) for name in ("dense", "sparse", "dropout .3")]
    lines.append(
        f"Published, SuperGLUE: {numbers[0]} dense, {numbers[1]} sparse, {numbers[2]} with dropout "
        f".3 (Fedus et al. 2021, table 4); {loss['with']} with and {loss['without']} without the "
        "auxiliary loss, and on 250 examples the sparse model fits the training set first and is "
        "worse in validation, on 138,000 better (Zoph et al. 2022, section 4). Such tasks are not "
        "here. The paraphrase is measured on modern English, beside sparse on the same text; its "
        "other translation is the one of the pretraining."
    )
    return " ".join(lines)


def verdict(difference: Result) -> str:
    """Whether sparse overfits more, by the interval of the rise."""
    return side_of_0(difference, negative="less", positive="more", neither="cannot be told")


def quality(difference: Result) -> str:
    """What the interval of a difference of test losses says."""
    return side_of_0(
        difference,
        negative="better",
        positive="worse",
        neither="not told from that of dense",
        single="not told by one seed",
    )


def _power(result):
    ours = result["differences"]
    values = {f"test, {examples} examples": value for examples, value in ours["test"].items()}
    values |= {
        f"rise, {examples} examples, batch {batch}": value
        for batch, by_size in ours["rise"].items()
        for examples, value in by_size.items()
    }
    values |= {f"{remedy}, last": value for remedy, value in ours["remedies"].items()}
    return power_sentence(values, len(result["seeds"]), "nats per token")
