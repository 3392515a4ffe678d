"""The stages that a router states as data: each name is an array of its cache, routing or
gradients, and each equation is whole.
"""

import re

import numpy as np
import pytest

from moe_np import routing as package
from tests.support.routers import CASES, route, setup

ROUTERS = package.routers()
every_router = pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS.keys())


def runs(router):
    """(params, routing, cache, gradients by name) of every case, in evaluation and in training."""
    for case in CASES.values():
        for seed in (None, 1):
            if case.router is not router:
                continue
            params, x = setup(case)
            routing, cache = route(case, params, x, seed)
            dweight = np.ones(len(routing.weight))
            at_logits = router.logits_backward(dweight, None, cache)
            dx, grads = router.route_backward(dweight, None, cache)
            named = at_logits._asdict() if isinstance(at_logits, tuple) else {"dlogits": at_logits}
            named |= {"dx": dx, **{f"d{name}": g for name, g in grads.items()}}
            yield params, routing, cache, named


def applies(stage, cache):
    """Whether a run went through the stage."""
    if stage.when is None:
        return True
    value = getattr(cache, stage.when[0])
    if isinstance(stage.when[1], bool):
        value = value is not None and (isinstance(value, np.ndarray) or bool(value))
    return value == stage.when[1]


@every_router
def test_every_name_is_an_array_with_these_axes(router):
    shown = set()
    for params, routing, cache, gradients in runs(router):
        for stage in (*router.STAGES, *router.BACKWARD):
            for name, axes in stage.arrays.items():
                sources = (gradients, params)
                values = [getattr(cache, name, None), getattr(routing, name, None)]
                values += [source.get(name) for source in sources]
                for value in values:
                    if value is not None and np.ndim(value) == len(axes.split()):
                        shown.add((stage.name, name))
                        break
    stated = {(s.name, name) for s in (*router.STAGES, *router.BACKWARD) for name in s.arrays}
    assert shown == stated


@every_router
def test_axes_of_one_letter_have_one_length(router):
    sizes = {"N": 12, "E": 4, "D": 5}
    for _, routing, cache, _ in runs(router):
        for stage in router.STAGES:
            for name, axes in stage.arrays.items():
                value = getattr(cache, name, None)
                value = getattr(routing, name, None) if value is None else value
                if value is not None:
                    for letter, size in zip(axes.split(), np.shape(value), strict=True):
                        assert size == sizes.get(letter, size), (stage.name, name)


@every_router
def test_a_condition_names_a_field_of_the_cache_and_both_values_occur(router):
    conditions = {s.when for s in (*router.STAGES, *router.BACKWARD)} - {None}
    caches = [cache for _, _, cache, _ in runs(router)]
    for field, value in conditions:
        values = [getattr(cache, field) for cache in caches]
        if isinstance(value, bool):
            values = [v is not None and (isinstance(v, np.ndarray) or bool(v)) for v in values]
        assert value in values, (field, value)


@every_router
def test_of_the_stages_for_one_array_exactly_one_applies(router):
    """Of both directions: an array that is shown is computed in one way."""
    for _, _, cache, _ in runs(router):
        for stages in (router.STAGES, router.BACKWARD):
            names = [name for stage in stages if applies(stage, cache) for name in stage.arrays]
            assert sorted(names) == sorted(set(names))
            weights = [stage for stage in stages if stage.name == "weights"]
            used = {name for stage in weights if applies(stage, cache) for name in stage.arrays}
            assert used == {name for stage in weights for name in stage.arrays}


@every_router
def test_the_last_stage_back_is_that_of_the_parameters(router):
    assert router.BACKWARD[-1].name == "parameters and tokens"
    assert "dx" in router.BACKWARD[-1].arrays


@every_router
def test_an_equation_is_whole(router):
    for stage in (*router.STAGES, *router.BACKWARD):
        text = stage.equation
        assert text.count("{") == text.count("}") and "$" not in text, text
        assert len(re.findall(r"\\Big\(|\\big\(", text)) == len(
            re.findall(r"\\Big\)|\\big\)", text)
        )
        assert not stage.note or stage.note.endswith("."), stage.note
