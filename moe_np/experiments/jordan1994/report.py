"""The results of Jordan and Jacobs (1994) in words and tables, published numbers beside ours."""

import numpy as np

from moe_np.data import arm
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    markdown_table,
    mean_sd,
    plural,
)
from moe_np.experiments.jordan1994.runs import BATCH, ONLINE, SYSTEMS, Config, reach
from moe_np.experiments.jordan1994.sensitivity import COVARIANCE_SYSTEMS, RANGE_SYSTEMS

TABLES = (("batch", BATCH, "table1"), ("on-line", ONLINE, "table2"))
COLUMNS = ("error, published", "error", "epochs, published", "epochs", "seconds", "failed")
EM = "HME, Algorithm 1"
COVARIANCE_NAMES = {
    "shared": "one variance for all",
    "expert": "one per expert",
    "full": "a matrix per expert",
}


def report(result: Result) -> str:
    """Tables 1 and 2, published and ours, and how to read them, as Markdown."""
    parts = [_caption(result)]
    for title, systems, name in TABLES:
        rows = [
            (system, *_cells(result["summary"][system], *result["paper"][name][system]))
            for system in systems
            if system in result["summary"]
        ]
        if rows:
            parts.append(markdown_table((title, *COLUMNS), rows))
    parts.append(_power(result))
    parts += remarks(result)
    if "sensitivity" in result:
        parts.append(sensitivity_report(result["sensitivity"]))
    return "\n\n".join(parts)


def _caption(result):
    caption = basis(len(result["seeds"]), "seed", deviation="sample")
    within = 100 * result["config"]["within"]
    return (
        "Relative error on the test set, **of a surrogate of the paper's arm**: the published one, "
        f"and the lowest one of each of our runs, {caption}. Epochs and seconds of learning are "
        f"counted to the first error within {within:.0f} % of the lowest. Seconds are processor "
        "time of one core and differ from machine to machine."
    )


def _cells(ours, error, epochs):
    published_error = decimal(error)
    published_epochs = decimal(epochs, 0, thousands=True)
    if "skipped" in ours:
        left_out = f"left out: {ours['skipped']}"
        return published_error, left_out, published_epochs, MISSING, MISSING, MISSING
    passes = MISSING if epochs is None else mean_sd(ours["epoch"], 0, thousands=True)
    seconds = f"{ours['seconds']['mean']:.2g}"
    error = mean_sd(ours["error"], 3)
    return published_error, error, published_epochs, passes, seconds, ours["failures"]


def _power(result):
    summary = result["summary"]
    errors = {s: ours["error"] for s, ours in summary.items() if "skipped" not in ours}
    return power_sentence(errors, len(result["seeds"]), runs="run", paired=False)


# --- How to read the tables -----------------------------------------------------------------------


def remarks(result: Result) -> list[str]:
    """What can be compared and what cannot, from the numbers of this very run: paragraphs.

    A paragraph that needs a system that was not run is left out.
    """
    paragraphs = (
        ((), how_to_read),
        ((EM, "backprop"), passes_and_seconds),
        ((EM, "HME, Algorithm 2"), sixty_epochs),
        (("HME, on-line", "HME, gradient"), online),
        ((), failures),
        ((), choices),
    )
    return [
        paragraph(result)
        for needed, paragraph in paragraphs
        if set(needed) <= set(result["systems"])
    ]


def how_to_read(result: Result) -> str:
    """The paragraph on the surrogate, with the order of the systems, ours and published."""
    ours = result["summary"]
    error = {name: ours[name]["error"]["mean"] for name in ours if "skipped" not in ours[name]}
    published = {**result["paper"]["table1"], **result["paper"]["table2"]}
    order = " < ".join(sorted(error, key=error.get))
    published_order = " < ".join(sorted(ours, key=lambda name: published[name][0]))
    text = (
        "**How to read it.** The paper does not give the arm. The surrogate has the same joints, "
        "inputs and outputs, and ranges that were chosen so that the linear row comes out: **that "
        "row is no evidence**. How hard the rest is depends on the arm. So the order of the "
        "learners can be compared, and no single error with the published one."
    )
    if len(error) < 2:
        return text
    return f"{text} From lowest to highest: here {order}; in the paper {published_order}."


def passes_and_seconds(result: Result) -> str:
    """The paragraph that compares EM with backprop at the same error, in epochs and in seconds."""
    systems = result["systems"]
    level = max(run["error"] for run in systems[EM])
    text = (
        f"**Passes and seconds.** To an error of {level:.3f}, which all runs of Algorithm 1 reach"
    )
    means = {}
    for name in (EM, "backprop"):
        reached = [point for point in reach(systems[name], level) if point]
        if not reached:
            return f"{text}, {name} never came: there is nothing to compare."
        means[name] = np.mean(reached, axis=0)
        n = len(systems[name])
        count = "" if len(reached) == n else f" ({len(reached)} of {n} runs)"
        epochs, seconds = means[name]
        text += f", {name} took {epochs:,.0f} epochs and {seconds:.2f} s{count}"
    epochs_ratio, seconds_ratio = means["backprop"] / means[EM]
    per_epoch = [result["summary"][name]["seconds an epoch"]["mean"] for name in means]
    return (
        f"{text}. So backprop took {epochs_ratio:.2g} times the epochs and {seconds_ratio:.2g} "
        f"times the seconds: an epoch of EM costs as much as {per_epoch[0] / per_epoch[1]:.0f} of "
        f"backprop. The paper counts epochs, and by that count EM is {_verdict(epochs_ratio)}; by "
        f"the clock it is {_verdict(seconds_ratio)}."
    )


