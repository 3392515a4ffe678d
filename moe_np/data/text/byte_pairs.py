"""Byte-level byte-pair encoding (BPE): the tokeniser of GPT-2.

P. Gage 1994, A new algorithm for data compression, C Users Journal 12(2):23-38; R. Sennrich,
B. Haddow and A. Birch 2016, Neural machine translation of rare words with subword units, ACL,
section 3.2; A. Radford et al. 2019, Language models are unsupervised multitask learners (GPT-2),
section 2.2, for bytes in the place of characters.

    pieces     the text is divided by GPT-2's pattern; the space before a word belongs to the word
    training   the pair of neighbouring tokens that is most frequent within pieces becomes a token,
               again and again, as long as a pair occurs twice. Ties: the pair with the smaller ids
    encoding   within a piece the pair that was learnt first is merged, the left one first
    ids        0 to 255 are the bytes, in GPT-2's order (printable ones first, "!" is 0), then the
               merges in the order of learning, then the special tokens

So merges and ids are those of the library `tokenizers` (ByteLevel, `min_frequency=2`), which
tests/parity/test_tokenisers.py holds on the shipped text. Every text without lone surrogates comes
back exactly; nothing is normalised. A prompt should not end in a space: the space belongs to the
next word, and alone it is a token that hardly occurred in training.
"""

import collections
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from moe_np.base.checks import integer
from moe_np.base.types import ArrayN
from moe_np.data.text import entrance
from moe_np.data.text.pieces import pieces

# the 256 bytes in GPT-2's order: those that are printable in Latin-1, then the rest
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = (*PRINTABLE, *(byte for byte in range(256) if byte not in PRINTABLE))
ID_OF_BYTE = bytes(BYTES.index(byte) for byte in range(256))  # for bytes.translate
REMEMBERED = 1 << 16  # pieces whose ids are kept
REMEMBERED_LENGTH = 64  # bytes of the longest of them

Pair = tuple[int, int]


