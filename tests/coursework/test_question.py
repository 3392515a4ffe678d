"""What counts as right, and the message for an answer that is not."""

import dataclasses
import time

import numpy as np
import pytest

from moe_np.coursework import Question, close, draw, examine
from moe_np.coursework.question import AnswerError


def cases(rng):
    return [(rng.normal(size=(4, 3)), 2.0), (rng.normal(size=(1, 3)), -1.0)]


def double(x, s):
    return x * s, {"total": (x * s).sum()}


QUESTION = Question("q1", "double", 2, cases, double)


def wrong_shape(x, s):
    return (x * s).T, {"total": (x * s).sum()}


def wrong_value(x, s):
    return x + s, {"total": (x * s).sum()}


def in_place(x, s):
    x *= s
    return x.copy(), {"total": x.sum()}


def gives_none(x, s):
    return None


def gives_text(x, s):
    return "x", {"total": 0}


def gives_nan(x, s):
    return x * np.nan, {"total": (x * s).sum()}


def lacks_a_key(x, s):
    return x * s, {}


def raises(x, s):
    raise ValueError("no idea")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (wrong_shape, "wanted the shape (4, 3), got (3, 4)"),
        (wrong_value, "of 12 values differ"),
        (in_place, "the inputs were changed"),
        (gives_none, "wanted 2 values, got NoneType"),
        (gives_text, "wanted real numbers"),
        (gives_nan, "got nan"),
        (lacks_a_key, "wanted a dict with the keys ['total'], got []"),
        (raises, "ValueError: no idea"),
    ],
)
def test_the_message_of_a_wrong_answer_says_why(answer, words):
    verdict = examine(QUESTION, answer, 0)
    assert not verdict.passed and words in verdict.message


def test_right_answers_of_other_make():
    def by_loops(x, s):
        out = np.array([[s * v for v in row] for row in x], dtype=np.float32)
        return [out, {"total": float(out.sum())}]

    question = Question("q1", "double", 2, cases, double, close(1e-4, 1e-6))
    assert examine(QUESTION, double, 0).passed and examine(question, by_loops, 3).passed


# --- Points by case -------------------------------------------------------------------------------


def five_cases(rng):
    return [(float(number),) for number in range(5)]


FIVE = Question(
    *("q", "f", 3, five_cases, lambda x: (x, 2 * x)),
    outputs=("same", "double"),
    kinds=("zero", "one", "two", "three", "four"),
)


@pytest.mark.parametrize(
    ("wrong_from", "right", "earned"),
    [(5, 0, 3), (4, 4, 2), (3, 3, 1.5), (2, 2, 0), (0, 0, 0)],
)
def test_a_question_gives_the_share_of_its_cases_in_half_points(wrong_from, right, earned):
    verdict = examine(FIVE, lambda x: (x, 2 * x + (x >= wrong_from)), 0, count=True)
    assert verdict.right == right and FIVE.earned(verdict) == earned
    all_or_none = dataclasses.replace(FIVE, by_case=False)
    assert all_or_none.earned(verdict) == (3 if verdict.passed else 0)


def test_the_first_wrong_case_is_told_with_the_name_of_the_output():
    verdict = examine(FIVE, lambda x: (x, 2 * x + (x == 3)), 0, count=True)
    assert verdict.message.startswith("double: wanted 6, got 7")
    assert (verdict.first_wrong, verdict.right, verdict.counted) == (3, 4, 5)
    assert draw(FIVE, 0)[verdict.first_wrong].kind == "three"
    assert examine(FIVE, lambda x: (x, 0), 0).counted == 0, "without `count` the first one ends it"


def test_what_does_not_end_gives_no_points_whatever_came_before():
    def ends(x):
        if x == 4:
            raise AnswerError("no answer in time")
        return x, 2 * x

    verdict = examine(FIVE, ends, 0, count=True)
    assert FIVE.earned(verdict) == 0 and verdict.first_wrong == 4


def test_kinds_have_to_be_those_of_the_cases():
    with pytest.raises(ValueError, match="q: wanted 5 kinds, got 1"):
        draw(dataclasses.replace(FIVE, kinds=("zero",)), 0)


# --- Races ----------------------------------------------------------------------------------------


def slowly(x):
    time.sleep(0.01)
    return 2 * x


def race_cases(rng):
    return [(rng.normal(size=3),)]


RACE = Question("q1", "double", 2, race_cases, lambda x: 2 * x, baseline=slowly, faster=3)


def with_memory(results):
    def answer(x):
        if x.tobytes() not in results:
            results[x.tobytes()] = slowly(x)
        return results[x.tobytes()]

    return answer


def right_at_first(calls):
    def answer(x):
        calls.append(x)
        return 2 * x if len(calls) < 3 else x

    return answer


def test_a_race_is_won_by_speed_only():
    assert examine(RACE, lambda x: 2 * x, 0).passed
    assert "as fast as the baseline: wanted 3 times" in examine(RACE, slowly, 0).message
    assert "as fast as the baseline: wanted 3 times" in examine(RACE, with_memory({}), 0).message
    assert "3 of 3 values differ" in examine(RACE, right_at_first([]), 0).message
