"""How wide a dense network must be to have the quality of a mixture, from the experiment
`language_model`.

Rule, fixed before the runs: of each seed, the validation loss of the model with 8 experts (of its
best checkpoint) is looked up on the line through three dense models, of loss against the logarithm
of the hidden units. So is found how many times as many hidden units as a token uses in the mixture
a dense network of the same loss has: `factor`, between 1 (equal operations) and 4 (equal memory).
Where the mixture is better or worse than all of them, it is the factor of the nearest one, and
`inside` is False.

The factor is carried over to the larger decoders of this experiment: it is a ratio of widths, and
the number of experts is the same. Models that are not stored are trained.
"""

import math
from collections.abc import Sequence
from typing import Any

from moe_np.experiments.common import pretrained
from moe_np.experiments.common.crossing import first_crossing
from moe_np.experiments.common.experiment import Result, Spec
from moe_np.experiments.language_model import runs as language_models

MIXTURE = language_models.EIGHT
DENSE = (language_models.DENSE, language_models.HALF, language_models.LARGE)


def models_of(config: language_models.Config, seed: int) -> dict[str, Spec]:
    """The specs of the four models of a seed, for `pretrained.trained`."""
    return {
        system: language_models.spec_of(config, system, seed)["model"]
        for system in (MIXTURE, *DENSE)
    }


def measured(models: dict[str, Spec]) -> Result:
    """Train or find the models: {"losses": {system: nats per token}, "factor", "inside"}."""
    losses = {}
    for system, spec in models.items():
        _, validations = pretrained.metrics(pretrained.trained(spec))
        losses[system] = min(record["validation_loss"] for record in validations)
    active = language_models.ACTIVE * _hidden(models[MIXTURE])
    factors = [_hidden(models[system]) / active for system in DENSE]
    factor, inside = factor_at(losses[MIXTURE], factors, [losses[system] for system in DENSE])
    return {"losses": losses, "factor": factor, "inside": inside}


def _hidden(spec: Any) -> int:
    return spec["changes"]["hidden"]


def factor_at(loss: float, factors: Sequence[float], losses: Sequence[float]) -> tuple[float, bool]:
    """The factor at which a dense network has this loss, and whether it is among those measured:
    the least one, by lines of loss against log factor.

    factors   rising
    """
    crossing = first_crossing(losses, loss)
    if crossing is None:
        return (factors[-1] if loss < min(losses) else factors[0]), False
    i, share = crossing
    return factors[i] * math.exp(share * math.log(factors[i + 1] / factors[i])), True
