"""The images in words and tables, beside Chen et al. 2022."""

from moe_np.experiments.common import comparisons
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import basis, decimal, join, markdown_table, mean_sd
from moe_np.experiments.images.runs import PIXELS


def report(result: Result) -> str:
    """The tables and what came out, as Markdown."""
    parts = (_caption, _table, _claims, _taken, _published)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _caption(result):
    config = result["config"]
    caption = basis(len(result["seeds"]), "seed", deviation="sample", sentence=True)
    return (
        f"Digits of 8 x 8 pixels: {config['train']} images for training, {config['validation']} "
        f"for choices, {config['test']} for the test. {caption}. In `which rotation` the class is "
        "the rotation, one of two that are 15 degrees apart, and the digit is the cluster; in "
        "`digits in four rotations` it is the other way round. A dense network of equal size does "
        f"{config['experts']} times the operations of the mixture."
    )


def _table(result):
    rows = [
        (
            system,
            ours["parameters"],
            mean_sd(ours.get("accuracy"), 2),
            mean_sd(ours["loss"], 3),
        )
        for system, ours in result["summary"].items()
    ]
    return markdown_table(("system", "parameters", "% right", "loss, nats"), rows)


def _claims(result):
    return comparisons.section(result["claims"], digits=3)


def _taken(result):
    lines = []
    for system, ours in result["summary"].items():
        task = system.split(": ")[0]
        if "taken" not in ours:
            continue
        texts = [
            f"{name} {join([decimal(v, 0) for v in values])} %"
            for name, values in ours["taken"].items()
        ]
        layers = " (layer by layer)" if task == PIXELS else ""
        if "in use" in ours:
            texts.append(f"{decimal(ours['in use'], 1)} experts in use")
        lines.append(f"{task}{layers}: {', '.join(texts)}.")
    if not lines:
        return ""
    return (
        "**What the experts take up.** The percentage of the entropy of a label that the expert "
        "of a case tells, less what a permutation gives. " + " ".join(lines)
    )


def _published(result):
    rows = [
        (data, network, mean_sd(alone), mean_sd(mixture))
        for data, networks in result["paper"].items()
        for network, (alone, mixture) in networks.items()
    ]
    table = markdown_table(("data", "network", "alone", "mixture"), rows)
    return (
        "Published (Chen et al. 2022, table 2, second-hand), percent right, mean ± standard "
        f"deviation:\n\n{table}\n\nCIFAR-10 has no clusters that are known, and the mixture does "
        "not help. In CIFAR-10-Rotate the class is whether an image is rotated by 30 degrees, and "
        "the kinds of things are the clusters. The authors' program reports the best accuracy of "
        "all passes on the test images themselves, which is above that of a pass that was chosen "
        "without them. Here a choice uses the validation images alone."
    )
