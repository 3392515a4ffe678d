"""The pages that Sphinx reads, gathered into one folder from all over the checkout.

    index, articles, architecture, glossary, notation, kernels, changelog,
    numbers                                                                  lessons/site
    contributing                                                             .github
    lessons/            the notebooks, their solutions, errata and references
    topics/             the reference by topic (topics.py)
    reference/          a page for each module (reference.py)
    teaching/           how to hand out and grade coursework
    figures/            the report of the figures

Links are added on the way (links.py), so that the notebooks and pages of the checkout stay as they
are.
"""

import itertools
import json
import pathlib
import re
import shutil

from lessons.site import animations, course, glossary_links, links, reference, topics

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INDEX = "index.md"  # with the table of the course
NUMBERS = "numbers.md"  # made of the report
SPEED = "speed.md"  # made of the history of the bench
TEACHING = ("TEACHING", "STUDENTS", "README")


def write_texts(source: pathlib.Path) -> None:
    """All pages but the report of the figures and what is made of it, into the folder `source`."""
    for path in sorted(HERE.glob("*.md")):
        if path.name not in (INDEX, NUMBERS, SPEED):
            is_glossary = path == glossary_links.GLOSSARY
            text = glossary_links.with_targets(read(path)) if is_glossary else read(path)
            write(source / path.name, links.in_markdown(text, ""))
    write(source / INDEX, index())
    write(source / "contributing.md", contributing())
    lessons = ROOT / "lessons"
    for path in sorted(lessons.glob("[0-9]*.ipynb")):
        write(source / "lessons" / path.name, notebook(path))
    for path in sorted((lessons / "solutions").glob("[0-9]*.py")):
        write(source / "lessons" / "solutions" / f"{path.stem}.md", solution(path))
    write(source / "lessons" / "errata.md", errata(read(lessons / "errata.md")))
    references = links.in_markdown(read(lessons / "references.md"), "../")
    write(source / "lessons" / "references.md", references)
    for name in TEACHING:
        page = links.in_markdown(read(lessons / "assignments" / f"{name}.md"), "../")
        write(source / "teaching" / f"{name}.md", page)
    topics.write(source / "topics")
    reference.write(source / "reference", topics.of_modules())


