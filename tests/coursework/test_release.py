"""What is handed out: the student's folder, and Gradescope's autograder."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import coursework
from tests.support.coursework import NAME, files_below, moe_np


@coursework.every_assignment
def test_a_release_holds_what_a_student_needs_and_nothing_else(name, tmp_path, capsys):
    assert moe_np("release", name, tmp_path) == 0
    files = files_below(tmp_path)
    assert {f"{name}.ipynb", "README.md"} <= set(files)
    assert set(capsys.readouterr().out.split()) == {str(tmp_path / file) for file in files}
    text = b"\n".join(files.values()).decode()
    forbidden = ("SOLUTION", "HIDDEN", "hidden_test", "questions.py")
    assert not any(word in text for word in forbidden)
    notebook = json.loads(files[f"{name}.ipynb"])
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    moe_np("release", name, tmp_path)
    assert files_below(tmp_path) == files, "the same bytes a second time"


def test_the_autograder_holds_the_package_and_one_assignment(tmp_path, capsys):
    assert moe_np("gradescope", NAME, tmp_path) == 0
    assert "zip what is in it" in capsys.readouterr().out
    files = files_below(tmp_path)
    assert {"setup.sh", "run_autograder", "grade_one.py", "package/pyproject.toml"} <= set(files)
    names = ("assignment.py", "questions.py", "feedback.toml")
    assert {f"assignments/{NAME}/{name}" for name in names} == {
        file for file in files if file.startswith("assignments/")
    }
    sandbox = coursework.ROOT / "moe_np" / "coursework" / "sandbox"
    for path in sandbox.iterdir():
        if path.is_file():
            copy = files[f"package/moe_np/coursework/sandbox/{path.name}"]
            assert copy == path.read_bytes()
    assert f'grade_one.py" {NAME} ' in files["run_autograder"].decode()
    compile(files["grade_one.py"], "grade_one.py", "exec")
    for name in ("setup.sh", "run_autograder"):
        assert os.name == "nt" or os.access(tmp_path / name, os.X_OK)


@pytest.mark.slow
def test_gradescope_grades_the_newest_notebook_whatever_a_mac_adds(tmp_path):
    simulated = coursework.simulate_class()
    assignment = coursework.assignment()
    assert moe_np("gradescope", NAME, tmp_path / "source") == 0
    folder = tmp_path / "submission"
    (folder / "__MACOSX").mkdir(parents=True)
    solved = simulated.notebook_bytes(assignment, simulated.solved(assignment))
    (folder / "1_mixture.ipynb").write_bytes(b"{}")
    (folder / "1_mixture-1.ipynb").write_bytes(solved)
    for name in ("._1_mixture-1.ipynb", "__MACOSX/._z.ipynb"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    command = [sys.executable, "-P", tmp_path / "source" / "grade_one.py", NAME, tmp_path]
    subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert results["score"] == 20
