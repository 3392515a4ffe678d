"""The learner's copies: what was changed stays, and a newer lesson lies beside it."""

import json

import pytest

from lessons import build, work


def notebook(path, *sources):
    cells = [{"cell_type": "markdown", "source": [source]} for source in sources]
    code = {"cell_type": "code", "source": ["ways[0](x)\n", "table](x.md)"]}
    path.write_text(json.dumps({"cells": [*cells, code]}), encoding="utf-8")


@pytest.fixture
def folders(tmp_path):
    lessons = tmp_path / "lessons"
    lessons.mkdir()
    notebook(lessons / "04_vowels.ipynb", "one")
    notebook(lessons / "05_em.ipynb", "two")
    return lessons, tmp_path / "work"


def source(path):
    return "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])


def names(folder):
    return sorted(path.name for path in folder.glob("*.ipynb"))


def test_every_lesson_is_copied_once(folders):
    lessons, mine = folders
    assert work.copy_lessons(lessons, mine) == []
    assert names(mine) == ["04_vowels.ipynb", "05_em.ipynb"] and (mine / work.PROGRESS).exists()
    before = (mine / "04_vowels.ipynb").read_bytes()
    assert work.copy_lessons(lessons, mine) == []
    assert (mine / "04_vowels.ipynb").read_bytes() == before


def test_what_a_learner_changed_stays_and_the_newer_lesson_lies_beside_it(folders):
    lessons, mine = folders
    work.copy_lessons(lessons, mine)
    notebook(mine / "04_vowels.ipynb", "my answers")
    (mine / work.PROGRESS).write_text('{"predictions": {"04.1": "all"}}', encoding="utf-8")
    notebook(lessons / "04_vowels.ipynb", "one, corrected")
    (remark,) = work.copy_lessons(lessons, mine)
    assert remark == "04_vowels.ipynb has changed; the newer lesson is 04_vowels.newer.ipynb"
    assert source(mine / "04_vowels.ipynb") == "my answers"
    assert source(mine / "04_vowels.newer.ipynb") == "one, corrected"
    assert "04.1" in (mine / work.PROGRESS).read_text(encoding="utf-8")
    assert work.copy_lessons(lessons, mine) == [], "it is told once"
    notebook(mine / "04_vowels.newer.ipynb", "my second answers")
    notebook(lessons / "04_vowels.ipynb", "one, corrected twice")
    work.copy_lessons(lessons, mine)
    assert source(mine / "04_vowels.newer.ipynb") == "my second answers"
    assert source(mine / "04_vowels.newer-2.ipynb") == "one, corrected twice"


def test_a_copy_that_nobody_changed_becomes_the_newer_lesson(folders):
    lessons, mine = folders
    work.copy_lessons(lessons, mine)
    notebook(lessons / "05_em.ipynb", "two, corrected")
    assert work.copy_lessons(lessons, mine) == []
    assert source(mine / "05_em.ipynb") == "two, corrected" and len(names(mine)) == 2


def test_a_lost_record_costs_nobody_anything(folders):
    lessons, mine = folders
    work.copy_lessons(lessons, mine)
    notebook(mine / "04_vowels.ipynb", "my answers")
    (mine / work.RECORD).write_text("damaged", encoding="utf-8")
    work.copy_lessons(lessons, mine)
    assert source(mine / "04_vowels.ipynb") == "my answers"


def test_links_to_what_is_not_copied_are_changed(folders):
    lessons, mine = folders
    text = "[e](errata.md#2) [n](05_em.ipynb) [a](https://a.b/c) [s](solutions/04_vowels.py)"
    notebook(lessons / "04_vowels.ipynb", text)
    work.copy_lessons(lessons, mine)
    wanted = "[e](../lessons/errata.md#2) [n](05_em.ipynb) [a](https://a.b/c) "
    assert source(mine / "04_vowels.ipynb") == wanted + "[s](../lessons/solutions/04_vowels.py)"
    code = json.loads((mine / "04_vowels.ipynb").read_text(encoding="utf-8"))["cells"][-1]
    assert code["source"] == ["ways[0](x)\n", "table](x.md)"], "code stays as it is"


def test_the_links_of_the_copies_lead_somewhere(tmp_path):
    (tmp_path / "lessons").symlink_to(build.HERE)
    work.copy_lessons(build.HERE, tmp_path / "work")
    copies = list((tmp_path / "work").glob("*.ipynb"))
    assert len(copies) >= 16
    for path in copies:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
            for target in work.BESIDE.findall(text):
                file = (path.parent / target.partition("#")[0]).resolve()
                assert file.exists(), f"{path.name}: {target}"


def test_git_does_not_look_into_the_folder():
    lines = (build.HERE.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/work/" in lines
