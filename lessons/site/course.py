"""The course on the site: its lessons in order with a time for each, and what each one uses.

The time is counted by a rule and not guessed. It is the time to read a lesson and to work through
it once, without the function to write and without the exercises:

    200 words per minute          of text, tables and formulas left out
    1 minute per formula          that stands on a line of its own
    1 minute per 12 lines         of code that is not a drawing, an import or an assertion
    1 minute per prediction
    2 minutes per stepper
"""

import ast
import functools
import json
import pathlib
import re
from typing import NamedTuple

from lessons.site import links

LESSONS = pathlib.Path(__file__).resolve().parents[1]
RULE = """
The minutes are counted and not guessed: 200 words of text per minute, 1 minute per formula on a
line of its own, 1 per 12 lines of code that do not draw, import or assert, 1 per prediction, and 2
per stepper. The function to write and the exercises come on top.
""".strip()
WORDS_PER_MINUTE = 200
LINES_PER_MINUTE = 12
DRAWING = re.compile(
    r"^\s*(?:ax|axes|fig|plt|plots|import|from|assert|print|#|\"\"\")|^\s*[)\]}]*$"
)


class Lesson(NamedTuple):
    """A lesson as the table of the course shows it."""

    number: str  # "09", "00b"
    stem: str  # "09_balance"
    title: str  # without its number
    afterwards: str  # what one can do afterwards, from lessons/README.md
    minutes: int


@functools.cache
def lessons() -> tuple[Lesson, ...]:
    """All lessons in their order."""
    readme = (LESSONS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[^\]]+\]\((\w+)\.ipynb\) \| (.+?) \|$", readme, re.MULTILINE)
    afterwards = dict(rows)
    made = []
    for number, stem in links.lesson_names().items():
        cells = cells_of(stem)
        title = re.search(r"^# (.+)$", cells[0][1], re.MULTILINE)[1].partition(" · ")[2]
        made.append(Lesson(number, stem, title, afterwards.get(stem, ""), minutes(cells)))
    return tuple(made)


def cells_of(stem: str) -> list[tuple[str, str]]:
    """[(kind, source)] of a lesson's notebook."""
    content = json.loads((LESSONS / f"{stem}.ipynb").read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in content["cells"]]


def minutes(cells: list[tuple[str, str]]) -> int:
    """The time that a lesson takes, by the rule above, without what is closed and the exercises."""
    text, code = [], []
    for kind, source in cells:
        if kind == "markdown":
            text.append(source.partition("## Exercises")[0])
        else:
            code.append(source)
    prose = re.sub(r"<details>.*?</details>", "", "\n\n".join(text), flags=re.DOTALL)
    formulas = len(re.findall(r"\$\$.+?\$\$", prose, re.DOTALL))
    words = len(re.sub(r"\$\$.+?\$\$|^\|.*$", "", prose, flags=re.DOTALL | re.MULTILINE).split())
    steppers = sum(len(re.findall(r"^view\(", source, re.MULTILINE)) for source in code)
    lines = sum(not DRAWING.match(line) for source in code for line in source.splitlines())
    predictions = prose.count("**Predict")
    counted = words / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE
    return round(counted + formulas + predictions + 2 * steppers)


def table() -> str:
    """The course as a table in Markdown, for the first page."""
    lines = ["| | lesson | afterwards you can | minutes |", "|---|---|---|--:|"]
    for lesson in lessons():
        link = f"[{lesson.title}](lessons/{lesson.stem}.ipynb)"
        lines.append(f"| {lesson.number} | {link} | {lesson.afterwards} | {lesson.minutes} |")
    total = sum(lesson.minutes for lesson in lessons())
    return "\n".join([*lines, "", f"{RULE} All together they are {total / 60:.0f} hours."])


def place(stem: str) -> str:
    """Where a lesson stands in the course, how long it takes, and how one runs it."""
    order = [lesson.stem for lesson in lessons()]
    lesson = lessons()[order.index(stem)]
    where = f"Lesson {order.index(stem) + 1} of {len(order)}, about {lesson.minutes} minutes"
    counted = "[how they are counted](../index.md#the-course)"
    return f"*{where} ({counted}). To run it yourself: `python3 run.py lab {lesson.number}`.*"


# --- links between lessons, code and errata -------------------------------------------------------


@functools.cache
def modules_of(stem: str) -> tuple[str, ...]:
    """The modules of the package that a lesson imports, in alphabetical order."""
    names = set()
    for kind, source in cells_of(stem):
        if kind == "code":
            names |= set(imported(source))
    return tuple(sorted(names))


def imported(source: str) -> list[str]:
    """The documented modules that a piece of code imports, or from which it imports names."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("moe_np"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.append(inner if inner in links.documented() else node.module)
    return [name for name in names if name in links.documented()]


@functools.cache
def errata_of(stem: str) -> tuple[int, ...]:
    """The numbers of the errata that a lesson names."""
    text = "\n".join(source for kind, source in cells_of(stem) if kind == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    numbers = re.findall(rf"errata\s+({links.NUMBERS})", text)
    rows = re.findall(
        r"^\| \d+ [^|]+\| (\d+) \|", text, re.MULTILINE
    )  # the last table of lesson 15
    return tuple(sorted({int(n) for part in [*numbers, *rows] for n in re.findall(r"\d+", part)}))


def lessons_with(name: str | int) -> tuple[str, ...]:
    """The numbers of the lessons that import a module, or name an item of the errata."""
    of = errata_of if isinstance(name, int) else modules_of
    return tuple(lesson.number for lesson in lessons() if name in of(lesson.stem))


def used_in(stem: str) -> str:
    """The code and the errata behind a lesson, as Markdown with links."""
    modules = [f"[{name}](../reference/{name}.rst)" for name in modules_of(stem)]
    errata = [f"[{n}](errata.md#errata-{n})" for n in errata_of(stem)]
    lines = ["## Behind this lesson", "", f"Code: {', '.join(modules)}."]
    lines += ["", f"Errata: {', '.join(errata)}."] if errata else []
    return "\n".join(lines)


def lesson_links(numbers: tuple[str, ...], up: str) -> str:
    """Links to lessons in Markdown: "[07](../lessons/07_sparse.ipynb), ..."."""
    names = links.lesson_names()
    return ", ".join(f"[{number}]({up}lessons/{names[number]}.ipynb)" for number in numbers)
