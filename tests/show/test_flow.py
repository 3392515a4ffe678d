"""The line of boxes above the arrays: forward arrows, backward arrows, and what changed."""

import re

import numpy as np
import pytest

from moe_np.routing import top_k
from moe_np.show import walk
from moe_np.show.steps import Trail, state
from moe_np.show.view.flow import columns, flow_html
from moe_np.show.view.page import Page


def boxes(page):
    return re.findall(r"<span style='([^']*)'>(\w+)</span>", page)


def test_gradients_stand_below_their_arrays_and_arrows_point_back():
    trail = Trail()
    trail.see("forward", "", {"x": 1.0, "w": 2.0, "out": 2.0})
    first = trail.last
    assert "←" not in flow_html(first) and flow_html(first).count("→") == 2
    trail.see("backward", "", {"dout": 1.0})
    trail.see("backward", "", {"dw": 1.0})
    last = trail.last
    assert columns(last) == [("x", ""), ("w", "dw"), ("out", "dout")]
    page = flow_html(last)
    forward, backward = page.split("<tr")[1:]
    assert [name for _, name in boxes(forward)] == ["x", "w", "out"]
    assert [name for _, name in boxes(backward)] == ["dw", "dout"] and backward.count("←") == 1
    assert backward.index(">dw<") < backward.index("←") < backward.index(">dout<")
    bold = [name for style, name in boxes(page) if "bold" in style]
    assert bold == ["dw"], "only what changed is set off"


def test_a_single_gradient_has_an_arrow_from_the_loss_over_what_has_none():
    trail = Trail()
    trail.see("forward", "", {"x": 1.0, "probs": 2.0, "f": 2.0, "value": 1.0})
    trail.see("backward", "", {"dprobs": 1.0})
    backward = flow_html(trail.last).split("<tr")[2]
    assert backward.count("←") == 2 and backward.index(">dprobs<") < backward.index("←")


def test_an_array_that_only_begins_with_d_is_no_gradient():
    arrays = {name: np.zeros(1) for name in ("a", "b", "demand")}
    assert columns(state("", "", arrays)) == [("a", ""), ("b", ""), ("demand", "")]


def test_few_or_very_many_arrays_have_no_line():
    assert flow_html(state("", "", {"a": 1, "b": 2})) == ""
    assert flow_html(state("", "", {f"a{i}": 1 for i in range(40)})) == ""


@pytest.mark.seconds
def test_a_page_has_the_line_the_arrays_beside_the_picture_and_the_number_of_the_state():
    rng = np.random.default_rng(0)
    steps = walk.route(top_k, top_k.init(rng, 3, 4), rng.normal(size=(5, 3)), k=2, renormalise=True)
    states = list(steps)
    page = Page(steps)._repr_html_()
    assert page.count("moe-flow") >= 2 and "display:flex" in page
    assert f"data-number='{len(states) - 1}'" in page and "moe-where" in page
