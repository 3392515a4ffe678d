"""The widgets of `view`: they move along a `Steps` and show the state there. Pressing them needs no
browser.
"""

import ipywidgets as widgets

from moe_np.show.steps import as_html
from moe_np.show.view import pictures

INTERVAL = 400  # milliseconds a state while it plays
WIDTH = 620  # of the picture, in pixels of the page


class Viewer:
    """`box` is what a notebook shows: `back`, `forward`, `play`, `slider`, `place`, and below
    `picture` and `table`.

    Each picture is drawn once. The walk itself moves along, so that `steps.now` is what one sees.
    """

    def __init__(self, steps, draw=None):
        self.steps, self.draw, self.drawn = steps, draw, {}
        last = len(steps.seen) - 1
        at = min(max(steps.at, 0), last)
        small = widgets.Layout(width="8em")
        self.back = widgets.Button(
            description="back", icon="step-backward", layout=small, tooltip="one state back"
        )
        self.forward = widgets.Button(
            description="forward", icon="step-forward", layout=small, tooltip="the next state"
        )
        self.play = widgets.Play(value=at, min=0, max=last, interval=INTERVAL, show_repeat=False)
        self.slider = widgets.IntSlider(
            value=at,
            min=0,
            max=last,
            readout=False,
            layout=widgets.Layout(width="16em"),
            description="",
        )
        self.place = widgets.Label()
        self.picture = widgets.Image(
            format="png", layout=widgets.Layout(width=f"{WIDTH}px", max_width="100%")
        )
        self.table = widgets.HTMLMath()
        buttons = widgets.HBox(
            [self.back, self.forward, self.play, self.slider, self.place],
            layout=widgets.Layout(flex_flow="row wrap", align_items="center"),
        )
        self.box = widgets.VBox([buttons, self.picture, self.table])
        self.back.on_click(lambda _: self._go(self.slider.value - 1))
        self.forward.on_click(lambda _: self._go(self.slider.value + 1))
        self.slider.observe(lambda change: self._show(change["new"]), "value")
        widgets.jslink((self.play, "value"), (self.slider, "value"))
        self._show(at)

    def _go(self, number):
        """To a state that may not have been computed yet."""
        if number < 0:
            self.place.value = "This is the first state."
            return
        try:
            _ = self.steps[number]
        except IndexError:
            self.place.value = f"{self._where()}: the last one."
            return
        self.slider.max = self.play.max = max(self.slider.max, number)
        self.slider.value = number

    def _show(self, number):
        state = self.steps.goto(number)
        if number not in self.drawn:
            self.drawn[number] = pictures.png(self.steps, number, self.draw)
        self.picture.value = self.drawn[number]
        self.picture.layout.display = "" if self.drawn[number] else "none"
        self.table.value = as_html(state)
        self.place.value = self._where()

    def _where(self):
        return f"state {self.steps.at} of 0 to {self.slider.max}"
