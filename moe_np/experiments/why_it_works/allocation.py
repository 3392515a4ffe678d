"""Training runs of the allocation questions, and which expert took which region.

Dense: eight experts on the four vowels of Jacobs et al. (1991), two regions, the front and the back
pair. Sparse: eight cubic experts on the four clusters of Chen et al. (2022), one expert per sample,
by the algorithm of their code. The data are the same in all runs; a run differs in its
initialisation, and in the noise of the routing where there is any.
"""

from collections.abc import Iterator

import numpy as np

from moe_np.base.types import Params
from moe_np.data.speech.vowels import VowelTask
from moe_np.experiments.why_it_works.tasks import (
    LEARNING_RATES,
    MEAN_SUM,
    VARIANTS,
    is_front,
    patches,
    vowels,
)
from moe_np.layers import diagnostics
from moe_np.mixtures import jacobs1991
from moe_np.models import patch_cnn, patch_cnn_training

E = 8


def start_of_vowels(
    expert_seed: int, gate_seed: int | None = None, gate_range: float = 0.0
) -> Params:
    """Eight experts. The gate begins at 0, or uniform in ±gate_range if it has a seed."""
    params = jacobs1991.init_mixture(np.random.default_rng(expert_seed), E)
    if gate_seed is not None:
        rng = np.random.default_rng([gate_seed, 1])
        params |= {k: rng.uniform(-gate_range, gate_range, params[k].shape) for k in ("U", "c")}
    return params


def train_vowels(
    params: Params, *, keep: bool = False, stop: float = 0.08, max_epochs: int = 6000
) -> tuple[VowelTask, jacobs1991.Run]:
    """A mixture under eq. 3 to an error of `stop`: (data, run)."""
    data = vowels()
    options = {"lr": LEARNING_RATES["mixture"], "max_epochs": max_epochs, "keep": keep}
    options["stop"] = stop
    return data, jacobs1991.train_to_stop(params, data.x_train, data.d_train, **options)


def taken_vowels(data: VowelTask, params: Params) -> list[int]:
    """The expert that the gate prefers for each pair: [front, back]."""
    p = jacobs1991.gate_forward(params, data.x_train)[0]
    front = is_front(data.vowel_train)
    return [int(p[pair].mean(axis=0).argmax()) for pair in (front, ~front)]


def train_patches(
    expert_seed: int,
    gate_seed: int,
    noise_seed: int | None,
    *,
    gate_scale: float = 0.0,
    bias: float = 0.0,
    n: int = 2000,
    epochs: int = 120,
) -> Iterator[patch_cnn_training.TrainingPass]:
    """Chen et al.'s code from three seeds; noise_seed None is no noise.

    bias   the mean logit of the first expert at the beginning
    """
    data = patches(n)
    batch = data.train_batch
    rng = np.random.default_rng(expert_seed)
    params = patch_cnn.init(rng, E, 8, batch.x.shape[2], scale=1e-3, dtype=np.float32)
    if gate_scale:
        gate_rng = np.random.default_rng([gate_seed, 1])
        theta = gate_scale * gate_rng.normal(size=params["theta"].shape)
        params["theta"] = theta.astype(np.float32)
    params["theta"][0] += bias / MEAN_SUM * data.train.centers.sum(axis=0)
    draw = None
    if noise_seed is not None:
        draw = patch_cnn_training.uniform_noise(np.random.default_rng([noise_seed, 2]))
    options = {"activation": "cubic", "lr": 3e-3, "lr_router": 0.1, "epochs": epochs, "stop": False}
    yield from patch_cnn_training.train_mixture(
        params, batch, data.train.cluster, draw, **options, **VARIANTS["code"]
    )


def taken_patches(steps: Iterator[patch_cnn_training.TrainingPass], n: int) -> list[int]:
    """The expert that most samples of each cluster went to in the last pass."""
    *_, last = steps
    return diagnostics.table(last.expert, patches(n).train.cluster).argmax(axis=0).tolist()
