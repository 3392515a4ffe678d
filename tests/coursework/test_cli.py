"""What a teacher types: list, prove, and errors."""

import json
import re

import pytest

from moe_np import cli
from moe_np.coursework import assignments
from tests.support import coursework
from tests.support.coursework import NAME, moe_np


def test_list(capsys):
    assert moe_np("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == coursework.NAMES
    assert moe_np("list", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert not any("one hours" in line for line in lines)
    assert facts[0]["name"] == NAME and facts[0]["points"] == 20 and len(facts[0]["questions"]) == 7


def test_without_a_checkout_the_error_says_where_assignments_are_looked_for(tmp_path, capsys):
    assert cli.main(["coursework", "list", "--assignments", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "say where they are with --assignments DIR or MOE_NP_ASSIGNMENTS" in error


@pytest.mark.slow
def test_the_guides_example_of_an_assignment_proves_itself(tmp_path, capsys):
    guide = (coursework.FOLDER / "TEACHING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# mine/8_own/(\w+\.py)\n(.*?)```", guide, re.S)
    assert [name for name, _ in blocks] == ["questions.py", "assignment.py", "bank.py"]
    (tmp_path / "8_own").mkdir()
    for name, text in blocks:
        (tmp_path / "8_own" / name).write_text(text, encoding="utf-8")
    command = ["coursework", "prove", "8_own", "--assignments", str(tmp_path)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.count("\n| q1_centre |") == 6
    bank = tmp_path / "8_own" / "bank.py"
    bank.write_text(bank.read_text().replace("x - x.mean(axis=0)", "x - x.mean(axis=1)[:, None]"))
    assignments.load_module.cache_clear()
    assert cli.main(command) == 1
    assert "1 of 6 answers are not graded as wanted" in capsys.readouterr().err
