"""The widgets of `view`: they move along a `Steps` and show its current state.

The buttons work without a browser as well, which is how they are tested.
"""

import ipywidgets as widgets

from moe_np.show.steps import Draw, Steps, as_html
from moe_np.show.view import pictures
from moe_np.show.view.flow import flow_html

INTERVAL = 400  # milliseconds per state while it plays
WIDTH = 620  # of the picture, in pixels of the page
# picture and arrays: two columns where there is room for both, otherwise one
COLUMNS = "repeat(auto-fit, minmax(min(100%, 360px), 1fr))"


class Viewer:
    """`box` is what a notebook shows: the widgets `back`, `forward`, `play`, `slider`, `position`,
    then `flow`, and below it `picture` and, beside it where the page is wide enough, `table`.

    Each picture is drawn once. The walk itself moves along: `steps.now` is the state shown.
    """

    def __init__(self, steps: Steps, draw: Draw | None = None) -> None:
        self.steps = steps
        self.draw = draw
        self.drawn: dict[int, bytes] = {}  # number of a state -> its picture
        last = len(steps.seen) - 1
        at = min(max(steps.at, 0), last)
        self._make_widgets(at, last)
        self.box = self._layout()
        self.back.on_click(lambda _: self._go(self.slider.value - 1))
        self.forward.on_click(lambda _: self._go(self.slider.value + 1))
        self.slider.observe(lambda change: self._show(change["new"]), "value")
        widgets.jslink((self.play, "value"), (self.slider, "value"))
        self._show(at)

    def _make_widgets(self, at, last):
        self.back = _button("back", "step-backward", "one state back")
        self.forward = _button("forward", "step-forward", "the next state")
        bounds = {"value": at, "min": 0, "max": last}
        self.play = widgets.Play(**bounds, interval=INTERVAL, show_repeat=False)
        wide = widgets.Layout(width="16em")
        self.slider = widgets.IntSlider(**bounds, readout=False, layout=wide, description="")
        self.position = widgets.Label()
        fitting = widgets.Layout(width="100%", max_width=f"{WIDTH}px", height="auto")
        self.picture = widgets.Image(format="png", layout=fitting)
        self.flow = widgets.HTML()
        beside = widgets.Layout(min_width="0", overflow="auto")
        self.table = widgets.HTMLMath(layout=beside)

    def _layout(self):
        wrapping = widgets.Layout(flex_flow="row wrap", align_items="center")
        bar = [self.back, self.forward, self.play, self.slider, self.position]
        columns = {"grid_template_columns": COLUMNS, "grid_gap": "0 1em"}
        side_by_side = widgets.Layout(**columns, align_items="flex-start")
        state = widgets.GridBox([self.picture, self.table], layout=side_by_side)
        return widgets.VBox([widgets.HBox(bar, layout=wrapping), self.flow, state])

    def _go(self, number):
        """Move to a state that may not have been computed."""
        if number < 0:
            self.position.value = "This is the first state."
            return
        try:
            _ = self.steps[number]
        except IndexError:
            self.position.value = f"{self._where()}: the last one."
            return
        self.slider.max = self.play.max = max(self.slider.max, number)
        self.slider.value = number

    def _show(self, number):
        state = self.steps.goto(number)
        if number not in self.drawn:
            self.drawn[number] = pictures.png(self.steps, number, self.draw)
        self.picture.value = self.drawn[number]
        self.picture.layout.display = "" if self.drawn[number] else "none"
        self.flow.value = flow_html(state)
        self.table.value = as_html(state)
        self.position.value = self._where()

    def _where(self):
        return f"state {self.steps.at} of {self.slider.max}"


def _button(text, icon, tooltip):
    small = widgets.Layout(width="8em")
    return widgets.Button(description=text, icon=icon, layout=small, tooltip=tooltip)
