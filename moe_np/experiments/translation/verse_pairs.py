"""Verses as pairs of token sequences, English and Spanish, and padded minibatches of them.

    source     (B, S)   English, 0 at padding
    valid      (B, S)   False at padding
    targets    (B, T)   Spanish with an end token, IGNORED at padding

Both languages share one vocabulary of byte pairs, as in Shazeer et al. 2017, appendix E. Verses
that are longer than `longest` tokens in one of the languages are left out.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.types import Rng
from moe_np.data.text import bible, tokenisers
from moe_np.data.text.bible import Verse

IGNORED = -1
START = "<start>"
END = "<end>"
# what is shown in the report: one verse of each test book, chosen before the runs
SHOWN = (("Ruth", 1, 16), ("Song", 2, 1), ("Lam", 3, 22), ("1Cor", 13, 4))

Tokens = Annotated[np.ndarray, "T"]


class Pair(NamedTuple):
    """A verse and its tokens."""

    verse: Verse
    source: Tokens
    target: Tokens  # with the end token


class Minibatch(NamedTuple):
    """Several pairs, padded at the end."""

    source: Annotated[np.ndarray, "B, S"]
    valid: Annotated[np.ndarray, "B, S"]
    targets: Annotated[np.ndarray, "B, T"]


class Corpus(NamedTuple):
    """All that is trained on and measured."""

    tokeniser: tokenisers.Tokeniser
    train: tuple[Pair, ...]  # from short to long
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]  # those of SHOWN first
    kept: float  # share of the training verses that are not too long


def corpus(
    books: Sequence[str], *, vocabulary: int, longest: int, held_out: int | None = None
) -> Corpus:
    """The corpus of these books, () for all that are not held out.

    held_out   at most so many verses of the validation books and of the test books each
    """
    return _corpus(tuple(books), vocabulary, longest, held_out)


@functools.lru_cache(maxsize=1)
def _corpus(books, vocabulary, longest, held_out):
    split = bible.split()
    verses = bible.of_books(books) if books else split.train
    text = "".join(bible.running_text(verses, language) for language in bible.LANGUAGES)
    tokeniser = tokenisers.train("byte_pairs", text, vocabulary, special=(START, END))
    train = _pairs(verses, tokeniser, longest)
    test = _pairs(split.test, tokeniser, longest)
    test.sort(key=lambda pair: pair.verse[:3] not in SHOWN)  # stable
    return Corpus(
        tokeniser,
        tuple(sorted(train, key=lambda pair: len(pair.source) + len(pair.target))),
        tuple(_pairs(split.validation, tokeniser, longest)[:held_out]),
        tuple(test[:held_out]),
        len(train) / len(verses),
    )


def _pairs(verses, tokeniser, longest):
    end = [tokeniser.special[END]]
    pairs = []
    for verse in verses:
        source = tokeniser.encode(verse.english)
        target = tokeniser.encode(verse.spanish)
        if len(source) and len(target) and max(len(source), len(target)) <= longest:
            pairs.append(Pair(verse, source, np.concatenate([target, end])))
    return pairs


def minibatch(pairs: Sequence[Pair]) -> Minibatch:
    """Several pairs, padded to the longest."""
    source = _padded([pair.source for pair in pairs], IGNORED)
    valid = source != IGNORED
    return Minibatch(source * valid, valid, _padded([pair.target for pair in pairs], IGNORED))


def _padded(rows, value):
    padded = np.full((len(rows), max(map(len, rows))), value)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def random_minibatch(pairs: Sequence[Pair], rng: Rng, *, batch: int) -> Minibatch:
    """Pairs of similar length, so that little is padding: drawn from the 8 · batch pairs around a
    random one, which lie from short to long."""
    width = min(len(pairs), 8 * batch)
    centre = int(rng.integers(len(pairs)))
    first = min(max(centre - width // 2, 0), len(pairs) - width)
    chosen = rng.choice(width, min(batch, width), replace=False)
    return minibatch([pairs[first + i] for i in chosen])
