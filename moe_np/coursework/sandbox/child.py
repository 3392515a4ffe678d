"""The Python of a student: it runs cells and calls functions when asked, inside the sandbox.

    python child.py CONFIG           (JSON: where the allowed part of moe_np and the libraries are)

Nothing here is trusted: student code can change any of it, and write to the reply channel. All that
it gains is to send other values, and the grader compares values with what only the grader knows. A
program, not for import: it is started by its path and finds `wire.py` beside it.
"""

import ast
import importlib.util
import inspect
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
# of IPython: %matplotlib, !ls, print?, ?print, and names = !ls, where the name stays, as None
MAGIC_LINE = r"(?m)^([ \t]*)([%!].*|\?[\w.?]+|[\w.]+\?+)$"
MAGIC_VALUE = r"(?m)^([ \t]*[\w, \t]+=)[ \t]*[%!].*$"
CELL_NAME = re.compile(r"<ipython-input-(\d+)>")  # so that Numba can cache what a cell defines
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


class Silent:
    """What Jupyter has to show things: each part can be called with anything and does nothing."""

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Silent()

    def __call__(self, *arguments: Any, **options: Any) -> None:
        """Do nothing."""

    def __contains__(self, name: str) -> bool:
        return False


def add_ipython() -> None:
    """Stand-ins for the modules of IPython that notebooks import to show things."""

    def module(name, **content):
        made = types.ModuleType(name)
        made.__dict__.update(content)
        sys.modules[name] = made
        return made

    def show(*arguments, **options):
        pass

    shell = Silent()
    shown = ("HTML", "Image", "Markdown", "Math", "Latex", "SVG", "JSON", "Code", "Audio", "IFrame")
    classes = {name: type(name, (Silent,), {}) for name in (*shown, "Video", "YouTubeVideo")}
    functions = dict.fromkeys(("display", "clear_output", "set_matplotlib_formats"), show)
    display = module("IPython.display", **functions, **classes)
    paths = module("IPython.paths", get_ipython_cache_dir=lambda: os.environ["HOME"])  # for Numba
    tools = module("IPython.core.pylabtools", backend2gui={})  # for Matplotlib
    core = module("IPython.core", pylabtools=tools)
    ipython = {"get_ipython": lambda: shell, "version_info": (9, 0), "__path__": []}
    module("IPython", display=display, paths=paths, core=core, **ipython)


class WithoutWindows:
    """Finds Matplotlib for `import`, and makes `matplotlib.use` do nothing: a backend that opens
    windows, which a student's own machine has, would be an error here.
    """

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of Matplotlib, once; None for all other modules."""
        if name != "matplotlib":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            execute = spec.loader.exec_module

            def execute_and_silence(module):
                execute(module)
                module.use = Silent()

            spec.loader.exec_module = execute_and_silence
        return spec


def new_notebook() -> dict[str, Any]:
    """The names of an empty notebook: a module called __main__."""
    add_ipython()
    sys.meta_path.insert(0, WithoutWindows)
    ipython = sys.modules["IPython"]
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __builtins__=__builtins__,
        display=ipython.display.display,
        get_ipython=ipython.get_ipython,
    )
    sys.modules["__main__"] = module
    return module.__dict__


def describe_error(error: BaseException) -> str:
    """An exception in one line, with the place in the student's cell where it was raised."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        cell = CELL_NAME.fullmatch(trace.tb_frame.f_code.co_filename)
        if cell:
            place = f" (cell {cell[1]}, line {trace.tb_lineno})"
        trace = trace.tb_next
    cell = CELL_NAME.fullmatch(str(getattr(error, "filename", "")))
    if isinstance(error, SyntaxError) and cell:
        text = error.msg
        place = f" (cell {cell[1]}, line {error.lineno})"
    else:
        text = str(error)[:LONGEST_MESSAGE]
    return f"{type(error).__name__}: {text}{place}"[: 2 * LONGEST_MESSAGE]


def compile_cell(source: str, name: str) -> types.CodeType:
    """The code of a cell; where IPython's magic makes it invalid Python, without the magic."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        return compile(source, name, "exec", flags)
    except SyntaxError:
        if source.lstrip().startswith("%%") and source.split()[0] not in CELLS_WITH_CODE:
            return compile("", name, "exec")
        source = re.sub(MAGIC_VALUE, r"\1 None", re.sub(MAGIC_LINE, r"\1pass", source))
        return compile(source, name, "exec", flags)


def run_cell(namespace: dict[str, Any], number: int, source: str) -> None:
    """Run one cell. What it assigns stays in `namespace`."""
    name = f"<ipython-input-{number}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    code = compile_cell(source, name)
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, namespace)
        return
    import asyncio  # only where a cell says `await`

    asyncio.run(eval(code, namespace))


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
