"""Tokens in the colour of their first expert: in a terminal, and as a web page with every layer."""

import colorsys
import html
import json
from collections.abc import Sequence

from moe_np.language.continuation import Piece

RESET = "\x1b[0m"
TURN = 0.618034  # of the circle of hues from one expert to the next: neighbours differ


def colour(expert: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of an expert: light enough for black text."""
    lightness = 0.86 - 0.06 * (expert % 3)
    shade = colorsys.hls_to_rgb(expert * TURN % 1, lightness, 0.75)
    return tuple(round(255 * part) for part in shade)  # type: ignore[return-value]


def in_terminal(piece: Piece, layer: int) -> str:
    """The text of a piece on the colour of the first expert of this layer (escape sequences).

    A line break stays outside of the colour, which would else fill the rest of the line.
    """
    first = first_expert(piece, layer)
    if first is None or not piece.text:
        return piece.text
    red, green, blue = colour(first)
    begin = f"\x1b[30;48;2;{red};{green};{blue}m"
    lines = piece.text.split("\n")
    return "\n".join(f"{begin}{line}{RESET}" if line else "" for line in lines)


def first_expert(piece: Piece, layer: int) -> int | None:
    """The expert of the largest weight; None where the layer is dense or dropped the token."""
    chosen = piece.experts[layer] if layer < len(piece.experts) else ()
    return chosen[0] if chosen else None


def as_page(pieces: Sequence[Piece], title: str, n_prompt: int, layer: int) -> str:
    """A web page: the text, a choice of the layer that colours it, and the experts of all layers of
    the token under the pointer. It asks for nothing from elsewhere.

    n_prompt   how many of the pieces are the prompt, which stands in italics
    layer      that colours the text at first
    """
    layers = len(pieces[0].experts) if pieces else 0
    used = sorted({expert for piece in pieces for row in piece.experts for expert in row})
    rules = "\n".join(f".e{m} {{ background: rgb{colour(m)}; }}" for m in used)
    spans = "".join(_span(piece, n < n_prompt, layer) for n, piece in enumerate(pieces))
    radio = '<label><input type="radio" name="layer" value="{0}"{1}> layer {0}</label>'
    choices = "\n".join(radio.format(n, " checked" if n == layer else "") for n in range(layers))
    legend = " ".join(f'<span class="t e{m}">expert {m}</span>' for m in used)
    rows = json.dumps([[list(row) for row in piece.experts] for piece in pieces])
    # a text may hold "</script>", which these numbers cannot
    return PAGE.format(
        title=html.escape(title),
        rules=rules,
        choices=choices or "This model has no routers.",
        legend=legend,
        spans=spans,
        rows=rows,
    )


def _span(piece, is_prompt, layer):
    first = first_expert(piece, layer)
    classes = ["t", *(["p"] if is_prompt else []), *([] if first is None else [f"e{first}"])]
    return f'<span class="{" ".join(classes)}" tabindex="0">{html.escape(piece.text)}</span>'


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 17px/1.7 Georgia, serif; max-width: 46em; margin: 2em auto; padding: 0 1em;
        color: #111; background: #fff; }}
h1 {{ font-size: 1.2em; }}
#text {{ white-space: pre-wrap; margin: 1em 0; }}
.t {{ border-radius: 3px; padding: 1px 0; color: #111; }}
.p {{ font-style: italic; }}
.t:hover, .t:focus {{ outline: 2px solid #111; }}
fieldset, #legend, #of {{ font: 14px/1.6 system-ui, sans-serif; }}
fieldset {{ border: 1px solid #bbb; }}
#of {{ position: sticky; bottom: 0; background: #fff; border-top: 1px solid #bbb; min-height: 3em;
       padding: .5em 0; }}
#legend .t {{ padding: 1px 6px; white-space: nowrap; }}
{rules}
</style>
</head>
<body>
<h1>{title}</h1>
<fieldset><legend>Each token has the colour of its first expert in</legend>
{choices}
</fieldset>
<div id="text">{spans}</div>
<p id="legend">{legend}</p>
<div id="of" aria-live="polite">Point at a token to see its experts in every layer.</div>
<script>
"use strict";
const experts = {rows};
const tokens = document.querySelectorAll("#text .t");
const of = document.getElementById("of");
function paint(layer) {{
  tokens.forEach((token, n) => {{
    token.className = token.className.replace(/ ?\\be\\d+/g, "");
    const row = experts[n][layer];
    if (row && row.length) token.classList.add("e" + row[0]);
  }});
}}
document.querySelectorAll("input[name=layer]").forEach(input =>
  input.addEventListener("change", () => paint(+input.value)));
tokens.forEach((token, n) => {{
  const show = () => {{
    of.textContent = JSON.stringify(token.textContent) + ": " + (experts[n].map((row, layer) =>
      "layer " + layer + (row.length ? " → " + row.join(", ") : " dropped")).join(" · ")
      || "no routers");
  }};
  token.addEventListener("mouseenter", show);
  token.addEventListener("focus", show);
}});
</script>
</body>
</html>
"""
