"""Generalisation in tables and words: the verdicts, then each claim with its cases and controls."""

from moe_np.experiments.common.decisions import VERDICTS, in_words, other_thresholds
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import (
    basis,
    decimal,
    interval,
    join,
    markdown_table,
    mean_sd,
    plural,
)
from moe_np.experiments.common.verdicts import CANNOT_BE_TOLD, HOLDS, NOT_SUPPORTED
from moe_np.experiments.generalisation.article_claims import (
    CASE,
    CLAIMS,
    INTERVALS,
    LONG,
    MUST_FAIL,
    MUST_HOLD,
    Claim,
)
from moe_np.experiments.generalisation.data_sets import HELD_OUT, INPUTS, NOISE, SHIFT, TESTED
from moe_np.experiments.generalisation.experiment import whole_verdict_of

WORDS = {word: f"**{word}**" if word == NOT_SUPPORTED else word for word in VERDICTS}


def report(result: Result) -> str:
    """Which claims hold, then each claim with its criterion and cases, then the losses."""
    answers = result["claims"]
    rows = [
        (CLAIMS[name].title, answer["claim"], WORDS[answer["verdict"]])
        for name, answer in answers.items()
    ]
    parts = [markdown_table(("question", "claimed", "verdict"), rows), _how_to_read(result)]
    parts += [section(CLAIMS[name], answer) for name, answer in answers.items()]
    parts += [_losses(result)]
    if "sharing" in answers:
        parts.append(_memory(result))
    return "\n\n".join(parts)


def _how_to_read(result):
    config = result["config"]
    share, factor, _ = INPUTS[LONG]
    return (
        f"{plural(len(result['seeds']), 'seed')} per system, {config['cases']} training cases, "
        f"{config['steps']} steps of {config['batch']}; the vowels have 280 validation and 540 "
        f"test cases, the others {HELD_OUT} and {TESTED:,}. Differences are by seed: a seed gives "
        "all systems the same data. Every criterion was fixed before the runs. The intervals of "
        f"all {INTERVALS} cases and controls of all claims hold together in 95 of 100 tables "
        "(Bonferroni). d is the mean difference divided by its deviation over seeds. “Would hold "
        "in 80 % of cases from” is the true difference from which on as many seeds with this "
        "spread would find that the claim holds. Controls are in italics; where one does not come "
        "out, nothing can be told. A control that must fail has to be not supported. Earlier runs "
        "with 8 to 40 other seeds were looked at before controls, rivals and dense nets were added "
        "and changed, and the spread of the controls in 8 of them; these seeds, from "
        f"{result['seeds'][0]} on, are new. Not varied, so that the verdicts hold for these values "
        f"alone: noise of {NOISE:g} on inputs, a shift of {SHIFT:g}, {100 * share:g} % outliers "
        f"{factor:g} times as long, {config['steps']} steps, and the learning rate "
        f"{max(config['rates'])}, at which the rise to the end is read off."
    )


def section(claim: Claim, answer: Result) -> str:
    """One claim: where it is from, the case, the criterion, the decisions, the verdict."""
    rule = claim.criterion._replace(level=answer["decisions"][0]["level"])
    rule = rule._replace(level=round(rule.level, 4))
    head = ("case", "mean [interval]", "d", "would hold in 80 % of cases from", "verdict")
    rows = [
        (
            d["case"] if d["role"] == CASE else f"*{d['role']}: {d['case']}*",
            interval([d[key] for key in ("estimate", "low", "high")], 3),
            decimal(d["effect"], 1),
            decimal(d["detectable"], 3),
            d["verdict"],
        )
        for d in answer["decisions"]
    ]
    text = (
        f"**{claim.title}** Claimed: {claim.claim} ({claim.source}). "
        f"Verdict: {WORDS[answer['verdict']]}.\n\n"
        f"{claim.case}\n\n*Criterion.* {rule.text()} {claim.reason}"
    )
    words = in_words([d for d in answer["decisions"] if d["role"] == CASE])
    if not answer["controls"]:
        words = f"{_controls(answer['decisions'])} Whatever the controls say: {words}"
    sensitivity = other_thresholds(claim.criterion, answer["decisions"], _whole)
    words = f"{words[0].upper()}{words[1:]} {sensitivity}"
    return f"{text}\n\n{markdown_table(head, rows)}\n\n{words}"


def _controls(decisions):
    """The controls that did not come out, and whether they failed or could not be told."""
    expected = {MUST_HOLD: HOLDS, MUST_FAIL: NOT_SUPPORTED}
    failed = [d for d in decisions if d["verdict"] != expected.get(d["role"], d["verdict"])]
    parts = (
        f"{d['role']}: {d['case']} "
        f"({'could not be told' if d['verdict'] == CANNOT_BE_TOLD else 'failed: ' + d['verdict']})"
        for d in failed
    )
    return f"Nothing can be told, since a control did not come out: {join(parts)}."


def _whole(decisions):
    return whole_verdict_of(decisions)[1]


def _losses(result):
    """The mean losses of every cell."""
    rows = [
        (
            cell["problem"],
            cell["system"],
            result["config"][cell["cases"]],
            "" if cell["inputs"] == "clean" else cell["inputs"],
            *(mean_sd(cell[name], 3) for name in ("test", "noisy", "shifted", "overfit")),
            f"{cell['operations']['mean']:,.0f}",
            f"{cell['parameters']['mean']:,.0f}",
        )
        for cell in result["cells"]
    ]
    head = ("problem", "system", "cases", "outliers", "test loss", "with noise", "shifted")
    head += ("rise to the end", "operations", "parameters")
    measure = "loss in nats per case"
    caption = basis(
        len(result["seeds"]), "seed", deviation="sample", measure=measure, sentence=True
    )
    return f"{caption}.\n\n{markdown_table(head, rows)}"


def _memory(result):
    """How much memory sharing saves, which is arithmetic."""
    sizes = {
        cell["system"]: cell["parameters"]["mean"]
        for cell in result["cells"]
        if cell["problem"] == "regions"
    }
    top_2 = sizes["top-2 of 8"]
    shares = " and ".join(
        f"{100 * sizes[name] / top_2:.0f} % with {words}"
        for name, words in (
            ("one shared expert", "one shared expert"),
            ("shared first layer", "a shared first layer"),
        )
    )
    return (
        f"**Memory.** Of the parameters of top-2 on the regions there are {shares}. That sharing "
        "saves memory is so where something is shared that was there several times, and by as "
        "much; an expert that all cases pass in place of a routed one saves nothing."
    )
