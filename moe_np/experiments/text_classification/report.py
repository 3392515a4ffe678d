"""The text classification in words and tables."""

from moe_np.experiments.common import comparisons
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import basis, join, markdown_table, mean_sd
from moe_np.experiments.text_classification.passages import PARTS


def report(result: Result) -> str:
    """The tables, and what the experts take, as Markdown."""
    parts = (_table, _claims, _taken, _published)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _table(result):
    config = result["config"]
    train, _, test = result["runs"][0]["passages"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample", sentence=True)
    rows = [
        (system, ours["parameters"], mean_sd(ours["accuracy"], 2), mean_sd(ours["loss"], 3))
        for system, ours in result["summary"].items()
    ]
    table = markdown_table(("network", "parameters", "% right", "loss, nats"), rows)
    return (
        f"Passages of {config['verses']} verses of the Bible, in English or Spanish, by the counts "
        f"of their words in {config['features']} columns: which of its {len(PARTS)} parts "
        f"({join(PARTS)}) are they from? Whole chapters are held out; with seed 0 there are "
        f"{train} passages for training and {test} for the test. A dense network of equal size "
        f"does {config['experts']} times the operations of the mixture. {caption}.\n\n{table}"
    )


def _claims(result):
    return comparisons.section(result["claims"], unit="points")


def _taken(result):
    ours = next((s for s in result["summary"].values() if "taken" in s), None)
    if ours is None:
        return ""
    taken = ours["taken"]
    texts = [f"{name} {mean_sd(value, 0)} %" for name, value in taken.items()]
    return (
        "**What the experts take up.** The percentage of the entropy of a label that the expert "
        f"of a passage tells, less what a permutation gives: {', '.join(texts)}. Of "
        f"{result['config']['experts']} experts, {ours['in use']:.1f} take at least 1 % of the "
        "passages."
    )


def _published(result):
    alone, mixture = result["paper"]["sentiment in four languages"]
    return (
        "Published, another task of the same form: sentiment of sentences in four languages, a "
        f"single network {alone} %, a mixture {mixture} %; its router divides them largely by "
        "language (Chen et al. 2022, second-hand)."
    )
