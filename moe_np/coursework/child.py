"""The student's Python: runs cells and calls functions when asked, inside the sandbox.

    python child.py CONFIG           (JSON: where this package's allowed part and the libraries are)

Nothing here is trusted: a student's code can change any of it and write what it likes to the reply
channel. All that gains is to send other values, and values are compared in the grader with what
only the grader knows.
"""

import importlib.machinery
import importlib.util
import json
import linecache
import os
import random
import re
import secrets
import sys
import types

CONFIG = json.loads(sys.argv[1])
MESSAGE = 600  # characters of an error that are handed back


class Libraries:
    """Finds the libraries that the assignment allows where they are installed, and no others."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        where = CONFIG["libraries"].get(name) if path is None else None
        if where is None:
            return None
        if os.path.isdir(where):
            return importlib.util.spec_from_file_location(
                name, os.path.join(where, "__init__.py"), submodule_search_locations=[where]
            )
        return importlib.util.spec_from_file_location(name, where)


def prepare():
    """The channel apart from stdin and stdout, the path, and chance made repeatable. Returns
    (reader, writer).
    """
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    sys.argv = [""]
    sys.path.append(CONFIG["site"])
    sys.meta_path.append(Libraries)
    random.seed(0)
    secrets.randbits = random.Random(
        0
    ).getrandbits  # where NumPy takes the seed of an unseeded generator from
    return reader, writer


READER, WRITER = prepare()

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np  # noqa: E402
import wire  # noqa: E402

del sys.path[0]
np.random.seed(0)  # noqa: NPY002 - for students who use the old interface

frame, unframe, read_frame = wire.frame, wire.unframe, wire.read_frame


def fresh():
    """An empty notebook: a module called __main__."""
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __builtins__=__builtins__, display=lambda *a, **k: None, get_ipython=lambda: None
    )
    sys.modules["__main__"] = module
    return module.__dict__


def said(error):
    """An exception in a line, with the place in the student's cell where it came from."""
    place, trace = "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith("<cell "):
            place = f" (cell {name[6:-1]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and (error.filename or "").startswith("<cell "):
        place = f" (cell {error.filename[6:-1]}, line {error.lineno})"
        return f"{type(error).__name__}: {error.msg}{place}"
    return f"{type(error).__name__}: {str(error)[:MESSAGE]}{place}"


def compiled(source, name):
    """The cell's code; where IPython's magic stands in the way, without it."""
    try:
        return compile(source, name, "exec")
    except SyntaxError:
        if source.lstrip().startswith("%%") and source.split()[0] not in (
            "%%time",
            "%%timeit",
            "%%capture",
        ):
            return compile("", name, "exec")
        return compile(
            re.sub(r"(?m)^([ \t]*)([%!].*|\??[\w.]+\?+)$", r"\1pass", source), name, "exec"
        )


def cell(namespace, number, source):
    """Run one cell. What it assigns stays in `namespace`."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compiled(source, name), namespace)


def called(namespace, function, inputs):
    """Call the student's function; the inputs go back as they are afterwards."""
    if not callable(namespace.get(function)):
        raise NameError(f"there is no function {function}")
    return {"value": namespace[function](*inputs), "inputs": inputs}


def answer(namespace, message):
    try:
        if message["do"] == "cell":
            cell(
                dict(namespace) if message["apart"] else namespace,
                message["number"],
                message["source"],
            )
            return {"id": message["id"], "ok": True}
        return {
            "id": message["id"],
            "ok": True,
            **called(namespace, message["function"], message["inputs"]),
        }
    except (
        BaseException
    ) as error:  # SystemExit and KeyboardInterrupt too: a cell ends, not the process
        return {"id": message["id"], "ok": False, "error": said(error)[: 2 * MESSAGE]}


def main():
    namespace = fresh()
    while body := read_frame(READER.read, 1 << 40):
        message = unframe(body)
        if message["do"] == "fresh":
            namespace = fresh()
            reply = frame({"id": message["id"], "ok": True})
        else:
            out = answer(namespace, message)
            try:
                reply = frame(out)
            except Exception as error:
                reply = frame(
                    {
                        "id": message["id"],
                        "ok": False,
                        "error": f"{type(error).__name__}: {error}"[:MESSAGE],
                    }
                )
        WRITER.write(reply)
        WRITER.flush()


main()
