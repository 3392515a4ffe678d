"""The lessons: notebooks equal their sources, all of them run, and what they link to and cite is
there.
"""

import ast
import contextlib
import io
import itertools
import json
import pathlib
import re
import socket
import sys
import time

import pytest

from lessons import build
from tests.support import rerunning

pytest.importorskip("jupytext")
ROOT = pathlib.Path(__file__).resolve().parents[2]
LESSONS = ROOT / "lessons"

SLOW = {  # under lessons/: what takes more than two seconds of a processor, with Numba or without
    *("01_why_one_averages.py", "04_vowels.py", "06_hierarchies.py", "09_balance.py"),
    *("10_dispatch.py", "11_router_zoo.py", "12_clusters.py", "13_six_ways.py"),
    *("05_em.py", "18_transformer.py", "20_lstm.py"),
    *("21_after_training.py", "23_when_sparse_wins.py", "24_articles.py"),
    *("solutions/18_transformer.py", "solutions/19_mixtral.py", "solutions/20_lstm.py"),
    *("solutions/01_why_one_averages.py", "solutions/04_vowels.py", "solutions/06_hierarchies.py"),
    *("solutions/10_dispatch.py", "solutions/12_clusters.py", "solutions/13_six_ways.py"),
}
MOST_SECONDS = 60  # 20 on a fast machine; others take up to three times as long
SOURCES = build.sources()
SOLUTIONS = build.sources(LESSONS / "solutions")


def each(paths):
    """A parameter for each path; those that take long are marked."""
    marks = {
        path: [pytest.mark.slow] if path.relative_to(LESSONS).as_posix() in SLOW else []
        for path in paths
    }
    return [
        pytest.param(path, id=path.relative_to(LESSONS).as_posix(), marks=marks[path])
        for path in paths
    ]


def cells(path, kind):
    made = build.notebook(path.read_text(encoding="utf-8"))
    return [cell.source for cell in made.cells if cell.cell_type == kind]


def prose(path):
    return "\n\n".join(cells(path, "markdown"))


# --- Pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", each(SOURCES))
def test_the_notebook_is_that_of_its_source_without_outputs(source):
    assert build.out_of_date(source) is None, f"run `python lessons/build.py {source.stem}`"
    stored = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert all(
        not cell.get("outputs") and cell.get("execution_count") is None for cell in stored["cells"]
    )


def test_there_is_no_notebook_without_a_source():
    assert {path.stem for path in LESSONS.glob("*.ipynb")} == {path.stem for path in SOURCES}


def test_the_builder_makes_the_same_bytes_tells_what_differs_and_mends_it(
    tmp_path, monkeypatch, capsys
):
    source = tmp_path / "07_try.py"
    source.write_text(
        "# %% [markdown]\n# # Title\n\n# %% tags=['hide']\nx = 1\nx\n", encoding="utf-8"
    )
    monkeypatch.setattr(build, "HERE", tmp_path)
    monkeypatch.setattr(build, "sources", lambda folder=tmp_path: [source])
    assert build.main(["--check"]) == 1 and "07_try.ipynb differs" in capsys.readouterr().out
    assert build.main([]) == 0 and build.main(["--check"]) == 0
    first = source.with_suffix(".ipynb").read_bytes()
    stored = json.loads(first)
    assert [cell["id"] for cell in stored["cells"]] == ["cell-00", "cell-01"]
    assert stored["cells"][1]["metadata"] == {"tags": ["hide"]} and stored["cells"][1][
        "source"
    ] == ["x = 1\n", "x"]
    source.with_suffix(".ipynb").write_text("{}", encoding="utf-8")
    assert build.main(["07_try"]) == 0 and source.with_suffix(".ipynb").read_bytes() == first
    with pytest.raises(SystemExit):
        build.main(["08_other"])


# --- Running --------------------------------------------------------------------------------------


