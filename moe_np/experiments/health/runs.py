"""The runs of the health experiment: one method on one fold of one data set.

Seed s holds out fold s mod 5 of the random split number s // 5. Five seeds therefore hold out every
case once; their training sets overlap. A method's options are chosen by cross-validation within the
training set, all by the same score: log P(y | x). A regression that predicts one number alone gets
a Gaussian, with the standard deviation of its cross-validated errors.
"""

import dataclasses
import warnings
from typing import Any

import numpy as np

from moe_np.experiments.common.dense_and_mixture import taken_up
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.common.statistics import describe
from moe_np.experiments.health import calibration, methods
from moe_np.experiments.health.methods import CANCER, DATA, INNER, METHODS, MIXTURE, TREE

SYSTEMS = tuple(f"{data}: {method}" for data in DATA for method in METHODS)
PAPER: dict[str, Any] = {}  # published numbers are of other splits of the data
FOLDS = 5
LEVEL = 0.9  # of the intervals whose coverage is counted
LOSS = "loss"  # −log P(y | x), nats per case
MEASURES = {CANCER: ("right", LOSS, "Brier"), methods.DIABETES: ("R2", LOSS, "coverage", "width")}


@dataclasses.dataclass(frozen=True)
class Config:
    """All values are ours."""

    cases: int | None = None  # of each data set; None: all
    restarts: int = 6  # of EM
    max_iter: int = 1000  # of EM
    choose: bool = True  # whether options are chosen; otherwise the first of each
    seeds: int = 5


def spec_of(config: Config, system: str, seed: int) -> Spec:
    """One system from one seed."""
    data, method = system.split(": ")
    values = dataclasses.asdict(config)
    del values["seeds"]
    return {"system": system, "data": data, "method": method, "seed": seed, **values}


def run_one(spec: Spec) -> Result:
    """Fit one method without one fold, and measure it on that fold."""
    x, y = methods.table(spec["data"])
    x, y = x[: spec["cases"]], y[: spec["cases"]]
    held_out = fold(len(y), spec["seed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that did not converge: they score worse
        model = fitted(spec, x[~held_out], y[~held_out])
        measure = _classes if spec["data"] == CANCER else _numbers
        result = measure(model, (x[~held_out], y[~held_out]), (x[held_out], y[held_out]))
    return {
        "system": spec["system"],
        "seed": spec["seed"],
        "options": {name: _plain(value) for name, value in model.best_params_.items()},
        "parameters": methods.parameters(model.best_estimator_[-1]),
        **result,
        **_experts(spec, model.best_estimator_, x[held_out], y[held_out]),
    }


def fold(N: int, seed: int) -> np.ndarray:
    """(N,), True at the cases that this seed holds out."""
    order = np.random.default_rng([seed // FOLDS, 0]).permutation(N)
    held_out = np.zeros(N, bool)
    held_out[order[seed % FOLDS :: FOLDS]] = True
    return held_out


def fitted(spec: Spec, x: Any, y: Any) -> Any:
    """A GridSearchCV that has chosen the options of a method and fitted it."""
    from sklearn.model_selection import GridSearchCV, KFold

    em = {name: spec[name] for name in ("restarts", "max_iter")}
    model, grid = methods.estimator(spec["data"], spec["method"], spec["seed"], em)
    if not spec["choose"]:
        grid = {name: values[:1] for name, values in grid.items()}
    scoring = "neg_log_loss" if spec["data"] == CANCER else log_score
    inner = KFold(INNER, shuffle=True, random_state=spec["seed"])
    return GridSearchCV(model, grid, scoring=scoring, cv=inner).fit(x, y)


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


# --- breast cancer --------------------------------------------------------------------------------


def _classes(model, train, test):
    x, y = test
    p = model.predict_proba(x)[:, 1]
    kept = np.clip(p, 1e-12, 1 - 1e-12)
    return {
        "right": 100 * float(((p > 0.5) == y).mean()),
        LOSS: float(-np.log(np.where(y == 1, kept, 1 - kept)).mean()),
        "Brier": calibration.brier(p, y),
        "p": p.tolist(),
        "y": y.tolist(),
    }


# --- diabetes -------------------------------------------------------------------------------------


def log_score(model: Any, x: Any, y: Any) -> float:
    """The mean log P(y | x); of one number alone by a Gaussian with the errors' own deviation."""
    density = density_of(model, x, None)
    if density is None:
        return float(-0.5 * np.log(2 * np.pi * np.e * np.mean((model.predict(x) - y) ** 2)))
    return float(density.log_density(y).mean())


def density_of(model: Any, x: Any, deviation: float | None) -> Any:
    """The predicted distribution of each case; None for one that needs a deviation and has none."""
    from moe_np.estimators import PredictedDensity

    last = model[-1]
    if hasattr(last, "predict_distribution"):
        return last.predict_distribution(model[:-1].transform(x))
    if deviation is None:
        return None
    means = np.asarray(model.predict(x))[:, None, None]
    return PredictedDensity(np.ones((len(means), 1)), means, np.full((1, 1, 1), deviation**2), ())


def _numbers(model, train, test):
    from sklearn.model_selection import cross_val_predict

    x, y = test
    best = model.best_estimator_
    deviation = None
    if not hasattr(best[-1], "predict_distribution"):
        errors = train[1] - cross_val_predict(best, *train, cv=INNER)
        deviation = float(np.sqrt(np.mean(errors**2)))
    density = density_of(best, x, deviation)
    low, high = density.interval(LEVEL)
    return {
        "R2": float(1 - np.mean((density.mean() - y) ** 2) / np.var(y)),
        LOSS: float(-density.log_density(y).mean()),
        "coverage": 100 * float(((low <= y) & (y <= high)).mean()),
        "width": float((high - low).mean()),
        "P(Y <= y)": density.cdf(y).tolist(),
    }


# --- experts --------------------------------------------------------------------------------------


def _experts(spec, model, x, y):
    """How much the expert with the largest mixture weight tells of the target (above the median,
    or not), and how large that weight is.
    """
    if spec["method"] not in (MIXTURE, TREE):
        return {}
    weight = model[-1].mixture_weights(model[:-1].transform(x))
    label = (y > np.median(y)).astype(int) if spec["data"] != CANCER else np.asarray(y)
    rng = np.random.default_rng([spec["seed"], 3])
    return {
        "taken": taken_up(weight.argmax(axis=1), label, rng),
        "largest weight": float(weight.max(axis=1).mean()),
        "loads": weight.mean(axis=0).tolist(),
    }


# --- over seeds -----------------------------------------------------------------------------------


def summarise(runs: list[Result]) -> Result:
    """Means over the seeds of one system, and the calibration of all held-out cases together."""
    data = runs[0]["system"].split(": ")[0]
    names = (*MEASURES[data], *(n for n in ("taken", "largest weight") if n in runs[0]))
    summary = {n: describe([run[n] for run in runs]).record("mean", "sd") for n in names}
    summary["parameters"] = runs[0]["parameters"]
    if data == CANCER:
        p, y = (np.concatenate([run[name] for run in runs]) for name in ("p", "y"))
        bins = calibration.reliability(p, y)
        summary["reliability"] = [column.tolist() for column in bins]
        summary["ECE"] = calibration.ece(*bins)
        chance = calibration.ece_by_chance(p, np.random.default_rng(0))
        summary["ECE if right"] = chance
    else:
        values = np.concatenate([run["P(Y <= y)"] for run in runs])
        shares = [float((values <= level).mean()) for level in np.linspace(0.1, 0.9, 9)]
        summary["below quantile"] = shares
    return summary
