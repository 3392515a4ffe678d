"""Low-rank adapters on experts (LoRA, Hu et al. 2021, arXiv 2106.09685, section 4.1).

    W' = W + s A B,    s = α/r

    paper    here     shape          meaning
    W₀       w1, w3, w2              the matrices of an expert, frozen; each expert has adapters
    A        "a"      (E, in, r)     normal with standard deviation 1/√in
    B        "b"      (E, r, out)    0 at the beginning: then the model is what it was, to the bit
    r, α     rank, alpha             s = α/r

(The paper writes W x, this package x W: its B A is A B here.) The adapters are a tree like that of
the parameters, {"layers": [{"w1": {"a", "b"}, ...}, ...]}, with {} for a layer without a router.

They are applied by merging: the model computes with W', so that merged adapters give the same bits.
That costs E in·out·r multiplications per step, less than a forward pass where a step has more
tokens than r E/k. The gradients: dA = s dW' Bᵀ, dB = s Aᵀ dW'.
"""

from typing import Any

import numpy as np

from moe_np.adapt import layer_parts
from moe_np.base import checks
from moe_np.base.checks import InputError
from moe_np.base.types import ArrayBT, Rng
from moe_np.models import decoder
from moe_np.models.decoder_config import Config, Tree

MATRICES = ("w1", "w3", "w2")


def init(rng: Rng, config: Config, params: Tree, *, rank: int) -> Tree:
    """Adapters for all matrices of all experts in layers with a router.

    Raises InputError for a model without experts, and for a rank above the smaller side of a
    matrix.
    """
    checks.generator("rng", rng)
    layers = layer_parts.check_sparse(config, params)
    least = min(config.d_model, config.hidden)
    rank = checks.integer("rank", rank, minimum=1, maximum=least)
    return {
        "layers": [
            _of_layer(rng, layer["experts"], rank) if number in layers else {}
            for number, layer in enumerate(params["layers"])
        ]
    }


def _of_layer(rng, experts, rank):
    adapters = {}
    for name in MATRICES:
        if name in experts:
            E, n_in, n_out = experts[name].shape
            a = rng.normal(size=(E, n_in, rank)) / np.sqrt(n_in)
            dtype = experts[name].dtype
            adapters[name] = {"a": a.astype(dtype), "b": np.zeros((E, rank, n_out), dtype)}
    return adapters


def merged(params: Tree, adapters: Tree, *, alpha: float) -> Tree:
    """The parameters with W + s A B in place of W. Leaves without an adapter are the same arrays.

    Raises InputError for adapters of another model.
    """
    alpha = checks.number("alpha", alpha)
    if len(adapters["layers"]) != len(params["layers"]):
        wanted = f"adapters of {len(params['layers'])} layers"
        raise InputError(f"adapters: wanted {wanted}, got {len(adapters['layers'])}")
    layers = []
    for layer, of_layer in zip(params["layers"], adapters["layers"], strict=True):
        experts = dict(layer["experts"])
        for name, pair in of_layer.items():
            w = experts[name]
            a = checks.array(f"adapters: {name}: a", pair["a"], (*w.shape[:2], "r"), finite=False)
            b_shape = (len(w), a.shape[2], w.shape[2])
            b = checks.array(f"adapters: {name}: b", pair["b"], b_shape, finite=False)
            experts[name] = w + w.dtype.type(alpha / a.shape[2]) * (a @ b)
        layers.append({**layer, "experts": experts})
    return {**params, "layers": layers}


def merged_backward(grads: Tree, adapters: Tree, *, alpha: float) -> Tree:
    """The gradients of the model's parameters -> those of the adapters."""
    layers = []
    for of_grads, of_layer in zip(grads["layers"], adapters["layers"], strict=True):
        of_adapters = {}
        for name, pair in of_layer.items():
            a, b = pair["a"], pair["b"]
            dw = of_grads["experts"][name] * a.dtype.type(alpha / a.shape[2])
            of_adapters[name] = {"a": dw @ b.swapaxes(1, 2), "b": a.swapaxes(1, 2) @ dw}
        layers.append(of_adapters)
    return {"layers": layers}


def loss_and_grads(
    adapters: Tree,
    params: Tree,
    ids: ArrayBT,
    targets: ArrayBT,
    config: Config,
    *,
    alpha: float,
    **options: Any,
) -> tuple[decoder.Loss, Tree]:
    """`decoder.loss_and_grads` of the adapted model: (Loss, gradients of the adapters).

    options   those of `decoder.loss_and_grads`
    """
    model = merged(params, adapters, alpha=alpha)
    losses, grads = decoder.loss_and_grads(model, ids, targets, config, **options)
    return losses, merged_backward(grads, adapters, alpha=alpha)
