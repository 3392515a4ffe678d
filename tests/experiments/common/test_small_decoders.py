"""Further training of small decoders: curves, the optimiser's state, and losses."""

import numpy as np
import pytest

from moe_np.base.params import leaves, map_leaves
from moe_np.experiments.common import small_decoders
from moe_np.models import decoder
from moe_np.training import loop
from tests.support.adapted import SPARSE, ids_of, params_of

OPTIONS = loop.Options(5, 1e-2, warmup=1, weight_decay=0.0)


def further(**options):
    def validation_of(params):
        return decoder.loss(params, ids_of(), ids_of(2), SPARSE).task

    return small_decoders.further(
        params_of(SPARSE),
        small_decoders.ordinary(SPARSE),
        lambda rng: (ids_of(), ids_of(2)),
        validation_of,
        OPTIONS,
        every=2,
        **options,
    )


def test_a_curve_begins_before_training_and_ends_after_the_last_update():
    curve = further()
    assert curve.steps == [0, 2, 4, 5]
    assert len(curve.validation) == len(curve.seconds) == 4 and len(curve.training) == 3
    assert curve.validation[-1] < curve.validation[0]
    assert curve.seconds == sorted(curve.seconds)
    for path, p in leaves(curve.best).items():
        np.testing.assert_array_equal(p, leaves(curve.params)[path])


def test_an_optimiser_that_is_kept_is_not_changed():
    state = loop.initial_state(params_of(SPARSE))
    v = map_leaves(lambda p: np.full_like(p, 1e4), state.optimiser.v)
    kept = state.optimiser._replace(t=100, v=v)
    slow = further(optimiser=kept)  # large running means of squares: small updates
    assert abs(slow.validation[-1] - slow.validation[0]) < 1e-2
    assert all((leaf == 1e4).all() for leaf in leaves(kept.v).values())


def test_the_loss_on_a_text_is_over_all_tokens_but_the_first():
    tokens = ids_of(batch=1, length=40)[0]
    params = params_of(SPARSE)
    whole = small_decoders.loss_on(SPARSE, params, tokens, 39)
    logits, _ = decoder.forward(params, tokens[None, :-1], SPARSE)
    z = logits[0] - logits[0].max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    assert whole == pytest.approx(-log_p[np.arange(39), tokens[1:]].mean())


def test_dense_and_sparse_specs_have_equal_operations():
    sizes = small_decoders.SMOKE
    dense = small_decoders.model_spec(sizes, 0, dense=True)["changes"]
    sparse = small_decoders.model_spec(sizes, 0, updates=7)
    assert dense["experts"] == 1 and dense["hidden"] == 2 * sparse["changes"]["hidden"]
    assert sparse["updates"] == 7 and sparse["changes"]["experts"] == 4
