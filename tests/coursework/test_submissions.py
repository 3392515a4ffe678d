"""Whose work a file is, by its name."""

import pathlib

import pytest

from moe_np.coursework.submissions import Submission, collect, identify
from tests.support.coursework import NAME


@pytest.mark.parametrize(
    ("path", "student", "id_", "login"),
    [
        ("lovelaceada_12345_678901_1_mixture.ipynb", "lovelaceada", "12345", ""),
        ("lovelaceada_LATE_12345_678901_1_mixture-2.ipynb", "lovelaceada", "12345", ""),
        ("Ada Lovelace_77_assignsubmission_file_/work.ipynb", "Ada Lovelace", "77", ""),
        ("Ada Lovelace_77_assignsubmission_file_work.ipynb", "Ada Lovelace", "77", ""),
        ("submitted/ada/1_mixture/1_mixture.ipynb", "ada", "", "ada"),
        ("ada/1_mixture/1_mixture.ipynb", "ada", "", "ada"),
        ("1_mixture/ada/work.ipynb", "ada", "", "ada"),
        ("ada/1_mixture.ipynb", "ada", "", "ada"),
        ("submission_4711/1_mixture.ipynb", "submission_4711", "", "submission_4711"),
        ("ada.ipynb", "ada", "", "ada"),
        ("1_mixture_ada.ipynb", "ada", "", "ada"),
        ("ada-1_mixture.ipynb", "ada", "", "ada"),
        ("1_mixture.ipynb", "1_mixture", "", "1_mixture"),
        ("Zoë Ångström.ipynb", "Zoë Ångström", "", "Zoë Ångström"),
        ("Eve_77_assignsubmission_file_/Ada_12_assignsubmission_file_/work.ipynb", "Eve", "77", ""),
        ("Eve_77_assignsubmission_file_/Ada_12_assignsubmission_file_work.ipynb", "Eve", "77", ""),
        ("eve/lovelaceada_12345_678901_1_mixture.ipynb", "eve", "", "eve"),
        ("eve/Ada_12_assignsubmission_file_/work.ipynb", "eve", "", "eve"),
        ("eve/ada/1_mixture/work.ipynb", "eve", "", "eve"),
        ("submitted/eve/ada/1_mixture/work.ipynb", "eve", "", "eve"),
    ],
)
def test_file_names_of_learning_platforms(path, student, id_, login):
    root = pathlib.Path("/somewhere")
    assert identify(root / path, root, NAME)[:3] == (student, id_, login)


def test_what_is_collected(tmp_path):
    names = ("ada/a-1.ipynb", "ada/a-10.ipynb", "ada/a-2.ipynb", "bob/notes.txt")
    for name in (*names, "eve/.ipynb_checkpoints/x.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "eve" / "link.ipynb").symlink_to(tmp_path / "ada" / "a-1.ipynb")
    collected, remarks = collect([tmp_path], NAME)
    files = [(s.student, s.path and s.path.name) for s, _ in collected]
    assert files == [("ada", "a-10.ipynb"), ("bob", None), ("eve", None)]
    assert len(remarks) == 2 and "a-10.ipynb is graded" in remarks[-1]
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


def test_names_make_no_paths():
    for name in ("../../etc/passwd", "..", "=cmd|' /C calc'!A0", "a\nb", "", "ü", "ß"):
        slug = Submission(name, "", name, None).slug
        assert slug and "/" not in slug and "\\" not in slug and not slug.startswith(".")


def test_different_students_have_different_slugs(tmp_path):
    for name in ("ü", "ß"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    assert [slug for _, slug in collect([tmp_path], NAME)[0]] == ["student", "student.2"]
