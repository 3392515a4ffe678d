"""Passages of the Bible in English and Spanish, with the part of the Bible as their class.

A passage is some successive verses of one chapter in one language. Its features are counts of its
words: word w counts in column hash(w) (feature hashing, Weinberger et al. 2009), a column has the
logarithm of 1 + its count, and a row has the norm √D. A class is a part of the Bible, so that names
of books say nothing; the language is the cluster, and each passage is there in both.

Whole chapters are held out: by a draw per seed, the same ones in both languages.
"""

import re
import zlib
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from moe_np.base import checks
from moe_np.base.types import ArrayN, ArrayND
from moe_np.data.text import bible
from moe_np.experiments.common.mixture_classifier import Data

PARTS = {  # name: first and last book
    "law": ("Gen", "Deut"),
    "history": ("Josh", "Esth"),
    "wisdom": ("Job", "Song"),
    "major prophets": ("Isa", "Dan"),
    "minor prophets": ("Hos", "Mal"),
    "gospels and Acts": ("Matt", "Acts"),
    "letters of Paul": ("Rom", "Phlm"),
    "other letters": ("Heb", "Jude"),
    "Revelation": ("Rev", "Rev"),
}
LANGUAGES = bible.LANGUAGES


class Passages(NamedTuple):
    """Every passage, first all English ones."""

    x: ArrayND  # (N, D) float32
    part: ArrayN  # a number of PARTS
    language: ArrayN  # 0 English, 1 Spanish
    chapter: ArrayN  # the number of its chapter in the Bible


class Labelled(NamedTuple):
    """Passages of one set."""

    data: Data
    part: ArrayN
    language: ArrayN


class Split(NamedTuple):
    """Passages for training, for choices, and for the final number."""

    train: Labelled
    validation: Labelled
    test: Labelled


def part_of(book: str) -> int:
    """The number of the part of the Bible of a book."""
    place = bible.BOOKS.index(checks.choice("book", book, bible.BOOKS))
    last = [bible.BOOKS.index(end) for _, end in PARTS.values()]
    return int(np.searchsorted(last, place))


@cache
def passages(verses: int, features: int, chapters: int | None = None) -> Passages:
    """All passages of so many verses (a chapter's last may have fewer).

    chapters   only every so many-th chapter, for a short run; None: all
    """
    checks.integer("verses", verses)
    checks.integer("features", features, minimum=2)
    groups = groupby(bible.verses(), key=lambda verse: (verse.book, verse.chapter))
    texts: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    part = []
    chapter = []
    for number, ((book, _), members) in enumerate(groups):
        if chapters is not None and number % chapters:
            continue
        lines = list(members)
        for begin in range(0, len(lines), verses):
            for language, of_language in texts.items():
                passage = lines[begin : begin + verses]
                of_language.append(" ".join(getattr(verse, language) for verse in passage))
            part.append(part_of(book))
            chapter.append(number)
    x = np.concatenate([word_features(of, features) for of in texts.values()])
    language = np.repeat(np.arange(len(LANGUAGES)), len(part))
    return Passages(x, np.tile(part, len(LANGUAGES)), language, np.tile(chapter, len(LANGUAGES)))


def word_features(texts: list[str], features: int) -> ArrayND:
    """(N, features) float32: log(1 + counts) of hashed words, rows of norm √features."""
    x = np.zeros((len(texts), features), np.float32)
    for row, text in zip(x, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[column_of(word, features)] += 1
    x = np.log1p(x)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x * (np.sqrt(features) / np.maximum(norms, 1e-12)).astype(np.float32)


@cache
def column_of(word: str, features: int) -> int:
    """The column in which a word counts; the same on every machine."""
    return zlib.crc32(word.encode("utf-8")) % features


def split(all_passages: Passages, seed: int, *, share: float = 0.2) -> Split:
    """A `share` of the chapters of each part for the test, half as many for choices, by seed."""
    rng = np.random.default_rng([seed, 0])
    held_out = {}
    for part in range(len(PARTS)):
        chapters = rng.permutation(np.unique(all_passages.chapter[all_passages.part == part]))
        n_test = max(1, round(share * len(chapters)))
        n_validation = max(1, round(share / 2 * len(chapters)))
        held_out |= dict.fromkeys(chapters[:n_test].tolist(), 2)
        held_out |= dict.fromkeys(chapters[n_test : n_test + n_validation].tolist(), 1)
    place = np.array([held_out.get(chapter, 0) for chapter in all_passages.chapter.tolist()])
    sets = []
    for number in range(3):
        rows = place == number
        x, part, language, _ = (column[rows] for column in all_passages)
        sets.append(Labelled(Data(x, part), part, language))
    return Split(*sets)
