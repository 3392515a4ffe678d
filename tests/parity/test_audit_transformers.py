"""What the audit says of Transformers' mixture-of-experts blocks and balance losses.

Right are Mixtral (without jitter), OLMoE, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2 and V3, Switch (without
jitter). What is found: with jitter, Mixtral and Switch multiply the caller's tokens in place and
the experts see the noise (errata 32); the balance loss of Mixtral pools all layers into one product
(errata 27) and is k at balance (errata 6, a convention). `torch.topk` breaks ties in another way.
"""

import pytest

from moe_np import audit
from moe_np.audit import transformers_blocks

pytest.importorskip("torch")
pytest.importorskip("transformers", "5.24")
pytestmark = pytest.mark.parity

RIGHT = {
    "mixtral_without_jitter": "top_k(k=2, renormalise=True)",
    "olmoe": "top_k(k=2, renormalise=False)",
    "qwen2_moe": "top_k(k=2, renormalise=False)",
    "qwen3_moe": "top_k(k=2, renormalise=True)",
    "deepseek_v2": "top_k(k=2, renormalise=False)",
    "deepseek_v3": "bias_balanced(k=2, renormalise=True)",
    "switch_without_jitter": "top_k(k=1, renormalise=False), 5 places per expert",
}


def audited(name):
    return audit.audit(getattr(transformers_blocks, name), framework="torch", time_limit=60)


def texts(report, check):
    return [finding.text for finding in report.findings if finding.check == check]


@pytest.mark.parametrize(("name", "rule"), RIGHT.items())
def test_a_block_is_right(name, rule):
    report = audited(name)
    assert not report.faults, report
    assert texts(report, "reference router")[0].startswith(f"equal to {rule}")
    assert texts(report, "noise and the experts") == [
        "the output is a weighted sum of the experts at x"
    ]


@pytest.mark.parametrize("name", ["mixtral", "switch"])
def test_jitter_changes_the_tokens_of_the_caller(name):
    report = audited(name)
    assert report.errata == [32]
    checks = {finding.check for finding in report.faults}
    assert checks == {"tokens are not changed", "noise and the experts"}


def test_the_balance_loss_of_mixtral_pools_the_layers():
    report = audited("mixtral_loss")
    assert report.errata == [27]
    assert texts(report, "balance loss") == ["not divided by k: 2 times as large, 2 at balance"]


@pytest.mark.parametrize(("name", "rule"), [("switch_loss", "switch"), ("switch_z_loss", "z_loss")])
def test_the_losses_of_switch(name, rule):
    report = audited(name)
    assert not report.faults and rule in texts(report, "balance loss")[0]
