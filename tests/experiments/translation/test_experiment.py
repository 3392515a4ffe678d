"""Translation: equal operations, losses and translations that fit each other, scores that come
later, and words that follow the numbers."""

import numpy as np
import pytest

from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.translation import experiment, runs, translation_scores, verse_pairs
from moe_np.experiments.translation.report import (
    floor_sentence,
    loss_sentence,
    report,
    systems_table,
)
from moe_np.layers import cross_entropy
from moe_np.models.translation import shift_right

SMOKE = experiment.SMOKE["config"]
NAMES = ("BLEU", "chrF")


@pytest.fixture(scope="module")
def result(smoke_sweep):
    with smoke_sweep("translation") as sweep:
        return experiment.run(SMOKE, sweep=sweep), sweep.store


def translator_of(system):
    spec = runs.spec_of(SMOKE, system, 0)["model"]
    corpus = verse_pairs.corpus(**spec["data"])
    translator = runs.Translator(spec, corpus)
    params = translator.module.init(np.random.default_rng(0), translator.config)
    return translator, params, corpus


def test_active_parameters_are_equal_but_for_the_gates(result):
    """And for the second biases of the experts of the LSTM model."""
    summary = result[0]["summary"]
    D = SMOKE.d_model
    gate = 2 * D * 16
    added = (runs.ACTIVE[runs.LSTM_EXPERTS] - 1) * D
    dense = summary[runs.LSTM_DENSE]
    assert summary[runs.LSTM_EXPERTS]["active"] == dense["active"] + 2 * (gate + added)
    assert dense["active"] == dense["parameters"]
    dense = summary[runs.DENSE]
    gates = 2 * D * 8  # one layer of two, in encoder and decoder
    assert summary[runs.SWITCH]["active"] == dense["active"] + gates
    added = 2 * 7 * 2 * D * SMOKE.hidden
    assert summary[runs.SWITCH]["parameters"] == dense["parameters"] + gates + added


@pytest.mark.parametrize("system", runs.SYSTEMS)
def test_the_loss_does_not_depend_on_the_padding(system):
    translator, params, corpus = translator_of(system)
    together = translator.nats(params, corpus.test, 4)
    apart = [translator.nats(params, corpus.test[i : i + 1], 1) for i in range(4)]
    assert together[0] == pytest.approx(sum(nats for nats, _ in apart), rel=1e-5)
    assert together[1] == sum(tokens for _, tokens in apart)
    assert together[1] == sum(len(pair.target) for pair in corpus.test)


@pytest.mark.parametrize("system", runs.SYSTEMS)
def test_a_greedy_translation_has_the_most_probable_token_at_every_position(system):
    translator, params, corpus = translator_of(system)
    written = translator.greedy(params, corpus.test, 4)
    assert len(written) == 4
    for pair, tokens in zip(corpus.test, written, strict=True):
        assert len(tokens) <= SMOKE.longest and translator.end not in tokens
        whole = np.array([*tokens, translator.end])[: SMOKE.longest]
        inputs = shift_right(whole[None], translator.start)
        logits, _ = translator.module.forward(params, pair.source[None], inputs, translator.config)
        np.testing.assert_array_equal(logits[0].argmax(axis=1), whole)


def test_the_training_has_the_losses_of_the_model():
    translator, params, corpus = translator_of(runs.LSTM_EXPERTS)
    spec = runs.spec_of(SMOKE, runs.LSTM_EXPERTS, 0)["model"]
    training = runs.training_of(spec)
    minibatch = training.minibatch_of(np.random.default_rng(1))
    losses, grads = training.gradients_of(params, minibatch, np.random.default_rng(2))
    assert losses.task == pytest.approx(np.log(400), rel=0.3)
    nats, tokens = translator.nats(params, corpus.validation, 2)
    assert training.validation_loss(params) == pytest.approx(nats / tokens, rel=1e-6)
    assert set(grads) == {"encoder", "decoder"}


