"""The progress of a learner: predictions that were written, and functions that passed their check.

`python3 run.py lab` puts a file progress.json into the folder of the learner's lessons. `predict`
and `self_check` write into it, and `table` shows it together with what the notebooks hold. Where
there is no such file, as in a notebook that was opened in another way, nothing is written.
"""

import datetime
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from moe_np.base.checks import InputError
from moe_np.base.files import write_atomically

FILE = "progress.json"
PREDICTION = re.compile(r"^predict\(\"([^\"]+)\"", re.MULTILINE)
CHECK = re.compile(r"^(?:assert |\w+ = )?self_check\(\s*(\w+)", re.MULTILINE)
CHANGED_SINCE = ".newer"  # in the name of a lesson that lies beside an older one


class Row(NamedTuple):
    """The progress in one lesson."""

    lesson: str  # "09_balance"
    predicted: int  # predictions that were written
    predictions: int  # and how many there are
    checks: dict[str, str]  # function -> "right", "not yet" or "" (not tried)


def read(folder: str | os.PathLike = ".") -> dict[str, Any]:
    """{"predictions": {"09.1": text}, "checks": {name: {"passed", "tries", "day"}}} of a folder.

    Empty where there is no file, or a damaged one.
    """
    try:
        content = json.loads((pathlib.Path(folder) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    content = content if isinstance(content, dict) else {}
    parts = ((key, content.get(key)) for key in ("predictions", "checks"))
    return {key: part if isinstance(part, dict) else {} for key, part in parts}


def keep(part: str, name: str, value: Any, folder: str | os.PathLike = ".") -> bool:
    """Write content[part][name] = value into the file, if there is one. True if it was written."""
    path = pathlib.Path(folder) / FILE
    if not path.exists():
        return False
    content = read(folder)
    content[part][name] = value
    try:
        write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    except OSError:
        return False  # a folder that cannot be written is no reason to stop a lesson
    return True


def keep_check(name: str, passed: bool, folder: str | os.PathLike = ".") -> None:
    """Count a try of a self-check; once it was right it stays right."""
    entry = read(folder)["checks"].get(name)
    earlier: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    keep(
        "checks",
        name,
        {
            "passed": passed or bool(earlier.get("passed")),
            "tries": int(earlier.get("tries", 0)) + 1,
            "day": datetime.date.today().isoformat(),
        },
        folder,
    )


# --- The table ------------------------------------------------------------------------------------


def rows(folder: str | os.PathLike) -> list[Row]:
    """A Row per lesson in a folder. Raises InputError if it holds no lessons."""
    folder = pathlib.Path(folder)
    paths = [p for p in sorted(folder.glob("[0-9]*.ipynb")) if CHANGED_SINCE not in p.stem]
    if not paths:
        wanted = "a folder with lessons (`python3 run.py lab` makes it)"
        raise InputError(f"folder: wanted {wanted}, got {folder}")
    content = read(folder)
    return [_row(path, content) for path in paths]


def _row(path, content):
    code = "\n".join(_code_cells(path))
    names = PREDICTION.findall(code)
    written = [name for name in names if content["predictions"].get(name)]
    checks = {name: _state(content["checks"].get(name)) for name in CHECK.findall(code)}
    return Row(path.stem, len(written), len(names), checks)


def _code_cells(path):
    """The source of each code cell; none of a file that is no notebook."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _state(entry):
    if not isinstance(entry, dict):
        return ""
    return "right" if entry.get("passed") else "not yet"


def table(folder: str | os.PathLike) -> str:
    """The progress as text: a line per lesson, and the sums."""
    found_rows = rows(folder)
    width = max(len(row.lesson) for row in found_rows)
    lines = [f"{'lesson':{width}}  predictions  written by you"]
    for row in found_rows:
        checks = ", ".join(f"{name}: {state or '-'}" for name, state in row.checks.items())
        count = f"{row.predicted} of {row.predictions}"
        lines.append(f"{row.lesson:{width}}  {count:>11}  {checks}".rstrip())
    right = sum(state == "right" for row in found_rows for state in row.checks.values())
    checks = sum(len(row.checks) for row in found_rows)
    predicted = sum(row.predicted for row in found_rows)
    predictions = sum(row.predictions for row in found_rows)
    lines.append(f"{predicted} of {predictions} predictions, {right} of {checks} functions right")
    return "\n".join(lines)
