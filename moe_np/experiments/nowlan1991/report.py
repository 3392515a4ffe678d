"""The results of Nowlan and Hinton (1991) in words and tables, published numbers beside ours."""

from moe_np.data.speech.ten_vowels import FRONT, NAMES
from moe_np.experiments.common.experiment import Result
from moe_np.experiments.common.power_words import power_sentence
from moe_np.experiments.common.reports import (
    MISSING,
    basis,
    decimal,
    join,
    markdown_table,
    mean_sd,
    plural,
    with_published,
)
from moe_np.experiments.common.statistics import Summary, describe, two_sample_t_test
from moe_np.experiments.nowlan1991.runs import BY_NAME, PAPER, ROWS, SYSTEMS, summarise

PARTS = {"train": "training", "test": "generalisation"}  # name here -> name in PAPER
UNCONFIRMED = "from notes on the paper that could not be checked in a copy of it"
CHOSEN = (
    "which formants the experts see (both F1, F2 and F1, F2, F3 are run)",
    "what is the test set (the other repetition of each word, since for new speakers a speaker's "
    "identity cannot help)",
    "which man of the table is left out",
    "20 experts and 20 hidden units, softmax outputs with one-hot targets for both, squared error "
    "for the net",
    "that the gate sees the formants beside the context (rows without them are run as well)",
    f"that σ is .25 (a value {UNCONFIRMED}) from the first step on (rows in which it narrows from "
    "2 are run as well)",
    "initialisation, method (Adam on all cases) and number of steps, and the learning rate of each "
    "published row and system by its training error on separate seeds",
)
NEAR = 2.0  # percentage points


def report(result: Result) -> str:
    """Ours beside the published errors, what comes out and what does not, and what was chosen."""
    caption = basis(len(result["seeds"]), deviation="sample", measure="Percent wrong")
    brackets = f"in brackets the published number of that row, {UNCONFIRMED}."
    parts = [f"{caption}; {brackets}", error_table(result), _power(result)]
    systems = systems_of(result)
    parts += [published_errors(result, system) for system in systems]
    if "mixture" in systems and is_out_of_reach(result):
        parts.append(out_of_reach(result))
    if systems == SYSTEMS:
        parts.append(test_errors(result))
    if "mixture" in systems:
        parts.append(front_vowels(result))
    parts.append(f"**Chosen, because we do not know what the paper did**: {'; '.join(CHOSEN)}.")
    return "\n\n".join(parts)


def systems_of(result: Result) -> tuple[str, ...]:
    """The systems that were run."""
    names = {cell["system"] for cell in result["cells"]}
    return tuple(system for system in SYSTEMS if system in names)


def by_cell(result: Result) -> dict[tuple[str, str], dict[str, Summary]]:
    """{(row, system): what `summarise` has of its runs}."""
    return {(cell["row"], cell["system"]): summarise(cell["runs"]) for cell in result["cells"]}


def published(system: str, row: str | None) -> dict[str, float]:
    """The published errors of a system in a row of PAPER, {"train", "test"}, as far as given."""
    if row is None:
        return {}
    i = SYSTEMS.index(system)
    errors = {name: PAPER[name_in_paper][row][i] for name, name_in_paper in PARTS.items()}
    return {name: error for name, error in errors.items() if error is not None}


def error_table(result: Result) -> str:
    """Training and test errors of every row, published ones in brackets, and the reference."""
    errors = by_cell(result)
    systems = systems_of(result)
    rows = []
    for row in dict.fromkeys(name for name, _ in errors):
        cells = [row]
        for system in systems:
            ours = errors.get((row, system), {})
            wanted = published(system, BY_NAME[row].published)
            for part in PARTS:
                text = mean_sd(ours.get(part), 1)
                cells.append(with_published(text, wanted.get(part)) if ours else text)
        rows.append(cells)
    for formants, both in result["reference"].items():
        name = f"{formants.replace(' ', ', ')}: one normal density per vowel"
        empty = [MISSING] * (2 * len(systems) - 2)
        rows.append([name, *(decimal(error, 1) for error in both), *empty])
    head = ["experts see; gate is told"]
    for system in systems:
        head += [f"{system}, training", "test"]
    return markdown_table(head, rows)


def _power(result):
    errors = {f"{row}, {system}": v["test"][:2] for (row, system), v in by_cell(result).items()}
    n = len(result["seeds"])
    return power_sentence(errors, n, "points of the test error", runs="run", digits=1, paired=False)


