"""What `build.py` adds to a lesson on the way from its source to its notebook.

    a cell predict("09.1", "") after each **Predict.**, in which the learner writes
    two hints and a solution, collapsed, below the self-check    solutions/NN_name.py
    the answers, collapsed, below the exercises                  the same file
    links: to the solutions, to the next lesson, to the papers

In the file of solutions a heading says what follows: "## Hints" with two numbered lines, "## Your
turn", and one heading per exercise, "## 1. How much is enough".
"""

import functools
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
PREDICT = re.compile(r"^predict\(", re.MULTILINE)
SELF_CHECK = re.compile(r"^(?:\w+ = )?self_check\(", re.MULTILINE)
SOLUTIONS = re.compile(r"^Solutions: .*$", re.MULTILINE)
NEXT = re.compile(r"^Next: (\d\d\w?), ", re.MULTILINE)
NAME = r"[A-ZÀ-Þ][\w’'-]+"
PEOPLE = rf"(?:{NAME}, )*{NAME}(?: et al\.| and others| and {NAME})?"
CITATION = re.compile(rf"({PEOPLE}) (\d{{4}}\b|\(\d{{4}}\))")
ARXIV = re.compile(r"(arXiv )(\d{4}\.\d{5})")
UNTOUCHED = re.compile(
    r"^```.*?^```|^#[^\n]*$|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>",
    re.DOTALL | re.MULTILINE,
)


def added(cells, stem):
    """[(kind, source, metadata)] of a lesson with all that is added to it.

    cells   the same triples of the lesson's source
    stem    "09_balance"
    """
    parts = solution_parts(stem)
    number = stem.partition("_")[0]
    out = []
    predictions = 0
    asked = False
    for kind, source, metadata in cells:
        if kind == "code":
            if asked and not PREDICT.search(source):
                predictions += 1
                out.append(("code", prediction(number, predictions), {}))
            asked = False
            out.append((kind, source, metadata))
            if SELF_CHECK.search(source) and (help_ := help_text(parts)):
                out.append(("markdown", help_, {}))
        else:
            asked = asked or "**Predict" in source
            out.append((kind, with_links(with_answers(source, stem, parts)), metadata))
    return out


def prediction(number, count):
    """The cell in which a learner writes a prediction."""
    text = f'predict("{number}.{count}", "")  # between the quotes: what do you expect?'
    return text if count > 1 else f"from moe_np.coursework import predict\n\n{text}"


# --- hints, solutions, answers --------------------------------------------------------------------


@functools.cache
def solution_parts(stem):
    """{heading: Markdown} of the file of solutions; empty where there is none."""
    import jupytext

    path = HERE / "solutions" / f"{stem}.py"
    if not path.exists():
        return {}
    parts, heading = {}, None
    for cell in jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells:
        if cell.cell_type == "code":
            texts = [f"```python\n{cell.source.strip()}\n```"]
        else:
            texts = re.split(r"^(?=#+ )", cell.source, flags=re.MULTILINE)
        for text in texts:
            if cell.cell_type == "markdown" and text.startswith("#"):
                title, _, text = text.partition("\n")
                heading = title.strip("# ")
            if heading and text.strip():
                parts.setdefault(heading, []).append(text.strip())
    return {heading: "\n\n".join(texts) for heading, texts in parts.items()}


def details(summary, text):
    """A part of a page that is closed until a reader opens it."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def help_text(parts):
    """Two hints and a solution, closed, for the cell below a self-check; "" without any."""
    hints = re.split(r"^\d\. ", parts.get("Hints", ""), flags=re.MULTILINE)[1:]
    closed = [details(f"Hint {i}", hint.strip()) for i, hint in enumerate(hints, 1)]
    if "Your turn" in parts:
        closed.append(details("A solution", without_checks(parts["Your turn"])))
    return "\n\n".join(closed)


def without_checks(text):
    """A solution without the cases and the reference, which the lesson has already."""
    return re.sub(
        r"\n+(?:def (?:cases|reference)\(|assert self_check).*?(?=^```$)",
        "\n",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def with_answers(text, stem, parts):
    """The exercises with their answers, closed, in front of the line on solutions."""
    answers = [
        details(f"Answer to {heading}", answer)
        for heading, answer in parts.items()
        if re.match(r"\d\. ", heading)
    ]
    line = f"Solutions that run: [`lessons/solutions/{stem}.py`](solutions/{stem}.py)."
    return SOLUTIONS.sub(lambda _: "\n\n".join([*answers, line]), text)


# --- links ----------------------------------------------------------------------------------------


def with_links(text):
    """Links to the next lesson and to the papers that are cited."""
    text = NEXT.sub(_next_lesson, text)
    out = []
    end = 0
    for kept in UNTOUCHED.finditer(text):
        out += [_cited(text[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*out, _cited(text[end:])])


def _next_lesson(match):
    names = [path.stem for path in sorted(HERE.glob(f"{match[1]}_*.py"))]
    return f"Next: [{match[1]}]({names[0]}.ipynb), " if names else match[0]


def _cited(text):
    text = ARXIV.sub(r"[\1\2](https://arxiv.org/abs/\2)", text)
    return CITATION.sub(_paper, text)


def _paper(match):
    """A citation as a link, if exactly this first author and year stand in references.md."""
    first = re.match(NAME, match[1])[0]
    address = papers().get((first, match[2].strip("()")))
    return f"[{match[0]}]({address})" if address else match[0]


@functools.cache
def papers():
    """{(first author, year): address}, of the papers in references.md that have one."""
    text = (HERE / "references.md").read_text(encoding="utf-8")
    addresses = {}
    for entry in re.findall(r"^- (.*?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL):
        words = " ".join(entry.split())
        people, year = re.match(r"(.*?)\b((?:19|20)\d\d)\.", words).groups()
        first = re.search(r"([A-ZÀ-Þ][\w’'-]+)(?=,| and | \d|\s*$)", people.strip())
        arxiv = re.search(r"arXiv (\d{4}\.\d{4,5})", words)
        if first:
            address = f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else "references.md"
            known = addresses.setdefault((first[1], year), address)
            if known != address:  # two papers of one person and year: the list tells which
                addresses[first[1], year] = "references.md"
    return addresses
