"""English to Spanish: all systems from all seeds, their scores, and the comparisons by seed.

Criterion, fixed before the runs, for each of the two pairs (LSTM, transformer): experts translate
*better* where the 95 % t interval of the paired difference of test loss per token, experts less
dense, lies below 0. BLEU and chrF are said to agree where their intervals lie above 0. The
intervals are not corrected for their number.

Two floors stand beside the scores: the English verse itself as its translation, and a verse of the
test books that is not its own.
"""

from typing import Any

from moe_np.experiments.common import pretrained, system_runs
from moe_np.experiments.common.experiment import Option, Result, Spec
from moe_np.experiments.common.statistics import paired_interval
from moe_np.experiments.common.sweep import Sweep
from moe_np.experiments.translation import translation_scores, verse_pairs
from moe_np.experiments.translation.runs import (
    COUNTERPARTS,
    PAPER,
    SYSTEMS,
    Config,
    run_one,
    spec_of,
    summarise,
)

OPTIONS: tuple[Option, ...] = ()
SMOKE = {
    "config": Config(
        d_model=8,
        lstm_hidden=8,
        expert_hidden=4,
        heads=2,
        hidden=8,
        vocabulary=400,
        longest=40,
        batch=4,
        updates=4,
        checkpoint_every=2,
        books=("1John", "2John"),
        held_out=4,
        seeds=2,
    )
}
QUICK = Config(updates=60, checkpoint_every=20, held_out=32, seeds=1)


def specs(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    quick: bool = False,
) -> list[Spec]:
    """One spec per system and seed."""
    config = config or (QUICK if quick else Config())
    return system_runs.specs_of(spec_of, config, SYSTEMS, seeds=seeds, only=only)


def run(
    config: Config | None = None,
    *,
    seeds: int | None = None,
    only: tuple | None = None,
    sweep: Sweep,
    quick: bool = False,
) -> Result:
    """All systems and seeds (3; 1 if quick): what is written as translation.json."""
    config = config or (QUICK if quick else Config())
    chosen = specs(config, seeds=seeds, only=only)
    with pretrained.stored_with(sweep):
        runs = sweep.map(run_one, chosen, "translation models")
    corpus = verse_pairs.corpus(**chosen[0]["model"]["data"])
    references = [pair.verse.spanish for pair in corpus.test]
    scored = [with_scores(run, references) for run in runs]
    by_system = system_runs.by_system(scored, SYSTEMS, only)
    return system_runs.result_of(
        "translation",
        config,
        scored,
        {system: summarise(of_system) for system, of_system in by_system.items()},
        PAPER,
        pairs={"train": len(corpus.train), "test": len(corpus.test), "kept": corpus.kept},
        against_dense=against_dense(by_system),
        floors=floors(corpus),
        signatures=translation_scores.signatures(),
        shown=shown(corpus, runs),
    )


def with_scores(run: Result, references: list[str]) -> Result:
    """A run with its BLEU and chrF, as far as they can be computed, in place of its texts."""
    numbers = {name: value for name, value in run.items() if name != "translations"}
    return {**numbers, "scores": translation_scores.corpus_scores(run["translations"], references)}


def floors(corpus: verse_pairs.Corpus) -> dict[str, dict[str, float]]:
    """The scores of two things that are no translation."""
    references = [pair.verse.spanish for pair in corpus.test]
    english = [pair.verse.english for pair in corpus.test]
    shifted = references[1:] + references[:1]
    return {
        "the English verse": translation_scores.corpus_scores(english, references),
        "another Spanish verse": translation_scores.corpus_scores(shifted, references),
    }


def against_dense(by_system: dict[str, list[Result]]) -> dict[str, dict]:
    """{system with experts: its differences to its dense counterpart, seed by seed}."""
    compared: dict[str, dict] = {}
    for system, dense in COUNTERPARTS.items():
        if not (system in by_system and dense in by_system):
            continue
        pair: tuple[Any, Any] = (by_system[system], by_system[dense])
        losses = [[run["test_loss"] for run in runs] for runs in pair]
        compared[system] = {"test_loss": paired_interval(*losses).record()}
        for name in pair[0][0]["scores"]:
            values = [[run["scores"][name] for run in runs] for runs in pair]
            compared[system][name] = paired_interval(*values).record()
    return compared


def shown(corpus: verse_pairs.Corpus, runs: list[Result]) -> list[dict]:
    """The first test verses, which are those of `verse_pairs.SHOWN`, with the first seed's
    translations by each system."""
    first = [run for run in runs if run["seed"] == runs[0]["seed"]]
    return [
        {
            "verse": f"{pair.verse.book} {pair.verse.chapter}:{pair.verse.number}",
            "english": pair.verse.english,
            "spanish": pair.verse.spanish,
            "translations": {run["system"]: run["translations"][i] for run in first},
        }
        for i, pair in enumerate(corpus.test[: len(verse_pairs.SHOWN)])
    ]
