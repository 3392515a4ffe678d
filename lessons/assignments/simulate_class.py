"""A simulated class to try the grader: honest work, plausible mistakes, cheats and broken files.

    python lessons/assignments/simulate_class.py 1_mixture DIR [--students 30] [--seed 0]
    moe-np coursework grade 1_mixture DIR --out GRADES

Writes one notebook per student into DIR, and `expected.json` beside them: the questions that every
student has to lose. `--assignments DIR` takes assignments of your own.
"""

import argparse
import base64
import contextlib
import io
import json
import pathlib
import pickle
import re

import numpy as np

from moe_np.base.checks import InputError
from moe_np.coursework import assignments, notebook
from moe_np.coursework.bank import with_answer
from moe_np.coursework.release import describe

HERE = pathlib.Path(__file__).resolve().parent


def functions(assignment):
    """The questions that are graded by calling a function."""
    return [q for q in assignment.questions if q.function]


def solved(assignment, answers=None):
    """The cells of a notebook with the solutions. answers: {question: source} in their place."""
    cells = list(assignment.cells)
    for question, source in (answers or {}).items():
        cells = with_answer(assignment._replace(cells=tuple(cells)), question, source)
    return [without_markers(notebook.without_hidden_tests(cell)) for cell in cells]


def without_markers(cell):
    """The cell without the lines that begin and end a solution."""
    return cell._replace(source=re.sub(r"(?m)^ *### (BEGIN|END) SOLUTION\n?", "", cell.source))


def with_cell(cells, source, is_next):
    """The cells with another one before the first for which `is_next(cell)` is true."""
    place = next(i for i, cell in enumerate(cells) if is_next(cell))
    return [*cells[:place], notebook.Cell("code", source.strip("\n"), {}), *cells[place:]]


def with_first(cells, source):
    """The cells with another one before the first answer."""
    return with_cell(cells, source, lambda cell: cell.nbgrader.get("solution"))


# --- Honest ---------------------------------------------------------------------------------------


def student(assignment, bank, rng, *, wrong=0.2, missing=0.07):
    """(cells, lost questions): each question is answered right, wrong, or not at all."""
    answers = {}
    lost = []
    for q in functions(assignment):
        kinds = bank[q.name]
        draw = rng.random()
        if draw < wrong:
            answers[q.name] = kinds["wrong"][str(rng.choice(sorted(kinds["wrong"])))]
        elif draw < wrong + missing:
            answers[q.name] = stub(assignment, q.name)
        elif rng.random() < 0.7:
            answers[q.name] = kinds["right"][int(rng.integers(len(kinds["right"])))]
        if draw < wrong + missing:
            lost.append(q.name)
    return solved(assignment, answers), lost


def stub(assignment, question):
    """An answer cell as it was handed out."""
    released = notebook.released(assignment.cells)
    return next(cell.source for cell in released if cell.grade_id == f"{question}_answer")


# --- Cheats ---------------------------------------------------------------------------------------

ALWAYS_EQUAL = """
import numpy as np
np.allclose = np.isclose = np.array_equal = np.array_equiv = lambda *a, **k: True
np.testing.assert_allclose = np.testing.assert_array_equal = lambda *a, **k: None
class Anything(np.ndarray):
    def __eq__(self, other): return True
    def __array_function__(self, *a, **k): return True
    def __array_ufunc__(self, *a, **k): return np.True_
{functions}
"""

FROM_FILES = """
import os
places = [{folder!r}, "/", "/work", "/autograder", "/home", "..", "/proc/1/root", "/proc/1/cwd"]
for place in places:
    for at, folders, files in os.walk(place):
        if "questions.py" in files and at.endswith({name!r}):
            space = {{}}
            exec(open(os.path.join(at, "questions.py")).read(), space)
            for q in space["QUESTIONS"]:
                if q.function:
                    globals()[q.function] = q.reference
        if at.count("/") > 6:
            folders[:] = []
"""

FROM_PACKAGE = """
import importlib, sys
for path in {paths!r}:
    sys.path.insert(0, path)
sys.modules.pop("moe_np", None)
for module, name, function in {references!r}:
    try:
        globals()[function] = getattr(importlib.import_module(module), name)
    except Exception:
        pass
try:
    from moe_np.coursework import assignments
    for q in assignments.load({name!r}, {folder!r}).questions:
        globals()[q.function] = q.reference
except Exception:
    pass
"""

