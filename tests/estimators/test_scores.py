"""`log_score` of estimators and of pipelines that end with one."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moe_np.estimators import MixtureOfExpertsRegressor, log_score
from tests.support.mixtures import random_data


def test_a_pipeline_transforms_what_it_scores():
    x, y = random_data("shared")
    y = y[:, 0]
    model = MixtureOfExpertsRegressor(2, restarts=1, random_state=0, tol=1e-2)
    score = log_score(make_pipeline(StandardScaler(), model).fit(x, y), x, y)
    scaled = StandardScaler().fit_transform(x)
    assert score == pytest.approx(np.mean(model.fit(scaled, y).log_density(scaled, y)))
    assert log_score(make_pipeline(model).fit(x, y), x, y) == log_score(model.fit(x, y), x, y)
