"""students/SLUG/marks.json: the marks of one person, and what they depend on."""

import contextlib
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import moe_np
from moe_np.base.files import write_atomically
from moe_np.coursework.assignments import Assignment
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.question import Case
from moe_np.coursework.sandbox.wire import frame
from moe_np.coursework.submissions import Submission


def save(
    folder: pathlib.Path,
    key: str,
    settings: list,
    submission: Submission,
    graded: GradedNotebook,
) -> None:
    """Write the marks.

    key        what `marks_key` returned, "" where there was no notebook
    settings   what all marks of a class have in common
    """
    stored = {
        "key": key,
        "settings": settings,
        "submission": facts_about(submission),
        "marks": [mark._asdict() for mark in graded.marks],
        "problems": graded.problems,
    }
    text = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / "marks.json", text)


def load(folder: pathlib.Path) -> dict | None:
    """What marks.json of a student's folder holds, None if there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads((folder / "marks.json").read_text(encoding="utf-8"))
        return stored if isinstance(stored, dict) else None
    return None


def marks_in(stored: dict) -> GradedNotebook | None:
    """The graded notebook that is stored, None if it is damaged."""
    with contextlib.suppress(KeyError, TypeError):
        return GradedNotebook([Mark(**mark) for mark in stored["marks"]], stored["problems"])
    return None


def submission_in(stored: dict) -> Submission | None:
    """Whose marks are stored, None for a file of before this was stored, or a damaged one."""
    with contextlib.suppress(KeyError, TypeError):
        submission = Submission(**stored["submission"])
        return submission._replace(remarks=tuple(submission.remarks))
    return None


def facts_about(submission: Submission) -> dict[str, Any]:
    """What is stored of a submission: all but where the file was."""
    facts = submission._replace(path=None, member="")._asdict()
    return {**facts, "path": None, "remarks": list(submission.remarks)}


def marks_key(
    assignment: Assignment, drawn: Mapping[str, Sequence[Case]], seed: int, raw: bytes
) -> str:
    """A hash of all that determines the marks: notebook, questions, hidden inputs and results."""
    settings = (moe_np.__version__, assignment.name, assignment.fingerprint, seed)
    digest = hashlib.sha256(repr(settings).encode())
    for name in sorted(drawn):
        for case in drawn[name]:
            digest.update(frame([list(case.inputs), _as_sendable(case.wanted)]))
    digest.update(raw)
    return digest.hexdigest()[:24]


def _as_sendable(value):
    """Named tuples and the like as values that a frame can hold."""
    if isinstance(value, dict):
        return {str(key): _as_sendable(item) for key, item in value.items()}
    return [_as_sendable(item) for item in value] if isinstance(value, (tuple, list)) else value
