"""What is stored of a person's marks is what is read, and a damaged file is none."""

import pathlib

import pytest

from moe_np.coursework import store
from moe_np.coursework.grading import GradedNotebook, Mark
from moe_np.coursework.submissions import Submission

SUBMISSION = Submission("Ada", "201", "", pathlib.Path("x.ipynb"), "a.ipynb", "s", ("late",))
GRADED = GradedNotebook([Mark("q1", 2, 1.5, "wrong"), Mark("q2", 2, None, "", "words")], ["odd"])


def test_marks_come_back(tmp_path):
    store.save(tmp_path, "key", ["print", 5], SUBMISSION, GRADED)
    stored = store.load(tmp_path)
    assert store.marks_in(stored) == GRADED
    assert store.submission_in(stored) == SUBMISSION._replace(path=None, member="")
    assert (stored["key"], stored["settings"]) == ("key", ["print", 5])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"marks": 3, "submission": {"x": 1}}', '{"marks": [{"name": 1}]}']
)
def test_a_damaged_file_is_none(text, tmp_path):
    (tmp_path / "marks.json").write_text(text)
    stored = store.load(tmp_path) or {}
    assert store.marks_in(stored) is None and store.submission_in(stored) is None
