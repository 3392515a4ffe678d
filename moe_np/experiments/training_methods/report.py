"""The ways to train as Markdown: a table a problem, the articles' claims with their verdicts, what
to make of them.
"""

from moe_np.experiments.training_methods.claims import above, number


def pm(one, digits=1):
    return f"{plain(one['mean'], digits)} ± {one['sd']:.{digits}f}"


def plain(value, digits):
    """No −0.000."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def table(result):
    """A table a problem, the claims with their verdicts, and what else the run says. Markdown."""
    parts = [heading(result)]
    parts += [problem_table(result, problem) for problem in result["systems"]]
    return "\n\n".join([*parts, claims_table(result), remarks(result)])


def heading(result):
    config, n = result["config"], len(result["seeds"])
    return (
        f"Mean ± SD over {n} start{'s' if n > 1 else ''}; {config['passes']} passes over the training data for each "
        f"method ({config['longer']} times as many in the last row). Loss is minus the mean log likelihood of the "
        "training cases. *First choice* is the quality if only the expert with the largest p answers. *Specialised* is "
        "the information of the chosen expert about the region, in % of all there is, less what chance gives. *Idle* "
        "experts are first choice for under 5 % of the cases. *To the level*: median passes and seconds until the loss "
        "is within a tenth of the way from the best to one expert alone; *stuck* and *unfinished* runs never do."
    )


def problem_table(result, problem):
    found, n = result["summary"][problem], len(result["seeds"])
    lines = [
        f"**{problem}** (quality: {result['measures'][problem]} of the test data; failed is below "
        f"{found['failure']:.1f}; best loss {plain(found['best'], 3)}, level {found['level']:.3f})\n",
        "| method | quality | first choice | loss | specialised % | idle | failed | stuck | unfinished | "
        "passes to the level | seconds to it | seconds a run |",
        "|---" * 12 + "|",
    ]
    for system, one in found["systems"].items():
        cells = [pm(one["quality"]), f"{one['quality_hard']['mean']:.1f}", pm(one["loss"], 3)]
        cells += [pm(one["specialisation"], 0), f"{one['idle']['mean']:.1f}"]
        cells += [f"{one[key]} of {n}" for key in ("failed", "stuck", "unfinished")]
        cells += [number(one["passes"]), number(one["seconds"], 3), f"{one['whole']:.2f}"]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def claims_table(result):
    problems = list(result["systems"])
    lines = [
        "**What articles say, measured.** Of a problem: yes, no (not seen) or reverse, p one-sided for the claim.\n",
        "| of | claim | measured | " + " | ".join(problems) + " | verdict |",
        "|---" * (len(problems) + 4) + "|",
    ]
    for one in result["claims"]:
        cells = [f"**{one['found'][p]}** {one['cells'][p]}" for p in problems]
        row = [one["about"], one["claim"], one["measured"], *cells, one["verdict"]]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def remarks(result):
    """Where the articles are wrong here, what they leave out, and how to read it, from the numbers
    of this very run.
    """
    return "\n\n".join([wrong(result), left_out(result), reading(result)])


def wrong(result):
    """The claims that do not hold everywhere, by how far they are off."""
    kinds = {"reverse": [], "nowhere": [], "somewhere": []}
    for one in result["claims"]:
        name, where = f"{one['about']}, “{one['claim']}”", {}
        for problem, found in one["found"].items():
            where.setdefault(found, []).append(problem)
        if "reverse" in where:
            kinds["reverse"].append(f"{name} ({', '.join(where['reverse'])})")
        if "yes" not in where and "reverse" not in where:
            kinds["nowhere"].append(name)
        elif "yes" in where and "no" in where:
            kinds["somewhere"].append(f"{name} (only {', '.join(where['yes'])})")
    words = {
        "reverse": "The reverse is seen",
        "nowhere": "Seen nowhere",
        "somewhere": "Seen on some problems",
    }
    text = [f"{words[kind]}: {'; '.join(found)}." for kind, found in kinds.items() if found]
    return (
        "**Where the articles are wrong here.** "
        + (" ".join(text) or "Nowhere.")
        + " Where no joint run ends above the level there is nothing for evolution to avoid, and a “no” says no more."
    )


def left_out(result):
    summary, n = result["summary"], len(result["seeds"]) * len(result["systems"])
    systems = next(iter(summary.values()))["systems"]
    missed = {s: sum(above(own["systems"][s]) for own in summary.values()) for s in systems}
    failed = {s: sum(own["systems"][s]["failed"] for own in summary.values()) for s in systems}
    order = sorted((s for s in systems if s != "one expert"), key=lambda s: (missed[s], failed[s]))
    counts = ", ".join(f"{s} {missed[s]} and {failed[s]}" for s in order)
    lowest = {p: by(own, "loss", min) for p, own in summary.items()}
    highest = {p: by(own, "quality", max) for p, own in summary.items()}
    differ = [p for p in summary if lowest[p] != highest[p]]
    good = [
        f"{s} ({p})"
        for p, own in summary.items()
        for s in systems
        if stuck_and_good(result, own["systems"], s)
    ]
    return (
        f"**What they leave out.** Of {n} runs on all problems, those above the level and those failed: {counts}. "
        f"Lowest mean loss: {listed(lowest)}. Highest mean quality on test data: {listed(highest)}. "
        + (
            f"So fitting the training data best is not the same as being best ({', '.join(differ)}). "
            if differ
            else ""
        )
        + (
            f"Mostly above the level and yet no worse on test data than joint training: {', '.join(good)}. "
            if good
            else ""
        )
        + "EM, which the articles do not name, has no step size to choose."
    )


def stuck_and_good(result, systems, system):
    one, joint = systems[system], systems["joint"]
    often = above(one) > len(result["seeds"]) / 2
    return one is not joint and often and one["quality"]["mean"] >= joint["quality"]["mean"]


def by(own, key, pick):
    return pick(own["systems"], key=lambda system: own["systems"][system][key]["mean"])


def listed(names):
    return ", ".join(f"{system} ({problem})" for problem, system in names.items())


def reading(result):
    return (
        "**How to read it.** One set of data a problem: the spread is that of the starts. Gradient methods use Adam, "
        "and every method's step size was the best of a grid on seeds of its own. Separate training trains the gate in "
        "its second half only, and cannot get to the level sooner. A pass counts the same for experts that are "
        "computed in vain: a layer that computes the chosen expert only would save separate training and REINFORCE "
        "three quarters of the experts' work. Hard routing descends a bound on the loss and not the loss, and misses "
        "the level for that reason too. Passes to the level are read off at checkpoints a seventh to a fifth apart. "
        "Seconds are of one thread and small arrays, on the machine of the run. Lines are of our own files without "
        f"docstrings; EM's {result['lines']['EM']} do not count its regressions."
    )
