"""Make the notebooks: lessons/NN_name.py (py:percent, what one edits) -> lessons/NN_name.ipynb
(what one opens).

    python lessons/build.py [NAME ...]      write the notebooks that differ from their sources
    python lessons/build.py --check         say which differ, and end with status 1 if any does

The same source gives the same bytes: no outputs, cells numbered by their position, one kernel, no
versions. additions.py adds what every lesson has: cells for predictions, hints, answers, links.
"""

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # as a script this file finds its neighbour, too
from lessons.additions import added  # noqa: E402

PATTERN = "[0-9][0-9]*_*.py"  # 05_em.py, and 00b_primer.py after 00_setup.py
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources(folder=HERE):
    """The lessons in their order."""
    return sorted(folder.glob(PATTERN))


def notebook(text, stem=None):
    """The notebook of a py:percent source, as an nbformat object. A header in the source, if any,
    is not copied.

    stem    "09_balance": the lesson whose additions the notebook gets; None: the source alone
    """
    import jupytext
    import nbformat

    made = jupytext.reads(text, fmt="py:percent")
    triples = [(cell.cell_type, cell.source, tags_of(cell)) for cell in made.cells]
    cells = []
    for number, (kind, source, metadata) in enumerate(added(triples, stem) if stem else triples):
        cell = {"id": f"cell-{number:02d}", "source": source, "cell_type": kind}
        cell["metadata"] = metadata
        if kind == "code":
            cell |= {"outputs": [], "execution_count": None}
        cells.append(cell)
    made = nbformat.from_dict(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": METADATA, "cells": cells}
    )
    nbformat.validate(made)
    return made


def tags_of(cell):
    """The part of a cell's metadata that a notebook keeps."""
    return {key: value for key, value in cell.metadata.items() if key == "tags"}


def as_text(made):
    """The notebook as the text that is stored: JSON with one line an item, so that a change is seen
    where it is.
    """
    import nbformat

    return nbformat.writes(made).rstrip("\n") + "\n"


def out_of_date(source):
    """The text that the notebook of `source` should have, or None if it has it."""
    wanted = as_text(notebook(source.read_text(encoding="utf-8"), source.stem))
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
