"""All checks of the audit in their order, by idea, and running one of them."""

import warnings
from collections.abc import Callable

import numpy as np

from moe_np.audit import (
    balance_value,
    capacity_rule,
    causality,
    edge_cases,
    expected_load,
    gradient_flow,
    identity,
    noise,
    padding,
)
from moe_np.audit.findings import Finding, fault
from moe_np.audit.subject import Subject

CHECKS: dict[str, Callable[[Subject], list[Finding]]] = {
    "reference router": identity.reference_router,
    "indices": identity.indices,
    "ties": identity.ties,
    "constant added to all logits": identity.shift,
    "order of the experts": identity.expert_order,
    "gradient to the gate": gradient_flow.reaches_the_gate,
    "gradient by projection": gradient_flow.projection,
    "gradient to unselected logits": gradient_flow.unselected,
    "expected load": expected_load.monte_carlo,
    "gradient of the load": expected_load.gradient,
    "load in evaluation": expected_load.evaluation,
    "balance loss": balance_value.which,
    "the batch given twice": balance_value.replication,
    "padding": padding.padding,
    "loss of several layers": balance_value.layers,
    "gradient of the balance loss": balance_value.gradient,
    "capacity": capacity_rule.rounding,
    "a dropped token": capacity_rule.dropped,
    "evaluation is deterministic": noise.evaluation,
    "the seed decides": noise.seed,
    "tokens are not changed": noise.tokens_unchanged,
    "noise and the experts": noise.reaches_the_experts,
    "scale of the noise": noise.scale,
    "other tokens of the batch": causality.other_tokens,
    "one token": edge_cases.one_token,
    "no tokens": edge_cases.no_tokens,
    "one expert": edge_cases.one_expert,
    "k = E": edge_cases.all_experts,
    "huge logits": edge_cases.huge_logits,
    "logits of −∞": edge_cases.infinite_logits,
    "dtype": edge_cases.single_precision,
    "half precision": edge_cases.half_precision,
}


def run(name: str, subject: Subject) -> list[Finding]:
    """The findings of one check. What the code under audit raises is a finding too."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return CHECKS[name](subject)
    except (Exception, SystemExit) as error:
        return [raised(name, error)]


def raised(check: str, error: BaseException) -> Finding:
    """A finding for code that raises."""
    text = " ".join(str(error).split())[:160]
    return fault(check, "the code raises an error", got=f"{type(error).__name__}: {text}")
