"""A walk as one piece of HTML with a slider of its own: no kernel and nothing from outside, for
rendered web pages.
"""

import base64
import html

from moe_np.show.steps import as_html
from moe_np.show.view import pictures

MOST = 13  # states; of a longer walk as many, evenly spread

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
    """HTML in a notebook; as text, where the walk is. Without scripts the states stand one below
    another.
    """

    def __init__(self, steps, draw=None):
        self.steps, self.draw = steps, draw

    def numbers(self):
        """The states that are shown: all, or the first, the last and some between."""
        n = len(self.steps.seen)
        return (
            list(range(n))
            if n <= MOST
            else sorted({round(i * (n - 1) / (MOST - 1)) for i in range(MOST)})
        )

    def __repr__(self):
        return repr(self.steps)

    def _repr_html_(self):
        numbers = self.numbers()
        states = "".join(self._state(number) for number in numbers)
        bar = (
            "<div class='moe-bar' style='display:none'><button type='button' data-by='-1'>back</button> "
            "<button type='button' data-by='1'>forward</button> "
            f"<input type='range' min='0' max='{len(numbers) - 1}' value='0' aria-label='state'></div>"
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
