"""The training methods in tables and words: one table per problem, the claims with their verdicts,
what follows from them.
"""

from moe_np.experiments.common.decisions import CONDITION
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import basis, decimal, join, markdown_table, mean_sd
from moe_np.experiments.training_methods.claims import WITHDRAWN, number_or_never
from moe_np.experiments.training_methods.runs import LONGER, SINGLE, SYSTEMS
from moe_np.experiments.training_methods.summary import above_level

COUNTS = ("failed", "stuck", "unfinished")


def report(result: Result) -> str:
    """One table per problem, the claims with their verdicts, and what else the run says.

    Of some of the methods: their tables, and the claims that can be decided.
    """
    parts = [heading(result)]
    parts += [problem_table(result, problem) for problem in result["systems"]]
    parts.append(_power(result))
    if result["claims"]:
        parts += [claims_table(result), sensitivity_table(result)]
    if len(result["lines"]) == len(SYSTEMS):
        parts += [disagreements(result), omissions(result), how_to_read(result)]
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
            "way from the least median of a method to one expert alone; *stuck* and *unfinished* "
            "runs never are."
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
        head += [*COUNTS, "passes to the level", "seconds to it"]
    rows = []
    for system, values in summary["systems"].items():
        quality = mean_sd(values["quality"], 1, unsigned_zero=True)
        cells = [system, quality, decimal(values["quality_hard"]["mean"], 1)]
        cells.append(mean_sd(values["loss"], 3, unsigned_zero=True))
        cells.append(mean_sd(values["specialisation"], 0, unsigned_zero=True))
        cells.append(decimal(values["idle"]["mean"], 1))
        if has_level:
            cells += [f"{values[key]} of {n}" for key in COUNTS]
            cells += [number_or_never(values["passes"]), number_or_never(values["seconds"], 3)]
        rows.append([*cells, decimal(values["whole"])])
    table = markdown_table([*head, "seconds per run"], rows)
    return f"**{problem}** ({'; '.join(words)})\n\n{table}"


def _power(result):
    qualities = {
        f"{system} on {problem}": ours["quality"]
        for problem, summary in result["summary"].items()
        for system, ours in summary["systems"].items()
    }
    n = len(result["seeds"])
    return power_sentence(qualities, n, "points of quality", digits=1, runs="run", paired=False)


def claims_table(result: Result) -> str:
    """One row per claim: what was measured on each problem, and the verdict."""
    names = list(result["systems"])
    rows = []
    for claim in result["claims"]:
        cells = [f"**{claim['found'][name]}** {claim['cells'][name]}" for name in names]
        words = [claim["about"], claim["claim"], claim["measured"]]
        where = [name for name, answer in claim["found"].items() if answer == "yes"]
        condition = f": {join(where)}" if claim["verdict"] == CONDITION else ""
        rows.append([*words, *cells, f"{claim['verdict']}{condition}"])
    table = markdown_table(["of", "claim", "measured", *names, "verdict"], rows)
    return (
        "**What articles say, measured.** On a problem: yes, no (not seen) or reverse, at p < .05 "
        "after Holm's correction for all tests of this table; the p in a cell is one-sided, for "
        "the claim, and not corrected. There is one set of data per problem, so p is about "
        f"initialisations only.\n\n{table}\n\n{withdrawn()}"
    )


def withdrawn() -> str:
    """The claims that these runs cannot decide."""
    rows = [(claim, subject, f"cannot be told: {why}") for subject, claim, why in WITHDRAWN]
    return markdown_table(("claim, withdrawn", "of", "verdict"), rows)


def sensitivity_table(result: Result) -> str:
    """What changes in the table of claims with other thresholds."""
    rows = []
    for row in result["sensitivity"]:
        changed = [f"{c['about']}, “{c['claim']}”: {c['verdict']}" for c in row["changed"]]
        cells = f"{row['cells']} of {row['of']}"
        rows.append((row["thresholds"], cells, "; ".join(changed) or "none"))
    table = markdown_table(("threshold", "answers that change", "verdicts that change"), rows)
    return (
        "**Sensitivity.** A tenth of the way, a hundredth of a gain and the last fifth are our "
        f"choices. The same runs with others:\n\n{table}"
    )


# --- Words ----------------------------------------------------------------------------------------


def disagreements(result: Result) -> str:
    """The claims that do not hold everywhere, by how far they are off."""
    parts = {"The reverse is seen": [], "Seen nowhere": [], "Seen on some problems": []}
    for claim in result["claims"]:
        name = f"{claim['about']}, “{claim['claim']}”"
        problems = {}
        for problem, answer in claim["found"].items():
            problems.setdefault(answer, []).append(problem)
        if "reverse" in problems:
            parts["The reverse is seen"].append(f"{name} ({', '.join(problems['reverse'])})")
        if "yes" not in problems and "reverse" not in problems:
            parts["Seen nowhere"].append(name)
        elif "yes" in problems and "no" in problems:
            parts["Seen on some problems"].append(f"{name} (only {', '.join(problems['yes'])})")
    sentences = [f"{words}: {'; '.join(names)}." for words, names in parts.items() if names]
    return (
        f"**Where the articles are wrong here.** {' '.join(sentences) or 'Nowhere.'} Where no "
        "joint run ends above the level there is nothing that evolution could avoid, and a “no” "
        "means no more than that."
    )


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
    systems = summary["systems"]
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
        "evolution σ of the first mutations) was the best of a grid on separate seeds. Separate "
        "training trains the gating network in its second half only, and cannot get to the level "
        "sooner. A pass counts the same for experts that are computed in vain: a layer that "
        "computes only the chosen expert would save separate training and REINFORCE three quarters "
        "of the experts' work. Hard routing descends a bound on the loss and not the loss, and "
        "misses the level for that reason too. Passes to the level are read off at checkpoints "
        "that are a seventh to a fifth apart. Seconds are of one thread and small arrays, on the "
        "machine of the run, and of these programs: much of them is Python. Of the seconds per "
        "pass of three seeds the claim takes those that are the worst for it. Lines are of our own "
        "files without docstrings; "
        f"EM's {result['lines']['EM']} do not include its regressions."
    )
