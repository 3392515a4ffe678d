"""One script per figure or table of a paper; `python -m figures` makes them (see `__main__.py`)."""

import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from moe_np.experiments.common.sweep import Sweep


class Job:
    """What `make` of a script receives.

    sweep   runs specs, and stores their results
    out     the folder of pictures
    quick   few seeds and short runs
    full    all runs that were published
    """

    def __init__(
        self, sweep: "Sweep", out: pathlib.Path, quick: bool = False, full: bool = False
    ) -> None:
        self.sweep = sweep
        self.out = out
        self.quick = quick
        self.full = full

    def save(self, fig: "Figure", name: str) -> None:
        """Write the figure as NAME.png and NAME.svg and close it.

        The same picture gives the same bytes; each file appears when it is complete.
        """
        import matplotlib.pyplot as plt

        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            unfinished = self.out / f".{name}.{suffix}"
            fig.savefig(unfinished, format=suffix, dpi=200, bbox_inches="tight", metadata=metadata)
            unfinished.replace(self.out / f"{name}.{suffix}")
        plt.close(fig)
