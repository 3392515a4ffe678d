"""The Python of a student: it runs cells and calls functions when asked, inside the sandbox.

    python child.py CONFIG           (JSON: where the allowed part of moe_np and the libraries are)

Nothing here is trusted: student code can change any of it, and write to the reply channel. All that
it gains is to send other values, and the grader compares values with what only the grader knows. A
program, not for import: it is started by its path and finds `wire.py` beside it.
"""

import importlib.util
import json
import linecache
import os
import random
import re
import secrets
import sys
import types
from importlib.machinery import ModuleSpec
from typing import Any, BinaryIO

CONFIG = json.loads(sys.argv[1])
LONGEST_MESSAGE = 600  # characters of an error that are sent back
MAGIC_LINE = r"(?m)^([ \t]*)([%!].*|\??[\w.]+\?+)$"  # of IPython: %matplotlib, !ls, print?
CELLS_WITH_CODE = ("%%time", "%%timeit", "%%capture")  # cell magic that has Python below it


class LibraryFinder:
    """Finds the libraries that the assignment allows where they are installed, and no others."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The place of a library of that name; None leaves it to other finders."""
        location = CONFIG["libraries"].get(name) if path is None else None
        if location is None:
            return None
        if os.path.isdir(location):
            file = os.path.join(location, "__init__.py")
            return importlib.util.spec_from_file_location(
                name, file, submodule_search_locations=[location]
            )
        return importlib.util.spec_from_file_location(name, location)


def prepare() -> tuple[BinaryIO, BinaryIO]:
    """Take the channel away from stdin and stdout, set the path, make chance repeatable.

    Returns (reader, writer).
    """
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    sys.argv = [""]
    sys.path.append(CONFIG["site"])
    sys.meta_path.append(LibraryFinder)
    random.seed(0)
    # NumPy takes the seed of a generator without a seed from here
    secrets.randbits = random.Random(0).getrandbits
    return reader, writer


READER, WRITER = prepare()

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np  # noqa: E402
import wire  # noqa: E402

del sys.path[0]
np.random.seed(0)  # noqa: NPY002 - for students who use the old interface

# student code may replace the functions of the module
frame = wire.frame
unframe = wire.unframe
read_frame = wire.read_frame


def new_notebook() -> dict[str, Any]:
    """The names of an empty notebook: a module called __main__."""
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __builtins__=__builtins__, display=lambda *a, **k: None, get_ipython=lambda: None
    )
    sys.modules["__main__"] = module
    return module.__dict__


def describe_error(error: BaseException) -> str:
    """An exception in one line, with the place in the student's cell where it was raised."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith("<cell "):
            place = f" (cell {name[6:-1]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and (error.filename or "").startswith("<cell "):
        text = error.msg
        place = f" (cell {error.filename[6:-1]}, line {error.lineno})"
    else:
        text = str(error)[:LONGEST_MESSAGE]
    return f"{type(error).__name__}: {text}{place}"[: 2 * LONGEST_MESSAGE]


def compile_cell(source: str, name: str) -> types.CodeType:
    """The code of a cell; where IPython's magic makes it invalid Python, without the magic."""
    try:
        return compile(source, name, "exec")
    except SyntaxError:
        if source.lstrip().startswith("%%") and source.split()[0] not in CELLS_WITH_CODE:
            return compile("", name, "exec")
        return compile(re.sub(MAGIC_LINE, r"\1pass", source), name, "exec")


def run_cell(namespace: dict[str, Any], number: int, source: str) -> None:
    """Run one cell. What it assigns stays in `namespace`."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile_cell(source, name), namespace)


def call_function(namespace: dict[str, Any], function: str, inputs: tuple) -> dict[str, Any]:
    """Call the student's function; the inputs go back as they are afterwards."""
    if not callable(namespace.get(function)):
        raise NameError(f"there is no function {function}")
    return {"value": namespace[function](*inputs), "inputs": inputs}


def reply_to(namespace: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """Do what a message asks for. Errors of student code are part of the reply."""
    reply = {"id": message["id"], "ok": True}
    try:
        if message["do"] == "cell":
            names = dict(namespace) if message["apart"] else namespace
            run_cell(names, message["number"], message["source"])
            return reply
        return {**reply, **call_function(namespace, message["function"], message["inputs"])}
    # SystemExit and KeyboardInterrupt too: they end a cell, not the process
    except BaseException as error:
        return {"id": message["id"], "ok": False, "error": describe_error(error)}


def main() -> None:
    """Answer messages until the channel is closed."""
    namespace = new_notebook()
    while body := read_frame(READER.read, 1 << 40):
        message = unframe(body)
        if message["do"] == "clear":
            namespace = new_notebook()
            reply = {"id": message["id"], "ok": True}
        else:
            reply = reply_to(namespace, message)
        try:
            data = frame(reply)
        except Exception as error:  # a value that cannot be sent
            text = f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]
            data = frame({"id": message["id"], "ok": False, "error": text})
        WRITER.write(data)
        WRITER.flush()


main()
