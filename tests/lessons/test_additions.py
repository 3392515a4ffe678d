"""What the builder adds to a lesson: cells for predictions, closed hints and answers, links."""

import re

import pytest

pytest.importorskip("jupytext")
from lessons import additions, build
from moe_np.coursework import lesson_progress

SOURCES = build.sources()
PARTS = {
    "Hints": "1. Count first.\n2. Then divide.",
    "Your turn": "```python\ndef f():\n    return 1\n\n\ndef cases(rng):\n    yield ()\n```",
    "1. How much": "Much.",
    "2. Why": "Because.",
}


@pytest.fixture
def parts(monkeypatch):
    monkeypatch.setattr(additions, "solution_parts", lambda stem: PARTS)


def test_a_cell_for_a_prediction_stands_before_the_outcome():
    cells = [
        ("markdown", "**Predict.** How many?", {}),
        ("code", "print(3)", {}),
        ("code", "print(4)", {}),
        ("markdown", "**Predict.** And then?", {}),
        ("code", "model.predict(x)", {}),
        ("markdown", "**Predict.** By hand.", {}),
        ("code", 'predict("88.9", "")', {}),
    ]
    sources = [source for kind, source, _ in additions.added(cells, "88_try") if kind == "code"]
    assert sources[0].startswith('from moe_np.coursework import predict\n\npredict("88.1"')
    assert sources[1:3] == ["print(3)", "print(4)"] and sources[3].startswith('predict("88.2"')
    assert sources[4:] == ["model.predict(x)", 'predict("88.9", "")']
    assert lesson_progress.PREDICTION.findall("\n".join(sources)) == ["88.1", "88.2", "88.9"]


def test_hints_and_the_solution_stand_closed_below_the_self_check(parts):
    cells = [("code", "self_check(f, g, cases)", {}), ("markdown", "End", {})]
    _, (kind, text, _), _ = additions.added(cells, "88_try")
    assert kind == "markdown"
    summaries = re.findall(r"<details><summary>(.*?)</summary>", text)
    assert summaries == ["Hint 1", "Hint 2", "A solution"]
    assert "Then divide." in text and "return 1" in text and "cases" not in text


def test_answers_stand_closed_below_the_exercises(parts):
    text = "## Exercises\n\n1. How much?\n2. Why?\n\nSolutions: `x.py`.\n\nNext: 10, dispatch."
    ((_, made, _),) = additions.added([("markdown", text, {})], "09_balance")
    assert re.findall(r"<summary>(.*?)</summary>", made) == [
        "Answer to 1. How much",
        "Answer to 2. Why",
    ]
    assert "](solutions/09_balance.py)" in made
    assert "Next: [10](10_dispatch.ipynb), dispatch." in made


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("as Zhou and others 2022 say", "](https://arxiv.org/abs/2202.09368) say"),
        ("Shazeer et al. (2017) take", "[Shazeer et al. (2017)](https://arxiv.org/abs/1701.06538)"),
        ("Fedus, Zoph and Shazeer 2021", "[Fedus, Zoph and Shazeer 2021](https://arxiv.org"),
        ("Peterson and Barney 1952", "[Peterson and Barney 1952](references.md)"),
        ("arXiv 2401.04088", "[arXiv 2401.04088](https://arxiv.org/abs/2401.04088)"),
    ],
)
def test_papers_are_links(text, wanted):
    assert wanted in additions.with_links(text)


@pytest.mark.parametrize("text", ["`Zhou 2022`", "[Zhou 2022](x)", "# Zhou 2022", "In Nobody 1999"])
def test_other_words_stay(text):
    assert additions.with_links(text) == text


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_lesson_has_an_answer_to_each_exercise_and_two_hints(source):
    text = source.read_text(encoding="utf-8")
    exercises = re.findall(r"^# (\d)\. ", text.rpartition("# ## Exercises")[2], re.M)
    parts = additions.solution_parts(source.stem)
    answered = [heading[0] for heading in parts if re.match(r"\d\. ", heading)]
    assert exercises and set(exercises) <= set(answered)
    assert len(re.findall(r"^\d\. ", parts.get("Hints", ""), re.M)) == 2
    assert "Your turn" in parts


def test_functions_that_learners_write_have_names_of_their_own():
    """progress.json keeps a check under the name of its function."""
    names = [
        name
        for source in SOURCES
        for name in lesson_progress.CHECK.findall(source.read_text(encoding="utf-8"))
    ]
    assert len(names) == len(set(names)) >= 16
