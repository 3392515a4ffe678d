"""A class that is not real: honest work, plausible mistakes, cheats and broken files, to try the grader on.

    python lessons/assignments/simulate_class.py 1_mixture DIR [--students 30] [--seed 0]
    moe-np coursework grade 1_mixture DIR --out GRADES

Writes a notebook a student into DIR and `expected.json` beside them: which questions each of them has to lose.
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

from moe_np.coursework import assignments, notebook
from moe_np.coursework.bank import with_answer
from moe_np.coursework.release import describe

HERE = pathlib.Path(__file__).resolve().parent


def functions(assignment):
    """The questions that are graded by calling a function."""
    return [q for q in assignment.questions if q.function]


def solved(assignment, answers=None):
    """The cells of a notebook with the solutions, or with `answers` {question: source} in their place."""
    cells = list(assignment.cells)
    for question, source in (answers or {}).items():
        cells = with_answer(assignment._replace(cells=tuple(cells)), question, source)
    out = [notebook.without_hidden_tests(cell) for cell in cells]
    return [
        c._replace(source=re.sub(r"(?m)^ *### (BEGIN|END) SOLUTION\n?", "", c.source)) for c in out
    ]


def with_first(cells, source):
    """The cells with one more before the first answer."""
    at = next(i for i, c in enumerate(cells) if c.nbgrader.get("solution"))
    return [*cells[:at], notebook.Cell("code", source.strip("\n"), {}), *cells[at:]]


# --- Honest -----------------------------------------------------------------------------------------------------------


def student(assignment, bank, rng, *, wrong=0.2, missing=0.07):
    """(cells, lost) of one who does each question right in some way, wrong in some way, or not at all."""
    answers, lost = {}, []
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
    return next(
        c.source for c in notebook.released(assignment.cells) if c.grade_id == f"{question}_answer"
    )


# --- Cheats -----------------------------------------------------------------------------------------------------------

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
        value = {"id": value["id"], "ok": True, "passed": True, "value": True, "inputs": (), "score": 100}
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
    """A definition of every function that is asked for."""
    return "\n".join(
        f"def {q.function}(*inputs): {body.format(name=q.function)}" for q in functions(assignment)
    )


def visible_calls(assignment):
    """{function: [(inputs, result)]} of all calls that the visible checks make to the solutions."""
    calls = {q.function: [] for q in functions(assignment)}
    space = {"__name__": "__main__"}

    def recorded(name, function):
        def call(*inputs):
            before = pickle.loads(pickle.dumps(inputs))
            value = function(*inputs)
            calls[name].append((before, value))
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
    """A notebook that passes the visible checks by what it has seen of their answers."""
    table = base64.b64encode(pickle.dumps(visible_calls(assignment))).decode()
    lines = faked(assignment, "return look_up('{name}', inputs)")
    return HARD_CODED.format(table=table, functions=lines)


FORKS = "while True:\n    try: os.fork()\n    except OSError: time.sleep(0.01)"


def replacing(assignment, source):
    """The released notebook in which one cell claims to be all answers."""
    cells = [
        c
        for c in notebook.released(assignment.cells)
        if not c.nbgrader.get("solution") or c.kind != "code"
    ]
    at = next(i for i, c in enumerate(cells) if c.nbgrader.get("grade"))
    return [*cells[:at], notebook.Cell("code", source.strip("\n"), {}), *cells[at:]]


def cheats(assignment):
    """{name: (cells or bytes, lost)}: each is to get nothing for what it fakes, and what it really knows."""
    asked = functions(assignment)
    every = [q.name for q in asked]
    folder, name = str(assignment.folder.parent), assignment.name
    known = [(q.reference.__module__, q.reference.__name__, q.function) for q in asked]
    known = [k for k in known if k[0].startswith("moe_np")]
    paths = [str(HERE.parents[1]), str(assignment.folder)]
    first = asked[0]
    names = [q.function for q in asked]
    own = {
        "replaced_allclose": ALWAYS_EQUAL.format(
            functions=faked(assignment, "return np.zeros(1).view(Anything)")
        ),
        "reads_files": FROM_FILES.format(folder=folder, name=name),
        "imports_package": FROM_PACKAGE.format(
            references=known, paths=paths, name=name, folder=folder
        ),
        "looks_into_grader": FROM_GRADER.format(functions=names),
        "patched_channel": PATCHED_CHANNEL + faked(assignment, "return True"),
        "hard_coded": hard_coded(assignment),
        "returns_inputs": faked(assignment, "return inputs"),
    }
    out = {key: (replacing(assignment, source), every) for key, source in own.items()}
    full = solved(assignment)

    def broken(body):
        imports = "import os, sys, time, signal\n"
        return (
            imports
            + f"def {first.function}(*inputs):\n"
            + "\n".join("    " + line for line in body.split("\n"))
        )

    one = {
        "endless_loop": "while True: pass",
        "os_exit": "os._exit(0)",
        "kills_all": "os.kill(-1, signal.SIGKILL)\nos._exit(1)",
        "memory_bomb": "x = []\nwhile True: x.append(bytearray(10**8))",
        "fork_bomb": FORKS,
        "huge_result": "return __import__('numpy').zeros(3 * 10**7)",
    }
    for key, body in one.items():
        out[key] = (solved(assignment, {first.name: broken(body)}), [first.name])
    out["patched_numpy"] = (
        with_first(full, "import numpy as np\nnp.isclose = np.allclose = lambda *a, **k: True"),
        [],
    )
    out["huge_output"] = (with_first(full, "for _ in range(30): print('x' * 10**7)"), [])
    out["cell_never_ends"] = (with_first(full, "import time\nwhile True: time.sleep(1)"), [])
    out["cell_exits"] = (with_first(full, "import os, sys\nsys.stdout.flush()\nos._exit(0)"), [])
    out["cell_forks"] = (with_first(full, f"import os, time\n{FORKS}"), [])
    out["syntax_error"] = (
        solved(assignment, {first.name: f"def {first.function}(s:\n    return s"}),
        [first.name],
    )
    out["not_a_notebook"] = (b'{"cells": [', every)
    out["empty_file"] = (b"", every)
    out["no_cells"] = ([], every)
    out["untouched"] = (notebook.released(assignment.cells), every)
    return out


# --- A class ----------------------------------------------------------------------------------------------------------

NAMES = (
    *(
        "ada",
        "emmy",
        "sofia",
        "maryam",
        "katherine",
        "grace",
        "annie",
        "rosalind",
        "chien",
        "lise",
        "mary",
        "barbara",
    ),
    *(
        "dorothy",
        "hedy",
        "joan",
        "karen",
        "ingrid",
        "alan",
        "carl",
        "leonhard",
        "pierre",
        "bernhard",
        "david",
        "kurt",
    ),
)


def notebook_bytes(assignment, cells):
    if isinstance(cells, bytes):
        return cells
    return notebook.write(cells, describe(assignment)).encode()


def make(assignment, bank, students=30, seed=0):
    """{file name: (bytes, lost)}: 4 flawless, the cheats (as many as fit into half of it), the rest with mistakes."""
    rng = np.random.default_rng(seed)
    bad = list(cheats(assignment).items())
    chosen = [bad[i] for i in sorted(rng.permutation(len(bad))[: students // 2])]
    out = {}
    for number in range(students - len(chosen)):
        share = 0 if number < 4 else 0.2
        cells, lost = student(assignment, bank, rng, wrong=share, missing=share / 3)
        name = NAMES[number % len(NAMES)] + (
            str(number // len(NAMES)) if number >= len(NAMES) else ""
        )
        out[f"{name}_{1000 + number}_{50000 + number}_{assignment.name}.ipynb"] = (
            notebook_bytes(assignment, cells),
            lost,
        )
    for number, (kind, (cells, lost)) in enumerate(chosen):
        name = f"x{kind.replace('_', '-')}_{2000 + number}_{60000 + number}_{assignment.name}.ipynb"
        out[name] = (notebook_bytes(assignment, cells), lost)
    return out


def write(files, folder):
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
    args = parser.parse_args()
    assignment = assignments.load(args.name)
    files = make(assignment, assignments.load_bank(args.name), args.students, args.seed)
    write(files, args.dir)
    print(f"{len(files)} notebooks in {args.dir}")


if __name__ == "__main__":
    main()
