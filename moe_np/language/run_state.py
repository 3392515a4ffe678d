"""What a training run needs to go on: `state.safetensors`, whole, and the lines of `metrics.jsonl`.

The arrays of the state have the names "params.", "m." and "v." before the path of a leaf; its
header has the number of updates, and the least validation loss so far.
"""

import json
import pathlib
from typing import Any

from moe_np.base import checks, files
from moe_np.base.checks import InputError
from moe_np.base.optim import AdamState
from moe_np.base.params import leaves, map_leaves
from moe_np.models import safetensors
from moe_np.training import loop

STATE = "state.safetensors"
METRICS = "metrics.jsonl"


def write(folder: pathlib.Path, state: loop.State, best: float | None) -> None:
    """Write the state; a reader sees the old file or the whole new one."""
    trees = {"params": state.params, "m": state.optimiser.m, "v": state.optimiser.v}
    arrays = {
        f"{name}.{path}": leaf
        for name, tree in trees.items()
        for path, leaf in leaves(tree).items()
    }
    facts = {"updates": str(state.number), "best": "" if best is None else repr(best)}
    safetensors.write(folder / STATE, arrays, metadata=facts)


def read(folder: pathlib.Path, begun: loop.State) -> tuple[loop.State, float | None]:
    """The state that a run goes on from, and the least validation loss so far (None at first).

    begun   the state before the first update, for a folder without a state, and for the structure

    Raises InputError for a file that is damaged, or is of another model.
    """
    path = folder / STATE
    if not path.exists():
        return begun, None
    reader = safetensors.Reader(path)
    updates, best = reader.metadata.get("updates", ""), reader.metadata.get("best", "")
    if not updates.isdigit():
        raise InputError(f"{path}: wanted the number of updates in the header, got {updates!r}")

    def tree_of(name):
        paths = iter(leaves(begun.params))
        return map_leaves(lambda leaf: _array(reader, f"{name}.{next(paths)}", leaf), begun.params)

    optimiser = AdamState(int(updates), tree_of("m"), tree_of("v"))
    return loop.State(int(updates), tree_of("params"), optimiser), float(best) if best else None


def updates(folder: pathlib.Path) -> int:
    """The number of updates that are stored, 0 where there are none."""
    path = folder / STATE
    return int(safetensors.Reader(path).metadata.get("updates", 0)) if path.exists() else 0


def kept(folder: pathlib.Path) -> str:
    """Which checkpoint a folder has, for a message."""
    number = updates(folder)
    return (
        f"{folder} has the checkpoint of update {number}"
        if number
        else f"{folder} has no checkpoint"
    )


def _array(reader, name, leaf):
    if name not in reader:
        raise InputError(f"{reader.path}: wanted the array {name}, it is not there")
    return checks.array(name, reader.read(name), leaf.shape, kind=leaf.dtype.kind)


def append(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Add a line to the metrics."""
    with open(folder / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def cut_metrics(folder: pathlib.Path, number: int) -> None:
    """Leave the lines up to this update: those after it are written again."""
    path = folder / METRICS
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            step = json.loads(line)["step"]
        except ValueError:
            continue  # the line that a kill cut
        if step <= number:
            kept.append(line + "\n")
    files.write_atomically(path, "".join(kept))
