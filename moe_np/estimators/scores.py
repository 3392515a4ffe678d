"""`log_score`: a scoring function for cross-validation that judges the whole distribution.

The score is the mean over the cases of log P(y | x), in nats per case; larger is better. R² and
accuracy judge a single prediction, so they cannot tell whether a second mode or the width of a
distribution is right.
"""

from typing import Any

from sklearn.pipeline import Pipeline


def log_score(estimator: Any, X: Any, y: Any) -> float:
    """The mean of log P(y | x): for the argument `scoring` of cross-validation and grid search.

    estimator    one of the four estimators, or a pipeline that ends with one

    A pipeline may transform X; the units of y are those of the estimator.
    """
    if isinstance(estimator, Pipeline):
        if len(estimator) > 1:
            X = estimator[:-1].transform(X)
        estimator = estimator[-1]
    return float(estimator.log_density(X, y).mean())
