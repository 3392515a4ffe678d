"""The questions in tables and words: which claims hold, then each question with its numbers."""

from collections.abc import Sequence

from moe_np.experiments.common.controlled_claims import WORDS, table
from moe_np.experiments.common.decisions import decisions_table, other_thresholds
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.reports import (
    DEVIATIONS,
    decimal,
    join,
    markdown_table,
    mean_sd,
)
from moe_np.experiments.why_it_works.allocation import E
from moe_np.experiments.why_it_works.allocation_at_random import REGIONS
from moe_np.experiments.why_it_works.cooperation import errors_sensitivity
from moe_np.experiments.why_it_works.experiment import QUESTIONS
from moe_np.experiments.why_it_works.questions import ALL_INTERVALS
from moe_np.experiments.why_it_works.tasks import EQUATIONS
from moe_np.experiments.why_it_works.when_experts_specialise import TIMES
from moe_np.experiments.why_it_works.when_it_helps import cell_name

CORRECTION = (
    "Every question has a criterion that was fixed before the runs. The "
    f"{ALL_INTERVALS} intervals of all cases and controls of all questions hold together in 95 of "
    "100 tables (Bonferroni). d is the mean divided by the deviation of the runs, or a dash where "
    "they hardly differ. “Would hold in 80 % of cases from” is the true value of the measure "
    "from which on as many runs with this spread find so often that the claim holds; where it is "
    "far from the smallest difference, a table that cannot tell says little. Controls are in "
    "italics: the claim must hold in the first kind and be not supported in the second, or nothing "
    "can be told; what stands beside the claim has no part in its verdict."
)


def report(result: Result) -> str:
    """First which claims hold, then each question with its table and its verdict. Markdown."""
    answers = result["questions"]
    rows = [
        (QUESTIONS[name].title, answer["claim"], WORDS[answer["holds"]])
        for name, answer in answers.items()
    ]
    parts = [markdown_table(("question", "claimed", "verdict"), rows), CORRECTION]
    parts += [section(name, answer) for name, answer in answers.items()]
    if result["quick"]:
        warning = "Few seeds and short runs: this shows that it works and nothing else."
        parts.insert(0, warning)
    return "\n\n".join(parts)


def section(name: str, answer: Result) -> str:
    """One question: claim, table, verdict."""
    question = QUESTIONS[name]
    claim = f"Claimed: {answer['claim']} ({question.source}). Verdict: {WORDS[answer['holds']]}."
    parts = [f"**{question.title}** {claim}", question.case, TABLES[name](answer["summary"])]
    if name in DEVIATIONS_OF:
        parts.append(_caption(answer, DEVIATIONS_OF[name]))
    parts += [_criterion(question), table(answer["decisions"])]
    if name == "errors":
        parts.append(decisions_table(errors_sensitivity(answer["summary"])))
    return "\n\n".join([*parts, f"{answer['verdict']} {_sensitivity(question, answer)}"])


def _sensitivity(question, answer):
    """The verdict with other choices of what decides."""
    if question.sensitivity is not None:
        return question.sensitivity(answer["summary"])
    return other_thresholds(question.criterion, answer["decisions"], question.whole)


def _criterion(question):
    """The criterion and its reason, before the table of decisions."""
    rule = question.criterion._replace(level=round(question.criterion.level, 4))
    return f"*Criterion.* {rule.text()} {question.reason}"


