"""What the questions of `moe_np.experiments.why_it_works.experiment` have in common: their shape,
and means with spreads.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from moe_np.mixtures import em


class Question(NamedTuple):
    """A question, what is claimed, and how it is answered. All but the words are functions."""

    title: str
    claim: str
    specs: Callable  # (config, quick) -> [spec, ...], each a JSON-able dict without its question
    run: Callable  # (spec) -> JSON-able dict
    summarise: Callable  # (specs, runs) -> JSON-able dict
    rows: Callable  # (summary) -> Markdown table
    verdict: Callable  # (summary) -> (holds: "yes", "no" or "partly", sentences)


def fit_em(rng, x, d, n_experts, restarts):
    """A mixture of linear experts with one σ by EM; a climb that was cut short is taken as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        return em.fit(x, d, n_experts, family=em.Gaussian("shared"), rng=rng, restarts=restarts)


def grouped(specs, runs, *keys):
    """{(spec[key], ...): [runs]} in the order of the specs."""
    out = {}
    for spec, run in zip(specs, runs, strict=True):
        out.setdefault(tuple(spec[k] for k in keys), []).append(run)
    return out


def mean_sd(values):
    """[mean, standard deviation (n − 1)]."""
    values = np.asarray(values, dtype=float)
    return [float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0]


def over(runs, *names):
    """{name: mean_sd over the runs}."""
    return {name: mean_sd([run[name] for run in runs]) for name in names}


def pm(pair, digits=2, times=1):
    return f"{times * pair[0]:.{digits}f} ± {times * pair[1]:.{digits}f}"


def markdown(heads, rows):
    """A table of strings."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def listed(words):
    """The words with commas and an "and" before the last."""
    words = [str(word) for word in words]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def differ(a, b=0.0, level=0.01):
    """Is the mean of a − b other than 0 (paired t-test)? −1, 0 or 1: the sign where p < level,
    otherwise 0.

    Differences that are all the same are tested as signs: eight alike have p < .01.
    """
    from scipy import stats

    difference = np.asarray(a, dtype=float) - b
    if len(difference) < 2:
        return 0
    if difference.std() == 0:
        return int(np.sign(difference[0])) if 0.5 ** (len(difference) - 1) < level else 0
    return int(np.sign(difference.mean())) if stats.ttest_1samp(difference, 0).pvalue < level else 0
