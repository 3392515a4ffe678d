"""The ten vowels of Nowlan and Hinton (1991): formants for the experts, the speaker for the gate.

Peterson and Barney's table (`moe_np.data.speech.vowels`), all ten vowels of 75 of its 76 speakers,
each spoken twice. One repetition trains and the other tests, because the paper has a test error
with the speaker's identity as an input of the gating network, and the identity of a new speaker
carries no information. `split="speakers"` tests on new speakers instead.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.checks import choice, integer
from moe_np.base.types import ArrayN, ArrayNC, ArrayND
from moe_np.data.speech.vowels import SPEAKERS, VOWELS, peterson_barney

NAMES = tuple(VOWELS)
FRONT = ("IY", "IH", "EH", "AE")  # tongue forward: heed, hid, head, had
FORMANTS = ("F1 F2", "F1 F2 F3")
CONTEXTS = ("none", "speaker", "m-f-c")
SPLITS = ("repetition", "speakers")
TYPES = "mfc"


class VowelSet(NamedTuple):
    """The tokens of a training or test set."""

    x: ArrayND  # (N, 2 or 3) formants, mean 0 and variance 1 over the training set
    context: ArrayND  # (N, 0), (N, 75) or (N, 3), one-hot
    d: ArrayNC  # (N, 10) one-hot
    vowel: ArrayN  # index into NAMES
    speaker: ArrayN  # 1 to 76
    hertz: ArrayND  # (N, 2 or 3) the formants in Hz


def ten_vowels(
    *,
    formants: str = "F1 F2",
    context: str = "none",
    split: str = "repetition",
    drop: int = 1,
    seed: int = 0,
) -> tuple[VowelSet, VowelSet]:
    """(training set, test set), 750 tokens each, or 1000 and 500 with split="speakers".

    formants   "F1 F2" or "F1 F2 F3": the inputs of the experts
    context    further input of the gating network: "none"; "speaker", one-hot of 75; "m-f-c", man,
               woman or child
    split      "repetition": the first trains, the second tests; "speakers": 50 speakers drawn with
               `seed` train, 25 test
    drop       the speaker to leave out: the paper has 32 men, the table 33

    Raises InputError for an unknown choice.
    """
    choice("formants", formants, FORMANTS)
    choice("context", context, CONTEXTS)
    choice("split", split, SPLITS)
    table = peterson_barney()
    dropped = integer("drop", drop, maximum=SPEAKERS)
    hertz = np.stack([getattr(table, name) for name in formants.split()], axis=1)
    vowel = np.array([NAMES.index(a) for a in table.arpabet])
    speakers = np.setdiff1d(np.arange(1, SPEAKERS + 1), dropped)
    if split == "repetition":
        first = table.repetition == 1
    else:
        rng = np.random.default_rng(integer("seed", seed, minimum=0))
        first = np.isin(table.speaker, rng.permutation(speakers)[:50])
    kept = np.isin(table.speaker, speakers)
    train = first & kept
    test = ~first & kept
    x = (hertz - hertz[train].mean(axis=0)) / hertz[train].std(axis=0)
    z = {
        "none": np.zeros((len(x), 0)),
        "speaker": (table.speaker[:, None] == speakers).astype(float),
        "m-f-c": (table.type[:, None] == np.array(list(TYPES))).astype(float),
    }[context]
    d = np.eye(len(NAMES))[vowel]
    train_set, test_set = (
        VowelSet(x[s], z[s], d[s], vowel[s], table.speaker[s], hertz[s]) for s in (train, test)
    )
    return train_set, test_set
