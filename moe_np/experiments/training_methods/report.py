"""The training methods in tables and words: one table per problem, the claims with their verdicts,
what follows from them.
"""

from moe_np.experiments.common.controlled_claims import WORDS, section
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import (
    basis,
    decimal,
    join,
    markdown_table,
    mean_sd,
    plural,
)
from moe_np.experiments.training_methods.claims import CLAIMS, INTERVALS, WITHDRAWN
from moe_np.experiments.training_methods.runs import LONGER, SINGLE, SYSTEMS
from moe_np.experiments.training_methods.summary import DEFAULT, above_level

COUNTS = {"failed": "failed", "stuck": "still", "unfinished": "unfinished"}  # key -> its word


def report(result: Result) -> str:
    """One table per problem, the claims with their verdicts, and what else the run says.

    Of some of the methods: their tables, and the claims that can be decided.
    """
    parts = [heading(result)]
    parts += [problem_table(result, problem) for problem in result["systems"]]
    if result["claims"]:
        parts += [claims_table(result)]
        parts += [
            section(CLAIMS[key], answer["decisions"]) for key, answer in result["claims"].items()
        ]
        parts += [sensitivity_table(result)]
    if len(result["lines"]) == len(SYSTEMS):
        parts += [omissions(result), how_to_read(result)]
    return "\n\n".join(parts)


# --- Tables ---------------------------------------------------------------------------------------


def heading(result: Result) -> str:
    """What the columns of the tables are."""
    config = result["config"]
    caption = basis(len(result["seeds"]), "initialisation", deviation="sample", sentence=True)
    budget = f"{config['passes']} passes over the training data for each method"
    if LONGER in result["lines"]:
        budget += f" ({config['longer']} times as many for “{LONGER}”)"
    text = (
        f"{caption}; {budget}. Loss is minus the mean log likelihood of the training cases. "
        "*First choice* is the quality if only the expert with the largest p answers. "
        "*Specialised* is the information of the chosen expert about the region, in % of all there "
        "is, less what chance gives. *Idle* experts are first choice for under 5 % of the cases."
    )
    if SINGLE in result["lines"]:
        text += (
            " *To the level*: median passes and seconds until the loss is within a tenth of the "
            "way from the least median of a method to one expert alone. The other runs were "
            "*still* at the end, or *unfinished* and gaining; a still run may go on later."
        )
    return text


def problem_table(result: Result, problem: str) -> str:
    """One row per method; without one expert alone there is no level, and no column for it."""
    summary = result["summary"][problem]
    n = len(result["seeds"])
    has_level = summary["level"] is not None
    best = decimal(summary["best"], 3, unsigned_zero=True)
    words = [f"quality: {result['measures'][problem]} of the test data"]
    if has_level:
        words.append(f"failed is below {summary['failure']:.1f}")
        words.append(f"least median loss {best}, level {summary['level']:.3f}")
    else:
        words.append(f"least median loss {best}")
    head = ["method", "quality", "first choice", "loss", "specialised %", "idle"]
    if has_level:
        head += [*COUNTS.values(), "passes to the level", "seconds to it"]
    rows = []
    for system, values in summary["systems"].items():
        quality = mean_sd(values["quality"], 1, unsigned_zero=True)
        cells = [system, quality, decimal(values["quality_hard"]["mean"], 1)]
        cells.append(mean_sd(values["loss"], 3, unsigned_zero=True))
        cells.append(mean_sd(values["specialisation"], 0, unsigned_zero=True))
        cells.append(decimal(values["idle"]["mean"], 1))
        if has_level:
            cells += [f"{values[key]} of {n}" for key in COUNTS]
            cells += [decimal(values["passes"], 0, missing="never")]
            cells += [decimal(values["seconds"], 3, missing="never")]
        rows.append([*cells, decimal(values["whole"])])
    table = markdown_table([*head, "seconds per run"], rows)
    return f"**{problem}** ({'; '.join(words)})\n\n{table}"


# --- Claims ---------------------------------------------------------------------------------------


def claims_table(result: Result) -> str:
    """One row per claim with its verdict, how to read the cases, and what is withdrawn."""
    rows = [
        (CLAIMS[key].title, answer["claim"], WORDS[answer["verdict"]])
        for key, answer in result["claims"].items()
    ]
    table = markdown_table(("question", "claimed", "verdict"), rows)
    return (
        f"**What articles say, measured.** Differences are by seed, with "
        f"{plural(len(result['seeds']), 'seed')} that no earlier version used, since the criteria "
        f"are new. The intervals of all {INTERVALS} cases and controls hold together in 95 of 100 "
        "tables (Bonferroni). There is one set of data per problem, so they are about "
        "initialisations only. A run that is not at the level when its budget ends is taken to "
        f"need at least the budget and at most {DEFAULT.ceiling} times as many passes, and an "
        "interval goes from the bound for the least to that for the greatest ratio: with many such "
        "runs it is wide, and nothing can be told. The range of the seconds per pass widens it in "
        "the same way. d is the mean difference (of the middle of each range) divided by its "
        "deviation over seeds. “Would hold in 80 % of cases from” is the power: the true value "
        "from which on as many seeds find that the claim holds. Controls are in italics; where one "
        "does not come "
        f"out, nothing can be told.\n\n{table}\n\n{withdrawn()}"
    )


