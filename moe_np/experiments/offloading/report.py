"""Offloading in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import MISSING, basis, decimal, markdown_table, mean_sd
from moe_np.experiments.offloading.runs import POLICIES, TRAINED


def report(result: Result) -> str:
    """Hit rates by trace and policy, then the speed of generation, as Markdown."""
    parts = [_caption(result), rates_table(result), _power(result)]
    if TRAINED in result["summary"]:
        parts += [speed_table(result), _reading(result["summary"][TRAINED])]
    paper = result["paper"]
    published = (
        f"Published, other models: Mixtral, {paper['mixtral']} (arXiv 2312.17238, read "
        f"second-hand); OLMoE, {paper['olmoe']}."
    )
    return "\n\n".join([*parts, published])


def _caption(result):
    seeds = basis(len(result["seeds"]), "seed", deviation="sample")
    reused = "; ".join(
        f"{system}: a token shares {mean_sd(ours['reuse'], 3)} of its experts with the one before "
        f"it ({ours['by_chance']:.3f} by chance), the most frequent expert has "
        f"{mean_sd(ours['largest_share'], 3)} of the choices"
        for system, ours in result["summary"].items()
    )
    return f"Hit rates of a cache per layer, mean over the layers; {seeds}. {reused}."


def rates_table(result: Result) -> str:
    """A row per trace and number of places."""
    rows = [
        (
            system,
            f"{places} of {ours['experts']}",
            *(mean_sd(ours["hit_rates"][policy][i], 3) for policy in POLICIES),
        )
        for system, ours in result["summary"].items()
        for i, places in enumerate(ours["places"])
    ]
    return markdown_table(("trace", "places", "LRU", "LFU", "Belady's bound"), rows)


def speed_table(result: Result) -> str:
    """Generation with LRU, the files in the system's page cache, and cold."""
    rows = [
        (
            row["places"],
            mean_sd(row["hit_rate"], 3),
            mean_sd(row["tokens_per_second"], 0),
            mean_sd(row["cold"], 0),
            f"{row['experts_bytes'] / 1e6:.2f}",
            MISSING if row["resident"] is None else decimal(row["resident"], 1, factor=1e-6),
        )
        for row in result["summary"][TRAINED]["speed"]
    ]
    head = ("places per layer", "hit rate, prompt and text", "tokens per second")
    head += ("cold: the system's page cache dropped before each read",)
    head += ("experts in memory, MB", "resident in all, MB (first seed)")
    return markdown_table(head, rows)


def _reading(ours):
    """Which policy wins on the trained trace."""
    lru, lfu = ([rate["mean"] for rate in ours["hit_rates"][policy]] for policy in ("lru", "lfu"))
    wins = sum(a > b for a, b in zip(lru, lfu, strict=True))
    sizes = f"{wins} of {len(lru)} sizes"
    return (
        f"On the trained trace LRU has more hits than LFU at {sizes} of the cache. Which of them "
        "is better is a fact of the router: skewed use is for LFU, repetition for LRU."
    )


def _power(result):
    rates = {
        f"{policy}, {places} places, {system}": ours["hit_rates"][policy][i]
        for system, ours in result["summary"].items()
        for i, places in enumerate(ours["places"])
        for policy in POLICIES
    }
    return power_sentence(rates, len(result["seeds"]), "of the hit rate", paired=False)