class BytePairs:
    """A trained byte-pair encoding.

    merges     (left id, right id) of each learnt token; merge i makes the id 256 + i
    special    {name: id} of the special tokens, which `encode` never gives and which decode to ""
    size       of the vocabulary
    """

    kind = "byte_pairs"

    def __init__(self, merges: Iterable[Pair], special: Sequence[str] = ()) -> None:
        self.merges = entrance.merges("merges", merges)
        self.special = entrance.special("special", special, 256 + len(self.merges))
        self.size = 256 + len(self.merges) + len(self.special)
        self._tokens = [bytes([byte]) for byte in BYTES]
        for left, right in self.merges:
            self._tokens.append(self._tokens[left] + self._tokens[right])
        self._tokens += [b""] * len(self.special)
        self._rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self._memory: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> ArrayN:
        """`text` -> ids. Raises InputError for what is no text, and for a lone surrogate."""
        parts = pieces(entrance.text("text", text))
        known = {piece: self._ids(piece) for piece in set(parts)}
        ids = itertools.chain.from_iterable(map(known.__getitem__, parts))
        return np.fromiter(ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text. Bytes that are no UTF-8 become U+FFFD. Raises InputError for a wrong id."""
        ids = entrance.ids("ids", ids, self.size)
        return b"".join(map(self._tokens.__getitem__, ids)).decode("utf-8", "replace")

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of `decode` in parts, one per id as it comes, and a last one for what is left.

        A part is empty while a character lacks bytes. Raises InputError for a wrong id.
        """
        return entrance.stream_of_bytes(ids, self._tokens)

    def to_dict(self) -> dict[str, Any]:
        """All that makes this tokeniser, for JSON."""
        merges = [list(pair) for pair in self.merges]
        return {"kind": self.kind, "merges": merges, "special": list(self.special)}

    def _ids(self, piece):
        ids = self._memory.get(piece)
        if ids is None:
            raw = piece.encode("utf-8")
            ids = tuple(merged(raw.translate(ID_OF_BYTE), self._rank))
            if len(raw) <= REMEMBERED_LENGTH and len(self._memory) < REMEMBERED:
                self._memory[piece] = ids
        return ids


def merged(ids: Sequence[int], rank: Mapping[Pair, int]) -> list[int]:
    """One piece with all its merges: the pair of the lowest rank first, the left one first.

    A heap of the pairs and a chain of the tokens: n log n for a piece of n bytes.
    """
    tokens = list(ids)
    heap = [(rank[pair], i) for i, pair in enumerate(itertools.pairwise(tokens)) if pair in rank]
    if not heap:
        return tokens
    end = len(tokens)
    heapq.heapify(heap)
    after = list(range(1, end + 1))
    before = list(range(-1, end - 1))
    while heap:
        order, i = heapq.heappop(heap)
        j = after[i]
        if j == end or rank.get((tokens[i], tokens[j])) != order:
            continue  # one of the two was merged in the meantime
        tokens[i] = 256 + order
        tokens[j] = -1
        after[i] = after[j]
        for left, right in ((before[i], i), (i, after[i])):
            if left >= 0 and right < end:
                before[right] = left
                if (order := rank.get((tokens[left], tokens[right]))) is not None:
                    heapq.heappush(heap, (order, left))
    return [token for token in tokens if token >= 0]


# --- training -------------------------------------------------------------------------------------


def train(text: str, size: int, special: Sequence[str] = ()) -> BytePairs:
    """Learn a vocabulary of `size` ids, 256 bytes and the special tokens among them.

    It is smaller if no pair occurs twice any more. Raises InputError for a size that has no place
    for the bytes and the special tokens, and for a lone surrogate.
    """
    counts = collections.Counter(pieces(entrance.text("text", text)))
    special = tuple(entrance.special("special", special, 256))
    size = integer("size", size, minimum=256 + len(special))
    words = [list(piece.encode("utf-8").translate(ID_OF_BYTE)) for piece in counts]
    merges = learnt_merges(words, list(counts.values()), size - 256 - len(special))
    return BytePairs(merges, special)


def learnt_merges(words: list[list[int]], counts: Sequence[int], number: int) -> list[Pair]:
    """At most `number` merges, of words with their counts. The lists of `words` are changed.

    The heap has a pair with every count that it once had or more; a count that is out of date is
    put right when it comes to the top, which is correct because counts of old pairs only fall.
    """
    frequency: collections.Counter[Pair] = collections.Counter()
    places: dict[Pair, set[int]] = collections.defaultdict(set)  # words in which a pair occurs
    for i, word in enumerate(words):
        for pair in itertools.pairwise(word):
            frequency[pair] += counts[i]
            places[pair].add(i)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < number:
        count, pair = heapq.heappop(heap)
        if -count != frequency[pair]:
            heapq.heappush(heap, (-frequency[pair], pair))
            continue
        if -count < 2:
            break
        token = 256 + len(merges)
        merges.append(pair)
        fresh = set()
        for i in places.pop(pair):
            changes = merge_in_word(words[i], pair, token)
            for changed, times in changes:
                frequency[changed] += times * counts[i]
                if times > 0:
                    places[changed].add(i)
                    fresh.add(changed)
        for changed in fresh:
            heapq.heappush(heap, (-frequency[changed], changed))
    return merges


def merge_in_word(word: list[int], pair: Pair, token: int) -> list[tuple[Pair, int]]:
    """Put `token` in the place of `pair` in a word; return (pair, +1 or -1) of what changed."""
    left, right = pair
    changes = []
    i = 0
    while i < len(word) - 1:
        if word[i] == left and word[i + 1] == right:
            if i > 0:
                changes += [((word[i - 1], left), -1), ((word[i - 1], token), 1)]
            if i + 2 < len(word):
                changes += [((right, word[i + 2]), -1), ((token, word[i + 2]), 1)]
            changes.append((pair, -1))
            word[i : i + 2] = [token]
        i += 1
    return changes
