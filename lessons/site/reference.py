"""The reference: a page for each module, its docstrings as they stand, since their tables are
aligned for the eye.
"""

import importlib
import inspect
import pkgutil
import re

import moe_np

SKIPPED = ("moe_np.__main__", "moe_np.coursework.sandbox.child")  # programs, not for import

INDEX = """\
Reference
=========

A module's page opens with its symbols: the paper's, the name here, the shape. Errors are `moe_np.base.checks.InputError`
unless said otherwise.

"""


def modules():
    """The names of all modules, in alphabetical order."""
    found = (m.name for m in pkgutil.walk_packages(moe_np.__path__, "moe_np."))
    return [name for name in sorted(found) if not name.startswith(SKIPPED)]


def described(text, indent):
    """A docstring as reStructuredText: prose as prose, what is aligned or indented as it stands."""
    lines = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        own = block.splitlines()
        if any(line.startswith(" ") or "  " in line for line in own):
            lines += ["", ".. code-block:: text", "", *("   " + line for line in own), ""]
        else:
            lines += ["", prose(" ".join(own)), ""]
    return [(" " * indent + line).rstrip() for line in lines]


def prose(text):
    """A paragraph with `code` in it; nothing else in it is markup."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = (re.sub(r"([\\*|_`])", r"\\\1", part) for part in parts[::2])
    parts[1::2] = (f"\\ ``{part}``\\ " for part in parts[1::2])
    return "".join(parts)


def public(module):
    """(name, object) of the functions and classes that a module defines, as they come in the file."""
    own = [
        (name, thing)
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", None) == module.__name__
    ]
    return [
        (n, t)
        for n, t in own
        if inspect.isclass(t) or inspect.isroutine(t) or hasattr(t, "py_func")
    ]


def signature(thing):
    try:
        text = str(inspect.signature(getattr(thing, "py_func", thing)))
    except (TypeError, ValueError):
        return "(...)"
    return re.sub(r"<class 'numpy\.(\w+)'>|numpy\.(ndarray)", lambda m: m[1] or m[2], text)


def entry(name, thing):
    kind = "class" if inspect.isclass(thing) else "function"
    lines = ["", f".. py:{kind}:: {name}{signature(thing)}", ""]
    text = inspect.getdoc(thing) or ""
    if kind == "class" and (text.startswith(f"{name}(") or text == inspect.getdoc(tuple)):
        text = ""  # what Python writes by itself
    return lines + (described(text, 3) if text else [])


def page(name):
    """The module's page as reStructuredText, or None if there is nothing to say of it."""
    module = importlib.import_module(name)
    things = public(module)
    if not module.__doc__ and not things:
        return None
    title = name.removeprefix("moe_np.")
    lines = [
        title,
        "=" * len(title),
        "",
        f".. py:module:: {name}",
        *described(module.__doc__ or "", 0),
    ]
    for own, thing in things:
        lines += entry(own, thing)
    return "\n".join(lines) + "\n"


def write(folder):
    """All pages and their index, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {name: text for name in modules() if (text := page(name))}
    for name, text in pages.items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    toc = "\n".join([".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in pages)])
    (folder / "index.rst").write_text(INDEX + toc + "\n", encoding="utf-8")
