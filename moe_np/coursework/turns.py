"""Who grades when: many threads together, or one alone, for what may have been lost by load."""

import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """Many threads grade together, or one grades alone. Who wants to be alone goes first."""

    def __init__(self):
        self._changed = threading.Condition()
        self._together = 0
        self._alone = 0  # who is alone, or waits for it
        self._one = threading.Lock()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that others may be in as well."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._together += 1
        try:
            yield
        finally:
            with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A block that nobody else is in."""
        with self._changed:
            self._alone += 1
        try:
            with self._one:
                with self._changed:
                    self._changed.wait_for(lambda: not self._together)
                yield
        finally:
            with self._changed:
                self._alone -= 1
                self._changed.notify_all()