# --- What comes out and what does not -------------------------------------------------------------


def published_errors(result: Result, system: str) -> str:
    """The paragraph on which formants come closest to the published errors of a system, row by row,
    and where neither is near.
    """
    errors = by_cell(result)
    sentences = []
    for name in PAPER["training"]:
        wanted = published(system, name)
        ours = {
            row.formants.replace(" ", ", "): {p: errors[row.name, system][p].mean for p in wanted}
            for row in ROWS
            if row.published == name and (row.name, system) in errors
        }
        away = {f: max(abs(means[p] - wanted[p]) for p in wanted) for f, means in ours.items()}
        closest = min(away, key=away.get)
        verdict = "does **not** come out"
        if away[closest] < NEAR:
            verdict = f"comes within {away[closest]:.1f} points with {closest}"
        numbers = [f"{f}: {join(decimal(m, 1) for m in v.values())}" for f, v in ours.items()]
        sentences.append(f"*{name}* {verdict} ({join(wanted.values())}; {'; '.join(numbers)})")
    return (
        f"**The published {system}**, training and test error (near: {NEAR:g} points): "
        f"{'. '.join(sentences)}."
    )


def is_out_of_reach(result: Result) -> bool:
    """Whether a normal density per vowel on two formants is far from the published mixture."""
    errors = published("mixture", "formants").values()
    return min(result["reference"]["F1 F2"]) >= max(errors) + NEAR


def out_of_reach(result: Result) -> str:
    """The paragraph on what two formants can give."""
    train, test = result["reference"]["F1 F2"]
    return (
        f"A normal density per vowel in the plane of F1 and F2 is wrong in {train:.1f} and "
        f"{test:.1f} %: we do not see how two formants alone could give the published mixture's "
        "first row."
    )


def test_errors(result: Result) -> str:
    """The paragraph on which system makes fewer test errors, by a t-test per row."""
    errors = {(c["row"], c["system"]): [r["test"] for r in c["runs"]] for c in result["cells"]}
    rows = {"mixture": [], "backprop": [], "neither": []}
    for row in dict.fromkeys(row for row, system in errors if system == "backprop"):
        test = two_sample_t_test(errors[row, "mixture"], errors[row, "backprop"])
        significant = test.p is not None and test.p <= 0.01
        lower = "mixture" if test.difference < 0 else "backprop"
        means = [decimal(describe(errors[row, system]).mean, 1) for system in SYSTEMS]
        name = lower if significant else "neither"
        rows[name].append(f"{row} ({' against '.join(means)})")
    n = sum(map(len, rows.values()))
    held = len(rows["mixture"])
    texts = [f"{name} in {len(texts)}: {', '.join(texts)}" for name, texts in rows.items() if texts]
    end = "The published advantage comes out in every row."
    if held < n:
        end = f"The published advantage of the mixture comes out in {held} of {n} rows."
    return f"**Which makes fewer test errors** (Welch's t-test, p < .01): {'; '.join(texts)}. {end}"


def front_vowels(result: Result) -> str:
    """The paragraph and table on whether the four front vowels share an expert."""
    front = [NAMES.index(vowel) for vowel in FRONT]
    rows = []
    shared = 0
    closer = 0
    for cell in result["cells"]:
        if cell["system"] != "mixture" or not BY_NAME[cell["row"]].gate_sees_formants:
            continue
        runs = cell["runs"]
        count = sum(len({run["of vowel"][vowel] for vowel in front}) == 1 for run in runs)
        keys = ("front", "front and back", "in use")
        same, different, used = (describe([run[key] for run in runs]).mean for key in keys)
        shared += count
        closer += same > different
        chances = [decimal(chance, 0, factor=100) for chance in (same, different)]
        rows.append((cell["row"], count, *chances, decimal(used, 1)))
    n = len(rows) * len(result["seeds"])
    often = "in " if shared > n / 2 else "does **not** come out as a rule: they do in "
    head = ("runs in which all four share", "two front vowels", "front and other", "experts in use")
    return (
        f"**{PAPER['claim'].capitalize()}** ({UNCONFIRMED}): {often}{shared} of "
        f"{plural(n, 'run')}. Two front vowels go to the same expert more often than a front and "
        f"another vowel in {closer} of {plural(len(rows), 'row')}. In percent of pairs of tokens "
        "of different vowels; experts in use have at least 5 % of all tokens:\n\n"
        + markdown_table(("", *head), rows)
    )
