"""The history of the bench: one line of JSON per recorded run, kept in the repository.

`moe-np bench --record` appends a line to figures/layer_speed/bench_history.jsonl:

    date        of the run
    machine     processor, BLAS and versions
    cores, expert, sgemm (least and greatest, operations per second), bandwidth (bytes per second)
    ratios      per shape and mode: seconds of moe_np, as a multiple of the floor and of the dense
                network, and the time of each peer as a multiple of moe_np's

Ratios can be compared between machines, seconds cannot. `figures.layer_speed.history` draws them.
"""

import datetime
import json
import pathlib
from typing import Any

import moe_np
from moe_np.base.checks import InputError
from moe_np.experiments.layer_speed.bench import Result

FILE = pathlib.Path("figures", "layer_speed", "bench_history.jsonl")


def default_file() -> pathlib.Path:
    """The file in the checkout that this package lies in. Raises InputError outside a checkout."""
    path = pathlib.Path(moe_np.__file__).resolve().parents[1] / FILE
    if not path.parent.is_dir():
        raise InputError(f"--record: wanted a file, because {path.parent} does not exist")
    return path


def record(result: Result, today: datetime.date) -> dict[str, Any]:
    """What is kept of a result."""
    facts = result.facts
    cases = {}
    for row in result.rows:
        key = (row["tokens"], row["d"], row["experts"], row["k"], row["mode"])
        cases.setdefault(key, {})[row["impl"]] = row
    return {
        "date": today.isoformat(),
        "machine": facts.machine,
        "cores": facts.cores,
        "expert": facts.expert,
        "sgemm": [round(speed) for speed in facts.sgemm],
        "bandwidth": round(facts.bandwidth),
        "ratios": [_ratios(key, by_name) for key, by_name in cases.items()],
    }


def _ratios(key, by_name):
    layer = by_name["moe_np"]
    peers = {
        name: _short(row["seconds"] / layer["seconds"])
        for name, row in by_name.items()
        if name != "moe_np"
    }
    return {
        **dict(zip(("tokens", "d", "experts", "k", "mode"), key, strict=True)),
        "seconds": _short(layer["seconds"]),
        "floor": _short(layer["ratio_floor"]),
        "dense": _short(layer["ratio_dense"]),
        "peers": peers,
    }


def _short(number):
    return float(f"{number:.4g}")


def append(path: pathlib.Path, entry: dict[str, Any]) -> None:
    """Add one line to the file, which is made where there is none."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """All entries, the oldest first. Raises InputError for a line that is not an entry."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({key: entry[key] for key in ("date", "machine", "expert", "ratios")})
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path.name}, line {number}: not an entry of the bench") from None
    return entries
