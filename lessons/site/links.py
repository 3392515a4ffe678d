"""Links that the site adds to what others wrote: errata, lessons, modules, arXiv.

The same rules hold for docstrings (reStructuredText) and for pages (Markdown):

    errata 3, errata 10 and 11      the numbered item of lessons/errata.md
    lesson 07, lessons 01 to 04     the lesson
    moe_np/routing/top_k.py         the module's page; in docstrings also top_k.py for a neighbour
    `moe_np.routing.top_k`          the same
    arXiv 2401.04088                the paper

Nothing is changed in code, in headings, in formulas and in links that are there already.
"""

import functools
import pathlib
import re

from moe_np.experiments.common import sources

SKIPPED = ("moe_np.__main__", "moe_np.coursework.sandbox.child")  # programs, not for import
LESSONS = pathlib.Path(__file__).resolve().parents[1]
NUMBER = r"\d+(?:b\b)?"  # 07, 00b
NUMBERS = rf"{NUMBER}(?:(?:, | and | to ){NUMBER})*"
WORDS = re.compile(
    rf"`(?P<code>[^`]+)`|(?P<errata>errata\s+{NUMBERS})|(?P<lesson>[Ll]essons?\s+{NUMBERS})"
    r"|arXiv\s+(?P<arxiv>\d{4}\.\d{5})|(?P<path>\b[\w/]+\.py\b)"
)
# what stays as it is in Markdown: fences, headings, formulas, links, addresses
UNTOUCHED = re.compile(
    r"^(?:```|:::|~~~)[^\n]*\n.*?^(?:```|:::|~~~)$|^#[^\n]*$|\$\$.*?\$\$|\$[^$\n]+\$"
    r"|!?\[[^\]]*\]\([^)]*\)|<[^>\n]+>|^---\n.*?^---$",
    re.DOTALL | re.MULTILINE,
)


@functools.cache
def lesson_names() -> dict[str, str]:
    """{"07": "07_sparse", "00b": "00b_primer"} of all lessons."""
    paths = sorted(LESSONS.glob("[0-9][0-9]*_*.py"))
    return {path.stem.partition("_")[0]: path.stem for path in paths}


@functools.cache
def documented() -> tuple[str, ...]:
    """The names of all modules that have a page, in alphabetical order; empty ones have none."""
    names = (name for name in sources.modules() if name not in SKIPPED)
    return tuple(sorted(n for n in names if sources.file_of(n).read_text("utf-8").strip()))


def module_of(text: str, package: str = "moe_np") -> str | None:
    """The module that a path or a dotted name means, seen from a package; None for other words."""
    if text.endswith(".py"):
        dotted = text.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        names = [dotted] if dotted.startswith("moe_np") else [f"{package}.{dotted}"]
    else:
        names = [text]
    return next((name for name in names if name in documented()), None)


def each_number(text: str, link) -> str:
    """The words "errata 10 and 11" with link(text, number) in the place of each number.

    The word before the first number is part of its link.
    """
    first, *rest = re.findall(rf"\D*?{NUMBER}", text)
    word = re.match(r"\D*", first)[0]
    out = link(" ".join(first.split()), first[len(word) :])
    for part in rest:
        number = re.search(NUMBER, part)[0]
        out += part.removesuffix(number) + link(number, number)
    return out


# --- Markdown -------------------------------------------------------------------------------------


def in_markdown(text: str, up: str, page: str = "") -> str:
    """The links added to a page of Markdown.

    up    the way from the page to the root of the site: "" or "../"
    page  the name of the page, "07_sparse", which does not link to itself
    """
    out = []
    end = 0
    for kept in UNTOUCHED.finditer(text):
        out += [_markdown_words(text[end : kept.start()], up, page), kept[0]]
        end = kept.end()
    return "".join([*out, _markdown_words(text[end:], up, page)])


def _markdown_words(text, up, page):
    def errata(words, number):
        return f"[{words}]({up}lessons/errata.md#errata-{int(number)})"

    def lesson(words, number):
        name = lesson_names().get(number)
        return f"[{words}]({up}lessons/{name}.ipynb)" if name and name != page else words

    def replaced(match):
        if match["errata"]:
            return each_number(match[0], errata)
        if match["lesson"]:
            return each_number(match[0], lesson)
        if match["arxiv"]:
            return f"[{match[0]}](https://arxiv.org/abs/{match['arxiv']})"
        module = module_of(match["code"] or match["path"])
        return f"[{match[0]}]({up}reference/{module}.rst)" if module else match[0]

    return WORDS.sub(replaced, text)


# --- reStructuredText -----------------------------------------------------------------------------


def in_rst(text: str, package: str) -> str:
    """A paragraph of a docstring as reStructuredText: `code`, links, and no other markup.

    package  the package of the docstring's module, in which top_k.py is a neighbour
    """
    out = []
    end = 0
    for match in WORDS.finditer(text):
        out += [_escaped(text[end : match.start()]), _rst_word(match, package)]
        end = match.end()
    paragraph = "".join([*out, _escaped(text[end:])])
    starts_a_list = re.match(r"(\(?\w{1,3}[.)]|[-+•]) ", paragraph)  # as in "M. I. Jordan"
    return "\\" + paragraph if starts_a_list else paragraph


def _escaped(text):
    """Text without markup, except *emphasis* and **strong emphasis** of whole words."""
    parts = re.split(r"(?<![\w*])(\*{1,2}(?=\w)[^*]+(?<=\w)\*{1,2})(?![\w*])", text)
    return "".join(p if i % 2 else re.sub(r"([\\*|_`])", r"\\\1", p) for i, p in enumerate(parts))


def _rst_word(match, package):
    def errata(words, number):
        return rf"\ :ref:`{words} <errata-{int(number)}>`\ "

    def lesson(words, number):
        name = lesson_names().get(number)
        return rf"\ :doc:`{words} </lessons/{name}>`\ " if name else words

    if match["errata"]:
        return each_number(match[0], errata)
    if match["lesson"]:
        return each_number(match[0], lesson)
    if match["arxiv"]:
        return rf"\ `{match[0]} <https://arxiv.org/abs/{match['arxiv']}>`__\ "
    module = module_of(match["code"] or match["path"], package)
    if module:
        return rf"\ :doc:`{_escaped(match['code'] or match['path'])} </reference/{module}>`\ "
    return rf"\ ``{match['code']}``\ " if match["code"] else _escaped(match[0])
