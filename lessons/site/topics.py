"""The topic pages of the reference: their order, and the modules that each lists.

topics/index.md has the order: the names in its `{toctree}` blocks. A page ends with a block

    ```{modules}
    moe_np.routing.top_k
    moe_np.coursework.*
    ```

one module per line, or a package with all that lies in it and that no longer line names: a new
router is listed with `moe_np.routing.*` until a page names it. The site shows links in the place of
the block, each with the first paragraph of the module's docstring. Every module stands in exactly
one page, which tests/lessons/test_site.py holds.
"""

import collections
import functools
import pathlib
import re

from lessons.site import links, reference

FOLDER = pathlib.Path(__file__).resolve().parent / "topics"
BLOCK = re.compile(r"^```\{modules\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def names() -> list[str]:
    """The topics in their order."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", index, re.DOTALL | re.MULTILINE)
    lines = [line for tree in trees for line in tree.splitlines()]
    return [line for line in lines if line and not line.startswith(":")]


def text(topic: str) -> str:
    """The source of a topic page."""
    return (FOLDER / f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """The title of a topic page."""
    return re.search(r"^# (.+)$", text(topic), re.MULTILINE)[1]


def code(topic: str) -> str:
    """The Python of a topic page, all cells in one."""
    return "\n".join(CODE.findall(text(topic)))


def listed(topic: str) -> list[str]:
    """The lines of a topic's block: modules, and packages with `.*`."""
    return [line for block in BLOCK.findall(text(topic)) for line in block.split()]


@functools.cache
def lines_of_modules() -> dict[str, str]:
    """{module: the longest line that fits it}, without the modules that no line fits."""
    lines = sorted((line for topic in names() for line in listed(topic)), key=len)
    return {name: line for line in lines for name in links.documented() if fits(name, line)}


def fits(name: str, line: str) -> bool:
    """Whether a line names a module, or a package that it is or lies in."""
    package = line.removesuffix(".*")
    return name == line or (package != line and f"{name}.".startswith(f"{package}."))


def matching(line: str) -> list[str]:
    """The modules that a line lists."""
    return [name for name, own_line in lines_of_modules().items() if own_line == line]


def modules(topic: str) -> list[str]:
    """The modules of a topic, packages opened."""
    return [name for line in listed(topic) for name in matching(line)]


def of_modules() -> dict[str, tuple[str, str]]:
    """{module: (document, title) of its topic}, for the pages of the modules."""
    return {name: (f"topics/{topic}", title(topic)) for topic in names() for name in modules(topic)}


# --- pages ----------------------------------------------------------------------------------------


def page(topic: str) -> str:
    """A topic page as the site reads it: links added, and the list of modules in its place."""
    shown = BLOCK.sub(lambda block: module_list(block[1].split()), text(topic))
    return links.in_markdown(shown, "../")


def module_list(lines: list[str]) -> str:
    """Links to the pages of the modules, as Markdown, and a toctree that is not shown."""
    items = []
    for line in lines:
        items += package_items(line) if line.endswith(".*") else [module_item(line)]
    tree = [f"../reference/{name}" for line in lines for name in matching(line)]
    return "\n".join(["## Modules", "", *items, "", "```{toctree}", ":hidden:", "", *tree, "```"])


def link(name: str, shown: str) -> str:
    """A link from a topic page to the page of a module."""
    return f"[{shown}](../reference/{name}.rst)"


def module_item(name: str) -> str:
    """One module with what it says of itself."""
    return f"- {link(name, name)}: {reference.summary(name)}"


def package_items(line: str) -> list[str]:
    """One item per package: what it says of itself, and the modules that lie in it."""
    inside = collections.defaultdict(list)
    for name in matching(line):
        inside[reference.package(name)].append(name)
    items = []
    for package, members in inside.items():
        item = module_item(package) if package in members else f"- {package}:"
        shown = [link(n, n.removeprefix(f"{package}.")) for n in members if n != package]
        items.append(f"{item} ({', '.join(shown)})" if shown else item)
    return items


def write(folder: pathlib.Path) -> None:
    """All topic pages and their index, into `folder`."""
    folder.mkdir(parents=True)
    for topic in names():
        (folder / f"{topic}.md").write_text(page(topic), encoding="utf-8")
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(links.in_markdown(index, "../"), encoding="utf-8")
