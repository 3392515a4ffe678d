"""The file run.json of a training run: what was asked for, and from which the run must not differ
when it goes on.
"""

import json
import pathlib
from typing import Any

from moe_np.base import checks, files
from moe_np.base.checks import InputError


def stored_request(folder: pathlib.Path) -> dict[str, Any] | None:
    """What run.json says, None without one. Raises InputError where it cannot be read."""
    try:
        return json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'run.json'} cannot be read: {error}") from None


def store_request(folder: pathlib.Path, request: dict[str, Any]) -> None:
    """Write run.json, whole or not at all."""
    files.write_atomically(folder / "run.json", json.dumps(request, indent=1) + "\n")


def refuse_another(folder: pathlib.Path, request: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raise InputError where values of the request differ from those of the stored run: it names
    all of them.
    """
    different = _differences(stored, request)
    if different:
        raise InputError(
            f"{folder} holds another run: {', '.join(different)}. The same command goes on with "
            "it, to the number of updates that it began with; for another run, name another folder"
        )


def _differences(stored, request):
    texts = []
    for name, value in request.items():
        was = stored.get(name)
        if isinstance(was, dict) and isinstance(value, dict):
            missing = dict.fromkeys(was.keys() - value.keys())
            texts += _differences(was, {**value, **missing})
        elif was != value:
            texts.append(f"its {name} is {checks.text(was)}, not {checks.text(value)}")
    return texts