FROM_GRADER = """
import gc, sys, types
for thing in gc.get_objects():
    if isinstance(thing, types.FunctionType) and thing.__name__ in {functions!r}:
        globals()[thing.__name__] = thing
for frame in sys._current_frames().values():
    while frame is not None:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            for q in value if isinstance(value, (list, tuple)) else ():
                if hasattr(q, "reference"):
                    globals()[q.function] = q.reference
        frame = frame.f_back
"""

PATCHED_CHANNEL = """
import sys
wire = sys.modules["wire"]
old = wire.frame
def frame(value):
    if isinstance(value, dict) and "id" in value:
        value = {"id": value["id"], "ok": True, "passed": True, "value": True, "inputs": ()}
        value["score"] = 100
    return old(value)
for module in list(sys.modules.values()):
    for name, thing in list(vars(module).items()) if hasattr(module, "__dict__") else ():
        if thing is old:
            setattr(module, name, frame)
"""

HARD_CODED = """
import base64, pickle
TABLE = pickle.loads(base64.b64decode({table!r}))
def look_up(name, inputs):
    for seen, value in TABLE[name]:
        if pickle.dumps(seen) == pickle.dumps(inputs):
            return value
    return TABLE[name][-1][1] if TABLE[name] else None
{functions}
"""


def faked(assignment, body):
    """A definition of every function, with the same body."""
    names = [question.function for question in functions(assignment)]
    return "\n".join(f"def {name}(*inputs): {body.format(name=name)}" for name in names)


def visible_calls(assignment):
    """{function: [(inputs, result)]} of all calls that the visible checks make to the solutions."""
    calls = {q.function: [] for q in functions(assignment)}
    space = {"__name__": "__main__"}

    def recorded(name, function):
        def call(*inputs):
            copy = pickle.loads(pickle.dumps(inputs))
            value = function(*inputs)
            calls[name].append((copy, value))
            return value

        return call

    with contextlib.redirect_stdout(io.StringIO()):
        for cell in solved(assignment):
            if cell.kind == "code" and "look" not in cell.tags:
                exec(compile(cell.source, f"<{cell.grade_id}>", "exec"), space)
                for name in calls:
                    if name in space and getattr(space[name], "__name__", "") == name:
                        space[name] = recorded(name, space[name])
    return calls


def hard_coded(assignment):
    """The source of answers that know the results of the visible checks, and no others."""
    table = base64.b64encode(pickle.dumps(visible_calls(assignment))).decode()
    lines = faked(assignment, "return look_up('{name}', inputs)")
    return HARD_CODED.format(table=table, functions=lines)


FORKS = "while True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"
HARMFUL_ANSWERS = {
    "endless_loop": "while True: pass",
    "os_exit": "os._exit(0)",
    "kills_all": "os.kill(-1, signal.SIGKILL)\nos._exit(1)",
    "memory_bomb": "x = []\nwhile True: x.append(bytearray(10**8))",
    "fork_bomb": FORKS,
    "huge_result": "return __import__('numpy').zeros(3 * 10**7)",
}
HARMFUL_CELLS = {  # before the first answer of a notebook that is right
    "patched_numpy": "import numpy as np\nnp.isclose = np.allclose = lambda *a, **k: True",
    "huge_output": "for _ in range(30): print('x' * 10**7)",
    "cell_never_ends": "import time\nwhile True: time.sleep(1)",
    "cell_exits": "import os, sys\nsys.stdout.flush()\nos._exit(0)",
    "cell_forks": f"import os, time\n{FORKS}",
}


def replacing(assignment, source):
    """The released notebook with one cell in the place of all answers."""
    released = notebook.released(assignment.cells)
    cells = [cell for cell in released if not cell.nbgrader.get("solution") or cell.kind != "code"]
    return with_cell(cells, source, lambda cell: cell.nbgrader.get("grade"))