def test_scores_come_later_from_the_stored_runs(result, monkeypatch):
    """The runs have the texts, so that scores need no run when sacrebleu is installed."""
    numbers, store = result
    monkeypatch.setattr(translation_scores, "corpus_scores", lambda a, b: {"BLEU": 1.0, "chrF": 2})
    monkeypatch.setattr(runs.trained_tree, "trained", None)
    with Sweep(store, jobs=1, progress=False) as sweep:
        scored = experiment.run(SMOKE, sweep=sweep)
    assert scored["summary"][runs.SWITCH]["chrF"]["mean"] == 2
    assert scored["against_dense"][runs.SWITCH]["BLEU"]["estimate"] == 0
    assert "| 1.0 ± 0.0 | 2.0 ± 0.0 |" in systems_table(scored)
    assert [r["test_loss"] for r in scored["runs"]] == [r["test_loss"] for r in numbers["runs"]]


def test_without_sacrebleu_there_are_no_scores(result, monkeypatch):
    monkeypatch.setattr(translation_scores, "are_available", lambda: False)
    assert translation_scores.corpus_scores(["a"], ["a"]) == {}
    assert translation_scores.signatures() == {}
    text = report({**result[0], "signatures": {}})
    assert "sacrebleu is not installed" in text


def test_scores_of_sacrebleu():
    pytest.importorskip("sacrebleu")
    verse = "En el principio crió Dios los cielos y la tierra."
    assert translation_scores.corpus_scores([verse], [verse]) == pytest.approx(
        {"BLEU": 100.0, "chrF": 100.0}
    )
    english = "In the beginning God created the heaven and the earth."
    scores = translation_scores.corpus_scores([english], [verse])
    assert all(0 <= scores[name] < 30 for name in NAMES)
    assert all("version" in text for text in translation_scores.signatures().values())


def test_the_words_follow_the_numbers(result):
    text = report(result[0])
    assert "40.56" in text and "cannot be compared" in text
    assert "Reina-Valera 1909" in text
    better = {"estimate": -0.2, "low": -0.3, "high": -0.1}
    worse = {"estimate": 0.2, "low": 0.1, "high": 0.3}
    neither = {"estimate": 0.0, "low": -0.1, "high": 0.1}
    unknown = {"estimate": 0.0, "low": None, "high": None}
    ours = {"test_loss": better, "BLEU": worse, "chrF": neither}
    assert "better, and BLEU agrees, chrF cannot tell." in loss_sentence(runs.SWITCH, ours)
    ours = {"test_loss": worse, "BLEU": worse, "chrF": better}
    assert "worse, and chrF agrees, BLEU cannot tell." in loss_sentence(runs.SWITCH, ours)
    assert "it is better." in loss_sentence(runs.SWITCH, {"test_loss": better})
    assert "no difference" in loss_sentence(runs.SWITCH, {"test_loss": neither})
    assert "one seed" in loss_sentence(runs.SWITCH, {"test_loss": unknown})


def test_systems_below_the_floor_are_named():
    def sentence(**scores):
        summary = {name: {"chrF": {"mean": score, "sd": None}} for name, score in scores.items()}
        return floor_sentence(
            {"floors": {"another Spanish verse": {"chrF": 20.0}}, "summary": summary}
        )

    assert sentence(a=21.0, b=30.0) == "All systems are above the chrF of another verse, 20.0."
    assert sentence(a=21.0, b=9.26).startswith("b (9.3) is below the chrF of another verse, 20.0:")
    assert sentence(a=1.0, b=2.0).startswith("a (1.0) and b (2.0) are below")
    assert floor_sentence({"floors": {"another Spanish verse": {}}, "summary": {"a": {}}}) == ""


def test_the_loss_is_the_mean_over_targets():
    translator, params, corpus = translator_of(runs.SWITCH)
    source, valid, targets = verse_pairs.minibatch(corpus.test)
    inputs = shift_right(targets, translator.start)
    logits, _ = translator.module.forward(
        params, source, inputs, translator.config, source_valid=valid, valid=targets >= 0
    )
    loss, _ = cross_entropy.forward(logits.reshape(-1, logits.shape[-1]), targets.ravel())
    nats, tokens = translator.nats(params, corpus.test, 4)
    assert nats / tokens == pytest.approx(float(loss), rel=1e-6)
