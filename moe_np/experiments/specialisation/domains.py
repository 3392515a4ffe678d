"""Three domains of text, and what of them a model is trained on and measured on.

    English     the King James Bible, whole books held out
    Spanish     the Reina-Valera of 1909, the same books held out
    chorales    Bach's four-part chorales as lines of notes, whole families of melodies held out

There are ten times as many letters of each Bible as of chorales. Where all three are trained on,
each has the same number of characters: the Bibles from their beginning, the chorales in several
keys.
"""

from collections.abc import Sequence

from moe_np.base import checks
from moe_np.data.music import chorales
from moe_np.data.text import bible
from moe_np.language.corpus import Corpus

DOMAINS = ("English", "Spanish", "chorales")
KEYS = (0, 2, -2, 1, -1, 3, -3, 4, -4)  # semitones, until there are enough characters


def training_text(domain: str, characters: int | None, books: Sequence[str] = ()) -> str:
    """The training text of a domain, up to the line in which it has so many characters.

    characters   None: all there are, of chorales in their own key
    books        of the Bible; () for all that are not held out
    """
    checks.choice("domain", domain, DOMAINS)
    if domain == "chorales":
        grids = [chorale.grid for chorale in chorales.split().train]
        return cut("".join(_in_keys(grids, characters)), characters)
    verses = bible.of_books(books) if books else bible.split().train
    return cut(bible.running_text(verses, domain.lower()), characters)


def held_out_text(domain: str, characters: int) -> str:
    """The held-out text of a domain, cut in the same way."""
    checks.choice("domain", domain, DOMAINS)
    if domain == "chorales":
        grids = [chorale.grid for chorale in chorales.split().validation]
        return cut("\n".join(map(chorales.to_text, grids)), characters)
    return cut(bible.running_text(bible.split().validation, domain.lower()), characters)


def corpus(
    names: Sequence[str], characters: int | None, held_out: int, books: Sequence[str] = ()
) -> Corpus:
    """The training and held-out texts of some domains, one after the other."""
    train = "".join(training_text(name, characters, books) for name in names)
    validation = "".join(held_out_text(name, held_out) for name in names)
    return Corpus(", ".join(names), train, validation)


def cut(text: str, characters: int | None) -> str:
    """The whole lines within the first `characters`; the text itself if it is shorter."""
    if characters is None or len(text) <= characters:
        return text
    end = text.rfind("\n", 0, characters) + 1
    return text[: end or characters]


def _in_keys(grids, characters):
    """The chorales in their own key, and in further keys until there are enough characters."""
    length = 0
    for semitones in KEYS if characters is not None else KEYS[:1]:
        for grid in grids:
            sounding = grid[grid != chorales.REST]
            low, high = sounding.min() + semitones, sounding.max() + semitones
            if low >= chorales.LOWEST and high <= chorales.HIGHEST:
                text = chorales.to_text(chorales.transposed(grid, semitones)) + "\n"
                length += len(text)
                yield text
            if characters is not None and length > characters:
                return
