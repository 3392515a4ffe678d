"""Finer experts give equal outputs."""

import numpy as np
import pytest

from moe_np.adapt import adding, splitting
from moe_np.base.checks import InputError
from tests.support.adapted import SHARES, SPARSE, difference, params_of


@pytest.mark.parametrize("expert", ["swiglu", "gelu", "relu"])
@pytest.mark.parametrize("options", [{"k": 2, "renormalise": True}, SHARES])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_finer_experts_give_equal_outputs(expert, options, parts):
    config = SPARSE._replace(expert=expert, options=options, dense_layers=(1,), shared=1)
    params = params_of(config)
    new = splitting.split(config, params, parts=parts)
    assert new[0].experts == 4 * parts and new[0].options["k"] == 2 * parts
    assert new[0].hidden * parts == 8
    assert difference((config, params), new) < 1e-12


def test_a_closed_gate_stays_closed_in_its_slices():
    closed = adding.add(SPARSE, params_of(SPARSE), rng=np.random.default_rng(0))
    new = splitting.split(*closed, parts=2)
    assert difference(closed, new) < 1e-12
    assert adding.is_closed(new[1]["layers"][0]).tolist() == [False] * 8 + [True] * 2


def test_refusals():
    with pytest.raises(InputError, match="divisor of the 8 hidden units, got 3"):
        splitting.split(SPARSE, params_of(SPARSE), parts=3)
    switch = SPARSE._replace(router="switch", options={})
    with pytest.raises(InputError, match=r"config\.router"):
        splitting.split(switch, params_of(switch), parts=2)