def _verdict(ratio):
    return "ahead" if ratio > 1.1 else "behind" if ratio < 1 / 1.1 else "level"


def sixty_epochs(result: Result) -> str:
    """The sentence on the time of both EM algorithms."""
    names = (EM, "HME, Algorithm 2")
    first, second = (60 * result["summary"][name]["seconds an epoch"]["mean"] for name in names)
    return f"60 epochs of Algorithm 1 take {first:.1f} s here, of Algorithm 2 {second:.1f} s."


def online(result: Result) -> str:
    """The paragraph on the two on-line trees."""
    runs = result["systems"]["HME, on-line"]
    after = [run["errors"][run["epochs"].index(2)] for run in runs if 2 in run["epochs"]]
    start = f"{np.mean(after):.3f} after 2 passes, and at best " if after else ""
    names = ("HME, on-line", "HME, gradient")
    rls, gradient = (result["summary"][name]["error"]["mean"] for name in names)
    return (
        f"**On line.** The error of recursive least squares is {start}{rls:.3f}; that of the "
        f"gradient is {gradient:.3f}."
    )


def failures(result: Result) -> str:
    """The sentence on the runs that failed."""
    counts = {name: ours.get("failures") for name, ours in result["summary"].items()}
    failed = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    level = f"{result['config']['fails']:g}"
    return f"**Failures**, runs that stayed above {level}: {failed or 'none did'}."


def choices(result: Result) -> str:
    """The paragraph on what was chosen here."""
    config = result["config"]
    steps = plural(config["irls_steps"], "Newton step")
    return (
        f"Chosen here: {config['covariance']} variance, {steps} per gate in each M step, log "
        f"ratios within ±{config['clip']:g}, initial weights in ±{config['spread']:g} (nets "
        f"±{config['net_spread']:g}), momentum {config['beta']:g}, learning rates by exploration "
        f"on other seeds. The lowest error of a run is picked on the test set, for all learners "
        'alike. "CART, linear" splits along the least squares fit in a node, which is not the '
        "search of the CART program. The forgetting factor of the on-line tree is the paper's: λ "
        f"begins at {config['forget']:g}, and every {config['every']:,} cases its distance to 1 is "
        f"multiplied by {config['nearer']:g}."
    )


def explore_table(explored: dict[str, dict[float, float]], config: Config) -> str:
    """The exploration of the learning rates."""
    lines = ["Lowest error on separate seeds, runs ended after a fifth, per learning rate:\n"]
    for system, errors in explored.items():
        cells = ", ".join(f"{lr:g}: {error:.3f}" for lr, error in errors.items())
        best = min(errors, key=errors.get)
        used = config.lr[SYSTEMS.index(system)]
        lines.append(f"- {system}: {cells}. Best {best:g}, used {used:g}.")
    return "\n".join(lines)


# --- Other choices --------------------------------------------------------------------------------


def sensitivity_report(results: Result) -> str:
    """Both tables of the other choices, and what they show."""
    seeds = plural(len(results["ranges"][arm.DEFAULT]["linear"]), "seed")
    covariances = {COVARIANCE_NAMES[name]: cells for name, cells in results["covariances"].items()}
    ranges = results["ranges"]
    em = [float(np.mean(errors[EM])) for errors in ranges.values()]
    lowest = [min(errors, key=lambda s: np.mean(errors[s])) for errors in ranges.values()]
    count = lowest.count("backprop")
    return "\n\n".join(
        [
            f"**Other choices.** Mean lowest error over {seeds}.",
            _error_table("variance of the experts", COVARIANCE_SYSTEMS, covariances),
            _error_table("ranges of the surrogate", RANGE_SYSTEMS, ranges),
            "The linear error is the same for all ranges, and that of Algorithm 1 goes from "
            f"{min(em):.2f} to {max(em):.2f}: its distance from a published error shows nothing. "
            f"Backprop, ended at epoch {results['backprop epochs']:,} here, has the lowest error "
            f"of these four in {count} of {len(em)} ranges.",
        ]
    )


def _error_table(title, systems, cells):
    rows = []
    for name, errors in cells.items():
        rows.append((name, *(decimal(np.mean(errors[system]), 3) for system in systems)))
    return markdown_table((title, *systems), rows)
