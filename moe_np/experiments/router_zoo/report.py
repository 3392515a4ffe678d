"""The results of the router zoo in words and tables, beside what an earlier program gave."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    markdown_table,
    mean_sd,
    plural,
    with_published,
)
from moe_np.experiments.router_zoo.experiment import by_chance
from moe_np.experiments.router_zoo.systems import GROUP, TABLE, TWO_MODES, WITH_CAPACITY

HEAD = (
    "router",
    "perplexity",
    "CV of a batch",
    "max/mean",
    "dropped %",
    "no expert %",
    "experts per token",
    "ms per step",
)


def report(result: Result) -> str:
    """All systems, lowest perplexity first, with what the earlier program gave; the tokens that
    Switch drops; what is to be seen. Markdown.
    """
    caption = basis(len(result["seeds"]), "seed", deviation="sample", sentence=True)
    parts = [f"{caption}; in brackets what an earlier program gave.", main_table(result)]
    parts.append(_power(result))
    if all(system in result["summary"] for system in WITH_CAPACITY):
        parts.append(
            "Tokens that the trained Switch routers drop, in percent, and the perplexity at that "
            "capacity factor:"
        )
        parts.append(drops_table(result))
    if all(system in result["summary"] for system in TABLE):
        parts.append(remarks(result))
    return "\n\n".join(parts)


def main_table(result: Result) -> str:
    """One row per system."""
    rows = []
    ordered = sorted(result["summary"].items(), key=lambda item: item[1]["perplexity"]["mean"])
    for system, values in ordered:
        perplexity, cv = result["paper"]["earlier"].get(system, (None, None))
        cells = [system, with_published(mean_sd(values["perplexity"]), perplexity, "g")]
        if "cv" in values:
            cells.append(with_published(mean_sd(values["cv"]), cv, "g"))
            cells.append(decimal(values["max_mean"]["mean"]))
            for name in ("dropped", "unserved"):
                cells.append(decimal(values[name]["mean"], 1, factor=100))
            cells.append(decimal(values["experts"]["mean"]))
        else:
            cells += [MISSING] * 5
        rows.append([*cells, decimal(result["milliseconds"][system])])
    return markdown_table(HEAD, rows)


def _power(result):
    perplexities = {system: v["perplexity"] for system, v in result["summary"].items()}
    return power_sentence(perplexities, len(result["seeds"]), "of the perplexity", paired=False)


def drops_table(result: Result) -> str:
    """What the Switch routers drop at the capacity factors of the configuration."""
    head = ["", *(f"factor {factor:g}" for factor in result["config"]["factors"])]
    rows = []
    for system in WITH_CAPACITY:
        drops = result["summary"][system]["drops"]
        cells = [
            f"{mean_sd(case['dropped'], 1, factor=100)}, {decimal(case['perplexity']['mean'])}"
            for case in drops
        ]
        rows.append([system, *cells])
    earlier = [f"{percent:g}" for percent in result["paper"]["earlier drops"]]
    rows.append(["the earlier program", *earlier])
    return markdown_table(head, rows)


def remarks(result: Result) -> str:
    """What is measured and what is to be seen, from the numbers of this very run. Markdown."""
    parts = (measures(result), quality(result), balance(result), beside_earlier(result))
    return "\n\n".join(parts)


def perplexities(result: Result) -> dict[str, str]:
    """{system: mean perplexity}, in evaluation; "NAME, as trained" for those with two modes."""
    summary = result["summary"]
    means = {system: values["perplexity"]["mean"] for system, values in summary.items()}
    for system in TWO_MODES:
        means[f"{system}, as trained"] = summary[system]["as trained"]["mean"]
    return {system: f"{mean:.1f}" for system, mean in means.items()}


def measures(result: Result) -> str:
    """The paragraph on what is measured."""
    config = result["config"]
    return (
        f"**What is measured.** The perplexity of the stored keys themselves after "
        f"{plural(config['epochs'], 'pass', 'passes')}. Labels are random, so there is nothing to "
        f"test on: for a key that was never seen, {config['n_values']} is the best that is "
        "possible. No key comes back in another form, so a router that sends a key to the same "
        "expert in every pass is at an advantage by construction: that steadiness pays holds for "
        "this task, and the order of the systems says nothing of routers in language. All systems "
        "have the same keys, labels, minibatches and learning rate, and the load-balancing losses "
        "of their papers, or Switch's where those have none. GShard's is "
        "multiplied by E², so that it is 1 at balance. CV and max/mean are of what tokens asked "
        f"for, in batches of {config['batch']}. A choice at random gives a CV of "
        f"{by_chance(config, 1):.2f} with one expert per token and {by_chance(config, 2):.2f} with "
        "two: a router that looks at one token alone cannot do much better. Milliseconds are of "
        "one thread."
    )


def quality(result: Result) -> str:
    """The paragraph on the perplexities."""
    ours = perplexities(result)
    return (
        f"**Quality.** {ours['top-2, Switch loss']} for top-2, "
        f"{ours['dense net, same active size']} for a dense net that computes as much per token, "
        f"{ours['dense net, same total size']} for one with as many parameters, which does sixteen "
        "times the work. After so few passes this is the speed of learning as much as the room: "
        "trained several times as long, the large dense net is no worse than top-2 "
        f"(`Config.epochs`). A hash, which learns nothing, gets {ours['hash']}: the task is pure "
        "memory, and a key that never changes its expert is never forgotten. Routers that send a "
        "key to another expert each time lose by it. Some do so by noise "
        f"(noisy top-2 {ours['noisy top-2']}, REINFORCE {ours['REINFORCE']}, straight-through "
        f"{ours['straight-through']}), and BASE does because its choice depends on the other keys "
        f"of the group ({ours['BASE']} with the greedy choice, {ours['BASE, as trained']} with the "
        f"balanced one of its training). Expert choice ({ours['expert choice']}) and strictly "
        f"balanced ({ours['strictly balanced']} with thresholds, "
        f"{ours['strictly balanced, as trained']} with the mask of the batch) look at the whole "
        f"batch too and do not suffer. The soft mixture ({ours['soft mixture']}) does not fit: its "
        "slots are averages over a sequence, and chance decides what stands beside a key in a "
        "minibatch."
    )


def balance(result: Result) -> str:
    """The paragraph on what the load-balancing losses do here."""
    ours = perplexities(result)
    return (
        "**Balance.** On these centred keys a load-balancing loss changes little: top-2 "
        f"{ours['top-2, no loss']} without and {ours['top-2, Switch loss']} with it. Where keys "
        "have something in common it is different: see `shazeer2017`."
    )


def beside_earlier(result: Result) -> str:
    """How far the numbers of the earlier program agree with these."""
    from scipy.stats import spearmanr

    earlier, summary = result["paper"]["earlier"], result["summary"]
    ours = [summary[system]["perplexity"]["mean"] for system in earlier]
    rank = spearmanr(ours, [perplexity for perplexity, _ in earlier.values()]).statistic
    differences = [
        abs(summary[system]["cv"]["mean"] - cv)
        for system, (_, cv) in earlier.items()
        if cv is not None
    ]
    return (
        f"**Beside the earlier program.** The order of the {len(earlier)} routers agrees to a rank "
        f"correlation of {rank:.2f}, the CVs to {max(differences):.2f}. The perplexities do not "
        "compare: its length of training and its learning rates were not kept. Known differences: "
        "Switch is trained here at a capacity factor of 1.25 and drops tokens while it learns; "
        f"BASE assigns groups of {GROUP} keys, to save time, and in larger groups the other keys "
        "change less."
    )
