"""A walk as one piece of HTML with its own slider, for web pages: it needs no kernel."""

import base64
import html

from moe_np.show.steps import Draw, Steps, as_html
from moe_np.show.view import pictures

MAX_STATES = 13  # of a longer walk as many states, evenly spread

SCRIPT = """
(function () {
  var walk = document.currentScript.previousElementSibling;
  var states = walk.querySelectorAll(".moe-state"), slider = walk.querySelector("input");
  function show(n) {
    n = Math.max(0, Math.min(states.length - 1, n));
    states.forEach(function (s, i) { s.style.display = i === n ? "" : "none"; });
    slider.value = n;
  }
  slider.addEventListener("input", function () { show(+slider.value); });
  walk.querySelectorAll("button").forEach(function (b) {
    b.addEventListener("click", function () { show(+slider.value + +b.dataset.by); });
  });
  walk.querySelector(".moe-bar").style.display = "";
  show(0);
})();
"""


class Page:
    """HTML in a notebook, text at a prompt. Without scripts the states stand one below another."""

    def __init__(self, steps: Steps, draw: Draw | None = None) -> None:
        self.steps = steps
        self.draw = draw

    def numbers(self) -> list[int]:
        """The states that are shown: all, or the first, the last and some between them."""
        n = len(self.steps.seen)
        if n <= MAX_STATES:
            return list(range(n))
        return sorted({round(i * (n - 1) / (MAX_STATES - 1)) for i in range(MAX_STATES)})

    def __repr__(self) -> str:
        return repr(self.steps)

    def _repr_html_(self) -> str:
        numbers = self.numbers()
        states = "".join(self._state(number) for number in numbers)
        last = len(numbers) - 1
        bar = (
            "<div class='moe-bar' style='display:none'>"
            "<button type='button' data-by='-1'>back</button> "
            "<button type='button' data-by='1'>forward</button> "
            f"<input type='range' min='0' max='{last}' value='0' aria-label='state'></div>"
        )
        return f"<div class='moe-walk'>{bar}{states}</div><script>{SCRIPT}</script>"

    def _state(self, number):
        image = pictures.png(self.steps, number, self.draw)
        state = self.steps.seen[number]
        picture = ""
        if image:
            data = base64.b64encode(image).decode("ascii")
            alt = html.escape(state.phase, quote=True)
            picture = f"<img alt='{alt}' style='max-width:100%' src='data:image/png;base64,{data}'>"
        return f"<div class='moe-state'>{picture}{as_html(state)}</div>"
