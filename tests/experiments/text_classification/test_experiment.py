"""The text classification: parts of the Bible, held-out chapters, and hashed words."""

import json

import numpy as np
import pytest

from moe_np.data.text import bible
from moe_np.experiments.common.sweep import to_json
from moe_np.experiments.text_classification import experiment, passages, runs
from moe_np.experiments.text_classification.report import report

FACTS = (10, 32, 9)  # verses, features, every ninth chapter


def test_every_book_has_its_part():
    names = list(passages.PARTS)
    parts = {"Gen": "law", "Josh": "history", "Song": "wisdom", "Dan": "major prophets"}
    parts |= {"Mal": "minor prophets", "Acts": "gospels and Acts", "Phlm": "letters of Paul"}
    parts |= {"Heb": "other letters", "Rev": "Revelation"}
    assert {book: names[passages.part_of(book)] for book in parts} == parts
    numbers = [passages.part_of(book) for book in bible.BOOKS]
    assert numbers == sorted(numbers) and set(numbers) == set(range(9))


def test_features_count_words_whatever_their_order():
    x = passages.word_features(["In the beginning", "beginning the IN,", "the the the", ""], 32)
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_allclose(np.linalg.norm(x[:3], axis=1), np.sqrt(32), rtol=1e-6)
    assert (x[2] > 0).sum() == 1 and not x[3].any()


def test_a_chapter_is_held_out_in_both_languages():
    everything = passages.passages(*FACTS)
    split = passages.split(everything, 0)
    assert sum(len(part.part) for part in split) == len(everything.part)
    for part in split:
        english, spanish = (part.part[part.language == number] for number in (0, 1))
        assert (english == spanish).all() and set(part.part) <= set(range(9))
    rows = [{row.tobytes() for row in part.data.x} for part in split]
    assert not rows[0] & rows[2] and not rows[0] & rows[1]
    assert set(split.test.part) == set(everything.part)
    again = passages.split(everything, 1)
    assert (
        len(again.test.part) != len(split.test.part)
        or (again.test.data.x != split.test.data.x).any()
    )


def test_it_runs_and_says_what_the_experts_take(smoke_sweep):
    with smoke_sweep("text_classification") as sweep:
        result = json.loads(to_json(experiment.run(sweep=sweep, **experiment.SMOKE)))
    mixture = next(run for run in result["runs"] if run["system"] == "mixture")
    assert np.sum(mixture["counts"]) == mixture["passages"][2]
    assert set(mixture["taken"]) == {"language", "part"}
    text = report(result)
    assert "76.22" in text and len(result["claims"]) == 2
    spec = runs.spec_of(runs.Config(), "mixture", 3)
    assert json.loads(json.dumps(spec)) == spec


@pytest.mark.parametrize("book", ["Gen", "Rev"])
def test_an_unknown_book_is_refused(book):
    with pytest.raises(ValueError, match="book: wanted one of"):
        passages.part_of(book + "esis")