def read(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def contributing() -> str:
    """.github/CONTRIBUTING.md with the links that hold on the site."""
    text = read(ROOT / ".github" / "CONTRIBUTING.md")
    return links.in_markdown(text.replace("](../lessons/site/", "]("), "")


def index() -> str:
    """The first page, with the table of the course."""
    text = links.in_markdown(read(HERE / "index.md"), "")
    return text.replace("@@COURSE@@", course.table())


def errata(text: str) -> str:
    """The errata with a target before each item, for `errata.md#errata-3`, and after each item the
    lessons that name it.
    """
    head, *items = re.split(r"^(?=## \d+\. )", text, flags=re.MULTILINE)
    out = [links.in_markdown(head, "../", "errata")]
    for item in items:
        number = int(re.match(r"## (\d+)", item)[1])
        out.append(f"(errata-{number})=\n{links.in_markdown(item, '../', 'errata').rstrip()}\n")
        if numbers := course.lessons_with(number):
            out.append(f"\nIn the lessons: {course.lesson_links(numbers, '../')}.\n")
        out.append("\n")
    return "".join(out)


# --- lessons --------------------------------------------------------------------------------------


def notebook(path: pathlib.Path) -> str:
    """A lesson's notebook as a page: links, its place in the course, and the code behind it.

    Cells in which a learner writes a prediction are left out, and so is what a self-check prints
    about a function that is not yet written.
    """
    content = json.loads(read(path))
    cells = [cell for cell in content["cells"] if not is_for_writing(cell)]
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = lines_of(lesson_text(text, path.stem))
        elif re.search(r"^self_check\(", text, re.MULTILINE):
            cell["metadata"] = {**cell["metadata"], "tags": ["remove-output"]}
    prose = [cell for cell in cells if cell["cell_type"] == "markdown"]
    texts = glossary_links.with_first_uses(["".join(cell["source"]) for cell in prose], "../")
    for cell, text in zip(prose, texts, strict=True):
        cell["source"] = lines_of(text)
    title, _, text = "".join(cells[0]["source"]).partition("\n")
    head = [title, course.place(path.stem), animation(path.stem), text]
    cells[0]["source"] = lines_of("\n\n".join(part for part in head if part))
    cells.append(
        {
            "cell_type": "markdown",
            "id": "behind",
            "metadata": {},
            "source": lines_of(course.used_in(path.stem)),
        }
    )
    return json.dumps({**content, "cells": cells}, ensure_ascii=False, indent=1)


def is_for_writing(cell: dict) -> bool:
    """Whether a cell is one in which a learner writes a prediction."""
    text = "".join(cell["source"])
    return cell["cell_type"] == "code" and bool(re.search(r"^predict\(", text, re.MULTILINE))


def lines_of(text: str) -> list[str]:
    """The source of a cell."""
    return text.splitlines(keepends=True)


def lesson_text(text: str, stem: str) -> str:
    """The Markdown of a cell with the links that hold on the site."""
    moved = (("](site/", "](../"), ("](README.md", "](../index.md"))
    for here, on_the_site in moved:
        text = text.replace(here, on_the_site)
    text = re.sub(r"\]\(solutions/(\w+)\.py\)", r"](solutions/\1.md)", text)
    return links.in_markdown(text, "../", stem)


def animation(stem: str) -> str:
    """The moving picture of a lesson, if it has one."""
    if stem not in animations.PICTURES:
        return ""
    name, words = animations.PICTURES[stem]
    still = f'<source srcset="../_static/{name}.png" media="(prefers-reduced-motion), print">'
    image = f'<img src="../_static/{name}.gif" alt="{words}" class="moving">'
    return f"<picture>{still}{image}</picture>\n\n{words}"


def solution(path: pathlib.Path) -> str:
    """A file of solutions as a page: its text, and its code as it stands, which is not run."""
    parts = ["---", "orphan: true", "---", ""]
    for block in re.split(r"^# %%", read(path), flags=re.MULTILINE)[1:]:
        kind, _, text = block.partition("\n")
        if kind.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
            parts.append(lesson_text(text.strip(), path.stem).replace("](../", "](../../"))
        elif text.strip():
            parts.append(f"```python\n{text.strip()}\n```")
    back = f"Back to [the lesson](../{path.stem}.ipynb)."
    return "\n\n".join(["\n".join(parts[:3]), *parts[4:], back]) + "\n"


# --- pages made of figures -----------------------------------------------------------------------


def write_speed(source: pathlib.Path) -> None:
    """The history of the bench with its picture."""
    from figures import Job
    from figures.layer_speed import history

    section = history.make(Job(None, source / "figures"))
    shown = section.replace("](history.png)", "](figures/history.png)")
    write(source / SPEED, links.in_markdown(read(HERE / SPEED).replace("@@HISTORY@@", shown), ""))


def write_report(report: pathlib.Path, source: pathlib.Path) -> None:
    """The report of the figures from its folder, and the page of numbers that is made of it."""
    (source / "figures").mkdir()
    for pattern in ("REPORT.md", "*.png"):
        for path in sorted(report.glob(pattern)):
            shutil.copy(path, source / "figures")
    page = read(HERE / NUMBERS).replace("@@REPORT@@", tables(read(report / "REPORT.md")))
    write(source / NUMBERS, links.in_markdown(page, ""))


def tables(text: str) -> str:
    """The tables of the report that have published numbers beside ours, each under its title.

    Not those of figures, which repeat the numbers of the paper's tables.
    """
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    warning = re.search(r"^\*\*Made with `--quick`.*$", head, re.MULTILINE)
    parts = [warning[0]] if warning else []
    for section in sections:
        title, _, body = section.partition("\n")
        blocks = body.strip().split("\n\n")
        for before, table in itertools.pairwise(blocks):
            head = table.partition("\n")[0]
            has_both = "published value" in before or re.search("published|recorded", head)
            if table.startswith("|") and has_both and "Fig." not in title:
                basis = [] if before.startswith("![") else [before]
                parts += [f"### {title}", *basis, table]
                break
    return "\n\n".join(parts)