def run(source, folder, monkeypatch):
    """Cell by cell as a kernel would, in a fresh namespace: the names at its end and what it
    printed and showed.
    """
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    def refuse(*_):
        raise AssertionError("a lesson asks nothing of the network")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    names, out = {"__name__": "__main__"}, io.StringIO()
    try:
        with contextlib.redirect_stdout(out), matplotlib.rc_context():
            for number, text in enumerate(cells(source, "code")):
                tree = ast.parse(text)
                last = (
                    tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
                )
                exec(compile(tree, f"{source.name}, code cell {number}", "exec"), names)
                if last is not None:
                    show(
                        eval(
                            compile(
                                ast.Expression(last.value),
                                f"{source.name}, code cell {number}",
                                "eval",
                            ),
                            names,
                        )
                    )
    finally:
        plt.close("all")
    return names, out.getvalue()


def show(value):
    if value is not None:
        print(repr(value))
        if hasattr(value, "_repr_html_"):
            assert value._repr_html_()


@pytest.mark.seconds
@pytest.mark.parametrize("source", each(SOURCES + SOLUTIONS))
def test_it_runs_in_time_and_writes_nothing(source, tmp_path, monkeypatch):
    start = time.perf_counter(), time.process_time()
    run(source, tmp_path, monkeypatch)
    took = min(
        time.perf_counter() - start[0], time.process_time() - start[1]
    )  # of wall and processor: other work runs
    assert took < MOST_SECONDS, f"{took:.0f} s"
    assert not list(tmp_path.iterdir())


