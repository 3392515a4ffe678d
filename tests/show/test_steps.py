"""States and walks: new arrays are marked, earlier ones are kept, going back works."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.show.steps import Steps, Trail, preview, state


def walk():
    """Three states of one array that is updated in place."""
    x = np.array([1.0, 2.0])
    last = None
    for number in range(3):
        arrays = {"x": x, "y": 7}
        equation = r"x \leftarrow 2 x"
        last = state(f"step {number}", equation, arrays, axes={"x": "D"}, before=last)
        yield last
        x *= 2


def test_a_later_update_in_place_does_not_rewrite_the_past():
    steps = Steps(walk())
    first, second = next(steps), next(steps)
    assert first["x"].tolist() == [1, 2] and second["x"].tolist() == [2, 4]
    assert first.changed == ("x", "y") and second.changed == ("x",)


def test_forward_and_back_and_by_number():
    steps = Steps(walk())
    assert steps[1].phase == "step 1" and steps.at == -1, "looking ahead does not move"
    next(steps), next(steps)
    assert steps.back().phase == "step 0" and next(steps).phase == "step 1"
    assert steps.goto(2) is steps.now and [s.phase for s in steps] == []
    assert steps.goto(0) is steps[0] and [s.phase for s in steps] == ["step 1", "step 2"]
    assert Steps(walk()).until("step 1").phase == "step 1"
    with pytest.raises(StopIteration):
        Steps(walk()).until("M step")
    endless = Steps(s for _ in itertools.count() for s in walk())
    message = "phase: wanted the start of one of the next 50 phases, got 'M step'"
    with pytest.raises(InputError, match=message):
        endless.until("M step", most=50)


def test_no_step_back_from_the_first_and_none_past_the_end():
    steps = Steps(walk())
    with pytest.raises(InputError, match=r"call next\(steps\) first"):
        steps.back()
    with pytest.raises(InputError, match=r"call next\(steps\) first"):
        _ = steps.now
    next(steps)
    with pytest.raises(InputError, match="got the first one"):
        steps.back()
    with pytest.raises(IndexError, match="there are 3 steps"):
        steps[3]
    with pytest.raises(InputError, match="number: wanted a whole number"):
        steps[-1]


def test_axes_have_to_fit():
    with pytest.raises(InputError, match=r"axes\['x'\]: wanted 2 names"):
        state("a", "", {"x": np.ones((2, 3))}, axes={"x": "N"})


def test_text_and_html():
    steps = Steps(walk())
    next(steps)
    text = repr(next(steps))
    page = steps.now._repr_html_()
    assert "* x (D = 2)\n      [2. 4.]" in text and "x \\leftarrow 2 x" in text
    assert text.endswith("\n    unchanged: y")
    assert "(D = 2)" in page and "unchanged: 1" in page and "<script" not in page
    assert "&lt;b&gt;" in state("<b>", "", {})._repr_html_()
    assert "... 4 more" in repr(state("a", "", {"x": np.ones((10, 2))}))
    assert "... 6 more" in repr(state("a", "", {"x": np.arange(30.0)})), "a vector shows more"
    column = repr(state("a", "", {"x": np.ones((2, 2, 1))}))
    assert "[[1. 1.]\n       [1. 1.]]" in column, "a last axis of length 1 is not shown"


def test_a_trail_collects_arrays_and_names_axes():
    trail = Trail({"x": "N D", "w": ("N k", "A")})
    first = trail.see("a", "", {"x": np.ones((2, 3)), "w": np.ones((2, 1)), "none": None})
    second = trail.see("b", "", {"w": np.ones(4), "dx": np.zeros((2, 3)), "dy": np.zeros(2)})
    assert list(first.arrays) == ["x", "w"] and list(second.arrays) == ["x", "w", "dx", "dy"]
    assert second.axes == {"x": ("N", "D"), "w": ("A",), "dx": ("N", "D"), "dy": ()}
    assert second.changed == ("w", "dx", "dy")
    trail.forget()
    third = trail.see("c", "", {"x": np.ones((2, 3))})
    assert list(third.arrays) == ["x"] and third.changed == (), "compared with the state before it"


def test_the_history_of_an_array_and_the_place_in_a_walk():
    steps = Steps(walk())
    assert repr(steps).startswith("Steps, not started") and steps.history("x") == []
    next(steps), next(steps)
    assert [x.tolist() for x in steps.history("x")] == [[1, 2], [2, 4]]
    assert steps.history("z") == []
    steps.back()
    assert len(steps.history("x")) == 1 and "at number 0, step 0" in repr(steps)


def test_nan_stays_unchanged():
    first = state("a", "", {"x": np.array([np.nan, 1.0]), "name": np.array(["b"])})
    assert state("b", "", first.arrays, before=first).changed == ()


def test_small_numbers_are_shown_with_more_digits():
    assert preview(np.array([1.0, 0.00012345])) == "[1.     0.0001]"
    assert preview(np.array([0.002, -0.00012345, np.inf])) == "[ 0.002    -0.000123       inf]"
    assert preview(np.array([2e-5, -1.5e-7])) == "[ 2.0e-05 -1.5e-07]"
    assert preview(np.zeros(2)) == "[0. 0.]"


def test_first_axes_of_length_1_are_not_shown():
    assert preview(np.ones((1, 2, 2))) == "[[1. 1.]\n [1. 1.]]"
    assert preview(np.ones((1, 1, 2, 2))) == "[[1. 1.]\n [1. 1.]]"
    assert preview(np.ones((1, 2))) == "[[1. 1.]]"


def test_a_trail_goes_on_with_the_arrays_of_an_earlier_state():
    trail = Trail({"a": "N"})
    first = trail.see("outer", "", {"a": np.ones(2)})
    trail.forget()
    inner = trail.see("inner", "", {"b": 2.0})
    assert list(inner.arrays) == ["b"]
    trail.resume(first.arrays)
    later = trail.see("outer again", "", {"a": np.ones(2), "da": np.zeros(2)})
    assert list(later.arrays) == ["a", "da"] and later.changed == ("da",)
    assert later.axes["da"] == ("N",)
