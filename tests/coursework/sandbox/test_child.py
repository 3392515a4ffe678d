"""The program that runs student code, started by its path and without a sandbox."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from moe_np.coursework.sandbox import visible_files, wire

PROGRAM = pathlib.Path(visible_files.__file__).with_name("child.py")


@pytest.fixture
def ask(tmp_path):
    """A function that sends a message and returns the reply."""
    config = json.dumps(
        {"site": str(tmp_path), "libraries": visible_files.library_paths(["numpy", "numba"])}
    )
    command = [sys.executable, "-P", "-B", str(PROGRAM), config]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    variables = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(command, cwd=tmp_path, env=variables, **pipes) as process:

        def send(**message):
            process.stdin.write(wire.frame({"id": 7, **message}))
            process.stdin.flush()
            return wire.unframe(wire.read_frame(process.stdout.read, 1 << 30))

        yield send
        process.stdin.close()
        assert process.wait(10) == 0


def cell(source, number=1, apart=False):
    return {"do": "cell", "number": number, "source": source, "apart": apart}


def test_cells_share_names_and_a_function_is_called(ask):
    assert ask(**cell("import numpy as np\nk = 3")) == {"id": 7, "ok": True}
    assert ask(**cell("def f(x):\n    x[0] = 1\n    return k * x"))["ok"]
    reply = ask(do="call", function="f", inputs=(np.zeros(2),))
    assert reply["value"].tolist() == [3, 0] and reply["inputs"][0].tolist() == [1, 0]


def test_a_cell_apart_leaves_no_names_and_clear_forgets_all(ask):
    ask(**cell("def f(): return 1"))
    ask(**cell("def f(): return 2\ng = f", apart=True))
    assert ask(do="call", function="f", inputs=())["value"] == 1
    assert "there is no function g" in ask(do="call", function="g", inputs=())["error"]
    assert ask(do="clear")["ok"]
    assert "there is no function f" in ask(do="call", function="f", inputs=())["error"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (cell 1, line 2)"),
        ("x = (", "SyntaxError: '(' was never closed (cell 1, line 1)"),
        ("raise SystemExit('end')", "SystemExit: end (cell 1, line 1)"),
    ],
)
def test_an_error_names_its_line(ask, source, error):
    assert ask(**cell(source)) == {"id": 7, "ok": False, "error": error}


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\nx = 1",
        "%%time\nx = 1",
        "!ls\nx = 1",
        "print?\nx = 1",
        "?print\nx = 1",
        "files = !ls\nx = 1",
        "def f():\n    t = %timeit -o 1\n    return 1\nx = f()",
    ],
)
def test_magic_of_ipython_is_left_out(ask, source):
    assert ask(**cell(source))["ok"]
    assert ask(**cell("assert x == 1"))["ok"]


@pytest.mark.seconds
@pytest.mark.parametrize(
    "source",
    [
        "get_ipython().run_line_magic('matplotlib', 'inline')",
        "from IPython.display import HTML, Markdown, clear_output, display\ndisplay(HTML('x'))",
        "import IPython\nIPython.get_ipython().events.register('x', 1)",
        "import asyncio\nawait asyncio.sleep(0)",
        "import matplotlib\nmatplotlib.use('TkAgg')\nimport matplotlib.pyplot as p\np.figure()",
        "import matplotlib.pyplot, matplotlib\nmatplotlib.use('QtAgg')\nmatplotlib.pyplot.figure()",
    ],
)
def test_what_jupyter_shows_and_awaits_costs_nothing(ask, source):
    assert ask(**cell(source)) == {"id": 7, "ok": True}
    assert ask(**cell("x = 1")) == ask(**cell("assert x == 1"))


def test_an_error_in_a_cell_that_awaits_names_its_line(ask):
    reply = ask(**cell("import asyncio\nawait asyncio.sleep(0)\n1 / 0", number=4))
    assert reply["error"] == "ZeroDivisionError: division by zero (cell 4, line 3)"


@pytest.mark.seconds
def test_numba_caches_what_a_cell_defines(ask):
    pytest.importorskip("numba")
    source = "import numba\n@numba.njit(cache=True)\ndef f(x):\n    return x + 1"
    assert ask(**cell(source, number=22)) == {"id": 7, "ok": True}
    assert ask(do="call", function="f", inputs=(3,))["value"] == 4


def test_a_value_that_cannot_be_sent_is_an_error(ask):
    ask(**cell("def f(): return object()"))
    reply = ask(do="call", function="f", inputs=())
    assert not reply["ok"] and "wanted arrays and numbers" in reply["error"]