def in_a_kernel(source):
    """The site runs every lesson in a kernel as well, so that one is enough here."""
    marks = () if source.stem.startswith("10") else (pytest.mark.nightly,)
    return pytest.param(source, id=source.stem, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("source", [in_a_kernel(source) for source in SOURCES])
def test_it_runs_in_a_kernel_of_its_own(source, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    made = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbclient.NotebookClient(
        made, timeout=120, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs and not any(output.output_type == "error" for output in outputs)
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert not list(tmp_path.iterdir())


# --- Shape ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", each(SOURCES))
def test_it_has_the_shape_of_a_lesson(source):
    text, code = prose(source), "\n".join(cells(source, "code"))
    assert re.match(r"# \S", text), "a title first"
    assert text.count("**Predict.**") >= 2, "what to expect, before the run"
    assert "self_check(" in code and "# your code here" in code
    exercises = text.rpartition("## Exercises")[2]
    assert len(re.findall(r"^\d\. ", exercises, re.M)) >= 3
    assert (LESSONS / "solutions" / source.name).exists()


@pytest.mark.parametrize("source", each(SOURCES + SOLUTIONS))
def test_it_needs_numpy_alone(source):
    """And the package's other requirements. Numba, where a lesson is about it, is imported in a
    `try`.
    """
    tree = ast.parse(source.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in guarded:
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
            )
            extra = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
            assert extra <= {"numpy", "scipy", "matplotlib", "moe_np"}, f"imports {extra}"


@pytest.mark.parametrize("source", each(SOURCES))
def test_an_earlier_cell_may_be_run_again(source):
    found = rerunning.dependent_names(cells(source, "code"))
    assert not found, "(cell, name, cells that bind it)"


def test_what_depends_on_the_last_run_is_found():
    dependent = rerunning.dependent_names
    assert dependent(["x = 1", "print(x)", "x = 2"]) == [(1, "x", [0, 2])]
    assert dependent(["x = 1", "x = x + 1"]) == [(1, "x", [0, 1])]
    assert dependent(["x = 1", "f = lambda: x", "x = 2"]) == [(1, "x", [0, 2])]
    assert dependent(["x = 1\ny = [x for x in [x]]", "x = 2\nprint(x)"]) == []
    assert dependent(["import a", "import a\na.f()", "a.f()"]) == []


def test_the_file_from_nothing_is_what_its_cells_define():
    code = cells(LESSONS / "16_from_nothing.py", "code")
    (whole,) = (text for text in code if text.startswith("import numpy as np\n\n\ndef gate"))
    parts = [text for text in code if text.startswith("def ") and "your code here" not in text]
    parts = [text for text in parts if not text.startswith("def reference")]
    assert whole.split("\n\n\n")[1:] == [part for text in parts for part in text.split("\n\n\n")]
    assert sum(bool(line.strip()) for line in whole.splitlines()) < 70


# --- Links and citations --------------------------------------------------------------------------

REFERENCES = (LESSONS / "references.md").read_text(encoding="utf-8")
ENTRIES = [
    " ".join(entry.split())
    for entry in re.findall(r"^- (.*?)(?=^- |^#|\Z)", REFERENCES, re.M | re.S)
]
PEOPLE = r"[A-ZÀ-Þ][\w’'-]+(?: et al\.| and others)?,? \(?((?:19|20)\d\d)\b"
NOT_PEOPLE = {
    "In",
    "Since",
    "By",
    "From",
    "Until",
    "Of",
    "Before",
    "After",
    "The",
    "And",
    "Between",
    "Here",
}


def cited(text):
    """(name, year) of everything that looks like a citation, and the arXiv numbers."""
    found = {
        (re.match(r"[\w’'-]+", m[0])[0], m[1]) for m in re.finditer(PEOPLE, " ".join(text.split()))
    }
    numbers = set(re.findall(r"\b\d{4}\.\d{5}\b", " ".join(re.findall(r"ar[Xx]iv\W.{0,40}", text))))
    return {(name, year) for name, year in found if name not in NOT_PEOPLE}, numbers


@pytest.mark.parametrize("source", each(SOURCES + SOLUTIONS))
def test_what_it_cites_is_in_the_references(source):
    people, numbers = cited(prose(source))
    for name, year in people:
        assert any(name in entry and year in entry for entry in ENTRIES), (
            f"{name} {year} is not in references.md"
        )
    for number in numbers:
        assert f"arXiv {number}" in " ".join(ENTRIES), f"arXiv {number} is not in references.md"


def test_what_the_code_cites_is_in_the_references():
    numbers = set()
    for path in (ROOT / "moe_np").rglob("*.py"):
        numbers |= cited(path.read_text(encoding="utf-8"))[1]
    assert len(numbers) > 15
    missing = [number for number in sorted(numbers) if f"arXiv {number}" not in " ".join(ENTRIES)]
    assert not missing, f"not in references.md: {missing}"


def test_every_reference_says_who_when_and_where():
    assert len(ENTRIES) > 30
    for entry in ENTRIES:
        assert re.search(r"\b(19|20)\d\d\. [A-Z\w]", entry), entry
    assert len(set(re.findall(r"arXiv (\S+)", REFERENCES))) == len(
        re.findall(r"arXiv (\d\S+)", REFERENCES)
    )


def test_a_citation_is_seen():
    people, numbers = cited(
        "as Nobody et al. (1999) and Jordan, Nowlan and Hinton 1991 say (arXiv 1234.56789)"
    )
    assert people == {("Nobody", "1999"), ("Hinton", "1991")} and numbers == {"1234.56789"}
    assert cited("In 1991 it was")[0] == set()


@pytest.mark.parametrize("source", each(SOURCES))
def test_links_lead_somewhere(source):
    text = prose(source)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        path, _, _ = link.partition("#")
        assert re.match(r"https://", link) or not path or (LESSONS / path).exists(), link
    for path in re.findall(r"`((?:moe_np|figures|tests|lessons)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"\b\d\db?_\w+\.ipynb", text):
        assert (LESSONS / name).exists(), name


def test_the_table_of_lessons_has_every_lesson_and_its_links_lead_somewhere():
    text = (LESSONS / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if link.endswith(".ipynb")] == [
        source.stem + ".ipynb" for source in SOURCES
    ]
    assert all((LESSONS / link).exists() for link in links)
    numbers = {number_of(source) for source in SOURCES}
    assert set(re.findall(r"\b(\d\db?)\b", text.partition("## Which order")[2])) <= numbers


def number_of(source):
    """ "07", or "00b"."""
    return source.stem.partition("_")[0]


def test_each_lesson_ends_with_the_number_of_the_next():
    for source, following in itertools.pairwise(SOURCES):
        end = source.read_text(encoding="utf-8").rpartition("# Next:")[2].strip()
        assert re.match(rf"\[?{number_of(following)}\b", end), source.name