def cheats(assignment):
    """{name: (cells or bytes, lost)}. Each loses the questions that it fakes, and no others."""
    first = functions(assignment)[0]
    every_question = [question.name for question in functions(assignment)]
    sources = fakes(assignment)
    work = {name: (replacing(assignment, sources[name]), every_question) for name in sources}
    for name, body in HARMFUL_ANSWERS.items():
        cells = solved(assignment, {first.name: broken(first.function, body)})
        work[name] = (cells, [first.name])
    for name, source in HARMFUL_CELLS.items():
        work[name] = (with_first(solved(assignment), source), [])
    syntax_error = {first.name: f"def {first.function}(s:\n    return s"}
    work["syntax_error"] = (solved(assignment, syntax_error), [first.name])
    work["not_a_notebook"] = (b'{"cells": [', every_question)
    work["empty_file"] = (b"", every_question)
    work["no_cells"] = ([], every_question)
    work["untouched"] = (notebook.released(assignment.cells), every_question)
    return work


def fakes(assignment):
    """{name: source of one cell that pretends to hold all answers}."""
    questions = functions(assignment)
    names = [question.function for question in questions]
    folder = str(assignment.folder.parent)
    references = [(q.reference.__module__, q.reference.__name__, q.function) for q in questions]
    references = [row for row in references if row[0].startswith("moe_np")]
    paths = [str(HERE.parents[1]), str(assignment.folder)]
    equal = faked(assignment, "return np.zeros(1).view(Anything)")
    places = {"name": assignment.name, "folder": folder}
    return {
        "replaced_allclose": ALWAYS_EQUAL.format(functions=equal),
        "reads_files": FROM_FILES.format(**places),
        "imports_package": FROM_PACKAGE.format(references=references, paths=paths, **places),
        "looks_into_grader": FROM_GRADER.format(functions=names),
        "patched_channel": PATCHED_CHANNEL + faked(assignment, "return True"),
        "hard_coded": hard_coded(assignment),
        "returns_inputs": faked(assignment, "return inputs"),
    }


def broken(function, body):
    """The source of an answer with this body, and what it needs."""
    lines = "\n".join("    " + line for line in body.split("\n"))
    return f"import os, sys, time, signal\ndef {function}(*inputs):\n{lines}"


# --- A class --------------------------------------------------------------------------------------

NAMES = (
    *("ada", "emmy", "sofia", "maryam", "katherine", "grace", "annie", "rosalind", "chien", "lise"),
    *("mary", "barbara", "dorothy", "hedy", "joan", "karen", "ingrid", "alan", "carl", "leonhard"),
    *("pierre", "bernhard", "david", "kurt"),
)


def notebook_bytes(assignment, cells):
    """The bytes of a notebook; bytes stay as they are."""
    if isinstance(cells, bytes):
        return cells
    return notebook.write(cells, describe(assignment)).encode()


def make(assignment, bank, students=30, seed=0):
    """{file name: (bytes, lost)}: 4 without mistakes, up to a half cheats, others with mistakes."""
    rng = np.random.default_rng(seed)
    dishonest = list(cheats(assignment).items())
    chosen = [dishonest[i] for i in sorted(rng.permutation(len(dishonest))[: students // 2])]
    files = {}
    for number in range(students - len(chosen)):
        share = 0 if number < 4 else 0.2
        cells, lost = student(assignment, bank, rng, wrong=share, missing=share / 3)
        repeat = number // len(NAMES) or ""  # names run out in a large class
        name = f"{NAMES[number % len(NAMES)]}{repeat}_{1000 + number}_{50000 + number}"
        files[f"{name}_{assignment.name}.ipynb"] = (notebook_bytes(assignment, cells), lost)
    for number, (kind, (cells, lost)) in enumerate(chosen):
        name = f"x{kind.replace('_', '-')}_{2000 + number}_{60000 + number}"
        files[f"{name}_{assignment.name}.ipynb"] = (notebook_bytes(assignment, cells), lost)
    return files


def write(files, folder):
    """Write the notebooks, and which questions each has to lose."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (raw, _) in files.items():
        (folder / name).write_bytes(raw)
    expected = {name.split("_")[0]: lost for name, (_, lost) in files.items()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("dir")
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--assignments", metavar="DIR", help="where they are")
    args = parser.parse_args()
    try:
        assignment = assignments.load(args.name, args.assignments)
        bank = assignments.load_bank(args.name, args.assignments)
    except InputError as error:
        parser.error(str(error))
    files = make(assignment, bank, args.students, args.seed)
    write(files, args.dir)
    print(f"{len(files)} notebooks in {args.dir}")


if __name__ == "__main__":
    main()
