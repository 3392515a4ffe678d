"""What `moe_np.experiments.nowlan1991.experiment` found: published numbers beside ours, and
sentences from the run itself.
"""

import numpy as np

from moe_np.data.speech import ten_vowels as data
from moe_np.experiments.nowlan1991.experiment import BY_NAME, CHOSEN, PAPER, ROWS, SYSTEMS


def mean_sd(values):
    values = np.asarray(values, dtype=float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def by_cell(result):
    """{(row, system): {"train": (mean, sd), "test": (mean, sd)}}."""
    return {
        (c["row"], c["system"]): {k: mean_sd([r[k] for r in c["runs"]]) for k in ("train", "test")}
        for c in result["cells"]
    }


def table(result):
    """Ours beside the published errors, what was chosen, and what does not come out. Markdown."""
    found, n = by_cell(result), len(result["seeds"])
    lines = [
        f"Percent wrong, mean ± SD over {n} run{'s' if n > 1 else ''}; in brackets the published number of that row. "
        "\n",
        "| experts see; told | mixture, training | test | backprop, training | test |",
        "|---|---|---|---|---|",
    ]
    for row in dict.fromkeys(name for name, _ in found):
        published = BY_NAME[row].published
        cells_ = []
        for i, system in enumerate(SYSTEMS):
            for key, where in (("train", "training"), ("test", "generalisation")):
                if (row, system) not in found:
                    cells_.append("–")
                    continue
                mean, sd = found[row, system][key]
                theirs = PAPER[where][published][i] if published else None
                cells_.append(
                    f"{mean:.1f} ± {sd:.1f}" + (f" ({theirs})" if theirs is not None else "")
                )
        lines.append(f"| {row} | " + " | ".join(cells_) + " |")
    for formants, (train, test) in result["reference"].items():
        lines.append(
            f"| {formants.replace(' ', ', ')}: one normal density a vowel | {train:.1f} | {test:.1f} | – | – |"
        )
    chosen = "; ".join(CHOSEN)
    return "\n".join(
        [
            *lines,
            "",
            says(result),
            "",
            f"**Chosen, because we do not know what the paper did**: {chosen}.",
        ]
    )


def says(result):
    """What comes out and what does not, from the numbers of this very run."""
    parts_ = [
        nearest(result, 0),
        nearest(result, 1),
        out_of_reach(result),
        better(result),
        front_vowels(result),
    ]
    return "\n\n".join(p for p in parts_ if p)


NEAR = 2.0  # points


def nearest(result, i):
    """Which set of formants is nearer to the published numbers of system i, row by row, and where
    neither is near.
    """
    found, system, sentences = by_cell(result), SYSTEMS[i], []
    for published in PAPER["training"]:
        pairs = (("train", PAPER["training"]), ("test", PAPER["generalisation"]))
        theirs = {
            k: numbers[published][i] for k, numbers in pairs if numbers[published][i] is not None
        }
        ours = {
            row.formants.replace(" ", ", "): {k: found[row.name, system][k][0] for k in theirs}
            for row in ROWS
            if row.published == published and (row.name, system) in found
        }
        away = {name: max(abs(mean[k] - theirs[k]) for k in theirs) for name, mean in ours.items()}
        best = min(away, key=away.get)
        verdict = (
            f"comes within {away[best]:.1f} points with {best}"
            if away[best] < NEAR
            else "does **not** come out"
        )
        others = "; ".join(
            f"{name}: " + " and ".join(f"{v:.1f}" for v in m.values()) for name, m in ours.items()
        )
        sentences.append(
            f"*{published}* {verdict} ({' and '.join(map(str, theirs.values()))}; {others})"
        )
    return (
        f"**The published {system}**, training and test error (near: {NEAR:g} points): "
        + ". ".join(sentences)
        + "."
    )


def out_of_reach(result):
    """Can two formants alone give the published mixture's first row?"""
    (train, test), published = (
        result["reference"]["F1 F2"],
        [PAPER[k]["formants"][0] for k in PAPER if k != "claim"],
    )
    if min(train, test) < max(published) + NEAR:
        return ""
    return (
        f"A normal density for each vowel in the plane of F1 and F2 is wrong in {train:.1f} and {test:.1f} %: we do "
        "not see how two formants alone could give the published mixture's first row."
    )


def better(result):
    """Is the mixture better than backprop, as published?"""
    from scipy import stats

    runs = {(c["row"], c["system"]): [r["test"] for r in c["runs"]] for c in result["cells"]}
    verdicts = {"mixture": [], "backprop": [], "neither": []}
    for row in dict.fromkeys(row for row, system in runs if system == "backprop"):
        a, b = (np.array(runs[row, system]) for system in SYSTEMS)
        p = 1.0
        if len(a) > 1 and a.var() + b.var() > 0:
            p = float(stats.ttest_ind(a, b, equal_var=False).pvalue)
        name = "neither" if p > 0.01 else "mixture" if a.mean() < b.mean() else "backprop"
        verdicts[name].append(f"{row} ({a.mean():.1f} against {b.mean():.1f})")
    texts = [f"{name} in {len(v)}: {', '.join(v)}" for name, v in verdicts.items() if v]
    total = sum(len(v) for v in verdicts.values())
    end = (
        "The published advantage comes out in every row."
        if len(verdicts["mixture"]) == total
        else f"The published advantage of the mixture comes out in {len(verdicts['mixture'])} of {total} rows."
    )
    return (
        "**Who makes fewer test errors** (Welch's t-test, p < .01): "
        + "; ".join(texts)
        + ". "
        + end
    )


def front_vowels(result):
    """Do the four front vowels share an expert?"""
    lines, front = [], [data.NAMES.index(v) for v in data.FRONT]
    for c in result["cells"]:
        if c["system"] == "mixture" and BY_NAME[c["row"]].gate_sees_formants:
            one = sum(len({r["of vowel"][v] for v in front}) == 1 for r in c["runs"])
            same, other, in_use = (
                mean_sd([r[k] for r in c["runs"]])[0] for k in ("front", "front and back", "in use")
            )
            lines.append((c["row"], one, same, other, in_use))
    shared, n = sum(line[1] for line in lines), len(lines) * len(result["seeds"])
    closer = sum(same > other for _, _, same, other, _ in lines)
    rows = [
        f"| {row} | {one} | {100 * same:.0f} | {100 * other:.0f} | {used:.1f} |"
        for row, one, same, other, used in lines
    ]
    often = "in " if shared > n / 2 else "does **not** come out as a rule: they do in "
    return "\n".join(
        [
            f"**{PAPER['claim'].capitalize()}**: {often}{shared} of {n} runs. Two front vowels go to the same expert "
            f"more often than a front and another vowel in {closer} of {len(lines)} rows. In percent of pairs "
            "of tokens of different vowels; experts in use have 5 % of all tokens:\n",
            "| | runs in which all four share | two front vowels | front and other | experts in use |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )
