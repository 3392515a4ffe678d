"""The learner's copies of the lessons: `python3 run.py lab` makes them in the folder `work`.

Nothing that a learner has changed is overwritten, and git does not look into that folder. A lesson
that has changed since it was copied is put beside the learner's, as NN_name.newer.ipynb. To begin a
lesson anew, rename your copy, and call `lab` again.
"""

import contextlib
import hashlib
import json
import pathlib
import re

RECORD = ".copied.json"  # lesson -> hash of the text that was copied last
PROGRESS = "progress.json"  # moe_np.coursework.lesson_progress writes into it
# links to what lies beside the lessons, and is not copied
BESIDE = re.compile(r"\]\((?!https?:|mailto:|#|/|\d\d\w*\.ipynb)([^)\s]+)\)")


def copy_lessons(lessons: pathlib.Path, work: pathlib.Path) -> list[str]:
    """Copy each lesson that is not in `work`, and return a line per lesson that has changed."""
    work.mkdir(exist_ok=True)
    copied = _recorded(work / RECORD)
    remarks = []
    for lesson in sorted(lessons.glob("[0-9]*.ipynb")):
        text = for_work(lesson.read_text(encoding="utf-8")).encode("utf-8")
        copy = work / lesson.name
        if not copy.exists():
            write_new(copy, text)
        elif copied.get(lesson.name) != digest(text) and copy.read_bytes() != text:
            if copied.get(lesson.name) == digest(copy.read_bytes()):
                copy.write_bytes(text)  # what lies there is our own copy, which nobody has changed
            else:
                newer = newer_name(copy, text)
                write_new(newer, text)
                remarks.append(f"{lesson.name} has changed; the newer lesson is {newer.name}")
        copied[lesson.name] = digest(text)
    (work / RECORD).write_text(json.dumps(copied, indent=1), encoding="utf-8")
    write_new(work / PROGRESS, b"{}\n")
    return remarks


def _recorded(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    return content if isinstance(content, dict) else {}


def digest(content: bytes) -> str:
    """The hash by which a copy is known again."""
    return hashlib.sha256(content).hexdigest()


def write_new(path: pathlib.Path, content: bytes) -> None:
    """Write a file that is not there; leave a file that is."""
    with contextlib.suppress(FileExistsError), open(path, "xb") as file:
        file.write(content)


def newer_name(path: pathlib.Path, content: bytes) -> pathlib.Path:
    """NN_name.newer.ipynb, or with a number: a name that is free, or has this content already."""
    number = 1
    while True:
        end = ".newer.ipynb" if number == 1 else f".newer-{number}.ipynb"
        newer = path.with_name(path.stem + end)
        if not newer.exists() or newer.read_bytes() == content:
            return newer
        number += 1


def for_work(text: str) -> str:
    """A notebook with links that hold from the folder `work`, which lies beside `lessons`."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = BESIDE.sub(r"](../lessons/\1)", "".join(cell["source"]))
            cell["source"] = source.splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
