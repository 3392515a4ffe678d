"""What teachers and students read: grades.csv, results and a page per student, a summary."""

import collections
import html
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from moe_np.coursework.assignments import Assignment
from moe_np.coursework.grading import GradedNotebook
from moe_np.coursework.submissions import Submission, printable
from moe_np.coursework.tables import cell, text_of_rows

Rows = Sequence[tuple[Submission, GradedNotebook]]
# Canvas's names
BY_HAND = "marked by hand"
COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


def number(value: float) -> str:
    """Points as text: 2, 2.5."""
    return f"{value:.10g}"


def person(submission: Submission) -> list[str]:
    """The cells of COLUMNS."""
    names = (submission.student, submission.id, "", submission.login, submission.section)
    return [cell(printable(name)) for name in names]


def grades_csv(assignment: Assignment, rows: Rows) -> str:
    """One row per person: one column per question, the total, and what was odd.

    A question that waits for marks by hand is empty, and so is the whole row of work that the
    grader could not grade.
    """
    questions = [question.name for question in assignment.questions]
    lines = [[*COLUMNS, *questions, "total", "remark"]]
    for submission, graded in rows:
        marks = ["" if mark.earned is None else number(mark.earned) for mark in graded.marks]
        total = number(graded.total) if graded.is_graded else ""
        lines.append([*person(submission), *marks, total, cell(remark(submission, graded))])
    return text_of_rows(lines)


def remark(submission: Submission, graded: GradedNotebook) -> str:
    """What was odd about one person's work, in one line; "" for most."""
    texts = list(submission.remarks)
    if not graded.is_graded:
        texts.append("not graded")
    waiting = [mark.name for mark in graded.marks if mark.earned is None and mark.text]
    if waiting:
        texts.append(f"{', '.join(waiting)} marked by hand: total so far")
    return "; ".join(texts)


# --- One student ----------------------------------------------------------------------------------


def results_json(assignment: Assignment, graded: GradedNotebook) -> str:
    """The file that Gradescope reads: one test per question, which the student sees."""
    total = f"{number(graded.total)} of {number(assignment.points)} points{_so_far(graded)}."
    questions = {question.name: question for question in assignment.questions}
    results = {
        "score": graded.total,
        "output": "\n".join(graded.problems) or total,
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_result(mark, questions.get(mark.name)) for mark in graded.marks],
    }
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def _so_far(graded):
    return "" if graded.is_complete else " so far"


def _result(mark, question):
    result = {"name": mark.name, "score": mark.earned or 0, "max_score": mark.points}
    if mark.earned is None:
        output = BY_HAND if mark.text else mark.message
        return {**result, "output": output, "output_format": "text"}
    if mark.text:
        output = f"{BY_HAND}: {mark.message}" if mark.message else BY_HAND
        return {**result, "output": output, "output_format": "text"}
    status = "passed" if mark.earned == mark.points else "failed"
    output = "\n".join([mark.message or "right", *_about_failure(mark, question)])
    return {**result, "status": status, "output": output, "output_format": "text"}


