"""What comes out of a grading: grades.csv, a results.json and a page for each student, a summary of
the class.
"""

import collections
import csv
import html
import io
import json
import re
import statistics

COLUMNS = (
    "Student",
    "ID",
    "SIS User ID",
    "SIS Login ID",
    "Section",
)  # as Canvas names them; Moodle lets one choose


def number(value):
    return f"{value:.10g}"


def cell(text):
    """A name as a spreadsheet may safely show it: never a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def grades_csv(assignment, rows):
    """rows: [(Submission, Marked)]. A row a student, a column a question, and the total; by hand:
    empty for now.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *(q.name for q in assignment.questions), "total"])
    for submission, marked in rows:
        marks = ["" if m.earned is None else number(m.earned) for m in marked.marks]
        who = [cell(submission.student), submission.id, "", cell(submission.login), ""]
        writer.writerow([*who, *marks, number(marked.total)])
    return out.getvalue()


def results_json(assignment, marked):
    """The file that Gradescope reads: one test a question, seen by the student."""
    tests = [
        {
            "name": m.name,
            "score": m.earned or 0,
            "max_score": m.points,
            **(
                {}
                if m.earned is None
                else {"status": "passed" if m.earned == m.points else "failed"}
            ),
            "output": _remark(m),
            "output_format": "text",
        }
        for m in marked.marks
    ]
    output = (
        "\n".join(marked.problems)
        or f"{number(marked.total)} of {number(assignment.points)} points."
    )
    shown = {
        "output": output,
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
    }
    return (
        json.dumps({"score": marked.total, **shown, "tests": tests}, indent=1, ensure_ascii=False)
        + "\n"
    )


def _remark(mark):
    if mark.earned is None:
        return "marked by hand"
    return mark.message or "right"


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{padding:.4em .6em;border-bottom:1px solid #ddd;text-align:left;
vertical-align:top}.n{text-align:right;white-space:nowrap}.right{color:#176b2c}.wrong{color:#a32020}
code{font-size:90%;overflow-wrap:anywhere}"""


def feedback(assignment, submission, marked):
    """One page for one student: what was right, and of what was not, what came and what was wanted."""
    rows = []
    for m in marked.marks:
        kind = "hand" if m.earned is None else "right" if m.earned == m.points else "wrong"
        earned = "–" if m.earned is None else number(m.earned)
        said = {"hand": "is marked by hand", "right": "right"}.get(
            kind
        ) or f"<code>{html.escape(m.message)}</code>"
        rows.append(
            f"<tr><td>{html.escape(m.name)}</td><td class=n>{earned} / {number(m.points)}</td>"
            f"<td class={kind}>{said}</td></tr>"
        )
    problems = "".join(f"<li><code>{html.escape(p)}</code></li>" for p in marked.problems)
    problems = f"<h2>The notebook</h2><ul>{problems}</ul>" if problems else ""
    title = html.escape(assignment.title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>{html.escape(submission.student)}: <b>{number(marked.total)} of {number(assignment.points)} points</b></p>
<table><tr><th>question</th><th class=n>points</th><th></th></tr>
{chr(10).join(rows)}
</table>
{problems}
<p>Every function was called on inputs that are drawn anew for each grading. A message tells what came back for one of
them and what was wanted; how close is close enough, the assignment says.</p>
</body></html>
"""


# --- The class ------------------------------------------------------------------------------------


def summary(assignment, rows, facts):
    """Points by question and common failures, as Markdown. facts: [(what, value)] about the
    grading.
    """
    lines = [
        f"# {assignment.title}",
        "",
        f"{len(rows)} submissions. " + " ".join(f"{k}: {v}." for k, v in facts),
        "",
    ]
    lines += [
        "| question | points | mean | full marks | most common message |",
        "|---|---|---|---|---|",
    ]
    for i, q in enumerate(assignment.questions):
        marks = [marked.marks[i] for _, marked in rows]
        graded = [m for m in marks if m.earned is not None]
        mean = sum(m.earned for m in graded) / len(graded) if graded else 0
        full = sum(m.earned == m.points for m in graded)
        common = collections.Counter(_kind(m.message) for m in graded if m.message).most_common(1)
        said = f"{common[0][1]} × {_cell(common[0][0])}" if common else ""
        lines.append(
            f"| {q.name} | {number(q.points)} | {mean:.2f} | {full} of {len(graded)} | {said} |"
        )
    totals = [marked.total for _, marked in rows] or [0]
    mean, middle = statistics.fmean(totals), number(statistics.median(totals))
    lines.append(f"| total | {number(assignment.points)} | {mean:.2f} | median {middle} | |")
    troubled = [(s, m.problems) for s, m in rows if m.problems]
    if troubled:
        lines += ["", "## Notebooks with a cell that failed, or that could not be read", ""]
        lines += [f"- {_cell(s.student)}: {_cell(problems[0])}" for s, problems in troubled]
    return "\n".join(lines) + "\n"


def _kind(message):
    """Messages that differ in numbers only are one kind."""
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", message)[:100]


def _cell(text):
    return html.escape(text, quote=False).replace("|", "\\|").replace("`", "'")


def class_table(assignment, rows):
    """The class at a glance, for the terminal."""
    names = [q.name.split("_")[0] for q in assignment.questions]
    width = max([len(s.student) for s, _ in rows] + [7])
    lines = [f"{'student':{width}}  " + " ".join(f"{n:>4}" for n in names) + "  total"]
    for submission, marked in rows:
        marks = " ".join(
            f"{'–' if m.earned is None else number(m.earned):>4}" for m in marked.marks
        )
        lines.append(f"{submission.student:{width}}  {marks}  {number(marked.total):>5}")
    return "\n".join(lines)
