"""What teachers and students read: grades.csv, results and a page per student, a summary."""

import collections
import csv
import html
import io
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from moe_np.coursework.assignments import Assignment
from moe_np.coursework.grading import GradedNotebook
from moe_np.coursework.submissions import Submission

Rows = Sequence[tuple[Submission, GradedNotebook]]
# the names are Canvas's; Moodle asks what each column is
COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


def number(value: float) -> str:
    """Points as text: 2, 2.5."""
    return f"{value:.10g}"


def cell(text: str) -> str:
    """A text as a spreadsheet may safely show it: never a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def grades_csv(assignment: Assignment, rows: Rows) -> str:
    """One row per student, one column per question, and the total.

    A question that waits for marks by hand is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *(question.name for question in assignment.questions), "total"])
    for submission, graded in rows:
        student = [cell(submission.student), submission.id, "", cell(submission.login), ""]
        marks = ["" if mark.earned is None else number(mark.earned) for mark in graded.marks]
        writer.writerow([*student, *marks, number(graded.total)])
    return text.getvalue()


# --- One student ----------------------------------------------------------------------------------


def results_json(assignment: Assignment, graded: GradedNotebook) -> str:
    """The file that Gradescope reads: one test per question, which the student sees."""
    total = f"{number(graded.total)} of {number(assignment.points)} points."
    results = {
        "score": graded.total,
        "output": "\n".join(graded.problems) or total,
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_result(mark) for mark in graded.marks],
    }
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def _result(mark):
    result = {"name": mark.name, "score": mark.earned or 0, "max_score": mark.points}
    if mark.earned is None:
        return {**result, "output": "marked by hand", "output_format": "text"}
    status = "passed" if mark.earned == mark.points else "failed"
    output = mark.message or "right"
    return {**result, "status": status, "output": output, "output_format": "text"}


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
<title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;\
color:#222}}
table{{border-collapse:collapse;width:100%}}
td,th{{padding:.4em .6em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}}
.n{{text-align:right;white-space:nowrap}}.right{{color:#176b2c}}.wrong{{color:#a32020}}
code{{font-size:90%;overflow-wrap:anywhere}}</style></head><body>
<h1>{title}</h1>
<p>{student}: <b>{total} of {points} points</b></p>
<table><tr><th>question</th><th class=n>points</th><th></th></tr>
{rows}
</table>
{problems}
<p>Every function was called on inputs that are drawn anew for each grading. A message says what
came back for one of them and what was wanted; the assignment says how close is close enough.</p>
</body></html>
"""


def page(assignment: Assignment, submission: Submission, graded: GradedNotebook) -> str:
    """One page for one student: what was right, and what came back where it was not."""
    problems = "".join(f"<li><code>{html.escape(text)}</code></li>" for text in graded.problems)
    return PAGE.format(
        title=html.escape(assignment.title),
        student=html.escape(submission.student),
        total=number(graded.total),
        points=number(assignment.points),
        rows="\n".join(_page_row(mark) for mark in graded.marks),
        problems=f"<h2>The notebook</h2><ul>{problems}</ul>" if problems else "",
    )


def _page_row(mark):
    if mark.earned is None:
        style, earned, text = "hand", "–", "is marked by hand"
    elif mark.earned == mark.points:
        style, earned, text = "right", number(mark.earned), "right"
    else:
        style, earned = "wrong", number(mark.earned)
        text = f"<code>{html.escape(mark.message)}</code>"
    points = f"<td class=n>{earned} / {number(mark.points)}</td>"
    return f"<tr><td>{html.escape(mark.name)}</td>{points}<td class={style}>{text}</td></tr>"


# --- The class ------------------------------------------------------------------------------------


def summary(assignment: Assignment, rows: Rows, facts: Iterable[tuple[str, Any]]) -> str:
    """Points and the most common failure of each question, as Markdown.

    facts   [(name, value)] of the grading
    """
    lines = [
        f"# {assignment.title}",
        "",
        f"{len(rows)} submissions. " + " ".join(f"{name}: {value}." for name, value in facts),
        "",
        "| question | points | mean | full marks | most common message |",
        "|---|---|---|---|---|",
    ]
    for i, question in enumerate(assignment.questions):
        lines.append(_summary_row(question, [graded.marks[i] for _, graded in rows]))
    totals = [graded.total for _, graded in rows] or [0]
    mean = statistics.fmean(totals)
    median = number(statistics.median(totals))
    lines.append(f"| total | {number(assignment.points)} | {mean:.2f} | median {median} | |")
    problems = [(s.student, graded.problems[0]) for s, graded in rows if graded.problems]
    if problems:
        lines += ["", "## Notebooks with a cell that failed, or that could not be read", ""]
        lines += [f"- {_markdown(student)}: {_markdown(text)}" for student, text in problems]
    return "\n".join(lines) + "\n"


def _summary_row(question, marks):
    graded = [mark for mark in marks if mark.earned is not None]
    mean = sum(mark.earned for mark in graded) / len(graded) if graded else 0
    full = sum(mark.earned == mark.points for mark in graded)
    messages = collections.Counter(_without_numbers(m.message) for m in graded if m.message)
    common = "".join(f"{count} × {_markdown(text)}" for text, count in messages.most_common(1))
    points = number(question.points)
    return f"| {question.name} | {points} | {mean:.2f} | {full} of {len(graded)} | {common} |"


def _without_numbers(message):
    """Messages that differ in numbers only are counted as one."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", message)[:100]


def _markdown(text):
    return html.escape(text, quote=False).replace("|", "\\|").replace("`", "'")


def class_table(assignment: Assignment, rows: Rows) -> str:
    """The class at a glance, for the terminal."""
    names = [question.name.split("_")[0] for question in assignment.questions]
    width = max([len(submission.student) for submission, _ in rows] + [7])
    lines = [f"{'student':{width}}  " + " ".join(f"{name:>4}" for name in names) + "  total"]
    for submission, graded in rows:
        texts = ["–" if mark.earned is None else number(mark.earned) for mark in graded.marks]
        marks = " ".join(f"{text:>4}" for text in texts)
        lines.append(f"{submission.student:{width}}  {marks}  {number(graded.total):>5}")
    return "\n".join(lines)
