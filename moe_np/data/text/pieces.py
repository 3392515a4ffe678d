r"""GPT-2's pieces: the words, numbers, marks and spaces between which no token reaches.

A. Radford et al. 2019 (GPT-2), the pattern of the published encoder:

    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

A space before a word, number or mark belongs to it. Python's `re` does not know the classes of
Unicode (\p{L} letters, \p{N} numbers); this file says the same with those that it knows. What is a
letter is known from Python's tables: a letter that is younger than these counts as a mark.
"""

import re
import sys
import unicodedata
from functools import cache

# \w is letters, numbers and the underscore; \d is the decimal digits of all scripts
USUAL = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+",
)


def pieces(text: str) -> list[str]:
    """The pieces of a text in their order; joined they are the text."""
    if exceptions().isdisjoint(text):
        return USUAL.findall(text)
    return exact_pattern().findall(text)


@cache
def exceptions() -> frozenset[str]:
    """The characters for which USUAL is not exact: numbers that are no digits, as ½ and Ⅳ, and four
    control characters that are spaces for Python only.
    """
    numbers = (c for c in map(chr, range(128, sys.maxunicode + 1)) if is_number_without_digits(c))
    return frozenset(numbers) | frozenset("\x1c\x1d\x1e\x1f")


def is_number_without_digits(character: str) -> bool:
    """Whether a character has one of the categories "letter number" and "other number"."""
    return unicodedata.category(character) in ("Nl", "No")


@cache
def exact_pattern() -> re.Pattern[str]:
    """The pattern for every text. It is twenty times slower than USUAL."""
    numbers = r"\d" + "".join(sorted(c for c in exceptions() if is_number_without_digits(c)))
    spaces = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return re.compile(
        rf"'(?:[stmd]|re|ve|ll)| ?[^\W{numbers}_]+| ?[{numbers}]+| ?(?:[^\w{spaces}]|_)+"
        rf"|[{spaces}]+(?![^{spaces}])|[{spaces}]+"
    )
