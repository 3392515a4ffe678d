"""Colours of experts, in a terminal and on a page."""

import html
import re

import pytest

from moe_np.language import colours
from moe_np.language.continuation import Piece

PIECES = [
    Piece("In", ((0, 2), (1, 0)), 1.0),
    Piece(" <b>", ((2, 1), (3, 1)), 0.5),
    Piece("", ((1, 0), ()), 0.5),
    Piece("é\n\nx", ((1, 0), (2, 3)), 0.5),
]


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_text_in_the_terminal_is_the_text():
    shown = "".join(colours.in_terminal(piece, 0) for piece in PIECES)
    assert plain(shown) == "".join(piece.text for piece in PIECES)


def test_the_colour_is_that_of_the_first_expert_of_the_layer():
    for layer, expert in ((0, 2), (1, 3)):
        shown = colours.in_terminal(PIECES[1], layer)
        assert shown.startswith("\x1b[30;48;2;{};{};{}m".format(*colours.colour(expert)))
        assert shown.endswith(colours.RESET)


def test_a_line_break_is_not_coloured():
    shown = colours.in_terminal(PIECES[3], 0)
    assert re.search(r"é\x1b\[0m\n\n\x1b\[30;48;2;[0-9;]+mx", shown)


@pytest.mark.parametrize("layer", [1, 5])
def test_a_token_without_an_expert_has_no_colour(layer):
    assert colours.in_terminal(PIECES[2]._replace(text="a"), layer) == "a"


def test_experts_have_colours_of_their_own_on_which_black_can_be_read():
    found = {colours.colour(expert) for expert in range(64)}
    assert len(found) == 64
    for colour in found:
        linear = [(part / 255) ** 2.2 for part in colour]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        assert (luminance + 0.05) / 0.05 > 7  # the contrast that WCAG asks for at level AAA


def test_the_page_has_the_text_the_layers_and_no_request():
    page = colours.as_page(PIECES, "A <title>", 1, 1)
    spans = re.findall(r'<span class="(t[^"]*)" tabindex="0">(.*?)</span>', page, re.DOTALL)
    assert html.unescape("".join(text for _, text in spans)) == "In <b>é\n\nx"
    assert [classes for classes, _ in spans] == ["t p e1", "t e3", "t", "t e2"]
    assert "A &lt;title&gt;" in page
    assert page.count('name="layer"') == 2
    assert 'value="1" checked' in page
    assert "[[[0, 2], [1, 0]], [[2, 1], [3, 1]], [[1, 0], []], [[1, 0], [2, 3]]]" in page
    assert "http" not in page
    assert "{{" not in page


def test_a_model_without_routers_has_a_page_too():
    page = colours.as_page([Piece("a", (), 1.0)], "dense", 1, 0)
    assert "This model has no routers." in page
