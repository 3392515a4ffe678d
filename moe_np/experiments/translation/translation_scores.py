"""BLEU and chrF of translations, by `sacrebleu` where it is installed.

    BLEU   Papineni et al. 2002: n-grams of words up to 4, and a penalty for short translations
    chrF   Popović 2015: F score (β = 2) of n-grams of characters up to 6

Both are between 0 and 100, of a whole test set. Scores depend on how a text is cut into words;
sacrebleu (Post 2018) cuts it itself, so that its scores can be compared, and says how in a
signature. It is not a dependency of this package: `pip install sacrebleu`.
"""

import importlib.util
from collections.abc import Sequence


def are_available() -> bool:
    """Whether sacrebleu is installed."""
    return importlib.util.find_spec("sacrebleu") is not None


def corpus_scores(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """{"BLEU", "chrF"} of translations, each beside its one reference; {} without sacrebleu."""
    return {
        name: float(metric.corpus_score(list(translations), [list(references)]).score)
        for name, metric in _metrics().items()
    }


def signatures() -> dict[str, str]:
    """{"BLEU", "chrF"}: how sacrebleu computes them, its version included; {} without it."""
    if not are_available():
        return {}
    described = {}
    for name, metric in _metrics().items():
        metric.corpus_score(["a"], [["a"]])  # the signature has the number of references
        described[name] = str(metric.get_signature())
    return described


def _metrics():
    if not are_available():
        return {}
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"BLEU": BLEU(), "chrF": CHRF()}
