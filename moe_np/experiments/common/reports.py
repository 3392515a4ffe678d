"""How the experiments print: numbers with their spread, intervals, p values, lists of names, and
Markdown tables.

    mean_sd((1190, 43), 0)                       1190 ± 43
    interval((0.12, 0.05, 0.19))                 0.12 [0.05, 0.19]
    p_value(0.0123, name="p")                    p = 0.012
    proportion(3, 25, (0.12, 0.04, 0.30))        3 of 25, 12 % [4, 30]
    join(["a", "b", "c"])                        a, b and c
    plural(25, "run")                            25 runs
    with_published("13.1 ± 0.4", 13.9)           13.1 ± 0.4 (13.9)
    basis(25, "run", deviation="sample")         mean ± sample SD over 25 runs

A ± says nothing before its reader knows of what and of how many: `basis` is the line that says it.
`moe_np.experiments.common.statistics` computes what is printed here.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from moe_np.base.checks import InputError, choice, integer, number

MISSING = "–"  # what stands where there is no value
DEVIATIONS = {  # what a ± may mean -> its words
    "sample": "sample SD",  # divided by n − 1
    "population": "population SD",  # divided by n
    "error": "standard error",  # sample SD / √n
}
ALIGNMENTS = {"-": "---", "l": ":--", "c": ":-:", "r": "--:"}

# {"mean": m, "sd": s}, a pair (m, s) or a `statistics.Summary`; sd None: not known
MeanSd: TypeAlias = Mapping[str, Any] | Sequence[float | None] | None
# {"estimate": e, "low": l, "high": h}, (e, l, h) or a `statistics.Interval`
Bounds: TypeAlias = Mapping[str, Any] | Sequence[float] | None


# --- Numbers --------------------------------------------------------------------------------------


def decimal(
    value: float | None,
    digits: int = 2,
    *,
    factor: float = 1,
    thousands: bool = False,
    unsigned_zero: bool = False,
    missing: str = MISSING,
) -> str:
    """`factor` · value with `digits` decimals; `missing` where value is None or NaN.

    thousands       1,190 and not 1190
    unsigned_zero   0.00 and not -0.00 for what is rounded to zero from below
    """
    if value is None or math.isnan(value):
        return missing
    text = f"{factor * value:{',' if thousands else ''}.{digits}f}"
    return text.removeprefix("-") if unsigned_zero and not text.strip("-0.") else text


def mean_sd(
    value: MeanSd,
    digits: int = 2,
    *,
    factor: float = 1,
    thousands: bool = False,
    unsigned_zero: bool = False,
    missing: str = MISSING,
) -> str:
    """A mean and its deviation: "1190 ± 43".

    Only the mean where the deviation is None (one run has none); `missing` where value is None.
    The options are those of `decimal`. Which deviation it is, `basis` says, once per table.
    """
    if value is None:
        return missing
    if isinstance(value, Mapping):
        mean, sd = value["mean"], value["sd"]
    elif len(value) >= 2:
        mean, sd = value[:2]
    else:
        raise InputError(f"value: wanted a mean and a deviation, got {value!r}")
    options = {"factor": factor, "thousands": thousands, "missing": missing}
    text = decimal(mean, digits, unsigned_zero=unsigned_zero, **options)
    return text if sd is None else f"{text} ± {decimal(sd, digits, **options)}"


def interval(
    value: Bounds,
    digits: int = 2,
    *,
    factor: float = 1,
    thousands: bool = False,
    unsigned_zero: bool = False,
    missing: str = MISSING,
) -> str:
    """An estimate with the bounds of its interval: "0.12 [0.05, 0.19]"; `missing` for None.

    The options are those of `decimal`. Which interval it is, `interval_basis` says.
    """
    if value is None:
        return missing
    if isinstance(value, Mapping):
        value = [value[key] for key in ("estimate", "low", "high")]
    if len(value) < 3:
        raise InputError(f"value: wanted an estimate and two bounds, got {value!r}")
    options = {"factor": factor, "thousands": thousands, "unsigned_zero": unsigned_zero}
    estimate, low, high = (decimal(v, digits, missing=missing, **options) for v in value[:3])
    return f"{estimate} [{low}, {high}]"


def p_value(
    p: float | None,
    digits: int = 2,
    *,
    name: str = "",
    smallest: float = 0.0,
    coarse_below: float = 0.0,
    missing: str = MISSING,
) -> str:
    """A p value with `digits` significant digits: "0.012", or with a name "p = 0.012".

    smallest       below it, "< 0.001" or "p < 0.001"; 0: every p value is printed
    coarse_below   below it, one significant digit
    """
    if p is None or math.isnan(p):
        return missing
    p = number("p", p, minimum=0, maximum=1)
    if p < smallest:
        return f"{name} < {smallest:g}".lstrip()
    text = f"{p:.0e}" if p < coarse_below else f"{p:.{digits}g}"
    return f"{name} = {text}" if name else text


def proportion(count: int, n: int, value: Bounds = None, digits: int = 0) -> str:
    """A count of a number of cases: "3 of 25", and with the interval of the share (between 0 and 1)
    "3 of 25, 12 % [4, 30]".
    """
    count = integer("count", count, minimum=0, maximum=integer("n", n))
    if value is None:
        return f"{count} of {n}"
    share, bounds = interval(value, digits, factor=100).split(" ", 1)
    return f"{count} of {n}, {share} % {bounds}"


def with_published(ours: str, published: float | str | None, form: str = "") -> str:
    """Our value and the published one in brackets: "13.1 ± 0.4 (13.9)"; ours alone if that is None.

    form   the format of the published number; as it is where the form is empty
    """
    return ours if published is None else f"{ours} ({published:{form}})"


# --- Words ----------------------------------------------------------------------------------------


def join(names: Iterable[Any], word: str = "and", empty: str = "nothing") -> str:
    """Names with commas, and `word` before the last: "a, b and c"; `empty` if there are none."""
    names = [str(name) for name in names]
    if len(names) < 2:
        return names[0] if names else empty
    return f"{', '.join(names[:-1])} {word} {names[-1]}"


def plural(n: int, unit: str, units: str | None = None) -> str:
    """A number with its unit, which takes an s unless n is 1: "1 run", "25 runs".

    units   the plural, where it is another one: plural(2, "class", "classes")
    """
    return f"{n:d} {unit if n == 1 else units or unit + 's'}"


def basis(
    n: int,
    unit: str = "run",
    *,
    deviation: str,
    measure: str = "",
    words: str | None = None,
    sentence: bool = False,
) -> str:
    """Of what and of how many a ± is: "mean ± sample SD over 25 runs".

    deviation   "sample" (n − 1), "population" (n) or "error" (standard error of the mean)
    measure     what was measured, put before: "percent wrong, mean ± sample SD over 25 runs"
    words       how the deviation is called, if not by the words of DEVIATIONS
    sentence    with a capital letter
    """
    words = DEVIATIONS[choice("deviation", deviation, DEVIATIONS)] if words is None else words
    return _caption(n, unit, measure, f"mean ± {words}", sentence)


def interval_basis(
    n: int,
    unit: str = "run",
    *,
    level: float = 0.95,
    measure: str = "",
    words: str = "t interval",
    sentence: bool = False,
) -> str:
    """Of what and of how many an interval is: "mean [95 % t interval] over 25 runs".

    words   the method: "t interval", "BCa bootstrap interval", ...; the rest as in `basis`
    """
    level = number("level", level, greater_than=0, maximum=1)
    return _caption(n, unit, measure, f"mean [{100 * level:g} % {words}]", sentence)


def _caption(n, unit, measure, statistic, sentence):
    text = f"{statistic} over {plural(integer('n', n), unit)}"
    text = f"{measure}, {text}" if measure else text
    return text[0].upper() + text[1:] if sentence else text


# --- Tables ---------------------------------------------------------------------------------------


def cell(value: Any) -> str:
    """The text of one cell: what would end it (a bar, a line break) is escaped."""
    return re.sub(r"\r\n?|\n", "<br>", str(value).replace("|", "\\|"))


def markdown_row(cells: Iterable[Any]) -> str:
    """One line of a Markdown table. None is an empty cell of one blank, "" one of two."""
    return "|" + "|".join(" " if c is None else f" {cell(c)} " for c in cells) + "|"


def markdown_table(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], *, align: str = "", padded: bool = False
) -> str:
    """A Markdown table: the head, the rule, a line per row.

    head, rows   cells of any type, printed by `str` and escaped (`cell`); every row as long as head
    align        one letter per column, "-" not said, "l" left, "c" centre, "r" right; a shorter
                 string leaves the last columns as they are
    padded       blanks in the rule: | --- | --- | and not |---|---|

    Raises InputError for an empty head, another letter, and a row that is not as long as the head.
    """
    head = list(head)
    least = max(len(align), 1)
    if len(head) < least:
        raise InputError(
            f"head: wanted at least {plural(least, 'column')} for align {align!r}, got {len(head)}"
        )
    rule = [ALIGNMENTS[choice("align", a, ALIGNMENTS)] for a in align.ljust(len(head), "-")]
    lines = [markdown_row(head), markdown_row(rule) if padded else f"|{'|'.join(rule)}|"]
    for i, cells in enumerate(rows):
        cells = list(cells)
        if len(cells) != len(head):
            raise InputError(
                f"rows: wanted {plural(len(head), 'cell')} per row, got {len(cells)} in row {i}"
            )
        lines.append(markdown_row(cells))
    return "\n".join(lines)