def _about_failure(mark, question):
    """Sentences about a wrong answer: how many inputs are right, what the first wrong one was, and
    which lesson to read.
    """
    if not mark.message or mark.earned == mark.points:
        return []
    sentences = []
    if mark.counted:
        sentences.append(f"{mark.right} of {mark.counted} inputs are right.")
    kind = f"{mark.kind}: " if mark.kind and mark.inputs else mark.kind
    if kind or mark.inputs:
        first = "The first wrong one" if mark.counted else "The input"
        sentences.append(f"{first}: {kind}{mark.inputs}.")
    if question is not None and question.lesson:
        sentences.append(f"To read again: lesson {question.lesson}.")
    return sentences


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">\
<title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;\
color:#222}}
table{{border-collapse:collapse;width:100%}}
td,th{{padding:.4em .6em;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}}
.n{{text-align:right;white-space:nowrap}}.right{{color:#176b2c}}.wrong{{color:#a32020}}
.part{{color:#8a5a00}}h2{{font-size:1.1em;margin-top:2em}}
pre{{background:#f5f5f5;padding:.7em;overflow-x:auto;font-size:85%;line-height:1.35}}
code{{font-size:90%;overflow-wrap:anywhere}}</style></head><body>
<h1>{title}</h1>
<p>{student}: <b>{total} of {points} points{so_far}</b></p>
<table><tr><th>question</th><th class=n>points</th><th></th></tr>
{rows}
</table>
{failures}
{problems}
<h2>How this was graded</h2>
<p>Every function was called on several inputs that are drawn anew for each grading. A message says
what came back for the first one that was wrong and what was wanted; the assignment says how close
is close enough.</p>
<p>{rule}</p>
</body></html>
"""
RULE = (
    "A question gives points in proportion to the inputs that are answered right, rounded down to "
    "half a point; none if fewer than half are right, if an answer did not come in time, or if it "
    "was too slow where speed is asked for."
)


def page(assignment: Assignment, submission: Submission, graded: GradedNotebook) -> str:
    """One page for one student: what was right, and of each wrong answer the output, the kind of
    input, the lesson to read again, and the student's own lines.
    """
    problems = "".join(f"<li><code>{html.escape(text)}</code></li>" for text in graded.problems)
    questions = {question.name: question for question in assignment.questions}
    failures = [_page_failure(mark, questions.get(mark.name)) for mark in graded.marks]
    return PAGE.format(
        title=html.escape(assignment.title),
        student=html.escape(submission.student),
        total=number(graded.total),
        so_far=_so_far(graded),
        points=number(assignment.points),
        rows="\n".join(_page_row(mark) for mark in graded.marks),
        failures="\n".join(filter(None, failures)),
        problems=f"<h2>The notebook</h2><ul>{problems}</ul>" if problems else "",
        rule=RULE,
    )


def _page_row(mark):
    earned = "–" if mark.earned is None else number(mark.earned)
    name = html.escape(mark.name)
    if mark.text or mark.earned is None:
        style = "hand"
        text = html.escape(mark.message) or f"is {BY_HAND}"
    elif mark.earned == mark.points:
        style = text = "right"
    else:
        style = "part" if mark.earned else "wrong"
        text = f"<code>{html.escape(mark.message)}</code>"
        name = f'<a href="#{name}">{name}</a>' if mark.lines or mark.inputs else name
    points = f"<td class=n>{earned} / {number(mark.points)}</td>"
    return f"<tr><td>{name}</td>{points}<td class={style}>{text}</td></tr>"


def _page_failure(mark, question):
    """The section about one wrong answer, "" for all others."""
    if mark.earned is None or mark.text or not (mark.lines or mark.inputs):
        return ""
    name = html.escape(mark.name)
    parts = [f'<h2 id="{name}">{name}: {number(mark.earned)} of {number(mark.points)}</h2>']
    parts.append(f"<p><code>{html.escape(mark.message)}</code></p>")
    sentences = "<br>".join(map(html.escape, _about_failure(mark, question)))
    parts.append(f"<p>{sentences}</p>" if sentences else "")
    lines = f"<p>Your lines:</p><pre>{html.escape(mark.lines)}</pre>" if mark.lines else ""
    return "\n".join([*parts, lines])


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
    totals = [graded.total for _, graded in rows if graded.is_graded] or [0]
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
    messages = collections.Counter(
        _without_numbers(m.message) for m in graded if m.message and not m.text
    )
    common = "".join(f"{count} × {_markdown(text)}" for text, count in messages.most_common(1))
    points = number(question.points)
    return f"| {question.name} | {points} | {mean:.2f} | {full} of {len(graded)} | {common} |"


def _without_numbers(message):
    """Messages that differ in numbers only are counted as one."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", message)[:100]


def _markdown(text):
    """Text that Markdown shows as it is: no table, link, picture or emphasis."""
    text = html.escape(printable(text), quote=False).replace("`", "'")
    return re.sub(r"([\\|\[\]!*_<>])", r"\\\1", text)


def class_table(assignment: Assignment, rows: Rows) -> str:
    """The class at a glance, for the terminal."""
    names = [question.name.split("_")[0] for question in assignment.questions]
    width = max([len(submission.student) for submission, _ in rows] + [7])
    lines = [f"{'student':{width}}  " + " ".join(f"{name:>4}" for name in names) + "  total"]
    for submission, graded in rows:
        texts = ["–" if mark.earned is None else number(mark.earned) for mark in graded.marks]
        marks = " ".join(f"{text:>4}" for text in texts)
        total = number(graded.total) if graded.is_graded else "–"
        lines.append(f"{printable(submission.student):{width}}  {marks}  {total:>5}")
    return "\n".join(lines)
