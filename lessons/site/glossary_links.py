"""Links from a lesson to the glossary: each of its terms, where the lesson first uses it.

    **Sparse layer** — a layer ...     an entry of glossary.md, with the target "term-sparse-layer"

Nothing is changed in code, headings, formulas and links that are there already.
"""

import functools
import pathlib
import re

from lessons.site import links

GLOSSARY = pathlib.Path(__file__).resolve().parent / "glossary.md"
ENTRY = re.compile(r"^\*\*(.+?)\*\* — ", re.MULTILINE)
# everyday words, which mostly mean something else where they stand
EVERYDAY = {"causal", "combine", "heads", "importance", "load", "merging", "padding", "placement"}
EVERYDAY |= {"rank", "estimator", "clipping"}
KEPT = re.compile(rf"{links.UNTOUCHED.pattern}|`[^`]*`", links.UNTOUCHED.flags)


@functools.cache
def terms() -> dict[str, re.Pattern[str]]:
    """{target of a term: the pattern of its words}, the longest term first."""
    entries = ENTRY.findall(GLOSSARY.read_text(encoding="utf-8"))
    names = {entry: re.match(r"[^(]*", entry)[0].strip() for entry in entries}
    chosen = {e: name for e, name in names.items() if name.lower() not in EVERYDAY}
    ordered = sorted(chosen, key=lambda entry: -len(chosen[entry]))
    return {target(entry): pattern(chosen[entry]) for entry in ordered}


def target(entry: str) -> str:
    """The target of an entry: "term-sparse-layer"."""
    return "term-" + re.sub(r"\W+", "-", entry.lower()).strip("-")


def pattern(name: str) -> re.Pattern[str]:
    """Whole words, in capitals or not, with a hyphen or a space, also in the plural."""
    words = r"[-\s]".join(re.escape(word) for word in re.split(r"[-\s]", name))
    return re.compile(rf"(?<![\w-]){words}s?(?![\w-])", re.IGNORECASE)


def with_targets(text: str) -> str:
    """The glossary with a target before each entry."""
    return ENTRY.sub(lambda match: f"({target(match[1])})=\n{match[0]}", text)


def with_first_uses(texts: list[str], up: str) -> list[str]:
    """The Markdown cells of a lesson, in their order, with a link at the first use of each term.

    up  the way from the lesson to the root of the site, "../"
    """
    out = list(texts)
    for name, words in terms().items():
        for number, text in enumerate(out):
            linked = _linked(text, words, f"{up}glossary.md#{name}")
            if linked is not None:
                out[number] = linked
                break
    return out


def _linked(text, words, address):
    """The text with a link at the first place that may be changed; None without one."""
    end = 0
    for kept in [*KEPT.finditer(text), None]:
        stop = len(text) if kept is None else kept.start()
        if found := words.search(text, end, stop):
            link = f"[{found[0]}]({address})"
            return text[: found.start()] + link + text[found.end() :]
        end = stop if kept is None else kept.end()
    return None