def _caption(answer, deviation):
    """Of what and of how many runs a ± is."""
    summary = answer["summary"]
    parts = [summary] if isinstance(summary, list) else summary.values()
    cells = [cell for part in parts for cell in part]
    counts = sorted({cell.get("n", answer["runs"] // len(cells)) for cell in cells})
    unit = "run" if counts == [1] else "runs"
    return f"Mean ± {DEVIATIONS[deviation]} over {join(counts, 'or')} {unit} per row."


# --- When it helps --------------------------------------------------------------------------------


def help_table(summary: Result) -> str:
    """Test errors of the regressions, and percent right on the patches."""
    rows = [
        (
            cell_name(cell["clouds"], cell["rule"]),
            *(decimal(cell[name], 4) for name in ("mixture", "net")),
            mean_sd(cell["log ratio"]),
            f"{cell['wins']} of {cell['n']}",
        )
        for cell in summary["regimes"]
    ]
    error = "regression, test error (geometric mean)"
    regression = markdown_table((error, "mixture", "net", "log ratio", "mixture better"), rows)
    rows = []
    for cell in summary["patches"]:
        sign = "the centre patch names the cluster" if cell["told"] else "it is another sample's"
        net = f"{mean_sd(cell['net'], 1)} (training {cell['net, training'][0]:.1f})"
        rows.append((sign, mean_sd(cell["mixture"], 1), net, f"{cell['wins']} of {cell['n']}"))
    head = ("Chen et al.'s clusters, % right", "mixture", "net", "mixture better")
    return f"{regression}\n\n{markdown_table(head, rows)}"


def learns_table(summary: Sequence[Result]) -> str:
    """Bits of the gate and of k-means."""
    rows = [
        (
            cell_name(cell["clouds"], cell["rule"]),
            mean_sd(cell["gate"]),
            mean_sd(cell["k-means"]),
        )
        for cell in summary
    ]
    bits = "bits about the nearest of four centres (2 at most)"
    return markdown_table((bits, "the gate", "k-means of the inputs"), rows)


# --- More experts ---------------------------------------------------------------------------------


def more_table(summary: Sequence[Result]) -> str:
    """Likelihood and error per number of experts."""
    rows = []
    for cell in summary:
        names = ("train", "test", "error", "net")
        train, test, error, net = (mean_sd(cell[name]) for name in names)
        rows.append((cell["experts"], train, test, decimal(cell["median test"]), error, net))
    head = ("experts", "training likelihood", "test likelihood", "its median", "test error")
    head += ("that of a network of equal size",)
    return markdown_table(head, rows)


def harder_table(summary: Result) -> str:
    """Experts of the easy and the hard half of the curve, and of the pairs of vowels."""
    rows = [
        (f"{cell['amplitude']:g}", mean_sd(cell["easy"], 1), mean_sd(cell["hard"], 1))
        for cell in summary["curve"]
    ]
    amplitude = "waves on the right, amplitude"
    curve = markdown_table((amplitude, "experts on the straight half", "on the wavy half"), rows)
    names = ("front", "back", "front wrong", "back wrong")
    rows = [
        (cell["experts"], *(mean_sd(cell[name], 1) for name in names)) for cell in summary["vowels"]
    ]
    head = ("vowels: experts", "in use for [i] [ɪ]", "for [ɑ] [ʌ]", "% wrong there", "and there")
    return f"{curve}\n\n{markdown_table(head, rows)}"


def idle_table(summary: Sequence[Result]) -> str:
    """Experts in use, and what the error loses without the others."""
    rows = [
        (cell["task"], mean_sd(cell["in use"], 1), f"{cell['without the idle'][0]:+.4f}")
        for cell in summary
    ]
    return markdown_table(("", "in use", "squared error, the idle taken away"), rows)


# --- The gate -------------------------------------------------------------------------------------


def collapse_table(summary: Sequence[Result]) -> str:
    """Gradients at the release and escapes per kind and bias; without one, the largest."""
    rows = [
        (
            EQUATIONS.get(cell["kind"], f"sparse, {cell['kind']}"),
            f"{cell['bias']:g}" if cell["bias"] else "none, where the gate's is largest",
            decimal(cell["share"][0], 1, factor=100),
            f"{cell['gate gradient'][0]:.2g}",
            f"{cell['first gradient'][0]:.2g}",
            f"{cell['other gradient'][0]:.2g}",
            f"{cell['escaped']} of {cell['n']}",
            decimal(cell["when"], 0),
            mean_sd(cell.get("accuracy"), 1, missing=""),
        )
        for cell in summary
    ]
    head = ("", "bias", "% to the first expert", "gate's gradient", "first expert's", "another's")
    head += ("runs that got away", "epoch (median)", "% right at the end")
    return markdown_table(head, rows)


def k_table(summary: Sequence[Result]) -> str:
    """The router's gradient, the error and the bits per choice of k."""
    rows = [
        (
            cell["choice"],
            mean_sd(cell["gradient"]),
            f"{cell['zero']} of {cell['n']}",
            decimal(cell["error"], 4),
            mean_sd(cell["bits"]),
        )
        for cell in summary
    ]
    head = ("", "router's first gradient", "runs with exactly 0 throughout")
    head += ("test error (geometric mean)", "bits about the region (of 2)")
    return markdown_table(head, rows)


# --- What keeps experts apart ---------------------------------------------------------------------


def equal_table(summary: Sequence[Result]) -> str:
    """How far experts are apart, and how fast they part."""
    rows = [
        (
            EQUATIONS[cell["error"]],
            cell["start"],
            "learns" if cell["gate learns"] else "held at ¼",
            *(f"{cell[name]:.1e}" if cell[name] else "0" for name in ("first", "last")),
            mean_sd(cell["rate"], 2, factor=100),
            mean_sd(cell["in use"], 1),
            decimal(cell["squared"][0], 3),
        )
        for cell in summary
    ]
    head = ("error", "experts start", "gate", "apart at first", "at last")
    head += ("growth, % per epoch", "experts in use", "squared error")
    return markdown_table(head, rows)


def errors_table(summary: Sequence[Result]) -> str:
    """How much experts depend on each other, per task and error."""
    rows = [
        (
            cell["task"],
            EQUATIONS[cell["error"]],
            decimal(cell["blend"], 3),
            decimal(cell["alone"], 3),
            f"{cell['dependent']} of {cell['n']}",
            mean_sd(cell["cancelled"], 1, factor=100),
            mean_sd(cell["correlation"]),
            f"{cell['without']:.3g}",
            mean_sd(cell["in use"], 1),
        )
        for cell in summary
    ]
    head = ("task", "error", "blend's (median)", "one expert's", "that more than twice it")
    head += ("% cancelled", "correlation", "one missing", "experts in use")
    return markdown_table(head, rows)


# --- Who gets what --------------------------------------------------------------------------------


def time_table(summary: Sequence[Result]) -> str:
    """Epochs until shares of the information are there."""
    rows = [
        (
            cell["task"],
            mean_sd(cell["bits"]),
            *(mean_sd(cell[name], 0) for name in (*TIMES, "learned", "epochs")),
        )
        for cell in summary
    ]
    head = ("", "bits about the region, at the end", "epochs until a tenth is there for good")
    head += ("half", "nine tenths", "until half of the fall of the error", "of")
    return markdown_table(head, rows)


def random_table(summary: Sequence[Result]) -> str:
    """How many runs gave a region to each expert."""
    rows = [
        (cell["task"], region, *counts, decimal(chi2, 1))
        for cell in summary
        for region, counts, chi2 in zip(
            REGIONS[cell["task"]], cell["counts"], cell["chi2"], strict=True
        )
    ]
    experts = (f"expert {e + 1}" for e in range(E))
    return markdown_table(("", "region", *experts, f"χ², {E - 1} df"), rows)


def start_table(summary: Sequence[Result]) -> str:
    """The share of the allocation that each source of chance explains, ± standard error."""
    rows = []
    for cell in summary:
        pairs = {k: (share, cell["se"][k]) for k, share in cell["explained"].items()}
        sources = ("experts", "gate", "noise")
        cells = [mean_sd(pairs.get(source), 0, factor=100) for source in sources]
        by_chance = decimal(cell["agree"]["nothing"][0], 0, factor=100)
        rows.append((cell["task"], f"{cell['scale']:g}", *cells, by_chance))
    head = ("", "gate's start, scale", "% explained by experts' start", "by the gate's")
    head += ("by the noise", "% the same with nothing kept")
    return markdown_table(head, rows)


TABLES = {
    "help": help_table,
    "learns": learns_table,
    "more": more_table,
    "harder": harder_table,
    "idle": idle_table,
    "collapse": collapse_table,
    "k": k_table,
    "equal": equal_table,
    "errors": errors_table,
    "time": time_table,
    "random": random_table,
    "start": start_table,
}
# what a ± is; the table of "random" has none
DEVIATIONS_OF = {name: "sample" for name in TABLES if name != "random"} | {"start": "error"}
