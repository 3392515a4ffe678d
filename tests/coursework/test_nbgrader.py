"""The same sources in nbgrader: its release is ours, cell by cell, and its marks are ours.

Needs the extra `nbgrader`; skipped where it is not installed.
"""

import json
import os
import sys

import pytest

from moe_np.coursework import assignments, notebook, release
from tests.support import coursework

pytest.importorskip("nbgrader")
pytestmark = [
    pytest.mark.nbgrader,
    pytest.mark.slow,
    # SQLAlchemy's, about nbgrader's own gradebook
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
simulated = coursework.simulate_class()


@pytest.fixture
def api(tmp_path, monkeypatch):
    """nbgrader in an empty course."""
    from nbgrader.apps import NbGraderAPI
    from traitlets.config import Config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(assignments.ENVIRONMENT, str(coursework.FOLDER))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    # nbgrader calls alembic, which stands beside this Python
    scripts = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])
    config = Config()
    config.CourseDirectory.course_id = "moe"
    config.CourseDirectory.root = str(tmp_path)
    config.ExecutePreprocessor.timeout = 120
    return NbGraderAPI(config=config)


@coursework.every_assignment
def test_nbgrader_releases_and_grades_as_we_do(name, tmp_path, api):
    assignment = coursework.assignment(name)
    release.nbgrader_source(assignment, tmp_path)
    made = api.generate_assignment(name, force=True, create=True)
    assert made["success"], made
    path = tmp_path / "release" / name / f"{name}.ipynb"
    theirs = json.loads(path.read_text(encoding="utf-8"))["cells"]
    ours = notebook.released(assignment.cells)
    assert ["".join(cell["source"]) for cell in theirs] == [cell.source for cell in ours]

    first = simulated.functions(assignment)[0]
    wrong_answer = next(iter(coursework.bank(name)[first.name]["wrong"].values()))
    work = {
        "right": simulated.solved(assignment),
        "wrong": simulated.solved(assignment, {first.name: wrong_answer}),
        "untouched": ours,
    }
    by_hand = sum(question.points for question in assignment.questions if not question.function)
    full = assignment.points - by_hand
    for student, cells in work.items():
        folder = tmp_path / "submitted" / student / name
        folder.mkdir(parents=True)
        raw = simulated.notebook_bytes(assignment, cells)
        (folder / f"{name}.ipynb").write_bytes(raw)
        made = api.autograde(name, student, force=True, create=True)
        assert made["success"], made
    with api.gradebook as book:
        scores = {row["student"]: row["score"] for row in book.submission_dicts(name)}
    assert scores == {"right": full, "wrong": full - first.points, "untouched": 0}
