"""The child process of an audit: loads the code, runs the checks, writes a line of JSON for each.

    python -m moe_np.audit.worker < {"spec": ..., "settings": {...}, "checks": [...]}

What the code under audit prints goes to stderr: standard output carries the findings alone.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import sys
from typing import Any

from moe_np.audit import catalogue
from moe_np.audit.adapters import subject_of
from moe_np.audit.calling import Settings
from moe_np.base.checks import InputError


def load(spec: str) -> Any:
    """The object of FILE.py:NAME or package.module:NAME; NAME may have dots, and may be absent."""
    place, _, name = spec.rpartition(":") if ":" in spec[2:] else (spec, "", "")
    if place.endswith(".py"):
        path = pathlib.Path(place).resolve()
        if not path.is_file():
            raise InputError(f"{place}: there is no such file")
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        assert module_spec is not None and module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.path.insert(0, str(path.parent))
        sys.modules[path.stem] = module
        module_spec.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is not None and place.startswith(error.name):
                raise InputError(f"{place}: there is no such module") from None
            raise
    target: Any = module
    for part in name.split(".") if name else ():
        if not hasattr(target, part):
            raise InputError(f"{spec}: {place} has no {part}")
        target = getattr(target, part)
    return target


def main() -> None:
    """Read the request from stdin and write findings to the original standard output."""
    # many small programs of JAX are compiled, and each runs a few times
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**message):
        out.write(json.dumps(message) + "\n")
        out.flush()

    request = json.loads(sys.stdin.read())
    try:
        subject = subject_of(load(request["spec"]), Settings(**request["settings"]))
    except InputError as error:
        say(input_error=str(error))
        return
    except BaseException as error:
        say(check="the first call", findings=[catalogue.raised("the first call", error).record()])
        say(finished=True)
        return
    say(name=subject.name, framework=subject.framework.name, sizes=[subject.D, subject.E])
    for check in request["checks"]:
        say(start=check)
        findings = catalogue.run(check, subject)
        say(check=check, findings=[finding.record() for finding in findings])
    say(finished=True)


if __name__ == "__main__":
    main()
