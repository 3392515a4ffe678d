"""A machine with its own clock, on which tests run the bench of the layer."""

from moe_np.experiments.layer_speed import bench
from moe_np.experiments.layer_speed.floor import Peaks

KEYS = {
    *("tokens", "d", "hidden", "experts", "k", "mode", "impl", "expert"),
    *("seconds", "ratio_dense", "ratio_floor"),
}


class Machine:
    """A clock, and processes whose calls take a time in proportion to tokens and slowness."""

    def __init__(self, slowness=1.0, interrupted_at=None):
        self.now = 0.0
        self.slowness = slowness
        self.interrupted_at = interrupted_at
        self.shape = None

    def __call__(self, names):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def monotonic(self):
        return self.now

    def ask(self, name, *message):
        if name == "peaks":
            return Peaks(1e11, 1e10), {"processor": "a machine"}
        if message[0] == "prepare":
            self.shape = message[2]
            self.now += self.slowness * self.shape.tokens * 1e-3
            return {"out": 1.0}
        self.now += max(self.slowness * self.shape.tokens * 1e-3, message[2])
        if self.interrupted_at is not None and self.now > self.interrupted_at:
            raise KeyboardInterrupt
        return self.slowness * self.shape.tokens * 1e-3


def take_part(machine, monkeypatch):
    """Let the bench run on that machine."""
    monkeypatch.setattr(bench, "Runner", machine)
    monkeypatch.setattr(bench.time, "monotonic", machine.monotonic)
    monkeypatch.setattr(bench, "installed", lambda kind: ["moe_np", "dense_numpy"])


def run_on(machine, monkeypatch, **options):
    """The result of a bench of ReLU experts on that machine."""
    take_part(machine, monkeypatch)
    return bench.run("relu", **options)
