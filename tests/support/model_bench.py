"""A machine with its own clock, on which tests run the bench of whole models."""

from moe_np.experiments.layer_speed.floor import Peaks
from moe_np.experiments.model_speed import bench
from moe_np.experiments.model_speed.serving import FailureText

KEYS = {
    *("what", "impl", "d", "layers", "experts", "batch", "length", "seconds"),
    *("tokens_per_second", "ratio_floor", "ratio_moe_np", "variant", "peak_bytes"),
}
SPEED = {"moe_np": 1.0, "dense": 0.8, "torch eager": 2.0, "torch compile": 1.5}
SPEED |= {"transformers eager": 6.0, "transformers grouped_mm": 4.0, "transformers batched_mm": 3.0}


class Machine:
    """A clock, and processes whose calls take a time in proportion to tokens and slowness.

    failing   contestants that give an error; hanging: that never answer; dying: that end
    """

    def __init__(self, slowness=1.0, interrupted_at=None, failing=(), hanging=(), dying=()):
        self.now = 0.0
        self.slowness = slowness
        self.interrupted_at = interrupted_at
        self.failing = failing
        self.hanging = hanging
        self.dying = dying
        self.workload = None
        self.different = ()  # contestants with another result

    def __call__(self, names, contestants, serve):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def monotonic(self):
        return self.now

    def ask(self, name, *message, timeout=None):
        if name == "peaks":
            return Peaks(1e11, 1e10), {"processor": "a machine"}
        if message[0] == "prepare":
            self.workload = message[1]
        seconds = self.slowness * SPEED[name] * self.workload.tokens * 1e-4
        late = name in self.hanging or seconds > timeout
        self.now += timeout if late else seconds
        if self.interrupted_at is not None and self.now > self.interrupted_at:
            raise KeyboardInterrupt
        if late:
            raise ChildProcessError(f"{name}: no answer in {timeout:.0f} s")
        if name in self.dying:
            raise ChildProcessError(f"{name}: its process ended with status -9")
        if name in self.failing:
            return FailureText("RuntimeError: no compiler")
        if message[0] == "prepare":
            return 2.0 if name in self.different else 1.0
        return seconds if message[0] == "time" else 1 << 20


def take_part(machine, monkeypatch, names=tuple(SPEED)):
    """Let the bench run on that machine."""
    monkeypatch.setattr(bench, "Runner", machine)
    monkeypatch.setattr(bench.time, "monotonic", machine.monotonic)
    monkeypatch.setattr(bench, "installed", lambda: list(names))


def run_on(machine, monkeypatch, names=tuple(SPEED), **options):
    """The result of a bench on that machine."""
    take_part(machine, monkeypatch, names)
    return bench.run(**options)
