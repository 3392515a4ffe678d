"""A walk as one piece of HTML with its own slider, for web pages: it needs no kernel."""

import base64
import html

from moe_np.show.steps import Draw, Steps, as_html
from moe_np.show.view import pictures
from moe_np.show.view.flow import flow_html

MAX_STATES = 13  # of a longer walk as many states, evenly spread
SIDE_BY_SIDE = "display:flex;flex-wrap:wrap;gap:0 1em;align-items:flex-start"
PICTURE = "flex:2 1 260px;max-width:620px"
TABLE = "flex:3 1 380px;min-width:0;overflow-x:auto"

SCRIPT = """
(function () {
  var walk = document.currentScript.previousElementSibling;
  var states = walk.querySelectorAll(".moe-state"), slider = walk.querySelector("input");
  var where = walk.querySelector(".moe-where");
  function show(n) {
    n = Math.max(0, Math.min(states.length - 1, n));
    states.forEach(function (s, i) { s.style.display = i === n ? "" : "none"; });
    slider.value = n;
    where.textContent = "state " + states[n].dataset.number + " of " +
      states[states.length - 1].dataset.number;
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
            f"<input type='range' min='0' max='{last}' value='0' aria-label='state'> "
            "<span class='moe-where'></span></div>"
        )
        return f"<div class='moe-walk'>{bar}{states}</div><script>{SCRIPT}</script>"

    def _state(self, number):
        image = pictures.png(self.steps, number, self.draw)
        state = self.steps.seen[number]
        picture = ""
        if image:
            data = base64.b64encode(image).decode("ascii")
            alt = html.escape(state.phase, quote=True)
            source = f"src='data:image/png;base64,{data}'"
            picture = f"<div style='{PICTURE}'><img alt='{alt}' style='width:100%' {source}></div>"
        table = f"<div style='{TABLE}'>{as_html(state)}</div>"
        both = f"<div style='{SIDE_BY_SIDE}'>{picture}{table}</div>"
        return f"<div class='moe-state' data-number='{number}'>{flow_html(state)}{both}</div>"
