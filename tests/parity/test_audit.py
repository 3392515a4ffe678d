"""The audit of code in PyTorch and JAX: the banks of wrong routers, and the right ones."""

import importlib

import pytest

from moe_np import audit, routing

pytestmark = pytest.mark.parity


def bank(framework, name):
    """A file of tests/audit/bank, or a skip where its framework is not installed."""
    pytest.importorskip(framework)
    return importlib.import_module(f"tests.audit.bank.{framework}_{name}")


TORCH = (
    *("LoadThatCountsItself", "LoadOfDetachedThreshold", "SoftmaxTwice", "MaskedWithZero"),
    *("DetachedDenominator", "OneRenormalised", "OneRenormalisedWithEpsilon"),
    *("LayerOfOneRenormalised", "ImportanceOfASample", "ImportanceByStandardDeviation"),
    *("SwitchOfSelectedWeights", "SwitchDetached", "ZLossOfProbabilities", "ZLossOfTheMean"),
    *("DroppedAreCopied", "CapacityRoundedDown", "NoiseInEvaluation", "ThresholdTakesTies"),
    *("LosesDuplicates", "SoftmaxOverTheBatch", "StoredLoss", "BiasInTheWeights"),
    *("masks_become_nan", "JitterInPlace", "JitterReachesTheExperts"),
    *("CapacityAlongTheExperts", "GateWithoutGradient"),
)
JAX = (
    *("load_that_counts_itself", "load_with_stopped_gradient", "softmax_twice"),
    *("one_renormalised", "importance_of_a_sample", "switch_of_shares_only"),
    *("z_loss_not_squared", "dropped_are_copied", "capacity_rounded_down"),
    *("noise_without_a_switch", "threshold_takes_ties", "layer_that_loses_duplicates"),
    *("softmax_over_the_batch", "loss_in_a_global_list", "bias_in_the_weights"),
    *("masks_become_nan", "layer_with_jitter", "capacity_along_the_experts"),
)
WRONG = [("torch", name) for name in TORCH] + [("jax", name) for name in JAX]


@pytest.mark.parametrize(("framework", "name"), WRONG)
def test_a_wrong_router_is_named(framework, name):
    module = bank(framework, "bank")
    assert set(module.WRONG) == set(TORCH if framework == "torch" else JAX)
    erratum = module.WRONG[name]
    result = audit.audit(getattr(module, name), time_limit=120)
    assert result.framework == framework and result.faults
    assert result.errata == ([] if erratum is None else [erratum])


@pytest.mark.parametrize("name", routing.routers())
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_right_router_is_not_accused(framework, name):
    router = getattr(bank(framework, "right"), name)
    result = audit.assert_router(router, like=name, time_limit=120)
    assert result.framework == framework
    assert result.findings[0].verdict == "right"


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_without_a_hint(framework):
    module = bank(framework, "bank")
    for name in module.RIGHT:
        audit.assert_router(getattr(module, name), time_limit=120)