def withdrawn() -> str:
    """The claims that these runs cannot decide."""
    rows = [(claim, subject, f"cannot be told: {why}") for subject, claim, why in WITHDRAWN]
    return markdown_table(("claim, withdrawn", "of", "verdict"), rows)


def sensitivity_table(result: Result) -> str:
    """What changes in the table of claims with other thresholds."""
    rows = []
    for row in result["sensitivity"]:
        changed = [f"“{c['claim']}”: {c['verdict']}" for c in row["changed"]]
        cells = f"{row['cells']} of {row['of']}"
        rows.append((row["thresholds"], cells, "; ".join(changed) or "none"))
    table = markdown_table(("threshold", "answers that change", "verdicts that change"), rows)
    return (
        "**Sensitivity.** That the level is a tenth of the way, where the way begins, and how many "
        "passes a run needs at most that misses the level are our choices. The same runs with "
        f"others, cases and controls:\n\n{table}"
    )


# --- Words ----------------------------------------------------------------------------------------


def omissions(result: Result) -> str:
    """What articles leave out: how many runs miss the level, and which method is best where."""
    summaries = result["summary"]
    n = len(result["seeds"]) * len(result["systems"])
    lowest = {p: _extreme(summary, "loss", min) for p, summary in summaries.items()}
    highest = {p: _extreme(summary, "quality", max) for p, summary in summaries.items()}
    differ = [problem for problem in summaries if lowest[problem] != highest[problem]]
    good = [
        f"{system} ({problem})"
        for problem, summary in summaries.items()
        for system in SYSTEMS
        if above_level_and_good(summary["systems"], system, len(result["seeds"]))
    ]
    text = (
        f"**What they leave out.** Of {n} runs on all problems, those above the level and those "
        f"that failed: {_missed(summaries)}. Lowest mean loss: {_by_problem(lowest)}. Highest mean "
        f"quality on test data: {_by_problem(highest)}. "
    )
    if differ:
        text += (
            f"So the best fit of the training data is not the best on test data ({join(differ)}). "
        )
    if good:
        text += (
            "Mostly above the level and yet no worse on test data than joint training: "
            f"{join(good)}. "
        )
    return f"{text}EM, which the articles do not name, has no learning rate to choose."


def _missed(summaries):
    """Per method, on all problems together, the runs above the level and those that failed."""
    missed, failed = (
        {s: sum(count(summary["systems"][s]) for summary in summaries.values()) for s in SYSTEMS}
        for count in (above_level, lambda values: values["failed"])
    )
    ordered = sorted((s for s in SYSTEMS if s != SINGLE), key=lambda s: (missed[s], failed[s]))
    return ", ".join(f"{system} {missed[system]} and {failed[system]}" for system in ordered)


def _extreme(summary, key, choose):
    """The method with the least or the greatest mean."""
    systems = {name: summary["systems"][name] for name in SYSTEMS}
    return choose(systems, key=lambda system: systems[system][key]["mean"])


def _by_problem(systems):
    return ", ".join(f"{system} ({problem})" for problem, system in systems.items())


def above_level_and_good(systems: dict[str, Result], system: str, n: int) -> bool:
    """Whether most of the n runs end above the level, at no lower quality than joint training."""
    if system == "joint":
        return False
    values = systems[system]
    is_good = values["quality"]["mean"] >= systems["joint"]["quality"]["mean"]
    return above_level(values) > n / 2 and is_good


def how_to_read(result: Result) -> str:
    """What the numbers do not say."""
    return (
        "**How to read it.** There is one set of data per problem: the deviation is that of the "
        "initialisations. Gradient methods use Adam, and the learning rate of every method (for "
        "evolution σ of the first mutations) was that of the least final loss, of a grid on "
        "separate seeds. None was chosen for speed: another may get to the level sooner. Separate "
        "training trains the gating network in its second half only, and cannot get to the level "
        "sooner. A pass counts the same for experts that are computed in vain: a layer that "
        "computes only the chosen expert would save separate training and REINFORCE three quarters "
        "of the experts' work. Hard routing descends a bound on the loss and not the loss, and "
        "misses the level for that reason too. Passes to the level are read off at checkpoints "
        "that are a seventh to a fifth apart. Seconds are of one processor and small arrays, on "
        "the machine of the run, and of these programs: much of them is Python. The seconds per "
        "pass are the range of three seeds, of each the least of three times. The gate of "
        "separate training knows the regions and not the experts; what the experts gain with it "
        "held says nothing of what a better gate would gain. Lines are of our own files without "
        "docstrings; "
        f"EM's {result['lines']['EM']} do not include its regressions."
    )
