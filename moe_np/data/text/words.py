"""Words and punctuation marks as tokens, as in Shazeer et al. 2017 (One Billion Word Benchmark).

Where a whole word is one token, one sees what an expert is for (Shazeer et al. 2017, Table 9). The
words that occur most often in the training text have ids; ties: the smaller word in the order of
Unicode. Upper and lower case differ.

    parts    a word is letters, digits and underscores, with apostrophes and hyphens inside
             ("God’s", "En-gedi"); any other character that is no space is a mark
    gaps     between two parts `gap` writes a space or none, as English and Spanish do: none before
             ",", none after "(". What is written as the rule says needs no token. Where it is not,
             spaces are tokens (a line's end, for example), and the token JOIN says "no space"
    rare     a word without an id is written in bytes, 256 tokens; or, with `unknown="<unk>"`, as
             the one token UNKNOWN, as in the paper

So with bytes every text without lone surrogates comes back exactly, and with "<unk>" every text of
known words. Ids: 0 UNKNOWN, 1 JOIN, then the bytes (if they are used), the words, and the special
tokens.
"""

import collections
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from moe_np.base import checks
from moe_np.base.checks import InputError, choice, integer
from moe_np.base.types import ArrayN
from moe_np.data.text import entrance

UNKNOWN = 0
JOIN = 1
UNKNOWN_TEXT = "<unk>"
UNKNOWNS = ("bytes", UNKNOWN_TEXT)
PARTS = re.compile(r"\w+(?:['’-]\w+)*|\s+|[^\w\s]")
NO_SPACE_BEFORE = frozenset(",.;:?!)]}’”»%")
NO_SPACE_AFTER = frozenset("([{¿¡‘“«")


def gap(left: str, right: str) -> str:
    """What stands between two parts if no token says otherwise: "" or a space."""
    if not left or not right or left[-1].isspace() or right[0].isspace():
        return ""
    return "" if right[0] in NO_SPACE_BEFORE or left[-1] in NO_SPACE_AFTER else " "


class Words:
    """A vocabulary of words.

    words      the parts of text that have an id, in the order of their ids
    unknown    "bytes" or "<unk>": what a word without an id becomes
    special    {name: id} of the special tokens, which `encode` never gives and which decode to ""
    size       of the vocabulary
    """

    kind = "words"

    def __init__(
        self, words: Sequence[str], unknown: str = "bytes", special: Sequence[str] = ()
    ) -> None:
        self.unknown = choice("unknown", unknown, UNKNOWNS)
        self.first = first_word(unknown)
        self.words = list(entrance.special("words", words, 0))
        for word in self.words:
            if not PARTS.fullmatch(word):
                raise InputError(f"words: wanted words or marks, got {checks.text(word)}")
        self.special = entrance.special("special", special, self.first + len(self.words))
        self.size = self.first + len(self.words) + len(self.special)
        self._id = {word: self.first + i for i, word in enumerate(self.words)}

    def encode(self, text: str) -> ArrayN:
        """`text` -> ids. Raises InputError for what is no text, and for a lone surrogate."""
        ids: list[int] = []
        raw = self.unknown == "bytes"
        for part, is_joined in written_parts(entrance.text("text", text), self._id, raw):
            if is_joined:
                ids.append(JOIN)
            number = self._id.get(part)
            if number is not None:
                ids.append(number)
            elif raw:
                ids += [2 + byte for byte in part.encode("utf-8")]
            else:
                ids.append(UNKNOWN)
        return np.array(ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. Bytes that are no UTF-8 become U+FFFD. Raises InputError for a wrong id."""
        return "".join(self.stream(entrance.ids("ids", ids, self.size)))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `decode` in parts, one per id as it comes, and a last one for what is left.

        A part is empty while a rare word is not complete. Raises InputError for a wrong id.
        """
        left = ""
        joint = False
        raw = bytearray()
        for number in ids:
            number = entrance.token_id("ids", number, self.size)
            if 2 <= number < self.first:
                raw.append(number - 2)
                yield ""
                continue
            written = ""
            for part in (raw.decode("utf-8", "replace"), self._text(number)):
                if part:
                    written += part if joint else gap(left, part) + part
                    left = part
                    joint = False
            raw.clear()
            joint = joint or number == JOIN
            yield written
        rest = raw.decode("utf-8", "replace")
        yield rest if joint else gap(left, rest) + rest

    def to_dict(self) -> dict[str, Any]:
        """All that makes this tokeniser, for JSON."""
        special = list(self.special)
        return {
            "kind": self.kind,
            "words": self.words,
            "unknown": self.unknown,
            "special": special,
        }

    def _text(self, number):
        """The text of a token that is no byte."""
        if number == UNKNOWN:
            return UNKNOWN_TEXT
        place = number - self.first
        return self.words[place] if 0 <= place < len(self.words) else ""


def first_word(unknown: str) -> int:
    """The id of the first word: 258 with bytes, 2 without."""
    return 2 + (256 if unknown == "bytes" else 0)


def written_parts(
    text: str, known: Collection[str] | None, raw: bool
) -> Iterator[tuple[str, bool]]:
    """The parts of a text for which a token is written, each with whether JOIN stands before it.

    known    the words with an id; None: all
    raw      whether the others are bytes: between two of them everything is written as it is
    """
    left = ""
    left_is_raw = False
    space = ""
    for part in PARTS.findall(text):
        if part.isspace():
            space = part
            continue
        part_is_raw = raw and known is not None and part not in known
        as_it_is = left_is_raw and part_is_raw
        expected = gap(left, part)
        if space and (as_it_is or space != expected):
            yield space, False
        yield part, bool(expected) and not space and not as_it_is
        left = part
        left_is_raw = part_is_raw
        space = ""
    if space:
        yield space, False


def train(text: str, size: int, special: Sequence[str] = (), *, unknown: str = "bytes") -> Words:
    """The vocabulary of `size` ids with the words that occur most often, special tokens included.

    It is smaller if the text has fewer words. Raises InputError for a size without a place for a
    word, and for a lone surrogate.
    """
    first = first_word(choice("unknown", unknown, UNKNOWNS))
    special = tuple(entrance.special("special", special, first))
    size = integer("size", size, minimum=first + len(special) + 1)
    parts = written_parts(entrance.text("text", text), None, False)
    counts = collections.Counter(part for part, _ in parts)
    order = sorted(counts, key=lambda word: (-counts[word], word))
    return Words(order[: size - first - len(special)], unknown, special)
