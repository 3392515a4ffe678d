"""Whose work a file is, by its name, and which attempt."""

import os
import pathlib
import random

import pytest

from moe_np.coursework.file_names import Submission, attempt_key, identify
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
        ("team_a_104_5004_1_mixture.ipynb", "team_a", "104", ""),
        ("ada_12_34_99_88_x.ipynb", "ada", "12", ""),
        ("anon_aB3dE_5005_1_mixture.ipynb", "anon", "aB3dE", ""),
        ("anon_LATE_aB3dE_5005_1_mixture.ipynb", "anon", "aB3dE", ""),
        ("fay_106_text.html", "fay", "106", ""),
        ("1234-5678 - Ada L - Nov 28, 2025 1159 PM/x.ipynb", "Ada L", "1234", ""),
        ("1234-5678 - Ada L - Nov 28, 2025 1159 PM - x.ipynb", "Ada L", "1234", ""),
        ("HW_1_ada_attempt_2025-11-28-23-59-00_x.ipynb", "ada", "", "ada"),
        ("HW_1_ada_attempt_2025-11-28-23-59-00.txt", "ada", "", "ada"),
        ("ada.IPYNB", "ada", "", "ada"),
        ("ada.ipynb.txt", "ada", "", "ada"),
        ("submitted/eve/ada/1_mixture/work.ipynb", "eve", "", "eve"),
    ],
)
def test_file_names_of_learning_platforms(path, student, id_, login):
    root = pathlib.Path("/somewhere")
    assert identify(root / path, root, NAME)[:3] == (student, id_, login)


def test_names_make_no_paths():
    for name in (
        "../../etc/passwd",
        "..",
        "=cmd|' /C calc'!A0",
        "a\nb",
        "",
        "ü",
        "ß",
        "con",
        "lpt1",
    ):
        slug = Submission(name, "", name, None).slug
        assert slug.casefold() not in ("con", "lpt1")
        assert slug and "/" not in slug and "\\" not in slug and not slug.startswith(".")


@pytest.mark.parametrize(
    "attempts",
    [
        ("7_own", "7_own-1", "7_own-2", "7_own-10", "7_own-10 (1)"),
        ("x", "x (1)", "x (2)", "x (10)"),
        ("x", "x-Copy1", "x-Copy2"),
        ("x", "x - Copy", "x - Copy (2)"),
        ("work2", "work2-1", "work10"),
        ("a_1_5_x", "a_1_5_x-1", "a_1_12_x"),
        (
            "1-2 - Ada - Nov 28, 2025 105 AM - b",
            "1-2 - Ada - Nov 28, 2025 1005 AM - a",
            "1-2 - Ada - Nov 28, 2025 1205 PM - a",
            "1-2 - Ada - December 1, 2025 1:05 AM - a",
        ),
        ("H_a_attempt_2025-11-28-23-59-00_b", "H_a_attempt_2025-11-29-00-01-00_a"),
    ],
)
def test_later_attempts_come_last(attempts):
    root = pathlib.Path("in")
    files = [root / f"{name}.ipynb" for name in attempts]
    mixed = random.Random(1).sample(files, len(files))
    assert sorted(mixed, key=lambda path: attempt_key(path, root)) == files


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_utf_8_stay_different():
    raw = (b"M\xfcller", b"M\xf6ller", b"M\x81ller", b"a\nb", b"a\tb", "Mu\u0308ller".encode())
    root = pathlib.Path("in")
    names = [identify(root / f"{os.fsdecode(name)}.ipynb", root, NAME).student for name in raw]
    assert names == ["Müller", "Möller", "M%81ller", "a%0Ab", "a%09b", "Müller"]
    assert all(name.isprintable() for name in names)


def test_a_plain_name_after_the_assignments_is_not_canvass():
    root = pathlib.Path("in")
    for name in ("ada", "bob"):
        assert identify(root / f"hw_1_2_{name}.ipynb", root, "hw_1").student == f"2_{name}"


def test_odd_digits_are_no_numbers():
    root = pathlib.Path("in")
    for name in ("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "x\N{SUPERSCRIPT TWO}-1"):
        assert attempt_key(root / f"{name}.ipynb", root)
