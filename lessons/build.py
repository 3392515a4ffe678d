"""Make the notebooks: lessons/NN_name.py (py:percent, what one edits) -> lessons/NN_name.ipynb
(what one opens).

    python lessons/build.py [NAME ...]      write the notebooks that differ from their sources
    python lessons/build.py --check         say which differ, and end with status 1 if any does

The same source gives the same bytes: no outputs, cells numbered by their position, one kernel, no
versions.
"""

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PATTERN = "[0-9][0-9]_*.py"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources(folder=HERE):
    """The lessons in their order."""
    return sorted(folder.glob(PATTERN))


def notebook(text):
    """The notebook of a py:percent source, as an nbformat object. A header in the source, if any,
    is not copied.
    """
    import jupytext
    import nbformat

    made = jupytext.reads(text, fmt="py:percent")
    cells = []
    for number, cell in enumerate(made.cells):
        own = {"id": f"cell-{number:02d}", "source": cell.source, "cell_type": cell.cell_type}
        own["metadata"] = {key: value for key, value in cell.metadata.items() if key in ("tags",)}
        if cell.cell_type == "code":
            own |= {"outputs": [], "execution_count": None}
        cells.append(own)
    made = nbformat.from_dict(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": METADATA, "cells": cells}
    )
    nbformat.validate(made)
    return made


def as_text(made):
    """The notebook as the text that is stored: JSON with one line an item, so that a change is seen
    where it is.
    """
    import nbformat

    return nbformat.writes(made).rstrip("\n") + "\n"


def out_of_date(source):
    """The text that the notebook of `source` should have, or None if it has it."""
    wanted = as_text(notebook(source.read_text(encoding="utf-8")))
    path = source.with_suffix(".ipynb")
    have = path.read_text(encoding="utf-8") if path.exists() else None
    return None if have == wanted else wanted


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python lessons/build.py", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="as 04_vowels (default: all lessons)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    chosen = [source for source in sources() if not args.names or source.stem in args.names]
    unknown = set(args.names) - {source.stem for source in chosen}
    if unknown:
        parser.error(
            f"NAME: wanted a lesson, as {', '.join(s.stem for s in sources())}; "
            f"got {', '.join(unknown)}"
        )
    different = 0
    for source in chosen:
        wanted = out_of_date(source)
        if wanted is None:
            continue
        different += 1
        path = source.with_suffix(".ipynb")
        if not args.check:
            path.write_text(wanted, encoding="utf-8", newline="\n")
        print(path.name, "differs from its source" if args.check else "written")
    return 1 if args.check and different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
