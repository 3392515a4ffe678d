"""Table 1 of Chen et al. (2022) as Markdown, published numbers beside ours."""

from moe_np.experiments.chen2022.published_numbers import mark, other_evidence, second_hand
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, markdown_table, mean_sd
from moe_np.experiments.common.statistics import describe

NAMES = {
    "single_linear": "single linear",
    "single_nonlinear": "single cubic",
    "moe_linear": "mixture, linear experts",
    "moe_nonlinear": "mixture, cubic experts",
}


def report(result: Result) -> str:
    """Our accuracy and dispatch entropy beside Table 1, and the accuracy of each seed below."""
    caption = basis(len(result["seeds"]), deviation="population")
    head = ("model", "runs", "accuracy, ours", "published", "entropy, ours", "published")
    rows = []
    for model, ours in result["summary"].items():
        published = result["paper"].get(model, {})
        sign = mark(result["setting"], model)
        cells = [NAMES[model], len(result["models"][model]["accuracy"])]
        for name, digits in (("accuracy", 2), ("entropy", 3)):
            cells += [mean_sd(values.get(name), digits) for values in (ours, published)]
        cells[3] += sign
        rows.append(cells)
    parts = [
        f"Chen et al. 2022, setting {result['setting']}, variant `{result['variant']}`: percent "
        f"of the test samples that are right, dispatch entropy in nats; {caption}, as the paper's.",
        markdown_table(head, rows),
        _power(result),
        f"Each run, seeds {', '.join(map(str, result['seeds']))}:",
        "\n".join(
            f"- {NAMES[model]}: {', '.join(f'{a:.2f}' for a in lists['accuracy'])}"
            for model, lists in result["models"].items()
        ),
        second_hand(),
        other_evidence(),
    ]
    if result["variant"] == "paper":
        parts.append(
            "Published numbers belong to the authors' code (variant `code`), which is not the "
            "paper's algorithm."
        )
    return "\n\n".join(parts) + "\n"


def _power(result):
    accuracies = {
        NAMES[model]: describe(lists["accuracy"])[:2]
        for model, lists in result["models"].items()
        if len(lists["accuracy"]) == len(result["seeds"])
    }
    n = len(result["seeds"])
    return power_sentence(accuracies, n, "points", digits=2, runs="run", paired=False)
