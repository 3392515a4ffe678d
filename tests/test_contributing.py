""".github/CONTRIBUTING.md is true: each kind of addition is made in a copy of the checkout, touches
the files that the page lists and no others, and works as the page promises.
"""

import pathlib
import re

import pytest

from tests.support import question
from tests.support.checkout import ROOT, Checkout

PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")


def listed(section, **names):
    """The files that a section of the page lists, with its placeholders replaced."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    paths = re.findall(r"^- `(.*)`", text, re.MULTILINE)
    assert paths, section
    for placeholder, name in names.items():
        paths = [path.replace(placeholder, name) for path in paths]
    return set(paths)


def sections():
    """The sections that list files."""
    texts = re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [title for title, text in texts if re.search(r"^- `", text, re.MULTILINE)]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def check_rules(checkout, room):
    """The rules of the house for the room, ruff for the files that were added, a topic for each."""
    rules = f"[{room}] or circle or imports_what_lies_outside or stands_in_exactly_one_topic"
    checkout.test("tests/test_house.py", "tests/lessons/test_site.py", "-k", rules)
    python = sorted(path for path in checkout.changed() if path.endswith(".py"))
    checkout.run("-m", "ruff", "check", "--no-cache", *python)
    checkout.run("-m", "ruff", "format", "--no-cache", "--check", *python)


def test_every_section_with_a_list_is_tested_here():
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert sections() == re.findall(r'listed\("(.*?)"', text)


@pytest.mark.slow
def test_a_router(checkout):
    """That the tests of all routers run on it is in tests/routing/test_new_router.py."""
    checkout.add_router()
    assert checkout.changed() == listed("A router", NAME="cosine")
    check_rules(checkout, "routing")


@pytest.mark.slow
def test_an_expert(checkout):
    checkout.add("expert")
    checkout.replace(
        "moe_np/layers/experts/__init__.py",
        (
            "from moe_np.layers.experts.linear import LINEAR\n",
            "from moe_np.layers.experts.leaky_relu import LEAKY_RELU\n"
            "from moe_np.layers.experts.linear import LINEAR\n",
        ),
        ('    "GELU",\n', '    "GELU",\n    "LEAKY_RELU",\n'),
    )
    assert checkout.changed() == listed("An expert", NAME="leaky_relu")
    check_rules(checkout, "layers")
    report = checkout.test("tests/layers", "-k", "leaky_relu")
    assert "layers/experts/test_experts.py::test_gradient[leaky_relu] PASSED" in report
    assert "test_sparse_layer.py::test_gradient[numpy-leaky_relu] PASSED" in report


@pytest.mark.slow
def test_an_experiment_with_its_figure(checkout):
    checkout.add("experiment")
    assert checkout.changed() == listed("An experiment with its figure", NAME="two_lines")
    check_rules(checkout, "experiments")
    assert "\ntwo_lines " in checkout.run("-m", "moe_np", "list")
    options = ("two_lines", "--quick", "--jobs", "1", "--out", "out")
    report = checkout.run("-m", "moe_np", "run", *options)
    assert "| one line | 0." in report and "| two lines | 0." in report
    report = checkout.run("-m", "moe_np", "run", *options, "--only", "two lines")
    assert "one line" not in report and "| two lines | 0." in report
    checkout.run("-m", "figures", *options)
    assert "| two lines | 0." in checkout.read("out/REPORT.md")
    assert (checkout.folder / "out" / "two_lines.png").exists()
    protocol = "tests/experiments/test_protocol.py"
    checkout.test("tests/experiments/two_lines", protocol, "-k", "two_lines")
    checkout.test("tests/figures", "-k", "keeps_the_contract")


@pytest.mark.slow
def test_a_lesson(checkout):
    checkout.add("lesson")
    row = re.search(r"^\| \[25 .*\n", checkout.read("lessons/README.md"), re.MULTILINE)[0]
    new_row = "| [26 Ties](26_ties.ipynb) | say who gets a token in a tie |\n"
    checkout.replace("lessons/README.md", (row, row + new_row))
    text = checkout.read("lessons/25_audit.py")
    last = text[text.index("# This was the last lesson.") :]
    checkout.replace("lessons/25_audit.py", (last, "# Next: 26, ties.\n"))
    assert checkout.run("lessons/build.py") == "25_audit.ipynb written\n26_ties.ipynb written\n"
    assert checkout.changed() == listed("A lesson", NN_name="26_ties", MM_before="25_audit")
    tests = "26_ties or table or next or without_a_source or 25_audit and notebook"
    paths = ("tests/lessons/test_lessons.py", "tests/lessons/test_additions.py")
    report = checkout.test(*paths, "-k", tests)
    assert "two_hints[26_ties] PASSED" in report
    assert "test_it_has_the_shape_of_a_lesson[26_ties.py] PASSED" in report
    assert "test_it_runs_in_time_and_writes_nothing[solutions/26_ties.py] PASSED" in report
    checkout.run("-m", "ruff", "check", "--no-cache", "lessons/26_ties.py")


@pytest.mark.slow
def test_a_coursework_question(checkout):
    folder = "lessons/assignments/1_mixture"
    after = "\n# %% [markdown]\n# ## The vowels\n"
    checkout.replace(
        f"{folder}/assignment.py", *question.INTRODUCTION, (after, question.CELLS + after)
    )
    checkout.replace(
        f"{folder}/questions.py",
        ("QUESTIONS = (\n", f"{question.CASES}QUESTIONS = (\n"),
        ("report, SINGLE),\n)\n", f"report, SINGLE),\n{question.QUESTION})\n"),
    )
    checkout.write(f"{folder}/bank.py", checkout.read(f"{folder}/bank.py") + question.BANK)
    assert checkout.changed() == listed("A coursework question", N_name="1_mixture")
    table = checkout.run("-m", "moe_np", "coursework", "prove", "1_mixture")
    assert table.count("| q8_perplexity | right: ") == 2
    assert len(re.findall(r"\| q8_perplexity \| wrong: .*? \| q8_perplexity \|", table)) == 4
    files = [f"tests/coursework/test_{name}.py" for name in ("assignments", "visible_checks")]
    report = checkout.test(*files, "-k", "q8_perplexity or assignments and 1_mixture and not slow")
    assert "test_checks_look_at_every_output[1_mixture-q8_perplexity] PASSED" in report
    checkout.test("tests/coursework/test_mutants.py", "-k", "every_mutant and 1_mixture")
