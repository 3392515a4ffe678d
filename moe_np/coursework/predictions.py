"""Predictions: what a learner expects is kept, and shown below the outcome.

    predict("09.1", "about a third, since the gate prefers what it has")

The text appears again under the output of the next cell that is run, so that the expectation and
the outcome stand side by side. It needs no widgets. Where `python3 run.py lab` has put a file
progress.json beside the notebook, the text is written there as well.
"""

from typing import Any

from moe_np.base.checks import InputError
from moe_np.coursework import lesson_progress

ASK = "write it between the quotes, run this cell, then the next one"


def predict(question: str, text: str = "") -> None:
    """Keep what the learner expects, and show it below the output of the next cell.

    question  the lesson and the number of its prediction, "09.1"
    text      what the learner wrote; "" shows what was kept earlier

    Raises InputError for a text that is not a str.
    """
    for name, value in (("question", question), ("text", text)):
        if not isinstance(value, str):
            raise InputError(f"{name}: wanted text in quotes, got {type(value).__name__}")
    text = text.strip()
    if text:
        lesson_progress.keep("predictions", question, text)
    else:
        text = str(lesson_progress.read()["predictions"].get(question, ""))
    if not text:
        print(f"Prediction {question}: {ASK}.")
        return
    print(f"Prediction {question}: kept. It is shown below the outcome.")
    _show_after_the_next_cell(question, text)


def _show_after_the_next_cell(question, text):
    """Register with IPython what is printed after the next cell; without a notebook do nothing."""
    shell = _shell()
    if shell is None:
        return
    waiting = Reminder(shell, question, text)
    earlier = getattr(shell, "moe_np_reminder", None)
    if earlier is not None:
        earlier.stop()
    shell.moe_np_reminder = waiting
    shell.events.register("post_run_cell", waiting.after_cell)


class Reminder:
    """Prints a prediction after the cell that follows the one that is running now."""

    def __init__(self, shell: Any, question: str, text: str) -> None:
        self.shell = shell
        self.question = question
        self.text = text
        self.cells = 0

    def after_cell(self, result: Any = None) -> None:
        """Called by IPython after every cell: the first is that of the prediction itself."""
        self.cells += 1
        if self.cells == 2:
            print(f"\nYou expected ({self.question}): {self.text}")
            self.stop()

    def stop(self) -> None:
        """Print no more."""
        try:
            self.shell.events.unregister("post_run_cell", self.after_cell)
        except ValueError:
            return  # it has been stopped


def _shell():
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()
