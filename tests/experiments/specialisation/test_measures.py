"""The measures of a run, by layer, on routings that are known."""

import numpy as np
import pytest

from moe_np.experiments.specialisation import measures
from moe_np.experiments.specialisation.snapshots import Routings, Trained
from moe_np.models import decoder

CONFIG = decoder.Config(
    vocabulary=6, d_model=8, layers=2, heads=2, kv_heads=1, d_head=4, experts=4, hidden=4
)


def routings(n=400):
    """Layer 0 goes by the token, layer 1 by the next one; the second choice is the one after."""
    tokens = np.random.default_rng(0).integers(4, size=n + 1)
    first = np.stack([tokens[:-1], tokens[1:]])
    choice = np.stack([first, (first + 1) % 4], axis=2)
    return Routings(tokens[:-1], tokens[1:], tokens[:-1], choice, np.full(choice.shape, 0.5))


def rng():
    return np.random.default_rng(0)


def test_vocabulary_specialisation_tells_input_from_next():
    got = measures.vocabulary(routings(), CONFIG, rng(), minimum=10)
    assert got["input"][0]["value"] == got["next"][1]["value"] == 1
    assert got["predicted"][0]["value"] == 1
    for mixed in (got["input"][1], got["next"][0]):
        assert mixed["value"] == pytest.approx(mixed["permuted"], abs=0.05)


def test_co_activation_of_fixed_partners():
    """Each expert with the next and the one before it, half of its tokens each."""
    got = measures.co_activation(routings().choice[0], 4, rng())
    assert got["value"] == pytest.approx(0.5, abs=0.1)
    assert got["permuted"] == pytest.approx(0.4, abs=0.1)


def test_repetition_has_both_kinds_per_layer():
    got = measures.repetition(routings(), 4, rng())
    assert [len(rows) for rows in got.values()] == [2, 2]
    assert got["first"][0]["uniform"] == pytest.approx(1 / 4)
    assert got["first or second"][0]["uniform"] == pytest.approx(1 - 1 / 6)
    of_layer = got["first"][0]  # where the expert is the token's
    assert of_layer["by_tokens"] == pytest.approx(of_layer["value"])


def test_saturation_joins_the_domains():
    choice = routings(40).choice
    turned = (choice + 2) % 4
    choices = {
        10: {"English": choice, "Spanish": turned},
        20: {"English": choice, "Spanish": choice},
    }
    texts = {"English": np.zeros(41), "Spanish": np.zeros(41)}
    got = measures.saturation(Trained(None, None, texts, choices), 4, rng())
    assert got["steps"] == [10, 20]
    assert got["values"] == [[0.5, 0.5], [1.0, 1.0]]


def test_measures_over_checkpoints():
    """Layer 0 goes by the input, layer 1 by the next token, at the first checkpoint the other way
    round; both domains are the same text, so no expert is a specialist of one.
    """
    r = routings()
    tokens = np.append(r.ids, r.following[-1])
    texts = {"English": tokens, "Spanish": tokens}
    choices = {10: dict.fromkeys(texts, r.choice[::-1]), 20: dict.fromkeys(texts, r.choice)}
    got = measures.over_checkpoints(Trained(None, None, texts, choices), CONFIG, rng(), minimum=9)
    assert got["steps"] == [10, 20]
    values = {
        name: [[layer["value"] for layer in row] for row in got[name]]
        for name in ("input token", "next token")
    }
    assert values["input token"][0][1] == values["input token"][1][0] == 1
    assert values["next token"][0][0] == values["next token"][1][1] == 1
    assert max(values["input token"][0][0], values["next token"][1][0]) < 0.5
    assert got["co-activation"][0][0]["value"] == got["co-activation"][1][1]["value"]
    for layer in got["domain"][1]:
        assert layer["value"] == pytest.approx(layer["permuted"], abs=0.03)
    english = Trained(None, None, {"English": tokens}, {10: {"English": r.choice}})
    assert "domain" not in measures.over_checkpoints(english, CONFIG, rng(), minimum=9)


def test_domains_by_the_vocabulary_alone():
    """Two domains with two tokens each; layer 0 goes by the token, so all of it is explained."""
    ids = np.tile([0, 1], 100)
    parts = {
        name: Routings(ids + low, ids, ids, np.stack([ids + low])[..., None], np.ones((1, 200, 1)))
        for name, low in (("English", 0), ("Spanish", 2))
    }
    (layer,) = measures.domain_measures(parts, CONFIG, rng())
    assert layer["shares"] == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert layer["value"] == layer["by_words"] == 0.5
    assert layer["permuted"] < 0.35


def test_top_tokens_with_their_texts():
    got = measures.top_tokens(routings(), CONFIG, "abcdef".__getitem__, rng(), minimum=10, n=1)
    (first, second) = got["layers"]
    assert [tokens[0][:2] for tokens in first["experts"]] == [[t, 1.0] for t in "abcd"]
    assert first["share"] == 1 and first["permuted"] < 0.4
    assert second["share"] < 0.4
