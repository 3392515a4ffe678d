"""The cosine gate."""

import numpy as np

from moe_np.routing import cosine
from tests.support.routers import Case

CASES = {"cosine": Case(cosine, cosine.EXAMPLE, linear=False)}


def test_cosine_does_not_depend_on_the_length_of_a_token():
    rng = np.random.default_rng(0)
    params, x = cosine.init(rng, 3, 4), rng.normal(size=(5, 3))
    short, long = (cosine.route(params, factor * x)[0] for factor in (1, 7))
    np.testing.assert_allclose(long.weight, short.weight, rtol=1e-12)
