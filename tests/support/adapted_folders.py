"""Folders with small models, for the tests of `moe-np adapt`."""

import numpy as np

from moe_np.data.text import tokenisers
from moe_np.language import corpus
from moe_np.models import checkpoints, decoder

WORDS = ["the", "cat", "dog", "sat", "on", "mat", "log", "and"]
TEXT = "\n".join(" ".join(np.random.default_rng(n).choice(WORDS, 12)) for n in range(100))
CORPUS = corpus.Corpus("words", TEXT[:4000], TEXT[4000:])
CHANGES = {"batch": 4, "length": 12, "validation_tokens": 60, "learning_rate": 0.02, "warmup": 1}
CONFIG = decoder.Config(
    *(262, 12, 2, 2, 1, 6), experts=4, hidden=8, context=16, tied=True, eps=1e-5
)


def folder_of(path, config=CONFIG, seed=0, vocabulary=262, **options):
    """A model in a folder, with a tokeniser of bytes and pairs of them."""
    path.mkdir(parents=True, exist_ok=True)
    tokeniser = tokenisers.train("byte_pairs", TEXT, vocabulary)
    config = config._replace(vocabulary=tokeniser.size)
    checkpoints.save(path, config, decoder.init(np.random.default_rng(seed), config), **options)
    tokenisers.save(path / "tokeniser.json", tokeniser)
    return path
