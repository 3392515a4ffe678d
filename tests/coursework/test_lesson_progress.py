"""The table of a learner's progress: from progress.json and from the notebooks beside it."""

import json

import pytest

from moe_np import cli
from moe_np.base.checks import InputError
from moe_np.coursework import lesson_progress

CODE = ('predict("09.1", "")', 'predict("09.2", "all of them")', "x = 1\nself_check(f, g, cases)")


def notebook(path, sources):
    cells = [{"cell_type": "code", "source": source.splitlines(True)} for source in sources]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    notebook(tmp_path / "09_balance.ipynb", CODE)
    notebook(tmp_path / "09_balance.newer.ipynb", CODE)
    (tmp_path / "10_dispatch.ipynb").write_text("no notebook", encoding="utf-8")
    (tmp_path / lesson_progress.FILE).write_text("{}", encoding="utf-8")
    return tmp_path


def test_rows_count_what_was_written(folder):
    assert lesson_progress.rows(folder)[0] == ("09_balance", 0, 2, {"f": ""})
    lesson_progress.keep("predictions", "09.2", "all of them", folder)
    lesson_progress.keep("predictions", "07.1", "of another lesson", folder)
    lesson_progress.keep_check("f", False, folder)
    balance, dispatch = lesson_progress.rows(folder)
    assert balance == ("09_balance", 1, 2, {"f": "not yet"})
    assert dispatch == ("10_dispatch", 0, 0, {})
    lesson_progress.keep_check("f", True, folder)
    assert lesson_progress.rows(folder)[0].checks == {"f": "right"}


def test_the_command_prints_the_table(folder, capsys):
    lesson_progress.keep_check("f", True, folder)
    assert cli.main(["coursework", "progress", str(folder)]) in (None, 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["09_balance", "0", "of", "2", "f:", "right"]
    assert lines[-1] == "0 of 2 predictions, 1 of 1 functions right"


def test_a_folder_without_lessons_is_refused(tmp_path):
    with pytest.raises(InputError, match="wanted a folder with lessons"):
        lesson_progress.rows(tmp_path)
