"""The ten vowels of Nowlan and Hinton (1991): formants for the experts, who speaks for the gate.

Peterson and Barney's table (`moe_np.data.speech.vowels`), all ten vowels of 75 of its 76 speakers,
each spoken twice. One repetition trains and the other tests: the paper has a test error with the
speaker's identity as an input, and an identity that was never seen says nothing. `split="speakers"`
tests on people who were never heard instead.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.data.speech.vowels import SPEAKERS, VOWELS, peterson_barney

NAMES = tuple(VOWELS)
FRONT = ("IY", "IH", "EH", "AE")  # tongue forward: heed, hid, head, had
FORMANTS = ("F1 F2", "F1 F2 F3")
CONTEXTS = ("none", "speaker", "m-f-c")
SPLITS = ("repetition", "speakers")
TYPES = "mfc"


class Part(NamedTuple):
    x: np.ndarray  # (N, 2 or 3) formants, mean 0 and variance 1 over the training set
    context: np.ndarray  # (N, 0), (N, 75) or (N, 3), one-hot
    d: np.ndarray  # (N, 10) one-hot
    vowel: np.ndarray  # (N,) index into NAMES
    speaker: np.ndarray  # (N,) 1 to 76
    hertz: np.ndarray  # (N, 2 or 3) the formants as they are


def ten_vowels(*, formants="F1 F2", context="none", split="repetition", drop=1, seed=0):
    """(training Part, test Part), 750 tokens each, or 1000 and 500 with split="speakers".

    formants   which of them the experts see
    context    what else the gate may be told: nothing, which of the 75 speakers, or man, woman or child
    drop       the speaker to leave out: the paper has 32 men, the table 33
    split      "repetition": the first trains, the second tests; "speakers": 50 drawn with `seed` train, 25 test
    Raises InputError for an unknown choice.
    """
    choice("formants", formants, FORMANTS)
    choice("context", context, CONTEXTS)
    choice("split", split, SPLITS)
    table, dropped = peterson_barney(), integer("drop", drop, maximum=SPEAKERS)
    x = np.stack([getattr(table, name) for name in formants.split()], axis=1)
    vowel = np.array([NAMES.index(a) for a in table.arpabet])
    people = np.setdiff1d(np.arange(1, SPEAKERS + 1), dropped)
    if split == "repetition":
        first = table.repetition == 1
    else:
        first = np.isin(
            table.speaker,
            np.random.default_rng(integer("seed", seed, minimum=0)).permutation(people)[:50],
        )
    kept = np.isin(table.speaker, people)
    train, test = first & kept, ~first & kept
    hertz, x = x, (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    told = {
        "none": np.zeros((len(x), 0)),
        "speaker": (table.speaker[:, None] == people).astype(float),
        "m-f-c": (table.type[:, None] == np.array(list(TYPES))).astype(float),
    }[context]
    d = np.eye(len(NAMES))[vowel]
    return tuple(
        Part(x[s], told[s], d[s], vowel[s], table.speaker[s], hertz[s]) for s in (train, test)
    )
