"""One rule for every download: everybody who handed in is there once, the newest attempt counts."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile

import pytest

from moe_np.coursework import submissions
from moe_np.coursework.submissions import collect, collect_one
from tests.support.coursework import NAME


def test_what_is_collected(tmp_path):
    names = ("ada/a-1.ipynb", "ada/a-10.ipynb", "ada/a-2.ipynb", "bob/notes.txt")
    for name in (*names, "eve/.ipynb_checkpoints/x.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "eve" / "link.ipynb").symlink_to(tmp_path / "ada" / "a-1.ipynb")
    collected, remarks = collect([tmp_path], NAME)
    files = [(s.student, s.path and s.path.name) for s, _ in collected]
    assert files == [("ada", "a-10.ipynb"), ("bob", None), ("eve", None)]
    assert remarks[0] == "ada: ada/a-10.ipynb is graded, ada/a-1.ipynb, ada/a-2.ipynb is not"
    assert remarks[1] == "bob: there is no notebook; handed in: bob/notes.txt" and len(remarks) == 3
    out = tmp_path / "bob" / ".." / "ada"
    assert collect([tmp_path], NAME, out)[0][0][0].student == "bob", "grades lie there"


@pytest.mark.parametrize(
    "name", ["ada_12_34_1_mixture.ipynb", "ada_12_assignsubmission_file_/1_mixture.ipynb"]
)
def test_archives_unpacked_and_not(name, tmp_path):
    path = tmp_path / "submissions" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert [s[:3] for s, _ in collect([tmp_path], NAME)[0]] == [("ada", "12", "")]
    (tmp_path / "submissions.zip").write_bytes(b"")
    with pytest.raises(ValueError, match="an archive unpacked"):
        collect([tmp_path / "submissions.zip"], NAME)


def test_different_students_have_different_slugs(tmp_path):
    names = (
        "ü",
        "ß",
        "Юрий",
        "Яна",
        "王小明",
        "Ada",
        "ada",
        "x;=1+2",
        "x_=1+2",
        "-1",
        ".a",
        "con c",
    )
    for name in names:
        (tmp_path / f"{name}.ipynb").write_text("{}")
    slugs = {s.student: slug for s, slug in collect([tmp_path], NAME)[0]}
    shown = set(names) - {".a"}  # a hidden file
    assert set(slugs) == shown
    assert len({slug.casefold() for slug in slugs.values()}) == len(shown), "on every disk"
    assert slugs["ada"] == "ada" and slugs["Юрий"].startswith("Юрий.")
    (tmp_path / "Борис.ipynb").write_text("{}")
    (tmp_path / "ada.ipynb").unlink()
    again = {s.student: slug for s, slug in collect([tmp_path], NAME)[0]}
    assert {name: again[name] for name in shown - {"ada"}} == {
        name: slugs[name] for name in shown - {"ada"}
    }, "whoever else handed in"


# --- One rule for every download ------------------------------------------------------------------


def notebook_text(name=NAME, source="pass"):
    """The text of a notebook that knows its assignment."""
    cell = {"cell_type": "code", "source": source, "metadata": {}}
    return json.dumps({"cells": [cell], "metadata": {"moe_np": {"assignment": name}}})


def write_files(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif name.rpartition("/")[2].startswith("._"):
            path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        elif name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("work/1_mixture.ipynb", notebook_text())
                archive.writestr("__MACOSX/work/._1_mixture.ipynb", b"\0\5\x16\7")
        elif ".ipynb" in name.lower() or path.suffix == ".json":
            path.write_text(notebook_text())
        else:
            path.write_text("words")


def graded_files(given, out=None):
    """{student: graded file below the folder, None for no notebook}; each person is there once."""
    entries, _ = collect(given, NAME, out)
    names = [(s.student, s.id) for s, _ in entries]
    assert len(set(names)) == len(names), "exactly one row per person"
    return {s.student: s.path and s.path.name for s, _ in entries}


DOWNLOADS = {
    "a Canvas download with every kind of file": (
        (
            "ada_101_5001_1_mixture.ipynb",
            "._ada_101_5001_1_mixture.ipynb",
            "bob_102_5002_1_mixture.zip",
            "cyd_103_5003_1_mixture.ipynb.txt",
            "dan_104_5004_1_mixture.IPYNB",
            "eve_105_5005_answers.py",
            "fay_106_text.html",
            "gus_LATE_107_5007_1_mixture-1.ipynb",
            "gus_107_5007_1_mixture.ipynb",
            "team_a_108_5008_1_mixture.ipynb",
            "anon_aB3dE_5009_1_mixture.ipynb",
        ),
        {
            "ada": "ada_101_5001_1_mixture.ipynb",
            "bob": "bob_102_5002_1_mixture.zip",
            "cyd": "cyd_103_5003_1_mixture.ipynb.txt",
            "dan": "dan_104_5004_1_mixture.IPYNB",
            "eve": None,
            "fay": None,
            "gus": "gus_LATE_107_5007_1_mixture-1.ipynb",
            "team_a": "team_a_108_5008_1_mixture.ipynb",
            "anon": "anon_aB3dE_5009_1_mixture.ipynb",
        },
    ),
    "Canvas in a folder in a folder, packed on a Mac": (
        (
            "submissions/ada_101_5001_1_mixture.ipynb",
            "submissions/bob_102_5002_1_mixture.ipynb",
            ".DS_Store",
            "__MACOSX/submissions/._ada_101_5001_1_mixture.ipynb",
        ),
        {"ada": "ada_101_5001_1_mixture.ipynb", "bob": "bob_102_5002_1_mixture.ipynb"},
    ),
    "two folders around plain names": (
        ("downloads (1)/submissions/ada.ipynb", "downloads (1)/submissions/bob.ipynb"),
        {"ada": "ada.ipynb", "bob": "bob.ipynb"},
    ),
    "two folders around folders": (
        ("a/b/ada/work.ipynb", "a/b/bob/work.ipynb", "a/.DS_Store"),
        {"ada": "work.ipynb", "bob": "work.ipynb"},
    ),
    "Moodle with text and file": (
        (
            "Ada L_201_assignsubmission_file_/x.ipynb",
            "Ada L_201_assignsubmission_onlinetext_/onlinetext.html",
            "Bob M_202_assignsubmission_onlinetext_/onlinetext.html",
            "Cyd N_203_assignsubmission_file_/",
        ),
        {"Ada L": "x.ipynb", "Bob M": None, "Cyd N": None},
    ),
    "Moodle without folders": (
        (
            "Ada L_201_assignsubmission_file_x.ipynb",
            "Bob M_202_assignsubmission_file_x.pdf",
        ),
        {"Ada L": "Ada L_201_assignsubmission_file_x.ipynb", "Bob M": None},
    ),
    "Brightspace, two attempts": (
        (
            "1234-5678 - Ada L - Nov 28, 2025 1159 PM/old.ipynb",
            "1234-5678 - Ada L - Dec 1, 2025 105 AM/new.ipynb",
            "1235-5678 - Bob M - Nov 28, 2025 959 PM/z.ipynb",
            "1235-5678 - Bob M - Nov 28, 2025 1000 PM/a.ipynb",
            "index.html",
        ),
        {"Ada L": "new.ipynb", "Bob M": "a.ipynb"},
    ),
    "Brightspace without folders": (
        ("1234-5678 - Ada L - Nov 28, 2025 1159 PM - x.ipynb",),
        {"Ada L": "1234-5678 - Ada L - Nov 28, 2025 1159 PM - x.ipynb"},
    ),
    "Blackboard": (
        (
            "Homework_1_ada_attempt_2025-11-28-23-59-00.txt",
            "Homework_1_ada_attempt_2025-11-28-23-59-00_x.ipynb",
            "Homework_1_ada_attempt_2025-11-29-00-10-00_a.ipynb",
            "Homework_1_bob_attempt_2025-11-28-23-59-00.txt",
        ),
        {"ada": "Homework_1_ada_attempt_2025-11-29-00-10-00_a.ipynb", "bob": None},
    ),
    "Gradescope": (
        (
            "assignment_1_export/submission_metadata.yml",
            "assignment_1_export/submission_11/1_mixture.ipynb",
            "assignment_1_export/submission_12/__MACOSX/._1_mixture.ipynb",
            "assignment_1_export/submission_12/1_mixture.ipynb",
        ),
        {"submission_11": "1_mixture.ipynb", "submission_12": "1_mixture.ipynb"},
    ),
    "nbgrader": (
        ("submitted/ada/1_mixture/1_mixture.ipynb", "submitted/ada/1_mixture/timestamp.txt"),
        {"ada": "1_mixture.ipynb"},
    ),
    "one person's folder": (
        ("ada/1_mixture.ipynb", "ada/._1_mixture.ipynb", "ada/Untitled.txt"),
        {"ada": "1_mixture.ipynb"},
    ),
    "plain names beside other files": (
        (
            "s1.ipynb",
            "._s1.ipynb",
            "s2.IPYNB",
            "s3.ipynb.txt",
            "s4.json",
            "s5.zip",
            "s6.py",
            "s7.ipynb",
            "s7 (1).ipynb",
            "README.md",
            "grades.csv",
        ),
        {
            "s1": "s1.ipynb",
            "s2": "s2.IPYNB",
            "s3": "s3.ipynb.txt",
            "s4": "s4.json",
            "s5": "s5.zip",
            "s6": None,
            "s7": "s7 (1).ipynb",
        },
    ),
}


@pytest.mark.parametrize(("names", "people"), DOWNLOADS.values(), ids=DOWNLOADS)
def test_everybody_who_handed_in_has_one_row(names, people, tmp_path):
    write_files(tmp_path, names)
    assert graded_files([tmp_path]) == people
    assert graded_files([tmp_path, tmp_path]) == people, "given twice"


@pytest.mark.parametrize(
    "later", ["7_own-1", "7_own (1)", "7_own-Copy1", "7_own - Copy", "7_own-10"]
)
def test_a_number_after_the_name_is_a_later_attempt(later, tmp_path):
    write_files(tmp_path, (f"s1/{later}.ipynb", "s1/7_own.ipynb", "s2/7_own.ipynb"))
    assert graded_files([tmp_path])["s1"] == f"{later}.ipynb"
    canvas = tmp_path / "canvas"
    write_files(canvas, (f"a_1_2_{later}.ipynb", "a_1_2_7_own.ipynb", "b_2_3_7_own.ipynb"))
    assert graded_files([canvas])["a"] == f"a_1_2_{later}.ipynb"


def test_a_notebook_of_the_assignment_goes_before_others(tmp_path):
    write_files(tmp_path, ("s1/1_mixture.ipynb", "s2/work.ipynb"))
    (tmp_path / "s1" / "Untitled.ipynb").write_text('{"cells": []}')
    cell = {"cell_type": "code", "source": "", "metadata": {"nbgrader": {"grade_id": "q1_softmax"}}}
    (tmp_path / "s2" / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "s2" / "work.ipynb").write_text('{"cells": []}')
    entries, remarks = collect([tmp_path], NAME, None, ("q1_softmax",))
    assert [s.path.name for s, _ in entries] == ["1_mixture.ipynb", "a.ipynb"]
    assert len(remarks) == 2 and "Untitled.ipynb is not" in remarks[0]


def test_people_of_one_name_in_two_sections_are_two(tmp_path):
    write_files(tmp_path, ("sec1/ada.ipynb", "sec2/ada.ipynb", "sec2/bob.ipynb"))
    folders = [tmp_path / "sec1", tmp_path / "sec2"]
    for given in (folders, [f / "ada.ipynb" for f in folders] + [folders[1] / "bob.ipynb"]):
        entries, _ = collect(given, NAME)
        assert [(s.student, s.section, slug) for s, slug in entries] == [
            ("ada", "sec1", "ada"),
            ("ada", "sec2", "ada.sec2"),
            ("bob", "sec2", "bob"),
        ]
    write_files(tmp_path, ("late/ada_7_8_x.ipynb", "first/ada_7_8_x.ipynb", "late/bob_8_9_x.ipynb"))
    entries, _ = collect([tmp_path / "first", tmp_path / "late"], NAME)
    assert [s.student for s, _ in entries] == ["ada", "bob"], "the platform's number says who"


def test_folders_that_the_shell_lists_are_people(tmp_path):
    write_files(tmp_path, ("ada/1_mixture.ipynb", "bob/1_mixture.ipynb"))
    assert set(graded_files(sorted(tmp_path.iterdir()))) == {"ada", "bob"}
    moodle = tmp_path / "moodle"
    write_files(
        moodle, ("A_1_assignsubmission_file_/x.ipynb", "B_2_assignsubmission_file_/x.ipynb")
    )
    assert set(graded_files(sorted(moodle.iterdir()))) == {"A", "B"}
    assert set(graded_files(sorted(moodle.glob("*/*")))) == {"A", "B"}


def test_a_section_is_never_taken_for_a_person(tmp_path):
    write_files(tmp_path, ("s/ada_1_2_x.ipynb", "s/bob_2_3_x.ipynb", "t/cyd_3_4_x.ipynb"))
    with pytest.raises(ValueError, match="holds the work of 2 people; give that folder itself"):
        collect([tmp_path], NAME)


def test_links_and_broken_archives_have_a_row_and_no_notebook(tmp_path):
    write_files(tmp_path, ("ada.ipynb", "bob.ipynb"))
    (tmp_path / "eve.ipynb").symlink_to(tmp_path / "ada.ipynb")
    (tmp_path / "zoe.zip").write_bytes(b"PK\x03\x04 and no more")
    people = {"ada": "ada.ipynb", "bob": "bob.ipynb", "eve": None, "zoe": None}
    assert graded_files([tmp_path]) == people


def test_an_archive_is_read_like_a_file(tmp_path):
    write_files(tmp_path, ("ada_1_2_work.zip", "bob_2_3_work.ipynb"))
    (ada, _), (bob, _) = collect([tmp_path], NAME)[0]
    assert submissions.read(ada) == submissions.read(bob) == notebook_text().encode()
    assert "1_mixture.ipynb in it is graded" in ada.remarks[0] and not bob.remarks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no other user")
def test_what_the_grader_cannot_see_is_not_taken_for_nothing(request):
    """A folder, an archive and a file of others, which only their owner may read."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    write_files(folder, ("ada/1_mixture.ipynb", "bob.zip", "cyd.json", "dan.ipynb", "eve.ipynb"))
    shut = ("ada", "bob.zip", "cyd.json", "dan.ipynb")
    for name in shut:
        (folder / name).chmod(0)
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:  # rights of nobody: root may read everything
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            entries, _ = collect([folder], NAME)
            readable = {}
            for submission, _ in entries:
                try:
                    readable[submission.student] = bool(submissions.read(submission))
                except OSError:
                    readable[submission.student] = False
            os.write(write_end, json.dumps(readable).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, "rb") as file:
        result = json.loads(file.read())
    assert result == {"ada": False, "bob": False, "cyd": False, "dan": False, "eve": True}
    (folder / "ada").chmod(0o755)


def test_gradescopes_folder_has_the_same_rule(tmp_path):
    names = ("__MACOSX/._7_own.ipynb", "._7_own.ipynb", "work/7_own.ipynb", "work/7_own-1.ipynb")
    write_files(tmp_path, names)
    assert collect_one(tmp_path, NAME).path.name == "7_own-1.ipynb"
    (tmp_path / "empty").mkdir()
    assert collect_one(tmp_path / "empty", NAME).path is None
