"""The pages that Sphinx reads, gathered into one folder from all over the checkout.

    index, articles, architecture, glossary, notation, kernels, changelog,
    numbers                                                                  lessons/site
    contributing                                                             .github
    lessons/            the notebooks, errata and references
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

from lessons.site import links, reference, topics

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NUMBERS = "numbers.md"  # made of the report
SPEED = "speed.md"  # made of the history of the bench
TEACHING = ("TEACHING", "STUDENTS", "README")


def write_texts(source: pathlib.Path) -> None:
    """All pages but the report of the figures and what is made of it, into the folder `source`."""
    for path in sorted(HERE.glob("*.md")):
        if path.name not in (NUMBERS, SPEED):
            write(source / path.name, links.in_markdown(read(path), ""))
    write(source / "contributing.md", contributing())
    lessons = ROOT / "lessons"
    for path in sorted(lessons.glob("[0-9]*.ipynb")):
        write(source / "lessons" / path.name, notebook(path))
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


def errata(text: str) -> str:
    """The errata with a target before each item, for `errata.md#errata-3`."""
    targets = re.sub(r"^## (\d+)\. ", r"(errata-\1)=\n## \1. ", text, flags=re.MULTILINE)
    return links.in_markdown(targets, "../", "errata")


def notebook(path: pathlib.Path) -> str:
    """A lesson's notebook with links in its Markdown cells."""
    content = json.loads(read(path))
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            for here, on_the_site in (("](site/", "](../"), ("](README.md", "](../index.md")):
                text = text.replace(here, on_the_site)
            text = links.in_markdown(text, "../", path.stem)
            cell["source"] = text.splitlines(keepends=True)
    return json.dumps(content, ensure_ascii=False, indent=1)


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
