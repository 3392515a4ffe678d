"""The translation models in words and tables."""

from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    interval,
    interval_basis,
    join,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.translation.runs import COUNTERPARTS

SCORES = ("BLEU", "chrF")


def report(result: Result) -> str:
    """The systems, the comparisons, some verses, and the published numbers, as Markdown."""
    parts = (_caption, systems_table, comparison_table, _power, what_was_seen, verses, published)
    return "\n\n".join(text for text in (part(result) for part in parts) if text)


def _caption(result):
    config = result["config"]
    pairs = result["pairs"]
    text = (
        f"English verses into Spanish: {pairs['train']:,} pairs for training "
        f"({100 * pairs['kept']:.0f} % of the verses; longer ones are left out), read "
        f"{result['runs'][0]['epochs']:.1f} times, and {pairs['test']} pairs of books that were "
        f"held out. Width {config['d_model']}; parameters are without embeddings and softmax; "
        f"{basis(len(result['seeds']), 'seed', deviation='sample')}. The loss is in nats per token "
        f"of the {config['vocabulary']} byte pairs of both languages. Translations are greedy. "
    )
    if result["signatures"]:
        return text + f"Scores by sacrebleu: {join(result['signatures'].values())}."
    return text + (
        "BLEU and chrF are missing, because sacrebleu is not installed; `pip install sacrebleu` "
        "and the same command compute them from the stored runs."
    )


def systems_table(result: Result) -> str:
    """A row per system, and the floors of the scores."""
    rows: list[tuple[str, ...]] = [
        (
            system,
            decimal(ours["parameters"], 0, factor=1e-3),
            decimal(ours["active"], 0, factor=1e-3),
            mean_sd(ours["test_loss"], 3),
            mean_sd(ours["perplexity"], 2),
            *(mean_sd(ours.get(name), 1) for name in SCORES),
            mean_sd(ours["seconds"], 0),
        )
        for system, ours in result["summary"].items()
    ]
    for name, values in result["floors"].items():
        bleu, chrf = (decimal(values.get(score), 1) for score in SCORES)
        rows.append((f"floor: {name}", *[MISSING] * 4, bleu, chrf, MISSING))
    head = ("system", "parameters, thousand", "active", "test loss", "test perplexity")
    return markdown_table((*head, *SCORES, "seconds of training"), rows)


def comparison_table(result: Result) -> str:
    """A row per system with experts, against its dense counterpart."""
    rows = [
        (
            f"{system} − {COUNTERPARTS[system]}",
            interval(ours["test_loss"], 3),
            *(interval(ours.get(name), 2) for name in SCORES),
        )
        for system, ours in result["against_dense"].items()
    ]
    if not rows:
        return ""
    basis_of_table = interval_basis(len(result["seeds"]), "seed", sentence=True)
    return f"{basis_of_table}.\n\n" + markdown_table(("difference", "test loss", *SCORES), rows)


def what_was_seen(result: Result) -> str:
    """The answers by the criterion of `experiment`."""
    lines = [loss_sentence(name, ours) for name, ours in result["against_dense"].items()]
    lines += filter(None, [floor_sentence(result)])
    return "**What was seen.** " + " ".join(lines) if lines else ""


def floor_sentence(result: Result) -> str:
    """Which systems are no better than a verse that has nothing to do with the English one."""
    another = result["floors"]["another Spanish verse"].get("chrF")
    scores = {
        name: ours["chrF"]["mean"] for name, ours in result["summary"].items() if "chrF" in ours
    }
    below = [f"{name} ({score:.1f})" for name, score in scores.items() if score < another]
    if not scores:
        return ""
    if not below:
        return f"All systems are above the chrF of another verse, {another:.1f}."
    return (
        f"{join(below)} {'is' if len(below) == 1 else 'are'} below the chrF of another verse, "
        f"{another:.1f}: after so little training such a model writes Spanish and hardly reads the "
        "English, so its loss is rather that of a model of Spanish than of a translation."
    )


def loss_sentence(system: str, ours: dict) -> str:
    """Whether the experts translate better than their dense counterpart, by the intervals."""
    loss = ours["test_loss"]
    text = (
        f"{system} at the operations of {COUNTERPARTS[system]} changes the loss by "
        f"{interval(loss, 3)} nats per token: "
    )
    if loss["low"] is None:
        return text + "one seed cannot tell."
    if loss["high"] < 0:
        text += "it is better"
    elif loss["low"] > 0:
        text += "it is worse"
    else:
        return text + "this cannot be told from no difference."
    agree = [name for name in SCORES if name in ours and _agrees(loss, ours[name])]
    undecided = [name for name in SCORES if name in ours and name not in agree]
    if agree:
        text += f", and {join(agree)} {'agrees' if len(agree) == 1 else 'agree'}"
    if undecided:
        text += f", {join(undecided)} cannot tell"
    return text + "."


def _agrees(loss, score):
    return score["low"] > 0 if loss["high"] < 0 else score["high"] < 0


def verses(result: Result) -> str:
    """Some verses as the systems translate them; they were chosen before the runs."""
    tables = []
    for ours in result["shown"]:
        rows = [("English", ours["english"]), ("Reina-Valera 1909", ours["spanish"])]
        rows += [(name, _printable(text)) for name, text in ours["translations"].items()]
        tables.append(markdown_table((ours["verse"], ""), rows))
    first = result["seeds"][0]
    return "\n\n".join([f"**Verses**, of seed {first}, chosen before the runs.", *tables])


def _printable(text):
    """A model that knows little writes control characters too."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def published(result: Result) -> str:
    """What the paper prints at its scale, and why it cannot be compared."""
    rows = [
        (f"{name}, {direction}", decimal(perplexity, 2), decimal(bleu, 2), operations, size)
        for direction, systems in result["paper"].items()
        for name, (perplexity, bleu, operations, size) in systems.items()
    ]
    head = ("paper, newstest2014", "test perplexity", "BLEU", "operations per token", "parameters")
    text = (
        "These cannot be compared with ours. The languages and the text are others (news; 36 and 5 "
        f"million pairs of sentences, here {result['pairs']['train']:,} of one book); the "
        "perplexities are of other tokens (32,000 word pieces); BLEU is there that of "
        "multi-bleu.pl on a text already cut into tokens, which is not sacrebleu's, with beam "
        "search; and the BLEU of verses and of news differ in themselves. One may look at the "
        "direction: the model with 2,048 experts is better than GNMT with more parameters and "
        "fewer operations, which is not at equal operations. Fedus et al. 2021 print no BLEU."
    )
    return markdown_table(head, rows) + "\n\n" + text


def _power(result):
    losses = {
        f"{system} less {COUNTERPARTS[system]}": ours["test_loss"]
        for system, ours in result["against_dense"].items()
    }
    return power_sentence(losses, len(result["seeds"]), "nats per token")
